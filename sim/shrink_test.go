package sim

import (
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"tweedle/protocol/core"
	"tweedle/protocol/malfeasance"
)

// A bug that a test plants is found in a run of many things, and shrunk to what
// it takes: no more can be taken away, and the command line plays it again.
func TestAFailingSeedIsShrunkToWhatItTakes(t *testing.T) {
	big := Options{
		Seed: 11, Nodes: 10, Epochs: 2, Hostile: []string{"split-votes", "two-proposals"}, Strangers: []string{"lying-peer", "junk-transactions"},
		Poets: []string{"lies", "omits"}, Clients: []string{"conflicts"}, Faults: &Faults{Latency: 30e6, Loss: 0.01, Crashes: 2, Splits: 1, Skew: 2e8},
	}
	for _, c := range []struct {
		name  string
		plant func(*node, core.Event)
		fits  func(Options) bool
	}{
		{"a proof against who votes twice breaks something", func(n *node, e core.Event) {
			if c, ok := e.(core.Caught); ok && n.bad == nil && c.Proof.Kind == malfeasance.TwoDecisions {
				n.w.violated(n, "planted")
			}
		}, func(o Options) bool { return slices.Equal(o.Hostile, []string{"split-votes"}) && o.Faults.Crashes == 0 }},
		{"a node that was started again breaks something", func(n *node, e core.Event) {
			if _, ok := e.(core.Applied); ok && n.bad == nil && n.born > 1 {
				n.w.violated(n, "planted")
			}
		}, func(o Options) bool { return len(o.Hostile) == 0 && o.Faults.Crashes == 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			fails := func(o Options) bool {
				o.planted = c.plant
				return len(Run(o).Violations) > 0
			}
			if !fails(big) {
				t.Fatal("the planted bug does not show")
			}
			least, runs := Shrink(big, 200, fails)
			t.Logf("%d runs: %s\n%s", runs, least.Command(), least.Test())
			if len(least.Strangers)+len(least.Poets)+len(least.Clients) > 0 || least.Faults.Loss+float64(least.Faults.Skew)+float64(least.Faults.Splits) > 0 || !c.fits(least) {
				t.Errorf("what is left is not what it takes: %s", least.Command())
			}
			for _, less := range smaller(least) {
				if fails(less) {
					t.Errorf("it fails with less, too: %s", less.Command())
				}
			}
			again, _, _, err := Parse(strings.Fields(least.Command())[3:], io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			again.planted, least.planted = c.plant, c.plant
			if a, b := Run(again), Run(least); a.Digest != b.Digest || len(a.Violations) == 0 {
				t.Errorf("the command plays another run: %v", a)
			}
			if !strings.Contains(least.Test(), "Seed: 11") {
				t.Error(least.Test())
			}
		})
	}
}

// What is drawn and then given is the same run.
func TestDrawnOptionsPlayTheSameRun(t *testing.T) {
	for seed := range uint64(3) {
		o := Options{Seed: 50 + seed}
		if a, b := Run(o), Run(Drawn(o)); a.Digest != b.Digest {
			t.Errorf("%v\nand %v", a, b)
		}
	}
}

// The scenarios of twins are all there, once: so many as counting says.
func TestTwinScenariosAreCountedAndSampled(t *testing.T) {
	choose := func(n, k int) int {
		c := 1
		for i := 1; i <= k; i++ {
			c = c * (n - k + i) / i
		}
		return c
	}
	for h := 1; h <= 5; h++ {
		// Multisets of h rows of 2^TwinLayers; exchanging the twins pairs them, but
		// for those that it leaves as they are.
		all, same := choose(1<<TwinLayers+h-1, h), 0
		if h%2 == 0 {
			same = choose(1<<(TwinLayers-1)+h/2-1, h/2)
		}
		if got := len(TwinScenarios(h)); got != (all+same)/2 {
			t.Errorf("%d smeshers: %d scenarios, counted %d", h, got, (all+same)/2)
		}
	}
	scenarios := TwinScenarios(5)
	play := Sample(scenarios, nightly(24, len(scenarios)), 1)
	t.Logf("%d of %d scenarios are played", len(play), len(scenarios))
	var caught atomic.Int64
	sideBySide(len(play), func(i int) {
		o := Options{Seed: uint64(i), Nodes: 6, Epochs: 2, Hostile: []string{"twins"}, Strangers: []string{}, Poets: []string{}, Clients: []string{"conflicts"}, Twins: play[i], Faults: calm()}
		r := Run(o)
		caught.Add(int64(r.Caught))
		for _, v := range r.Violations {
			t.Errorf("%v: %s (%s)", play[i], v, o.Command())
		}
	})
	t.Logf("in %d of them the twins are caught", caught.Load())
	if caught.Load() == 0 {
		t.Error("no twins are caught: they do not sign twice")
	}
}

// Found by the night: these twins keep the proof against them from gossip, one
// node came to ask for it, and kept it to itself; others knew a layer later
// each, the last two not yet at the end.
func TestAProofThatSomebodyAskedForIsPassedOn(t *testing.T) {
	play(t, Options{
		Seed: 3941, Nodes: 6, Epochs: 2, Hostile: []string{"twins"}, Strangers: []string{}, Poets: []string{}, Clients: []string{"conflicts"},
		Twins: []uint16{0, 0, 0, 3, 3}, Faults: calm(),
	})
}
