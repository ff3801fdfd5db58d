package posw

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sync"

	"tweedle/values/types"
)

// Prove makes the proof for the leaves computed so far, of which there must be at
// least types.MaxPoetLeaves. It reads the kept stream once, as Resume does, then recomputes the
// subtrees of height k in which a leaf is opened. workers goroutines do
// that, all ended when it returns; fewer than 2 means the caller's own. progress, if
// not nil, is called with the number of subtrees done and their total, never twice at
// a time. Memory is bounded whatever the number of leaves.
//
// A recomputed subtree that differs from its kept node is an error: the kept nodes
// or the processor are broken. The caller verifies the proof before publishing it.
func (p *Prover) Prove(kept io.Reader, workers int, progress func(done, total int)) (types.PoetProof, error) {
	leaves := p.spine.count
	if leaves < openings {
		return types.PoetProof{}, fmt.Errorf("%d leaves are too few for a proof, compute at least %d", leaves, openings)
	}
	edge, root := p.spine.edge(p.hash)
	indices := p.hash.indices(root, leaves)
	proof := types.PoetProof{Root: root, Leaves: make([]node, openings), NumLeaves: leaves}
	top := spot{height: treeHeight(leaves)}
	siblings := top.siblings(indices, nil)
	proof.Nodes = make([]node, len(siblings))

	wants := make([]want, 0, len(siblings)+openings)
	for i, s := range siblings {
		if s.end() > leaves { // at the right edge, or zero beyond it
			if s.first() < leaves {
				proof.Nodes[i] = edge[s.height]
			}
			continue
		}
		wants = append(wants, want{s, &proof.Nodes[i]})
	}
	for i, index := range indices {
		wants = append(wants, want{spot{0, index}, &proof.Leaves[i]})
	}
	low, high := splitWants(wants, p.k)

	subtrees := p.subtrees(indices, low)
	next := 0
	spine, err := p.readKept(kept, func(s spot, n node) {
		high.visit(s, n)
		if s.height == p.k && next < len(subtrees) && subtrees[next].at == s {
			subtrees[next].expect = n
			next++
		}
	}, func(s *spine) {
		if next < len(subtrees) && subtrees[next].at.first() == s.count {
			subtrees[next].spine = *s
		}
	})
	if err == nil {
		err = p.matches(&spine)
	}
	if err != nil {
		return types.PoetProof{}, err
	}
	if last := len(subtrees) - 1; last >= 0 && subtrees[last].at.end() > leaves {
		p.finish(&subtrees[last])
	}
	if err := p.recompute(subtrees, workers, progress); err != nil {
		return types.PoetProof{}, err
	}
	return proof, nil
}

// want is a node of the proof and where it goes. Wants are ordered as a prover
// completes their nodes: by last leaf, then by height.
type want struct {
	at spot
	to *node
}

type wants []want

// visit takes the node if it is the next one wanted.
func (w *wants) visit(s spot, n node) {
	if len(*w) > 0 && (*w)[0].at == s {
		*(*w)[0].to = n
		*w = (*w)[1:]
	}
}

// splitWants orders the wants and parts those below height k from the others.
func splitWants(all []want, k uint) (low, high wants) {
	slices.SortFunc(all, func(a, b want) int {
		return cmp.Or(cmp.Compare(a.at.end(), b.at.end()), cmp.Compare(a.at.height, b.at.height))
	})
	for _, w := range all {
		if w.at.height < k {
			low = append(low, w)
		} else {
			high = append(high, w)
		}
	}
	return low, high
}

// subtree is one to recompute.
type subtree struct {
	at      spot
	spine   spine  // before its first leaf
	end     uint64 // the leaf after its last
	expect  node   // the kept node it must come out as, or
	partial *spine // if it is the last, without a kept node, the spine after its last leaf
	wants   wants
	top     node // as it came out
}

// subtrees returns those of height k that hold an opened leaf, in order, with the
// wants below k shared out among them.
func (p *Prover) subtrees(indices []uint64, low wants) []subtree {
	var trees []subtree
	if p.k == 0 {
		return trees
	}
	for _, index := range indices {
		at := spot{p.k, index >> p.k}
		if len(trees) == 0 || trees[len(trees)-1].at != at {
			trees = append(trees, subtree{at: at, end: at.end()})
		}
	}
	for i := range trees {
		n := 0
		for n < len(low) && low[n].at.end() <= trees[i].at.end() {
			n++
		}
		trees[i].wants, low = low[:n:n], low[n:]
	}
	return trees
}

// finish sets up the last subtree, of fewer than 2^k leaves. It must come out as the
// prover's own spine below height k.
func (p *Prover) finish(t *subtree) {
	p.spine.ready(p.hash)
	t.spine = p.spine
	t.spine.count = t.at.first()
	t.end, t.partial = p.spine.count, &p.spine
}

// add takes the next leaf, and the wants it completes.
func (t *subtree) add(h *hasher, label node) {
	t.spine.push(h, 0, label, func(s spot, n node) {
		t.wants.visit(s, n)
		if s == t.at {
			t.top = n
		}
	})
}

func (t *subtree) done() bool { return t.spine.count == t.end }

// check compares the recomputed subtree with what was kept of it.
func (t *subtree) check() error {
	if len(t.wants) != 0 {
		panic("posw: a wanted node was not completed")
	}
	if t.partial == nil {
		if t.top != t.expect {
			return &Mismatch{First: t.at.first(), End: t.end, What: "their kept node"}
		}
		return nil
	}
	for height := range t.at.height {
		if t.end>>height&1 == 1 && t.spine.parked[height] != t.partial.parked[height] {
			return &Mismatch{First: t.at.first(), End: t.end, What: fmt.Sprintf("the parked node of height %d", height)}
		}
	}
	return nil
}

// run recomputes subtrees until there are none left, several side by side, and calls
// finished for each.
func (h *hasher) run(take func() *subtree, finished func(*subtree)) {
	active, msgs, labels := make([]*subtree, 0, h.width), make([]span, h.width), make([]node, h.width)
	for {
		for len(active) < h.width {
			t := take()
			if t == nil {
				break
			}
			active = append(active, t)
		}
		if len(active) == 0 {
			return
		}
		for i, t := range active {
			msgs[i] = h.message(i, t.spine.count, &t.spine.parked)
		}
		h.labels(h.room, msgs[:len(active)], labels)
		for i, t := range active {
			t.add(h, labels[i])
		}
		active = slices.DeleteFunc(active, func(t *subtree) bool {
			if t.done() {
				finished(t)
			}
			return t.done()
		})
	}
}

// recompute runs all subtrees on that many goroutines.
func (p *Prover) recompute(trees []subtree, workers int, progress func(done, total int)) error {
	var (
		mu     sync.Mutex // guards all following
		next   int
		done   int
		failed error
	)
	take := func() *subtree {
		mu.Lock()
		defer mu.Unlock()
		if next == len(trees) || failed != nil {
			return nil
		}
		next++
		return &trees[next-1]
	}
	finished := func(t *subtree) {
		err := t.check()
		mu.Lock()
		defer mu.Unlock()
		done++
		failed = cmp.Or(failed, err)
		if progress != nil && failed == nil {
			progress(done, len(trees))
		}
	}
	work := func() { newHasher(p.hash.kernel, p.hash.prefix()).run(take, finished) }
	var group sync.WaitGroup
	for range min(workers, len(trees)) - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
	return failed
}
