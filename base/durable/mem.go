package durable

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
)

// sector is the unit in which a disk writes all or nothing, in bytes.
const sector = 512

// Mem is a file system in memory that can lose power: [Mem.Crash] returns what
// a disk might hold then. Content is safe after File.Sync, names after SyncDir.
// What was not synced may survive whole, in part, or not at all; names survive
// in the order in which they were changed. Its methods may be called
// concurrently.
type Mem struct {
	mu       sync.Mutex
	capacity int64 // bytes, of all files
	names    map[string]*inode
	safe     map[string]*inode // names that survive a crash
	renames  []nameChange      // since then, in order
}

type inode struct {
	data   []byte
	safe   []byte      // content at the last sync
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
	for _, c := range m.renames[:r.IntN(len(m.renames)+1)] {
		c.apply(names)
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

// crash draws which of the sectors written since the last sync survive.
func (n *inode) crash(r *rand.Rand) []byte {
	data := slices.Clone(n.safe)
	for _, w := range n.writes {
		if w.data == nil {
			if r.IntN(2) == 0 {
				data = resize(data, w.at)
			}
			continue
		}
		keep := r.IntN(3) // nothing, some sectors, everything
		for off := int64(0); off < int64(len(w.data)); {
			end := min((w.at+off)/sector*sector+sector-w.at, int64(len(w.data)))
			if keep == 2 || keep == 1 && r.IntN(2) == 0 {
				data = put(data, w.data[off:end], w.at+off)
			}
			off = end
		}
	}
	return data
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
	m.renames = append(m.renames, c)
}

func notExist(op, name string) error { return &os.PathError{Op: op, Path: name, Err: os.ErrNotExist} }

// Create implements FS.
func (m *Mem) Create(name string, _ os.FileMode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		n = &inode{}
		m.changeLocked(nameChange{name: name, inode: n})
	} else {
		n.truncate(0)
	}
	return &memFile{fs: m, name: name, inode: n}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		return nil, notExist("open", name)
	}
	return &memFile{fs: m, name: name, inode: n}, nil
}

// Mkdir implements FS: directories need no making here.
func (m *Mem) Mkdir(string, os.FileMode) error { return nil }

// ReadDir implements FS.
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

// Rename implements FS.
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

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] == nil {
		return notExist("remove", name)
	}
	m.changeLocked(nameChange{name: name})
	return nil
}

// SyncDir implements FS. As a journaling file system does, it makes every
// earlier change of a name durable, in other directories too.
func (m *Mem) SyncDir(string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.safe = maps.Clone(m.names)
	m.renames = nil
	return nil
}

// Free implements FS.
func (m *Mem) Free(string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(max(0, m.capacity-m.usedLocked())), nil
}

type memFile struct {
	fs    *Mem
	name  string
	inode *inode
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
	f.inode.truncate(size)
	return nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.inode.safe = slices.Clone(f.inode.data)
	f.inode.writes = nil
	return nil
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
