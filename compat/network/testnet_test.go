//go:build linux

package network

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// locked is a buffer that is written while it is read.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// event is a line of `testnet up --json`.
type event struct {
	Type, State string
	PID         int
	GenesisID   string `json:"genesis_id"`
	Endpoints   struct{ GRPC, REST, Metrics, Admin, P2P string }

	// Of the last line.
	OK         *bool
	Reasons    []string
	Layers     int
	StateRoots int `json:"state_roots"`
}

// status is what `testnet status --json` prints.
type status struct {
	Genesis      time.Time
	Layer, Epoch int
	Nodes        []node
	Poets        []poet
}

type node struct {
	Name, State         string
	PID                 int
	Applied             *int    `json:"applied_layer"`
	Root                *string `json:"state_root"`
	Peers               *int
	ATXEpoch            *int `json:"atx_epoch"`
	GRPC, REST, Metrics string
}

type poet struct {
	Name, State string
	PID         int
	REST        string
	Undelivered *int
	Gateways    []struct{ Addr, State string }
}

func (s status) node(name string) node {
	return s.Nodes[slices.IndexFunc(s.Nodes, func(n node) bool { return n.Name == name })]
}

// applied returns the newest layer that any of the nodes, and that all of the
// nodes that answer, have applied; -1 if there is none.
func (s status) applied() (newest, common int) {
	newest, common = -1, -1
	for _, n := range s.Nodes {
		if n.Applied != nil {
			newest = max(newest, *n.Applied)
			if common < 0 || *n.Applied < common {
				common = *n.Applied
			}
		}
	}
	return newest, common
}

// agree tells whether all nodes are at the same layer, at least from, with the
// same state.
func (s status) agree(from int) bool {
	first := s.Nodes[0]
	for _, n := range s.Nodes {
		if n.Applied == nil || *n.Applied < from || *n.Applied != *first.Applied || *n.Root != *first.Root {
			return false
		}
	}
	return true
}

// testnet is a network that runs.
type testnet struct {
	*service
	dir string

	read chan struct{} // closed when all events are read
	// Written until read is closed, then only read.
	mu        sync.Mutex
	genesis   string
	pids      []int
	addresses []string
	last      []byte
}

// up starts a network, and ends it with the test.
func up(t *testing.T, args ...string) *testnet {
	t.Helper()
	n := &testnet{dir: t.TempDir(), read: make(chan struct{})}
	cmd := exec.Command(programs.tweedle, append([]string{"testnet", "up", "--json", "--dir", n.dir}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	n.service = launch(t, cmd)
	go n.follow(bufio.NewScanner(out))
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("the testnet ended with %v\n%s", err, &n.stderr)
		}
	})
	return n
}

// follow reads the events.
func (n *testnet) follow(lines *bufio.Scanner) {
	defer close(n.read)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		_ = json.Unmarshal(lines.Bytes(), &e) // the last one is judged later
		n.mu.Lock()
		n.last = bytes.Clone(lines.Bytes())
		switch {
		case e.Type == "start":
			n.genesis = e.GenesisID
		case e.Type == "process" && e.State == "running":
			n.pids = append(n.pids, e.PID)
			p := e.Endpoints
			n.addresses = append(n.addresses, p.GRPC, p.REST, p.Metrics, p.Admin)
		}
		n.mu.Unlock()
	}
}

// genesisID returns the network's id as the first event has it.
func (n *testnet) genesisID() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.genesis
}

// do carries out a command on the network.
func (n *testnet) do(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, append([]string{"testnet", "--dir", n.dir}, args...)...)
}

func (n *testnet) status(t *testing.T) status {
	t.Helper()
	var s status
	if err := json.Unmarshal([]byte(n.do(t, "status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	poll = 500 * time.Millisecond
	// startTime is what a busy machine has for starting all processes and
	// for the genesis to come: the launcher itself allows a process a minute.
	startTime = 3 * time.Minute
)

// waitUp waits until every process answers, and returns the first such status.
func (n *testnet) waitUp(t *testing.T) status {
	t.Helper()
	for deadline := time.Now().Add(startTime); ; time.Sleep(poll) {
		r := tweedle(t, "testnet", "status", "--json", "--dir", n.dir)
		var s status
		if r.exit == 0 && json.Unmarshal([]byte(r.out), &s) == nil && s.complete() {
			return s
		}
		n.mustRun(t)
		if time.Now().After(deadline) {
			t.Fatalf("the network is not up after %v: %s%s", startTime, r.out, r.err)
		}
	}
}

// complete tells whether all processes answer.
func (s status) complete() bool {
	for _, p := range s.Poets {
		if p.Gateways == nil {
			return false
		}
	}
	return len(s.Nodes) > 0 && !slices.ContainsFunc(s.Nodes, func(n node) bool { return n.Applied == nil })
}

// mustRun fails the test if the testnet has ended.
func (n *testnet) mustRun(t *testing.T) {
	t.Helper()
	select {
	case <-n.done:
		t.Fatalf("the testnet ended: %v\n%s", n.err, &n.stderr)
	default:
	}
}

// until waits until done, and fails when a layer has passed without it.
func (n *testnet) until(t *testing.T, layer int, what string, done func(status) bool) status {
	t.Helper()
	for {
		s := n.status(t)
		if done(s) {
			return s
		}
		n.mustRun(t)
		if s.Layer > layer {
			b, _ := json.Marshal(s)
			t.Fatalf("not by layer %d: %s; status: %s\n%s", layer, what, b, n.do(t, "logs", "-n", "12"))
		}
		time.Sleep(poll)
	}
}

// end brings the network down, and checks that nothing of it is left.
func (n *testnet) end(t *testing.T) event {
	t.Helper()
	n.do(t, "down")
	select {
	case <-n.done:
	case <-time.After(stopTime):
		t.Fatal("down is done, and the testnet still runs")
	}
	<-n.read
	if n.err != nil {
		t.Errorf("the testnet ended with %v\n%s", n.err, &n.stderr)
	}
	var sum event
	if err := json.Unmarshal(n.last, &sum); err != nil || sum.Type != "summary" || sum.OK == nil {
		t.Fatalf("the last line is no summary: %s", n.last)
	}
	t.Logf("%s", n.last)
	n.checkNothingIsLeft(t)
	return sum
}

// checkNothingIsLeft checks that all processes have gone and all ports are
// free again.
func (n *testnet) checkNothingIsLeft(t *testing.T) {
	t.Helper()
	if len(n.pids) == 0 || len(n.addresses) < 4*len(n.pids) {
		t.Errorf("processes %v with addresses %v", n.pids, n.addresses)
	}
	for _, pid := range n.pids {
		if !isGone(pid) {
			t.Errorf("process %d outlived its testnet", pid)
		}
	}
	for pid, command := range running() {
		if strings.Contains(command, n.dir) {
			t.Errorf("process %d is left: %s", pid, command)
		}
	}
	for _, a := range n.addresses {
		if a == "" {
			continue
		}
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Errorf("a port is still in use: %v", err)
			continue
		}
		l.Close()
	}
}

// history is what a node says of each layer: its block, if it has one, and the
// state after it.
type history map[int]string

// history reads the layers of a range from a node that has applied them.
func (n *testnet) history(t *testing.T, addr string, from, to int) history {
	t.Helper()
	const page = 50
	h := make(history)
	for ; from <= to; from += page {
		answer := ask[struct {
			Layer []struct {
				Number        struct{ Number int }
				Status        string
				RootStateHash []byte
				Blocks        []struct{ ID []byte }
			}
		}](t, addr, "spacemesh.v1.MeshService/LayersQuery",
			fmt.Sprintf(`{"start_layer":{"number":%d},"end_layer":{"number":%d}}`, from, min(to, from+page-1)))
		for _, l := range answer.Layer {
			if l.Status != "LAYER_STATUS_APPLIED" {
				t.Fatalf("layer %d of %s is %q", l.Number.Number, addr, l.Status)
			}
			h[l.Number.Number] = fmt.Sprintf("%x", l.RootStateHash)
			for _, b := range l.Blocks {
				h[l.Number.Number] += fmt.Sprintf(" block %x", b.ID)
			}
		}
	}
	return h
}
