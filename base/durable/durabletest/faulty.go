package durabletest

import (
	"errors"
	"os"
	"sync"

	"tweedle/base/durable"
)

// ErrStopped is what every operation returns after a stop drawn by a [Fault].
var ErrStopped = errors.New("the process has stopped here")

// Fault says which operation that changes something goes wrong, and how.
type Fault struct {
	At   int   // number of the operation, from 1; 0 is never
	Err  error // what it returns; nil means ErrStopped, from it and all later ones
	How  How
	Last int // number of the last operation that fails with Err; 0 means At only
}

// How tells what a failing operation does before it fails.
type How int

// Before does nothing; Torn does the first half of a write, and nothing of other
// operations; After does all of it. A sync that is not done and fails with Err
// takes what it was to make durable with it, see [Mem].
const (
	Before How = iota
	Torn
	After
)

// Faulty fails chosen operations of the file system under it. Operations that
// change something are counted: Create, Mkdir, Rename, Move, Remove,
// SyncDir, WriteAt, Truncate, Sync, Reserve.
type Faulty struct {
	durable.FS
	mu    sync.Mutex
	fault Fault
	done  []string
	dead  bool
}

// NewFaulty wraps a file system. It fails nothing until Set.
func NewFaulty(fs durable.FS) *Faulty { return &Faulty{FS: fs} }

// Set starts counting anew, with another fault.
func (f *Faulty) Set(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.done, f.dead = fault, nil, false
}

// Done returns the names of the operations counted so far.
func (f *Faulty) Done() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}

// Step counts an operation and decides what becomes of it: whether to do all, half or
// nothing of it, and what to return then. It is for storage beside the file system
// that shall stop and fail with it.
func (f *Faulty) Step(name string) (how How, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return Before, ErrStopped
	}
	f.done = append(f.done, name)
	n := len(f.done)
	if f.fault.At == 0 || n < f.fault.At || n > max(f.fault.At, f.fault.Last) {
		return After, nil
	}
	if f.fault.Err == nil {
		f.dead = true
		return f.fault.How, ErrStopped
	}
	return f.fault.How, f.fault.Err
}

func (f *Faulty) do(name string, op func() error) error {
	how, fail := f.Step(name)
	if how == After {
		if err := op(); err != nil {
			return err
		}
	}
	return fail
}

// sync is do for a sync; lose is what becomes of the data if it fails.
func (f *Faulty) sync(name string, op func() error, lose func()) error {
	how, fail := f.Step(name)
	if how == After {
		if err := op(); err != nil {
			return err
		}
	} else if !errors.Is(fail, ErrStopped) {
		lose()
	}
	return fail
}

// Create implements durable.FS.
func (f *Faulty) Create(name string, mode os.FileMode) (file durable.File, err error) {
	err = f.do("create "+name, func() error {
		file, err = f.FS.Create(name, mode)
		return err
	})
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	return &faultyFile{file, f, name}, nil
}

// Open implements durable.FS.
func (f *Faulty) Open(name string) (durable.File, error) { return f.open(name, f.FS.Open) }

// Edit implements durable.FS.
func (f *Faulty) Edit(name string) (durable.File, error) { return f.open(name, f.FS.Edit) }

func (f *Faulty) open(name string, open func(string) (durable.File, error)) (durable.File, error) {
	f.mu.Lock()
	dead := f.dead
	f.mu.Unlock()
	if dead {
		return nil, ErrStopped
	}
	file, err := open(name)
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f, name}, nil
}

// Mkdir implements durable.FS.
func (f *Faulty) Mkdir(name string, mode os.FileMode) error {
	return f.do("mkdir "+name, func() error { return f.FS.Mkdir(name, mode) })
}

// Rename implements durable.FS.
func (f *Faulty) Rename(old, new string) error {
	return f.do("rename "+new, func() error { return f.FS.Rename(old, new) })
}

// Move implements durable.FS.
func (f *Faulty) Move(old, new string) error {
	return f.do("rename "+new, func() error { return f.FS.Move(old, new) })
}

// Remove implements durable.FS.
func (f *Faulty) Remove(name string) error {
	return f.do("remove "+name, func() error { return f.FS.Remove(name) })
}

// SyncDir implements durable.FS.
func (f *Faulty) SyncDir(name string) error {
	return f.sync("syncdir "+name, func() error { return f.FS.SyncDir(name) }, func() {
		if m, ok := f.FS.(*Mem); ok {
			m.syncDir(name, true)
		}
	})
}

type faultyFile struct {
	durable.File
	fs   *Faulty
	name string
}

func (f *faultyFile) WriteAt(p []byte, off int64) (n int, err error) {
	how, fail := f.fs.Step("write " + f.name)
	switch how {
	case Before:
		return 0, fail
	case Torn:
		p = p[:len(p)/2]
	}
	n, err = f.File.WriteAt(p, off)
	if err == nil {
		err = fail
	}
	return n, err
}

func (f *faultyFile) Truncate(size int64) error {
	return f.fs.do("truncate "+f.name, func() error { return f.File.Truncate(size) })
}

func (f *faultyFile) Sync() error {
	return f.fs.sync("sync "+f.name, f.File.Sync, func() {
		if m, ok := f.File.(*memFile); ok {
			m.sync(true)
		}
	})
}

func (f *faultyFile) Reserve(size int64) error {
	return f.fs.do("reserve "+f.name, func() error { return f.File.Reserve(size) })
}
