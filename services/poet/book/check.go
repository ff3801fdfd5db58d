package book

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"tweedle/services/poet"
)

// The layout of a bbolt file, version 2 (go.etcd.io/bbolt/internal/common). Its
// integers are in the machine's byte order.
const (
	pageHeader  = 16 // id, flags, count, overflow
	pageElement = 16
	pageBranch  = 0x01
	pageLeaf    = 0x02
	leafBucket  = 0x01
	bucketHead  = 16 // root page, sequence
	metaSize    = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2

	// maxTreeDepth bounds the pages from the root to a leaf; bbolt's trees of
	// any size that fits a disk are lower.
	maxTreeDepth = 32
)

var native = binary.NativeEndian

// checkDatabase reads every page of the database that is in use, before bbolt
// does, which trusts its pages and panics, loops or answers wrongly if they are
// damaged. It checks the structure of all buckets, and the values of ours: their
// checksums, and that there are as many as the bucket's sequence says.
//
// A damaged head is reported too. bbolt would go on with the state before the last
// transaction, which may lack acknowledged registrations; acceptOlder allows it.
func checkDatabase(path string, acceptOlder bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	c := checker{file: f, size: info.Size(), seen: map[uint64]bool{}}
	err = c.check(acceptOlder)
	if err != nil && !errors.Is(err, poet.ErrDamaged) {
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
	pages    uint64 // the first page beyond all that are in use
	seen     map[uint64]bool
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", poet.ErrDamaged, fmt.Sprintf(format, args...))
}

// metaPage is one of the two heads of the file.
type metaPage struct {
	pageSize int64
	root     uint64
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
		pageSize: int64(native.Uint32(b[8:])), root: native.Uint64(b[16:]),
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
		return damaged("one of its two heads; the last transaction may be missing; if the power failed while it was written, start once with --accept-older-state")
	case !ok || ok2 && second.tx > first.tx:
		first = second
	}
	if first.pageSize < 1<<10 || first.pageSize > 1<<16 || int64(first.pages) > c.size/first.pageSize {
		return damaged("it is shorter than its head says")
	}
	c.pageSize, c.pages = first.pageSize, first.pages
	return c.walk(first.root, 0, bounds{}, &bucketCheck{top: true})
}

// bounds are the keys that a page may hold, from low up to and without high; nil
// is no bound.
type bounds struct{ low, high []byte }

// bucketCheck checks the keys of one bucket as they come, in order.
type bucketCheck struct {
	top  bool   // the bucket of buckets
	name []byte // what the checksums of its values are over; nil if it is not ours
	list bool   // its values are buckets of values, each named by its key
	keys uint64
	last []byte
}

// ours returns the check for a bucket in b, or nil if it must not be there.
func (b *bucketCheck) ours(key []byte) *bucketCheck {
	switch {
	case b.list:
		return &bucketCheck{name: bytes.Clone(key)}
	case !b.top:
		return &bucketCheck{}
	}
	for _, name := range [][]byte{bucketMeta, bucketRounds, bucketProofs} {
		if bytes.Equal(name, key) {
			return &bucketCheck{name: name}
		}
	}
	return &bucketCheck{list: bytes.Equal(bucketMembers, key)}
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

func (c *checker) walk(id uint64, depth int, in bounds, b *bucketCheck) error {
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
func (c *checker) elements(buf []byte, depth int, in bounds, b *bucketCheck) error {
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

func (c *checker) leaf(key, value []byte, isBucket bool, in bounds, b *bucketCheck) error {
	if b.keys > 0 && bytes.Compare(key, b.last) <= 0 || bytes.Compare(key, in.low) < 0 || in.high != nil && bytes.Compare(key, in.high) >= 0 {
		return damaged("key %x is out of order", key)
	}
	b.keys++
	b.last = append(b.last[:0], key...)
	if isBucket {
		if b.name != nil || len(value) < bucketHead {
			return damaged("bucket %x", key)
		}
		return c.bucket(key, value, b.ours(key))
	}
	if b.top || b.list {
		return damaged("key %x is no bucket", key)
	}
	if b.name != nil {
		if _, err := openValue(b.name, key, value); err != nil {
			return damaged("value of %x", key)
		}
	}
	return nil
}

func (c *checker) bucket(key, value []byte, b *bucketCheck) error {
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
		return fmt.Errorf("bucket %q: %w", key, err)
	}
	if (b.name != nil || b.list) && b.keys != sequence {
		return damaged("bucket %q has %d of %d keys", key, b.keys, sequence)
	}
	return nil
}
