package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// OS is the file system of the machine.
type OS struct{}

type osFile struct{ *os.File }

// Open implements FS.
func (OS) Open(name string) (File, error) { return openFile(name, os.O_RDONLY, 0) }

// Edit implements FS.
func (OS) Edit(name string) (File, error) { return openFile(name, os.O_RDWR, 0) }

// Create implements FS.
func (OS) Create(name string, mode os.FileMode) (File, error) {
	if err := unlink(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return openFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
}

func openFile(name string, flag int, mode os.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Mkdir implements FS. New directories are durable when it returns.
func (fs OS) Mkdir(name string, mode os.FileMode) error {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(name)
	if parent != name {
		if err := fs.Mkdir(parent, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(name, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return fs.SyncDir(parent)
}

// ReadDir implements FS.
func (OS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Rename implements FS.
func (OS) Rename(old, new string) error { return os.Rename(old, new) }

// Move implements FS. Where the file system has no such renaming, the file has
// both names for a moment.
func (OS) Move(old, new string) error {
	err := renameNew(old, new)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if err := os.Link(old, new); err != nil {
		return err
	}
	// If we stop here, old is left beside new.
	return os.Remove(old)
}

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// SyncDir implements FS.
func (OS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", name, err)
	}
	return nil
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
