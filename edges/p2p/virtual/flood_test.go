package virtual_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"

	"tweedle/edges/p2p"
	"tweedle/edges/p2p/virtual"
)

// flood is a hub among honest nodes, and a crowd that wants in.
type flood struct {
	t      *testing.T
	crowd  *virtual.Crowd
	hub    *node
	honest []*node // the hub first
	addr   *net.UDPAddr
	sent   int

	registry *prometheus.Registry // the hub's
}

const floodLimit = 32

func newFlood(t *testing.T, net1 *virtual.Network) *flood {
	cfg := config(t, net1, 0)
	cfg.MinPeers, cfg.MinOutbound, cfg.MaxPeers = 4, 4, floodLimit
	registry := prometheus.NewRegistry()
	cfg.Registry = registry
	f := &flood{t: t, hub: startWith(t, cfg, accept), registry: registry}
	f.honest = []*node{f.hub}
	for i := 1; i < 5; i++ {
		f.honest = append(f.honest, start(t, net1, i, f.hub.Addrs()...))
	}
	f.addr = hostAddr(0)
	f.crowd = net1.NewCrowd()
	time.Sleep(30 * time.Second)
	return f
}

// hostAddr is where host i is, in the form in which it listens.
func hostAddr(i int) *net.UDPAddr {
	return &net.UDPAddr{IP: net.IP(virtual.IP(i).AsSlice()).To16(), Port: virtual.Port}
}

// talk publishes a message a second from the honest in turn, until ctx ends.
func (f *flood) talk(ctx context.Context) {
	for ; ctx.Err() == nil; f.sent++ {
		_ = f.honest[f.sent%len(f.honest)].Publish(ctx, "t", fmt.Append(nil, "honest ", f.sent)) // who did not hear is counted
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// delivered returns how much of what the honest said the others heard.
func (f *flood) delivered() float64 {
	got, want := 0, 0
	for m := range f.sent {
		for k, n := range f.honest {
			if k != m%len(f.honest) {
				want++
				got += min(1, n.hears(fmt.Sprint("honest ", m)))
			}
		}
	}
	return float64(got) / float64(max(want, 1))
}

// one of the crowd makes a real handshake, and says hello as kind tells: never, wrongly, or as one of us does
// who then stays as long as it may.
func (f *flood) one(at netip.AddrPort, kind int) (shook bool) {
	who, err := virtual.NewStranger()
	if err != nil {
		f.t.Error(err)
		return false
	}
	words := virtual.Hello(p2p.NetworkID{Name: "virtual"})
	// It stays until it is sent away or the others need its place in this test.
	return who.Visit(f.t.Context(), f.crowd.Socket(at), f.addr, f.hub.ID(), [][]byte{nil, words[:len(words)-3], words}[kind], 10*time.Second) == nil
}

// heap returns what is used after a collection, in MiB.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// Real handshakes from ten times as many addresses as there are places, each in a /24 of its own: nobody
// crashes, the table holds, and the honest hear each other.
func TestAFloodOfHandshakes(t *testing.T) {
	handshakes, addresses := 2000/shrink, 1000
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		handshakes, addresses = 20_000, 10_000
	}
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		f := newFlood(t, net)
		defer f.crowd.Close()
		defer stopAll(f.honest)
		ctx, cancel := context.WithCancel(t.Context())
		var talking, crowd sync.WaitGroup
		talking.Go(func() { f.talk(ctx) })
		time.Sleep(10 * time.Second)
		before, base := heap(), runtime.NumGoroutine()
		var shook, next atomic.Int64
		for range 100 {
			crowd.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= handshakes {
						return
					}
					if f.one(netip.AddrPortFrom(virtual.CrowdIP(i%addresses), uint16(10000+i/addresses)), i%3) {
						shook.Add(1)
					}
				}
			})
		}
		over := make(chan struct{})
		go func() { crowd.Wait(); close(over) }()
		begin, most, grown := time.Now(), 0, 0.0
	watch:
		for k := 0; ; k++ {
			select {
			case <-over:
				break watch
			case <-time.After(time.Second):
			}
			most = max(most, len(f.hub.Peers()))
			if k%10 == 0 {
				grown = max(grown, heap()-before)
			}
		}
		took := time.Since(begin)
		time.Sleep(2 * time.Minute) // the dead are given up
		cancel()
		talking.Wait()
		// It goes on to dial some of those that are gone, six goroutines each: between two rounds nobody is dialed.
		after, left := heap()-before, runtime.NumGoroutine()
		for range 180 {
			time.Sleep(time.Second)
			left = min(left, runtime.NumGoroutine())
		}
		t.Logf("%d of %d handshakes in %v; at most %d peers; heap +%.1f MiB at most with the crowd's own, +%.1f after; %d goroutines before, %d after; delivered %.4f of %d messages",
			shook.Load(), handshakes, took, most, grown, after, base, left, f.delivered(), f.sent)
		if most > floodLimit {
			t.Errorf("%d peers, the limit is %d", most, floodLimit)
		}
		if int(shook.Load()) < handshakes/2 {
			t.Errorf("only %d handshakes: this is no flood", shook.Load())
		}
		if grown > 64 || left > base+floodLimit+16 {
			t.Errorf("heap +%.1f MiB, %d goroutines before and %d after", grown, base, left)
		}
		if f.delivered() < 0.99 {
			t.Errorf("%.4f of the honest messages are delivered", f.delivered())
		}
	})
}

// First packets of handshakes under forged addresses: each costs a Retry and nothing that lasts. Then as many
// from addresses that answer the Retry and say no more: bounded in all, and who comes later is let in.
func TestAFloodOfHalfOpenHandshakes(t *testing.T) {
	initials, real := 10_000/shrink, 300/shrink
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		initials, real = 100_000, 3000
	}
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		f := newFlood(t, net)
		defer f.crowd.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var talking sync.WaitGroup
		talking.Go(func() { f.talk(ctx) })
		initial := f.initial()
		time.Sleep(10 * time.Second)
		before, base := heap(), runtime.NumGoroutine()
		grown, most, half := 0.0, 0, 0.0
		look := func() {
			most, half = max(most, runtime.NumGoroutine()), max(half, f.halfOpen())
		}
		for i := range initials {
			// The connection id, which is in the clear, makes each another handshake.
			rand.Read(initial[6 : 6+initial[5]])
			if err := f.crowd.Send(initial, netip.AddrPortFrom(virtual.CrowdIP(i%10_000), uint16(20000+i/10_000)), f.addr); err != nil {
				t.Fatal(err)
			}
			if i%10 == 0 {
				time.Sleep(time.Millisecond)
				look()
			}
		}
		grown = heap() - before
		forged, forgedHalf := most, half
		var crowd sync.WaitGroup
		for i := range real {
			crowd.Go(func() { f.halfway(netip.AddrPortFrom(virtual.CrowdIP(i), 9000)) })
			if i%50 == 0 {
				time.Sleep(20 * time.Millisecond)
				look()
			}
		}
		for range 50 {
			time.Sleep(20 * time.Millisecond)
			look()
		}
		crowd.Wait()
		late := start(t, net, 50, f.hub.Addrs()...)
		time.Sleep(30 * time.Second)
		if len(late.Peers()) == 0 {
			t.Error("who comes later is not let in")
		}
		late.stop()
		time.Sleep(time.Minute)
		cancel()
		talking.Wait()
		t.Logf("%d forged: heap +%.1f MiB, goroutines %d to %d, %v half open; %d real: %v half open; after it %d goroutines; delivered %.4f of %d",
			initials, grown, base, forged, forgedHalf, real, half, runtime.NumGoroutine(), f.delivered(), f.sent)
		if grown > 64 || forged > base+16 || forgedHalf > 0 {
			t.Error("a forged packet costs something that lasts")
		}
		if half > p2p.DefaultMaxHalfOpen || half == 0 {
			t.Errorf("%v half-open handshakes, the limit is %d", half, p2p.DefaultMaxHalfOpen)
		}
		if f.delivered() < 0.99 {
			t.Errorf("%.4f of the honest messages are delivered", f.delivered())
		}
		stopAll(f.honest)
	})
}

// tap is a socket on which some packets are lost.
type tap struct {
	net.PacketConn
	out func([]byte) (goes bool)
	in  func() (comes bool)
}

func (s *tap) WriteTo(p []byte, to net.Addr) (int, error) {
	if !s.out(p) {
		return len(p), nil
	}
	return s.PacketConn.WriteTo(p, to)
}

func (s *tap) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.PacketConn.ReadFrom(p)
		if err != nil || s.in() {
			return n, from, err
		}
	}
}

// shake begins a handshake on a socket that loses packets.
func (f *flood) shake(at netip.AddrPort, timeout time.Duration, out func([]byte) bool, in func() bool) {
	key, err := p2p.NewKey()
	if err != nil {
		f.t.Error(err)
		return
	}
	id, err := libp2ptls.NewIdentity(key)
	if err != nil {
		f.t.Error(err)
		return
	}
	socket := f.crowd.Socket(at)
	defer socket.Close()
	tr := &quic.Transport{Conn: &tap{socket, out, in}}
	defer tr.Close()
	conf, _ := id.ConfigForPeer(f.hub.ID())
	ctx, cancel := context.WithTimeout(f.t.Context(), timeout)
	defer cancel()
	if c, err := tr.Dial(ctx, f.addr, conf, &quic.Config{Versions: []quic.Version{quic.Version1}}); err == nil {
		f.t.Error("a handshake that hears nothing ends")
		c.CloseWithError(0, "")
	}
}

// initial returns the first packet of a handshake.
func (f *flood) initial() (first []byte) {
	f.shake(netip.AddrPortFrom(virtual.CrowdIP(0), 1), 100*time.Millisecond, func(p []byte) bool {
		if first == nil {
			first = append(first, p...)
		}
		return false
	}, func() bool { return true })
	return first
}

// halfway answers a Retry, and hears nothing that comes after it.
func (f *flood) halfway(at netip.AddrPort) {
	heard := 0
	f.shake(at, 10*time.Second, func([]byte) bool { return true }, func() bool { heard++; return heard == 1 })
}

// halfOpen reads the metric.
func (f *flood) halfOpen() float64 {
	families, err := f.registry.Gather()
	if err != nil {
		f.t.Error(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "tweedle_p2p_half_open" && m.GetLabel()[0].GetValue() == "now" {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}
