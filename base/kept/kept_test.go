package kept

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func text(n int) func() ([]byte, error) {
	return func() ([]byte, error) { return make([]byte, n), nil }
}

func length(v []byte) int { return len(v) }

// A hundred who ask for one value share one making of it. What failed is not kept.
func TestAValueIsMadeOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New[int](1000, length)
		broken := errors.New("broken")
		if _, err := c.Get(t.Context(), 1, func() ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		made := 0
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() {
				v, err := c.Get(t.Context(), 1, func() ([]byte, error) {
					time.Sleep(time.Second)
					made++
					return make([]byte, 10), nil
				})
				if err != nil || len(v) != 10 {
					t.Errorf("%d bytes, %v", len(v), err)
				}
			})
		}
		group.Wait()
		if made != 1 {
			t.Errorf("it was made %d times", made)
		}
	})
}

// One that takes long to make holds up nobody who asks for one that is ready, or who
// brings one; a caller leaves when its time is over.
func TestASlowMakingHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New[int](1000, length)
		c.Keep(9, make([]byte, 1))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = c.Get(t.Context(), 1, func() ([]byte, error) { time.Sleep(time.Minute); return nil, nil })
		}()
		synctest.Wait()
		begin := time.Now()
		c.Keep(8, make([]byte, 1))
		for _, key := range []int{8, 9} {
			if v, err := c.Get(t.Context(), key, nil); err != nil || len(v) != 1 || time.Since(begin) != 0 {
				t.Errorf("the ready one took %v, %v", time.Since(begin), err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Get(ctx, 2, text(1)); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("the third came back after %v with %v", time.Since(begin), err)
		}
		<-done
	})
}

// What is kept is bounded in bytes; those that were asked for last stay, and the
// latest even if it is larger.
func TestWhatIsKeptIsBounded(t *testing.T) {
	c := New[int](1000, length)
	for i := range 60 {
		c.Keep(i%40, make([]byte, 90))
		if _, err := c.Get(t.Context(), 0, text(90)); err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, v := range c.ready.Values() {
			sum += len(v)
		}
		if sum != c.bytes || sum > c.limit {
			t.Fatalf("after %d values %d bytes are kept, counted as %d", i+1, sum, c.bytes)
		}
	}
	if _, ready := c.look(0); !ready || c.ready.Len() != 11 {
		t.Errorf("%d are kept, and the one that is always asked for: %t", c.ready.Len(), ready)
	}
	c.Keep(1000, make([]byte, 5000))
	if _, ready := c.look(1000); !ready || c.ready.Len() != 1 || c.bytes != 5000 {
		t.Errorf("%d are kept beside one of %d bytes", c.ready.Len(), c.bytes)
	}
}
