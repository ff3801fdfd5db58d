package book

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tweedle/services/poet"
	"tweedle/values/types"
)

// The promise that a registration is durable rests on these options of bbolt.
func TestTheDatabaseSyncs(t *testing.T) {
	b, err := Open(t.TempDir(), types.PoetSchedule{EpochDuration: time.Hour}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if db := b.DB(); db.NoSync || db.NoGrowSync || db.StrictMode || db.IsReadOnly() {
		t.Fatalf("NoSync %t, NoGrowSync %t, StrictMode %t, read-only %t", db.NoSync, db.NoGrowSync, db.StrictMode, db.IsReadOnly())
	}
}

// A link to a disk that is not there is no missing database: a new one must not
// take its place.
func TestALinkThatLeadsNowhereIsNoMissingDatabase(t *testing.T) {
	dir, target := t.TempDir(), "/no/such/disk/poet.db"
	if err := os.Symlink(target, filepath.Join(dir, DatabaseName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, types.PoetSchedule{EpochDuration: time.Hour}, false); err == nil || !strings.Contains(err.Error(), "is a link: make the place") {
		t.Fatalf("got %v", err)
	}
	if got, err := os.Readlink(filepath.Join(dir, DatabaseName)); err != nil || got != target {
		t.Fatalf("the link was replaced: %q, %v", got, err)
	}
}

// bbolt lets readers see a transaction when its head is written, which is before
// it is on the disk. Ours wait, and are told if it never gets there.
func TestNothingIsShownBeforeItIsSynced(t *testing.T) {
	b, err := Open(t.TempDir(), types.PoetSchedule{EpochDuration: time.Hour}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const reached, left, lost = "reached the disk", "was left behind by a full disk", "was lost"
	for _, end := range []string{reached, left, lost} {
		// A transaction whose head is written, and whose sync has not ended.
		b.db.writing.Lock()
		tx, err := b.db.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		written := int64(tx.ID())
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		shown := make(chan error, 1)
		go func() {
			_, err := b.Proofs(0)
			shown <- err
		}()
		select {
		case err := <-shown:
			t.Fatalf("it was shown before it was synced: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		switch end {
		case reached:
			b.db.durable.Store(written)
		case lost:
			b.db.lost = true
		}
		b.db.writing.Unlock()
		if err := <-shown; (end != lost) != (err == nil) || end == lost && !errors.Is(err, poet.ErrStopped) {
			t.Fatalf("it %s, and readers are told %v", end, err)
		}
		if b.db.durable.Load() != written && end != lost {
			t.Fatalf("it %s, and a reader has not synced it", end)
		}
	}
}
