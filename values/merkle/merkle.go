// Package merkle has the two hash trees of the protocol: the tree over an
// ordered list of leaves (PoET members, the fields of an ATX), and the tree
// over all accounts.
//
// It promises: roots and proofs are pure functions of their input, and
// verifying a proof reads no more than the proof. It leaves to the caller the
// hashing of values into leaves; a leaf must not be choosable as the
// concatenation of two nodes, so leaves are hashed with another prefix
// wherever the list is not already of hashes.
package merkle

import (
	"errors"
	"math/bits"

	"github.com/zeebo/blake3"
)

// Node returns the parent of two nodes: BLAKE3(0x01 || left || right)
// (reference/poet.md 1.1).
func Node(left, right [32]byte) [32]byte {
	var b [65]byte
	b[0] = 0x01
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return blake3.Sum256(b[:])
}

// Tree is the tree over an ordered list of leaves. Its layers take twice the memory
// of the leaves, which it shares.
type Tree struct{ layers [][][32]byte }

// NewTree computes the tree over leaves.
func NewTree(leaves [][32]byte) Tree {
	t := Tree{[][][32]byte{leaves}}
	for layer := leaves; len(layer) > 1; {
		layer = parents(layer)
		t.layers = append(t.layers, layer)
	}
	return t
}

// Root returns the root. A right sibling that is missing is 32 zero bytes, at
// whichever layer it is missing. One leaf is its own root; the root of no leaves
// is zero.
func (t Tree) Root() [32]byte { return at(t.layers[len(t.layers)-1], 0) }

// Proof returns the siblings of leaf i from the bottom up. It panics when there is
// no such leaf.
func (t Tree) Proof(i uint64) [][32]byte {
	if i >= uint64(len(t.layers[0])) {
		panic("merkle: proof of a leaf that is not there")
	}
	var proof [][32]byte
	for _, layer := range t.layers[:len(t.layers)-1] {
		proof = append(proof, at(layer, int(i^1)))
		i /= 2
	}
	return proof
}

// Root returns the root of the tree over leaves.
func Root(leaves [][32]byte) [32]byte {
	if len(leaves) < 2 {
		return at(leaves, 0)
	}
	layer := parents(leaves)
	for len(layer) > 1 { // in place: a parent is left of its children
		half := (len(layer) + 1) / 2
		for i := range half {
			layer[i] = Node(layer[2*i], at(layer, 2*i+1))
		}
		layer = layer[:half]
	}
	return layer[0]
}

// Proof returns the siblings of leaf i in the tree over leaves, as Tree.Proof does.
func Proof(leaves [][32]byte, i uint64) [][32]byte { return NewTree(leaves).Proof(i) }

// Height returns the number of siblings in a proof for a tree of n leaves.
func Height(n uint64) int {
	if n < 2 {
		return 0
	}
	return bits.Len64(n - 1)
}

// ErrProof says that a proof does not lead to the root.
var ErrProof = errors.New("merkle proof does not lead to the root")

// Verify checks that leaf is at place i of a tree of n leaves with this root.
func Verify(root, leaf [32]byte, i, n uint64, proof [][32]byte) error {
	if i >= n || len(proof) != Height(n) {
		return ErrProof
	}
	node := leaf
	for _, sibling := range proof {
		if i&1 == 0 {
			node = Node(node, sibling)
		} else {
			node = Node(sibling, node)
		}
		i /= 2
	}
	if node != root {
		return ErrProof
	}
	return nil
}

// parents returns the layer above one.
func parents(layer [][32]byte) [][32]byte {
	next := make([][32]byte, (len(layer)+1)/2)
	for i := range next {
		next[i] = Node(layer[2*i], at(layer, 2*i+1))
	}
	return next
}

func at(layer [][32]byte, i int) [32]byte {
	if i < len(layer) {
		return layer[i]
	}
	return [32]byte{}
}
