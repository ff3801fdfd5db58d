package virtual_test

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/p2p/virtual"
)

// blockIP returns an address of the crowd, from 0 to 255, all in one /24.
func blockIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{6, 200, 200, byte(i)}) }

// One owner of a /24 answers the Retry from each of its addresses and says no more: it gets an eighth of the
// half-open handshakes, and who comes from elsewhere meanwhile is let in.
func TestHalfOpenHandshakesOfABlockAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		f := newFlood(t, net)
		defer f.crowd.Close()
		defer func() { stopAll(f.honest) }()
		var crowd sync.WaitGroup
		for i := range 200 {
			crowd.Go(func() { f.halfway(netip.AddrPortFrom(blockIP(i), 9000)) })
		}
		half := 0.0
		for range 50 {
			time.Sleep(20 * time.Millisecond)
			half = max(half, f.halfOpen())
		}
		late := start(t, net, 50, f.hub.Addrs()...)
		time.Sleep(3 * time.Second)
		if len(late.Peers()) == 0 {
			t.Error("who comes from elsewhere is not let in")
		}
		late.stop()
		crowd.Wait()
		if half > p2p.DefaultMaxHalfOpen/8 || half == 0 {
			t.Errorf("%v of one block were half open, want 1 to %d", half, p2p.DefaultMaxHalfOpen/8)
		}
	})
}

// One owner of a /24 sends newcomers from each of its addresses who say hello as they should: it gets a
// quarter of the table, however many come, while strangers from elsewhere have the rest.
func TestSessionsOfABlockAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		f := newFlood(t, net)
		defer f.crowd.Close()
		defer stopAll(f.honest)
		var crowd sync.WaitGroup
		defer crowd.Wait()
		visit := func(at netip.Addr) {
			crowd.Go(func() { f.one(netip.AddrPortFrom(at, 9000), 2) })
			time.Sleep(10 * time.Millisecond)
		}
		const others = 10
		for i := range others {
			visit(virtual.CrowdIP(i))
		}
		block := netip.PrefixFrom(blockIP(0), 24)
		most := 0
		for i := range 100 {
			visit(blockIP(i))
			now, _, _ := f.hub.Sessions()
			most = max(most, sessionsOf(now, block))
		}
		time.Sleep(time.Second)
		now, left, _ := f.hub.Sessions()
		room := slices.ContainsFunc(left, func(l p2p.Left) bool { return l.Reason == p2p.LeftRoom })
		if most != floodLimit/4 || room || sessionsOf(now, netip.MustParsePrefix("6.0.0.0/16")) != others {
			t.Errorf("%d sessions of one block, want %d; of the others %d are left, want %d", most, floodLimit/4, sessionsOf(now, netip.MustParsePrefix("6.0.0.0/16")), others)
		}
	})
}

// sessionsOf counts the sessions with addresses of a block.
func sessionsOf(all []p2p.SessionInfo, block netip.Prefix) (n int) {
	for _, s := range all {
		if text, err := s.Addr.ValueForProtocol(4); err == nil && block.Contains(netip.MustParseAddr(text)) { // 4: ip4
			n++
		}
	}
	return n
}

// The same strangers come to two hosts at the same moments, and a minute later more than there is room for: the two do not send
// away the same ones, so that the sessions of a peer do not all end at one moment.
func TestTwoHostsDoNotEndTheSameSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		var hubs []*node
		for i := range 2 {
			cfg := config(t, net, i)
			cfg.MinPeers, cfg.MinOutbound, cfg.MaxPeers = 1, 1, floodLimit
			hubs = append(hubs, startWith(t, cfg, accept))
		}
		defer stopAll(hubs)
		crowd := net.NewCrowd()
		defer crowd.Close()
		floods := []*flood{{t: t, crowd: crowd, hub: hubs[0], addr: hostAddr(0)}, {t: t, crowd: crowd, hub: hubs[1], addr: hostAddr(1)}}
		time.Sleep(time.Second)
		var all sync.WaitGroup
		defer all.Wait()
		for i := range floodLimit + floodLimit/2 {
			who, err := virtual.NewStranger()
			if err != nil {
				t.Fatal(err)
			}
			for k, f := range floods {
				at := netip.AddrPortFrom(virtual.CrowdIP(i), uint16(9000+k))
				all.Go(func() {
					_ = who.Visit(t.Context(), crowd.Socket(at), f.addr, f.hub.ID(), virtual.Hello(p2p.NetworkID{Name: "virtual"}), 2*time.Minute)
				})
			}
			time.Sleep(100 * time.Millisecond)
			if i == floodLimit-1 {
				time.Sleep(time.Minute) // their ages differ by a twentieth, and look as if by up to a quarter
			}
		}
		time.Sleep(time.Second)
		var victims [2][]p2p.PeerID
		for k, h := range hubs {
			_, left, _ := h.Sessions()
			for _, l := range left {
				if l.Reason == p2p.LeftRoom {
					victims[k] = append(victims[k], l.Peer)
				}
			}
		}
		if len(victims[0]) < floodLimit/2 || len(victims[0]) != len(victims[1]) {
			t.Fatalf("%d and %d made room: the scene is not set", len(victims[0]), len(victims[1]))
		}
		both := 0
		for _, p := range victims[0] {
			if slices.Contains(victims[1], p) {
				both++
			}
		}
		// By chance it is half of them. A request under way keeps a session for a while, so that even without the
		// spread of ages not all are the same.
		if both*8 > len(victims[0])*7 {
			t.Errorf("%d of %d sessions that one host ended are those that the other ended", both, len(victims[0]))
		}
	})
}
