package book

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
	"lukechampine.com/blake3"

	"tweedle/services/poet"
)

const valueSumSize = 8

// SealValue returns value with a checksum over bucket, key and value.
func SealValue(bucket string, key, value []byte) []byte {
	sum := valueSum([]byte(bucket), key, value)
	return append(append(make([]byte, 0, len(value)+len(sum)), value...), sum[:]...)
}

// OpenValue returns the value of SealValue, sharing its memory, or ErrDamaged.
func OpenValue(bucket string, key, sealed []byte) ([]byte, error) {
	return openValue([]byte(bucket), key, sealed)
}

func openValue(bucket, key, sealed []byte) ([]byte, error) {
	if n := len(sealed) - valueSumSize; n >= 0 {
		if sum := valueSum(bucket, key, sealed[:n]); bytes.Equal(sum[:], sealed[n:]) {
			return sealed[:n:n], nil
		}
	}
	return nil, fmt.Errorf("%s: value of %x in bucket %x: %w: restore the file from a copy", DatabaseName, key, bucket, poet.ErrDamaged)
}

func valueSum(bucket, key, value []byte) (sum [valueSumSize]byte) {
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

// put stores a value. The bucket's sequence is the number of its keys, so that the
// check at a start misses none.
func put(b *bbolt.Bucket, name, key, value []byte) error {
	if b.Get(key) == nil {
		if err := b.SetSequence(b.Sequence() + 1); err != nil {
			return err
		}
	}
	return b.Put(key, SealValue(string(name), key, value))
}

// get returns the value of a key, or nil if there is none.
func get(b *bbolt.Bucket, name, key []byte) ([]byte, error) {
	sealed := b.Get(key)
	if sealed == nil {
		return nil, nil
	}
	return openValue(name, key, sealed)
}
