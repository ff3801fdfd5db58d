package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// Why a connection was refused; the values of Refusal.Reason and of the metric's label.
const (
	RefusedNetwork = "network" // another network
	RefusedVersion = "version" // another protocol version
	RefusedGarbage = "garbage" // no hello of ours, or a broken one
	RefusedTimeout = "timeout" // no hello in time
	RefusedBusy    = "busy"    // half of Config.MaxHalfOpen others are saying hello
	RefusedBanned  = "banned"  // Penalise'd away
	RefusedLimit   = "limit"   // there are too many connections in all, or too much memory is taken
	RefusedAddress = "address" // the address has Config.MaxConnsPerIP connections
	RefusedRate    = "rate"    // its connections come too fast
	RefusedOpening = "opening" // Config.MaxHalfOpen are in their handshake
	RefusedBlock   = "block"   // the address block has its share of those
	RefusedFull    = "full"    // the table is full of peers that we chose
	RefusedShare   = "share"   // the address block has its share of the table
)

// A Refusal tells of a connection that was closed before anything but the hello was read from it.
type Refusal struct {
	Peer    PeerID // empty when the connection was refused before it said
	Addr    ma.Multiaddr
	Inbound bool
	Reason  string // one of the Refused constants
	Err     error  // a *MismatchError for RefusedNetwork and RefusedVersion
}

// Codes that a refused peer sees; they are ours to choose, libp2p's begin at 0x1000.
const (
	codeRefused network.ConnErrorCode = 0x7401
	codeTimeout network.ConnErrorCode = 0x7402
	codeBusy    network.ConnErrorCode = 0x7403
	codeFull    network.ConnErrorCode = 0x7404
	codeRoom    network.ConnErrorCode = 0x7405 // of a session that made room for another
)

// errHelloTimeout is what a dial ends with when the other side says nothing in time.
var errHelloTimeout = errors.New("peer did not say hello in time")

// gate is a transport whose connections have all passed the hello. It sits below libp2p's swarm, so
// that no other protocol, identify and gossip included, ever sees a connection that has not.
//
// The dialer opens the first stream of the connection, says its hello and ends its side; the listener
// answers with its own. Both compare. On a mismatch the dialer closes, so that the listener's answer
// is not lost with the connection. The listener answers when the dialer has its place in the table, so
// that who is refused for want of room has not connected.
type gate struct {
	transport.Transport
	ours    hello
	timeout time.Duration
	refused func(Refusal)
	hellos  int             // inbound connections that say hello at a time
	open    <-chan struct{} // closed when inbound connections may pass
	// admit gives a connection whose network is ours a place, or says why not.
	admit func(c transport.CapableConn, inbound bool) (transport.CapableConn, error)
}

// Dial returns a connection that passed the hello, or the reason why it did not.
func (g *gate) Dial(ctx context.Context, addr ma.Multiaddr, p PeerID) (transport.CapableConn, error) {
	c, err := g.Transport.Dial(ctx, addr, p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	// The only end of a read or an open that a silent peer cannot delay is the connection's own.
	stop := context.AfterFunc(ctx, func() { c.CloseWithError(codeTimeout) })
	err = g.greet(ctx, c)
	if !stop() {
		err = errHelloTimeout
	}
	if err == nil {
		var session transport.CapableConn
		if session, err = g.admit(c, false); err == nil {
			return session, nil
		}
	}
	c.CloseWithError(codeRefused)
	return nil, g.refuse(c, false, err)
}

// greet is the dialer's half of the hello.
func (g *gate) greet(ctx context.Context, c transport.CapableConn) error {
	s, err := c.OpenStream(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write(encodeHello(g.ours)); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	return g.hear(s, c)
}

// answer is the listener's half of the hello. It returns the session of who passed, which the caller
// owns, and else why not.
func (g *gate) answer(c transport.CapableConn) (session transport.CapableConn, err error) {
	s, err := c.AcceptStream()
	if err != nil {
		return nil, err
	}
	defer s.Close() // not Reset, which would take back what was not sent yet
	heard := g.hear(s, c)
	var mismatch *MismatchError
	if heard != nil && !errors.As(heard, &mismatch) {
		return nil, heard
	}
	if heard == nil {
		if session, err = g.admit(c, true); err != nil {
			return nil, err
		}
	}
	if _, err := s.Write(encodeHello(g.ours)); err != nil {
		return session, errors.Join(heard, err)
	}
	if err := s.CloseWrite(); err != nil {
		return session, errors.Join(heard, err)
	}
	if heard != nil {
		// The dialer must read our name before the connection ends: it closes, or the timeout does.
		// A peer that opens another stream instead has had its chance.
		if extra, err := c.AcceptStream(); err == nil {
			extra.Reset()
		}
	}
	return session, heard
}

// hear reads one hello, to its end, and compares it with ours.
func (g *gate) hear(s io.Reader, c transport.CapableConn) error {
	b, err := io.ReadAll(io.LimitReader(s, int64(MaxHello)+1))
	if err != nil {
		return err
	}
	if len(b) > MaxHello {
		return errNotTweedle
	}
	theirs, err := decodeHello(b)
	if err != nil {
		return &badHelloError{err}
	}
	return g.ours.check(theirs, c.RemotePeer())
}

type badHelloError struct{ error }

// refuse tells of the refused connection and returns the error to give to the dialer.
func (g *gate) refuse(c transport.CapableConn, inbound bool, err error) error {
	r := Refusal{Peer: c.RemotePeer(), Addr: c.RemoteMultiaddr(), Inbound: inbound, Reason: RefusedGarbage, Err: err}
	var mismatch *MismatchError
	var closed *network.ConnError
	var noRoom *errNoRoom
	switch {
	case errors.As(err, &noRoom):
		r.Reason = noRoom.reason
	case errors.As(err, &mismatch):
		r.Err = mismatch
		r.Reason = RefusedNetwork
		if mismatch.TheirVersion != mismatch.OurVersion {
			r.Reason = RefusedVersion
		}
	case errors.Is(err, errHelloTimeout):
		r.Reason = RefusedTimeout
	case errors.As(err, &closed) && closed.Remote && closed.ErrorCode == codeBusy:
		r.Reason, r.Err = RefusedBusy, fmt.Errorf("peer %s is busy with other newcomers: try again later", r.Peer)
	case errors.As(err, &closed) && closed.Remote && closed.ErrorCode == codeFull, errors.As(err, &closed) && closed.ErrorCode == codeRoom:
		r.Reason, r.Err = RefusedFull, fmt.Errorf("peer %s has no room for us: try again later", r.Peer)
	case errors.As(err, &closed) && closed.Remote && closed.ErrorCode == codeTimeout:
		r.Reason = RefusedTimeout
	case errors.As(err, &closed) && closed.Remote && closed.ErrorCode == network.ConnGated:
		r.Reason, r.Err = RefusedBanned, fmt.Errorf("peer %s has banned us", r.Peer)
	}
	g.refused(r)
	return r.Err
}

// Listen returns a listener that hands out only connections that passed the hello.
func (g *gate) Listen(addr ma.Multiaddr) (transport.Listener, error) {
	inner, err := g.Transport.Listen(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &gateListener{
		Listener: inner,
		gate:     g,
		passed:   make(chan transport.CapableConn),
		slots:    make(chan struct{}, g.hellos),
		ctx:      ctx,
		end:      cancel,
	}
	l.tasks.Add(1)
	go l.acceptLoop()
	return l, nil
}

// Close forwards to the transport below, whose Close is not part of transport.Transport.
func (g *gate) Close() error {
	if c, ok := g.Transport.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// gateListener owns one goroutine that accepts and one for each of the connections that are saying
// hello, of which there are gate.hellos at most. All end with Close.
type gateListener struct {
	transport.Listener
	gate   *gate
	passed chan transport.CapableConn
	slots  chan struct{} // one entry for each connection that is saying hello
	tasks  sync.WaitGroup
	ctx    context.Context         // ends with the listener
	end    context.CancelCauseFunc // takes what Accept then returns
}

func (l *gateListener) acceptLoop() {
	defer l.tasks.Done()
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			l.end(err)
			return
		}
		select {
		case l.slots <- struct{}{}:
		default:
			// Bounded before it is authenticated: what a flood costs us is one close per connection.
			c.CloseWithError(codeBusy)
			l.gate.refused(Refusal{Peer: c.RemotePeer(), Addr: c.RemoteMultiaddr(), Inbound: true, Reason: RefusedBusy,
				Err: fmt.Errorf("peer %s came while %d others were saying hello: raise --max-handshakes if they are honest", c.RemotePeer(), cap(l.slots))})
			continue
		}
		l.tasks.Add(1)
		go func() {
			defer l.tasks.Done()
			defer func() { <-l.slots }()
			if session := l.admit(c); session != nil {
				select {
				case l.passed <- session:
				case <-l.ctx.Done():
					session.Close()
				}
			}
		}()
	}
}

// admit returns the session of a connection that passed; if it did not, it is closed.
func (l *gateListener) admit(c transport.CapableConn) transport.CapableConn {
	ctx, cancel := context.WithTimeout(l.ctx, l.gate.timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.CloseWithError(codeTimeout) })
	select {
	case <-l.gate.open:
	case <-ctx.Done(): // nobody is refused for our own late start
		return nil
	}
	session, err := l.gate.answer(c)
	var mismatch *MismatchError
	if !stop() && !errors.As(err, &mismatch) {
		err = errHelloTimeout
	}
	if err == nil {
		return session
	}
	code := codeRefused
	if noRoom := (*errNoRoom)(nil); errors.As(err, &noRoom) {
		code = codeFull
	}
	if session != nil {
		c = session // which has its place in the table
	}
	c.CloseWithError(code)
	if l.ctx.Err() == nil { // else we closed it ourselves
		l.gate.refuse(c, true, err)
	}
	return nil
}

// Accept returns the next connection that passed.
func (l *gateListener) Accept() (transport.CapableConn, error) {
	select {
	case c := <-l.passed:
		return c, nil
	case <-l.ctx.Done():
		return nil, context.Cause(l.ctx)
	}
}

// Close ends the listener and waits for its goroutines.
func (l *gateListener) Close() error {
	l.end(transport.ErrListenerClosed)
	err := l.Listener.Close()
	l.tasks.Wait()
	return err
}
