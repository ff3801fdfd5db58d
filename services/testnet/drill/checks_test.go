package drill

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tweedle/services/testnet"
)

// still is a stage that shows one status.
func still(t *testing.T, s *testnet.Status) *Stage {
	st := newStage(t.TempDir(), Flags{}, newTimeline("unit", Flags{}, nobody{}))
	st.Status(s)
	return st
}

func ptr[T any](v T) *T { return &v }

// seven is a network in which all is well.
func seven() *testnet.Status {
	s := &testnet.Status{Layer: 40, Epoch: 4, Started: true}
	for _, name := range everyone {
		s.Nodes = append(s.Nodes, testnet.NodeStatus{Name: name, State: testnet.Running, AppliedLayer: ptr(uint32(39)), Peers: ptr(6), ATXEpoch: ptr(uint32(4))})
	}
	for _, name := range poets {
		s.Poets = append(s.Poets, testnet.PoetStatus{Name: name, State: testnet.Running, Undelivered: ptr(0), Gateways: []testnet.Gateway{{State: "live"}, {State: "candidate"}}})
	}
	return s
}

// find returns a check of the first step that has it.
func find(t *testing.T, steps []Step, name string) Check {
	t.Helper()
	for _, s := range steps {
		for _, c := range s.Checks {
			if strings.Contains(c.Name, name) {
				return c
			}
		}
	}
	t.Fatalf("no check %q", name)
	return Check{}
}

// faulty is what makes a check fail: another status, or something that happened.
type faulty struct {
	status func(*testnet.Status)
	events func(*Stage)
}

// seesItsFault holds that each of the named checks holds on a network that is well, and
// does not on one with its fault.
func seesItsFault(t *testing.T, status func() *testnet.Status, well func(*Stage), all []Step, faults map[string]faulty) {
	for name, c := range faults {
		t.Run(name, func(t *testing.T) {
			st := still(t, status())
			well(st)
			check := find(t, all, name)
			if ok, figure := check.Look(st); !ok {
				t.Errorf("on a network that is well: %s", figure)
			}
			s := status()
			if c.status != nil {
				c.status(s)
			}
			st.Status(s)
			if c.events != nil {
				c.events(st)
			}
			if ok, figure := check.Look(st); ok || figure == "" {
				t.Errorf("with its fault: %v, %q", ok, figure)
			}
		})
	}
}

func TestEachCheckSeesItsFault(t *testing.T) {
	well := func(st *Stage) {
		for _, name := range append(append([]string{}, everyone...), poets...) {
			st.Event(time.Now(), testnet.Process{Name: name, State: testnet.Running, PID: 7})
		}
		st.Event(time.Now(), testnet.Layer{Layer: 39, Block: "b", StateRoot: "r", Agree: 7, Nodes: 7, Outcomes: 1})
	}
	all := []Step{healthy(everyone, smeshers, poets), sessionFlood(), {Checks: append(tweedledee().Always(Flags{Pull: true}), quiet(time.Second), only("NodeCrashed"))}}
	seesItsFault(t, seven, well, all, map[string]faulty{
		"blocks that all nodes": {events: func(s *Stage) {
			s.Event(time.Now(), testnet.Layer{Layer: 40, Block: "b", Agree: 6, Nodes: 7, Outcomes: 2})
		}},
		"every smesher has":        {status: func(s *testnet.Status) { s.Nodes[6].ATXEpoch = ptr(uint32(2)) }},
		"all others as peers":      {status: func(s *testnet.Status) { s.Nodes[0].Peers = ptr(5) }},
		"every PoET has live":      {status: func(s *testnet.Status) { s.Poets[1].Gateways[0].State = "dead" }},
		"every node keeps its six": {status: func(s *testnet.Status) { s.Nodes[3].Peers = nil }},
		"every node lives":         {events: func(s *Stage) { s.Event(time.Now(), testnet.Process{Name: "node-3", State: testnet.Running, PID: 8}) }},
		"the PoETs go on":          {status: func(s *testnet.Status) { s.Poets[0].State = testnet.Crashed }},
		"nodes never disagree":     {events: func(s *Stage) { s.Event(time.Now(), testnet.Layer{Layer: 38, Agree: 5, Outcomes: 2}) }},
		"blocks go on":             {status: func(s *testnet.Status) { s.Layer = 39 + mostBehind + 1 }},
		"every alert resolves":     {events: func(s *Stage) { s.alerts.take(Alert{Name: "NodeCrashed", Labels: map[string]string{"a": "1"}}) }},
		"no other alert came":      {events: func(s *Stage) { s.alerts.take(Alert{Name: "StateRootFork", Labels: map[string]string{"a": "1"}}) }},
	})
}

// atRound has an alert come after a fault at the end of a round, and everything that a PoET
// and an epoch bring after it.
func atRound(round uint32, alert, of string) func(*Stage) {
	return func(st *Stage) {
		st.remember(func(m *memory) {
			m.round, m.layer, m.faultAt, m.joined = round, 38, time.Now().Add(-time.Second), time.Now()
		})
		st.alerts.take(Alert{Name: alert, Of: of, Came: time.Now(), Labels: map[string]string{"name": of, "alertname": alert}})
		for _, name := range append(append([]string{}, everyone...), poets...) {
			st.Event(time.Now(), testnet.Process{Name: name, State: testnet.Running, PID: 7})
		}
		for _, p := range poets {
			st.Event(time.Now(), testnet.PoetRound{Name: p, Round: fmt.Sprint(round), State: "finished", Members: 4})
		}
		for e := round; e < round+4; e++ {
			st.Event(time.Now(), testnet.Clock{Epoch: e, ATXs: 5})
		}
		st.Event(time.Now(), testnet.Layer{Layer: 39, Block: "b", StateRoot: "r", Agree: 5, Nodes: 5, Outcomes: 1})
		st.remember(func(m *memory) { m.gaps = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} })
	}
}

// fiveOf is a network of five in which all is well.
func fiveOf() *testnet.Status {
	s := seven()
	s.Nodes = s.Nodes[:5]
	for i := range s.Nodes {
		s.Nodes[i].Peers = ptr(4)
	}
	return s
}

// So does each check of the other drills.
func TestEachCheckOfTheOtherDrillsSeesItsFault(t *testing.T) {
	hung, looped, slowed, apart := poetHangs().Steps(Flags{}), crashLoop().Steps(Flags{}), slowCPU().Steps(Flags{}), partition().Steps(Flags{})
	layer := func(n uint32, agree, outcomes int) func(*Stage) {
		return func(s *Stage) {
			s.Event(time.Now(), testnet.Layer{Layer: n, Block: "b", StateRoot: "r", Agree: agree, Nodes: 5, Outcomes: outcomes})
		}
	}
	seesItsFault(t, fiveOf, atRound(2, "TargetDown", "poet-2"), hung, map[string]faulty{
		"TargetDown of poet-2":      {events: func(s *Stage) { s.remember(func(m *memory) { m.faultAt = time.Now().Add(time.Hour) }) }},
		"ATXs go on in the first":   {events: func(s *Stage) { s.Event(time.Now(), testnet.Clock{Epoch: 4, ATXs: 3}) }},
		"ATXs go on in the second":  {events: func(s *Stage) { s.Event(time.Now(), testnet.Clock{Epoch: 5, ATXs: 0}) }},
		"it finishes the round in":  {events: func(s *Stage) { s.remember(func(m *memory) { m.round = 3 }) }},
		"every node lives":          {status: func(s *testnet.Status) { s.Nodes[2].State = testnet.Crashed }},
		"every node has all others": {status: func(s *testnet.Status) { s.Nodes[0].Peers = ptr(2) }},
	})
	seesItsFault(t, fiveOf, atRound(2, "NodeCrashLooping", "node-4"), looped, map[string]faulty{
		"NodeCrashLooping of node-4": {events: func(s *Stage) { s.remember(func(m *memory) { m.faultAt = time.Now().Add(time.Hour) }) }},
		"the supervisor waits longer": {events: func(s *Stage) {
			s.remember(func(m *memory) { m.gaps = []time.Duration{time.Second, time.Second, time.Second} })
		}},
	})
	seesItsFault(t, fiveOf, atRound(2, "", ""), slowed, map[string]faulty{
		"the others stay at the clock": {status: func(s *testnet.Status) { s.Nodes[1].AppliedLayer = ptr(uint32(40 - mostBehind - 1)) }},
	})
	seesItsFault(t, fiveOf, atRound(2, "", ""), apart, map[string]faulty{
		"nobody decides anything":   {events: layer(41, 3, 1)},
		"new blocks, and one state": {events: func(s *Stage) { s.remember(func(m *memory) { m.layer = 40 }) }},
	})
	behind := func() *testnet.Status {
		s := fiveOf()
		s.Nodes[4].AppliedLayer = ptr(uint32(31))
		return s
	}
	seesItsFault(t, behind, atRound(2, "", ""), apart, map[string]faulty{
		"node-5 applies nothing by itself": {status: func(s *testnet.Status) { s.Nodes[4].AppliedLayer = ptr(uint32(38)) }},
	})
	seesItsFault(t, fiveOf, atRound(2, "", ""), []Step{{Checks: []Check{{Name: "again", Look: agreement(five, func(*Stage) uint32 { return 39 })}}}}, map[string]faulty{
		"again": {events: layer(40, 5, 2)},
	})
}

// What the nodes count decides whether only the right ones are convicted.
func TestConvictionsAreCounted(t *testing.T) {
	n := [2]int{1, 1}
	var nodes []testnet.NodeStatus
	for i := range n {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%s %d\n", convicted, n[i]) }))
		defer server.Close()
		nodes = append(nodes, testnet.NodeStatus{Name: honest[i], State: testnet.Running, Metrics: strings.TrimPrefix(server.URL, "http://")})
	}
	st := still(t, &testnet.Status{Nodes: nodes})
	defer st.web.CloseIdleConnections()
	look := func(c Check) bool { ok, _ := c.Look(st); return ok }
	if !look(convictsOnly(honest, 1)) || look(convictsOnly(honest, 0)) {
		t.Error("one is convicted")
	}
	n[1] = 2
	if least, most := st.convictedBy(honest); look(convictsOnly(honest, 1)) || least != 1 || most != 2 {
		t.Errorf("one node convicts two: %g to %g", least, most)
	}
}

func TestAMetricIsReadFromItsProcess(t *testing.T) {
	n := 3
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "# HELP x\nx{a=\"b\"} %d\nxy 9\n", n)
	}))
	defer server.Close()
	st := still(t, &testnet.Status{})
	defer st.web.CloseIdleConnections()
	address := strings.TrimPrefix(server.URL, "http://")
	if v, err := st.metric(address, `x{a="b"}`); v != 3 || err != nil {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := st.metric(address, "x"); err == nil {
		t.Error("a series that is not there has a value")
	}
}

// On a machine that stands still for a moment nobody answers; that is no network that stands.
func TestALookThatNobodyAnswersIsNoStandstill(t *testing.T) {
	silent := seven()
	for i := range silent.Nodes {
		silent.Nodes[i].AppliedLayer = nil
	}
	silent.Layer = 40
	st := still(t, silent)
	st.Event(time.Now(), testnet.Layer{Layer: 39, Block: "b", StateRoot: "r", Agree: 7, Nodes: 7, Outcomes: 1})
	if n := st.behind(); n != 1 {
		t.Errorf("%d layers behind, not 1", n)
	}
}
