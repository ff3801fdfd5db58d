package door

import (
	"context"
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

func (s *shelf) Proof(_ context.Context, round string) (r poet.ProofRecord, err error) {
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
