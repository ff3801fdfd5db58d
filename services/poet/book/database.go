package book

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"

	"tweedle/base/durable"
	"tweedle/services/poet"
)

// database is a bbolt database that shows nothing which a loss of power could
// still take back.
type database struct {
	*bbolt.DB
	writing sync.Mutex   // held by a write transaction from its begin to its end
	durable atomic.Int64 // the last transaction known to be on the disk
	lost    bool         // under writing: the system may have dropped a write
}

// newDatabase syncs the file first: a process that was killed may have left its
// last transaction in memory only.
func newDatabase(db *bbolt.DB) (*database, error) {
	file, err := os.Open(db.Path())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return nil, fmt.Errorf("sync %s: %w", db.Path(), err)
	}
	d := &database{DB: db}
	err = db.View(func(tx *bbolt.Tx) error {
		d.durable.Store(int64(tx.ID()))
		return nil
	})
	return d, err
}

// View reads the database, and returns once what it read is on the disk: bbolt
// shows a transaction as soon as its head is written, before the sync.
func (d *database) View(fn func(*bbolt.Tx) error) error {
	var read int64
	err := d.DB.View(func(tx *bbolt.Tx) error {
		read = int64(tx.ID())
		return fn(tx)
	})
	if read <= d.durable.Load() {
		return err
	}
	d.writing.Lock() // until the write has ended
	defer d.writing.Unlock()
	if read <= d.durable.Load() {
		return err
	}
	if d.lost {
		return fmt.Errorf("%w: the last write of %s did not reach the disk", poet.ErrStopped, d.Path())
	}
	// A write without room may have left its head behind. The next write builds on
	// it; so may a reader, once it is on the disk.
	if err := d.Sync(); err != nil {
		d.lost = true
		return fmt.Errorf("%w: sync %s: %w", poet.ErrStopped, d.Path(), err)
	}
	d.durable.Store(read)
	return err
}

// commit makes a write transaction durable.
func (d *database) commit(tx *bbolt.Tx) error {
	written := int64(tx.ID())
	if err := tx.Commit(); err != nil {
		d.lost = d.lost || !isFull(err)
		return err
	}
	d.durable.Store(written)
	return nil
}

// isFull tells whether a write failed for lack of room. bbolt passes some errors on
// as text only.
func isFull(err error) bool {
	return durable.IsFull(err) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}
