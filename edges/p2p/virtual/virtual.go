// Package virtual puts p2p hosts on a simulated network, so that whole nodes with real QUIC, gossip and
// limits run inside a testing/synctest bubble in virtual time (simulator B).
//
// It promises: packets take the latency asked for, a cut link loses every packet, and nothing touches
// the machine's network. It is not repeatable bit for bit: goroutines still race in virtual time.
//
// It leaves to the caller: to make the network inside the bubble and to Close it, after the hosts.
package virtual

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/marcopolo/simnet"

	"tweedle/edges/p2p"
)

// Port is the UDP port of every host; each has its own address.
const Port = 7513

// DefaultBandwidth is the speed of every host's link in each direction, in bits per second.
const DefaultBandwidth = 100_000_000

// Network connects hosts. Use its methods from any goroutine of the bubble.
type Network struct {
	sim *simnet.Simnet

	mu      sync.Mutex
	latency time.Duration
	cut     map[[2]netip.Addr]bool // by sender and receiver
}

// NewNetwork starts a network on which a packet takes latency from one host to another.
func NewNetwork(latency time.Duration) *Network {
	n := &Network{latency: latency, cut: make(map[[2]netip.Addr]bool)}
	n.sim = &simnet.Simnet{
		LatencyFunc: func(*simnet.Packet) time.Duration {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.latency
		},
		// It logs packets to hosts that are not there, as to a node that is down.
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	n.sim.Start()
	return n
}

// Close ends the network. Close the hosts first: they say goodbye over it.
func (n *Network) Close() { n.sim.Close() }

// IP returns the address of host i, from 0 to 65535: a public one, each in a /24 of its own.
func IP(i int) netip.Addr {
	if i < 0 || i > 0xffff {
		panic(fmt.Sprintf("virtual: no address for host %d", i))
	}
	return netip.AddrFrom4([4]byte{5, byte(i >> 8), byte(i), 1})
}

// Attach makes the config that of a host at this address.
func (n *Network) Attach(cfg *p2p.Config, ip netip.Addr) {
	cfg.Listen = []string{fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", ip, Port)}
	cfg.Socket = func(local *net.UDPAddr) (net.PacketConn, error) {
		link := simnet.LinkSettings{BitsPerSecond: DefaultBandwidth}
		n.mu.Lock()
		defer n.mu.Unlock() // NewEndpoint has no lock of its own
		return &socket{n.sim.NewEndpoint(local, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}), n, ip}, nil
	}
}

// SetLatency changes the time that packets take from now on.
func (n *Network) SetLatency(latency time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency = latency
}

// Cut loses all packets from one host to the other, in this direction only.
func (n *Network) Cut(from, to netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]netip.Addr{from, to}] = true
}

// Heal undoes Cut.
func (n *Network) Heal(from, to netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, [2]netip.Addr{from, to})
}

// Partition cuts all links between hosts of different groups, in both directions, and heals all others.
// Hosts in no group keep all their links.
func (n *Network) Partition(groups ...[]netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	for i, a := range groups {
		for j, b := range groups {
			if i == j {
				continue
			}
			for _, from := range a {
				for _, to := range b {
					n.cut[[2]netip.Addr{from, to}] = true
				}
			}
		}
	}
}

// HealAll undoes every cut.
func (n *Network) HealAll() { n.Partition() }

// socket is a host's end of the network. Packets on a cut link are lost as it sends them.
type socket struct {
	*simnet.SimConn
	network *Network
	ip      netip.Addr
}

func (s *socket) WriteTo(p []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return s.SimConn.WriteTo(p, to)
	}
	at := netip.AddrPortFrom(udp.AddrPort().Addr().Unmap(), uint16(udp.Port))
	if s.network.lost(s.ip, at.Addr()) {
		return len(p), nil
	}
	if crowdPrefix.Contains(at.Addr()) {
		_, err := s.SimConn.WriteTo(tag(p, at), crowdEnd())
		return len(p), err
	}
	return s.SimConn.WriteTo(p, to)
}

// ReadFrom says of a packet of the crowd from whom of it it is.
func (s *socket) ReadFrom(p []byte) (int, net.Addr, error) {
	b := make([]byte, tagSize+len(p))
	n, from, err := s.SimConn.ReadFrom(b)
	if udp, ok := from.(*net.UDPAddr); ok && err == nil && crowdPrefix.Contains(udp.AddrPort().Addr().Unmap()) {
		who, packet, ok := untag(b[:n])
		if !ok {
			return 0, from, nil
		}
		return copy(p, packet), net.UDPAddrFromAddrPort(who), nil
	}
	return copy(p, b[:min(n, len(b))]), from, err
}

func (n *Network) lost(from, to netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[[2]netip.Addr{from, to}]
}
