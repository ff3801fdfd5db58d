package server

import (
	"path/filepath"
	"testing"
	"time"

	"tweedle/services/poet/book"

	"go.etcd.io/bbolt"
)

// loseOutbox empties the outbox of a server that has stopped.
func loseOutbox(t *testing.T, dir string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, book.DatabaseName), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("delivery")) }); err != nil {
		t.Fatal(err)
	}
}
