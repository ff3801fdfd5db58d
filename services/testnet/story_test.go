package testnet

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tweedle/base/telemetry"
)

// tell returns the kinds and texts of what is new in a status.
func tell(st *story, s Status) []string {
	var out []string
	for _, e := range st.next(&s, 0) {
		out = append(out, e.kind()+": "+strings.TrimSpace(e.text()))
	}
	return out
}

func ptr[T any](v T) *T { return &v }

func TestOnlyWhatIsNewIsTold(t *testing.T) {
	st := newStory()
	node := func(step string, progress float64) Status {
		return Status{Nodes: []NodeStatus{{Name: "node-1", State: Running, Smesher: &telemetry.SmesherStep{Step: step, Progress: progress}}}}
	}
	poet := func(state string, gateways ...Gateway) Status {
		return Status{Poets: []PoetStatus{{Name: "poet-1", State: Running, Gateways: gateways, rounds: []PoetRound{{Name: "poet-1", Round: "3", State: state, Members: 2}}}}}
	}
	clock := func(epoch, layer uint32, applied ...uint32) Status {
		s := Status{Started: true, Epoch: epoch, Layer: layer}
		for _, a := range applied {
			s.Nodes = append(s.Nodes, NodeStatus{State: Running, AppliedLayer: ptr(a), ATXEpoch: ptr(epoch - 1)})
		}
		return s
	}
	for _, c := range []struct {
		status Status
		want   []string
	}{
		{node("initializing", 0.1), []string{"smesher: node-1   initializing PoST  10 %"}},
		{node("initializing", 0.2), nil},
		{node("initializing", 0.4), []string{"smesher: node-1   initializing PoST  40 %"}},
		{node("waiting", 0), []string{"smesher: node-1   waiting"}},
		{node("waiting", 0), nil},
		{poet("executing"), []string{"poet_round: poet-1   round 3 executing, 2 members"}},
		{poet("executing", Gateway{"a", "live"}), []string{"poet_gateways: poet-1   gateways: 1 live"}},
		{poet("finished", Gateway{"a", "dead"}), []string{
			"poet_round: poet-1   round 3 finished, 2 members", "poet_gateways: poet-1   gateways: 1 dead",
		}},
		{clock(0, 0), []string{"epoch: genesis: epoch 0 begins"}},
		{clock(2, 20, 19, 19), []string{"epoch: epoch 2 begins at layer 20: 2 of 2 smeshers have an ATX for it; 0 transactions sent so far"}},
		{clock(2, 24, 19, 19), nil},
		{clock(2, 25, 19, 19), []string{"note: the network stands still: the newest applied layer is 19, the clock is at 25"}},
		{clock(2, 26, 19, 19), nil},
		{clock(2, 27, 26, 19), []string{"note: the network goes on: layer 26 is applied"}},
	} {
		if got := tell(&st, c.status); !slices.Equal(got, c.want) {
			t.Errorf("told %q, want %q", got, c.want)
		}
	}
}

func TestAProcessThatDoesNotAnswerIsToldOnce(t *testing.T) {
	st := newStory()
	silent := Status{Nodes: []NodeStatus{{Name: "node-1", State: Running, Error: "timeout"}}}
	var all []string
	for range 3 * maxSilence {
		all = append(all, tell(&st, silent)...)
	}
	all = append(all, tell(&st, Status{Nodes: []NodeStatus{{Name: "node-1", State: Running}}})...)
	want := []string{"note: node-1   runs but does not answer: timeout", "note: node-1   answers again"}
	if !slices.Equal(all, want) {
		t.Errorf("told %q, want %q", all, want)
	}
	// Who was killed is not expected to answer.
	for range 2 * maxSilence {
		if got := tell(&st, Status{Nodes: []NodeStatus{{Name: "node-1", State: Stopped}}}); got != nil {
			t.Errorf("told %q", got)
		}
	}
}

func TestErrorsOfSeveralLinesStayInTheirLine(t *testing.T) {
	s := Status{}
	s.fill([]Record{{Name: "node-1", Kind: Node, State: Running}}, map[string]answer{"node-1": {err: errors.Join(errors.New("a"), errors.New("b"))}})
	s.Nodes = append(s.Nodes, NodeStatus{Name: "node-2", Smesher: &telemetry.SmesherStep{Step: "idle", Error: "c\nd"}})
	for _, line := range s.Text(time.Now()) {
		if strings.Contains(line, "\n") {
			t.Errorf("%q", line)
		}
	}
}
