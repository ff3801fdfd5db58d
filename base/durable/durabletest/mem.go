// Package durabletest is disks that break, for tests of what must survive it.
//
// It promises: [Mem] loses at [Mem.Crash] what was not synced, and only that,
// and never makes durable what a failed sync was to make so; [Faulty] fails the
// operation that it was told to. It leaves to the caller to try every operation
// and many seeds.
package durabletest

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"tweedle/base/durable"
)

// atom is what a disk writes whole or not at all, in bytes. A sector has 512
// and more, memory that keeps its content has 8.
const atom = 8

// Mem is a file system in memory that can lose power: [Mem.Crash] returns what
// a disk might hold then. Content is safe after File.Sync, names after SyncDir
// of their directory. Of what was not synced anything may survive: parts of a
// write in any order, a length without its content, a later change of a name
// without an earlier one. Its methods may be called concurrently.
type Mem struct {
	mu       sync.Mutex
	capacity int64 // bytes, of all files
	names    map[string]*inode
	safe     map[string]*inode // names that survive a crash
	changes  []nameChange      // since then, in order
}

type inode struct {
	data   []byte      // as the process sees it
	safe   []byte      // as it survives a crash
	writes []dataWrite // since then, in order
}

// dataWrite is a write at an offset, or a truncation if data is nil.
type dataWrite struct {
	at   int64
	data []byte
}

// nameChange sets a name, or removes it if the inode is nil; old, if not
// empty, goes away in the same step.
type nameChange struct {
	name, old string
	inode     *inode
}

// NewMem returns an empty file system with room for capacity bytes.
func NewMem(capacity int64) *Mem {
	return &Mem{capacity: capacity, names: map[string]*inode{}, safe: map[string]*inode{}}
}

// SetCapacity changes the room, also to less than is used.
func (m *Mem) SetCapacity(capacity int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = capacity
}

// Crash returns the file system as a start after a loss of power finds it,
// drawn by seed. The old one must not be used any more.
func (m *Mem) Crash(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := rand.New(rand.NewPCG(seed, 0))
	names := maps.Clone(m.safe)
	stop, inOrder := r.IntN(len(m.changes)+1), r.IntN(2) == 0
	for i, c := range m.changes {
		if inOrder && i < stop || !inOrder && r.IntN(2) == 0 {
			c.apply(names)
		}
	}
	after := NewMem(m.capacity)
	done := map[*inode]*inode{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		old := names[name]
		if done[old] == nil {
			data := old.crash(r)
			done[old] = &inode{data: data, safe: slices.Clone(data)}
		}
		after.names[name] = done[old]
		after.safe[name] = done[old]
	}
	return after
}

func (c nameChange) apply(names map[string]*inode) {
	if c.old != "" {
		delete(names, c.old)
	}
	if c.inode == nil {
		delete(names, c.name)
	} else {
		names[c.name] = c.inode
	}
}

// crash draws what survives of the writes since the last sync.
func (n *inode) crash(r *rand.Rand) []byte {
	data := slices.Clone(n.safe)
	for _, w := range n.writes {
		if w.data == nil {
			if r.IntN(2) == 0 {
				data = resize(data, w.at)
			}
			continue
		}
		keep := r.IntN(4) // nothing, the length, the length and some of the content, everything
		end := w.at + int64(len(w.data))
		if keep > 0 && end > int64(len(data)) {
			data = resize(data, end)
		}
		for at := w.at; at < end; {
			next := min(at/atom*atom+atom, end)
			if keep == 3 || keep == 2 && r.IntN(2) == 0 {
				data = put(data, w.data[at-w.at:next-w.at], at)
			}
			at = next
		}
	}
	return data
}

// sync makes the writes safe, or forgets them if it fails: the file shows them
// until the power is lost, and no later sync makes them durable, though it does
// not fail: the kernel tells an error once
// (https://wiki.postgresql.org/wiki/Fsync_Errors).
func (n *inode) sync(fails bool) {
	for _, w := range n.writes {
		switch {
		case fails:
		case w.data == nil:
			n.safe = resize(n.safe, w.at)
		default:
			n.safe = put(n.safe, w.data, w.at)
		}
	}
	n.writes = nil
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return data[:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

func put(data, p []byte, off int64) []byte {
	if end := off + int64(len(p)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[off:], p)
	return data
}

func (m *Mem) usedLocked() int64 {
	var used int64
	seen := map[*inode]bool{}
	for _, n := range m.names {
		if !seen[n] {
			seen[n] = true
			used += int64(len(n.data))
		}
	}
	return used
}

func (m *Mem) changeLocked(c nameChange) {
	c.apply(m.names)
	m.changes = append(m.changes, c)
}

func notExist(op, name string) error { return &os.PathError{Op: op, Path: name, Err: os.ErrNotExist} }

// Create implements durable.FS.
func (m *Mem) Create(name string, _ os.FileMode) (durable.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] != nil {
		m.changeLocked(nameChange{name: name})
	}
	n := &inode{}
	m.changeLocked(nameChange{name: name, inode: n})
	return &memFile{fs: m, name: name, inode: n, write: true}, nil
}

// Open implements durable.FS.
func (m *Mem) Open(name string) (durable.File, error) { return m.open(name, false) }

// Edit implements durable.FS.
func (m *Mem) Edit(name string) (durable.File, error) { return m.open(name, true) }

func (m *Mem) open(name string, write bool) (durable.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		return nil, notExist("open", name)
	}
	return &memFile{fs: m, name: name, inode: n, write: write}, nil
}

// Mkdir implements durable.FS: directories need no making here.
func (m *Mem) Mkdir(string, os.FileMode) error { return nil }

// ReadDir implements durable.FS.
func (m *Mem) ReadDir(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.names {
		if filepath.Dir(name) == filepath.Clean(dir) {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Rename implements durable.FS.
func (m *Mem) Rename(old, new string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[old]
	if n == nil {
		return notExist("rename", old)
	}
	m.changeLocked(nameChange{name: new, old: old, inode: n})
	return nil
}

// Move implements durable.FS.
func (m *Mem) Move(old, new string) error {
	m.mu.Lock()
	taken := m.names[new] != nil
	m.mu.Unlock()
	if taken {
		return &os.LinkError{Op: "rename", Old: old, New: new, Err: os.ErrExist}
	}
	return m.Rename(old, new)
}

// Remove implements durable.FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] == nil {
		return notExist("remove", name)
	}
	m.changeLocked(nameChange{name: name})
	return nil
}

// SyncDir implements durable.FS.
func (m *Mem) SyncDir(dir string) error {
	m.syncDir(dir, false)
	return nil
}

// syncDir makes the changes in a directory safe, or forgets them if it fails.
func (m *Mem) syncDir(dir string, fails bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes = slices.DeleteFunc(m.changes, func(c nameChange) bool {
		if filepath.Dir(c.name) != filepath.Clean(dir) {
			return false
		}
		if !fails {
			c.apply(m.safe)
		}
		return true
	})
}

// Free implements durable.FS.
func (m *Mem) Free(string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(max(0, m.capacity-m.usedLocked())), nil
}

type memFile struct {
	fs    *Mem
	name  string
	inode *inode
	write bool // it was not opened for reading only
	lossy bool // a sync failed: what a later one says means nothing
}

// refuse is the answer to a change of a file that was opened for reading.
func (f *memFile) refuse(op string) error {
	if f.write {
		return nil
	}
	return &os.PathError{Op: op, Path: f.name, Err: syscall.EBADF}
}

func (n *inode) truncate(size int64) {
	n.data = resize(n.data, size)
	n.writes = append(n.writes, dataWrite{at: size})
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if off >= int64(len(f.inode.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.inode.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.refuse("write"); err != nil {
		return 0, err
	}
	var err error
	if grow := off + int64(len(p)) - int64(len(f.inode.data)); grow > 0 {
		if room := f.fs.capacity - f.fs.usedLocked(); grow > room {
			p = p[:max(0, int64(len(p))-(grow-max(0, room)))]
			err = &os.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
		}
	}
	if len(p) > 0 {
		f.inode.data = put(f.inode.data, p, off)
		f.inode.writes = append(f.inode.writes, dataWrite{off, slices.Clone(p)})
	}
	return len(p), err
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.inode.data)), nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if size < 0 {
		return fmt.Errorf("truncate %s: %w", f.name, os.ErrInvalid)
	}
	if err := f.refuse("truncate"); err != nil {
		return err
	}
	f.inode.truncate(size)
	return nil
}

func (f *memFile) Sync() error {
	f.sync(false)
	return nil
}

func (f *memFile) sync(fails bool) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.lossy = f.lossy || fails
	f.inode.sync(f.lossy)
}

func (f *memFile) Reserve(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if size-int64(len(f.inode.data)) > f.fs.capacity-f.fs.usedLocked() {
		return &os.PathError{Op: "reserve", Path: f.name, Err: syscall.ENOSPC}
	}
	return nil
}

func (f *memFile) Close() error { return nil }
