package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"tweedle/base/telemetry"
	"tweedle/edges/p2p"
	"tweedle/edges/p2p/virtual"
)

const (
	// maxFlooded is what a flood of handshakes may add to a node's resident memory, in MiB.
	maxFlooded = 128
	// strangers is how many names the crowd has; each comes from another address every time.
	strangers = 2000
)

// Four smeshers live at public addresses, and a crowd of 65,536 others, each in a /24 of its own, shakes hands
// with one of them as fast as the machine can. The node lives, its table and its half-open connections keep
// their limits, its memory is bounded, the peers that it chose stay and of the others that were of use all but
// one, and the network goes on applying layers.
func TestAFloodOfHandshakesAtALiveNode(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	handshakes, nightly := int64(300), os.Getenv("TWEEDLE_NIGHTLY") != ""
	if nightly {
		handshakes = 100_000
	}
	ip(t, "link set lo up", "address add "+siegeHost+"/24 dev lo", "address add "+siegeOther+"/32 dev lo", "route add local 6.0.0.0/8 dev lo")
	n := newSiegeNetwork(t, !nightly)
	public := siegeHost + ":0"
	poet := n.poet(t, public)
	var all []*sieged
	for i, knows := range [][]int{{}, {0}, {0, 1}, {2}} { // the third is the victim: it dials two, and one dials it
		address := fmt.Sprintf("5.0.%d.1", i)
		ip(t, "address add "+address+"/32 dev lo")
		var others []*sieged
		for _, k := range knows {
			others = append(others, all[k])
		}
		all = append(all, n.node(t, fmt.Sprint("node-", i), address, public, poet, others...))
	}
	victim := all[2]
	f := &liveFlood{t: t, victim: victim, friends: make(map[string]string)}
	f.aim(n)
	for _, node := range all {
		peers, err := f.peers(node)
		if err != nil {
			t.Fatal(err)
		}
		f.friends[peers.ID] = node.name
	}
	n.awaitBlock(t, victim)
	before := f.meet(len(all) - 1)

	base, memory, start := victim.goroutines(t), victim.resident(t, "VmRSS"), time.Now()
	var looks []*look
	for i := range all { // a layer needs nearly all of them
		looks = append(looks, n.begin(t, "crowd", slices.Concat(all[i:], all[:i])...))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	over := make(chan struct{})
	go func() { defer close(over); f.flood(ctx, handshakes) }()
	limit, halfLimit := victim.metric(t, `tweedle_p2p_sessions{kind="limit"}`), victim.metric(t, `tweedle_p2p_half_open{kind="limit"}`)
	most, half, goroutines, seen := 0, 0, 0, 0
	for attacked := true; attacked; {
		select {
		case <-over:
			attacked = false
		case <-time.After(300 * time.Millisecond):
		}
		// Who looks gives way to the programs as the crowd does, and may be too late for a listener.
		all, err := page(siegeWeb(), "http://"+victim.e.Metrics+"/metrics")
		now, err2 := f.peers(victim)
		if errors.Join(err, err2) != nil {
			continue
		}
		seen++
		most, half = max(most, metricOf(t, all, `tweedle_p2p_sessions{kind="now"}`)), max(half, metricOf(t, all, `tweedle_p2p_half_open{kind="now"}`))
		goroutines = max(goroutines, metricOf(t, all, "go_goroutines"))
		f.stay(before, now)
	}
	took := time.Since(start)
	for _, l := range looks {
		l.end(t)
	}
	grown := victim.peak(t) - memory
	t.Logf("%d handshakes of %d tried in %v, from %d addresses; at most %d sessions (limit %d) and %d half open (limit %d); goroutines %d before and %d at most; resident %d MiB before, +%d at most",
		f.shook.Load(), f.tried.Load(), took.Round(time.Second), min(f.tried.Load(), 1<<16), most, limit, half, halfLimit, base, goroutines, memory, grown)
	if seen < 3 {
		t.Errorf("the victim was seen %d times only", seen)
	}
	if f.shook.Load() < handshakes {
		t.Errorf("only %d handshakes: this is no flood", f.shook.Load())
	}
	if most > limit || half > halfLimit || most < min(limit, int(handshakes)/10) {
		t.Error("a limit does not hold, or nobody met it")
	}
	// Ten for a session: what libp2p, gossipsub and QUIC have for each; six for a handshake.
	if most := base + 10*limit + 6*halfLimit; goroutines > most {
		t.Errorf("%d goroutines, more than %d", goroutines, most)
	}
	if grown > maxFlooded {
		t.Errorf("resident memory grew by %d MiB, more than %d", grown, maxFlooded)
	}
	for until := time.Now().Add(3 * time.Minute); victim.goroutines(t) > base+limit+16; time.Sleep(time.Second) {
		if time.Now().After(until) {
			t.Fatalf("%d goroutines before, %d when all have left", base, victim.goroutines(t))
		}
	}
}

// liveFlood is a crowd at the door of a node.
type liveFlood struct {
	t       *testing.T
	victim  *sieged
	friends map[string]string // names of the honest by peer id
	to      *net.UDPAddr
	id      p2p.PeerID
	hello   []byte

	tried, shook atomic.Int64
}

// aim reads where the victim is, and what is said there.
func (f *liveFlood) aim(n *siegeNetwork) {
	info, err := peer.AddrInfoFromString(f.victim.e.P2P)
	if err != nil {
		f.t.Fatal(err)
	}
	parts := strings.Split(info.Addrs[0].String(), "/") // "", ip4, ADDRESS, udp, PORT, quic-v1
	at, err := netip.ParseAddrPort(parts[2] + ":" + parts[4])
	if err != nil {
		f.t.Fatal(err)
	}
	f.to, f.id = net.UDPAddrFromAddrPort(at), info.ID
	f.hello = virtual.Hello(p2p.NetworkID{GenesisID: n.of.ID(), Name: n.of.Name})
}

// flood shakes hands so many times, as most of the crowd do who want to stay, a few who say nothing and a few
// who are of another network. It gives way to the programs, as a crowd does that has machines of its own.
func (f *liveFlood) flood(ctx context.Context, handshakes int64) {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, thread := range threads {
		var id int
		if _, err := fmt.Sscan(thread.Name(), &id); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, 15) // it may have ended
		}
	}
	crowd := make([]*virtual.Stranger, strangers)
	for i := range crowd {
		var err error
		if crowd[i], err = virtual.NewStranger(); err != nil {
			f.t.Error(err)
			return
		}
	}
	var workers sync.WaitGroup
	for range 128 {
		workers.Go(func() {
			for ctx.Err() == nil && f.shook.Load() < handshakes && f.tried.Load() < 3*handshakes {
				i := f.tried.Add(1)
				socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(6, byte(i>>8), byte(i), 1)})
				if err != nil {
					f.t.Error(err)
					return
				}
				words := f.hello
				switch i % 16 {
				case 0:
					words = nil
				case 1:
					words = f.hello[:len(f.hello)-1]
				}
				if crowd[i%strangers].Visit(ctx, socket, f.to, f.id, words, time.Second) == nil {
					f.shook.Add(1)
				}
			}
		})
	}
	workers.Wait()
}

// peers returns with whom a node is connected.
func (f *liveFlood) peers(p *sieged) (peers telemetry.Peers, err error) {
	text, err := page(siegeWeb(), "http://"+p.e.Metrics+"/peers")
	if err == nil {
		err = json.Unmarshal([]byte(text), &peers)
	}
	return peers, err
}

// meet waits until the victim has all its friends, and all were of use or chosen.
func (f *liveFlood) meet(want int) telemetry.Peers {
	for until := time.Now().Add(time.Minute); ; time.Sleep(300 * time.Millisecond) {
		peers, err := f.peers(f.victim)
		proved := make(map[string]bool)
		for _, s := range peers.Sessions {
			if s.State != p2p.StateUnproved {
				proved[s.Peer] = true
			}
		}
		if len(proved) == want {
			return peers
		}
		if time.Now().After(until) {
			f.t.Fatalf("the victim has %+v, %v", peers.Sessions, err)
		}
	}
}

// stay checks that the friends are there: those that the victim chose with the connections that they had.
func (f *liveFlood) stay(before, now telemetry.Peers) {
	f.t.Helper()
	since := make(map[string]string)
	there := make(map[string]bool)
	for _, s := range now.Sessions {
		there[s.Peer] = true
		since[s.Peer+s.Direction+s.Since] = s.Since
	}
	lost := 0
	for _, s := range before.Sessions {
		switch {
		case s.Direction == "out" && since[s.Peer+s.Direction+s.Since] == "":
			f.t.Errorf("%s, which the victim chose, was sent away", f.friends[s.Peer])
		case !there[s.Peer]:
			lost++
		}
	}
	if lost > 1 {
		f.t.Errorf("%d friends that were of use were sent away", lost)
	}
}
