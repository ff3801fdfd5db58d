package store

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"tweedle/values/signing"
	"tweedle/values/types"
)

// A copy that is taken while the guard is written holds all that was signed before it
// was asked for, and its node signs nothing until the caller says that it is safe,
// over restarts too.
func TestACopyOfLocalHoldsWhatWasSignedAndSignsNothing(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir)
	me := types.NodeID{1}
	stop, done := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var signed uint64
	go func() {
		defer close(done)
		for slot := uint64(1); ; slot++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := db.Guard(signing.Ballot, me, slot, types.Hash32{byte(slot)}); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			signed = slot
			mu.Unlock()
		}
	}()
	copies := 50
	if testing.Short() {
		copies = 10
	}
	for i := range copies {
		mu.Lock()
		before := signed
		mu.Unlock()
		restored := filepath.Join(t.TempDir(), strconv.Itoa(i))
		if err := os.Mkdir(restored, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := CopyLocal(dir, filepath.Join(restored, "local.db")); err != nil {
			t.Fatal(err)
		}
		again := openAt(t, restored)
		if !got[bool](t)(again.RolledBack(me)) {
			t.Fatal("a copy is trusted")
		}
		if err := again.Guard(signing.Ballot, me, 1<<40, types.Hash32{1}); !errors.Is(err, ErrRolledBack) {
			t.Fatalf("a copy signs: %v", err)
		}
		if i%10 != 0 {
			again.Close()
			continue
		}
		until, err := again.DistrustUntil(me, 7)
		if err != nil || until != 7 {
			t.Fatalf("until %d, %v", until, err)
		}
		again.Close()
		again = openAt(t, restored)
		if until, err := again.DistrustUntil(me, 9); err != nil || until != 7 || !got[bool](t)(again.RolledBack(me)) {
			t.Fatalf("after a restart until %d, %v", until, err)
		}
		if err := again.TrustLocal(me); err != nil {
			t.Fatal(err)
		}
		for _, slot := range []uint64{1, before/2 + 1, max(before, 1)} {
			if err := again.Guard(signing.Ballot, me, slot, types.Hash32{byte(slot + 1)}); before > 0 && !errors.Is(err, ErrConflict) {
				t.Fatalf("copy %d forgot what was signed in slot %d of %d: %v", i, slot, before, err)
			}
		}
		again.Close()
	}
	close(stop)
	<-done
}

func TestWhatIsNoLocalIsNotCopied(t *testing.T) {
	dir := t.TempDir()
	if err := CopyLocal(dir, filepath.Join(dir, "copy")); err == nil {
		t.Error("nothing is copied")
	}
	if err := os.WriteFile(filepath.Join(dir, "local.db"), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CopyLocal(dir, filepath.Join(dir, "copy")); err == nil {
		t.Error("garbage is copied")
	}
}

// What an identity waited for where the copy was taken is over sooner than what it has signed
// there since: with the copy each begins to wait anew.
func TestADoubtIsNotCopied(t *testing.T) {
	dir, restored := t.TempDir(), t.TempDir()
	me, other := types.NodeID{1}, types.NodeID{2}
	db := openAt(t, dir)
	must(t, db.Guard(signing.Ballot, me, 1, hash(1)))
	equal(t, got[types.Epoch](t)(db.DistrustUntil(me, 20)), types.Epoch(20))
	must(t, CopyLocal(dir, filepath.Join(restored, "local.db")))
	again := openAt(t, restored)
	for _, id := range []types.NodeID{me, other} {
		equal(t, got[types.Epoch](t)(again.DistrustUntil(id, 30)), types.Epoch(30))
	}
	must(t, again.Close())
	again = openAt(t, restored)
	for _, id := range []types.NodeID{me, other} {
		equal(t, got[types.Epoch](t)(again.DistrustUntil(id, 31)), types.Epoch(30))
	}
	must(t, again.TrustLocal(me))
	if !got[bool](t)(again.RolledBack(other)) {
		t.Error("the trust in one is trust in the other")
	}
}
