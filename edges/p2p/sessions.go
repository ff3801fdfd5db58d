package p2p

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/zeebo/blake3"
)

// Why a session was refused or ended; the values of Left.Reason and of the metric's label.
const (
	LeftRoom   = "room"   // it made room for a newcomer
	LeftShare  = "share"  // it made room for a newcomer of its own address block, which has its share
	LeftPeer   = "peer"   // the peer closed it
	LeftSilent = "silent" // nothing was heard from the peer until QUIC gave it up
	LeftUs     = "us"     // we closed it for another reason: a ban, a second connection, our own end
)

const (
	// MaxLeft bounds the ended sessions that a host remembers.
	MaxLeft = 64
	// shareOfBlock is the part of the table that one address block may have: one in so many.
	shareOfBlock = 4
	// ageSpread is the most by which the seed makes a session look older: a quarter.
	ageSpread = 0.25
)

// sessionTable decides who stays. It is plain data without a lock: it closes nothing, time is an argument,
// and whom admit names as victim is out of the table before anybody can look it up again.
//
// A session is one connection that has passed the hello. When the table is full, or an address block has
// its share of it, a newcomer takes the place of the one that is worth least:
// first of peers from which no message was ever accepted, then of peers that were of use, and last of
// those with a request under way; among equals the one whose last use is longest ago. Each host sees ages
// through its own seed, so that hosts with the same sessions do not end the same ones. A peer that we
// dialed or that is protected is nobody's victim, and the newcomer who finds only such is refused.
// So a flood of newcomers displaces newcomers, and one peer that was of use at most.
type sessionTable struct {
	limit, share int
	seed         [16]byte
	protected    map[PeerID]bool // never written
	next         uint64          // id of the newest session
	sessions     map[uint64]*session
	peers        map[PeerID]*standing
	blocks       map[netip.Prefix]int // sessions of each
	ended        map[string]uint64    // by reason
	left         []Left               // the newest last
}

type session struct {
	id      uint64
	peer    PeerID
	of      *standing    // the peer's
	block   netip.Prefix // not valid: no share applies
	inbound bool
	since   time.Time
}

// standing is what all sessions of a peer have in common. It ends with the last of them.
type standing struct {
	sessions, outbound int
	busy               int       // requests under way, in both directions
	used               time.Time // when last of use; without any, when it came
	useful             bool      // a message of it was accepted
	spread             float64   // by which its age looks larger
	protected          bool
}

// Left tells of a session that ended.
type Left struct {
	Peer    PeerID
	Inbound bool
	Since   time.Time
	At      time.Time
	Reason  string // one of the Left constants
}

// newSessionTable returns a table for limit sessions, of which an address block may have share.
func newSessionTable(limit, share int, seed [16]byte, protected map[PeerID]bool) *sessionTable {
	return &sessionTable{
		limit: limit, share: share, seed: seed, protected: protected,
		sessions: make(map[uint64]*session), peers: make(map[PeerID]*standing), blocks: make(map[netip.Prefix]int), ended: make(map[string]uint64),
	}
}

// admit returns the id of the newcomer's session, and the victim's that gave way, else 0. Without an id
// the newcomer is refused, for the reason RefusedFull or RefusedShare.
func (t *sessionTable) admit(p PeerID, block netip.Prefix, inbound bool, now time.Time) (id, victim uint64, refused string) {
	atShare := block.IsValid() && t.blocks[block] >= t.share && !t.protected[p]
	if atShare || len(t.sessions) >= t.limit {
		reason := LeftRoom
		refused = RefusedFull
		if atShare {
			reason, refused = LeftShare, RefusedShare
		}
		least := t.least(block, atShare, now)
		if least == nil {
			return 0, 0, refused
		}
		victim = least.id
		t.remove(victim, reason, now)
	}
	st := t.peers[p]
	if st == nil {
		st = &standing{used: now, spread: t.spread(p), protected: t.protected[p]}
		t.peers[p] = st
	}
	st.sessions++
	if !inbound {
		st.outbound++
	}
	t.next++
	t.sessions[t.next] = &session{t.next, p, st, block, inbound, now}
	if block.IsValid() {
		t.blocks[block]++
	}
	return t.next, victim, ""
}

// least returns the session that is worth least, of all or of one block, or nil.
func (t *sessionTable) least(block netip.Prefix, only bool, now time.Time) *session {
	var least *session
	for _, s := range t.sessions {
		if s.of.safe() || only && s.block != block {
			continue
		}
		if least == nil || s.compare(least, now) < 0 {
			least = s
		}
	}
	return least
}

// safe reports whether the peer's sessions are nobody's victims.
func (st *standing) safe() bool { return st.outbound > 0 || st.protected }

// compare is negative if s goes before other.
func (s *session) compare(other *session, now time.Time) int {
	if c := cmp.Compare(s.of.class(), other.of.class()); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(other.of.age(now), s.of.age(now)), cmp.Compare(s.id, other.id))
}

func (st *standing) class() int {
	switch {
	case st.busy > 0:
		return 2
	case st.useful:
		return 1
	}
	return 0
}

func (st *standing) age(now time.Time) float64 {
	return float64(now.Sub(st.used)) * (1 + st.spread)
}

// spread is between 0 and ageSpread, and no peer can choose it without our seed.
func (t *sessionTable) spread(p PeerID) float64 {
	sum := blake3.Sum256(append(t.seed[:], p...))
	return ageSpread * float64(binary.LittleEndian.Uint32(sum[:])) / (1 << 32)
}

// remove ends a session. It reports whether there was one: a second end counts for nothing.
func (t *sessionTable) remove(id uint64, reason string, now time.Time) bool {
	s := t.sessions[id]
	if s == nil {
		return false
	}
	delete(t.sessions, id)
	if s.block.IsValid() {
		if t.blocks[s.block]--; t.blocks[s.block] == 0 {
			delete(t.blocks, s.block)
		}
	}
	if !s.inbound {
		s.of.outbound--
	}
	if s.of.sessions--; s.of.sessions == 0 {
		delete(t.peers, s.peer)
	}
	t.ended[reason]++
	if len(t.left) == MaxLeft {
		t.left = slices.Delete(t.left, 0, 1)
	}
	t.left = append(t.left, Left{Peer: s.peer, Inbound: s.inbound, Since: s.since, At: now, Reason: reason})
	return true
}

// use notes that a message of the peer was accepted.
func (t *sessionTable) use(p PeerID, now time.Time) {
	if st := t.peers[p]; st != nil {
		st.used, st.useful = now, true
	}
}

// begin notes that a request from or to the peer is under way, and end that it is over. A peer that left
// in between has no standing; end must be called with what begin returned.
func (t *sessionTable) begin(p PeerID) *standing {
	st := t.peers[p]
	if st != nil {
		st.busy++
	}
	return st
}

func (t *sessionTable) end(st *standing) {
	if st != nil {
		st.busy--
	}
}

// sessionBlock returns the block in which an owner of many addresses has them: an IPv4 /24 or an IPv6 /48.
// It is not valid for addresses of loopback and of private networks, which a stranger cannot have.
func sessionBlock(addr ma.Multiaddr) netip.Prefix {
	ip, err := manet.ToIP(addr)
	if err != nil || isPrivate(addr) {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(ip) // isPrivate has tried it
	bits := 48
	if a = a.Unmap(); a.Is4() {
		bits = 24
	}
	block, _ := a.Prefix(bits) // no error: the address has as many bits
	return block
}
