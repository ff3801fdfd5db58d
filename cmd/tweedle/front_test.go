package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tweedle/edges/api"
	"tweedle/edges/front"
	"tweedle/services/poet/door"
)

const genesisFlag = "--genesis-time=2026-01-01T00:00:00Z"

// The limits of the public doors can be set, by flag, variable and file, and
// what cannot be meant is refused.
func TestTheLimitsOfTheDoorCanBeSet(t *testing.T) {
	f, err := settled(t, genesisFlag, "--rate-limit=7.5", "--max-connections=300", "--address-connections=9",
		"--trusted-proxy=10.0.0.7", "--trusted-proxy=10.1.2.3/16", "--trusted-proxy=::1", "--trusted-proxy=unix", "--cors-origin=https://explorer.example",
		"--max-streams=3", "--handshake-time=7s", "--operations-rate-limit=0", "--operations-max-calls=5", "--operations-address-calls=4", "--operations-handshake-time=8s")
	if err != nil {
		t.Fatal(err)
	}
	l := f.cfg.Limits
	if l.Rate != 7.5 || l.Connections != 300 || l.AddressConnections != 9 || l.AddressCalls != door.DefaultLimits().AddressCalls || l.Streams != 3 || l.Handshake != 7*time.Second {
		t.Errorf("limits %+v", l)
	}
	if o := f.cfg.Operations; o.Rate != 0 || o.Calls != 5 || o.AddressCalls != 4 || o.AddressConnections != 0 || o.Handshake != 8*time.Second || o.Connections != front.OperationsLimits().Connections {
		t.Errorf("limits of metrics %+v", o)
	}
	if got := fmt.Sprint(f.cfg.Proxies, f.cfg.Origins); got != "[10.0.0.7/32 10.1.0.0/16 ::1/128 invalid Prefix] [https://explorer.example]" || f.cfg.Proxies[3] != (netip.Prefix{}) {
		t.Error(got)
	}
	path := filepath.Join(t.TempDir(), "poet.conf")
	if err := os.WriteFile(path, []byte("rate-limit=0\ntrusted-proxy=10.0.0.7\ntrusted-proxy=10.0.0.8\ncors-origin=*\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TWEEDLE_POET_MAX_CONNECTIONS", "77")
	if f, err = settled(t, genesisFlag, "-c", path); err != nil {
		t.Fatal(err)
	}
	if l := f.cfg.Limits; l.Rate != 0 || l.Connections != 77 || len(f.cfg.Proxies) != 2 || len(f.cfg.Origins) != 1 {
		t.Errorf("limits %+v, %v, %v", l, f.cfg.Proxies, f.cfg.Origins)
	}
	for _, bad := range []string{
		"--rate-limit=-1", "--max-connections=0", "--max-calls=0", "--max-replies=0", "--address-calls=-1", "--address-replies=-1", "--send-time=0s", "--request-time=0s", "--max-message=0", "--max-body=0", "--max-header=0", "--max-header=2000000000", "--max-streams=0", "--handshake-time=0s", "--address-connections=-1",
		"--operations-rate-limit=-1", "--operations-max-calls=0", "--operations-handshake-time=-1s", "--tls-cert=/x", "--tls-key=/x", "--trusted-proxy=proxy.example", "--trusted-proxy=10.0.0.7/33",
		"--cors-origin=explorer.example", "--cors-origin=https://explorer.example/", "--cors-origin=null",
	} {
		if _, err := settled(t, genesisFlag, bad); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// Behind a load balancer all clients have one address: without a rate nothing
// else is limited by address either, unless somebody says so.
func TestWithoutARateNoLimitOfAnAddressHolds(t *testing.T) {
	f, err := settled(t, genesisFlag, "--rate-limit=0")
	if err != nil {
		t.Fatal(err)
	}
	if l := f.cfg.Limits; l.AddressConnections != 0 || l.AddressCalls != 0 || l.AddressReplies != 0 || l.Connections == 0 || l.Calls == 0 || l.Replies == 0 {
		t.Errorf("limits %+v", l)
	}
	if f, err = settled(t, genesisFlag, "--rate-limit=0", "--address-connections=500", "--address-calls=7"); err != nil || f.cfg.Limits.AddressConnections != 500 || f.cfg.Limits.AddressCalls != 7 {
		t.Errorf("%+v, %v", f.cfg.Limits, err)
	}
}

// A node has the same settings under the same names.
func TestANodeHasTheSettingsOfAPoETsDoor(t *testing.T) {
	node, poet := nodeCommand().Flags(), poetCommand().Flags()
	names := append(front.LimitNames(), "trusted-proxy", "cors-origin", "tls-cert", "tls-key") // a limit that the log names can be set by that name
	for _, name := range front.LimitNames() {
		if name != "max-message" && name != "max-streams" { // of gRPC, which the listener of metrics has not
			names = append(names, operationsPrefix+name)
		}
	}
	for _, name := range names {
		n, p := node.Lookup(name), poet.Lookup(name)
		if n == nil || p == nil || n.Usage != p.Usage {
			t.Errorf("--%s is not the same", name)
		}
	}
	if got := node.Lookup("rate-limit").DefValue; got != fmt.Sprint(api.DefaultLimits().Rate) {
		t.Errorf("a node's rate is %s", got)
	}
}
