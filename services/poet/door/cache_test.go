package door

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/services/poet"
	"tweedle/values/types"
)

// shelf gives proofs of a size, after a time, and counts how often.
type shelf struct {
	Backend
	members int
	takes   time.Duration
	reads   atomic.Int32
}

func (s *shelf) Proof(round string) (r poet.ProofRecord, err error) {
	s.reads.Add(1)
	time.Sleep(s.takes)
	r.Message.RoundID = round
	r.Message.Proof.Leaves = make([]types.Hash32, 150)
	r.Members = make([][32]byte, s.members)
	return r, nil
}

// A thousand who ask for one proof share one reading of it, and one encoding.
func TestAProofIsReadOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{takes: time.Second}
		c := newProofCache(s)
		got := make(chan *cachedProof, 1000)
		for range 1000 {
			go func() {
				e, err := c.get(t.Context(), "7")
				if err != nil {
					t.Error(err)
				}
				got <- e
			}()
		}
		first := <-got
		for range 999 {
			if e := <-got; e != first {
				t.Fatal("they get different bytes")
			}
		}
		if n := s.reads.Load(); n != 1 {
			t.Errorf("it is read %d times", n)
		}
	})
}

// Whoever asks for an old proof that takes long to read holds up nobody who
// asks for one that is ready; and a caller leaves when its time is over.
func TestASlowReadingHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		c := newProofCache(s)
		if _, err := c.get(t.Context(), "9"); err != nil {
			t.Fatal(err)
		}
		s.takes = time.Minute
		done := make(chan struct{})
		go func() { defer close(done); _, _ = c.get(t.Context(), "1") }()
		synctest.Wait()
		begin := time.Now()
		if _, err := c.get(t.Context(), "9"); err != nil || time.Since(begin) != 0 {
			t.Errorf("the ready one took %v, %v", time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.get(ctx, "2"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("the third came back after %v with %v", time.Since(begin), err)
		}
		<-done
	})
}

// What is kept is bounded in bytes; the latest stays, even if it is larger.
func TestKeptProofsAreBounded(t *testing.T) {
	s := &shelf{members: 200}
	c := newProofCache(s)
	c.limit = 1 << 20
	for i := range 60 {
		if _, err := c.get(t.Context(), poet.RoundID(uint32(i))); err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, e := range c.ready.Values() {
			sum += e.size()
		}
		if sum != c.bytes || sum > c.limit {
			t.Fatalf("after %d proofs %d bytes are kept, counted as %d", i+1, sum, c.bytes)
		}
	}
	if c.ready.Len() < 20 || c.ready.Len() == 60 {
		t.Errorf("%d are kept", c.ready.Len())
	}
	s.members = 20_000
	if _, err := c.get(t.Context(), "1000"); err != nil {
		t.Fatal(err)
	}
	if _, ready := c.look("1000"); !ready || c.ready.Len() != 1 || c.bytes <= c.limit {
		t.Errorf("%d are kept beside one of %d bytes", c.ready.Len(), c.bytes)
	}
}
