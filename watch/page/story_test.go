package page

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func told(s *story) string {
	var out []string
	for _, e := range s.log {
		out = append(out, strings.TrimSpace(fmt.Sprint(e.Who, " ", e.Text)))
	}
	return strings.Join(out, "\n")
}

func TestTheLogTellsWhatChanged(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	atxs := 4
	m := func(change func(*Model)) *Model {
		m := &Model{
			Status: Status{At: at, Phase: "running", State: OK, Verdict: "All is well", Epoch: 6},
			Nodes:  []Node{{Name: "node-1", State: OK, Synced: true, Started: 5}, {Name: "node-2", State: OK, Synced: true}},
			Poets:  []Poet{{Name: "poet-1", Rounds: []Round{{ID: "6", State: "executing", Members: 2}}, Gateways: []Gateway{{Addr: "a:1", State: "live"}, {Addr: "b:1", State: "live"}}}},
			Epochs: []Epoch{{Epoch: 5, ATXs: &atxs}, {Epoch: 6, Current: true}},
		}
		change(m)
		return m
	}
	var s story
	for _, change := range []func(*Model){
		func(*Model) {},
		func(m *Model) { // a node is gone
			m.Nodes[1].Seen, m.Nodes[1].Text = at, "does not answer: nobody listens there"
			m.Status.State, m.Status.Verdict, m.Status.Why = Bad, "Something is broken", "Nodes: node-2 does not answer"
			m.Alerts = []Firing{{ID: "1", Name: "NodeCrashed", Severity: "page", Program: "node-2", Summary: "node-2 died"}}
		},
		func(m *Model) { // it is silenced, and a gateway dies; the other node was started again
			m.Nodes[0].Started, m.Nodes[1].Seen = 9, at
			m.Status.State = Bad
			m.Alerts = []Firing{{ID: "1", Name: "NodeCrashed", Severity: "page", Program: "node-2", Silence: &Silence{By: "ada", Comment: "known", Until: at}}}
			m.Poets[0].Gateways[1].State = "dead"
		},
		func(m *Model) { // the round ends in a new epoch, all is well
			m.Nodes[0].Started = 9
			m.Status.Epoch, m.Epochs = 7, []Epoch{{Epoch: 6, ATXs: &atxs}, {Epoch: 7, Current: true}}
			m.Poets[0].Rounds = []Round{{ID: "7", State: "executing"}, {ID: "6", State: "finished", Members: 2, Proof: &Proof{State: "delivered"}}}
			m.Poets[0].Gateways = []Gateway{{Addr: "a:1", State: "live"}, {Addr: "c:1", State: "live"}}
		},
	} {
		s.next(m(change))
	}
	want := `the watch looks at 0 nodes and 1 PoET
All is well
Something is broken. Nodes: node-2 does not answer
node-2 NodeCrashed: node-2 died
node-2 does not answer: nobody listens there
node-2 NodeCrashed is silenced by ada until 2026-03-01 12:00:00Z: known
node-1 was started again
poet-1 gateway b:1: dead
All is well
epoch 7 begins; 4 ATXs were published in epoch 6
node-2 NodeCrashed is over
node-2 answers again
poet-1 round 6: finished, 2 members
poet-1 the proof of round 6 is delivered
poet-1 round 7: executing
poet-1 gateway c:1: new, live
poet-1 gateway b:1: gone`
	if got := told(&s); got != want {
		t.Errorf("the log is\n%s\nwant\n%s", got, want)
	}
}

func TestALogHasItsLimitAndACrowdIsOneLine(t *testing.T) {
	var s story
	many := func(n int, seen time.Time) *Model {
		m := &Model{}
		for i := range n {
			m.Nodes = append(m.Nodes, Node{Name: fmt.Sprint("node-", i+1), Seen: seen, Text: "does not answer"})
		}
		return m
	}
	s.next(many(500, time.Time{}))
	s.next(many(500, time.Unix(1, 0)))
	if got := told(&s); !strings.HasSuffix(got, "node-1, node-2, node-3 and 497 more are silent") || strings.Count(got, "\n") != 1 {
		t.Errorf("the log is %s", got)
	}
	for range 2 * maxEvents {
		s.tell(Event{Text: strings.Repeat("x", 10_000)})
	}
	if len(s.log) != maxEvents || s.log[0].ID != s.nextID-maxEvents+1 || len(s.log[0].Text) > maxText+10 {
		t.Errorf("%d events, the first is %d of %d", len(s.log), s.log[0].ID, s.nextID)
	}
}

// Who takes the whole and then every change has what there is.
func TestChangesAddUpToTheWhole(t *testing.T) {
	a := Parts{"a": json.RawMessage("1"), "b": json.RawMessage("2"), "c": json.RawMessage("3")}
	b := Parts{"a": json.RawMessage("1"), "b": json.RawMessage("4"), "d": json.RawMessage("5")}
	c := b.since(a)
	if want := (Change{Set: Parts{"b": json.RawMessage("4"), "d": json.RawMessage("5")}, Gone: []string{"c"}}); !reflect.DeepEqual(c, want) {
		t.Errorf("the change is %v", c)
	}
	if again := b.since(b); len(again.Set)+len(again.Gone) != 0 {
		t.Errorf("nothing changed: %v", again)
	}
}
