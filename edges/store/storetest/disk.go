// Package storetest is a disk that fails under the SQLite files of a directory.
//
// It promises: SQLite and package store run as they are, on real files, and each
// operation by which they change a file, or read it, can fail as a disk does:
// no room, an error, half a write, a sync that loses what it was to keep, or the
// loss of power, after which only what was synced is there for sure. It leaves
// to the caller to say which operation fails.
//
// The shared memory of a write-ahead log is not part of what survives. A file
// that was deleted stays so.
package storetest

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"tweedle/base/durable/durabletest"
)

// Disk is a directory whose SQLite files can fail. Writes counts what changes a
// file: "write", "truncate", "sync", "grow" (of the shared memory) and "delete",
// each with the file's name; Reads counts "read".
type Disk struct {
	Writes, Reads *durabletest.Faulty

	dir    string
	mu     sync.Mutex
	images map[string]*image // by base name
}

// image is what power loss leaves of a file.
type image struct {
	synced  []byte
	pending []change // since then, in order
}

// change is a write, or a new length if data is nil.
type change struct {
	off  int64
	data []byte
}

func (c change) apply(b []byte) []byte {
	size := c.off + int64(len(c.data))
	if c.data == nil {
		if size < int64(len(b)) {
			return b[:size]
		}
	}
	if grow := size - int64(len(b)); grow > 0 {
		b = append(b, make([]byte, grow)...)
	}
	copy(b[c.off:], c.data)
	return b
}

// Watch makes a directory one whose SQLite files can fail, as far as they are
// opened from now on by this process. What is in it now counts as synced. The
// directory may not be there yet.
func Watch(dir string) (*Disk, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := install(); err != nil {
		return nil, err
	}
	d := &Disk{Writes: durabletest.NewFaulty(nil), Reads: durabletest.NewFaulty(nil), dir: dir, images: make(map[string]*image)}
	watched.Store(dir, d)
	return d, nil
}

// Forget ends Watch for files that are opened later.
func (d *Disk) Forget() { watched.CompareAndDelete(d.dir, d) }

// watched leads from a directory to its *Disk.
var watched sync.Map

// of returns the disk on which a path is, or nil.
func of(path string) *Disk {
	if d, ok := watched.Load(filepath.Dir(path)); ok {
		return d.(*Disk)
	}
	return nil
}

// opened notes a file that SQLite has opened.
func (d *Disk) opened(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := filepath.Base(path)
	if d.images[name] == nil {
		content, _ := os.ReadFile(path) // SQLite has it open
		d.images[name] = &image{synced: content}
	}
}

// change does a write or a new length as the fault says. do does all of it, or
// the first n bytes of data.
func (d *Disk) change(op, path string, c change, do func(n int) int32) int32 {
	name := filepath.Base(path)
	how, fail := d.Writes.Step(op + " " + name)
	n := len(c.data)
	switch {
	case how == durabletest.Before, how == durabletest.Torn && n == 0:
		return code(op, fail)
	case how == durabletest.Torn:
		n /= 2
		c.data = c.data[:n]
	}
	if rc := do(n); rc != 0 {
		return rc
	}
	c.data = slices.Clone(c.data)
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.images[name]; i != nil {
		i.pending = append(i.pending, c)
	}
	return code(op, fail)
}

// sync makes durable what was changed. If it fails but for the loss of power,
// that is lost on the disk, and a later sync does not bring it back.
func (d *Disk) sync(path string, do func() int32) int32 {
	name := filepath.Base(path)
	how, fail := d.Writes.Step("sync " + name)
	keep := how == durabletest.After
	if keep {
		if rc := do(); rc != 0 {
			return rc
		}
	}
	if !keep && errors.Is(fail, durabletest.ErrStopped) {
		return code("sync", fail)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := d.images[name]; i != nil {
		for _, c := range i.pending {
			if keep {
				i.synced = c.apply(i.synced)
			}
		}
		i.pending = nil
	}
	return code("sync", fail)
}

// other is an operation that is done or not.
func (d *Disk) other(op, path string, do func() int32) int32 {
	name := filepath.Base(path)
	how, fail := d.Writes.Step(op + " " + name)
	if how != durabletest.After {
		return code(op, fail)
	}
	if rc := do(); rc != 0 {
		return rc
	}
	if op == "delete" {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.images, name)
	}
	return code(op, fail)
}

func (d *Disk) read(path string, do func() int32) int32 {
	if _, fail := d.Reads.Step("read " + filepath.Base(path)); fail != nil {
		return code("read", fail)
	}
	return do()
}

// Loss is what a loss of power does to what was not synced.
type Loss int

// Nothing of it reached the disk, or all of it, or what chance left: a part of
// the changes, in whatever order, of which some are half done.
const (
	LoseAll Loss = iota
	LoseNone
	LoseSome
)

// Losses returns all of them.
func Losses() []Loss { return []Loss{LoseAll, LoseNone, LoseSome} }

// sector is what a disk writes whole.
const sector = 512

// AfterLoss writes what a loss of power now would leave of the SQLite files to
// another directory, which must be there.
func (d *Disk) AfterLoss(to string, loss Loss, rng *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, i := range d.images {
		content := slices.Clone(i.synced)
		for _, c := range i.pending {
			switch {
			case loss == LoseAll, loss == LoseSome && rng.IntN(2) == 0:
				continue
			case loss == LoseSome && rng.IntN(4) == 0 && len(c.data) > sector:
				c.data = c.data[:sector*(1+rng.IntN(len(c.data)/sector))]
			}
			content = c.apply(content)
		}
		if err := os.WriteFile(filepath.Join(to, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// code is what SQLite's own code makes of a failed system call.
func code(op string, err error) int32 {
	switch {
	case err == nil:
		return 0
	case op == "write" && errors.Is(err, syscall.ENOSPC):
		return full
	}
	return ioErr[op]
}
