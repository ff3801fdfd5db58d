package page

import (
	"encoding/json"
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Limits of the readers.
const (
	maxReaders  = 100
	readerQueue = 8 // changes that a reader may be behind
)

var (
	errFull  = errors.New("too many readers")
	errEnded = errors.New("the watch stops")
)

// hub gives every reader the whole once and then each change. Nobody waits for a reader.
type hub struct {
	dropped, refused prometheus.Counter

	mu      sync.Mutex // guards the following
	parts   Parts      // nil: nothing yet
	readers map[chan []byte]bool
	ended   bool
}

func newHub(reg prometheus.Registerer) *hub {
	with := promauto.With(reg)
	h := &hub{
		readers: map[chan []byte]bool{},
		dropped: with.NewCounter(prometheus.CounterOpts{Name: "tweedle_watch_page_readers_dropped_total", Help: "Readers of the page that did not read in time and were dropped."}),
		refused: with.NewCounter(prometheus.CounterOpts{Name: "tweedle_watch_page_readers_refused_total", Help: "Readers of the page that were refused because there were too many."}),
	}
	with.NewGaugeFunc(prometheus.GaugeOpts{Name: "tweedle_watch_page_readers", Help: "Readers of the page."}, func() float64 {
		h.mu.Lock()
		defer h.mu.Unlock()
		return float64(len(h.readers))
	})
	return h
}

// publish makes parts the newest.
func (h *hub) publish(p Parts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change := p.since(h.parts)
	change.Whole = h.parts == nil
	h.parts = p
	if len(h.readers) == 0 || len(change.Set)+len(change.Gone) == 0 {
		return
	}
	b := encode(change)
	for r := range h.readers {
		select {
		case r <- b:
		default: // it gets the whole when it comes again
			h.dropLocked(r)
		}
	}
}

// join adds a reader. Its channel is closed when it is dropped, or the watch stops.
func (h *hub) join() (chan []byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
		return nil, errEnded
	case len(h.readers) >= maxReaders:
		h.refused.Inc()
		return nil, errFull
	}
	r := make(chan []byte, readerQueue)
	if h.parts != nil {
		r <- encode(Change{Whole: true, Set: h.parts})
	}
	h.readers[r] = true
	return r, nil
}

// leave removes a reader that goes by itself.
func (h *hub) leave(r chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
}

// drop removes a reader that does not read, once.
func (h *hub) drop(r chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropLocked(r)
}

// dropLocked is drop for who holds mu.
func (h *hub) dropLocked(r chan []byte) {
	if h.readers[r] {
		delete(h.readers, r)
		close(r)
		h.dropped.Inc()
	}
}

// newest returns the newest parts; nil: none yet.
func (h *hub) newest() Parts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.parts // never changed
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for r := range h.readers {
		delete(h.readers, r)
		close(r)
	}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("page: " + err.Error()) // our own types can be encoded
	}
	return b
}
