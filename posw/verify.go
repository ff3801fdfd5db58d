package posw

import (
	"fmt"
	"sync"
)

// Verify checks that the proof opens a tree of that many leaves under the statement.
// It accepts every proof a prover makes, and exactly the proofs whose parts are all
// determined: T leaves, no more or fewer nodes than the opened leaves ask for, zero
// nodes beyond the last leaf. It never panics, and rejects what is beyond the limits
// (T to MaxLeaves leaves, MaxNodes nodes) before it hashes. The work is T labels; up
// to workers goroutines share it, fewer than 2 means the caller's own. The error says
// what is wrong with the proof; there is no other kind.
func Verify(statement []byte, p Proof, leaves uint64, workers int) error {
	switch {
	case leaves < T || leaves > MaxLeaves:
		return fmt.Errorf("%d leaves, must be %d to %d", leaves, T, uint64(MaxLeaves))
	case len(p.Leaves) != T:
		return fmt.Errorf("%d opened leaves, must be %d", len(p.Leaves), T)
	case len(p.Nodes) > MaxNodes:
		return fmt.Errorf("%d nodes, must be at most %d", len(p.Nodes), MaxNodes)
	}
	indices := Indices(p.Root, leaves)
	top := spot{height: treeHeight(leaves)}
	siblings := top.siblings(indices, nil)
	if len(siblings) != len(p.Nodes) {
		return fmt.Errorf("%d nodes, the opened leaves need %d", len(p.Nodes), len(siblings))
	}
	for i, s := range siblings {
		if s.first() >= leaves && p.Nodes[i] != (node{}) {
			return fmt.Errorf("node %d lies beyond the last leaf and is not zero", i)
		}
	}
	o := opening{
		hash:   newHasher(chosen().kernel, statement),
		leaves: p.Leaves,
		nodes:  p.Nodes,
		parked: make([][MaxHeight + 1]node, T),
	}
	if o.climb(top, indices, 0) != p.Root {
		return fmt.Errorf("leaves and nodes do not hash to the root")
	}
	return o.labels(indices, workers)
}

// opening is a proof being hashed up to its root.
type opening struct {
	hash   *hasher
	leaves []node
	nodes  []node                // those not yet used
	parked [][MaxHeight + 1]node // for each opened leaf the left siblings on its path
}

// climb returns the node at s from the opened leaves under it. at is the position in
// the proof of the first of those indices.
func (o *opening) climb(s spot, indices []uint64, at int) node {
	if s.height == 0 {
		return o.leaves[at]
	}
	var leftNode, rightNode node
	leftChild := spot{s.height - 1, 2 * s.index}
	rightChild := spot{s.height - 1, 2*s.index + 1}
	left, right := s.split(indices)
	switch {
	case len(right) == 0:
		leftNode = o.climb(leftChild, left, at)
		rightNode = o.take()
	case len(left) == 0:
		rightNode = o.climb(rightChild, right, at)
		leftNode = o.take()
	default:
		leftNode = o.climb(leftChild, left, at)
		rightNode = o.climb(rightChild, right, at+len(left))
	}
	for i := range right {
		o.parked[at+len(left)+i][s.height-1] = leftNode
	}
	return o.hash.parent(&leftNode, &rightNode)
}

// take returns the next sibling.
func (o *opening) take() node {
	n := o.nodes[0]
	o.nodes = o.nodes[1:]
	return n
}

// labels recomputes the opened leaves, several side by side.
func (o *opening) labels(indices []uint64, workers int) error {
	groups := (len(indices) + lanes - 1) / lanes
	wrong := make([]error, groups)
	work := func(h *hasher, group int) {
		at := group * lanes
		some := indices[at:min(at+lanes, len(indices))]
		for i, index := range some {
			h.several[i] = h.first(index, &o.parked[at+i])
		}
		h.chains(len(some))
		for i, index := range some {
			if h.several[i] != o.leaves[at+i] {
				wrong[group] = fmt.Errorf("leaf %d is not the label of its left siblings", index)
			}
		}
	}
	workers = max(1, min(workers, groups))
	var wait sync.WaitGroup
	for w := 1; w < workers; w++ {
		h := newHasher(o.hash.kernel, o.hash.prefix())
		wait.Go(func() {
			for group := w; group < groups; group += workers {
				work(h, group)
			}
		})
	}
	for group := 0; group < groups; group += workers {
		work(o.hash, group)
	}
	wait.Wait()
	for _, err := range wrong {
		if err != nil {
			return err
		}
	}
	return nil
}
