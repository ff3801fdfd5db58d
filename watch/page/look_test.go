package page

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tweedle/base/telemetry"
)

// talker is a node's metrics listener.
type talker struct {
	mu      sync.Mutex
	status  telemetry.NodeStatus
	layers  map[uint32]string // blocks
	asked   []string
	garbage bool
}

func (n *talker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.URL.Path == "/status" {
		if n.garbage {
			fmt.Fprint(w, `{"version":"`, strings.Repeat("x", 4*maxStatus))
			return
		}
		_ = json.NewEncoder(w).Encode(n.status)
		return
	}
	n.asked = append(n.asked, r.FormValue("from"))
	from, _ := strconv.Atoi(r.FormValue("from"))
	out := []telemetry.LayerStatus{}
	for l := uint32(from); l <= n.status.AppliedLayer; l++ {
		out = append(out, telemetry.LayerStatus{Layer: l, Block: n.layers[l]})
	}
	_ = json.NewEncoder(w).Encode(out)
}

func TestALookAsksForWhatIsNew(t *testing.T) {
	n := &talker{layers: map[uint32]string{}}
	s := httptest.NewServer(n)
	defer s.Close()
	for l := range uint32(500) {
		n.layers[l] = fmt.Sprint("block ", l)
	}
	l := newLooker()
	defer l.close()
	targets := []Target{{Job: "node", Name: "node-1", Address: strings.TrimPrefix(s.URL, "http://")}}
	from := func(n NodeSeen) uint32 { return max(40, n.Status.Layer-min(n.Status.Layer, Window-1)) }
	look := func(layer, applied uint32) NodeSeen {
		n.mu.Lock()
		n.status = telemetry.NodeStatus{Layer: layer, AppliedLayer: applied}
		n.mu.Unlock()
		nodes, _ := l.look(context.Background(), targets, from)
		return nodes["node-1"]
	}
	first := look(200, 199)
	if len(first.Layers) != 99 || first.Layers[150].Block != "block 150" || first.Trouble != "" || first.At.IsZero() {
		t.Fatalf("%d layers, %q", len(first.Layers), first.Trouble)
	}
	second := look(203, 202)
	if len(second.Layers) != 99 || second.Layers[202].Block != "block 202" {
		t.Errorf("%d layers", len(second.Layers))
	}
	if len(first.Layers) != 99 || first.Layers[101].Block == "" {
		t.Error("what was seen before has changed")
	}
	// The last layers are undone, and others come.
	n.mu.Lock()
	for l := uint32(120); l < 300; l++ {
		n.layers[l] = "other"
	}
	n.mu.Unlock()
	if undone := look(204, 130); undone.Layers[125].Block != "other" || undone.Layers[202].Block != "" {
		t.Errorf("after layers were undone: %v", undone.Layers[125])
	}
	if got := strings.Join(n.asked, " "); got != "101 191 105" {
		t.Errorf("it was asked for layers from %s", got)
	}
	n.mu.Lock()
	n.garbage = true
	n.mu.Unlock()
	if last := look(205, 204); last.Trouble == "" || last.Status.AppliedLayer != 130 && last.Status.Version != "" || len(last.Status.Version) > maxStatus {
		t.Errorf("of an answer without end: %q", last.Trouble)
	}
	if nodes, _ := l.look(context.Background(), nil, from); len(nodes) != 0 || len(l.nodes) != 0 {
		t.Error("a node that is not watched any more is remembered")
	}
}

// Programs that hang delay nobody for longer than a look lasts.
func TestThoseThatHangDelayNobody(t *testing.T) {
	hang := make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer stuck.Close()
	defer close(hang)
	well := httptest.NewServer(&talker{})
	defer well.Close()
	l := newLooker()
	defer l.close()
	l.patient, l.whole = 400*time.Millisecond, 800*time.Millisecond
	var targets []Target
	for i := range 40 * lookers { // one after another they would take sixteen seconds
		targets = append(targets, Target{Job: "node", Name: fmt.Sprint("stuck-", i), Address: strings.TrimPrefix(stuck.URL, "http://")})
	}
	begun := time.Now()
	l.look(context.Background(), targets, func(NodeSeen) uint32 { return 0 })
	if d := time.Since(begun); d > 8*time.Second {
		t.Errorf("a look at %d that hang lasted %s", len(targets), d)
	}
	targets = nil
	for i := range 3 * lookers {
		targets = append(targets, Target{Job: "node", Name: fmt.Sprint("stuck-", i), Address: strings.TrimPrefix(stuck.URL, "http://")})
	}
	targets = append(targets, Target{Job: "node", Name: "well", Address: strings.TrimPrefix(well.URL, "http://")})
	for range 10 {
		nodes, _ := l.look(context.Background(), targets, func(NodeSeen) uint32 { return 0 })
		if !nodes["well"].At.IsZero() {
			return
		}
	}
	t.Error("who is well was never asked")
}
