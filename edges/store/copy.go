package store

import (
	"math"
	"os"
	"path/filepath"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// aCopy stands for the epoch in which identities may sign with a copied local.db again, as
// long as nobody has started from it: what its node signs after the copy was taken is
// not in it.
const aCopy = math.MaxUint64

// CopyLocal writes what a directory's local.db holds at one moment to a new file, also
// while a node runs there. A node that starts from the copy signs nothing before
// TrustLocal, whatever it hears. state.db is not worth a copy: it is had from the
// network. If we stop before it returns, the new file is not to be used.
func CopyLocal(dir, to string) error {
	from, err := sqlite.OpenConn(filepath.Join(dir, localFile.name), sqlite.OpenReadWrite, sqlite.OpenWAL)
	if err != nil {
		return localFile.explain(dir, err)
	}
	from.SetBusyTimeout(busyTimeout)
	err = sqlitex.ExecuteTransient(from, "VACUUM INTO ?", &sqlitex.ExecOptions{Args: []any{to}})
	if shut := from.Close(); err == nil {
		err = shut
	}
	if err != nil {
		return localFile.explain(dir, err)
	}
	c, err := sqlite.OpenConn(to, sqlite.OpenReadWrite)
	if err != nil {
		return err
	}
	if err = checkLocal(c); err == nil {
		// It is of all identities; when they would sign again where it was taken tells nothing.
		if err = run(c, "DELETE FROM meta WHERE key LIKE ?", distrustCounter+" %"); err == nil {
			err = putCounter(c, distrustCounter, aCopy)
		}
	}
	if shut := c.Close(); err == nil {
		err = shut
	}
	if err != nil {
		return err
	}
	f, err := os.Open(to)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
