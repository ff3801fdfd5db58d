package p2p

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// newResourceManager bounds what all peers together, and each one, may make the stack hold. libp2p's
// own defaults grow with the machine's memory; ours are what the configuration says. met is told of each time
// that one of the limits of what peers do with their connections was met; it must not wait.
func newResourceManager(c Config, met func(limit string)) (network.ResourceManager, error) {
	limit := func(conns, streams int, memory int64) rcmgr.ResourceLimits {
		return rcmgr.ResourceLimits{
			Conns: rcmgr.LimitVal(conns), ConnsInbound: rcmgr.LimitVal(conns), ConnsOutbound: rcmgr.LimitVal(conns),
			Streams: rcmgr.LimitVal(streams), StreamsInbound: rcmgr.LimitVal(streams), StreamsOutbound: rcmgr.LimitVal(streams),
			Memory: rcmgr.LimitVal64(memory), FD: rcmgr.Unlimited, // one UDP socket serves all
		}
	}
	// Whoever the table will refuse or displace has a connection before it knows; and so has the displaced
	// one until it is closed.
	conns := 2*c.MaxPeers + c.hellos()
	limits := rcmgr.PartialLimitConfig{
		System:    limit(conns, c.MaxPeers*MaxStreamsPerPeer, c.MaxMemory),
		Transient: limit(c.MaxHalfOpen, 2*c.MaxHalfOpen, c.MaxMemory/4),
		// No address is trusted more than another.
		AllowlistedSystem:    rcmgr.ResourceLimits{Conns: rcmgr.BlockAllLimit},
		AllowlistedTransient: rcmgr.ResourceLimits{Conns: rcmgr.BlockAllLimit},
		PeerDefault:          limit(MaxConnsPerPeer, MaxStreamsPerPeer, c.peerMemory()),
		ProtocolDefault:      limit(conns, c.MaxPeers*MaxStreamsPerPeer, c.MaxMemory),
		ProtocolPeerDefault:  limit(MaxConnsPerPeer, MaxStreamsPerPeer, c.peerMemory()),
		Conn:                 limit(1, MaxStreamsPerPeer, c.peerMemory()),
		Stream:               limit(0, 1, c.peerMemory()/2),
	}.Build(rcmgr.DefaultLimits.Scale(c.MaxMemory, 0))

	perIP := c.MaxConnsPerIP
	burst := rate.Limit{RPS: 0.2, Burst: 2 * perIP} // a connection every five seconds, in the long run
	loopback4, loopback6 := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(), rcmgr.WithMetrics(reporter(met)),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: perIP}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: perIP}, {PrefixLength: 48, ConnCount: 8 * perIP}}),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: loopback4, ConnCount: math.MaxInt}},
			[]rcmgr.NetworkPrefixLimit{{Network: loopback6, ConnCount: math.MaxInt}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{{Prefix: loopback4}, {Prefix: loopback6}},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: burst}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: burst}, {PrefixLength: 48, Limit: rate.Limit{RPS: 8 * burst.RPS, Burst: 8 * burst.Burst}}},
				GracePeriod:      time.Minute,
			},
		}))
}

// What a peer meets that uses its connections too much; the values of the metric's label.
const (
	limitMemory  = "memory"  // receive windows and buffers, of one peer or of all
	limitStreams = "streams" // of one peer, of all, or of those that have not said what they are for
	limitConns   = "connections_of_peer"
)

// Limits that keep back no peer, and which no operator need be told of: what is over them is not remembered.
const (
	limitBook        = "known_addresses"
	limitBookAddress = "known_addresses_of_address"
	limitBookSource  = "known_addresses_of_source"
	limitCopies      = "gossip_copies" // messages that nobody had a turn for, and peers that wait with one
)

// meter is told that a limit was met; nil is told nothing.
type meter func(limit string)

func (m meter) met(limit string) {
	if m != nil {
		m(limit)
	}
}

// reporter is told by the resource manager what it allows and blocks. Blocked connections it names itself.
type reporter func(limit string)

func (r reporter) BlockMemory(int)                       { r(limitMemory) }
func (r reporter) BlockStream(PeerID, network.Direction) { r(limitStreams) }
func (r reporter) BlockProtocol(protocol.ID)             { r(limitStreams) }
func (r reporter) BlockProtocolPeer(protocol.ID, PeerID) { r(limitStreams) }
func (r reporter) BlockPeer(PeerID)                      { r(limitConns) }
func (reporter) BlockConn(network.Direction, bool)       {}
func (reporter) BlockService(string)                     {}
func (reporter) BlockServicePeer(string, PeerID)         {}
func (reporter) AllowConn(network.Direction, bool)       {}
func (reporter) AllowStream(PeerID, network.Direction)   {}
func (reporter) AllowPeer(PeerID)                        {}
func (reporter) AllowProtocol(protocol.ID)               {}
func (reporter) AllowService(string)                     {}
func (reporter) AllowMemory(int)                         {}

// limited counts that a limit of the resource manager was met, and names it once a minute with what sets it.
func (h *Host) limited(limit string) {
	h.metrics.meet(limit)
	times := h.refusals.Add([2]string{"limit", limit}, time.Now())
	if times == 0 {
		return
	}
	c := h.cfg
	said := map[string]string{
		limitMemory: fmt.Sprintf("peers may take %d MiB of memory, one of them %d: --max-peer-memory allows more", c.MaxMemory>>20, c.peerMemory()>>20),
		limitStreams: fmt.Sprintf("%d streams of one peer, which is fixed; %d that have not said what they are for (--max-handshakes allows more), %d in all (--max-peers does)",
			MaxStreamsPerPeer, 2*c.MaxHalfOpen, c.MaxPeers*MaxStreamsPerPeer),
		limitConns: fmt.Sprintf("%d connections of one peer, which is fixed", MaxConnsPerPeer),
	}
	h.log.Warn("a limit holds peers back", "limit", limit, "is", said[limit], "times", times)
}

// admission bounds work that peers cause: a number of places in all, a share of them for one
// peer, and a smaller number that run at the same time.
type admission struct {
	running chan struct{} // one entry for each that runs
	// reserve, if not 0, keeps places for those who hold none: who holds some gets no more than
	// one in reserve of the places that are left. n greedy peers then hold about n in n+reserve.
	reserve int

	mu     sync.Mutex
	places int            // free ones
	share  int            // places that one peer may hold
	held   map[PeerID]int // places that each peer holds; no entry for none
}

// gossipReserve leaves a place for the 65th peer when 64, the most that are kept, take what they
// can of 512.
const gossipReserve = 16

// newAdmission takes half of the places as a peer's share if none is given.
func newAdmission(workers, queue, share int) *admission {
	if share == 0 {
		share = max(1, (workers+queue)/2)
	}
	return &admission{
		running: make(chan struct{}, workers),
		places:  workers + queue,
		share:   share,
		held:    make(map[PeerID]int),
	}
}

// enter takes a place for the peer and reports whether there was one. leave must follow.
func (a *admission) enter(p PeerID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := a.held[p]
	if a.places == 0 || held >= a.share || a.reserve > 0 && held > a.places/a.reserve {
		return false
	}
	a.places--
	a.held[p]++
	return true
}

func (a *admission) leave(p PeerID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.places++
	if a.held[p]--; a.held[p] == 0 {
		delete(a.held, p)
	}
}

// taken returns the number of places in use, the running ones included.
func (a *admission) taken() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, k := range a.held {
		n += k
	}
	return n
}

// maxBuckets bounds the peers that a quota remembers. A bucket that is full again is forgotten, so
// only peers that asked a moment ago count.
const maxBuckets = 4096

// quota gives each peer a token bucket. It outlives connections: to reconnect refills nothing.
type quota struct {
	perSecond, burst float64

	mu      sync.Mutex
	buckets map[PeerID]bucket
}

type bucket struct {
	tokens float64
	at     time.Time // when tokens was true
}

func newQuota(perSecond float64, burst int) *quota {
	return &quota{perSecond: perSecond, burst: float64(burst), buckets: make(map[PeerID]bucket)}
}

// take reports whether the peer had a token left.
func (q *quota) take(p PeerID, now time.Time) bool {
	return q.spend(p, 1, 1, now)
}

// charge takes tokens that the peer has used already. It may be left in debt, in which solvent says no.
func (q *quota) charge(p PeerID, tokens int, now time.Time) {
	q.spend(p, float64(tokens), math.Inf(-1), now)
}

// solvent reports whether the peer is not in debt.
func (q *quota) solvent(p PeerID, now time.Time) bool {
	return q.spend(p, 0, 0, now)
}

// spend takes tokens if the peer has at least some number of them.
func (q *quota) spend(p PeerID, tokens, atLeast float64, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b, ok := q.buckets[p]
	if !ok {
		if len(q.buckets) >= maxBuckets && !q.sweep(now) {
			return false
		}
		b = bucket{tokens: q.burst, at: now}
	}
	b = bucket{tokens: q.level(b, now), at: now}
	ok = b.tokens >= atLeast
	if ok {
		b.tokens -= tokens
	}
	q.buckets[p] = b
	return ok
}

func (q *quota) level(b bucket, now time.Time) float64 {
	return min(q.burst, b.tokens+now.Sub(b.at).Seconds()*q.perSecond)
}

// sweep forgets the full buckets and reports whether there is room.
func (q *quota) sweep(now time.Time) bool {
	for p, b := range q.buckets {
		if q.level(b, now) >= q.burst {
			delete(q.buckets, p)
		}
	}
	return len(q.buckets) < maxBuckets
}
