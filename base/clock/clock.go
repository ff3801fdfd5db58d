// Package clock tells the time of the world to a process that must not act on one
// wrong reading of it.
//
// It promises: time goes on with the machine's monotonic clock and follows the
// wall clock. A wall clock that jumps, ahead or back, by more than the tolerance is
// followed only once its readings have stayed there for the patience; until then
// [Clock.Now] goes on as if nothing had happened. Each such jump is told.
//
// It leaves to its users to look now and then, at least every [Clock.Until], and
// to stand a Now that goes back.
package clock

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Bounds of what New takes from the length of an epoch: a wall clock off by the
// tolerance closes a round so much too early or late, and a wrong one is believed
// after the patience. A machine that slept notices so late, too.
const (
	maxTolerance = time.Second
	minTolerance = 100 * time.Millisecond // readings of a busy machine
	maxPatience  = time.Minute
	minLook      = 10 * time.Millisecond

	// settlePatiences is for how many patiences Settle waits for an even clock.
	settlePatiences = 10
)

// Jump is a difference between the wall clock and the time that was told.
type Jump struct {
	Wall time.Time     // what the wall clock reads
	By   time.Duration // how far that is ahead, or back; 292 years at most
	// Followed is false when the jump is seen, and true when it has lasted and
	// Now is what the wall clock reads.
	Followed bool
}

// Clock is the wall clock, believed with care. Its methods may be called
// concurrently.
type Clock struct {
	tolerance, patience time.Duration

	read  func() time.Time
	tell  func(Jump)
	start time.Time // with a monotonic reading, which all others are counted from

	mu    sync.Mutex
	base  time.Time     // what Now was at start, going by what is believed today
	doubt bool          // the wall clock has jumped, and is not followed yet
	there time.Time     // to where: what base would be
	since time.Duration // seen so long after start
}

// New returns a clock for a schedule with epochs of that length. It begins with
// what the wall clock reads now. wall, if not nil, is read in place of the
// machine's. tell, if not nil, is told every jump; it must return at once and not
// ask the clock.
func New(epoch time.Duration, wall func() time.Time, tell func(Jump)) *Clock {
	if wall == nil {
		wall = func() time.Time { return time.Now().Round(0) } // without the monotonic reading
	}
	if tell == nil {
		tell = func(Jump) {}
	}
	return &Clock{
		tolerance: min(max(epoch/20, minTolerance), maxTolerance),
		patience:  min(epoch/10, maxPatience),
		read:      wall, tell: tell, start: time.Now(), base: wall(),
	}
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, passed := c.read(), time.Since(c.start)
	there := wall.Add(-passed)
	off := there.Sub(c.base)
	switch {
	case off.Abs() <= c.tolerance:
		c.base, c.doubt = there, false
	case !c.doubt || there.Sub(c.there).Abs() > c.tolerance:
		c.doubt, c.there, c.since = true, there, passed
		c.tell(Jump{wall, off, false})
	case passed-c.since >= c.patience:
		c.base, c.doubt = there, false
		c.tell(Jump{wall, off, true})
	}
	return c.base.Add(passed)
}

// Until returns how long to sleep for something that is due at t: no longer than
// one may go without a look at the clock.
func (c *Clock) Until(t time.Time) time.Duration {
	return min(max(t.Sub(c.Now()), 0), c.look())
}

func (c *Clock) look() time.Duration { return max(c.patience/4, minLook) }

// Patience returns for how long a jump must last before it is followed.
func (c *Clock) Patience() time.Duration { return c.patience }

// Settle waits until the wall clock has gone on evenly for the patience, and
// begins anew with what it reads then; or until ctx ends. It is for a start, when
// the first reading would decide something that cannot be taken back: the clock
// of a machine that boots is often set right a moment later. A clock that is still
// uneven after settlePatiences is not waited for: the error says so.
func (c *Clock) Settle(ctx context.Context) error {
	first, jumps := time.Now(), 0
	for begin := c.restart(); time.Since(begin) < c.patience; {
		Sleep(ctx, c.look())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.mu.Lock()
		even := c.read().Sub(c.base.Add(time.Since(c.start))).Abs() <= c.tolerance
		c.mu.Unlock()
		if even {
			continue
		}
		jumps++
		if took := time.Since(first); took >= settlePatiences*c.patience {
			return fmt.Errorf("the clock of this machine has jumped %d times in %s: see what sets it, one service should, and start again", jumps, took.Round(time.Millisecond))
		}
		begin = c.restart()
	}
	return nil
}

// restart believes what the wall clock reads, and returns the monotonic time.
func (c *Clock) restart() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.base, c.doubt = c.read().Add(-now.Sub(c.start)), false
	return now
}

// Sleep waits for d, or until ctx ends, and tells whether ctx is still alive.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
