package posw

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// spine is the left edge of what is still to come: of the tree over count leaves it
// holds the complete nodes that have no parent yet. parked[h] is set where bit h of
// count is; it is the left sibling at height h on the path of leaf number count.
type spine struct {
	count  uint64
	parked [MaxHeight + 1]node
	halves [MaxHeight + 1]node // hasher.half of each
	behind bool                // the half of the node parked last is still to come
}

// ready computes the half of the node parked last. push does it if it has to; done
// earlier, it runs beside other work.
func (s *spine) ready(h *hasher) {
	if s.behind {
		last := bits.TrailingZeros64(s.count)
		s.halves[last], s.behind = h.half(&s.parked[last]), false
	}
}

// push adds the next complete node of the given height, and those it completes.
// Nodes of lower heights must not be parked. visit sees each of them, lowest first.
func (s *spine) push(h *hasher, height uint, n node, visit func(spot, node)) {
	s.ready(h)
	for at := height; ; at++ {
		visit(spot{at, s.count >> at}, n)
		if s.count>>at&1 == 0 {
			s.parked[at] = n
			break
		}
		n = h.whole(&s.halves[at], &s.parked[at], &n)
	}
	s.count += 1 << height
	s.behind = true
}

// edge returns for each height the node that is only partly over the count leaves,
// zero where there is none; the root, of height top, is the last of them unless it
// is complete (reference/poet.md 1.3).
func (s *spine) edge(h *hasher) (edge [MaxHeight + 1]node, root node) {
	var zero node
	top := treeHeight(s.count)
	for at := range top {
		switch {
		case s.count>>at&1 == 1:
			edge[at+1] = h.parent(&s.parked[at], &edge[at])
		case s.count&(1<<at-1) != 0:
			edge[at+1] = h.parent(&edge[at], &zero)
		}
	}
	if s.count == 1<<top {
		return edge, s.parked[top]
	}
	return edge, edge[top]
}

// Prover computes the leaves of one tree, one after another. It is passive: it
// starts no goroutine but in Prove, and keeps only the nodes that the next leaf
// needs. Nodes of height k go to the caller, who keeps them; those above follow from
// them by hashing. One goroutine may use it at a time.
type Prover struct {
	hash  *hasher
	k     uint
	spine spine
}

// NewProver returns a prover at leaf 0. The statement may have any length; the empty
// one is that of a round without members (reference/poet.md 1.1). k is the height of
// the nodes to keep: a proof recomputes up to types.MaxPoetLeaves subtrees of 2^k leaves. It panics if
// k is above MaxHeight.
func NewProver(statement []byte, k uint) *Prover {
	return newProver(chosen().kernel, statement, k)
}

func newProver(kernel kernel, statement []byte, k uint) *Prover {
	if k > MaxHeight {
		panic(fmt.Sprintf("posw: height %d of the kept nodes is above %d", k, MaxHeight))
	}
	return &Prover{hash: newHasher(kernel, statement), k: k}
}

// Leaves returns the number of leaves computed so far.
func (p *Prover) Leaves() uint64 { return p.spine.count }

// Kept returns how many nodes of height k those leaves completed: the length, in
// nodes, that the stream of kept nodes has.
func (p *Prover) Kept() uint64 { return p.spine.count >> p.k }

// Advance computes n more leaves, synchronously, and appends the nodes of height k
// that they complete to kept. It allocates only if kept has too little room, which
// takes n>>k + 1 nodes at most. It panics above MaxLeaves.
//
// The bytes appended by successive calls make the stream that Resume and Prove read.
func (p *Prover) Advance(n uint64, kept []byte) []byte {
	if n > MaxLeaves-p.spine.count {
		panic("posw: advance beyond the largest tree")
	}
	keep := func(s spot, n node) {
		if s.height == p.k {
			kept = append(kept, n[:]...)
		}
	}
	for range n {
		p.spine.push(p.hash, 0, p.hash.label(&p.spine), keep)
	}
	return kept
}

// Resume returns a prover that goes on after the leaves of so many kept nodes, which it
// reads from the stream and hashes. Whether they are right only Prove can tell.
func Resume(statement []byte, k uint, kept io.Reader, nodes uint64) (*Prover, error) {
	if k > MaxHeight {
		return nil, fmt.Errorf("height %d of the kept nodes is above %d", k, MaxHeight)
	}
	if nodes > MaxLeaves>>k {
		return nil, fmt.Errorf("%d nodes of height %d are beyond the largest tree of %d leaves", nodes, k, uint64(MaxLeaves))
	}
	p := NewProver(statement, k)
	p.spine.count = nodes << k
	s, err := p.readKept(kept, func(spot, node) {}, func(*spine) {})
	if err != nil {
		return nil, err
	}
	p.spine = s
	return p, nil
}

// readKept reads the stream of kept nodes once, and returns the spine after them. visit
// sees every complete node of height k and above; before sees the spine before each
// kept node is added.
func (p *Prover) readKept(kept io.Reader, visit func(spot, node), before func(*spine)) (spine, error) {
	var s spine
	var n node
	ahead := bufio.NewReader(io.LimitReader(kept, int64(p.Kept()*NodeSize)))
	for i := range p.Kept() {
		if _, err := io.ReadFull(ahead, n[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return s, fmt.Errorf("only %d whole kept nodes for %d leaves, %d are needed", i, p.spine.count, p.Kept())
		} else if err != nil {
			return s, fmt.Errorf("read kept node %d: %w", i, err)
		}
		before(&s)
		s.push(p.hash, p.k, n, visit)
	}
	return s, nil
}

// matches tells whether the kept nodes that led to a spine are those of the prover.
func (p *Prover) matches(s *spine) error {
	for height := p.k; height <= MaxHeight; height++ {
		if s.count>>height&1 == 1 && s.parked[height] != p.spine.parked[height] {
			first := s.count >> (height + 1) << (height + 1)
			return &Mismatch{First: first, End: first + 1<<height, What: "what the prover knows"}
		}
	}
	return nil
}

// Mismatch is an error of Prove: what was kept of some leaves is not what
// they are. Nodes that were kept of them are wrong, or of leaves before them, or the
// memory or the processor is broken.
type Mismatch struct {
	First, End uint64 // leaves
	What       string // differs
}

func (m *Mismatch) Error() string {
	return fmt.Sprintf("leaves %d to %d do not match %s: the kept nodes, the memory or the processor is broken", m.First, m.End, m.What)
}
