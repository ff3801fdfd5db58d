package store

import (
	"errors"
	"io"
	"os"
	"sync"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"tweedle/values/types"
)

// MaxPage is the longest list that a paged read returns, in rows.
const MaxPage = 1000

// DB is an open node directory.
type DB struct {
	dir  string
	lock io.Closer

	writeMu sync.Mutex // guards state, which is nil after Close
	state   *sqlite.Conn

	*Reader         // of whoever is not named below: handlers, catching up, status
	loop    *Reader // of the one that must not wait
	public  *Reader // of strangers
	closed  chan struct{}
	failed  chan error

	localMu    sync.Mutex // guards what follows; local is nil after Close
	local      *sqlite.Conn
	signed     uint64 // how often the guard was written; also in local.db
	remembered uint64 // the same as state.db remembers it, at open
	known      uint64 // name of the local.db that state.db knows
	foreign    bool   // ours is another one, and something was signed before
	// seen are our identities of which others have what we do not know.
	seen map[types.NodeID]bool

	closeOnce sync.Once
	closeErr  error
}

// Open opens a node's directory, and creates it for the given network when it
// is new. An error is one line that names the file and says what to do.
func Open(dir string, network types.GenesisID) (_ *DB, err error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	db := &DB{dir: dir, lock: lock, closed: make(chan struct{}), failed: make(chan error, 1), seen: make(map[types.NodeID]bool)}
	defer func() {
		if err != nil {
			_ = db.Close()
		}
	}()
	// local.db first: if we stop between the two, the next start finds the
	// directory bound to its network and creates the other.
	if db.local, err = localFile.openFile(dir, network); err != nil {
		return nil, err
	}
	if err := checkLocal(db.local); err != nil {
		return nil, localFile.explain(dir, err)
	}
	if db.state, err = stateFile.openFile(dir, network); err != nil {
		return nil, err
	}
	for _, r := range []struct {
		reader **Reader
		Reader
	}{
		{&db.Reader, Reader{size: Readers}},
		{&db.loop, Reader{size: 1}},
		{&db.public, Reader{size: publicReaders(), wait: PublicWait, time: PublicTime}},
	} {
		reader := r.Reader
		reader.db = db
		*r.reader = &reader
		if err := reader.open(); err != nil {
			return nil, err
		}
	}
	if db.signed, err = getCounter(db.local, signedCounter); err != nil {
		return nil, localFile.explain(dir, err)
	}
	if db.remembered, err = getCounter(db.state, signedCounter); err != nil {
		return nil, stateFile.explain(dir, err)
	}
	if err := db.know(); err != nil {
		return nil, err
	}
	return db, syncDir(dir)
}

// syncDir makes the names of new files durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return dirError(dir, err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return dirError(dir, err)
	}
	return nil
}

// Close waits for the calls that are running, then closes the files and
// releases the directory. Calls that come later fail with ErrClosed. It may
// be called again, and returns the same.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		close(db.closed)
		db.localMu.Lock()
		defer db.localMu.Unlock()
		db.writeMu.Lock()
		defer db.writeMu.Unlock()

		var errs []error
		shut := func(c *sqlite.Conn) {
			if c != nil {
				errs = append(errs, c.Close())
			}
		}
		for _, r := range []*Reader{db.Reader, db.loop, db.public} {
			for r != nil && r.opened > 0 {
				shut(<-r.idle)
				r.opened--
			}
		}
		shut(db.state)
		shut(db.local)
		db.state, db.local = nil, nil
		db.closeErr = errors.Join(append(errs, db.lock.Close())...)
	})
	return db.closeErr
}

// write runs f as one transaction. It is in the log of the file when write
// returns, not yet safe from power loss.
func (db *DB) write(f func(c *sqlite.Conn) error) error {
	db.writeMu.Lock()
	defer db.writeMu.Unlock()
	if db.state == nil {
		return fault{ErrClosed}
	}
	return db.transact(stateFile, db.state, f)
}

// writeDurable is write, and survives power loss once it has returned.
func (db *DB) writeDurable(f func(c *sqlite.Conn) error) error {
	db.writeMu.Lock()
	defer db.writeMu.Unlock()
	if db.state == nil {
		return fault{ErrClosed}
	}
	// With FULL, SQLite syncs its log before a commit returns.
	if err := setSynchronous(db.state, "FULL"); err != nil {
		return db.judge(stateFile, err)
	}
	err := db.transact(stateFile, db.state, f)
	if back := setSynchronous(db.state, stateFile.synchronous); err == nil {
		err = db.judge(stateFile, back)
	}
	return err
}

// setSynchronous does not use the connection's cache of statements: SQLite may
// apply a pragma while it compiles it.
func setSynchronous(c *sqlite.Conn, level string) error {
	return sqlitex.ExecuteTransient(c, "PRAGMA synchronous = "+level, nil)
}

// writeLocal runs f as one transaction of local.db, durable when it returns.
func (db *DB) writeLocal(f func(c *sqlite.Conn) error) error {
	db.localMu.Lock()
	defer db.localMu.Unlock()
	return db.writeLocalLocked(f)
}

func (db *DB) writeLocalLocked(f func(c *sqlite.Conn) error) error {
	if db.local == nil {
		return fault{ErrClosed}
	}
	return db.transact(localFile, db.local, f)
}

func (db *DB) transact(k fileKind, c *sqlite.Conn, f func(c *sqlite.Conn) error) error {
	err := transact(c, f)
	if err == nil {
		err = k.checkpoint(db.dir, c)
	}
	return db.judge(k, err)
}

func transact(c *sqlite.Conn, f func(c *sqlite.Conn) error) (err error) {
	end, err := sqlitex.ImmediateTransaction(c)
	if err != nil {
		return err
	}
	defer end(&err)
	return f(c)
}

// page bounds a caller's limit.
func page(limit int) int64 {
	return int64(min(max(limit, 0), MaxPage))
}
