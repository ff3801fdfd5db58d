package posw

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"tweedle/values/types"
)

// node is a node of the tree; a leaf is one of height 0.
type node = types.Hash32

// hasher computes labels and inner nodes under one statement. It has scratch space,
// so it serves one goroutine, and it allocates only when made.
type hasher struct {
	kernel    kernel
	statement int           // bytes of it
	leaf      [lanes][]byte // messages of labels: they begin with the statement and have room for the longest
	inner     [lanes][]byte // messages of inner nodes, padded

	// What the kernel works on: arguments to it would go to the heap.
	d       node
	several [lanes]node
	at      [lanes]*byte
}

// blockSize is that of SHA-256, in bytes. The padding is one byte, zeros to the end
// of a block, and the length of the message in bits (FIPS 180-4, section 5.1.1).
const (
	blockSize  = sha256.BlockSize
	minPadding = 1 + 8
)

func newHasher(k kernel, statement []byte) *hasher {
	h := &hasher{kernel: k, statement: len(statement)}
	leaf, inner := padded(len(statement)+8+(MaxHeight+1)*NodeSize), padded(len(statement)+2*NodeSize)
	room := make([]byte, lanes*(leaf+inner))
	for i := range lanes {
		h.leaf[i], room = room[:leaf:leaf], room[leaf:]
		h.inner[i], room = room[:inner:inner], room[inner:]
		copy(h.leaf[i], statement)
		copy(h.inner[i], statement)
		pad(h.inner[i], len(statement)+2*NodeSize)
	}
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

// message writes what the first of the nested hashes of label i is the hash of, from
// the left siblings on its path (reference/poet.md 1.2). It goes to one of the lanes.
func (h *hasher) message(lane int, i uint64, parked *[MaxHeight + 1]node) []byte {
	msg := h.leaf[lane]
	binary.BigEndian.PutUint64(msg[h.statement:], i)
	n := h.statement + 8
	for rest := i; rest != 0; rest &= rest - 1 { // a branch on each bit would often be predicted wrong
		*(*node)(msg[n:]) = parked[bits.TrailingZeros64(rest)]
		n += NodeSize
	}
	return msg[:n]
}

// sum hashes a message that has room for its padding behind it.
func (h *hasher) sum(msg []byte) node {
	if h.kernel.blocks == nil {
		return sha256.Sum256(msg)
	}
	whole := msg[:padded(len(msg))]
	pad(whole, len(msg))
	h.d = initial
	h.kernel.blocks(&h.d, &whole[0], len(whole)/blockSize)
	return h.d
}

// sums does so with up to lanes messages, side by side, into h.several.
func (h *hasher) sums(msgs ...[]byte) {
	if h.kernel.blocks == nil || len(msgs) == 1 {
		for i, msg := range msgs {
			h.several[i] = h.sum(msg)
		}
		return
	}
	common := padded(len(msgs[0]))
	for i := range h.at {
		h.several[i] = initial
		if i >= len(msgs) { // an idle lane
			h.at[i] = h.at[0]
			continue
		}
		whole := msgs[i][:padded(len(msgs[i]))]
		pad(whole, len(msgs[i]))
		h.at[i] = &whole[0]
		common = min(common, len(whole))
	}
	h.kernel.several(&h.several, &h.at, common/blockSize)
	for i, msg := range msgs {
		if rest := msg[common:padded(len(msg))]; len(rest) > 0 {
			h.kernel.blocks(&h.several[i], &rest[0], len(rest)/blockSize)
		}
	}
}

// parent computes an inner node (reference/poet.md 1.3).
func (h *hasher) parent(left, right *node) node {
	half := h.half(left)
	return h.whole(&half, left, right)
}

// pair puts the children of a node in one of the lanes.
func (h *hasher) pair(lane int, left, right *node) {
	msg := h.inner[lane][h.statement:]
	*(*node)(msg) = *left
	*(*node)(msg[NodeSize:]) = *right
}

// parents computes the nodes of the pairs in the first n lanes, into h.several. The
// pairs do not touch the padding of their messages, which newHasher wrote.
func (h *hasher) parents(n int) {
	if h.kernel.blocks == nil {
		for i := range n {
			h.several[i] = sha256.Sum256(h.inner[i][:h.statement+2*NodeSize])
		}
		return
	}
	for i := range h.at {
		h.several[i], h.at[i] = initial, &h.inner[i][0]
	}
	h.kernel.several(&h.several, &h.at, len(h.inner[0])/blockSize)
}

// half computes as much of a parent as follows from its left child, which is known
// long before the right one. A kernel without states computes nothing.
func (h *hasher) half(left *node) node {
	if h.kernel.blocks == nil {
		return node{}
	}
	*(*node)(h.inner[0][h.statement:]) = *left
	h.d = initial
	if n := (h.statement + NodeSize) / blockSize; n > 0 {
		h.kernel.blocks(&h.d, &h.inner[0][0], n)
	}
	return h.d
}

// whole computes a parent from the half of its left child, and both children.
func (h *hasher) whole(half, left, right *node) node {
	*(*node)(h.inner[0][h.statement:]) = *left
	*(*node)(h.inner[0][h.statement+NodeSize:]) = *right
	if h.kernel.blocks == nil {
		return sha256.Sum256(h.inner[0][:h.statement+2*NodeSize])
	}
	h.d = *half
	at := (h.statement + NodeSize) / blockSize * blockSize
	h.kernel.blocks(&h.d, &h.inner[0][at], (len(h.inner[0])-at)/blockSize)
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

// first computes the first of the nested hashes of label i.
func (h *hasher) first(i uint64, parked *[MaxHeight + 1]node) node {
	return h.sum(h.message(0, i, parked))
}

// label computes the leaf that comes next on a spine, and makes it ready for that
// leaf: independent of the chain, this costs no time where it stands.
func (h *hasher) label(s *spine) node {
	d := h.first(s.count, &s.parked)
	s.ready(h)
	return h.chain(d)
}

// prefix returns the statement.
func (h *hasher) prefix() []byte { return h.leaf[0][:h.statement] }
