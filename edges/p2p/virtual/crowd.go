package virtual

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/marcopolo/simnet"
)

// crowdPrefix has the addresses of the crowd; hosts are elsewhere.
var crowdPrefix = netip.MustParsePrefix("6.0.0.0/8")

// tagSize is what a packet from or to the crowd carries besides: address and port of its end there.
const tagSize = 6

// Crowd is a great many addresses behind one link, each of them plain data until it is used: what a flood
// comes from. The link is faster than any host's.
type Crowd struct {
	end  *simnet.SimConn
	read sync.WaitGroup

	mu      sync.Mutex
	members map[netip.AddrPort]*member
}

func crowdEnd() *net.UDPAddr {
	return &net.UDPAddr{IP: crowdPrefix.Addr().AsSlice(), Port: Port}
}

// NewCrowd starts a network's crowd, of which there is one. Close it before the network.
func (n *Network) NewCrowd() *Crowd {
	link := simnet.LinkSettings{BitsPerSecond: 100 * DefaultBandwidth}
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &Crowd{end: n.sim.NewEndpoint(crowdEnd(), simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}), members: make(map[netip.AddrPort]*member)}
	c.read.Go(c.hear)
	return c
}

// CrowdIP returns an address of the crowd, from 0 to 65535, each in a /24 of its own.
func CrowdIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{6, byte(i >> 8), byte(i), 1}) }

// Close ends the crowd.
func (c *Crowd) Close() {
	c.end.Close()
	c.read.Wait()
}

// hear gives each packet to whom it is for, if it is there and has room.
func (c *Crowd) hear() {
	for {
		b := make([]byte, 2048)
		n, from, err := c.end.ReadFrom(b)
		if err != nil {
			return
		}
		to, packet, ok := untag(b[:n])
		c.mu.Lock()
		m := c.members[to]
		c.mu.Unlock()
		if !ok || m == nil {
			continue
		}
		select {
		case m.packets <- heard{packet, from}:
		default:
		}
	}
}

// Send sends a packet that says it is from an address of the crowd; nobody need be there.
func (c *Crowd) Send(p []byte, from netip.AddrPort, to net.Addr) error {
	_, err := c.end.WriteTo(tag(p, from), to)
	return err
}

// Socket returns a socket at an address of the crowd.
func (c *Crowd) Socket(at netip.AddrPort) net.PacketConn {
	m := &member{crowd: c, at: at, packets: make(chan heard, 64), done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members[at] = m
	return m
}

type heard struct {
	packet []byte
	from   net.Addr
}

type member struct {
	crowd   *Crowd
	at      netip.AddrPort
	packets chan heard
	done    chan struct{}
	end     sync.Once
}

func (m *member) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case h := <-m.packets:
		return copy(p, h.packet), h.from, nil
	case <-m.done:
		return 0, nil, os.ErrDeadlineExceeded
	}
}

func (m *member) WriteTo(p []byte, to net.Addr) (int, error) {
	return len(p), m.crowd.Send(p, m.at, to)
}

func (m *member) Close() error {
	m.end.Do(func() {
		close(m.done)
		m.crowd.mu.Lock()
		defer m.crowd.mu.Unlock()
		delete(m.crowd.members, m.at)
	})
	return nil
}

func (m *member) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(m.at) }
func (m *member) SetDeadline(at time.Time) error   { return m.SetReadDeadline(at) }
func (m *member) SetWriteDeadline(time.Time) error { return nil }
func (m *member) SetReadDeadline(at time.Time) error { // QUIC sets one to end a read for good
	if !at.IsZero() {
		return m.Close()
	}
	return nil
}

func tag(p []byte, who netip.AddrPort) []byte {
	b := make([]byte, 0, tagSize+len(p))
	ip := who.Addr().As4()
	b = append(b, ip[:]...)
	b = binary.BigEndian.AppendUint16(b, who.Port())
	return append(b, p...)
}

func untag(b []byte) (who netip.AddrPort, p []byte, ok bool) {
	if len(b) < tagSize {
		return who, nil, false
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), binary.BigEndian.Uint16(b[4:])), b[tagSize:], true
}
