package posw

import (
	"crypto/sha256"
	"encoding/binary"
)

// node is a node of the tree; a leaf is one of height 0.
type node = [NodeSize]byte

// hasher computes labels and inner nodes under one statement. It has scratch space,
// so it serves one goroutine, and it allocates only when made.
type hasher struct {
	statement []byte
	buf       []byte // begins with the statement
}

func newHasher(statement []byte) *hasher {
	buf := make([]byte, 0, len(statement)+8+(MaxHeight+1)*NodeSize)
	buf = append(buf, statement...)
	return &hasher{statement: buf[:len(statement):len(statement)], buf: buf}
}

// label computes leaf i from the left siblings on its path (reference/poet.md 1.2).
func (h *hasher) label(i uint64, parked *[MaxHeight + 1]node) node {
	d := h.first(i, parked)
	for range LeafHashes - 1 {
		d = sha256.Sum256(d[:])
	}
	return d
}

// first computes the first of the nested hashes of a label.
func (h *hasher) first(i uint64, parked *[MaxHeight + 1]node) node {
	msg := binary.BigEndian.AppendUint64(h.buf[:len(h.statement)], i)
	for height := range parked {
		if i>>height == 0 {
			break
		}
		if i>>height&1 == 1 {
			msg = append(msg, parked[height][:]...)
		}
	}
	return sha256.Sum256(msg)
}

// parent computes an inner node (reference/poet.md 1.3).
func (h *hasher) parent(left, right *node) node {
	msg := append(h.buf[:len(h.statement)], left[:]...)
	return sha256.Sum256(append(msg, right[:]...))
}
