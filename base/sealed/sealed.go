// Package sealed keeps values in one bbolt file, and answers only from what is on
// the disk and as it was written.
//
// It promises: what [DB.Update] has stored is durable when it returns, all of it or
// nothing; nothing is read before it is durable; damage of the file is found when it
// is opened, that of a value also when it is read, and never answered from; after a
// write of unknown outcome nothing is stored or read any more.
//
// It leaves to the caller what the values mean, that one process at a time has the
// file (package durable has a lock), and to write again what found no room.
package sealed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"tweedle/base/durable"
)

// What an error of this package means, beside what happened and what to do.
var (
	ErrDamaged = errors.New("stored data is damaged")
	// ErrHead is an ErrDamaged of one of the two heads of the file: the last
	// transaction may be missing. Nobody but a person can know whether power failed
	// while it was written, and so was never acknowledged.
	ErrHead = fmt.Errorf("%w: one of the file's two heads, the last transaction may be missing", ErrDamaged)
	// ErrFull means that nothing is acknowledged: all of it or nothing may be
	// stored. The same may be written again.
	ErrFull = errors.New("disk of the server is full")
	// ErrStopped means that the database failed before, or is closed.
	ErrStopped = errors.New("server is stopping")
)

// Options say what a file holds.
type Options struct {
	// Buckets are the names at the top whose values are all written by Bucket.Put,
	// those of buckets in them too: each is checked when the file is opened. A new
	// file has them. Of other buckets only the structure is checked then.
	Buckets []string
	// New fills a new file.
	New func(tx *bbolt.Tx) error
	// AcceptOlder opens a file despite ErrHead, as it was before its last
	// transaction at worst.
	AcceptOlder bool
}

// DB is an open file. Its methods may be called concurrently.
type DB struct {
	bolt *bbolt.DB

	// commit is held while a transaction is made durable, and shared by readers
	// while they begin: bbolt shows a transaction when its head is written, before
	// it is synced.
	commit sync.RWMutex

	failed chan struct{} // closed after err is set
	err    atomic.Pointer[error]

	// Point, if not nil, is called before and after each write. Only tests set it,
	// before the first one.
	Point func(after bool)
}

// Open opens a file, or makes it: under another name first, so that a file of that
// name is always complete.
func Open(path string, o Options) (*DB, error) {
	switch _, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		if err := create(path, o); err != nil {
			return nil, fmt.Errorf("make %s: %w", path, err)
		}
	case err != nil:
		return nil, err
	}
	if err := checkFile(path, o); err != nil {
		return nil, err
	}
	bolt, err := openBolt(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	d := &DB{bolt: bolt, failed: make(chan struct{})}
	if err := errors.Join(d.syncFile(), d.View(o.complete)); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return d, nil
}

func openBolt(path string) (*bbolt.DB, error) {
	return bbolt.Open(path, 0o600, &bbolt.Options{
		// The directory's lock keeps others away; this is for a person with
		// another tool.
		Timeout: time.Second,
		// The list of free pages is stored: else bbolt reads the whole file for
		// it, at a start and after each write that the disk refused. checkFile
		// sees to it that no page in use is on it.
		FreelistType: bbolt.FreelistMapType,
		// Long readers would hold up a writer that must map a larger file. It is
		// address space, not memory.
		InitialMmapSize: 1 << 30,
	})
}

func create(path string, o Options) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := openBolt(temp)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range o.Buckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return o.New(tx)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	// If we stop here, the next start makes it again.
	err = durable.OS{}.Move(temp, path)
	if errors.Is(err, os.ErrExist) { // we looked: it leads nowhere
		return fmt.Errorf("%s is a link: make the place that it leads to available, or remove the link", path)
	}
	if err != nil {
		return err
	}
	return durable.OS{}.SyncDir(filepath.Dir(path))
}

// syncFile makes durable what a process that was killed may have left in memory
// only: its last transaction.
func (d *DB) syncFile() error {
	file, err := os.Open(d.bolt.Path())
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", d.bolt.Path(), err)
	}
	return nil
}

// complete looks for the names at the top, which are under no checksum.
func (o Options) complete(tx *bbolt.Tx) error {
	for _, name := range o.Buckets {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%s is damaged, or is another program's database: restore a copy of it, or choose another directory", tx.DB().Path())
		}
	}
	return nil
}

// Close closes the file once nobody reads it any more.
func (d *DB) Close() error { return d.bolt.Close() }

// Failed is closed when a write failed in a way that only a restart can clear; Err
// says why.
func (d *DB) Failed() <-chan struct{} { return d.failed }

// Err returns why the database failed, or nil.
func (d *DB) Err() error {
	if err := d.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *DB) fail(err error) error {
	err = fmt.Errorf("write %s: %w: check the disk, then start again", d.bolt.Path(), err)
	if d.err.CompareAndSwap(nil, &err) {
		close(d.failed)
	}
	return err
}

// begin begins a transaction of a database that has not failed.
func (d *DB) begin(writable bool) (*bbolt.Tx, error) {
	if err := d.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStopped, err)
	}
	tx, err := d.bolt.Begin(writable)
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
		return nil, fmt.Errorf("%w: %w", ErrStopped, err)
	}
	return tx, err
}

// View reads the database as it is on the disk. fn must begin no other transaction,
// and must not take long: a write that needs a larger file waits for it.
func (d *DB) View(fn func(tx *bbolt.Tx) error) error {
	d.commit.RLock()
	tx, err := d.begin(false)
	d.commit.RUnlock()
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	return fn(tx)
}

// Update runs a transaction that is durable when it returns nil. An error of fn
// comes back as it is. One of the disk wraps ErrFull if there was no room; any other
// one fails the database.
func (d *DB) Update(fn func(tx *bbolt.Tx) error) error {
	if d.Point != nil {
		d.Point(false)
	}
	tx, err := d.begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it does nothing after a commit
	if err := fn(tx); err != nil {
		return err
	}
	if err := d.end(tx); err != nil {
		return err
	}
	if d.Point != nil {
		d.Point(true)
	}
	return nil
}

// end commits. For lack of room bbolt goes on from the last good state; where the
// system tells of it only when it syncs (XFS, btrfs, NFS) the transaction may be there
// all the same. After any other error the system may have dropped what it said it
// would write, so we stop, and the next start reads what is really there.
func (d *DB) end(tx *bbolt.Tx) error {
	d.commit.Lock()
	defer d.commit.Unlock()
	err := tx.Commit()
	if err == nil {
		return nil
	}
	if !isFull(err) {
		return d.fail(err)
	}
	// Its head may be there: readers see it then, and the next write builds on it,
	// so it must be on the disk.
	if err := d.bolt.Sync(); err != nil {
		return d.fail(err)
	}
	return fmt.Errorf("%w: write %s: %w", ErrFull, d.bolt.Path(), err)
}

// isFull tells whether a write failed for lack of room. bbolt passes some errors on
// as text only.
func isFull(err error) bool {
	return durable.IsFull(err) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}

// Settle returns when every write that had begun before has ended.
func (d *DB) Settle() {
	if tx, err := d.bolt.Begin(true); err == nil {
		_ = tx.Rollback() // there is nothing in it
	}
}

// Size returns the length of the file, in bytes.
func (d *DB) Size() uint64 {
	info, err := os.Stat(d.bolt.Path())
	if err != nil {
		return 0
	}
	return uint64(info.Size())
}
