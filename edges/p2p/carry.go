package p2p

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
)

// sessions carries out what the table decides: it owns the connections that passed the hello, and closes
// each once.
type sessions struct {
	mu    sync.Mutex
	table *sessionTable
	conns map[uint64]*sessionConn // as many as the table has sessions
	// reached tells that a peer with a public address dialed us.
	reached bool
	// displaced, if set, is told of each peer whose session gave way, and the limit that was met.
	displaced func(PeerID, string)
}

func newSessions(table *sessionTable) *sessions {
	return &sessions{table: table, conns: make(map[uint64]*sessionConn)}
}

// errNoRoom carries the reason why the table refused.
type errNoRoom struct{ reason, text string }

func (e *errNoRoom) Error() string { return e.text }

// admit makes a session of a connection, and closes the one that gives way to it.
func (s *sessions) admit(c transport.CapableConn, inbound bool) (transport.CapableConn, error) {
	passed(c)
	block := sessionBlock(c.RemoteMultiaddr())
	s.mu.Lock()
	id, out, refused := s.table.admit(c.RemotePeer(), block, inbound, time.Now())
	victim := s.conns[out]
	delete(s.conns, out)
	mine := &sessionConn{CapableConn: c, id: id, owner: s}
	if id != 0 {
		s.conns[id] = mine
		s.reached = s.reached || inbound && !isPrivate(c.RemoteMultiaddr())
	}
	s.mu.Unlock()
	if victim != nil {
		victim.shut(func() error { return victim.CapableConn.CloseWithError(codeRoom) })
		if s.displaced != nil {
			s.displaced(victim.RemotePeer(), fmt.Sprintf("%d sessions (--max-peers), %d of an address block", s.table.limit, s.table.share))
		}
	}
	switch refused {
	case RefusedFull:
		return nil, &errNoRoom{refused, fmt.Sprintf("all %d sessions are taken by peers that we chose: --max-peers allows more", s.table.limit)}
	case RefusedShare:
		return nil, &errNoRoom{refused, fmt.Sprintf("the block %s has its share of %d sessions: raise --peers-per-address if they are all yours", block, s.table.share)}
	}
	return mine, nil
}

// gone takes an ended session off the table, if it is still there.
func (s *sessions) gone(id uint64, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.remove(id, reason, time.Now())
	delete(s.conns, id)
}

func (s *sessions) use(p PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.use(p, time.Now())
}

// busy notes a request from or to the peer until end is called.
func (s *sessions) busy(p PeerID) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.table.begin(p)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.table.end(st)
	}
}

// look reads the table.
func (s *sessions) look(read func(*sessionTable)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	read(s.table)
}

// sessionConn is a connection that has its place in the table. Whoever closes it first, libp2p or the
// table, closes it; the others wait for that.
type sessionConn struct {
	transport.CapableConn
	id    uint64
	owner *sessions
	once  sync.Once
	err   error // of the close

	mu  sync.Mutex
	why string // what ended it before we closed it
}

func (c *sessionConn) Close() error {
	return c.shut(c.CapableConn.Close)
}

func (c *sessionConn) CloseWithError(code network.ConnErrorCode) error {
	return c.shut(func() error { return c.CapableConn.CloseWithError(code) })
}

func (c *sessionConn) shut(do func() error) error {
	c.once.Do(func() {
		c.mu.Lock()
		why := c.why
		c.mu.Unlock()
		if why == "" {
			why = LeftUs
		}
		c.owner.gone(c.id, why)
		c.err = do()
	})
	return c.err
}

// AcceptStream is what libp2p waits in, and what tells first why a connection ended.
func (c *sessionConn) AcceptStream() (network.MuxedStream, error) {
	s, err := c.CapableConn.AcceptStream()
	if err != nil {
		c.mu.Lock()
		if c.why == "" {
			c.why = whyEnded(err)
		}
		c.mu.Unlock()
	}
	return s, err
}

func whyEnded(err error) string {
	var closed *network.ConnError
	var idle *quic.IdleTimeoutError
	var reset *quic.StatelessResetError
	switch {
	case errors.As(err, &closed) && closed.Remote:
		return LeftPeer
	case errors.As(err, &idle), errors.As(err, &reset), errors.Is(err, os.ErrDeadlineExceeded):
		return LeftSilent
	}
	return LeftUs
}

// traffic returns the bytes of the connection so far, with QUIC's own.
func (c *sessionConn) traffic() (in, out uint64) {
	var q *quic.Conn
	if !c.As(&q) {
		return 0, 0
	}
	stats := q.ConnectionStats()
	return stats.BytesReceived, stats.BytesSent
}

// States of a session, from the first to give way to those who never do.
const (
	StateUnproved = "unproved" // nothing of it was accepted yet
	StateUseful   = "useful"   // a message of it was accepted
	StateBusy     = "busy"     // a request from or to it is under way
	StateChosen   = "chosen"   // we dialed it, or it is a bootnode
)

// SessionInfo describes a session.
type SessionInfo struct {
	Peer    PeerID
	Addr    ma.Multiaddr // as we see it
	Inbound bool         // it dialed us
	Since   time.Time
	State   string    // one of the State constants
	Used    time.Time // when a message of it was accepted last, else when it came
	In, Out uint64    // bytes, QUIC's own included
	Score   float64   // of gossip
}

// Sessions returns the sessions, the oldest first; the ended ones that are remembered, the newest first;
// and how many sessions there may be.
func (h *Host) Sessions() (now []SessionInfo, left []Left, limit int) {
	scores := h.scores.Load()
	s := h.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, one := range s.table.sessions {
		c := s.conns[id]
		info := SessionInfo{Peer: one.peer, Addr: c.RemoteMultiaddr(), Inbound: one.inbound, Since: one.since, State: one.of.state(), Used: one.of.used}
		info.In, info.Out = c.traffic()
		if scores != nil {
			info.Score = (*scores)[one.peer]
		}
		now = append(now, info)
	}
	slices.SortFunc(now, func(a, b SessionInfo) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Peer, b.Peer)) })
	left = slices.Clone(s.table.left)
	slices.Reverse(left)
	return now, left, s.table.limit
}

// Reached reports whether a peer with a public address dialed us since we run: the only proof that others can.
func (h *Host) Reached() bool {
	h.sessions.mu.Lock()
	defer h.sessions.mu.Unlock()
	return h.sessions.reached
}

func (st *standing) state() string {
	if st.safe() {
		return StateChosen
	}
	return [...]string{StateUnproved, StateUseful, StateBusy}[st.class()]
}
