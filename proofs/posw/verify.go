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
	leaves := p.NumLeaves
	switch {
	case leaves < openings || leaves > MaxLeaves:
		return fmt.Errorf("%d leaves, must be %d to %d", leaves, openings, uint64(MaxLeaves))
	case len(p.Leaves) != openings:
		return fmt.Errorf("%d opened leaves, must be %d", len(p.Leaves), openings)
	case len(p.Nodes) > types.MaxPoetNodes:
		return fmt.Errorf("%d nodes, must be at most %d", len(p.Nodes), types.MaxPoetNodes)
	}
	indices := Indices(p.Root, leaves)
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
	o := newOpening(newHasher(chosen().kernel, statement), indices)
	if o.climb(p, siblings, top.height) != p.Root {
		return fmt.Errorf("leaves and nodes do not hash to the root")
	}
	return o.labels(p.Leaves, workers)
}

// opening is a proof being checked.
type opening struct {
	hash     *hasher
	indices  []uint64
	messages [openings][]byte // of the opened labels; they get their left siblings in climb
}

func newOpening(h *hasher, indices []uint64) *opening {
	o := &opening{hash: h, indices: indices}
	size := func(index uint64) int {
		return padded(h.statement + 8 + bits.OnesCount64(index)*NodeSize)
	}
	total := 0
	for _, index := range indices {
		total += size(index)
	}
	room := make([]byte, total)
	for i, index := range indices {
		n := size(index)
		msg := append(room[:0:n], h.prefix()...)
		o.messages[i], room = binary.BigEndian.AppendUint64(msg, index), room[n:]
	}
	return o
}

// climb hashes the opened leaves up to the root, layer by layer, and appends to each
// leaf's message the left siblings on its path. The nodes of the proof must be those
// at the siblings.
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
		flush := func() {
			o.hash.parents(waiting)
			copy(nodes[done-waiting:], o.hash.several[:waiting])
			waiting = 0
		}
		for i := 0; i < count; {
			left, right, width := &nodes[i], &nodes[i], 1
			var opened []([]byte) // messages of the leaves under the right node
			switch {
			case index[i]&1 == 1:
				left = &p.Nodes[take(height)]
				opened = o.messages[first[i]:first[i+1]]
			case i+1 < count && index[i+1] == index[i]+1:
				right, width = &nodes[i+1], 2
				opened = o.messages[first[i+1]:first[i+2]]
			default:
				right = &p.Nodes[take(height)]
			}
			for at := range opened {
				opened[at] = append(opened[at], left[:]...)
			}
			o.hash.pair(waiting, left, right)
			index[done], first[done] = index[i]/2, first[i]
			i += width
			done++
			if waiting++; waiting == lanes {
				flush()
			}
		}
		flush()
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

// labels recomputes the opened leaves, several side by side.
func (o *opening) labels(leaves []node, workers int) error {
	const groups = (openings + lanes - 1) / lanes
	var wrong [groups]error
	work := func(h *hasher, group int) {
		at := group * lanes
		end := min(at+lanes, openings)
		h.sums(o.messages[at:end]...)
		h.chains(end - at)
		for i := at; i < end; i++ {
			if h.several[i-at] != leaves[i] {
				wrong[group] = fmt.Errorf("leaf %d is not the label of its left siblings", o.indices[i])
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
