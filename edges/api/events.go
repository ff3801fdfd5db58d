package api

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/edges/store"
	"tweedle/protocol/core"
	"tweedle/protocol/vm"
)

// Event is something that streams tell: one of the types below. Events are
// shared between subscribers and must not be changed.
type Event interface{ event() }

// Applied tells that a layer was written to the store.
type Applied struct{ store.LayerResult }

// Accepted tells that a transaction waits for a block.
type Accepted struct{ vm.Tx }

// Left tells that a transaction does not wait any more and was not applied.
type Left struct {
	vm.Tx
	Cause core.Cause
}

// Activated tells that a valid ATX was stored.
type Activated struct{ store.ATXRecord }

func (Applied) event()   {}
func (Accepted) event()  {}
func (Left) event()      {}
func (Activated) event() {}

// Limits of streams.
const (
	// MaxSubscribers is how many streams can be open; of one address only
	// Limits.AddressCalls are.
	MaxSubscribers = 1024
	// MaxBacklog is how many events a subscriber may be behind.
	MaxBacklog = 1024
)

// Events passes what happens in the node to the streams, and knows which
// transactions wait. It has no goroutine.
type Events struct {
	waiting     *waiting
	mu          sync.Mutex // guards what follows
	subscribers map[*subscription]struct{}
	closed      bool
}

// NewEvents returns a bus without subscribers.
func NewEvents() *Events {
	return &Events{waiting: newWaiting(), subscribers: make(map[*subscription]struct{})}
}

// Publish never blocks: a subscriber that is MaxBacklog behind is dropped.
func (e *Events) Publish(ev Event) {
	e.waiting.happened(ev)
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subscribers {
		select {
		case s.events <- ev:
		default:
			s.end = status.Errorf(codes.ResourceExhausted, "stream is dropped, its reader is %d events behind: subscribe again", MaxBacklog)
			e.dropLocked(s)
		}
	}
}

// subscription is one stream's share. end is set before events is closed.
type subscription struct {
	events chan Event
	end    error
}

func (e *Events) subscribe() (*subscription, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, errStopping
	case len(e.subscribers) >= MaxSubscribers:
		return nil, status.Error(codes.ResourceExhausted, "too many streams are open: try later")
	}
	s := &subscription{events: make(chan Event, MaxBacklog)}
	e.subscribers[s] = struct{}{}
	return s, nil
}

var errStopping = status.Error(codes.Unavailable, "node is stopping")

func (e *Events) unsubscribe(s *subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropLocked(s)
}

func (e *Events) dropLocked(s *subscription) {
	if _, ok := e.subscribers[s]; ok {
		delete(e.subscribers, s)
		close(s.events)
	}
}

// close ends all streams.
func (e *Events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for s := range e.subscribers {
		s.end = errStopping
		e.dropLocked(s)
	}
}

// follow subscribes, calls begin, and then each for every event until the
// client leaves or an error ends the stream. Events that happen during begin
// are not lost.
func (e *Events) follow(ctx context.Context, begin func() error, each func(Event) error) error {
	s, err := e.subscribe()
	if err != nil {
		return err
	}
	defer e.unsubscribe(s)
	if begin != nil {
		if err := begin(); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case ev, ok := <-s.events:
			if !ok {
				return s.end
			}
			if err := each(ev); err != nil {
				return err
			}
		}
	}
}
