package clock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wrong is a wall clock that is off by so many nanoseconds.
type wrong struct{ by atomic.Int64 }

func (w *wrong) now() time.Time      { return time.Now().Add(time.Duration(w.by.Load())) }
func (w *wrong) set(d time.Duration) { w.by.Store(int64(d)) }

// bubble runs a test with a clock for epochs of a day, a wall clock that it can
// set, and what the clock has told.
func bubble(t *testing.T, test func(t *testing.T, c *Clock, wall *wrong, told *[]string)) {
	synctest.Test(t, func(t *testing.T) {
		wall, told := &wrong{}, &[]string{}
		c := New(24*time.Hour, wall.now, func(j Jump) { *told = append(*told, fmt.Sprint(j.By.Round(time.Second), " ", j.Followed)) })
		test(t, c, wall, told)
	})
}

// off returns how far the clock is from the truth.
func off(c *Clock) time.Duration { return c.Now().Sub(time.Now()) }

const year = 365 * 24 * time.Hour

func TestAReadingThatDoesNotLastCostsNothing(t *testing.T) {
	for _, by := range []time.Duration{2 * time.Second, time.Hour, 24 * time.Hour, 280 * year, -time.Hour, -50 * year} {
		bubble(t, func(t *testing.T, c *Clock, wall *wrong, told *[]string) {
			time.Sleep(time.Hour)
			wall.set(by)
			for range 59 {
				if off(c) != 0 {
					t.Fatalf("by %s: off by %s", by, off(c))
				}
				time.Sleep(time.Second)
			}
			wall.set(0)
			if off(c) != 0 || len(*told) != 1 {
				t.Fatalf("by %s: off by %s, told %q", by, off(c), *told)
			}
			// A minute of glances, none of which lasts, is no minute.
			for i := range 200 {
				wall.set(by * time.Duration(i%2))
				if off(c) != 0 {
					t.Fatalf("by %s, now and then: off by %s", by, off(c))
				}
				time.Sleep(time.Second)
			}
		})
	}
}

func TestAJumpThatLastsIsFollowed(t *testing.T) {
	for _, by := range []time.Duration{2 * time.Second, time.Hour, 280 * year, -time.Hour} {
		bubble(t, func(t *testing.T, c *Clock, wall *wrong, told *[]string) {
			wall.set(by)
			c.Now()
			time.Sleep(time.Minute)
			if off(c) != by {
				t.Fatalf("off by %s, want %s", off(c), by)
			}
			if len(*told) != 2 || (*told)[1] != fmt.Sprint(by, " true") {
				t.Fatalf("told %q", *told)
			}
		})
	}
}

// The thousand years that a time.Duration does not hold.
func TestAMillennium(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wall := time.Now
		c := New(time.Hour, func() time.Time { return wall() }, nil)
		wall = func() time.Time { return time.Now().AddDate(1000, 0, 0) }
		if off(c) != 0 {
			t.Fatal("one reading is believed")
		}
		time.Sleep(c.Patience())
		if got := c.Now(); !got.Equal(wall()) {
			t.Fatalf("%s, and it has lasted", got)
		}
	})
}

// Two readings that are further apart than a duration can say are two readings.
func TestFromOneMillenniumToAnother(t *testing.T) {
	for _, years := range [][2]int{{1000, -1000}, {1000, 2000}, {-1000, 1000}} {
		synctest.Test(t, func(t *testing.T) {
			wall := time.Now
			c := New(time.Hour, func() time.Time { return wall() }, nil)
			for _, y := range years {
				wall = func() time.Time { return time.Now().AddDate(y, 0, 0) }
				if off(c) != 0 {
					t.Fatal("one reading is believed")
				}
				time.Sleep(c.Patience() * 3 / 4)
			}
			if off(c) != 0 {
				t.Fatalf("%v: two readings that did not last are believed", years)
			}
		})
	}
}

// What a time service does all day is followed at once and told nobody.
func TestSmallStepsAreFollowed(t *testing.T) {
	bubble(t, func(t *testing.T, c *Clock, wall *wrong, told *[]string) {
		var by time.Duration
		for i := range 100 {
			by += time.Duration(i%5-1) * 300 * time.Millisecond
			wall.set(by)
			if off(c) != by {
				t.Fatalf("off by %s, want %s", off(c), by)
			}
			time.Sleep(time.Minute)
		}
		if len(*told) != 0 {
			t.Fatalf("told %q", *told)
		}
	})
}

// Nobody sleeps so long that a jump is overlooked, and nobody in vain.
func TestUntil(t *testing.T) {
	bubble(t, func(t *testing.T, c *Clock, _ *wrong, _ *[]string) {
		for due, want := range map[time.Duration]time.Duration{-time.Hour: 0, 0: 0, time.Second: time.Second, time.Hour: 15 * time.Second} {
			if got := c.Until(time.Now().Add(due)); got != want {
				t.Errorf("due in %s: sleep %s, want %s", due, got, want)
			}
		}
	})
}

// The times follow from the epoch: a local network must not lose rounds to it, and
// a long epoch does not make a machine that slept wait for hours.
func TestTimesFollowFromTheEpoch(t *testing.T) {
	for epoch, want := range map[time.Duration][2]time.Duration{
		14 * 24 * time.Hour:    {time.Second, time.Minute},
		20 * time.Second:       {time.Second, 2 * time.Second},
		600 * time.Millisecond: {100 * time.Millisecond, 60 * time.Millisecond},
	} {
		c := New(epoch, nil, nil)
		if got := [2]time.Duration{c.tolerance, c.patience}; got != want {
			t.Errorf("epoch of %s: %v, want %v", epoch, got, want)
		}
	}
}

// A machine boots with a wrong clock, which is set right some seconds later.
func TestSettle(t *testing.T) {
	bubble(t, func(t *testing.T, c *Clock, wall *wrong, told *[]string) {
		wall.set(70 * year)
		time.AfterFunc(40*time.Second, func() { wall.set(0) })
		begin := time.Now()
		if err := c.Settle(t.Context()); err != nil {
			t.Error(err)
		}
		if off(c) != 0 {
			t.Errorf("off by %s", off(c))
		}
		if took := time.Since(begin); took < c.Patience()+40*time.Second || took > 2*c.Patience()+time.Second {
			t.Errorf("took %s", took)
		}
		if len(*told) != 0 {
			t.Errorf("told %q", *told)
		}
	})
}

// A clock that jumps for ever is not waited for for ever, and that is said; a start
// that is stopped meanwhile ends at once.
func TestSettleHasAnEnd(t *testing.T) {
	for stopped, want := range map[time.Duration]time.Duration{
		24 * time.Hour:  settlePatiences*time.Minute + 15*time.Second,
		2 * time.Minute: 2 * time.Minute,
	} {
		bubble(t, func(t *testing.T, c *Clock, wall *wrong, _ *[]string) {
			ctx, cancel := context.WithTimeout(t.Context(), stopped)
			defer cancel()
			go func() {
				for ; ctx.Err() == nil; Sleep(ctx, 30*time.Second) {
					wall.set(time.Duration(wall.by.Load()) + time.Hour)
				}
			}()
			begin := time.Now()
			err := c.Settle(ctx)
			if took := time.Since(begin); err == nil || took > want || errors.Is(err, context.DeadlineExceeded) != (took == stopped) {
				t.Errorf("after %s: %v", took, err)
			}
		})
	}
}

// What the clock of this machine says is what this machine's clock says.
func TestTheMachinesClock(t *testing.T) {
	c := New(time.Hour, nil, func(j Jump) { t.Errorf("told %+v", j) })
	for range 1000 {
		if off(c).Abs() > time.Second {
			t.Fatalf("off by %s", off(c))
		}
	}
}
