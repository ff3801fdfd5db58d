package page

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tweedle/base/telemetry"
)

// The cells of the grid.
const (
	cellNone    = '.' // no layer that can have a block, or before the node joined
	cellWaits   = 'w' // the layer is young: nothing yet
	cellApplied = 'o' // as most have it
	cellEmpty   = 'e' // applied without a block, as most have it
	cellDiffers = 'x' // another block or another state than most
	cellLate    = 'b' // should have been applied
	cellUnknown = '?' // the node does not answer
)

// lateAfter is how many layers a node may be behind the clock before a cell is late: a layer
// is decided while the next one runs.
const lateAfter = 3

// Column is one layer, of all nodes.
type Column struct {
	Layer  uint32            `json:"layer"`
	Cells  string            `json:"cells"` // one letter a node, in their order
	Block  string            `json:"block"` // most have it, in short; empty: none
	Root   string            `json:"root"`
	Txs    int               `json:"txs"`
	Others map[string]string `json:"others,omitempty"` // what nodes have that differ, by name
}

// outcome is what two nodes must have alike of a layer.
type outcome struct{ block, root string }

func outcomeOf(l telemetry.LayerStatus) outcome { return outcome{l.Block, l.StateRoot} }

func (o outcome) compare(p outcome) int {
	return cmp.Or(cmp.Compare(o.block, p.block), cmp.Compare(o.root, p.root))
}

// grid fills in the columns of the last layers.
func (b *builder) grid() {
	st := &b.m.Status
	if st.Phase != "running" && st.Phase != "early" || len(b.m.Nodes) == 0 {
		return
	}
	first := uint32(max(int(st.Layer)-Window+1, 0))
	all := make([]NodeSeen, len(b.m.Nodes)) // in the order of the nodes
	for i, n := range b.m.Nodes {
		all[i] = b.Nodes[n.Name]
	}
	for l := first; l <= st.Layer; l++ {
		b.m.Layers = append(b.m.Layers, b.column(l, all))
	}
	b.roots(all)
}

func (b *builder) column(l uint32, all []NodeSeen) Column {
	c := Column{Layer: l}
	counts := map[outcome]int{}
	for i := range all {
		if s, ok := all[i].Layers[l]; ok {
			counts[outcomeOf(s)]++
		}
	}
	var most outcome
	for _, o := range slices.SortedFunc(maps.Keys(counts), outcome.compare) {
		if counts[o] > counts[most] {
			most = o
		}
	}
	var cells strings.Builder
	for i, n := range b.m.Nodes {
		seen := &all[i]
		s, has := seen.Layers[l]
		switch {
		case has && outcomeOf(s) != most:
			cells.WriteByte(cellDiffers)
			if c.Others == nil {
				c.Others = map[string]string{}
			}
			c.Others[n.Name] = fmt.Sprintf("block %s, state %s", cmp.Or(short(s.Block), "none"), cmp.Or(short(s.StateRoot), "unchanged"))
		case has && s.Block == "":
			cells.WriteByte(cellEmpty)
		case has:
			cells.WriteByte(cellApplied)
			c.Block, c.Root, c.Txs = short(s.Block), short(s.StateRoot), s.Txs
		case l < b.m.Status.FirstLayer:
			cells.WriteByte(cellNone)
		case !b.answers(seen.At):
			cells.WriteByte(cellUnknown)
		case l+lateAfter >= b.m.Status.Layer:
			cells.WriteByte(cellWaits)
		case l <= seen.Status.AppliedLayer && len(seen.Layers) == 0, beforeFirst(*seen, l):
			cells.WriteByte(cellNone)
		default:
			cells.WriteByte(cellLate)
		}
	}
	c.Cells = cells.String()
	return c
}

// beforeFirst tells whether a layer is before all that a node told of.
func beforeFirst(n NodeSeen, l uint32) bool {
	for have := range n.Layers {
		if have <= l {
			return false
		}
	}
	return len(n.Layers) > 0
}

// roots counts the states of the newest layer that at least two nodes have.
func (b *builder) roots(all []NodeSeen) {
	for _, c := range slices.Backward(b.m.Layers) {
		roots, have := map[outcome]bool{}, 0
		for i := range all {
			if s, ok := all[i].Layers[c.Layer]; ok {
				roots[outcomeOf(s)] = true
				have++
			}
		}
		if have >= min(2, len(b.m.Nodes)) {
			b.m.Status.Roots = len(roots)
			return
		}
	}
}

// differing names the nodes that have something else than most in the newest layers, and
// the first layer of that.
func (b *builder) differing() (names []string, since uint32) {
	seen := map[string]bool{}
	for _, c := range b.m.Layers {
		for name := range c.Others {
			if len(seen) == 0 {
				since = c.Layer
			}
			seen[name] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), byNumber), since
}
