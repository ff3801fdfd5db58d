package storetest

import (
	"fmt"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite "modernc.org/sqlite/lib"
)

const full = sqlite.SQLITE_FULL

var ioErr = map[string]int32{
	"write": sqlite.SQLITE_IOERR_WRITE, "truncate": sqlite.SQLITE_IOERR_TRUNCATE, "sync": sqlite.SQLITE_IOERR_FSYNC,
	"grow": sqlite.SQLITE_IOERR_SHMSIZE, "delete": sqlite.SQLITE_IOERR_DELETE, "read": sqlite.SQLITE_IOERR_READ,
}

// under is the file system of SQLite that ours stands on, and ours is a copy of
// it, whose files have other methods.
var (
	under, ours *sqlite.Tsqlite3_vfs

	methods sync.Map // from the address of their methods to the *methodPair
	files   sync.Map // from the address of an open file to its *openFile
)

type methodPair struct{ under, ours *sqlite.Tsqlite3_io_methods }

type openFile struct {
	disk *Disk
	path string
	*methodPair
}

// install makes ours the file system of all databases that are opened later.
var install = sync.OnceValue(func() error {
	tls := libc.NewTLS()
	defer tls.Close()
	if rc := sqlite.Xsqlite3_initialize(tls); rc != sqlite.SQLITE_OK {
		return fmt.Errorf("initialize SQLite: code %d", rc)
	}
	found := sqlite.Xsqlite3_vfs_find(tls, 0)
	under = at[sqlite.Tsqlite3_vfs](found)
	place, err := allocate(tls, unsafe.Sizeof(*under))
	if err != nil {
		return err
	}
	ours = at[sqlite.Tsqlite3_vfs](place)
	*ours = *under
	if ours.FzName, err = libc.CString("storetest"); err != nil {
		return err
	}
	ours.FxOpen = pointer(open)
	ours.FxDelete = pointer(remove)
	if rc := sqlite.Xsqlite3_vfs_register(tls, place, 1); rc != sqlite.SQLITE_OK {
		return fmt.Errorf("register a file system with SQLite: code %d", rc)
	}
	return nil
})

// at is the value at an address outside of Go's memory.
func at[T any](address uintptr) *T { return *(**T)(unsafe.Pointer(&address)) }

// pointer and function turn Go functions into what the translated C code takes
// for their address, and back. Only functions of a package have one that stays.
func pointer[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

func function[F any](address uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{address})) }

func allocate(tls *libc.TLS, size uintptr) (uintptr, error) {
	place := libc.Xmalloc(tls, libc.Tsize_t(size))
	if place == 0 {
		return 0, fmt.Errorf("no memory for %d bytes", size)
	}
	return place, nil
}

func open(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32 {
	rc := function[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](under.FxOpen)(tls, vfs, name, file, flags, out)
	f := at[sqlite.Tsqlite3_file](file)
	if rc != sqlite.SQLITE_OK || f.FpMethods == 0 || name == 0 {
		return rc
	}
	path := libc.GoString(name)
	disk := of(path)
	if disk == nil {
		return rc
	}
	pair, err := methodsOver(tls, f.FpMethods)
	if err != nil {
		return sqlite.SQLITE_NOMEM
	}
	disk.opened(path)
	files.Store(file, &openFile{disk, path, pair})
	f.FpMethods = uintptr(unsafe.Pointer(pair.ours))
	return rc
}

// methodsOver returns our methods for files that have those at an address.
func methodsOver(tls *libc.TLS, address uintptr) (*methodPair, error) {
	if pair, ok := methods.Load(address); ok {
		return pair.(*methodPair), nil
	}
	place, err := allocate(tls, unsafe.Sizeof(sqlite.Tsqlite3_io_methods{}))
	if err != nil {
		return nil, err
	}
	pair := &methodPair{under: at[sqlite.Tsqlite3_io_methods](address), ours: at[sqlite.Tsqlite3_io_methods](place)}
	*pair.ours = *pair.under
	pair.ours.FxClose = pointer(closeFile)
	pair.ours.FxRead = pointer(read)
	pair.ours.FxWrite = pointer(write)
	pair.ours.FxTruncate = pointer(truncate)
	pair.ours.FxSync = pointer(syncFile)
	pair.ours.FxShmMap = pointer(shmMap)
	kept, _ := methods.LoadOrStore(address, pair)
	return kept.(*methodPair), nil
}

func fileAt(file uintptr) *openFile {
	f, ok := files.Load(file)
	if !ok {
		panic("storetest: a file that was not opened here")
	}
	return f.(*openFile)
}

func closeFile(tls *libc.TLS, file uintptr) int32 {
	f := fileAt(file)
	files.Delete(file)
	return function[func(*libc.TLS, uintptr) int32](f.under.FxClose)(tls, file)
}

func read(tls *libc.TLS, file, to uintptr, n int32, off int64) int32 {
	f := fileAt(file)
	return f.disk.read(f.path, func() int32 {
		return function[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](f.under.FxRead)(tls, file, to, n, off)
	})
}

func write(tls *libc.TLS, file, from uintptr, n int32, off int64) int32 {
	f := fileAt(file)
	data := unsafe.Slice(at[byte](from), n)
	return f.disk.change("write", f.path, change{off, data}, func(n int) int32 {
		return function[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](f.under.FxWrite)(tls, file, from, int32(n), off)
	})
}

func truncate(tls *libc.TLS, file uintptr, size int64) int32 {
	f := fileAt(file)
	return f.disk.change("truncate", f.path, change{off: size}, func(int) int32 {
		return function[func(*libc.TLS, uintptr, int64) int32](f.under.FxTruncate)(tls, file, size)
	})
}

func syncFile(tls *libc.TLS, file uintptr, flags int32) int32 {
	f := fileAt(file)
	return f.disk.sync(f.path, func() int32 {
		return function[func(*libc.TLS, uintptr, int32) int32](f.under.FxSync)(tls, file, flags)
	})
}

func shmMap(tls *libc.TLS, file uintptr, region, size, extend int32, out uintptr) int32 {
	f := fileAt(file)
	do := func() int32 {
		return function[func(*libc.TLS, uintptr, int32, int32, int32, uintptr) int32](f.under.FxShmMap)(tls, file, region, size, extend, out)
	}
	if extend == 0 {
		return do()
	}
	return f.disk.other("grow", f.path, do)
}

func remove(tls *libc.TLS, vfs, name uintptr, dirSync int32) int32 {
	path := libc.GoString(name)
	do := func() int32 {
		return function[func(*libc.TLS, uintptr, uintptr, int32) int32](under.FxDelete)(tls, vfs, name, dirSync)
	}
	if disk := of(path); disk != nil {
		return disk.other("delete", path, do)
	}
	return do()
}
