package virtual_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/p2p"
	"tweedle/p2p/virtual"
)

// node is a host with one topic, and what it has heard on it.
type node struct {
	*p2p.Host
	mu    sync.Mutex
	heard map[string]int
	stop  func()
}

func (n *node) hears(msg string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heard[msg]
}

func start(t *testing.T, net *virtual.Network, i int, bootnodes ...string) *node {
	t.Helper()
	key, err := p2p.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cfg := p2p.Config{Network: p2p.NetworkID{Name: "virtual"}, Key: key, Bootnodes: bootnodes}
	net.Attach(&cfg, virtual.IP(i))
	h, err := p2p.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Host: h, heard: make(map[string]int)}
	h.Register(p2p.Topic{Name: "t", MaxSize: 1000}, func(_ context.Context, _ p2p.PeerID, msg []byte) p2p.Verdict {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.heard[string(msg)]++
		return p2p.Accept()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return n
}

// cluster starts n nodes of which the first is everybody's bootnode, and waits until they have met.
func cluster(t *testing.T, net *virtual.Network, n int) []*node {
	t.Helper()
	nodes := []*node{start(t, net, 0)}
	for i := 1; i < n; i++ {
		nodes = append(nodes, start(t, net, i, nodes[0].Addrs()...))
	}
	time.Sleep(30 * time.Second)
	for i, node := range nodes {
		if got := len(node.Peers()); got != n-1 {
			t.Errorf("after 30 s node %d has %d peers, want %d", i, got, n-1)
		}
	}
	return nodes
}

func stopAll(nodes []*node) {
	for _, n := range nodes {
		n.stop()
	}
}

func TestAnHourOfGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(50 * time.Millisecond)
		defer net.Close()
		nodes := cluster(t, net, 10)
		defer stopAll(nodes)
		const every = 30 * time.Second
		begin, sent := time.Now(), 0
		for ; time.Since(begin) < time.Hour; sent++ {
			from := nodes[sent%len(nodes)]
			if n, err := from.Publish(t.Context(), "t", fmt.Append(nil, sent)); n != len(nodes)-1 || err != nil {
				t.Fatalf("message %d was handed to %d peers: %v; want all %d", sent, n, err, len(nodes)-1)
			}
			time.Sleep(every)
		}
		for m := range sent {
			for i, n := range nodes {
				want := 1
				if i == m%len(nodes) {
					want = 0 // its own
				}
				if got := n.hears(fmt.Sprint(m)); got != want {
					t.Errorf("node %d heard message %d %d times, want %d", i, m, got, want)
				}
			}
		}
	})
}

func TestPartitionAndHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(50 * time.Millisecond)
		defer net.Close()
		nodes := cluster(t, net, 10)
		defer stopAll(nodes)
		hearers := func(msg string) (left, right int) {
			for i, n := range nodes {
				if n.hears(msg) > 0 {
					if i < 5 {
						left++
					} else {
						right++
					}
				}
			}
			return left, right
		}
		publish := func(msg string) {
			t.Helper()
			if _, err := nodes[0].Publish(t.Context(), "t", []byte(msg)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		publish("whole")
		if l, r := hearers("whole"); l != 4 || r != 5 {
			t.Fatalf("before: %d and %d heard, want 4 and 5", l, r)
		}
		var left, right []netip.Addr
		for i := range 5 {
			left, right = append(left, virtual.IP(i)), append(right, virtual.IP(5+i))
		}
		net.Partition(left, right)
		time.Sleep(10 * time.Minute)
		for i, n := range nodes {
			if got := len(n.Peers()); got != 4 {
				t.Errorf("parted, node %d has %d peers, want 4", i, got)
			}
		}
		publish("parted")
		if l, r := hearers("parted"); l != 4 || r != 0 {
			t.Errorf("parted: %d and %d heard, want 4 and 0", l, r)
		}
		net.HealAll()
		time.Sleep(time.Minute) // longer than the longest redial backoff
		for i, n := range nodes {
			if got := len(n.Peers()); got != 9 {
				t.Errorf("healed, node %d has %d peers, want 9", i, got)
			}
		}
		publish("healed")
		if l, r := hearers("healed"); l != 4 || r != 5 {
			t.Errorf("healed: %d and %d heard, want 4 and 5", l, r)
		}
	})
}

func TestANodeThatDiesWithoutAWordRejoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		a := start(t, net, 0)
		defer a.stop()
		b := start(t, net, 1, a.Addrs()...)
		defer b.stop()
		time.Sleep(10 * time.Second)
		net.Partition([]netip.Addr{virtual.IP(0)}, []netip.Addr{virtual.IP(1)})
		time.Sleep(2 * time.Minute)
		if len(a.Peers())+len(b.Peers()) != 0 {
			t.Fatalf("peers after the cut: %v, %v", a.Peers(), b.Peers())
		}
		if n, err := a.Publish(t.Context(), "t", []byte("x")); n != 0 || !errors.Is(err, p2p.ErrNoPeers) {
			t.Errorf("publish to nobody: %d, %v", n, err)
		}
		net.HealAll()
		time.Sleep(time.Minute)
		if n, err := a.Publish(t.Context(), "t", []byte("x")); n != 1 || err != nil {
			t.Errorf("publish after the heal: %d, %v", n, err)
		}
		time.Sleep(time.Second)
		if b.hears("x") != 1 {
			t.Error("b did not hear it")
		}
	})
}
