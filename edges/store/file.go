package store

import (
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"tweedle/base/durable"
	"tweedle/values/types"
)

//go:embed schema/*.sql
var schemas embed.FS

// fileKind is what differs between the two files of a directory.
type fileKind struct {
	name string
	// migrations are the scripts that lead from an empty file to the current
	// schema, in order. A released script never changes; a new schema is a new
	// script.
	migrations  []string
	oldest      int // schema that can be brought up to date; what is older says what this program cannot read
	synchronous string
	remedy      string // what to do when the file is damaged
}

var stateFile = fileKind{
	name:        "state.db",
	migrations:  []string{"schema/state_1.sql", "schema/state_2.sql", "schema/state_3.sql", "schema/state_4.sql", "schema/state_5.sql", "schema/state_6.sql"},
	oldest:      6,
	synchronous: "NORMAL",
	remedy:      "stop the node and delete state.db and state.db-wal: they are fetched from the network again",
}

// LocalFile is what a node alone knows: its records, and what it has signed.
const LocalFile = "local.db"

var localFile = fileKind{
	name:        LocalFile,
	migrations:  []string{"schema/local_1.sql"},
	synchronous: "FULL",
	remedy:      "keep the file, restore the directory's newest backup, and smesh again only in the epoch after the next",
}

// applicationID marks our files in the SQLite header ("twdl").
const applicationID = 0x7477646c

// checkpointAt is the size of a write-ahead log, in bytes, at which it is copied
// into its file.
const checkpointAt = 1 << 20

// busyTimeout is how long a call waits for somebody else who holds a lock of
// the file: an operator's shell.
const busyTimeout = 10 * time.Second

// lockDir takes the directory for this process until what it returns is closed, or the
// process dies.
func lockDir(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, dirError(dir, err)
	}
	lock, err := durable.Lock(dir)
	switch {
	case errors.Is(err, durable.ErrLocked):
		return nil, fmt.Errorf("data directory %s is in use by another process: stop it, or give this node another directory", dir)
	case err != nil:
		return nil, dirError(dir, err)
	}
	return lock, nil
}

// openFile opens one database, creates or migrates its schema, and checks
// that it is ours.
func (k fileKind) openFile(dir string, network types.GenesisID) (_ *sqlite.Conn, err error) {
	c, err := k.connect(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	if err := k.prepare(c, network); err != nil {
		return nil, k.explain(dir, err)
	}
	return c, nil
}

func (k fileKind) connect(dir string) (*sqlite.Conn, error) {
	c, err := sqlite.OpenConn(filepath.Join(dir, k.name), sqlite.OpenReadWrite, sqlite.OpenCreate, sqlite.OpenWAL)
	if err != nil {
		return nil, k.explain(dir, err)
	}
	c.SetBusyTimeout(busyTimeout)
	if err := setSynchronous(c, k.synchronous); err != nil {
		_ = c.Close()
		return nil, k.explain(dir, err)
	}
	for _, pragma := range []string{
		"PRAGMA wal_autocheckpoint = 0", // see checkpoint
		"PRAGMA journal_size_limit = 0", // a log that begins anew is as long as what is in it
		"PRAGMA trusted_schema = OFF",
		"PRAGMA cell_size_check = ON",
	} {
		if err := sqlitex.ExecuteTransient(c, pragma, nil); err != nil {
			_ = c.Close()
			return nil, k.explain(dir, err)
		}
	}
	return c, nil
}

// checkpoint copies the log into the file once it is long. SQLite would do it by
// itself at a commit, and tell nobody when the disk fails: what a failed sync
// loses would then be missed much later.
//
// If we stop here, the log is still whole, and is copied again.
func (k fileKind) checkpoint(dir string, c *sqlite.Conn) error {
	info, err := os.Stat(filepath.Join(dir, k.name+"-wal"))
	if err != nil || info.Size() < checkpointAt {
		return err
	}
	// It does what it can beside those who read, and is repeated.
	return sqlitex.ExecuteTransient(c, "PRAGMA wal_checkpoint(PASSIVE)", nil)
}

// prepare brings the schema up to date and binds a new file to its network.
// All in one transaction: if we stop here, the next start finds the old
// schema, or none, and begins again.
func (k fileKind) prepare(c *sqlite.Conn, network types.GenesisID) (err error) {
	end, err := sqlitex.ImmediateTransaction(c)
	if err != nil {
		return err
	}
	defer end(&err)

	version, err := pragmaInt(c, "user_version")
	if err != nil {
		return err
	}
	switch app, err := pragmaInt(c, "application_id"); {
	case err != nil:
		return err
	case version > 0 && app != applicationID:
		return errors.New("it is another program's database: choose another directory")
	case version > 0 && version < k.oldest:
		return fmt.Errorf("it has schema %d, of a program whose networks this one does not speak to any more: %s", version, k.remedy)
	case version > len(k.migrations):
		return fmt.Errorf("it has schema %d, this program knows %d: run the newer version that wrote it", version, len(k.migrations))
	}
	for _, name := range k.migrations[version:] {
		script, err := schemas.ReadFile(name)
		if err != nil {
			return err
		}
		if err := sqlitex.ExecuteScript(c, string(script), nil); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if version < len(k.migrations) {
		set := fmt.Sprintf("PRAGMA user_version = %d; PRAGMA application_id = %d;", len(k.migrations), applicationID)
		if err := sqlitex.ExecuteScript(c, set, nil); err != nil {
			return err
		}
	}
	if version == 0 {
		return putMeta(c, "genesis", network[:])
	}
	switch bound, err := getMeta(c, "genesis"); {
	case err != nil:
		return err
	case string(bound) != string(network[:]):
		return fmt.Errorf("it belongs to network %x, not to %s: choose another directory, or start with that network's configuration", bound, network)
	}
	return nil
}

func pragmaInt(c *sqlite.Conn, name string) (int, error) {
	var v int
	err := sqlitex.ExecuteTransient(c, "PRAGMA "+name, &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error { v = s.ColumnInt(0); return nil },
	})
	return v, err
}

func putMeta(c *sqlite.Conn, key string, value []byte) error {
	return put(c, replace, "meta", key, value)
}

func getMeta(c *sqlite.Conn, key string) ([]byte, error) {
	var value []byte
	err := one(c, "meta", "WHERE key = ?", func(r *row) {
		r.text()
		value = r.blob()
	}, key)
	if err != nil {
		return nil, err
	}
	return value, nil
}

func putCounter(c *sqlite.Conn, key string, v uint64) error {
	return putMeta(c, key, binary.BigEndian.AppendUint64(nil, v))
}

// getCounter returns 0 for a counter that was never written.
func getCounter(c *sqlite.Conn, key string) (uint64, error) {
	b, err := getMeta(c, key)
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(b) != 8:
		return 0, fmt.Errorf("table meta, row %s: %w", key, ErrCorrupt)
	}
	return binary.BigEndian.Uint64(b), nil
}
