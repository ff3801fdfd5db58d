package post

import (
	"bytes"
	"errors"
	"io"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

var errDead = errors.New("the process is dead")

// fault is what happens at one call that changes the disk.
type fault int

const (
	noFault    fault = iota
	diskFull         // the call does nothing and fails with ENOSPC
	ioError          // the call takes effect but fails with EIO
	shortWrite       // half is written, without an error
	dieBefore        // the process ends instead of the call
	dieAfter         // the process ends after the call, or after half a write
)

// memFS is a disk that breaks on order. It knows what power loss may take
// away: bytes not fsynced, and names whose folder was not fsynced.
type memFS struct {
	names   map[string]*memInode // as the process sees them
	durable map[string]*memInode // as power loss leaves them
	dirs    map[string]bool

	calls  int // that change the disk
	failAt int // the call that breaks, from 1
	fault  fault
	dead   bool
}

type memInode struct{ data, synced []byte }

func newMemFS() *memFS {
	return &memFS{names: map[string]*memInode{}, durable: map[string]*memInode{}, dirs: map[string]bool{}}
}

// change runs do as one call that may break.
func (m *memFS) change(do func()) error {
	if m.dead {
		return errDead
	}
	m.calls++
	f := noFault
	if m.calls == m.failAt {
		f = m.fault
	}
	switch f {
	case diskFull:
		return &iofs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	case ioError, shortWrite:
		do()
		return &iofs.PathError{Op: "write", Path: "x", Err: syscall.EIO}
	case dieBefore:
		m.dead = true
		return errDead
	case dieAfter:
		do()
		m.dead = true
		return errDead
	}
	do()
	return nil
}

// killed returns the disk as the next process finds it after kill -9.
func (m *memFS) killed() *memFS {
	next := newMemFS()
	next.names, next.durable, next.dirs = m.names, m.durable, m.dirs
	return next
}

// powerLost returns the disk after power loss: of all that was not fsynced,
// random decides what stayed.
func (m *memFS) powerLost(random *rand.Rand) *memFS {
	next := newMemFS()
	next.dirs = m.dirs
	names := maps.Clone(m.durable)
	for _, name := range slices.Sorted(maps.Keys(m.names)) {
		if random.IntN(2) == 0 {
			names[name] = m.names[name]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		inode := names[name]
		size := len(inode.synced)
		if more := len(inode.data) - size; more > 0 {
			size += random.IntN(more + 1)
		}
		kept := make([]byte, size)
		copy(kept, inode.synced)
		for at := 0; at < size; at += 8 {
			if random.IntN(2) == 0 && at < len(inode.data) {
				copy(kept[at:min(at+8, size)], inode.data[at:])
			}
		}
		after := &memInode{data: kept, synced: bytes.Clone(kept)}
		next.names[name], next.durable[name] = after, after
	}
	return next
}

func (m *memFS) mkdirAll(dir string) error { return m.change(func() { m.dirs[dir] = true }) }

func (m *memFS) list(dir string) (names []string, err error) {
	if !m.dirs[dir] {
		return nil, iofs.ErrNotExist
	}
	for name := range m.names {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	return names, nil
}

func (m *memFS) open(name string, flag int) (file, error) {
	if m.dead {
		return nil, errDead
	}
	if m.names[name] == nil {
		if flag&os.O_CREATE == 0 {
			return nil, &iofs.PathError{Op: "open", Path: name, Err: iofs.ErrNotExist}
		}
		if err := m.change(func() { m.names[name] = &memInode{} }); err != nil {
			return nil, err
		}
	}
	if flag&os.O_TRUNC != 0 {
		if err := m.change(func() { m.names[name].data = nil }); err != nil {
			return nil, err
		}
	}
	return &memFile{fs: m, inode: m.names[name]}, nil
}

func (m *memFS) rename(from, to string) error {
	return m.change(func() {
		m.names[to] = m.names[from]
		delete(m.names, from)
	})
}

func (m *memFS) syncDir(dir string) error {
	return m.change(func() {
		maps.DeleteFunc(m.durable, func(name string, _ *memInode) bool { return filepath.Dir(name) == dir })
		for name, inode := range m.names {
			if filepath.Dir(name) == dir {
				m.durable[name] = inode
			}
		}
	})
}

type memFile struct {
	fs    *memFS
	inode *memInode
}

func (f *memFile) ReadAt(p []byte, offset int64) (int, error) {
	if f.fs.dead {
		return 0, errDead
	}
	if offset >= int64(len(f.inode.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.inode.data[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, offset int64) (int, error) {
	n := len(p)
	half := f.fs.calls+1 == f.fs.failAt && (f.fs.fault == shortWrite || f.fs.fault == dieAfter)
	if half {
		n /= 2
	}
	err := f.fs.change(func() {
		data := bytes.Clone(f.inode.data) // synced may share the old one
		if need := int(offset) + n; need > len(data) {
			data = append(data, make([]byte, need-len(data))...)
		}
		copy(data[offset:], p[:n])
		f.inode.data = data
	})
	if half && f.fs.fault == shortWrite {
		return n, nil
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (f *memFile) Sync() error { return f.fs.change(func() { f.inode.synced = f.inode.data }) }

func (f *memFile) size() (int64, error) { return int64(len(f.inode.data)), nil }

func (f *memFile) Close() error { return nil }
