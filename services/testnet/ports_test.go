package testnet

import (
	"net"
	"strings"
	"testing"
)

// freeBase returns a base port from which on nobody listens.
func freeBase(t *testing.T, after int, o Options) int {
	t.Helper()
	for base := after; base < MaxBasePort; base += 2000 {
		o.BasePort = base
		l := newLauncher(nil, &plan{}, Options{}, nil)
		l.plan = newPlan(o)
		for _, m := range l.plan.Members {
			p := &process{member: m}
			p.fix(base)
			l.processes[m.Name] = p
		}
		if l.opts.noWatch = true; l.checkPorts() == nil {
			return base
		}
	}
	t.Fatal("no 2,000 ports are free")
	return 0
}

// With a base port each process has its own, known before, after a restart of the whole
// testnet too; those that others have are all named before anything starts; another base
// port moves a testnet that is down.
func TestPortsAreFixedFromABasePort(t *testing.T) {
	dir := t.TempDir()
	o := fakeOptions(dir)
	o.BasePort = freeBase(t, 11000, o)
	other := freeBase(t, o.BasePort+2000, o)
	at := func(port int) string { return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String() }
	check := func(base int) {
		t.Helper()
		s, err := ReadStatus(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range s.Nodes {
			first := base + 10*(i+1)
			if n.GRPC != at(first+1) || n.REST != at(first+2) || n.Metrics != at(first+3) || udpAddress(n.P2P) != at(first) || !strings.HasSuffix(n.P2P, "/p2p/"+n.Name) {
				t.Errorf("base %d: %+v", base, n)
			}
		}
		for i, p := range s.Poets {
			first := base + 1000 + 10*(i+1)
			if p.REST != at(first) || p.GRPC != at(first+1) || p.Admin != at(first+2) || p.Metrics != at(first+3) {
				t.Errorf("base %d: %+v", base, p)
			}
		}
	}
	r := start(t, o)
	do(t, dir, Add, "node")
	check(o.BasePort)
	r.end()

	tcp, err := net.Listen("tcp", at(o.BasePort+22))
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", at(o.BasePort+10))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	o.Nodes = 0
	_, err = Up(t.Context(), o)
	want := "in use by other programs: " + at(o.BasePort+10) + " (UDP) of node-1, " + at(o.BasePort+22) + " of node-2; end them, or choose another --base-port"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	if pids := pidsOf(t, dir); len(pids) > 0 {
		t.Errorf("running: %v", pids)
	}
	o.BasePort = other
	r = start(t, o)
	check(other)
	r.end()
	tcp.Close()
	udp.Close()
	o.BasePort = 0 // as it was
	r = start(t, o)
	check(other)
	r.end()
	for _, bad := range []int{-1, 80, MinBasePort - 1, MaxBasePort + 1, 70000} {
		o.BasePort = bad
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "choose 1024 to 64366 with --base-port") {
			t.Errorf("base port %d: %v", bad, err)
		}
	}
}

// No two processes of the largest testnet share a port, and the highest one exists.
func TestFixedPortsAreDistinct(t *testing.T) {
	seen := map[string]string{}
	p := newPlan(Options{Nodes: MaxNodes, Poets: MaxPoets})
	for _, m := range append(p.Members, member{Name: watchName, Kind: Watch}) {
		e := fixedEndpoints(m, MaxBasePort)
		for _, a := range []string{e.GRPC, e.REST, e.Admin, e.Metrics, udpAddress(e.P2P)} {
			if a == "" {
				continue
			}
			if seen[a] != "" {
				t.Errorf("%s and %s have %s", seen[a], m.Name, a)
			}
			seen[a] = m.Name
			if _, err := net.ResolveTCPAddr("tcp", a); err != nil {
				t.Errorf("%s: %v", m.Name, err)
			}
		}
	}
	if len(seen) != 1+4*(MaxNodes+MaxPoets) {
		t.Errorf("%d addresses", len(seen))
	}
}
