package sealed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.etcd.io/bbolt"
)

var options = Options{Buckets: []string{"plain", "nested"}, New: func(tx *bbolt.Tx) error {
	return Top(tx, "plain").Put([]byte("first"), []byte("value"))
}}

func open(t *testing.T, path string) *DB {
	t.Helper()
	d, err := Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// fill stores values in buckets of their own, in some transactions.
func (d *DB) fill(t *testing.T, buckets, values int) {
	t.Helper()
	for n := range buckets {
		err := d.Update(func(tx *bbolt.Tx) error {
			b, err := Top(tx, "nested").MakeSub(binary.BigEndian.AppendUint32(nil, uint32(n)))
			for i := range values {
				err = errors.Join(err, b.Put(fmt.Appendf(nil, "key %04d", i), fmt.Appendf(nil, "a value of some length %d", i)))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// get reads a value in a View.
func (d *DB) get(key string) (value string, err error) {
	err = d.View(func(tx *bbolt.Tx) error {
		v, err := Top(tx, "plain").Get([]byte(key))
		value = string(v)
		return err
	})
	return value, err
}

// The promise that what is stored is durable rests on these options of bbolt.
func TestTheDatabaseSyncs(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "db"))
	if db := d.bolt; db.NoSync || db.NoGrowSync || db.StrictMode || db.IsReadOnly() {
		t.Fatalf("NoSync %t, NoGrowSync %t, StrictMode %t, read-only %t", db.NoSync, db.NoGrowSync, db.StrictMode, db.IsReadOnly())
	}
}

// A link to a disk that is not there is no missing database: a new one must not
// take its place.
func TestALinkThatLeadsNowhereIsNoMissingDatabase(t *testing.T) {
	path, target := filepath.Join(t.TempDir(), "db"), "/no/such/disk/db"
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, options); err == nil || !strings.Contains(err.Error(), "is a link: make the place") {
		t.Fatalf("got %v", err)
	}
	if got, err := os.Readlink(path); err != nil || got != target {
		t.Fatalf("the link was replaced: %q, %v", got, err)
	}
}

// hook puts itself between bbolt and its file.
func (d *DB) hook(after func(off int64) error) {
	field := reflect.ValueOf(d.bolt).Elem().FieldByName("ops").FieldByName("writeAt")
	write := (*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
	real := *write
	*write = func(p []byte, off int64) (int, error) {
		n, err := real(p, off)
		if err == nil {
			err = after(off)
		}
		return n, err
	}
}

// bbolt lets readers see a transaction when its head is written, which is before
// it is on the disk. Ours wait, and are told if it never gets there.
func TestNothingIsShownBeforeItIsSynced(t *testing.T) {
	for end, want := range map[error]error{nil: nil, syscall.ENOSPC: nil, syscall.EIO: ErrStopped} {
		d := open(t, filepath.Join(t.TempDir(), "db"))
		written, goOn := make(chan struct{}), make(chan struct{})
		d.hook(func(off int64) error {
			if off >= 2*int64(os.Getpagesize()) {
				return nil // no head
			}
			close(written)
			<-goOn
			return end
		})
		stored := make(chan error, 1)
		go func() {
			stored <- d.Update(func(tx *bbolt.Tx) error { return Top(tx, "plain").Put([]byte("second"), []byte("new")) })
		}()
		<-written
		type answer struct {
			value string
			err   error
		}
		shown := make(chan answer, 1)
		go func() {
			value, err := d.get("second")
			shown <- answer{value, err}
		}()
		select {
		case a := <-shown:
			t.Fatalf("it was shown before it was synced: %+v", a)
		case <-time.After(50 * time.Millisecond):
		}
		close(goOn)
		a, err := <-shown, <-stored
		if !errors.Is(a.err, want) || (a.err == nil) != (want == nil) || a.err == nil && a.value != "new" {
			t.Errorf("head written with %v: it is shown as %+v", end, a)
		}
		switch {
		case end == nil && err != nil, end == syscall.ENOSPC && !errors.Is(err, ErrFull):
			t.Errorf("head written with %v: %v", end, err)
		case end == syscall.EIO:
			if errors.Is(err, ErrFull) || d.Err() == nil {
				t.Errorf("a write of unknown outcome: %v, %v", err, d.Err())
			}
			<-d.Failed()
			if err := d.Update(func(*bbolt.Tx) error { return nil }); !errors.Is(err, ErrStopped) {
				t.Errorf("a write after one of unknown outcome: %v", err)
			}
		}
	}
}

// A page that is in use and on the list of free ones would be overwritten by the
// next transaction: it is found when the file is opened.
func TestADamagedListOfFreePages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	d := open(t, path)
	d.fill(t, 2, 600)
	if err := d.Close(); err != nil {
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
			if err := checkFile(path, options); errors.Is(err, ErrDamaged) {
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

// Any bit of a page in use that is not as it was written is found when the file is
// opened, or does not matter: every value is there. Damage of a bucket that is not
// sealed is told by whoever reads it.
func TestAFlippedBitIsFoundOrHarmless(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	d := open(t, path)
	d.fill(t, 3, 100)
	err := d.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("loose"))
		return errors.Join(err, b.Put([]byte("key"), []byte("not sealed")))
	})
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good = bytes.TrimRight(good, "\x00") // the file grows ahead of its use
	loose := bytes.LastIndex(good, []byte("not sealed"))
	if err := os.Truncate(path, int64(len(good))+4096); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found, harmless := 0, 0
	for bit := range 8 * len(good) {
		at := bit / 8
		// All bits of the pages' heads, and some of the rest.
		if at%os.Getpagesize() >= pageHeader && bit%331 != 0 || at >= loose && at < loose+len("not sealed") {
			continue
		}
		one := good[bit/8] ^ 1<<(bit%8)
		if _, err := file.WriteAt([]byte{one}, int64(bit/8)); err != nil {
			t.Fatal(err)
		}
		if err := checkFile(path, options); errors.Is(err, ErrDamaged) {
			found++
		} else if err != nil {
			t.Fatal(err)
		} else if err := readAll(path); err != nil {
			t.Fatalf("byte %d, bit %d: %v", bit/8, bit%8, err)
		} else {
			harmless++
		}
		if _, err := file.WriteAt(good[bit/8:][:1], int64(bit/8)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d found, %d harmless", found, harmless)
	if found < 200 || harmless < 200 {
		t.Errorf("%d found, %d harmless: that is not the file it should be", found, harmless)
	}
}

func readAll(path string) error {
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer bolt.Close()
	return bolt.View(func(tx *bbolt.Tx) error {
		if options.complete(tx) != nil {
			return nil // Open finds it
		}
		if v, err := Top(tx, "plain").Get([]byte("first")); err != nil || string(v) != "value" {
			return fmt.Errorf("%q, %w", v, err)
		}
		count := 0
		for name := range Top(tx, "nested").Keys(nil) {
			err := Top(tx, "nested").Sub(name).Each(func(key, value []byte) error { count++; return nil })
			if err != nil {
				return err
			}
		}
		if count != 300 {
			return fmt.Errorf("%d values", count)
		}
		return nil
	})
}

// What a flipped bit in the count of the topmost page does.
func TestALostBucketIsDamage(t *testing.T) {
	for _, name := range options.Buckets {
		path := filepath.Join(t.TempDir(), "db")
		d := open(t, path)
		err := d.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(name)) })
		if err := errors.Join(err, d.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, options); err == nil || !strings.Contains(err.Error(), "restore") {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// A bucket that is not there is empty.
func TestAMissingBucketIsEmpty(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "db"))
	err := d.View(func(tx *bbolt.Tx) error {
		b := Top(tx, "nested").Sub([]byte("none"))
		v, err := b.Get([]byte("key"))
		if v != nil || err != nil || b.Len() != 0 {
			t.Errorf("%q, %v, %d keys", v, err, b.Len())
		}
		return b.Each(func(key, _ []byte) error { return fmt.Errorf("it has key %q", key) })
	})
	if err != nil {
		t.Error(err)
	}
}
