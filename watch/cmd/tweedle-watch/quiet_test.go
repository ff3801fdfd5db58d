//go:build linux

package main

import (
	"os"
	"testing"
	"time"
)

// A testnet to which nothing happens raises nothing in half an hour; what the machine
// itself has is not counted. The rules alone are quiet for 24 virtual hours in package
// engine.
func TestAQuietTestnetRaisesNothing(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: it takes half an hour; set TWEEDLE_NIGHTLY=1")
	}
	n := newTestnet(t)
	n.healthy()
	from, first := len(n.hook.since(0)), 0
	if s, err := n.status(); err == nil {
		first = s.Layer
	}
	time.Sleep(30 * time.Minute)
	for _, a := range n.hook.since(from) {
		if name := a.Labels["alertname"]; !others(name) {
			t.Errorf("%s came: %v", name, a)
		}
	}
	s, err := n.status()
	if err != nil || s.Alerts == nil {
		t.Fatalf("status: %+v, %v", s, err)
	}
	t.Logf("%d layers, %d alerts fire at the end", s.Layer-first, *s.Alerts)
	if s.Layer-first < 600 {
		t.Errorf("%d layers in half an hour", s.Layer-first)
	}
}
