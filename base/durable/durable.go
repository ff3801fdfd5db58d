// Package durable writes files that survive a crash of the process, a loss of
// power and a full disk.
//
// It promises: a file written by [WriteFile] holds either its old or its new
// content at every moment, and the new one for good once WriteFile returned;
// [Secret] and [SetAside] never replace a file; [Lock] lets one process at a
// time own a directory. All file access goes through the small interface [FS],
// so that tests replace the disk by one that loses what was not synced or fails
// at a chosen operation (package durabletest).
//
// It leaves to the caller the order of things: acknowledge after the sync, and
// say at each durable step what the next start will find. A sync that failed
// leaves a file of unknown content, whatever a later sync returns: write it
// anew under another name (https://wiki.postgresql.org/wiki/Fsync_Errors).
package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// FS is the part of a file system that durable data needs. Names are paths as
// package os takes them. Errors wrap those of package os and syscall, so that
// errors.Is finds os.ErrNotExist and syscall.ENOSPC.
type FS interface {
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// Edit opens an existing file for reading and writing.
	Edit(name string) (File, error)
	// Create makes an empty file for reading and writing, in the place of the
	// one that has the name: nothing of that one stays, neither its mode nor
	// where a link led to.
	Create(name string, mode os.FileMode) (File, error)
	// Mkdir makes a directory and its parents; it may exist.
	Mkdir(name string, mode os.FileMode) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// Rename replaces the file new by the file old.
	Rename(old, new string) error
	// Move gives the file old the name new. If that is taken, by whatever it
	// is, it changes nothing and the error is os.ErrExist.
	Move(old, new string) error
	// Remove deletes a file.
	Remove(name string) error
	// SyncDir makes the names in a directory durable: what was created,
	// renamed or removed in it.
	SyncDir(name string) error
	// Free returns the bytes that an unprivileged process can still write
	// in the file system of a directory.
	Free(dir string) (uint64, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length in bytes.
	Size() (int64, error)
	// Truncate cuts or extends the file to size bytes.
	Truncate(size int64) error
	// Sync makes the content durable.
	Sync() error
	// Reserve sets room on the disk aside, so that the file can grow to size
	// bytes; its length stays. A file system that cannot reserve does nothing.
	Reserve(size int64) error
}

// tempSuffix marks files that were not finished; nobody reads them.
const tempSuffix = ".tmp"

// WriteFile makes path hold data, durably, or leaves it as it was: it writes a
// temporary file beside it, syncs it, renames it and syncs the directory. An
// error may also come after the rename; then the new content is visible but
// its durability is unknown. One writer per path at a time.
func WriteFile(fs FS, path string, data []byte, mode os.FileMode) error {
	temp := path + tempSuffix
	if err := writeSynced(fs, temp, mode, func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
		// If we stop here, the next WriteFile replaces the temporary file.
		fs.Remove(temp) //nolint:errcheck // as above
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := fs.Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// If we stop here, a start finds the old or the new content, whole.
	if err := fs.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeSynced(fs FS, path string, mode os.FileMode, write func(io.Writer) error) error {
	f, err := fs.Create(path, mode)
	if err != nil {
		return err
	}
	if err := write(io.NewOffsetWriter(f, 0)); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// ErrTooLong says that a file is longer than it may be.
var ErrTooLong = errors.New("file is too long")

// ReadFile returns the content of a file, or ErrTooLong if it has more than limit bytes.
func ReadFile(fs FS, path string, limit int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes of at most %d", ErrTooLong, path, size, limit)
	}
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data[:n], nil
}

// SetAside renames path, of which something is wrong, to a name beside it that
// nothing has, durably, and returns that name. Whatever takes the place of path
// then replaces nothing.
func SetAside(fs FS, path string) (aside string, err error) {
	for n := 0; ; n++ {
		aside = path + ".bad"
		if n > 0 {
			aside += strconv.Itoa(n)
		}
		err := fs.Move(path, aside)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		// If we stop here, a start finds the file under its old or its new name.
		return aside, fs.SyncDir(filepath.Dir(path))
	}
}

// IsFull tells whether an error means that there is no room left: a full disk,
// a used-up quota, or a file at its size limit.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
