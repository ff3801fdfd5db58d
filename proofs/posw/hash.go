package posw

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"

	"tweedle/values/types"
)

// node is a node of the tree; a leaf is one of height 0.
type node = types.Hash32

// hasher computes labels and inner nodes under one statement. It has scratch space,
// so it serves one goroutine, and it allocates only when made.
//
//	message, sum     a label's message, and its hash: the first of the nested ones
//	chain            the other nested hashes
//	labels           both for many messages, as many side by side as the kernel can
//	parent           an inner node; half and whole are its two steps
//	pair, parents    many inner nodes, side by side
type hasher struct {
	kernel    kernel
	statement int    // bytes of it
	room      []byte // all messages: of labels, then of inner nodes, width of each
	leaf      int    // bytes for each message of a label: they begin with the statement and have room for the longest
	inner     int    // bytes of each message of an inner node, padded
	width     int    // of the kernel

	// What the kernel works on: arguments to it would go to the heap.
	d       node
	several [maxLanes]node
	at      [maxLanes]uint32
}

// span is a message of n bytes in a buffer, with room for its padding behind it.
type span struct{ at, n int }

// blockSize is that of SHA-256, in bytes. The padding is one byte, zeros to the end
// of a block, and the length of the message in bits (FIPS 180-4, section 5.1.1).
const (
	blockSize  = sha256.BlockSize
	minPadding = 1 + 8
)

func newHasher(k kernel, statement []byte) *hasher {
	h := &hasher{
		kernel: k, statement: len(statement), width: k.width(),
		leaf:  padded(len(statement) + 8 + (MaxHeight+1)*NodeSize),
		inner: padded(len(statement) + 2*NodeSize),
	}
	h.room = make([]byte, h.width*(h.leaf+h.inner))
	for i := range h.width {
		copy(h.room[i*h.leaf:], statement)
		msg := h.node(i)
		copy(msg, statement)
		pad(msg, len(statement)+2*NodeSize)
	}
	return h
}

// node returns the message of an inner node.
func (h *hasher) node(i int) []byte {
	at := h.width*h.leaf + i*h.inner
	return h.room[at : at+h.inner]
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
// the left siblings on its path (reference/poet.md 1.2), as one of width messages.
func (h *hasher) message(place int, i uint64, parked *[MaxHeight + 1]node) span {
	at := place * h.leaf
	msg := h.room[at : at+h.leaf]
	binary.BigEndian.PutUint64(msg[h.statement:], i)
	n := h.statement + 8
	for rest := i; rest != 0; rest &= rest - 1 { // a branch on each bit would often be predicted wrong
		*(*node)(msg[n:]) = parked[bits.TrailingZeros64(rest)]
		n += NodeSize
	}
	return span{at, n}
}

// sum hashes a message.
func (h *hasher) sum(room []byte, m span) node {
	if h.kernel.blocks == nil {
		return sha256.Sum256(room[m.at : m.at+m.n])
	}
	whole := room[m.at : m.at+padded(m.n)]
	pad(whole, m.n)
	h.d = initial
	h.kernel.blocks(&h.d, &whole[0], len(whole)/blockSize)
	return h.d
}

// sums does so with some messages side by side, into several. What the longer ones have
// more of follows one after another.
func (h *hasher) sums(p *parallel, room []byte, msgs []span) {
	if h.kernel.blocks == nil || p.several == nil {
		for i, m := range msgs {
			h.several[i] = h.sum(room, m)
		}
		return
	}
	common := padded(msgs[0].n)
	for i := range p.lanes {
		h.several[i] = initial
		if i >= len(msgs) { // an idle lane
			h.at[i] = h.at[0]
			continue
		}
		m := msgs[i]
		size := padded(m.n)
		pad(room[m.at:m.at+size], m.n)
		h.at[i] = uint32(m.at)
		common = min(common, size)
	}
	p.several(&h.several, room, &h.at, common/blockSize)
	for i, m := range msgs {
		if rest := padded(m.n) - common; rest > 0 {
			h.kernel.blocks(&h.several[i], &room[m.at+common], rest/blockSize)
		}
	}
}

// labels computes the labels of any number of messages.
func (h *hasher) labels(room []byte, msgs []span, labels []node) {
	for len(msgs) > 0 {
		p, n := h.kernel.next(len(msgs))
		if p == nil {
			labels[0] = h.chain(h.sum(room, msgs[0]))
		} else {
			h.sums(p, room, msgs[:n])
			p.chains(&h.several, LeafHashes-1)
			copy(labels, h.several[:n])
		}
		msgs, labels = msgs[n:], labels[n:]
	}
}

// parent computes an inner node (reference/poet.md 1.3).
func (h *hasher) parent(left, right *node) node {
	half := h.half(left)
	return h.whole(&half, left, right)
}

// pair puts the children of an inner node in one of width messages.
func (h *hasher) pair(place int, left, right *node) {
	msg := h.node(place)[h.statement:]
	*(*node)(msg) = *left
	*(*node)(msg[NodeSize:]) = *right
}

// parents computes the inner nodes of the first pairs. These do not touch the padding
// of their messages, which newHasher wrote.
func (h *hasher) parents(nodes []node) {
	for place := 0; place < len(nodes); {
		p, n := h.kernel.next(len(nodes) - place)
		if p == nil || p.several == nil {
			for i := place; i < place+n; i++ {
				nodes[i] = h.sum(h.node(i), span{0, h.statement + 2*NodeSize})
			}
		} else {
			for i := range p.lanes {
				h.several[i], h.at[i] = initial, uint32(h.width*h.leaf+(place+min(i, n-1))*h.inner)
			}
			p.several(&h.several, h.room, &h.at, h.inner/blockSize)
			copy(nodes[place:], h.several[:n])
		}
		place += n
	}
}

// half computes as much of a parent as follows from its left child, which is known
// long before the right one. A kernel without states computes nothing.
func (h *hasher) half(left *node) node {
	if h.kernel.blocks == nil {
		return node{}
	}
	msg := h.node(0)
	*(*node)(msg[h.statement:]) = *left
	h.d = initial
	if n := (h.statement + NodeSize) / blockSize; n > 0 {
		h.kernel.blocks(&h.d, &msg[0], n)
	}
	return h.d
}

// whole computes a parent from the half of its left child, and both children.
func (h *hasher) whole(half, left, right *node) node {
	h.pair(0, left, right)
	msg := h.node(0)
	if h.kernel.blocks == nil {
		return sha256.Sum256(msg[:h.statement+2*NodeSize])
	}
	h.d = *half
	at := (h.statement + NodeSize) / blockSize * blockSize
	h.kernel.blocks(&h.d, &msg[at], (len(msg)-at)/blockSize)
	return h.d
}

// chain computes the other nested hashes of a label from the first.
func (h *hasher) chain(first node) node {
	h.d = first
	h.kernel.chain(&h.d, LeafHashes-1)
	return h.d
}

// first computes the first of the nested hashes of label i.
func (h *hasher) first(i uint64, parked *[MaxHeight + 1]node) node {
	return h.sum(h.room, h.message(0, i, parked))
}

// label computes the leaf that comes next on a spine, and makes it ready for that
// leaf: independent of the chain, this costs no time where it stands.
func (h *hasher) label(s *spine) node {
	d := h.first(s.count, &s.parked)
	s.ready(h)
	return h.chain(d)
}

// prefix returns the statement.
func (h *hasher) prefix() []byte { return h.room[:h.statement] }

// indices returns the leaves that a proof of that root must open, see [Indices].
func (h *hasher) indices(root node, leaves uint64) []uint64 {
	if leaves <= openings {
		all := make([]uint64, leaves)
		for i := range all {
			all[i] = uint64(i)
		}
		return all
	}
	const size = NodeSize + 4
	var room [maxLanes * blockSize]byte
	var msgs [maxLanes]span
	for i := range msgs {
		msgs[i] = span{i * blockSize, size}
		copy(room[i*blockSize:], root[:])
	}
	indices := make([]uint64, 0, openings)
	for c := uint32(0); ; {
		p, n := h.kernel.next(openings - len(indices))
		for i := range n {
			binary.BigEndian.PutUint32(room[i*blockSize+NodeSize:], c)
			c++
		}
		if p != nil {
			h.sums(p, room[:], msgs[:n])
		} else {
			h.several[0] = h.sum(room[:], msgs[0])
		}
		for i := range n {
			index := binary.BigEndian.Uint64(h.several[i][:]) % leaves
			if at, found := slices.BinarySearch(indices, index); !found {
				indices = slices.Insert(indices, at, index)
			}
		}
		if len(indices) == openings {
			return indices
		}
	}
}
