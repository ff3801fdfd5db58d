package posw

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"tweedle/values/types"
)

// naive is the slow twin of the prover: the whole tree in memory, each node found by
// recursion, each rule as reference/poet.md 1.2 to 1.5 words it.
type naive struct {
	statement []byte
	leaves    []node
	inner     map[spot]node // complete nodes only
}

func newNaive(statement []byte, leaves uint64) *naive {
	t := &naive{statement: statement, inner: map[spot]node{}}
	for i := range leaves {
		msg := binary.BigEndian.AppendUint64(slices.Clone(statement), i)
		for h := range uint(64) {
			if i>>h&1 == 1 {
				left := t.node(h, i>>h-1)
				msg = append(msg, left[:]...)
			}
		}
		d := sha256.Sum256(msg)
		for range 399 {
			d = sha256.Sum256(d[:])
		}
		t.leaves = append(t.leaves, d)
	}
	return t
}

func (t *naive) node(h uint, i uint64) node {
	n := uint64(len(t.leaves))
	if i<<h >= n {
		return node{}
	}
	if h == 0 {
		return t.leaves[i]
	}
	if found, ok := t.inner[spot{h, i}]; ok {
		return found
	}
	left, right := t.node(h-1, 2*i), t.node(h-1, 2*i+1)
	d := sha256.Sum256(slices.Concat(t.statement, left[:], right[:]))
	if (i+1)<<h <= n {
		t.inner[spot{h, i}] = d
	}
	return d
}

func (t *naive) proof() types.PoetProof {
	n := uint64(len(t.leaves))
	top := uint(0)
	for 1<<top < n {
		top++
	}
	p := types.PoetProof{Root: t.node(top, 0), NumLeaves: n}
	proven := map[uint64]bool{}
	for c := uint32(0); len(proven) < 150; c++ {
		d := sha256.Sum256(binary.BigEndian.AppendUint32(slices.Clone(p.Root[:]), c))
		proven[binary.BigEndian.Uint64(d[:8])%n] = true
	}
	holds := func(h uint, i uint64) bool {
		for leaf := i << h; leaf < min((i+1)<<h, n); leaf++ {
			if proven[leaf] {
				return true
			}
		}
		return false
	}
	var prove func(h uint, i uint64)
	prove = func(h uint, i uint64) {
		if h == 0 {
			p.Leaves = append(p.Leaves, t.leaves[i])
			return
		}
		left, right := holds(h-1, 2*i), holds(h-1, 2*i+1)
		if left {
			prove(h-1, 2*i)
		}
		if right {
			prove(h-1, 2*i+1)
		}
		if !right {
			p.Nodes = append(p.Nodes, t.node(h-1, 2*i+1))
		} else if !left {
			p.Nodes = append(p.Nodes, t.node(h-1, 2*i))
		}
	}
	prove(top, 0)
	return p
}
