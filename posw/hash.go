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
	kernel    kernel
	statement int    // bytes of it
	leaf      []byte // of a message that begins with the statement; room for the longest
	inner     []byte // message of an inner node, padded
	d         node   // what the kernel works on: an argument to it would go to the heap
	several   [lanes]node
}

// blockSize is that of SHA-256, in bytes. The padding is one byte, zeros to the end
// of a block, and the length of the message in bits (FIPS 180-4, section 5.1.1).
const (
	blockSize  = sha256.BlockSize
	minPadding = 1 + 8
)

func newHasher(k kernel, statement []byte) *hasher {
	h := &hasher{
		kernel:    k,
		statement: len(statement),
		leaf:      make([]byte, padded(len(statement)+8+(MaxHeight+1)*NodeSize)),
		inner:     make([]byte, padded(len(statement)+2*NodeSize)),
	}
	copy(h.leaf, statement)
	copy(h.inner, statement)
	pad(h.inner, len(statement)+2*NodeSize)
	return h
}

// padded returns the length of a padded message.
func padded(n int) int {
	return (n + minPadding + blockSize - 1) / blockSize * blockSize
}

// pad pads the first n bytes of msg to its end.
func pad(msg []byte, n int) {
	msg[n] = 0x80
	clear(msg[n+1:])
	binary.BigEndian.PutUint64(msg[len(msg)-8:], uint64(n)*8)
}

// first computes the first of the nested hashes of label i, from the left siblings
// on its path (reference/poet.md 1.2).
func (h *hasher) first(i uint64, parked *[MaxHeight + 1]node) node {
	binary.BigEndian.PutUint64(h.leaf[h.statement:], i)
	n := h.statement + 8
	for height := 0; i>>height != 0; height++ {
		if i>>height&1 == 1 {
			*(*node)(h.leaf[n:]) = parked[height]
			n += NodeSize
		}
	}
	if h.kernel.blocks == nil {
		return sha256.Sum256(h.leaf[:n])
	}
	msg := h.leaf[:padded(n)]
	pad(msg, n)
	h.d = initial
	h.kernel.blocks(&h.d, &msg[0], len(msg)/blockSize)
	return h.d
}

// parent computes an inner node (reference/poet.md 1.3).
func (h *hasher) parent(left, right *node) node {
	half := h.half(left)
	return h.whole(&half, left, right)
}

// half computes as much of a parent as follows from its left child, which is known
// long before the right one. A kernel without states computes nothing.
func (h *hasher) half(left *node) node {
	if h.kernel.blocks == nil {
		return node{}
	}
	*(*node)(h.inner[h.statement:]) = *left
	h.d = initial
	if n := (h.statement + NodeSize) / blockSize; n > 0 {
		h.kernel.blocks(&h.d, &h.inner[0], n)
	}
	return h.d
}

// whole computes a parent from the half of its left child, and both children.
func (h *hasher) whole(half, left, right *node) node {
	*(*node)(h.inner[h.statement:]) = *left
	*(*node)(h.inner[h.statement+NodeSize:]) = *right
	if h.kernel.blocks == nil {
		return sha256.Sum256(h.inner[:h.statement+2*NodeSize])
	}
	h.d = *half
	at := (h.statement + NodeSize) / blockSize * blockSize
	h.kernel.blocks(&h.d, &h.inner[at], (len(h.inner)-at)/blockSize)
	return h.d
}

// chain computes the other nested hashes of a label from the first.
func (h *hasher) chain(first node) node {
	h.d = first
	h.kernel.chain(&h.d, LeafHashes-1)
	return h.d
}

// chains does so for the first n of several labels, in h.several.
func (h *hasher) chains(n int) {
	if n == 1 {
		h.several[0] = h.chain(h.several[0])
		return
	}
	h.kernel.chains(&h.several, LeafHashes-1)
}

// label computes the leaf that comes next on a spine.
func (h *hasher) label(s *spine) node { return h.chain(h.first(s.count, &s.parked)) }

// prefix returns the statement.
func (h *hasher) prefix() []byte { return h.leaf[:h.statement] }
