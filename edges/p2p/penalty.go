package p2p

import (
	"math"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// BanThreshold is the number of penalty points at which a peer is disconnected and banned.
	BanThreshold = 100
	// BanTime is how long a ban lasts.
	BanTime = time.Hour
	// PenaltyHalfLife is the time in which half of a peer's points are forgiven.
	PenaltyHalfLife = 10 * time.Minute
	// MaxPenalties bounds the peers with points. The one with the fewest makes room for a new one.
	MaxPenalties = 4096
)

// penalties counts the points of misbehaving peers. It is plain data: who is disconnected is for the
// caller to do.
type penalties struct {
	mu     sync.Mutex
	max    int
	points map[PeerID]penalty
}

type penalty struct {
	points float64
	at     time.Time // when points was true
	until  time.Time // end of a ban; zero for none
}

func newPenalties(limit int) *penalties {
	return &penalties{max: limit, points: make(map[PeerID]penalty)}
}

func (p penalty) level(now time.Time) float64 {
	return p.points * math.Exp2(-float64(now.Sub(p.at))/float64(PenaltyHalfLife))
}

// add gives the peer points and reports whether this banned it.
func (ps *penalties) add(id PeerID, points float64, now time.Time) (banned bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p, ok := ps.points[id]
	if !ok && len(ps.points) >= ps.max {
		ps.evict(now)
	}
	p.points, p.at = p.level(now)+points, now
	if p.points >= BanThreshold && !now.Before(p.until) {
		p.until, banned = now.Add(BanTime), true
	}
	ps.points[id] = p
	return banned
}

// evict makes room for one: those whose ban is over or who have none go before the banned, and of
// these the one with the fewest points.
func (ps *penalties) evict(now time.Time) {
	var victim PeerID
	least := math.Inf(1)
	for id, p := range ps.points {
		level := p.level(now)
		if now.Before(p.until) {
			level += 1e6
		}
		if level < least || level == least && id < victim {
			victim, least = id, level
		}
	}
	delete(ps.points, victim)
}

// level returns the points that the peer has now.
func (ps *penalties) level(id PeerID, now time.Time) float64 {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.points[id].level(now)
}

func (ps *penalties) banned(id PeerID, now time.Time) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return now.Before(ps.points[id].until)
}

// connGater keeps banned peers out, in both directions, before the hello.
type connGater struct {
	penalties *penalties
	refused   func(Refusal)
}

func (g *connGater) InterceptPeerDial(p PeerID) bool             { return !g.penalties.banned(p, time.Now()) }
func (g *connGater) InterceptAddrDial(PeerID, ma.Multiaddr) bool { return true }
func (g *connGater) InterceptAccept(network.ConnMultiaddrs) bool { return true }
func (g *connGater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) {
	return true, 0
}

func (g *connGater) InterceptSecured(dir network.Direction, p PeerID, c network.ConnMultiaddrs) bool {
	if !g.penalties.banned(p, time.Now()) {
		return true
	}
	g.refused(Refusal{Peer: p, Addr: c.RemoteMultiaddr(), Inbound: dir == network.DirInbound, Reason: RefusedBanned, Err: errBanned})
	return false
}
