package book

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/values/types"
)

// A database of another format is left alone, and the message says what to do.
func TestOtherFormats(t *testing.T) {
	dir, schedule := t.TempDir(), types.PoetSchedule{EpochDuration: time.Hour}
	for _, version := range []byte{0, format + 1} {
		b, err := Open(dir, schedule, false)
		if err != nil {
			t.Fatal(err)
		}
		b.writeFormat(t, version)
		if _, err := Open(dir, schedule, false); err == nil || !strings.Contains(err.Error(), "this program reads format") {
			t.Errorf("format %d: %v", version, err)
		}
		// As the other program would.
		db, err := openBolt(filepath.Join(dir, DatabaseName))
		if err != nil {
			t.Fatal(err)
		}
		newBook(&database{DB: db}, "").writeFormat(t, format)
	}
}

func (s *Book) writeFormat(t *testing.T, version byte) {
	t.Helper()
	err := s.Update("format", func(tx *bbolt.Tx) error {
		return put(tx.Bucket(bucketMeta), bucketMeta, keyFormat, []byte{version})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
