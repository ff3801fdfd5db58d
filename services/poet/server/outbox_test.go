package server

import (
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/services/poet"
)

// loseOutbox empties the outbox of a server that has stopped.
func loseOutbox(t *testing.T, dir string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, poet.DatabaseName), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("delivery")) }); err != nil {
		t.Fatal(err)
	}
}
