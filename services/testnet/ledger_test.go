package testnet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tweedle/base/telemetry"
	"tweedle/values/types"
)

func testSchedule() types.Schedule {
	return types.Schedule{Genesis: time.Unix(1_000_000, 0), LayerDuration: 2 * time.Second, LayersPerEpoch: 10}
}

// history is a run as the nodes report it; a test spoils some of it.
type history struct {
	ledger *ledger
	nodes  []member
	// change may alter a report, or drop it.
	change func(node string, s *telemetry.LayerStatus) (drop bool)
	noATX  func(node string, published types.Epoch) bool
}

func newHistory() *history {
	return &history{
		ledger: newLedger(testSchedule(), 20),
		nodes:  []member{{"node-1", Node, 0}, {"node-2", Node, 0}, {"node-3", Node, 0}},
	}
}

// run reports all layers up to last.
func (h *history) run(last uint32) *history {
	for _, m := range h.nodes {
		for n := max(20, m.Joined); n <= last; n++ {
			s := telemetry.LayerStatus{Layer: n, Block: fmt.Sprint("block", n), StateRoot: fmt.Sprint("root", n), Txs: 5, Ballots: 4}
			if h.change != nil && h.change(m.Name, &s) {
				continue
			}
			h.ledger.report(m.Name, s)
		}
		for e := types.Epoch(1); e <= types.Epoch(last/10); e++ {
			if h.noATX == nil || !h.noATX(m.Name, e) {
				h.ledger.atx(m.Name, e)
			}
		}
	}
	return h
}

func (h *history) judge(now types.Layer) Summary {
	return h.ledger.judge(h.ledger.epochs(now), h.nodes)
}

func TestAGoodRunIsOK(t *testing.T) {
	h := newHistory().run(41)
	h.ledger.proofs["poet-1/0"], h.ledger.proofs["poet-2/0"] = true, true
	want := Summary{
		OK: true, Epochs: 2, Layers: 20, TransactionsApplied: 100, ATXs: 6, PoetProofs: 2,
		StateRoots: 1, LastCommonLayer: 39, StateRoot: "root39",
	}
	if got := h.judge(41); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestWhatIsWrongWithARunIsSaid(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(*history)
		reason string
	}{
		{"another block", func(h *history) {
			h.change = func(n string, s *telemetry.LayerStatus) bool {
				if n == "node-2" && s.Layer == 25 {
					s.Block = "other"
				}
				return false
			}
		}, "nodes disagree about layer 25"},
		{"another state with the same block", func(h *history) {
			h.change = func(n string, s *telemetry.LayerStatus) bool {
				if n == "node-2" && s.Layer >= 39 {
					s.StateRoot = "other"
				}
				return false
			}
		}, "nodes disagree about layer 39; 2 different state roots at layer 39"},
		{"a node that lags", func(h *history) {
			h.change = func(n string, s *telemetry.LayerStatus) bool { return n == "node-3" && s.Layer > 34 }
		}, "node-3 did not apply layer 35, 36, 37 and 2 more"},
		{"a layer that nobody applied", func(h *history) {
			h.change = func(_ string, s *telemetry.LayerStatus) bool { return s.Layer == 31 }
		}, "no node applied layer 31; node-1 did not apply layer 31; node-2 did not apply layer 31; node-3 did not apply layer 31"},
		{"too many empty layers", func(h *history) {
			h.change = func(_ string, s *telemetry.LayerStatus) bool {
				if s.Layer%6 == 0 {
					s.Block, s.Txs = "", 0
				}
				return false
			}
		}, "3 of 20 layers are empty, more than 10 %"},
		{"a missing ATX", func(h *history) {
			h.noATX = func(n string, e types.Epoch) bool { return n == "node-1" && e == 2 }
		}, "node-1 published no ATX for epoch 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHistory()
			c.spoil(h)
			s := h.run(41).judge(41)
			if got := strings.Join(s.Reasons, "; "); s.OK || got != c.reason {
				t.Errorf("ok %v: %s\nwant: %s", s.OK, got, c.reason)
			}
		})
	}
}

func TestTenPercentOfTheLayersMayBeEmpty(t *testing.T) {
	h := newHistory()
	h.change = func(_ string, s *telemetry.LayerStatus) bool {
		if s.Layer == 22 || s.Layer == 33 {
			s.Block, s.Txs = "", 0
		}
		return false
	}
	if s := h.run(41).judge(41); !s.OK || s.EmptyLayers != 2 {
		t.Errorf("%+v", s)
	}
}

func TestEpochsWithoutBallotsDoNotCount(t *testing.T) {
	h := newHistory()
	h.change = func(_ string, s *telemetry.LayerStatus) bool {
		if e := s.Layer / 10; e == 3 || e == 4 {
			s.Block, s.Txs, s.Ballots = "", 0, 0
		}
		return false
	}
	h.run(69)
	if got := h.ledger.epochs(69); !slices.Equal(got, []types.Epoch{2, 5}) {
		t.Errorf("epochs %v", got)
	}
	if got := h.ledger.epochs(70); !slices.Equal(got, []types.Epoch{2, 5, 6}) {
		t.Errorf("epochs %v", got)
	}
	if got := newLedger(testSchedule(), 47).firstFullEpoch(); got != 5 {
		t.Errorf("a run that begins in the middle of epoch 4 counts from %d", got)
	}
}

func TestANodeThatWasAddedIsJudgedFromWhenItJoined(t *testing.T) {
	h := newHistory()
	h.nodes = append(h.nodes, member{"node-4", Node, 33})
	h.noATX = func(n string, e types.Epoch) bool { return n == "node-4" && e < 5 }
	if s := h.run(71).judge(71); !s.OK {
		t.Errorf("%+v", s)
	}
	h.nodes[3].Joined = 23 // it had the time to publish for epoch 5
	if s := h.judge(71); s.OK || !slices.Contains(s.Reasons, "node-4 published no ATX for epoch 5") {
		t.Errorf("%+v", s)
	}
}

func TestALayerIsToldOnceAndDoesNotWaitForeverForSlowNodes(t *testing.T) {
	l := newLedger(testSchedule(), 20)
	all := []string{"node-1", "node-2"}
	tell := func() (out []string) {
		for _, e := range l.tell(all) {
			out = append(out, fmt.Sprintf("%d:%d/%d", e.Layer, e.Agree, e.Nodes))
		}
		return out
	}
	report := func(node string, layer uint32) {
		l.report(node, telemetry.LayerStatus{Layer: layer, Block: "b", StateRoot: "r"})
	}
	report("node-1", 20)
	if got := tell(); got != nil {
		t.Errorf("told before node-2 had it: %v", got)
	}
	report("node-2", 20)
	if got := tell(); !slices.Equal(got, []string{"20:2/2"}) {
		t.Errorf("told %v", got)
	}
	report("node-1", 21)
	report("node-1", 22)
	report("node-1", 23)
	if got := tell(); !slices.Equal(got, []string{"21:1/2"}) {
		t.Errorf("told %v", got)
	}
	report("node-1", 40) // the network stood still
	if got := tell(); !slices.Equal(got, []string{"22:1/2", "23:1/2"}) {
		t.Errorf("told %v", got)
	}
	report("node-2", 40)
	report("node-1", 41)
	if got := tell(); !slices.Equal(got, []string{"40:2/2"}) {
		t.Errorf("told %v", got)
	}
	if got := l.next("node-2"); got != 21 {
		t.Errorf("node-2 is asked from layer %d on", got)
	}
}

func TestTheLedgerForgetsTheOldestLayers(t *testing.T) {
	l := newLedger(testSchedule(), 0)
	for n := range uint32(maxTrackedLayers + 5) {
		l.report("node-1", telemetry.LayerStatus{Layer: n})
	}
	if len(l.layers) != maxTrackedLayers || l.first != 5 || l.next("node-2") != 5 {
		t.Errorf("%d layers from %d on; node-2 is asked from %d on", len(l.layers), l.first, l.next("node-2"))
	}
}

func TestAnEmptyLastLayerIsJudgedByTheStateBeforeIt(t *testing.T) {
	h := newHistory()
	h.change = func(_ string, s *telemetry.LayerStatus) bool {
		if s.Layer == 39 {
			*s = telemetry.LayerStatus{Layer: 39}
		}
		return false
	}
	if s := h.run(41).judge(41); !s.OK || s.LastCommonLayer != 39 || s.StateRoots != 1 || s.StateRoot != "root38" {
		t.Errorf("%+v", s)
	}
}

// A node goes back behind a layer that it had reported, and ends with another
// block: that is disagreement, however often it agreed before. And the other way
// round.
func TestANodesNewestWordCounts(t *testing.T) {
	h := newHistory().run(41)
	other := telemetry.LayerStatus{Layer: 33, Block: "another", StateRoot: "another root", Txs: 1, Ballots: 4}
	if !h.ledger.report("node-2", other) {
		t.Error("the change is not noticed")
	}
	if h.ledger.report("node-2", other) {
		t.Error("saying it again is a change")
	}
	if s := h.judge(41); s.OK || !strings.Contains(strings.Join(s.Reasons, ";"), "nodes disagree about layer 33") {
		t.Errorf("%+v", s)
	}
	right := telemetry.LayerStatus{Layer: 33, Block: "block33", StateRoot: "root33", Txs: 5, Ballots: 4}
	h.ledger.report("node-2", right)
	if s := h.judge(41); !s.OK {
		t.Errorf("they agree again: %+v", s)
	}
	if from := h.ledger.ask("node-2"); from > 33 || from < 20 {
		t.Errorf("it is asked from layer %d on", from)
	}
}

func TestALayerThatANodeTakesBackIsMissing(t *testing.T) {
	h := newHistory().run(41)
	h.ledger.forget("node-3", 30, 39)
	for n := uint32(30); n < 37; n++ { // asked again, it has these
		h.ledger.report("node-3", telemetry.LayerStatus{Layer: n, Block: fmt.Sprint("block", n), StateRoot: fmt.Sprint("root", n), Txs: 5, Ballots: 4})
	}
	if s := h.judge(41); s.OK || !strings.Contains(strings.Join(s.Reasons, ";"), "node-3 did not apply layer 37, 38, 39") {
		t.Errorf("%+v", s)
	}
	if from := h.ledger.next("node-3"); from != 37 {
		t.Errorf("it is asked from layer %d on", from)
	}
}

func TestAStandstillIsCalledOne(t *testing.T) {
	h := newHistory().run(82)
	for now, want := range map[types.Layer]string{
		83: "", 87: "", 118: "the newest applied layer is 82, the clock is at 118, 35 layers are missing",
	} {
		if got := h.ledger.standstill(now); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("at layer %d: %q, want %q", now, got, want)
		}
	}
	if got := newLedger(testSchedule(), 20).standstill(40); !strings.Contains(got, "the newest applied layer is 19") {
		t.Errorf("a network without a block: %q", got)
	}
	if got := newLedger(testSchedule(), 20).standstill(24); got != "" {
		t.Errorf("a network that begins: %q", got)
	}
}
