package p2p

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
)

// Usual names of the files of a host.
const (
	KeyName   = "p2p.key"
	PeersName = "peers.json" // addresses of good peers
)

// Defaults of Config. A zero field of Config takes the default of the same name.
const (
	// DefaultMinPeers is the number of peers that a host dials for.
	DefaultMinPeers = 16
	// DefaultMinOutbound is the number of peers that a host wants to have chosen itself: whoever
	// fills our inbound side must not be all that we see.
	DefaultMinOutbound = 8
	// DefaultMaxPeers is the number of sessions; a newcomer takes the place of the one that is worth least.
	DefaultMaxPeers = 64
	// DefaultMaxMemory bounds what the peers together may make the network stack hold, in bytes; one of them
	// may an eighth of it.
	DefaultMaxMemory = 256 << 20
	// DefaultMaxConnsPerIP bounds the connections of one IPv4 address, or of one IPv6 /56 block.
	// libp2p exempts loopback.
	DefaultMaxConnsPerIP = 8
	// DefaultMaxHalfOpen bounds the inbound connections that have not passed the hello, those in QUIC's
	// handshake included. Half of it may be saying hello, and an eighth may be of one IPv4 /24 or IPv6 /48.
	DefaultMaxHalfOpen = 128
	// DefaultHelloTimeout is the time in which a new connection must have named its network.
	DefaultHelloTimeout = 5 * time.Second
	// DefaultSeenTTL is how long a gossip message is remembered, and so not delivered again.
	DefaultSeenTTL = 5 * time.Minute
	// DefaultHeartbeat is the interval in which gossipsub mends its mesh.
	DefaultHeartbeat = time.Second
)

// Limits that no configuration changes.
const (
	// MaxMessageSize is the largest gossip message of any topic, in bytes. Larger things are
	// announced by id and fetched by request.
	MaxMessageSize = 1 << 20
	// MaxConnsPerPeer bounds the connections of one peer; two hosts that dial each other have two.
	MaxConnsPerPeer = 4
	// MaxStreamsPerPeer bounds the streams of one peer in one direction.
	MaxStreamsPerPeer = 128
	// MinMemory is the least Config.MaxMemory: a peer's eighth holds a few of the largest messages.
	MinMemory = 32 << 20
)

// PeerID names a host: the hash of its public key.
type PeerID = peer.ID

// Config is what a Host is made of. Fields without a default must be set.
type Config struct {
	// Network is what a peer must name first.
	Network NetworkID
	// Listen are the multiaddrs to listen on, QUIC only, as "/ip4/0.0.0.0/udp/0/quic-v1"; at least one.
	Listen []string
	// Key is the host's identity. It is not a smesher's key; see LoadOrCreateKey.
	Key crypto.PrivKey
	// Bootnodes are multiaddrs with /p2p/; they are never forgotten. The host's own is left out.
	Bootnodes []string
	// NAT asks the router for a way in, by UPnP, NAT-PMP or PCP, unless all of Listen is loopback.
	NAT bool
	// PeersFile remembers good addresses across restarts; "" remembers none.
	PeersFile string

	MinPeers      int           // peers to dial for; DefaultMinPeers
	MinOutbound   int           // of these, chosen by us; DefaultMinOutbound
	MaxPeers      int           // peers to keep; DefaultMaxPeers
	MaxMemory     int64         // bytes, at least MinMemory; DefaultMaxMemory
	MaxConnsPerIP int           // connections; DefaultMaxConnsPerIP
	MaxHalfOpen   int           // connections, at least 8; DefaultMaxHalfOpen
	HelloTimeout  time.Duration // DefaultHelloTimeout
	SeenTTL       time.Duration // at least two layers; DefaultSeenTTL
	Heartbeat     time.Duration // DefaultHeartbeat

	// OnRefused is called, if set, for each refused connection. It must return at once.
	OnRefused func(Refusal)
	// Logger gets what an operator should know; nil discards it.
	Logger *slog.Logger
	// Registry gets the metrics; nil keeps them unseen.
	Registry prometheus.Registerer

	// Socket replaces the operating system's UDP socket; see package virtual. nil is the real one.
	Socket func(local *net.UDPAddr) (net.PacketConn, error)
}

// withDefaults returns the config with its zero fields filled, or the first thing wrong with it.
func (c Config) withDefaults() (Config, error) {
	if c.MaxPeers != 0 {
		setInt(&c.MinPeers, min(DefaultMinPeers, c.MaxPeers))
	}
	setInt(&c.MinPeers, DefaultMinPeers)
	setInt(&c.MinOutbound, min(DefaultMinOutbound, c.MinPeers))
	setInt(&c.MaxPeers, max(DefaultMaxPeers, c.MinPeers))
	setInt(&c.MaxMemory, DefaultMaxMemory)
	setInt(&c.MaxConnsPerIP, DefaultMaxConnsPerIP)
	setInt(&c.MaxHalfOpen, DefaultMaxHalfOpen)
	setInt(&c.HelloTimeout, DefaultHelloTimeout)
	setInt(&c.SeenTTL, DefaultSeenTTL)
	setInt(&c.Heartbeat, DefaultHeartbeat)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Key == nil {
		return c, errors.New("p2p: no identity key: make one with LoadOrCreateKey")
	}
	if err := c.Network.validate(); err != nil {
		return c, err
	}
	if c.MinPeers < 0 || c.MinOutbound < 0 || c.MaxPeers < c.MinPeers || c.MinPeers < c.MinOutbound {
		return c, fmt.Errorf("p2p: peers: min outbound %d, min %d, max %d: set them in rising order", c.MinOutbound, c.MinPeers, c.MaxPeers)
	}
	if c.MaxHalfOpen < 8 {
		return c, fmt.Errorf("p2p: %d handshakes at a time: allow 8 or more", c.MaxHalfOpen)
	}
	if c.MaxMemory < MinMemory {
		return c, fmt.Errorf("p2p: %d bytes of memory for peers: allow %d or more", c.MaxMemory, MinMemory)
	}
	if len(c.Listen) == 0 {
		return c, errors.New("p2p: no listen address: give one as /ip4/0.0.0.0/udp/0/quic-v1")
	}
	for _, s := range c.Listen {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return c, fmt.Errorf("p2p: listen address %q is no multiaddress: give it as /ip4/0.0.0.0/udp/0/quic-v1", s)
		}
		if !isQUIC(a) {
			return c, fmt.Errorf("p2p: listen address %q is not QUIC: give it as /ip4/0.0.0.0/udp/0/quic-v1", s)
		}
	}
	return c, nil
}

// asksRouter reports whether a router may stand between us and our peers.
func (c Config) asksRouter() bool {
	return c.NAT && c.Socket == nil && slices.ContainsFunc(c.Listen, func(s string) bool {
		a, err := ma.NewMultiaddr(s)
		return err == nil && !manet.IsIPLoopback(a)
	})
}

// peerMemory is what one peer may make the stack hold, in bytes.
func (c Config) peerMemory() int64 { return c.MaxMemory / 8 }

// hellos is how many inbound connections may be saying hello.
func (c Config) hellos() int { return c.MaxHalfOpen / 2 }

func setInt[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// NewKey makes a fresh identity from the system's randomness.
func NewKey() (crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	return key, err
}
