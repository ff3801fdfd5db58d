package virtual_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tweedle/edges/p2p"
	"tweedle/edges/p2p/virtual"
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

func TestMain(m *testing.M) {
	p2p.LogLibraries(slog.DiscardHandler)
	goleak.VerifyTestMain(m)
}

func config(t *testing.T, net *virtual.Network, i int, bootnodes ...string) p2p.Config {
	t.Helper()
	key, err := p2p.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cfg := p2p.Config{Network: p2p.NetworkID{Name: "virtual"}, Key: key, Bootnodes: bootnodes}
	net.Attach(&cfg, virtual.IP(i))
	return cfg
}

func start(t *testing.T, net *virtual.Network, i int, bootnodes ...string) *node {
	t.Helper()
	return startWith(t, config(t, net, i, bootnodes...), accept)
}

func accept(context.Context, string) p2p.Verdict { return p2p.Accept() }

// startWith starts a node that judges messages as told.
func startWith(t *testing.T, cfg p2p.Config, judge func(context.Context, string) p2p.Verdict) *node {
	t.Helper()
	return startHost(t, cfg, judge, func(*p2p.Host) {})
}

// startWithHandler starts a node that serves a protocol.
func startWithHandler(t *testing.T, cfg p2p.Config, protocol string, limits p2p.Limits, serve func(context.Context, p2p.PeerID, []byte) ([]byte, error)) *node {
	t.Helper()
	return startHost(t, cfg, accept, func(h *p2p.Host) { h.Handle(protocol, limits, serve) })
}

func startHost(t *testing.T, cfg p2p.Config, judge func(context.Context, string) p2p.Verdict, prepare func(*p2p.Host)) *node {
	t.Helper()
	h, err := p2p.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	prepare(h)
	n := &node{Host: h, heard: make(map[string]int)}
	h.Register(p2p.Topic{Name: "t", MaxSize: 1000}, func(ctx context.Context, _ p2p.PeerID, msg []byte) p2p.Verdict {
		n.mu.Lock()
		n.heard[string(msg)]++
		n.mu.Unlock()
		return judge(ctx, string(msg))
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
		nodes := cluster(t, net, hosts)
		defer stopAll(nodes)
		const every = 30 * time.Second
		begin, sent := time.Now(), 0
		for ; time.Since(begin) < time.Hour/shrink; sent++ {
			from := nodes[sent%len(nodes)]
			if err := from.Publish(t.Context(), "t", fmt.Append(nil, sent)); err != nil {
				t.Fatalf("message %d was not published: %v", sent, err)
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

// Two sides hear nothing of each other, for long enough that all have given up; ten seconds after the heal
// whatever is said on either side is heard on both.
func TestPartitionAndHeal(t *testing.T) {
	for _, few := range []int{hosts / 2, max(2, 3*hosts/10)} {
		t.Run(fmt.Sprint(few, " of ", hosts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { partitionAndHeal(t, few) })
		})
	}
}

func partitionAndHeal(t *testing.T, few int) {
	net := virtual.NewNetwork(50 * time.Millisecond)
	defer net.Close()
	nodes := cluster(t, net, hosts)
	defer stopAll(nodes)
	hearers := func(msg string) (left, right int) {
		for i, n := range nodes {
			if n.hears(msg) > 0 {
				if i < few {
					left++
				} else {
					right++
				}
			}
		}
		return left, right
	}
	publish := func(from int, msg string) {
		t.Helper()
		if err := nodes[from].Publish(t.Context(), "t", []byte(msg)); err != nil {
			t.Error(err)
		}
	}
	publish(0, "whole")
	time.Sleep(5 * time.Second)
	if l, r := hearers("whole"); l != few-1 || r != hosts-few {
		t.Fatalf("before: %d and %d heard, want %d and %d", l, r, few-1, hosts-few)
	}
	var left, right []netip.Addr
	for i := range hosts {
		if i < few {
			left = append(left, virtual.IP(i))
		} else {
			right = append(right, virtual.IP(i))
		}
	}
	net.Partition(left, right)
	time.Sleep(10 * time.Minute / shrink)
	for i, n := range nodes {
		want := few - 1
		if i >= few {
			want = hosts - few - 1
		}
		if got := len(n.Peers()); got != want {
			t.Errorf("parted, node %d has %d peers, want %d", i, got, want)
		}
	}
	publish(0, "parted")
	time.Sleep(5 * time.Second)
	if l, r := hearers("parted"); l != few-1 || r != 0 {
		t.Errorf("parted: %d and %d heard, want %d and 0", l, r, few-1)
	}
	net.HealAll()
	time.Sleep(10 * time.Second)
	publish(0, "healed left")
	publish(hosts-1, "healed right")
	time.Sleep(3 * time.Second)
	if l, r := hearers("healed left"); l != few-1 || r != hosts-few {
		t.Errorf("healed: %d and %d heard the left, want %d and %d", l, r, few-1, hosts-few)
	}
	if l, r := hearers("healed right"); l != few || r != hosts-few-1 {
		t.Errorf("healed: %d and %d heard the right, want %d and %d", l, r, few, hosts-few-1)
	}
	time.Sleep(time.Minute) // longer than the longest redial backoff
	for i, n := range nodes {
		if got := len(n.Peers()); got != hosts-1 {
			t.Errorf("healed, node %d has %d peers, want %d", i, got, hosts-1)
		}
	}
}

// Everybody but one is at another address when the network starts again, the bootnode too, and nobody is
// told: they find the one that stayed, and through it each other.
func TestTheNetworkIsFoundAfterAllButOneMoved(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(50 * time.Millisecond)
		defer net.Close()
		const stays = hosts - 1
		var cfgs []p2p.Config
		var nodes []*node
		var boot []string
		for i := range hosts {
			cfg := config(t, net, i, boot...)
			cfg.PeersFile = filepath.Join(dir, fmt.Sprint(i))
			n := startWith(t, cfg, accept)
			if i == 0 {
				boot = n.Addrs()
			}
			cfgs, nodes = append(cfgs, cfg), append(nodes, n)
		}
		time.Sleep(5 * time.Minute)
		for _, n := range nodes[:stays] {
			n.stop()
		}
		time.Sleep(10 * time.Minute)
		for i := range stays {
			net.Attach(&cfgs[i], virtual.IP(100+i))
			nodes[i] = startWith(t, cfgs[i], accept)
		}
		defer stopAll(nodes)
		time.Sleep(2 * time.Minute)
		for i, n := range nodes {
			if got := len(n.Peers()); got != hosts-1 {
				t.Errorf("node %d has %d peers, want %d", i, got, hosts-1)
			}
		}
	})
}

// Twenty peers send fifty messages a second each that nobody may send (five under the race detector). Ten heartbeats later no handler sees
// one of them, and what the honest say is heard.
func TestMalformedGossipIsNotReadForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(50 * time.Millisecond)
		defer net.Close()
		const honestNodes, liars = 6, 20
		var lies, late atomic.Int64
		var end atomic.Int64 // of the ten heartbeats, in Unix nanoseconds; 0 before the attack
		judge := func(_ context.Context, msg string) p2p.Verdict {
			if !strings.HasPrefix(msg, "lie") {
				return p2p.Accept()
			}
			lies.Add(1)
			if time.Now().UnixNano() > end.Load() {
				late.Add(1)
			}
			return p2p.Reject("a lie")
		}
		var honest, all []*node
		var boot []string
		for i := range honestNodes {
			honest = append(honest, startWith(t, config(t, net, i, boot...), judge))
			boot = append(boot, honest[i].Addrs()...)
		}
		all = append(all, honest...)
		for i := range liars {
			cfg := config(t, net, 100+i, boot...)
			cfg.MinPeers, cfg.MinOutbound = honestNodes, honestNodes
			all = append(all, startWith(t, cfg, func(context.Context, string) p2p.Verdict { return p2p.Ignore("") }))
		}
		defer stopAll(all)
		time.Sleep(30 * time.Second)
		end.Store(time.Now().Add(10 * p2p.DefaultHeartbeat).UnixNano())
		const seconds, rate = 20, 50 / shrink
		said := 0
		for i := range seconds * rate {
			for k, l := range all[honestNodes:] {
				_ = l.Publish(t.Context(), "t", fmt.Append(nil, "lie ", k, " ", i)) // nobody takes it any more
			}
			if i%(rate/2) == 0 {
				_ = honest[said%honestNodes].Publish(t.Context(), "t", fmt.Append(nil, "truth ", said)) // who did not hear is counted
				said++
			}
			time.Sleep(time.Second / rate)
		}
		time.Sleep(5 * time.Second)
		got := 0
		for m := range said {
			for k, n := range honest {
				if k != m%honestNodes {
					got += min(1, n.hears(fmt.Sprint("truth ", m)))
				}
			}
		}
		share := float64(got) / float64(said*(honestNodes-1))
		t.Logf("%d lies sent, %d read, %d of them after ten heartbeats; %.4f of the truth heard", seconds*rate*liars, lies.Load(), late.Load(), share)
		if lies.Load() == 0 || late.Load() > 0 || share < 0.99 {
			t.Fail()
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
		if err := a.Publish(t.Context(), "t", []byte("x")); !errors.Is(err, p2p.ErrNoPeers) {
			t.Errorf("publish to nobody: %v", err)
		}
		net.HealAll()
		time.Sleep(time.Minute)
		if err := a.Publish(t.Context(), "t", []byte("x")); err != nil {
			t.Errorf("publish after the heal: %v", err)
		}
		time.Sleep(time.Second)
		if b.hears("x") != 1 {
			t.Error("b did not hear it")
		}
	})
}

// score returns what the node thinks of a peer.
func (n *node) score(p p2p.PeerID) float64 {
	for _, info := range n.Peers() {
		if info.ID == p {
			return info.Score
		}
	}
	return 0
}

func TestAKilledNodeIsBackInSeconds(t *testing.T) {
	runs := 20
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		runs = 1000
	}
	for range runs {
		synctest.Test(t, aKilledNodeIsBack)
	}
}

func aKilledNodeIsBack(t *testing.T) {
	net := virtual.NewNetwork(20 * time.Millisecond)
	defer net.Close()
	a := start(t, net, 0)
	defer a.stop()
	cfg := config(t, net, 1, a.Addrs()...)
	b := startWith(t, cfg, accept)
	time.Sleep(time.Minute)
	// It dies without a word, and is back before anybody has noticed.
	net.Partition([]netip.Addr{virtual.IP(0)}, []netip.Addr{virtual.IP(1)})
	b.stop()
	net.HealAll()
	b = startWith(t, cfg, accept)
	defer b.stop()
	time.Sleep(5 * time.Second)
	if err := a.Publish(t.Context(), "t", []byte("to b")); err != nil {
		t.Errorf("publish to b: %v", err)
	}
	if err := b.Publish(t.Context(), "t", []byte("to a")); err != nil {
		t.Errorf("publish to a: %v", err)
	}
	time.Sleep(time.Second)
	if a.hears("to a") != 1 || b.hears("to b") != 1 {
		t.Errorf("after 5 s a heard %d, b heard %d; want 1 and 1", a.hears("to a"), b.hears("to b"))
	}
}

// Design.md section 3: whoever sends garbage is not read for long, and whoever is only slow is.
func TestLiarsLoseTheirScoreAndSlowNodesDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(50 * time.Millisecond)
		defer net.Close()
		judge := func(_ context.Context, msg string) p2p.Verdict {
			if strings.HasPrefix(msg, "lie") {
				return p2p.Reject("a lie")
			}
			return p2p.Accept()
		}
		slowly := func(ctx context.Context, msg string) p2p.Verdict {
			select {
			case <-time.After(8 * time.Second):
			case <-ctx.Done():
			}
			return judge(ctx, msg)
		}
		honest := []*node{startWith(t, config(t, net, 0), judge)}
		boot := honest[0].Addrs()
		for i := 1; i < 6; i++ {
			honest = append(honest, startWith(t, config(t, net, i, boot...), judge))
		}
		slow := startWith(t, config(t, net, 6, boot...), slowly)
		liar := startWith(t, config(t, net, 7, boot...), accept)
		defer stopAll(append(honest, slow, liar))
		time.Sleep(30 * time.Second)
		const rounds = 600 / shrink
		for i := range rounds {
			if err := honest[i%6].Publish(t.Context(), "t", fmt.Append(nil, "truth ", i)); err != nil {
				t.Fatal(err)
			}
			liar.Publish(t.Context(), "t", fmt.Append(nil, "lie ", i))
			time.Sleep(time.Second)
		}
		for i, n := range honest {
			for m := range rounds {
				if m%6 != i && n.hears(fmt.Sprint("truth ", m)) != 1 {
					t.Errorf("node %d missed truth %d", i, m)
				}
			}
			lies := 0
			for m := range rounds {
				lies += n.hears(fmt.Sprint("lie ", m))
			}
			if lies > 10 {
				t.Errorf("node %d read %d lies, want at most 10", i, lies)
			}
			if s := n.score(liar.ID()); s > -80 {
				t.Errorf("node %d gives the liar %v", i, s)
			}
			if s := n.score(slow.ID()); s < 0 {
				t.Errorf("node %d gives the slow one %v", i, s)
			}
		}
	})
}

// Loopback is exempt from libp2p's limits per address, so a flood needs simulated ones.
func TestAFloodOfStrangersDisturbsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		var refused atomic.Int64
		cfg := config(t, net, 0)
		cfg.OnRefused = func(p2p.Refusal) { refused.Add(1) }
		boot := startWith(t, cfg, accept)
		honest := []*node{boot}
		for i := 1; i < 5; i++ {
			honest = append(honest, start(t, net, i, boot.Addrs()...))
		}
		defer stopAll(honest)
		time.Sleep(30 * time.Second)
		const strangers = 60 / shrink
		var flood []*node
		before := runtime.NumGoroutine()
		for i := range strangers {
			cfg := config(t, net, 100+i, boot.Addrs()...)
			cfg.Network.Name = "elsewhere"
			flood = append(flood, startWith(t, cfg, accept))
		}
		for i := range 60 {
			if err := honest[i%5].Publish(t.Context(), "t", fmt.Append(nil, i)); err != nil {
				t.Fatalf("message %d during the flood: %v", i, err)
			}
			time.Sleep(time.Second)
		}
		for i := range 60 {
			for k, n := range honest {
				if k != i%5 && n.hears(fmt.Sprint(i)) != 1 {
					t.Errorf("node %d missed message %d", k, i)
				}
			}
		}
		if got := len(boot.Peers()); got != 4 {
			t.Errorf("%d peers during the flood, want 4", got)
		}
		stopAll(flood)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if refused.Load() < strangers {
			t.Errorf("%d refusals from %d strangers", refused.Load(), strangers)
		}
		// The simulator keeps two goroutines for each end of a link that there ever was.
		if after := runtime.NumGoroutine(); after > before+2*strangers+16 {
			t.Errorf("%d goroutines before the flood, %d after", before, after)
		}
	})
}

// Many strangers dial us, to be the ones who are given a thing first. Whom we dialed ourselves comes
// first, and of the strangers none is preferred, whatever its name.
func TestThoseWhoDialUsDoNotReplaceWhomWeChose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		var boot []string
		var all []*node
		for i := range 3 {
			n := start(t, net, 1+i)
			all, boot = append(all, n), append(boot, n.Addrs()...)
		}
		hub := start(t, net, 0, boot...)
		time.Sleep(10 * time.Second)
		const strangers = 12
		for i := range strangers {
			cfg := config(t, net, 100+i, hub.Addrs()...)
			cfg.MinPeers, cfg.MinOutbound = 1, 1 // they want the hub only
			all = append(all, startWith(t, cfg, accept))
		}
		defer stopAll(append(all, hub))
		time.Sleep(time.Minute)
		outbound, inbound := make(map[p2p.PeerID]bool), make(map[p2p.PeerID]int)
		for _, p := range hub.Peers() {
			if !p.Inbound {
				outbound[p.ID] = true
			}
		}
		if len(outbound) < 3 {
			t.Fatalf("%d peers are chosen: the scene is not set", len(outbound))
		}
		for range 200 {
			some := hub.Some(len(outbound) + 1)
			for _, p := range some[:len(outbound)] {
				if !outbound[p] {
					t.Fatal("somebody who dialed us comes before somebody whom we dialed")
				}
			}
			for _, p := range some[len(outbound):] {
				inbound[p]++
			}
		}
		for p, n := range inbound {
			if n > 100 {
				t.Errorf("%s is drawn %d times of 200", p, n)
			}
		}
	})
}
