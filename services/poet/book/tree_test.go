package book

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/services/poet"
	"tweedle/values/types"
)

func newTestBook(t testing.TB) *Book {
	t.Helper()
	b, err := Open(t.TempDir(), types.PoetSchedule{EpochDuration: time.Hour}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// However many ask for old rounds and however long that takes: the root of the round
// that closes waits for none of them, and each of them waits no longer than it wants.
func TestTheRootWaitsForNoReader(t *testing.T) {
	b := newTestBook(t)
	const rounds, readers = 5, 200
	var ids [rounds + 1][]types.NodeID
	for n := range ids {
		ids[n] = fill(t, b, uint32(n), 300)
	}
	building, slow := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = b.trees.Get(t.Context(), 99, func() (*tree, error) {
			close(building)
			<-slow
			return nil, errors.New("there is no such round")
		})
	})
	<-building
	ctx, cancel := context.WithCancel(t.Context())
	before := stats(t, b)
	answers := make(chan error, readers)
	for i := range readers {
		group.Go(func() {
			who := ctx
			if i%2 == 0 {
				who = t.Context()
			}
			_, err := b.Prove(who, uint32(i%rounds), ids[i%rounds][i])
			answers <- err
		})
	}
	if _, members, err := b.Root(t.Context(), rounds); err != nil || members != 300 {
		t.Fatalf("root of the round that closes: %d members, %v", members, err)
	}
	cancel()
	for range readers / 2 {
		if err := <-answers; !errors.Is(err, context.Canceled) {
			t.Fatalf("a reader that has gone: %v", err)
		}
	}
	close(slow)
	group.Wait()
	for range readers / 2 {
		if err := <-answers; err != nil {
			t.Fatalf("a patient reader: %v", err)
		}
	}
	// A transaction for each look at the number of members, for each that has
	// waited, two for each of the trees, and one for this look: no round was read twice.
	after := stats(t, b)
	if n := after.Sub(&before).TxN; n > readers+readers/2+2*(rounds+1)+1 {
		t.Errorf("%d transactions", n)
	}
}

func stats(t *testing.T, b *Book) (s bbolt.Stats) {
	err := b.View(func(tx *bbolt.Tx) error {
		s = tx.DB().Stats()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A bit that flips under a running server is found when it is read.
func TestDamageAtRunTimeIsFound(t *testing.T) {
	b := newTestBook(t)
	ids := fill(t, b, 1, 600)
	m := &types.PoetProofMessage{RoundID: "1"}
	m.Proof.Leaves, m.Proof.NumLeaves = make([]types.Hash32, 150), 1000
	if err := b.WriteProof(1, 2, m, Pow{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Prove(t.Context(), 1, ids[0]); err != nil { // its tree is kept
		t.Fatal(err)
	}
	for i, id := range ids[:10] {
		restore := flip(t, b, members, roundKey(1), id[:])
		if _, err := b.Prove(t.Context(), 1, id); !errors.Is(err, poet.ErrDamaged) {
			t.Fatalf("damaged member %d: %v", i, err)
		}
		if _, err := b.Challenges(t.Context(), 1); !errors.Is(err, poet.ErrDamaged) {
			t.Fatalf("members with a damaged one: %v", err)
		}
		if _, _, err := b.Root(t.Context(), 1); !errors.Is(err, poet.ErrDamaged) {
			t.Fatalf("root with a damaged member: %v", err)
		}
		restore()
	}
	flip(t, b, proofs, nil, roundKey(1))
	if _, err := b.Proof(1); !errors.Is(err, poet.ErrDamaged) {
		t.Fatalf("a damaged proof: %v", err)
	}
}
