package page_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tweedle/base/telemetry"
	"tweedle/watch/page"
	"tweedle/watch/page/fixture"
	"tweedle/watch/rules"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func network(scene string, nodes int) fixture.Network {
	layer := map[string]int{"before": -12, "early": 22}[scene]
	if layer == 0 {
		layer = 137
	}
	return fixture.Network{Scene: scene, Nodes: nodes, Genesis: fixture.Genesis(noon, layer)}
}

// states are those of the links, in order.
func states(m page.Model) string {
	var out []string
	for _, l := range m.Chain {
		out = append(out, string(l.State))
	}
	return strings.Join(out, " ")
}

func TestWhatIsSeenIsJudged(t *testing.T) {
	for _, c := range []struct {
		scene, verdict, why, chain string
		state                      page.State
	}{
		{"well", "All is well", "", "ok ok ok ok ok ok ok", page.OK},
		{"empty", "Nothing is watched yet", "Name nodes", "unknown unknown unknown wait unknown wait ok", page.Unknown},
		{"before", "Before genesis", "", "ok ok ok wait wait wait ok", page.Waits},
		{"early", "All is well", "The first block comes in layer 40", "ok ok ok ok wait wait ok", page.OK},
		{"warned", "It works, with warnings", "Nodes: node-2 is not in sync", "warn ok warn warn ok ok ok", page.Warn},
		{"incident", "The network stands still", "Nodes: node-1, ", "bad ok bad ok bad ok ok", page.Bad},
		{"forked", "Something is broken", "State: node-3 differs from the others since layer 129", "ok ok ok ok ok bad ok", page.Bad},
	} {
		for _, nodes := range []int{5, 500} {
			m := page.Build(network(c.scene, nodes).At(noon))
			if s := m.Status; s.Verdict != c.verdict || s.State != c.state || !strings.HasPrefix(s.Why, c.why) || c.why == "" && s.Why != "" {
				t.Errorf("%s, %d nodes: %s, %q because %q", c.scene, nodes, s.State, s.Verdict, s.Why)
			}
			if got := states(m); got != c.chain {
				t.Errorf("%s, %d nodes: the chain is %s, want %s", c.scene, nodes, got, c.chain)
			}
		}
	}
	one := page.Build(network("well", 1).At(noon))
	if one.Status.State != page.OK || one.Status.Roots != 1 || one.Status.Nodes != 1 || one.Layers[50].Cells != "o" {
		t.Errorf("of one node: %+v", one.Status)
	}
}

// Whose proofs ATXs refer to is said of the running epoch and the last one, and how many there were before of each.
func TestEpochsSayWhatIsExpectedAndByWhichPoet(t *testing.T) {
	m := page.Build(network("well", 6).At(noon))
	for i, e := range m.Epochs {
		want := map[string]int{"70e7000001": *e.ATXs - *e.ATXs/3, "70e7000002": *e.ATXs / 3}
		if recent := i >= len(m.Epochs)-2; recent && !maps.Equal(e.ByPoet, want) || !recent && e.ByPoet != nil {
			t.Errorf("epoch %d: %v", e.Epoch, e.ByPoet)
		}
		if i > 0 && (e.Expected == nil || *e.Expected != *m.Epochs[i-1].ATXs) {
			t.Errorf("epoch %d expects %v", e.Epoch, e.Expected)
		}
	}
	s := network("well", 1).At(noon)
	for i := range 1000 {
		s.Series = append(s.Series, page.Sample{Labels: map[string]string{"__name__": "tweedle_node_poet_atxs", "job": "node", "name": "node-1", "poet": strings.Repeat("x", i), "epoch": "this"}, Value: 1})
	}
	if got := page.Build(s).Epochs; len(got[len(got)-1].ByPoet) > 64 {
		t.Errorf("%d PoETs are shown", len(got[len(got)-1].ByPoet))
	}
}

// An epoch without an ATX is followed by one without blocks, however few there were before.
func TestAnEpochWithoutATXsIsBroken(t *testing.T) {
	s := network("well", 5).At(noon)
	for e := range s.ATXs {
		s.ATXs[e] = 0
	}
	for i, one := range s.Series {
		if one.Labels["__name__"] == "tweedle_node_atxs_published_before" {
			s.Series[i].Value = 0
		}
	}
	m := page.Build(s)
	if l := m.Chain[3]; l.State != page.Bad || l.Why != "epoch 5 had no ATX: epoch 6 has no blocks" {
		t.Errorf("%+v", l)
	}
	for _, e := range m.Epochs {
		if e.Drop != (e.Epoch > 0 && !e.Current) {
			t.Errorf("%+v", e)
		}
	}
}

// What the watch has no sight of must not look well.
func TestStaleDataAreNotWell(t *testing.T) {
	s := network("well", 5).At(noon)
	s.At = s.At.Add(time.Minute) // nobody has answered since
	m := page.Build(s)
	if m.Status.State != page.Bad || m.Status.Answering != 0 || m.Chain[0].State != page.Bad || m.Chain[4].State == page.OK {
		t.Errorf("after a minute without an answer: %+v, %+v", m.Status, m.Chain)
	}
	for _, n := range m.Nodes {
		if n.State != page.Bad || n.Seen.IsZero() {
			t.Errorf("%+v", n)
		}
	}
	for _, c := range m.Layers[len(m.Layers)-5:] {
		if c.Cells != "?????" {
			t.Errorf("layer %d: %s", c.Layer, c.Cells)
		}
	}
}

func TestTheGridTellsWhoHasWhat(t *testing.T) {
	s := network("forked", 5).At(noon)
	delete(s.Nodes["node-5"].Layers, 100)
	m := page.Build(s)
	if len(m.Layers) != 98 || m.Layers[0].Layer != 40 { // none before the first that can have a block is in the window
		at := m.Layers[0].Layer
		if at != 38 || len(m.Layers) != page.Window {
			t.Errorf("%d layers from %d", len(m.Layers), at)
		}
	}
	cells := map[uint32]page.Column{}
	for _, c := range m.Layers {
		cells[c.Layer] = c
	}
	for layer, want := range map[uint32]string{39: ".....", 51: "eeeee", 100: "oooob", 128: "ooooo", 129: "ooxoo", 137: "wwwww"} {
		if got := cells[layer].Cells; got != want {
			t.Errorf("layer %d: %s, want %s", layer, got, want)
		}
	}
	if others := cells[129].Others; len(others) != 1 || !strings.HasPrefix(others["node-3"], "block ") || m.Status.Roots != 2 {
		t.Errorf("%v, %d states", others, m.Status.Roots)
	}
}

func TestTheModelIsAFunctionOfWhatWasSeen(t *testing.T) {
	for _, scene := range fixture.Scenes() {
		seen := network(scene, 30).At(noon)
		before := fmt.Sprintf("%+v", seen)
		a, b := page.Build(seen), page.Build(network(scene, 30).At(noon))
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: two models of the same", scene)
		}
		if fmt.Sprintf("%+v", seen) != before {
			t.Errorf("%s: what was seen was changed", scene)
		}
	}
}

// What a node uses, how often it was started again and how it died last.
func TestANodesResourcesAndItsLastCrashAreShown(t *testing.T) {
	s := network("warned", 5).At(noon)
	died := func(name, id string, ago time.Duration) page.Death {
		return page.Death{ID: id, Name: name, At: noon.Add(-ago), Reason: "signal", Message: "killed from outside: killed"}
	}
	s.Deaths = []page.Death{died("node-3", "old", time.Hour), died("node-3", "new", time.Minute), died("node-3", "older", 2*time.Hour), died("poet-1", "p", time.Minute)}
	m := page.Build(s)
	n := m.Nodes[2]
	want := &page.Crash{ID: "new", At: noon.Add(-time.Minute), Reason: "signal", Text: "killed from outside: killed", Of: 3}
	if !reflect.DeepEqual(n.Crash, want) || n.Starts == nil || *n.Starts != 2 || n.CPU == nil || *n.CPU != 0.3 || n.Disk == nil || *n.Disk != uint64(68e9)/(16<<20)*(16<<20) || n.Full != 0 {
		t.Errorf("%+v, crash %+v", n, n.Crash)
	}
	if full := m.Nodes[1].Full; full != 9*3600 {
		t.Errorf("node-2 is full in %v s", full)
	}
	if m.Nodes[0].Crash != nil || *m.Nodes[0].Starts != 0 || m.Poets[0].Crash == nil || m.Poets[0].Crash.ID != "p" || m.Poets[1].Crash != nil {
		t.Errorf("%+v; %+v", m.Nodes[0], m.Poets)
	}
	// What nobody told is not shown as nothing.
	s.Series = slices.DeleteFunc(s.Series, func(one page.Sample) bool {
		return strings.Contains(one.Labels["__name__"], "disk") || strings.HasPrefix(one.Labels["__name__"], "page:")
	})
	if n := page.Build(s).Nodes[2]; n.Disk != nil || n.CPU != nil || n.Starts != nil {
		t.Errorf("%+v", n)
	}
}

// One of several identities that fails is named.
func TestAFailingIdentityOfANodeIsNamed(t *testing.T) {
	s := network("well", 3).At(noon)
	n := s.Nodes["node-2"]
	n.Status.Others = []telemetry.IdentityStatus{{NodeID: "aa"}, {NodeID: strings.Repeat("bc", 32), Smesher: telemetry.SmesherStep{Error: "its disk is full"}}}
	s.Nodes["node-2"] = n
	b, err := json.Marshal(page.Build(s))
	if err != nil || !regexp.MustCompile(`smesher bcbc[bc]*: its disk is full`).Match(b) {
		t.Errorf("it is not in the model: %v", err)
	}
}

// Programs are strangers: whatever they say is bounded, and breaks nothing.
func TestLiesAreBounded(t *testing.T) {
	s := network("well", 3).At(noon)
	n := s.Nodes["node-1"]
	long := strings.Repeat("é<script>\xff\x00", 100_000)
	n.Status.SyncReason, n.Status.Synced, n.Status.Dispute, n.Status.Version, n.Status.StateRoot, n.Status.NodeID = long, false, long, long, long, long
	n.Status.Smesher = telemetry.SmesherStep{Step: long, Until: long, For: long, Error: long}
	n.Status.Others = slices.Repeat([]telemetry.IdentityStatus{{NodeID: long, Dir: long, Smesher: n.Status.Smesher}}, 1000)
	n.Status.AppliedLayer = math.MaxUint32
	n.Layers = map[uint32]telemetry.LayerStatus{100: {Layer: 100, Block: "é", StateRoot: "\xff"}, math.MaxUint32: {}}
	s.Nodes["node-1"] = n
	p := s.Poets["poet-1"]
	for i := range 10_000 {
		p.Rounds = append(p.Rounds, page.Round{ID: fmt.Sprint(i, "x"), State: "finished"})
	}
	s.Poets["poet-1"] = p
	m := page.Build(s)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 200_000 {
		t.Errorf("the model has %d bytes", len(b))
	}
	if strings.Contains(string(b), "<script") {
		t.Error("the JSON has HTML in it")
	}
}

// Each number of each metric may be anything.
func TestWildNumbersBreakNothing(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 0, 1e300, math.MaxUint32} {
		for _, metric := range append(page.Metrics(), slices.Collect(maps.Keys(page.Expressions()))...) {
			s := network("warned", 3).At(noon)
			delete(s.Poets, "poet-1") // then its metrics are shown
			s.Series = append(s.Series, page.Sample{Labels: map[string]string{"__name__": "poet_proofs_undelivered", "job": "poet", "name": "poet-1"}, Value: 1},
				page.Sample{Labels: map[string]string{"__name__": "poet_proof_undelivered_age_seconds", "job": "poet", "name": "poet-1"}, Value: 1})
			for i, one := range s.Series {
				if one.Labels["__name__"] == metric {
					s.Series[i].Value = v
				}
			}
			if _, err := json.Marshal(page.Build(s)); err != nil {
				t.Errorf("%s is %v: %v", metric, v, err)
			}
		}
	}
}

func TestEveryAlertHasItsLink(t *testing.T) {
	known := map[string]bool{}
	for _, file := range rules.Files() {
		for _, m := range regexp.MustCompile(`(?m)^\s+- alert: (\w+)`).FindAllStringSubmatch(file, -1) {
			known[m[1]] = true
		}
	}
	known["WatchStorageFailing"] = true // it goes past the rules
	linked := page.Linked()
	for _, name := range linked {
		if !known[name] {
			t.Errorf("no rule raises %s", name)
		}
		delete(known, name)
	}
	if len(known) > 0 {
		t.Errorf("the page does not know where these belong: %v", known)
	}
}

// A metric that nothing has would leave a part of the page empty for ever.
func TestThePageAsksForWhatThereIs(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := append(page.Metrics(), "tweedle_node_atxs_published_before")
	for _, expr := range page.Expressions() {
		names = append(names, regexp.MustCompile(`[a-z]+_[a-z_]+`).FindAllString(expr, -1)...)
	}
	if len(names) < 15 {
		t.Errorf("it asks for %v", names)
	}
	for _, name := range names {
		if name != "up" && !strings.Contains(string(b), "| "+name+" |") {
			t.Errorf("docs/metrics.md has no %s", name)
		}
	}
}

func BenchmarkModelOf500Nodes(b *testing.B) {
	s := network("forked", 500).At(noon)
	for b.Loop() {
		page.Build(s)
	}
}
