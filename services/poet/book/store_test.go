package book

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/base/sealed"
	"tweedle/values/types"
)

// A database of another format is left alone, and the message says what to do.
func TestOtherFormats(t *testing.T) {
	dir, schedule := t.TempDir(), types.PoetSchedule{EpochDuration: time.Hour}
	for _, version := range []byte{0, 1, format + 1} {
		b, err := Open(dir, schedule, false)
		if err != nil {
			t.Fatal(err)
		}
		b.writeFormat(t, version)
		want := fmt.Sprintf("has format %02x, and this program reads format %02x only: use the program that wrote it, or a new data directory", version, format)
		if _, err := Open(dir, schedule, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("format %d: %v", version, err)
		}
		// As the other program would.
		db, err := sealed.Open(filepath.Join(dir, DatabaseName), sealed.Options{Buckets: []string{meta, members, proofs}})
		if err != nil {
			t.Fatal(err)
		}
		(&Book{DB: db}).writeFormat(t, format)
	}
}

func (s *Book) writeFormat(t *testing.T, version byte) {
	t.Helper()
	err := s.Update(func(tx *bbolt.Tx) error { return sealed.Top(tx, meta).Put(keyFormat, []byte{version}) })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// flip turns a bit of a stored value around in the file, beside the database, and
// returns how to turn it back.
func flip(t *testing.T, b *Book, bucket string, sub, key []byte) (restore func()) {
	t.Helper()
	var value []byte
	var path string
	err := b.View(func(tx *bbolt.Tx) error {
		at := tx.Bucket([]byte(bucket))
		if sub != nil {
			at = at.Bucket(sub)
		}
		value, path = bytes.Clone(at.Get(key)), tx.DB().Path()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	where := bytes.Index(file, value)
	if len(value) == 0 || where < 0 || bytes.Contains(file[where+1:], value) {
		t.Fatalf("%x is not in the file once", key)
	}
	turn := func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		value[len(value)/2] ^= 4
		if _, err := f.WriteAt(value, int64(where)); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	return turn
}
