package sim

import (
	"slices"
	"testing"

	"tweedle/protocol/core"
	"tweedle/protocol/malfeasance"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// by counts what an identity put into the ballots and certificates that a node has.
func (n *node) by(id types.NodeID) (ballots, signatures int) {
	for _, b := range n.store.ballots {
		if b.Smesher == id {
			ballots++
		}
	}
	for _, l := range n.store.layers {
		for _, s := range l.cert.Signatures {
			if s.Smesher == id {
				signatures++
			}
		}
	}
	return ballots, signatures
}

// Nodes with two and three identities, among whatever the seed draws: crashes, liars, hostile
// smeshers. The invariants see that none is convicted, that each publishes in every epoch,
// and that none signs twice; a second run is the same.
func TestNodesWithSeveralIdentitiesAmongAllElse(t *testing.T) {
	for seed := range uint64(8) {
		o := Options{Seed: 400 + seed, Nodes: 7, Several: 2, Late: int(seed % 2)}
		if a, b := play(t, o), play(t, o); a.Digest != b.Digest {
			t.Errorf("%v\nand then %v", a, b)
		}
	}
	for _, real := range []bool{false, true} {
		w := newWorld(Options{Seed: 9, Nodes: 5, Epochs: 4, Several: 2, RealKeys: real, Hostile: []string{}, Strangers: []string{}, Faults: calm()})
		w.run(w.cfg.Schedule.First(6)-1, 0)
		for _, n := range w.nodes {
			for i, id := range n.identities() {
				if ballots, signatures := w.nodes[0].by(id.NodeID()); ballots < 3 || signatures < 3 {
					t.Errorf("real keys %v: identity %d of %s: others have %d ballots and %d signatures", real, i, n.peer, ballots, signatures)
				}
			}
		}
		if got := len(w.nodes[3].identities()) + len(w.nodes[4].identities()); got != 5 {
			t.Errorf("the two have %d identities", got)
		}
		for _, v := range w.result.Violations {
			t.Error(v)
		}
	}
}

// One of two identities is shown to sign elsewhere: it proposes and signs nothing more, also
// after a restart, and the other goes on.
func TestAnIdentityThatRunsElsewhereDoesNotStopTheOther(t *testing.T) {
	w := newWorld(Options{Seed: 3, Nodes: 5, Epochs: 6, Several: 1, Hostile: []string{}, Strangers: []string{}, Faults: calm()})
	w.run(w.cfg.Schedule.First(3), 0)
	n := w.nodes[4]
	twice, well := n.identities()[1], n.identities()[0]
	l := w.cfg.Schedule.First(3)
	decision := func(block byte) types.CertifyMessage {
		d := types.Decision{Layer: l, Block: types.BlockID{block}}
		return *core.Seal(twice, types.ATXID{}, d)
	}
	proof := codec.Encode(malfeasance.FromDecisions(decision(1), decision(2)))
	owned := false
	for _, e := range n.hearRaw(t, "n01", core.TopicMalfeasance, proof).Events {
		caught, ok := e.(core.Caught)
		owned = owned || ok && caught.Own && caught.Proof.Smesher == twice.NodeID()
	}
	if !owned || !n.m.Elsewhere(twice.NodeID()) || n.m.Elsewhere(well.NodeID()) {
		t.Errorf("own %t, elsewhere %t, the other %t", owned, n.m.Elsewhere(twice.NodeID()), n.m.Elsewhere(well.NodeID()))
	}
	guarded := func(id core.Identity) (signed int) {
		for k := range n.guard {
			if k.by == id.NodeID() && k.domain != byte(signing.ATX) {
				signed++
			}
		}
		return signed
	}
	for _, again := range []bool{false, true} {
		if again {
			n.die()
		}
		before := [2]int{guarded(twice), guarded(well)}
		w.run(w.cfg.Schedule.LayerAt(w.now)+20, 0)
		if after := [2]int{guarded(twice), guarded(well)}; before[0] == 0 || after[0] != before[0] || after[1] < before[1]+8 {
			t.Errorf("restarted %t: signed %v, then %v", again, before, after)
		}
	}
}

// What somebody else sends of an identity is told by its name, and only of ours: the guard has a
// place for each.
func TestWhatIsSeenOfAnIdentityNamesIt(t *testing.T) {
	w := newWorld(Options{Seed: 3, Nodes: 5, Epochs: 4, Several: 1, Hostile: []string{}, Strangers: []string{}, Faults: calm()})
	l := w.cfg.Schedule.First(3) + 2
	w.run(l, 0)
	n := w.nodes[4]
	seen := make(map[types.NodeID]int)
	tip := n.store.tip().decision
	for _, s := range append(slices.Clone(n.smeshers), w.nodes[1].smeshers...) {
		id := s.identity()
		d := types.Decision{Layer: l, Electorate: tip.Electorate, Beacon: tip.Beacon, Parent: tip.StateRoot, Block: types.BlockID{1}}
		m := core.Seal(id, s.made[2], d)
		out := n.hearRaw(t, "n01", core.TopicDecision, codec.Encode(m))
		if len(out.Verdicts) != 1 || out.Verdicts[0].Class != core.Accept {
			t.Fatalf("%+v", out.Verdicts)
		}
		for _, e := range out.Events {
			if own, ok := e.(core.OwnSeen); ok && own.Slot.Hash == types.Sum(codec.Encode(&d)) && own.Smesher == id.NodeID() {
				seen[id.NodeID()]++
			}
		}
	}
	for i, id := range n.identities() {
		if seen[id.NodeID()] != 1 {
			t.Errorf("identity %d: %d times", i, seen[id.NodeID()])
		}
	}
	if len(seen) != 2 {
		t.Errorf("of %d smeshers", len(seen))
	}
}
