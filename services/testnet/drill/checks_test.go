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

// Each check that looks at the status holds on a network that is well, and does not on
// one with its fault.
func TestEachCheckSeesItsFault(t *testing.T) {
	well := func(st *Stage) {
		for _, name := range append(append([]string{}, everyone...), poets...) {
			st.Event(time.Now(), testnet.Process{Name: name, State: testnet.Running, PID: 7})
		}
		st.Event(time.Now(), testnet.Layer{Layer: 39, Block: "b", StateRoot: "r", Agree: 7, Nodes: 7, Outcomes: 1})
	}
	all := []Step{healthy(everyone, smeshers, poets), sessionFlood(), {Checks: append(tweedledee().Always(Flags{Pull: true}), quiet(time.Second), only("NodeCrashed"))}}
	for name, c := range map[string]struct {
		status func(*testnet.Status)
		events func(*Stage)
	}{
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
	} {
		t.Run(name, func(t *testing.T) {
			st := still(t, seven())
			well(st)
			check := find(t, all, name)
			if ok, figure := check.Look(st); !ok {
				t.Errorf("on a network that is well: %s", figure)
			}
			s := seven()
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
