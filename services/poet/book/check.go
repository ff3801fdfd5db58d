package book

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
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

// checkFile reads every page of the database that is in use, before bbolt
// does, which trusts its pages and panics, loops or answers wrongly if they are
// damaged. It checks the structure of all buckets, and the values of ours: their
// checksums, that there are as many as the bucket's sequence says, and that no page
// in use is on the list of free ones.
//
// It looks like more than a program should do for its database, and is not: bbolt
// walks damaged pages in a goroutine of its own, whose panic nobody can recover.
//
// A damaged head is reported too. bbolt would go on with the state before the last
// transaction, which may lack acknowledged registrations; acceptOlder allows it.
func checkFile(path string, acceptOlder bool) error {
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
		return damaged("one of its two heads; the last transaction may be missing; if the power failed while it was written, start once with --accept-older-state")
	case !ok || ok2 && second.tx > first.tx:
		first = second
	}
	if first.pageSize < 1<<10 || first.pageSize > 1<<16 || int64(first.pages) > c.size/first.pageSize {
		return damaged("it is shorter than its head says")
	}
	c.pageSize, c.pages = first.pageSize, first.pages
	if err := c.walk(first.root, 0, bounds{}, &bucket{kind: topBucket}); err != nil || first.free == noFreelist {
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

// bucketKind says what a bucket may hold.
type bucketKind uint8

const (
	topBucket     bucketKind = iota // buckets, each of its own kind
	sealedBucket                    // values under our checksums
	membersBucket                   // a sealedBucket for each round
	foreignBucket                   // what another package likes: only its structure is checked
)

// bucket checks the keys of one bucket as they come, in order.
type bucket struct {
	kind bucketKind
	name []byte // of a sealedBucket: its checksums are over it
	keys uint64
	last []byte
}

// child returns the check of the bucket under a key, or nil if none may be there.
func (b *bucket) child(key []byte) *bucket {
	switch {
	case b.kind == sealedBucket:
		return nil
	case b.kind == membersBucket, b.kind == topBucket && (bytes.Equal(key, bucketMeta) || bytes.Equal(key, bucketProofs)):
		return &bucket{kind: sealedBucket, name: bytes.Clone(key)}
	case b.kind == topBucket && bytes.Equal(key, bucketMembers):
		return &bucket{kind: membersBucket}
	}
	return &bucket{kind: foreignBucket}
}

// mayHold tells whether a value may be under a key.
func (b *bucket) mayHold(key, value []byte) bool {
	if b.kind == sealedBucket {
		_, err := openValue(b.name, key, value)
		return err == nil
	}
	return b.kind == foreignBucket
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

func (c *checker) walk(id uint64, depth int, in bounds, b *bucket) error {
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
func (c *checker) elements(buf []byte, depth int, in bounds, b *bucket) error {
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

func (c *checker) leaf(key, value []byte, isBucket bool, in bounds, b *bucket) error {
	if b.keys > 0 && bytes.Compare(key, b.last) <= 0 || bytes.Compare(key, in.low) < 0 || in.high != nil && bytes.Compare(key, in.high) >= 0 {
		return damaged("key %x is out of order", key)
	}
	b.keys++
	b.last = append(b.last[:0], key...)
	if isBucket {
		child := b.child(key)
		if child == nil || len(value) < bucketHead {
			return damaged("bucket %x", key)
		}
		return c.bucket(key, value, child)
	}
	if !b.mayHold(key, value) {
		return damaged("value of %x", key)
	}
	return nil
}

func (c *checker) bucket(key, value []byte, b *bucket) error {
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
	if b.kind != foreignBucket && b.keys != sequence {
		return damaged("bucket %q has %d of %d keys", key, b.keys, sequence)
	}
	return nil
}
