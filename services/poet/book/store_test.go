package book

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/services/poet"
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

// flip turns a bit of a stored value around in the file, beside the database, and
// returns how to turn it back.
func flip(t *testing.T, b *Book, bucket, sub, key []byte) (restore func()) {
	t.Helper()
	var value []byte
	err := b.DB().View(func(tx *bbolt.Tx) error {
		at := tx.Bucket(bucket)
		if sub != nil {
			at = at.Bucket(sub)
		}
		value = bytes.Clone(at.Get(key))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	path := b.DB().Path()
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

// A page that is in use and on the list of free ones would be overwritten by the
// next transaction: it is found at the start.
func TestADamagedListOfFreePages(t *testing.T) {
	b := newTestBook(t)
	fill(t, b, 1, 600)
	fill(t, b, 2, 600)
	path := b.DB().Path()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	lists, found := 0, 0
	for at := 2 * page; at+page <= len(good); at += page {
		if native.Uint16(good[at+8:]) != pageFree {
			continue
		}
		lists++
		for used := uint64(2); used < 12; used++ {
			bad := bytes.Clone(good)
			native.PutUint64(bad[at+pageHeader:], used)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := checkFile(path, false); errors.Is(err, poet.ErrDamaged) {
				found++
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if lists == 0 || found == 0 {
		t.Errorf("%d lists of free pages, %d damages found", lists, found)
	}
}

// What a flipped bit in the count of the topmost page does.
func TestALostBucketIsDamage(t *testing.T) {
	for _, name := range topBuckets() {
		dir, schedule := t.TempDir(), types.PoetSchedule{EpochDuration: time.Hour}
		b, err := Open(dir, schedule, false)
		if err != nil {
			t.Fatal(err)
		}
		err = b.Update("test", func(tx *bbolt.Tx) error { return tx.DeleteBucket(name) })
		if err := errors.Join(err, b.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, schedule, false); err == nil || !strings.Contains(err.Error(), "restore") {
			t.Errorf("without %s: %v", name, err)
		}
	}
}
