package sim

import (
	"testing"

	"tweedle/values/types"
)

// A network that was cut in two, half and half or three of ten, has one state again within healBound
// layers, and goes on with new ones; nothing that is verified is taken back, or verified otherwise by
// another. No ATXs are published while it is cut: those of halves would be two electorates. Who is restarted has only its
// newest layer in memory, and finds in the store what the votes say to go back to.
func TestAPartitionHeals(t *testing.T) {
	cases := []struct {
		small  int // nodes of ten
		length types.Layer
		again  bool // half of the nodes are restarted when it ends
	}{{5, 1, false}, {3, 1, false}, {5, 10, false}, {3, 10, false}, {5, 10, true}, {3, 100, false}, {5, 100, false}}
	if testing.Short() {
		cases = cases[:6]
	}
	sideBySide(len(cases), func(i int) {
		c := cases[i]
		o := Options{Seed: 11, Nodes: 10, Epochs: 2, Layers: 40, Hostile: []string{}, Strangers: []string{}, Poets: []string{}, Clients: []string{}, Faults: calm()}
		if c.length > 20 {
			o.Layers = 160
		}
		w := newWorld(o)
		out := map[*node]bool{}
		for i, n := range w.nodes {
			n.units = 2
			out[n] = i < c.small
		}
		s := w.cfg.Schedule
		begins := s.FirstBallotLayer() + 8
		heals := begins + c.length
		// Hare is believed about so many layers; then weight and the coin decide (docs/decisions/0011-tortoise.md).
		healBound := w.cfg.Tortoise.Hdist
		w.play(s.LayerStart(begins))
		w.split(out)
		w.play(s.LayerStart(heals))
		w.split(nil)
		if c.again {
			for _, n := range w.nodes[5:] {
				n.die()
			}
		}
		var apart, unsettled types.Layer // how long
		for l := heals; l <= heals+healBound+2; l++ {
			w.play(s.LayerStart(l + 1))
			for _, n := range w.nodes {
				if !n.up {
					continue
				}
				if tip := n.store.tip().decision; tip.Layer <= heals || tip.Layer+liveness < l {
					apart = l + 1 - heals
				}
				if n.m.Snapshot().Verified < heals {
					unsettled = l + 1 - heals
				}
			}
		}
		w.agree()
		if apart > healBound {
			t.Errorf("%d of ten apart for %d layers: no layer is applied %d layers later", c.small, c.length, apart)
		}
		if c.small == 3 && unsettled > healBound { // the votes of the halves make up for each other
			t.Errorf("%d of ten apart for %d layers: not all is verified %d layers later", c.small, c.length, unsettled)
		}
		for _, v := range w.result.Violations {
			t.Errorf("%d of ten apart for %d layers: %s", c.small, c.length, v)
		}
		t.Logf("%d of ten apart for %d layers: new layers are applied %d layers later, all of the partition is verified %d layers later or not yet, %d layers taken back",
			c.small, c.length, apart+1, unsettled+1, w.result.Undone)
	})
}
