package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tweedle/base/telemetry"
	"tweedle/edges/p2p"
)

func TestPeersAreToldInWords(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	p := telemetry.Peers{ID: "12D3us", Addrs: []string{"/ip4/5.0.0.2/udp/7513/quic-v1/p2p/12D3us"}, Limit: 64,
		Sessions: []telemetry.PeerSession{{Peer: "12D3a", Addr: "/ip4/5.0.0.1/udp/7513/quic-v1", Direction: "in", Since: "2026-11-27T11:00:00Z",
			State: p2p.StateUseful, Used: "2026-11-27T11:59:57Z", BytesIn: 1000, BytesOut: 20, Score: 1.25}},
		Left: []telemetry.PeerLeft{{Peer: "12D3b", Direction: "out", Since: "2026-11-27T11:00:00Z", At: "2026-11-27T11:59:00Z", Reason: p2p.LeftSilent}},
	}
	var out strings.Builder
	if err := peersText(&out, p, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"node 12D3us\n  at /ip4/5.0.0.2/udp/7513/quic-v1/p2p/12D3us\nnot reached from outside yet\n", "1 session of at most 64\n", "1h0m0s", "useful", "3s", "1000", "1.2", "12D3b", "1m0s", "the peer fell silent"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	for _, reason := range []string{p2p.LeftRoom, p2p.LeftShare, p2p.LeftPeer, p2p.LeftSilent, p2p.LeftUs} {
		if whyLeft[reason] == "" {
			t.Errorf("no words for %q", reason)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /peers", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(p) })
	server := httptest.NewServer(mux)
	defer server.Close()
	out.Reset()
	var back telemetry.Peers
	if err := (&nodeStatusFlags{metrics: strings.TrimPrefix(server.URL, "http://"), json: true}).peers(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || len(back.Sessions) != 1 || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%v: %s", err, out.String())
	}
}
