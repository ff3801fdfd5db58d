package sealed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"path/filepath"

	"github.com/zeebo/blake3"
	"go.etcd.io/bbolt"
)

// Bucket is a bucket whose values carry a checksum over its name, their key and
// themselves, and whose sequence is the number of its keys, so that no check misses
// one. One that is not there is empty, and cannot be written.
type Bucket struct {
	in   *bbolt.Bucket
	name []byte
}

// Top returns a bucket at the top of the file.
func Top(tx *bbolt.Tx, name string) Bucket { return Bucket{tx.Bucket([]byte(name)), []byte(name)} }

// Sub returns a bucket inside of this one.
func (b Bucket) Sub(name []byte) Bucket { return Bucket{b.in.Bucket(name), name} }

// MakeSub returns a bucket inside of this one, making it if there is none.
func (b Bucket) MakeSub(name []byte) (Bucket, error) {
	if sub := b.Sub(name); sub.in != nil {
		return sub, nil
	}
	if err := b.in.SetSequence(b.in.Sequence() + 1); err != nil {
		return Bucket{}, err
	}
	sub, err := b.in.CreateBucket(name)
	return Bucket{sub, name}, err
}

// Len returns the number of keys.
func (b Bucket) Len() uint64 {
	if b.in == nil {
		return 0
	}
	return b.in.Sequence()
}

// Get returns the value of a key, sharing the file's memory, or nil if there is none.
func (b Bucket) Get(key []byte) ([]byte, error) {
	if b.in == nil {
		return nil, nil
	}
	sealed := b.in.Get(key)
	if sealed == nil {
		return nil, nil
	}
	return b.open(key, sealed)
}

// Put stores a value under its checksum.
func (b Bucket) Put(key, value []byte) error {
	if b.in.Get(key) == nil {
		if err := b.in.SetSequence(b.in.Sequence() + 1); err != nil {
			return err
		}
	}
	return b.in.Put(key, seal(b.name, key, value))
}

// Each calls fn for every value, ascending by key.
func (b Bucket) Each(fn func(key, value []byte) error) error {
	if b.in == nil {
		return nil
	}
	var count uint64
	err := b.in.ForEach(func(key, sealed []byte) error {
		value, err := b.open(key, sealed)
		if err != nil {
			return err
		}
		count++
		return fn(key, value)
	})
	if err == nil && count != b.Len() {
		err = b.damaged("%d keys where %d were stored", count, b.Len())
	}
	return err
}

// Keys yields the keys from one on, ascending, those of buckets too.
func (b Bucket) Keys(from []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		c := b.in.Cursor()
		for key, _ := c.Seek(from); key != nil && yield(key); key, _ = c.Next() {
		}
	}
}

func (b Bucket) open(key, sealed []byte) ([]byte, error) {
	if value, ok := unseal(b.name, key, sealed); ok {
		return value, nil
	}
	return nil, b.damaged("value of %x", key)
}

func (b Bucket) damaged(format string, args ...any) error {
	return fmt.Errorf("%s, bucket %q: %s: %w: restore the file from a copy", filepath.Base(b.in.Tx().DB().Path()), b.name, fmt.Sprintf(format, args...), ErrDamaged)
}

// sumSize is the length of a value's checksum, in bytes: against accidents, not
// against an adversary, who could write checksums too.
const sumSize = 8

func seal(bucket, key, value []byte) []byte {
	sum := sumOf(bucket, key, value)
	return append(append(make([]byte, 0, len(value)+len(sum)), value...), sum[:]...)
}

// unseal returns the value, sharing its memory.
func unseal(bucket, key, sealed []byte) ([]byte, bool) {
	n := len(sealed) - sumSize
	if n < 0 {
		return nil, false
	}
	sum := sumOf(bucket, key, sealed[:n])
	return sealed[:n:n], bytes.Equal(sum[:], sealed[n:])
}

func sumOf(bucket, key, value []byte) (sum [sumSize]byte) {
	buf := make([]byte, 0, 160)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(bucket)))
	buf = append(buf, bucket...)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(key)))
	buf = append(buf, key...)
	buf = append(buf, value...)
	full := blake3.Sum256(buf)
	copy(sum[:], full[:])
	return sum
}
