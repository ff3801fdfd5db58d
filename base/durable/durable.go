// Package durable writes files that survive a crash of the process, a loss of
// power and a full disk.
//
// It promises: a file written by [WriteFile] holds either its old or its new
// content at every moment, and the new one for good once WriteFile returned;
// [Lock] lets one process at a time own a directory. All file access goes
// through the small interface [FS], so that tests replace the disk by one that
// loses what was not synced ([Mem]) or fails at a chosen operation ([Faulty]).
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
	"syscall"
)

// FS is the part of a file system that durable data needs. Names are paths as
// package os takes them. Errors wrap those of package os and syscall, so that
// errors.Is finds os.ErrNotExist and syscall.ENOSPC.
type FS interface {
	// Create makes an empty file for reading and writing, or empties it.
	Create(name string, mode os.FileMode) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Mkdir makes a directory and its parents; it may exist.
	Mkdir(name string, mode os.FileMode) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// Rename replaces the file new by the file old.
	Rename(old, new string) error
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
	if err := writeSynced(fs, temp, data, mode); err != nil {
		// If we stop here, the next WriteFile empties the temporary file.
		return errors.Join(fmt.Errorf("write %s: %w", path, err), ignoreMissing(fs.Remove(temp)))
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

func writeSynced(fs FS, path string, data []byte, mode os.FileMode) error {
	f, err := fs.Create(path, mode)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// ReadFile returns the content of a file of at most limit bytes.
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
		return nil, fmt.Errorf("%s has %d bytes, more than the %d it may have", path, size, limit)
	}
	data := make([]byte, size)
	if _, err := f.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data, nil
}

// IsFull tells whether an error means that there is no room left: a full disk,
// a used-up quota, or a file at its size limit.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
