package sealed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"
	"slices"
)

// The layout of a bbolt file, version 2 (go.etcd.io/bbolt/internal/common). Its
// integers are in the machine's byte order.
const (
	pageHeader  = 16 // id, flags, count, overflow
	pageElement = 16
	pageBranch  = 0x01
	pageLeaf    = 0x02
	pageFree    = 0x10
	leafBucket  = 0x01
	bucketHead  = 16 // root page, sequence
	metaSize    = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2

	// maxTreeDepth bounds the pages from the root to a leaf; bbolt's trees of
	// any size that fits a disk are lower.
	maxTreeDepth = 32

	// noFreelist stands for the page of the free list where there is none.
	noFreelist = math.MaxUint64
)

var native = binary.NativeEndian

// checkFile reads every page of the file that is in use, before bbolt does, which
// trusts its pages and panics, loops or answers wrongly if they are damaged. It checks
// the structure of all buckets, that no page in use is on the list of free ones, and
// in sealed buckets the checksums, and that there are as many keys as were stored.
//
// It looks like more than a program should do for its database, and is not: bbolt
// walks damaged pages in a goroutine of its own, whose panic nobody can recover.
//
// A damaged head is reported too. bbolt would go on with the state before the last
// transaction, which may lack what was acknowledged.
func checkFile(path string, o Options) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	c := checker{file: f, size: info.Size(), sealed: o.Buckets, seen: map[uint64]bool{}}
	err = c.check(o.AcceptOlder)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("check %s: %w", path, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: restore the file from a copy", path, err)
	}
	return nil
}

type checker struct {
	file     io.ReaderAt
	size     int64
	pageSize int64
	pages    uint64   // the first page beyond all that are in use
	sealed   []string // buckets at the top
	seen     map[uint64]bool
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// metaPage is one of the two heads of the file.
type metaPage struct {
	pageSize int64
	root     uint64
	free     uint64 // page of the list of free pages
	pages    uint64
	tx       uint64
}

func (c *checker) meta(at int64) (m metaPage, ok bool) {
	b := make([]byte, pageHeader+metaSize)
	if _, err := c.file.ReadAt(b, at); err != nil {
		return m, false
	}
	b = b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	if native.Uint32(b) != metaMagic || native.Uint32(b[4:]) != metaVersion || native.Uint64(b[56:]) != sum.Sum64() {
		return m, false
	}
	return metaPage{
		pageSize: int64(native.Uint32(b[8:])), root: native.Uint64(b[16:]), free: native.Uint64(b[32:]),
		pages: native.Uint64(b[40:]), tx: native.Uint64(b[48:]),
	}, true
}

func (c *checker) check(acceptOlder bool) error {
	first, ok := c.meta(0)
	second, ok2 := metaPage{}, false
	for size := int64(1 << 10); size <= 1<<16 && !ok2; size *= 2 {
		if second, ok2 = c.meta(size); ok2 && second.pageSize != size {
			ok2 = false
		}
	}
	switch {
	case !ok && !ok2:
		return damaged("it has no valid head, or is no database")
	case ok != ok2 && !acceptOlder:
		return ErrHead
	case !ok || ok2 && second.tx > first.tx:
		first = second
	}
	if first.pageSize < 1<<10 || first.pageSize > 1<<16 || int64(first.pages) > c.size/first.pageSize {
		return damaged("it is shorter than its head says")
	}
	c.pageSize, c.pages = first.pageSize, first.pages
	if err := c.walk(first.root, 0, bounds{}, &keeper{top: true}); err != nil || first.free == noFreelist {
		return err
	}
	return c.freelist(first.free)
}

// freelist checks the list of free pages, after all pages in use were seen.
func (c *checker) freelist(id uint64) error {
	buf, err := c.page(id)
	if err != nil {
		return err
	}
	list, count := buf[pageHeader:], uint64(native.Uint16(buf[10:]))
	if count == math.MaxUint16 { // it is too long for the head
		count, list = native.Uint64(list), list[8:]
	}
	if native.Uint16(buf[8:]) != pageFree || count > uint64(len(list))/8 {
		return damaged("list of free pages")
	}
	for i := range count {
		free := native.Uint64(list[8*i:])
		if free < 2 || free >= c.pages || c.seen[free] {
			return damaged("page %d is in use and on the list of free pages", free)
		}
		c.seen[free] = true
	}
	return nil
}

// bounds are the keys that a page may hold, from low up to and without high; nil
// is no bound.
type bounds struct{ low, high []byte }

// keeper checks the keys of one bucket as they come, in order.
type keeper struct {
	top    bool // it holds buckets only
	sealed bool
	name   []byte
	keys   uint64
	last   []byte
}

// child returns the check of the bucket under a key.
func (c *checker) child(of *keeper, key []byte) *keeper {
	return &keeper{name: bytes.Clone(key), sealed: of.sealed || of.top && slices.Contains(c.sealed, string(key))}
}

// mayHold tells whether a value may be under a key.
func (b *keeper) mayHold(key, value []byte) bool {
	if b.sealed {
		_, ok := unseal(b.name, key, value)
		return ok
	}
	return !b.top
}

// page reads a page with those that overflow from it.
func (c *checker) page(id uint64) ([]byte, error) {
	if id < 2 || id >= c.pages {
		return nil, damaged("page %d lies outside of it", id)
	}
	buf := make([]byte, c.pageSize)
	if _, err := c.file.ReadAt(buf, int64(id)*c.pageSize); err != nil {
		return nil, err
	}
	more := uint64(native.Uint32(buf[12:]))
	if native.Uint64(buf) != id || more >= c.pages-id {
		return nil, damaged("head of page %d", id)
	}
	for i := id; i <= id+more; i++ {
		if c.seen[i] {
			return nil, damaged("page %d is used twice", i)
		}
		c.seen[i] = true
	}
	if more > 0 {
		buf = make([]byte, int64(more+1)*c.pageSize)
		if _, err := c.file.ReadAt(buf, int64(id)*c.pageSize); err != nil {
			return nil, err
		}
	}
	return buf, nil
}

func (c *checker) walk(id uint64, depth int, in bounds, b *keeper) error {
	if depth > maxTreeDepth {
		return damaged("pages form a loop at page %d", id)
	}
	buf, err := c.page(id)
	if err != nil {
		return err
	}
	if err := c.elements(buf, depth, in, b); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// elements checks a page, which may be one inside of a value.
func (c *checker) elements(buf []byte, depth int, in bounds, b *keeper) error {
	flags, count := native.Uint16(buf[8:]), int(native.Uint16(buf[10:]))
	if pageHeader+count*pageElement > len(buf) {
		return damaged("%d elements do not fit", count)
	}
	var keys [][]byte
	var kids []uint64
	for i := range count {
		at := pageHeader + i*pageElement
		el := buf[at : at+pageElement]
		switch flags {
		case pageLeaf:
			pos, ksize, vsize := uint64(native.Uint32(el[4:])), uint64(native.Uint32(el[8:])), uint64(native.Uint32(el[12:]))
			end := uint64(at) + pos + ksize + vsize
			if pos < pageElement || end > uint64(len(buf)) {
				return damaged("element %d lies outside", i)
			}
			key := buf[uint64(at)+pos:][:ksize]
			if err := c.leaf(key, buf[end-vsize:end], native.Uint32(el)&leafBucket != 0, in, b); err != nil {
				return err
			}
		case pageBranch:
			pos, ksize := uint64(native.Uint32(el)), uint64(native.Uint32(el[4:]))
			if end := uint64(at) + pos + ksize; pos < pageElement || end > uint64(len(buf)) {
				return damaged("element %d lies outside", i)
			}
			keys = append(keys, buf[uint64(at)+pos:][:ksize])
			kids = append(kids, native.Uint64(el[8:]))
		default:
			return damaged("its kind %#x", flags)
		}
	}
	if flags == pageBranch && count == 0 {
		return damaged("a branch without elements")
	}
	for i, kid := range kids {
		sub := bounds{keys[i], in.high}
		if i+1 < len(keys) {
			sub.high = keys[i+1]
		}
		// The first key of a branch may be above keys that came later.
		if i == 0 {
			sub.low = in.low
		}
		if err := c.walk(kid, depth+1, sub, b); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) leaf(key, value []byte, isBucket bool, in bounds, b *keeper) error {
	if b.keys > 0 && bytes.Compare(key, b.last) <= 0 || bytes.Compare(key, in.low) < 0 || in.high != nil && bytes.Compare(key, in.high) >= 0 {
		return damaged("key %x is out of order", key)
	}
	b.keys++
	b.last = append(b.last[:0], key...)
	if isBucket {
		if len(value) < bucketHead {
			return damaged("bucket %x", key)
		}
		return c.bucket(value, c.child(b, key))
	}
	if !b.mayHold(key, value) {
		return damaged("value of %x", key)
	}
	return nil
}

func (c *checker) bucket(value []byte, b *keeper) error {
	root, sequence := native.Uint64(value), native.Uint64(value[8:])
	var err error
	switch {
	case root != 0:
		err = c.walk(root, 0, bounds{}, b)
	case len(value) < bucketHead+pageHeader || native.Uint16(value[bucketHead+8:]) != pageLeaf:
		err = damaged("page inside of it")
	default:
		err = c.elements(value[bucketHead:], 0, bounds{}, b)
	}
	if err != nil {
		return fmt.Errorf("bucket %q: %w", b.name, err)
	}
	if b.sealed && b.keys != sequence {
		return damaged("bucket %q has %d of %d keys", b.name, b.keys, sequence)
	}
	return nil
}
