package posw

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"tweedle/values/types"
)

// Verify checks that the proof opens a tree of p.NumLeaves leaves under the
// statement. It accepts every proof a prover makes, and exactly the proofs whose parts
// are all determined: types.MaxPoetLeaves opened leaves, no more or fewer nodes than
// they ask for, zero nodes beyond the last leaf. It never panics, and rejects what is
// beyond the limits (types.MaxPoetLeaves to MaxLeaves leaves, types.MaxPoetNodes
// nodes) before it hashes. The work is one label for each opened leaf; up to workers
// goroutines share it, fewer than 2 means the caller's own. The error says what is
// wrong with the proof; there is no other kind. It only reads the proof.
func Verify(statement []byte, p *types.PoetProof, workers int) error {
	return verify(chosen().kernel, statement, p, workers)
}

func verify(k kernel, statement []byte, p *types.PoetProof, workers int) error {
	leaves := p.NumLeaves
	switch {
	case leaves < openings || leaves > MaxLeaves:
		return fmt.Errorf("%d leaves, must be %d to %d", leaves, openings, uint64(MaxLeaves))
	case len(p.Leaves) != openings:
		return fmt.Errorf("%d opened leaves, must be %d", len(p.Leaves), openings)
	case len(p.Nodes) > types.MaxPoetNodes:
		return fmt.Errorf("%d nodes, must be at most %d", len(p.Nodes), types.MaxPoetNodes)
	}
	h := newHasher(k, statement)
	indices := h.indices(p.Root, leaves)
	top := spot{height: treeHeight(leaves)}
	siblings := top.siblings(indices, make([]spot, 0, len(p.Nodes)+1))
	if len(siblings) != len(p.Nodes) {
		return fmt.Errorf("%d nodes, the opened leaves need %d", len(p.Nodes), len(siblings))
	}
	for i, s := range siblings {
		if s.first() >= leaves && p.Nodes[i] != (node{}) {
			return fmt.Errorf("node %d lies beyond the last leaf and is not zero", i)
		}
	}
	o := newOpening(h, indices)
	if o.climb(p, siblings, top.height) != p.Root {
		return fmt.Errorf("leaves and nodes do not hash to the root")
	}
	return o.check(p.Leaves, workers)
}

// opening is a proof being checked.
type opening struct {
	hash     *hasher
	indices  []uint64
	room     []byte         // all messages of the opened labels
	messages [openings]span // they get their left siblings in climb
}

func newOpening(h *hasher, indices []uint64) *opening {
	o := &opening{hash: h, indices: indices}
	at := 0
	for i, index := range indices {
		o.messages[i] = span{at, h.statement + 8}
		at += padded(h.statement + 8 + bits.OnesCount64(index)*NodeSize)
	}
	o.room = make([]byte, at)
	for i, index := range indices {
		msg := o.room[o.messages[i].at:]
		binary.BigEndian.PutUint64(msg[copy(msg, h.prefix()):], index)
	}
	return o
}

// climb hashes the opened leaves up to the root, layer by layer, and appends to each
// leaf's message the left siblings on its path. The nodes of the proof must be those
// at the siblings.
//
// In each layer the opened nodes are paired with their siblings, from the proof or
// opened themselves, and replaced by their parents, in place:
//
//	index    3     6 7     12          the opened nodes of a layer
//	pairs   (2,3) (6,7) (12,13)        2 and 13 are taken from the proof
//	index    1     3     6             those of the next
func (o *opening) climb(p *types.PoetProof, siblings []spot, top uint) node {
	nodes := [openings]node(p.Leaves)
	index := [openings]uint64(o.indices)
	var first [openings + 1]int // opened leaf under each node
	for i := range first {
		first[i] = i
	}
	take := byHeight(siblings)
	count := openings
	for height := range top {
		done, waiting := 0, 0
		for i := 0; i < count; {
			left, right, width := &nodes[i], &nodes[i], 1
			var from, to int // leaves under the right node
			switch {
			case index[i]&1 == 1:
				left = &p.Nodes[take(height)]
				from, to = first[i], first[i+1]
			case i+1 < count && index[i+1] == index[i]+1:
				right, width = &nodes[i+1], 2
				from, to = first[i+1], first[i+2]
			default:
				right = &p.Nodes[take(height)]
			}
			for at := from; at < to; at++ {
				m := &o.messages[at]
				m.n += copy(o.room[m.at+m.n:], left[:])
			}
			o.hash.pair(waiting, left, right)
			index[done], first[done] = index[i]/2, first[i]
			i += width
			done++
			if waiting++; waiting == o.hash.width {
				o.hash.parents(nodes[done-waiting : done])
				waiting = 0
			}
		}
		o.hash.parents(nodes[done-waiting : done])
		first[done] = openings
		count = done
	}
	return nodes[0]
}

// byHeight returns a function that returns the position of the next sibling of a
// height: those of one height come in ascending order of index.
func byHeight(siblings []spot) func(height uint) uint16 {
	var next [MaxHeight + 1]int
	for _, s := range siblings {
		next[s.height]++
	}
	sum := 0
	for height, n := range next {
		next[height], sum = sum, sum+n
	}
	order, fill := make([]uint16, len(siblings)), next
	for at, s := range siblings {
		order[fill[s.height]] = uint16(at)
		fill[s.height]++
	}
	return func(height uint) uint16 {
		next[height]++
		return order[next[height]-1]
	}
}

// check recomputes the opened leaves.
func (o *opening) check(leaves []node, workers int) error {
	var labels [openings]node
	work := func(h *hasher, from, to int) {
		h.labels(o.room, o.messages[from:to], labels[from:to])
	}
	workers = max(1, min(workers, openings))
	var wait sync.WaitGroup
	for w := 1; w < workers; w++ {
		h := newHasher(o.hash.kernel, o.hash.prefix())
		wait.Go(func() { work(h, w*openings/workers, (w+1)*openings/workers) })
	}
	work(o.hash, 0, openings/workers)
	wait.Wait()
	for i := range labels {
		if labels[i] != leaves[i] {
			return fmt.Errorf("leaf %d is not the label of its left siblings", o.indices[i])
		}
	}
	return nil
}
