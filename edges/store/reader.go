package store

import (
	"context"
	"errors"
	"runtime"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// Readers is how many reads of the node itself run at the same time; more wait.
const Readers = 4

// Limits of a read through Public.
const (
	PublicWait = 5 * time.Second // for its turn
	PublicTime = 2 * time.Second // for itself
)

// publicReaders is how many reads through Public run at the same time. One
// processor is left to the node.
func publicReaders() int { return min(4, max(1, runtime.GOMAXPROCS(0)-1)) }

// Reader reads state.db. Those who share one wait for each other; those of
// different Readers do not.
type Reader struct {
	db     *DB
	size   int
	wait   time.Duration // for a turn, then ErrLate; 0 is as long as it takes
	time   time.Duration // for one read, then ErrLate; 0 is as long as it takes
	idle   chan *sqlite.Conn
	opened int
}

// Loop is for the one goroutine that owns the node's consensus state: it reads
// at once, whoever else does.
func (db *DB) Loop() *Reader { return db.loop }

// Public is for what strangers ask: however many they are, they delay each
// other only. A read that has no turn within PublicWait, or takes longer than
// PublicTime, ends with ErrLate.
func (db *DB) Public() *Reader { return db.public }

func (rd *Reader) open() error {
	rd.idle = make(chan *sqlite.Conn, rd.size)
	for range rd.size {
		c, err := stateFile.connect(rd.db.dir)
		if err != nil {
			return err
		}
		rd.idle <- c
		rd.opened++
		if err := sqlitex.ExecuteTransient(c, "PRAGMA query_only = ON", nil); err != nil {
			return stateFile.explain(rd.db.dir, err)
		}
	}
	return nil
}

// take waits for a connection.
func (rd *Reader) take() (*sqlite.Conn, error) {
	select {
	case <-rd.db.closed:
		return nil, fault{ErrClosed}
	default:
	}
	var late <-chan time.Time
	if rd.wait > 0 {
		t := time.NewTimer(rd.wait)
		defer t.Stop()
		late = t.C
	}
	select {
	case c := <-rd.idle:
		return c, nil
	case <-rd.db.closed:
		return nil, fault{ErrClosed}
	case <-late:
		return nil, ErrLate
	}
}

// read runs f on one consistent snapshot.
func (rd *Reader) read(f func(c *sqlite.Conn) error) error {
	c, err := rd.take()
	if err != nil {
		return err
	}
	defer func() { rd.idle <- c }()
	if rd.time > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), rd.time)
		defer cancel()
		c.SetInterrupt(ctx.Done())
		defer c.SetInterrupt(nil) // ends what watches ctx
	}
	err = func() (err error) {
		defer sqlitex.Transaction(c)(&err)
		return f(c)
	}()
	if sqlite.ErrCode(err).ToPrimary() == sqlite.ResultInterrupt && !errors.Is(err, ErrCorrupt) {
		return ErrLate
	}
	return rd.db.judge(stateFile, err)
}
