package smeshing

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"tweedle/proofs/post"
)

// turn is held by the one identity of a node that computes on its space: so they share the
// workers. Who proves has the next turn, those who came first before the others, as a proof has
// an end; who fills, which takes days and can go on later, makes room for it.
//
// A holder that does not get on for a while, as on a disk that does not answer, keeps nobody
// waiting: the next one goes on beside it.
type turn struct {
	stuck time.Duration // how long a holder may be silent

	mu     sync.Mutex // guards what follows, and tickets
	holder *ticket    // nil: nobody
	queue  []*ticket  // in the order in which they came
}

type ticket struct {
	proves bool
	ready  chan struct{}
	alive  time.Time // when its holder was seen last
}

// enter waits for a turn; false if ctx ended first.
func (t *turn) enter(ctx context.Context, proves bool) (*ticket, bool) {
	k := &ticket{proves: proves, ready: make(chan struct{})}
	t.mu.Lock()
	t.queue = append(t.queue, k)
	t.mu.Unlock()
	ticker := time.NewTicker(max(t.stuck/4, time.Millisecond)) // a network may have a cycle gap of nothing
	defer ticker.Stop()
	for {
		t.next()
		select {
		case <-k.ready:
			return k, true
		case <-ctx.Done():
			t.leave(k)
			return nil, false
		case <-ticker.C:
		}
	}
}

// next gives the turn to the next one, if it is free or its holder is stuck.
func (t *turn) next() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 || t.holder != nil && time.Since(t.holder.alive) < t.stuck {
		return
	}
	i := max(0, slices.IndexFunc(t.queue, func(k *ticket) bool { return k.proves }))
	t.holder = t.queue[i]
	t.holder.alive = time.Now()
	t.queue = slices.Delete(t.queue, i, i+1)
	close(t.holder.ready)
}

// leave ends a turn, or the wait for one.
func (t *turn) leave(k *ticket) {
	t.mu.Lock()
	t.queue = slices.DeleteFunc(t.queue, func(o *ticket) bool { return o == k })
	if t.holder == k {
		t.holder = nil
	}
	t.mu.Unlock()
	t.next()
}

// goesOn notes that a holder gets on, and tells whether it is to make room.
func (t *turn) goesOn(k *ticket) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k.alive = time.Now()
	return !k.proves && slices.ContainsFunc(t.queue, func(o *ticket) bool { return o.proves })
}

// atTurn computes on the space with all workers when it is our turn. What does not prove for
// an ATX makes room for what does, and begins again after it.
func (s *Smesher) atTurn(ctx context.Context, proves bool, compute func(cancel func() bool) error) error {
	for {
		s.say(0, "waits for another space of this node")
		k, ok := s.turn.enter(ctx, proves)
		if !ok {
			return ctx.Err()
		}
		s.say(0, "")
		done := yield(max(1, s.cfg.Workers))
		err := compute(func() bool { return s.turn.goesOn(k) || ctx.Err() != nil })
		done()
		s.turn.leave(k)
		if !errors.Is(err, post.ErrCancelled) || ctx.Err() != nil {
			return err
		}
	}
}
