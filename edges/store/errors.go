package store

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"zombiezen.com/go/sqlite"
)

// Answers: the store is well, and says no.
var (
	// ErrNotFound says that nothing is stored under the given name.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that something else is stored in the place of what was
	// given; what was given must not be signed, or sent.
	ErrConflict = errors.New("conflict")
	// ErrRolledBack says that local.db is older than what it has signed.
	ErrRolledBack = errors.New("local.db is older than it should be")
	// ErrLate says that a reader of Public had no turn, or no answer, in time.
	ErrLate = errors.New("too many read at the same time: ask again later")
)

// Faults: with these, and every other error that is no answer, nobody must go
// on. They are wrapped in a line that says what happened and what to do.
var (
	// ErrCorrupt says that stored bytes are not the ones that were written.
	ErrCorrupt = errors.New("corrupt")
	// ErrFull says that the disk has no room left. The write did not happen.
	ErrFull = errors.New("no room left on the disk")
	// ErrBroken says that the disk refuses to read or write.
	ErrBroken = errors.New("the disk fails")
	// ErrBusy says that another program held a file for busyTimeout.
	ErrBusy = errors.New("another program holds it")
	// ErrAccess says that a file cannot be opened or written by us.
	ErrAccess = errors.New("cannot be opened or written")
	// ErrFiles says that the process may not open another file.
	ErrFiles = errors.New("the process has too many open files")
	// ErrClosed says that the store was used after Close.
	ErrClosed = errors.New("the store is closed")
)

// classes says what SQLite's codes mean to us, and what an operator can do.
var classes = []struct {
	codes  []sqlite.ResultCode
	err    error
	advice string // empty: that of the file
}{
	{[]sqlite.ResultCode{sqlite.ResultFull}, ErrFull, "free some and start again"},
	{[]sqlite.ResultCode{sqlite.ResultIOErr}, ErrBroken, "look at the system's log, and mend or replace it"},
	{[]sqlite.ResultCode{sqlite.ResultBusy, sqlite.ResultLocked}, ErrBusy, "end it, a shell or a backup, and start again"},
	{[]sqlite.ResultCode{sqlite.ResultCantOpen, sqlite.ResultReadOnly, sqlite.ResultPerm, sqlite.ResultAuth}, ErrAccess,
		"give the node's user access to it, or choose another directory"},
	{[]sqlite.ResultCode{sqlite.ResultNotADB, sqlite.ResultCorrupt}, ErrCorrupt, ""},
}

// fault marks an error that is no answer.
type fault struct{ error }

func (f fault) Unwrap() error { return f.error }

// Fatal tells whether err comes from a store with which nobody must go on. The
// answers above are not fatal, and neither is what comes from elsewhere.
func Fatal(err error) bool {
	var f fault
	return errors.As(err, &f) || slices.ContainsFunc(faults, func(known error) bool { return errors.Is(err, known) })
}

var faults = []error{ErrCorrupt, ErrFull, ErrBroken, ErrBusy, ErrAccess, ErrFiles, ErrClosed}

func isAnswer(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) || errors.Is(err, ErrRolledBack) || errors.Is(err, ErrLate)
}

// judge makes a line of an error, unless it is an answer. The first fault is
// also what Failed tells, whoever met it.
func (db *DB) judge(k fileKind, err error) error {
	if err == nil || isAnswer(err) {
		return err
	}
	f := fault{k.explain(db.dir, err)}
	select {
	case db.failed <- f:
	default: // the first one is enough
	}
	return f
}

// Failed yields the first error of any call that Fatal holds for, so that it
// ends the program also where it was met on behalf of a peer or a user. It is
// not closed. Who uses a closed store is not told so here.
func (db *DB) Failed() <-chan error { return db.failed }

// explain turns SQLite's codes into a line that names the file and what to do.
func (k fileKind) explain(dir string, err error) error {
	path := filepath.Join(dir, k.name)
	code := sqlite.ErrCode(err)
	primary := code.ToPrimary()
	switch {
	case err == nil:
		return nil
	case primary == sqlite.ResultIOErr && noRoom(dir):
		primary = sqlite.ResultFull // SQLite does not tell when it grows its shared memory file
	case (primary == sqlite.ResultIOErr || primary == sqlite.ResultCantOpen) && noFiles():
		return tooManyFiles(path)
	}
	for _, c := range classes {
		if slices.Contains(c.codes, primary) {
			return fmt.Errorf("%s: %w: %s (%v)", path, c.err, cmp.Or(c.advice, k.remedy), code)
		}
	}
	if errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%s: %w: %s", path, err, k.remedy)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// noRoom tells whether the disk has less room than SQLite asks for at once.
func noRoom(dir string) bool {
	const atOnce = 32 << 10
	var s syscall.Statfs_t
	return syscall.Statfs(dir, &s) == nil && s.Bavail*uint64(s.Bsize) < atOnce
}

// noFiles tells whether the process cannot open the files that SQLite opens for one database: what
// it had opened when it failed, it has closed by now.
func noFiles() bool {
	const atOnce = 4 // the database, its log, the log's index, and the folder
	for range atOnce {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
		}
		defer f.Close() //nolint:errcheck // nothing was written
	}
	return false
}

func tooManyFiles(path string) error {
	limit := "it allows"
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) == nil {
		limit = fmt.Sprintf("the limit is %d, it allows", r.Max)
	}
	return fmt.Errorf("%s: %w, %s: raise it (ulimit -n, LimitNOFILE of systemd) to 1024 or more and start again", path, ErrFiles, limit)
}

// dirError explains an error of the operating system about the directory.
func dirError(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("data directory %s: %w: free some and start again", dir, ErrFull)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return tooManyFiles(dir)
	}
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("data directory %s cannot be written (%w): give the node's user access to it, or choose another directory", dir, err)
}
