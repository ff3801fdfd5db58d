package sim

import (
	"slices"
	"testing"
	"time"

	"tweedle/protocol/core"
	"tweedle/protocol/hare"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// A layer whose smeshers need a second iteration is agreed on after the next one is: both are
// decided in one moment, before anybody's signature is heard. The second builds on the first,
// else it would be certified without it.
func TestTwoLayersThatAreDecidedInOneMomentAreBothPartOfTheHistory(t *testing.T) {
	o := Options{Seed: 3, Nodes: 5, Epochs: 4, Hostile: []string{}, Strangers: []string{}, Poets: []string{}, Clients: []string{}, Faults: calm()}
	run := func() *world {
		w := newWorld(o)
		w.play(w.end())
		w.final()
		for _, v := range w.result.Violations {
			t.Error(v)
		}
		return w
	}
	calm := run()
	first := calm.cfg.Schedule.First(4) + 1
	for calm.decided[first].Layer == 0 || calm.decided[first+1].Layer == 0 {
		first++
	}
	o.unsaid = func(s core.Sign) bool { // so nobody leads its first iteration
		m, ok := core.Content(s.Message).(*hare.Message)
		return ok && m.Layer == first && m.Round == hare.Propose
	}
	at := make(map[types.Layer]time.Time)
	o.planted = func(n *node, e core.Event) {
		if d, ok := e.(core.Decided); ok && n.i == 0 {
			at[d.Decision.Layer] = n.w.now
		}
	}
	w := run()
	if at[first].IsZero() || at[first] != at[first+1] {
		t.Fatalf("layer %d was decided at %s, the next one at %s", first, at[first], at[first+1])
	}
	if one, two := w.decided[first], w.decided[first+1]; one.Layer == 0 || two.Layer == 0 || two.Parent != one.StateRoot {
		t.Errorf("layer %d leaves state %s, the next one builds on %s", first, one.StateRoot.Short(), two.Parent.Short())
	}
}

// The proof of a hare message's seats is not signed: one message may come with as many as
// somebody likes. Few are checked at once.
func TestAHareMessageIsCheckedAFewTimesAtOnce(t *testing.T) {
	w := lab(t, 5)
	l := w.cfg.Schedule.First(3) + 1
	w.run(l, time.Second)
	n, by := w.nodes[0], w.nodes[1].key
	m := &hare.Message{Layer: l, Round: hare.Notify, Smesher: by.NodeID(), Ref: hare.SetRef(nil)}
	m.Signature = by.Sign(signing.Hare, hare.SignedBytes(m.Layer, m.Round, m.Says()))
	for i := range 8 {
		m.Proof[i] = 255 // many seats
	}
	ignored := 0
	for i := range 100 {
		m.Proof[40] = byte(i)
		out := n.hearRaw(t, "n02", core.TopicHare, codec.Encode(m))
		for _, v := range out.Verdicts {
			if v.Class != core.Ignore {
				t.Fatalf("%+v", v)
			}
			ignored++
		}
	}
	checks := 0
	for _, h := range n.m.Held() {
		if h.What == "hare messages that are checked" {
			checks = h.Now
		}
	}
	if checks == 0 || checks > 32 || checks+ignored != 100 {
		t.Errorf("%d are checked at once, %d ignored", checks, ignored)
	}
}

// Hare messages that come while proofs of seats are checked wait for the end of that. A machine has one check under
// way, of at most 64 proofs, so that no flood of them takes more than one processor from the others.
func TestProofsOfSeatsAreCheckedTogetherAndFewAtATime(t *testing.T) {
	w := lab(t, 5)
	l := w.cfg.Schedule.First(3) + 1
	w.run(l, time.Second)
	n := w.nodes[0]
	var checks []core.CheckSeats // under way
	judged := 0
	take := func(out core.Output) {
		for _, k := range out.Work {
			if c, ok := k.(core.CheckSeats); ok {
				checks = append(checks, c)
			}
		}
		if len(checks) > 1 {
			t.Fatalf("%d checks are under way", len(checks))
		}
		judged += len(out.Verdicts)
	}
	const each = 30
	for _, by := range w.nodes[1:] {
		m := &hare.Message{Layer: l, Round: hare.Notify, Smesher: by.key.NodeID(), Ref: hare.SetRef(nil)}
		m.Signature = by.key.Sign(signing.Hare, hare.SignedBytes(m.Layer, m.Round, m.Says()))
		for i := range each {
			m.Proof[40] = byte(i)
			take(n.hearRaw(t, by.peer, core.TopicHare, codec.Encode(m)))
		}
	}
	var sizes []int
	for len(checks) > 0 {
		c := checks[0]
		checks, sizes = nil, append(sizes, len(c.Proofs))
		take(n.give(t, c.Do(n.crypto)))
	}
	if !slices.Equal(sizes, []int{1, 64, 4*each - 65}) || judged != 4*each {
		t.Errorf("%v were checked together, %d of %d judged", sizes, judged, 4*each)
	}
}

// A whole network that is started again just before a layer is synced after that began. All take part
// in its agreement, so that the next one does not wait for the end of all its iterations.
func TestWhoIsSyncedAfterALayerBeganAgreesOnIt(t *testing.T) {
	w := newWorld(Options{Seed: 4, Nodes: 5, Epochs: 6, Hostile: []string{}, Strangers: []string{}, Poets: []string{}, Clients: []string{}, Faults: calm()})
	l := w.cfg.Schedule.First(4)
	w.run(l, -20*time.Millisecond)
	for _, n := range w.nodes {
		n.up, n.m, n.life = false, nil, n.life+1
	}
	for _, n := range w.nodes {
		n.boot()
	}
	w.run(l, 0)
	for _, n := range w.nodes {
		if n.m.Snapshot().Synced {
			t.Fatalf("%s is synced already", n.peer)
		}
	}
	w.run(l+3, 0)
	for _, n := range w.nodes {
		if tip := n.store.tip().decision.Layer; tip != l+1 {
			t.Errorf("%s has applied layer %d of %d", n.peer, tip, l+1)
		}
	}
	for _, v := range w.result.Violations {
		t.Error(v)
	}
}

// What comes a millisecond before the proposals are closed, at one half of the network only, is agreed on or
// left out by all: no layer is lost by it.
func TestProposalsAtTheEdgeOfTheirTimeEmptyNoLayer(t *testing.T) {
	r := play(t, Options{
		Seed: 10, Nodes: 10, Epochs: 5, Hostile: []string{"edge-proposal", "edge-proposal"},
		Strangers: []string{}, Poets: []string{}, Clients: []string{}, Faults: calm(),
	})
	if r.Empty > 0 {
		t.Errorf("%d of %d layers are empty", r.Empty, r.Layers)
	}
}
