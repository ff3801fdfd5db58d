package post

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/zeebo/blake3"
)

// indexBits is the width of a packed index into numLabels labels:
// floor(log2 numLabels) + 1.
func indexBits(numLabels uint64) int { return bits.Len64(numLabels) }

// indicesSize is the length in bytes of k packed indices.
func indicesSize(k uint32, width int) int { return (int(k)*width + 7) / 8 }

// packIndices writes the low width bits of each index, least significant bit
// first, into ascending bits of the result (reference/post.md 1.2).
func packIndices(indices []uint64, width int) []byte {
	packed := make([]byte, indicesSize(uint32(len(indices)), width))
	at := 0
	for _, index := range indices {
		for b := range width {
			packed[at/8] |= byte(index>>b&1) << (at % 8)
			at++
		}
	}
	return packed
}

// unpackIndices is the inverse of packIndices for k indices. It refuses
// another length and set bits after the last index, so that one list of
// indices has one encoding.
func unpackIndices(packed []byte, k uint32, width int) ([]uint64, error) {
	if size := indicesSize(k, width); len(packed) != size {
		return nil, fmt.Errorf("post: indices take %d bytes, must be %d", len(packed), size)
	}
	indices := make([]uint64, k)
	at := 0
	bit := func() uint64 {
		b := packed[at/8] >> (at % 8) & 1
		at++
		return uint64(b)
	}
	for i := range indices {
		for b := range width {
			indices[i] |= bit() << b
		}
	}
	for at < 8*len(packed) {
		if bit() != 0 {
			return nil, errors.New("post: padding bits after the indices are not zero")
		}
	}
	return indices, nil
}

// checkIndices reports an index outside the space, or one that repeats: with
// repeats one lucky label would do for a whole proof.
func checkIndices(indices []uint64, numLabels uint64) error {
	sorted := slices.Sorted(slices.Values(indices))
	for i, index := range sorted {
		if index >= numLabels {
			return fmt.Errorf("post: index %d is outside the space of %d labels", index, numLabels)
		}
		if i > 0 && index == sorted[i-1] {
			return fmt.Errorf("post: index %d appears more than once", index)
		}
	}
	return nil
}

// drawOrdinals draws k of the numbers 0..n-1 without repetition, by
// Fisher-Yates over 16-bit draws from BLAKE3's output for seed. Draws that
// would favour small numbers are rejected (reference/post.md 1.2). k <= n <
// 2^16.
func drawOrdinals(k, n int, seed ...[]byte) []int {
	h := blake3.New()
	for _, part := range seed {
		h.Write(part)
	}
	random := h.Digest()
	ordinals := make([]int, n)
	for i := range ordinals {
		ordinals[i] = i
	}
	var draw [2]byte
	for i := 0; i < k; {
		random.Read(draw[:])
		left := n - i
		r := int(binary.LittleEndian.Uint16(draw[:]))
		if r >= 0xffff-0xffff%left {
			continue
		}
		j := i + r%left
		ordinals[i], ordinals[j] = ordinals[j], ordinals[i]
		i++
	}
	return ordinals[:k]
}
