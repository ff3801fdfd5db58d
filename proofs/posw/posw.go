// Package posw is the PoET's proof of sequential work: the prover, its proof, and
// the verifier, byte-exact with the published PoET (reference/poet.md 1.2 to 1.5).
//
// A prover hashes leaf after leaf of a binary tree; each leaf takes [LeafHashes]
// nested SHA-256 over a statement, the leaf's number and every left sibling on its
// path, so that leaves cannot be computed side by side. A proof, a [types.PoetProof],
// opens types.MaxPoetLeaves of them, which the root itself selects.
//
// What it promises: one core computes leaves near the latency floor of the
// processor's SHA-256 instructions; a prover holds O(log N) nodes; only the nodes of
// one layer are handed out for keeping, as an append-only stream, and from that
// stream a proof is made by recomputing one small subtree for each opened leaf;
// [Verify] is strict, and its work is bounded before it begins.
//
// What it leaves to the caller: storing the stream of kept nodes durably, time and
// deadlines, the thread that calls [Prover.Advance]
// (lock it: runtime.LockOSThread, then Advance in slices of some thousand leaves),
// and verifying a proof before publishing it.
package posw

import (
	"crypto/sha256"
	"math/bits"
	"slices"

	"tweedle/values/types"
)

const (
	// NodeSize is the size of a node of the tree, a leaf among them, in bytes.
	NodeSize = sha256.Size

	// LeafHashes is the number of nested SHA-256 in one leaf (reference/poet.md 1.2).
	LeafHashes = 400

	// MaxHeight is the height of the tallest tree. It is the tallest one whose proof
	// fits in types.MaxPoetNodes wherever the opened leaves fall: at worst they spread
	// at the top, each has a sibling of its own in every layer under the 8th, and
	// 2^8 - openings siblings are in the 8th.
	MaxHeight = 8 + (types.MaxPoetNodes-(1<<8-openings))/openings

	// MaxLeaves is the largest number of leaves a prover computes or a verifier accepts.
	MaxLeaves = 1 << MaxHeight
)

// openings is the number of leaves a proof opens (reference/poet.md 1.4).
const openings = types.MaxPoetLeaves

// Indices returns the leaves a proof of that root must open, ascending:
// types.MaxPoetLeaves of them, or all if there are no more (reference/poet.md 1.4).
func Indices(root types.Hash32, leaves uint64) []uint64 {
	return newHasher(chosen().kernel, nil).indices(root, leaves)
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
	if len(indices) == 1 { // most nodes have one leaf under them
		for height := range s.height {
			spots = append(spots, spot{height, indices[0]>>height ^ 1})
		}
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
