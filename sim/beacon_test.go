package sim

import (
	"slices"
	"testing"
	"time"

	"tweedle/protocol/beacon"
	"tweedle/protocol/core"
	"tweedle/values/types"
)

// Nobody's lies about the beacon leave two honest nodes with two, nor without layers: Run looks
// at both in every seed.
func TestABeaconHoldsAgainstAThird(t *testing.T) {
	for _, name := range []string{"beacon-withheld", "beacon-late", "beacon-split", "beacon-two-faces", "beacon-ground"} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(6) {
				r := play(t, Options{Seed: seed, Nodes: 10, Epochs: 4, Hostile: slices.Repeat([]string{name}, 3), Strangers: []string{}, Faults: calm()})
				if r.Empty > r.Layers/5 {
					t.Errorf("seed %d: %d of %d layers are empty", seed, r.Empty, r.Layers)
				}
			}
		})
	}
}

// held is how much of something a core holds.
func (n *node) held(what string) int {
	for _, h := range n.m.Held() {
		if h.What == what {
			return h.Now
		}
	}
	return -1
}

// Who was cut off in the last round does not know the beacon, and says so; who restarts after that
// has to know it neither. Ballots tell them, and then they make blocks as the others.
func TestWhoMissedTheLastVotesLearnsTheBeaconFromBallots(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		w := lab(t, 6)
		n, s := w.nodes[0], w.cfg.Schedule
		const e = types.FirstEpochWithBallots + 1
		end := w.cfg.Beacon.Duration() % s.LayerDuration // of the protocol, in the last layer of the epoch before
		w.run(s.First(e)-1, end-3*w.cfg.Beacon.Phase)
		w.split(map[*node]bool{n: true})
		w.run(s.First(e)-1, end)
		w.split(nil)
		if restarts {
			n.boot()
		}
		w.run(s.First(e), time.Millisecond)
		if got := n.m.Snapshot(); got.BeaconKnown || !n.m.Snapshot().Synced {
			t.Fatalf("restarts %v: %+v", restarts, got)
		}
		heard := 0
		for w.now.Before(s.EpochStart(e + 1)) {
			w.play(w.now.Add(100 * time.Millisecond))
			w.now = w.now.Add(100 * time.Millisecond)
			heard = max(heard, n.held("smeshers heard about a beacon"))
		}
		got := n.m.Snapshot()
		if others := w.nodes[1].store.beacons[e]; n.store.beacons[e] != others || others == (types.Beacon{}) || heard == 0 || heard > len(w.nodes) {
			t.Errorf("restarts %v: it has beacon %s, others %s, and heard %d smeshers", restarts, n.store.beacons[e], others, heard)
		}
		if got.Tip.Layer < s.First(e)+2 {
			t.Errorf("restarts %v: it is at layer %d", restarts, got.Tip.Layer)
		}
		w.run(s.First(e+1), time.Second)
		if _, known := n.m.Beacon(e + 1); !known || n.held("smeshers heard about a beacon") != 0 {
			t.Errorf("restarts %v: the next beacon is not known, or what it learned from is still held", restarts)
		}
	}
}

// For an epoch before which nobody had an ATX, and so nobody could propose, all have the fall-back, and it
// has blocks; then they have a beacon that was found. The first ATXs are of the second epoch.
func TestAnEmptyEpochHasTheFallback(t *testing.T) {
	const age = 250
	w := newWorld(Options{Seed: 3, Nodes: 6, Epochs: 4, Age: age, Hostile: []string{}, Strangers: []string{}, Faults: calm()})
	w.run(w.cfg.Schedule.First(age+3), time.Second)
	for _, n := range w.nodes {
		for e, empty := range map[types.Epoch]bool{age + 1: true, age + 2: true, age + 3: false} {
			got, known := n.store.beacons[e]
			if fallback := beacon.Fallback(w.cfg.Activation.Golden, e); !known || (got == fallback) != empty {
				t.Errorf("%s has %s in epoch %d (%v), the fall-back is %s", n.peer, got, e, known, fallback)
			}
		}
		if tip := n.m.Snapshot().Tip.Layer; tip < w.cfg.Schedule.First(age+2) {
			t.Errorf("%s is at layer %d", n.peer, tip)
		}
	}
	for _, v := range w.result.Violations {
		t.Error(v)
	}
}

// Who restarts knows few of those who take part at first, as one of them itself: what two thirds of these say is no
// beacon (seeds 428 and 449 of the campaign, shrunk).
func TestAFewThatAreKnownAtARestartFindNoBeacon(t *testing.T) {
	play(t, Options{Seed: 428, Nodes: 9, Epochs: 4, Hostile: []string{}, Strangers: []string{"cheap-poets"}, Poets: []string{}, Clients: []string{"junk"},
		Faults: &Faults{Latency: 60 * time.Millisecond, Loss: 0.1, Crashes: 2, Splits: 1, Skew: 168 * time.Millisecond}})
	play(t, Options{Seed: 449, Nodes: 20, Epochs: 10, Hostile: []string{"beacon-withheld", "silent", "beacon-two-faces"}, Strangers: []string{"empty-peer", "cheap-poets"},
		Poets: []string{"lies", "omits"}, Clients: []string{"junk"}, Faults: &Faults{Latency: 22 * time.Millisecond, Loss: 0.1, Crashes: 3, Skew: 198 * time.Millisecond}})
}

// signatures keeps what a node has to sign about beacons.
type signatures struct {
	honesty
	all []core.Sign
}

func (s *signatures) signs(_ *node, one core.Sign) bool {
	if said(one) != nil {
		s.all = append(s.all, one)
	}
	return false
}

// Each vote and coin has a place of its own in the guard, so that a node that is restored from an old copy does
// not say another thing in the same round.
func TestEachVoteAboutABeaconHasItsPlaceInTheGuard(t *testing.T) {
	w := lab(t, 5)
	kept := &signatures{}
	w.nodes[0].bad = kept
	w.run(w.cfg.Schedule.First(6), 0)
	places, votes := map[core.Slot]bool{}, 0
	for _, s := range kept.all {
		switch m := said(s); {
		case m.Kind == beacon.Propose:
			if len(s.Slots) > 0 {
				t.Errorf("a proposal, which nobody can make twice, has places %v", s.Slots)
			}
			continue
		case len(s.Slots) != 1:
			t.Fatalf("round %d of epoch %d has %d places", m.Round, m.Target, len(s.Slots))
		}
		votes++
		place := s.Slots[0]
		place.Hash = types.Hash32{}
		if places[place] {
			t.Errorf("two votes have the place %d of domain %d", place.Place, place.Domain)
		}
		places[place] = true
	}
	if votes < 2*(w.cfg.Beacon.Rounds+1) {
		t.Errorf("it voted %d times", votes)
	}
}
