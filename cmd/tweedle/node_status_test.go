package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tweedle/base/telemetry"
)

func aNode() telemetry.NodeStatus {
	return telemetry.NodeStatus{Network: "local-1", Layer: 57, Epoch: 5, AppliedLayer: 56, Synced: true, SyncReason: "peers confirm it", Peers: 1}
}

func aSmesher() *telemetry.Smesher {
	last, making := uint32(4), uint32(5)
	return &telemetry.Smesher{
		NodeID: "95a0dd57", Coinbase: "stest1qq", Epoch: 5, Layer: 57, LastATX: &last, Making: &making,
		Step:               telemetry.SmesherStep{Step: "proving", Detail: "32 nonces", Until: "2026-11-27T12:00:45Z", For: "the ATX must be heard"},
		Poets:              []telemetry.PoetStep{{URL: "http://a:1", Round: "4", Member: true}, {URL: "http://b:1", Trouble: "it hangs"}},
		RegistrationCloses: "2026-11-27T12:00:36Z", ProofDue: "2026-11-27T11:59:58Z", PublishBy: "2026-11-27T12:00:45Z",
		Slots: []uint32{51, 58, 58, 59}, Earned: telemetry.Earned{Layers: 3, Smidges: 1_500_000_000, Last: 56},
	}
}

// What a smesher asks is on one screen, in words.
func TestANodesStatusIsToldInWords(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	want := `network   local-1, layer 57 of epoch 5, applied up to layer 56, 1 peer
node      in sync: peers confirm it
smesher   95a0dd57
rewards   1.5SMH in 3 layers, the last in layer 56
          to stest1qq
ATX       of epoch 5 in the making
now       proving (ATX of epoch 5): 32 nonces; the ATX must be heard at 12:00:45Z, in 45s
PoETs     http://a:1: member of round 4
          http://b:1: not registered; it cannot be used now: it hangs
deadlines registration closes at 12:00:36Z, in 36s
          the PoET round ends at 11:59:58Z, 2s ago
          an ATX of epoch 5 must be heard at 12:00:45Z, in 45s
slots     4 in epoch 5, next in layers 58, 59
`
	if got := (nodeView{aNode(), aSmesher()}).text(now); got != want {
		t.Errorf("it says\n%s\nand not\n%s", got, want)
	}
	for name, c := range map[string]struct {
		change func(*nodeView)
		says   string
	}{
		"published":       {func(v *nodeView) { five := uint32(5); v.Smesher.LastATX = &five }, "ATX       published for epoch 5: it counts in epoch 6"},
		"late":            {func(v *nodeView) { v.Smesher.PublishBy = "2026-11-27T11:59:00Z" }, "none for epoch 5, so nothing is earned in epoch 6"},
		"nothing is made": {func(v *nodeView) { v.Smesher.Making = nil }, "none for epoch 5, so nothing is earned in epoch 6"},
		"no reward":       {func(v *nodeView) { v.Smesher.Earned = telemetry.Earned{} }, "rewards   none yet; they go\n          to stest1qq"},
		"no slots":        {func(v *nodeView) { v.Smesher.Slots = nil }, "slots     none known in epoch 5"},
		"slots are over":  {func(v *nodeView) { v.Smesher.Slots = []uint32{51} }, "slots     1 in epoch 5, all of them past"},
		"behind":          {func(v *nodeView) { v.Node.Synced, v.Node.SyncReason = false, "no peers" }, "node      NOT in sync: no peers"},
		"a step fails":    {func(v *nodeView) { v.Smesher.Step.Error = "the disk is full" }, "TROUBLE   the disk is full"},
		"no PoET": {func(v *nodeView) {
			v.Smesher.Poets[1].Trouble = `http://b:1/v1/submit: nobody listens at 10.0.0.1:1`
		}, "http://b:1: not registered; it cannot be used now: http://b:1/v1/submit: nobody listens at 10.0.0.1:1\n"},
		"a wrong clock":   {func(v *nodeView) { v.Node.ClockAhead = -9.5 }, "TROUBLE   the clocks of most peers are -9.5 s ahead"},
		"runs twice":      {func(v *nodeView) { v.Smesher.Elsewhere = true }, "TROUBLE   the key of this smesher signs on another machine too"},
		"another history": {func(v *nodeView) { v.Node.Dispute = "layer 9" }, "TROUBLE   others certified what does not fit our history, layer 9"},
		"another identity": {func(v *nodeView) {
			other := *aSmesher()
			other.NodeID, other.Dir = "cafe", "/disk2"
			v.Smesher.Others = []telemetry.Smesher{other}
		}, "slots     4 in epoch 5, next in layers 58, 59\n\nsmesher   cafe, in /disk2\nrewards "},
		"another cannot smesh": {func(v *nodeView) {
			v.Smesher.Others = []telemetry.Smesher{{NodeID: "cafe", Dir: "/disk2", Step: telemetry.SmesherStep{Step: "off", Error: "its space is gone"}}}
		}, "\nsmesher   cafe, in /disk2\nTROUBLE   its space is gone\n"},
		"its key is gone": {func(v *nodeView) {
			v.Smesher.Others = []telemetry.Smesher{{Dir: "/disk2", Step: telemetry.SmesherStep{Step: "off", Error: "it is missing"}}}
		}, "\nsmesher   its key cannot be read, in /disk2\nTROUBLE   it is missing\n"},
		"it does not smesh": {func(v *nodeView) { v.Smesher = nil }, "smesher   none: this node does not smesh"},
	} {
		v := nodeView{aNode(), aSmesher()}
		c.change(&v)
		if got := v.text(now); !strings.Contains(got, c.says) {
			t.Errorf("%s: it does not say %q:\n%s", name, c.says, got)
		}
	}
}

func TestTheNodeOfAFolderIsAsked(t *testing.T) {
	smeshes := true
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(aNode()) })
	mux.HandleFunc("GET /smesher", func(w http.ResponseWriter, r *http.Request) {
		if !smeshes {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(aSmesher())
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	dir := t.TempDir()
	b, _ := json.Marshal(telemetry.Endpoints{Metrics: strings.TrimPrefix(server.URL, "http://")})
	if err := os.WriteFile(filepath.Join(dir, telemetry.EndpointsFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, smeshes = range []bool{true, false} {
		var out strings.Builder
		if err := (&nodeStatusFlags{dir: dir, json: true}).run(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
		var v nodeView
		if err := json.Unmarshal([]byte(out.String()), &v); err != nil || v.Node.Layer != 57 || (v.Smesher != nil) != smeshes || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("smeshes %v: %v: %s", smeshes, err, out.String())
		}
	}
	other := httptest.NewServer(http.NotFoundHandler())
	other.Close()
	for _, c := range []struct {
		f    nodeStatusFlags
		says string
	}{
		{nodeStatusFlags{}, "say which node"},
		{nodeStatusFlags{dir: dir, metrics: "127.0.0.1:1"}, "say which node"},
		{nodeStatusFlags{dir: t.TempDir()}, "no node runs in"},
		{nodeStatusFlags{metrics: strings.TrimPrefix(other.URL, "http://")}, "is it running?"},
		{nodeStatusFlags{metrics: "not an address"}, "give it as host:port"},
	} {
		if err := c.f.run(t.Context(), &strings.Builder{}); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", c.f, err)
		}
	}
}
