package rounds

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/services/poet"
)

// wrongClock is a wall clock that is off by so many nanoseconds.
type wrongClock struct{ atomic.Int64 }

func (w *wrongClock) now() time.Time { return time.Now().Add(time.Duration(w.Load())) }

// thousandYears is as far ahead as a Duration can say: the clock itself is tested
// with the rest of them.
const thousandYears = 1<<63 - 1

// clocked is a configuration with a wall clock that can be set, and epochs in which
// a jump is believed after two seconds.
func clocked(t *testing.T) (Config, *wrongClock) {
	cfg := config(t, time.Now())
	cfg.Schedule.EpochDuration, cfg.Schedule.PhaseShift, cfg.Schedule.CycleGap = 20*time.Second, 10*time.Second, 8*time.Second
	wall := &wrongClock{}
	cfg.Wall = wall.now
	return cfg, wall
}

// One reading of the clock, an epoch or centuries ahead, wherever in the life of a
// round: no registration, no leaf and no round is lost by it.
func TestOneReadingOfTheClockCostsNothing(t *testing.T) {
	for _, by := range []time.Duration{20 * time.Second, thousandYears, -time.Hour} {
		for _, when := range []time.Duration{2 * time.Second, 15 * time.Second} { // open; executing
			synctest.Test(t, func(t *testing.T) {
				cfg, wall := clocked(t)
				s := start(t, cfg)
				defer s.close()
				receipts := []poet.Receipt{s.register(1)}
				time.Sleep(when)
				wall.Store(int64(by))
				time.Sleep(1500 * time.Millisecond) // shorter than what is believed
				if when < cfg.Schedule.PhaseShift {
					receipts = append(receipts, s.register(2))
				}
				wall.Store(0)
				if s.count(poet.EventClockJumped) == 0 {
					t.Errorf("by %s after %s: nobody was told", by, when)
				}
				<-s.proofs
				if late := time.Since(cfg.Schedule.End(0)); late.Abs() > time.Second {
					t.Errorf("by %s after %s: round 0 was proved %s after its end", by, when, late)
				}
				p := s.checkProof("0")
				if n := p.Message.Proof.NumLeaves; n < 11_500 || len(p.Members) != len(receipts) {
					t.Errorf("by %s after %s: %d leaves for %d members", by, when, n, len(p.Members))
				}
				for _, r := range receipts {
					s.checkMember(r)
				}
				if got := s.Info().OpenRound; got != "1" || s.count(poet.EventClockFollowed) != 0 {
					t.Errorf("by %s after %s: round %s is open", by, when, got)
				}
			})
		}
	}
}

// A jump that lasts is followed, and told. When the clock is right again nothing is
// lost: the far round has no members and gives way by itself.
func TestAJumpThatLastsIsFollowedAndUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, wall := clocked(t)
		s := start(t, cfg)
		defer s.close()
		receipt := s.register(1)
		wall.Store(int64(24 * time.Hour))
		time.Sleep(5 * time.Second)
		if got := s.Info().OpenRound; got != "4320" || s.count(poet.EventClockFollowed) != 1 {
			t.Fatalf("round %s is open, followed %d times", got, s.count(poet.EventClockFollowed))
		}
		wall.Store(0)
		time.Sleep(5 * time.Second)
		// Round 0 closed early, its root is known: 1 is the round of the clock now.
		if got := s.Info().OpenRound; got != "1" || s.count(poet.EventStrayed) != 1 {
			t.Fatalf("round %s is open, told %d times", got, s.count(poet.EventStrayed))
		}
		if r := s.register(2); r.Round != "1" {
			t.Fatalf("registered in round %s", r.Round)
		}
		<-s.proofs
		s.checkProof("0")
		s.checkMember(receipt)
	})
}

// A machine that boots with its clock a day ahead, for the first time in its life:
// when the clock is right, so is the open round (without members by itself, with
// members when an administrator says so, and never in silence).
func TestAFirstStartWithAWrongClock(t *testing.T) {
	for _, members := range []int{0, 2} {
		synctest.Test(t, func(t *testing.T) {
			cfg, wall := clocked(t)
			wall.Store(int64(24 * time.Hour))
			s := start(t, cfg)
			time.Sleep(4 * time.Second)
			var far []poet.Receipt
			for i := range members {
				far = append(far, s.register(i))
			}
			s.close()
			wall.Store(0)
			s = start(t, cfg)
			defer s.close()
			time.Sleep(time.Second)
			if members == 0 {
				if got := s.Info().OpenRound; got != "0" {
					t.Fatalf("round %s is open", got)
				}
				s.register(1)
				return
			}
			_, err := s.Submit(context.Background(), request(s.PowParams(), 7))
			if !errors.Is(err, poet.ErrBusy) || s.count(poet.EventStrayed) != 1 {
				t.Fatalf("a registration in a round of tomorrow: %v, told %d times", err, s.count(poet.EventStrayed))
			}
			if open, err := s.Reopen(t.Context()); err != nil || open != "0" {
				t.Fatalf("reopened round %s, %v", open, err)
			}
			near := s.register(7)
			<-s.proofs
			s.checkMember(near)
			// The far round comes when its time has come, with those who are in it.
			wall.Store(int64(24 * time.Hour))
			for round := range s.proofs {
				if round == far[0].Round {
					break
				}
			}
			for _, r := range far {
				s.checkMember(r)
			}
		})
	}
}

// At a start the clock says that a round is over, and a moment later that it is not:
// it goes on as if the clock had been right.
func TestAStartWhileTheClockIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, wall := clocked(t)
		s := start(t, cfg)
		s.register(1)
		time.Sleep(15 * time.Second) // executing
		s.close()
		wall.Store(int64(70 * 365 * 24 * time.Hour))
		s = start(t, cfg)
		defer s.close()
		time.Sleep(time.Second)
		if _, err := s.Submit(context.Background(), request(s.PowParams(), 2)); !errors.Is(err, poet.ErrBusy) {
			t.Errorf("a registration while the clock is looked at: %v", err)
		}
		wall.Store(0)
		<-s.proofs
		if n := s.checkProof("0").Message.Proof.NumLeaves; n < 8000 || s.count(poet.EventClockChecked) != 1 {
			t.Errorf("%d leaves, told %d times", n, s.count(poet.EventClockChecked))
		}
	})
}

// A clock that jumps for ever decides nothing at a start: the server ends, says why,
// and the round is as it was.
func TestAStartWithAClockThatNeverSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, wall := clocked(t)
		s := start(t, cfg)
		s.register(1)
		s.close()
		begin := time.Now()
		cfg.Wall = func() time.Time { return wall.now().Add(time.Hour + 10*time.Since(begin)) } // it runs ahead, for ever
		s = start(t, cfg)
		if err := <-s.ended; err == nil || !strings.Contains(err.Error(), "the clock of this machine has jumped") {
			t.Errorf("error %v", err)
		}
		if open := s.Info().OpenRound; open != "0" || s.count(poet.EventClosed) != 0 {
			t.Errorf("round %s is open", open)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		cfg.Wall = wall.now
		s = start(t, cfg)
		defer s.close()
		<-s.proofs
		s.checkProof("0")
	})
}

// What the configuration asks for counts at once, whatever was stored before: after
// an import, which knows no difficulty, and after a raise.
func TestEasyWorkIsRefusedAfterARaise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		for i, difficulty := range []uint{0, 6, 2} {
			cfg.PowDifficulty = difficulty
			s := start(t, cfg)
			asked := s.PowParams()
			if asked.Difficulty != difficulty {
				t.Fatalf("difficulty %d is asked for, %d is configured", asked.Difficulty, difficulty)
			}
			for other := range uint(8) {
				p := asked
				p.Difficulty = other
				_, err := s.Submit(context.Background(), request(p, 10*i+int(other)))
				if (err == nil) != (other == difficulty) {
					t.Errorf("difficulty %d is configured, a registration with %d: %v", difficulty, other, err)
				}
			}
			s.close()
		}
	})
}
