// Package posw is the PoET's proof of sequential work: the prover, its proof, and
// the verifier, byte-exact with the published PoET (reference/poet.md 1.2 to 1.5).
//
// A prover hashes leaf after leaf of a binary tree; each leaf takes [LeafHashes]
// nested SHA-256 over a statement, the leaf's number and every left sibling on its
// path, so that leaves cannot be computed side by side. A proof opens T leaves that
// the root itself selects.
//
// What it promises: one core computes leaves near the latency floor of the
// processor's SHA-256 instructions; a prover holds O(log N) nodes; only the nodes of
// one layer are handed out for keeping, as an append-only stream, and from that
// stream a proof is made by recomputing T small subtrees; [Verify] is strict, and
// its work is bounded before it begins.
//
// What it leaves to the caller: storing the stream of kept nodes and the
// checkpoints durably, time and deadlines, the thread that calls [Prover.Advance]
// (lock it: runtime.LockOSThread, then Advance in slices of some thousand leaves),
// and verifying a proof before publishing it.
package posw

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"
)

const (
	// T is the number of leaves a proof opens (reference/poet.md 1.4).
	T = 150

	// NodeSize is the size of a node of the tree, a leaf among them, in bytes.
	NodeSize = sha256.Size

	// LeafHashes is the number of nested SHA-256 in one leaf (reference/poet.md 1.2).
	LeafHashes = 400

	// MaxNodes is the largest number of nodes in a proof on the wire
	// (reference/poet.md 1.5).
	MaxNodes = 5400

	// MaxHeight is the height of the tallest tree. It is the tallest one whose proof
	// fits in MaxNodes wherever the T leaves fall: at worst they spread at the top,
	// T siblings are then opened in each layer under the 8th, and 2^8 - T in the 8th.
	MaxHeight = 8 + (MaxNodes-(1<<8-T))/T

	// MaxLeaves is the largest number of leaves a prover computes or a verifier accepts.
	MaxLeaves = 1 << MaxHeight
)

// Proof shows that the prover computed a tree with this root. Leaves are the T
// opened ones in ascending order of index; Nodes are the siblings on their paths,
// depth first, each sibling after the child that needs it (reference/poet.md 1.5).
type Proof struct {
	Root   [NodeSize]byte
	Leaves [][NodeSize]byte
	Nodes  [][NodeSize]byte
}

// Indices returns the leaves a proof of that root must open, ascending: T of them,
// or all if there are no more than T (reference/poet.md 1.4).
func Indices(root [NodeSize]byte, leaves uint64) []uint64 {
	if leaves <= T {
		all := make([]uint64, leaves)
		for i := range all {
			all[i] = uint64(i)
		}
		return all
	}
	var msg [NodeSize + 4]byte
	copy(msg[:], root[:])
	indices := make([]uint64, 0, T)
	for c := uint32(0); len(indices) < T; c++ {
		binary.BigEndian.PutUint32(msg[NodeSize:], c)
		digest := sha256.Sum256(msg[:])
		index := binary.BigEndian.Uint64(digest[:]) % leaves
		if at, found := slices.BinarySearch(indices, index); !found {
			indices = slices.Insert(indices, at, index)
		}
	}
	return indices
}

// spot is the place of a node: its height above the leaves and its index in that layer.
type spot struct {
	height uint
	index  uint64
}

// first returns the first leaf under the spot, end the leaf after its last.
func (s spot) first() uint64 { return s.index << s.height }
func (s spot) end() uint64   { return (s.index + 1) << s.height }

// treeHeight returns the height of the root over that many leaves.
func treeHeight(leaves uint64) uint { return uint(bits.Len64(leaves - 1)) }

// split cuts sorted leaf indices under the spot into those of its left and right child.
func (s spot) split(indices []uint64) (left, right []uint64) {
	middle := s.first() + 1<<(s.height-1)
	cut, _ := slices.BinarySearch(indices, middle)
	return indices[:cut], indices[cut:]
}

// siblings appends the spots of the nodes that open these leaves under s, in the
// order of a proof. No index may lie outside s.
func (s spot) siblings(indices []uint64, spots []spot) []spot {
	if s.height == 0 {
		return spots
	}
	leftChild := spot{s.height - 1, 2 * s.index}
	rightChild := spot{s.height - 1, 2*s.index + 1}
	left, right := s.split(indices)
	switch {
	case len(right) == 0:
		return append(leftChild.siblings(left, spots), rightChild)
	case len(left) == 0:
		return append(rightChild.siblings(right, spots), leftChild)
	}
	return rightChild.siblings(right, leftChild.siblings(left, spots))
}
