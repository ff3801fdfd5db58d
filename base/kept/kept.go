// Package kept keeps what is costly to make and never changes, up to a bound.
//
// It promises: who asks for a value that is kept waits for nobody; values are made
// one at a time, so that who asks for many keeps no more than one core busy, and of
// those who ask for the same one the first makes it; the ones that were asked for last
// stay. It leaves to the caller how a value is made, and when to give up waiting.
package kept

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
)

// Values are values by key. Its methods may be called concurrently.
type Values[K comparable, V any] struct {
	limit int           // bytes
	size  func(V) int   // of a value, in bytes
	turn  chan struct{} // of the one that makes

	mu    sync.Mutex // guards what follows
	ready *lru.LRU[K, V]
	bytes int
}

// maxValues bounds the number of values, beside their size.
const maxValues = 1 << 20

// New keeps up to limit bytes of values, of which size tells how many each has. A
// larger one is kept alone.
func New[K comparable, V any](limit int, size func(V) int) *Values[K, V] {
	c := &Values[K, V]{limit: limit, size: size, turn: make(chan struct{}, 1)}
	var err error
	if c.ready, err = lru.NewLRU(maxValues, func(_ K, v V) { c.bytes -= size(v) }); err != nil {
		panic(err) // the number is a constant
	}
	return c
}

// Get returns the value of a key: the one that is kept, or one that make makes.
func (c *Values[K, V]) Get(ctx context.Context, key K, make func() (V, error)) (V, error) {
	if v, ready := c.look(key); ready {
		return v, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
	if v, ready := c.look(key); ready {
		return v, nil
	}
	v, err := make()
	if err == nil {
		c.Keep(key, v)
	}
	return v, err
}

// Keep keeps a value that was made elsewhere.
func (c *Values[K, V]) Keep(key K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready.Remove(key)
	c.bytes += c.size(v)
	c.ready.Add(key, v)
	for c.bytes > c.limit && c.ready.Len() > 1 {
		c.ready.RemoveOldest()
	}
}

func (c *Values[K, V]) look(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready.Get(key)
}
