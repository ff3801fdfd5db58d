package p2p

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
)

// full is a host with one place, which somebody has, and others who want it: what crashed the network in
// 2020, with real connections on one socket.
type full struct {
	*Host
	box     inbox
	base    int // goroutines before anybody came
	release chan struct{}
	entered chan struct{}
}

func newFull(t *testing.T) *full {
	t.Helper()
	cfg := loopbackConfig(t, "test")
	cfg.MinPeers, cfg.MinOutbound, cfg.MaxPeers = 1, 1, 1
	f := &full{Host: forgetful(t, cfg), release: make(chan struct{}), entered: make(chan struct{}, 1)}
	f.Register(Topic{Name: "t", MaxSize: 100}, f.box.handle)
	f.Handle("/wait", Limits{}, func(ctx context.Context, _ PeerID, _ []byte) ([]byte, error) {
		f.entered <- struct{}{}
		select {
		case <-f.release:
		case <-ctx.Done():
		}
		return nil, nil
	})
	run(t, f.Host)
	f.base = settledGoroutines(t)
	return f
}

// forgetful returns a host that remembers no address, and so dials nobody by itself.
func forgetful(t *testing.T, cfg Config) *Host {
	h := newHost(t, cfg)
	h.book.max = 0
	return h
}

// settledGoroutines waits until their number stays.
func settledGoroutines(t *testing.T) int {
	t.Helper()
	n, since := runtime.NumGoroutine(), time.Now()
	within(t, patience, "goroutines settle", func() bool {
		if k := runtime.NumGoroutine(); k != n {
			n, since = k, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	return n
}

// guest is a host that connects when it is told to.
func guest(t *testing.T) (h *Host, leave func()) {
	t.Helper()
	h = forgetful(t, loopbackConfig(t, "test"))
	h.Register(Topic{Name: "t", MaxSize: 100}, new(inbox).handle)
	h.Handle("/wait", Limits{}, func(context.Context, PeerID, []byte) ([]byte, error) { return nil, nil })
	return h, run(t, h)
}

// enter connects and speaks.
func (f *full) enter(t *testing.T, h *Host, says string) {
	t.Helper()
	if err := h.Connect(t.Context(), f.Addrs()[0]); err != nil {
		t.Fatalf("%s: %v", says, err)
	}
	within(t, patience, says+" is inside, alone", func() bool { return len(f.Peers()) == 1 && f.Peers()[0].ID == h.ID() })
	within(t, patience, says+" finds the topic", func() bool { return !errors.Is(h.Publish(t.Context(), "t", []byte(says)), ErrNoPeers) })
	within(t, patience, says+" is heard", f.box.has(says))
}

// ended returns how often a session ended for the reason.
func (f *full) ended(reason string) (n uint64) {
	f.sessions.look(func(table *sessionTable) { n = table.ended[reason] })
	return n
}

// finish looks at what must hold after each of the faults: the listener hears the next, the victim can come
// back, each session ended once, and no goroutine is left of those that are gone.
func (f *full) finish(t *testing.T, victim *Host, leave ...func()) {
	t.Helper()
	within(t, patience, "the victim knows", func() bool { return len(victim.Peers()) == 0 })
	room := f.ended(LeftRoom)
	f.enter(t, victim, "back")
	if got := f.ended(LeftRoom); got != room+1 {
		t.Errorf("%d sessions made room, want %d", got, room+1)
	}
	for _, l := range leave {
		l()
	}
	within(t, patience, "all are gone", func() bool { return len(f.Peers()) == 0 })
	f.sessions.look(func(table *sessionTable) {
		if len(table.sessions)+len(table.peers)+len(table.blocks) != 0 {
			t.Errorf("the table has %d sessions and %d peers when nobody is there", len(table.sessions), len(table.peers))
		}
	})
	within(t, patience, "goroutines are back", func() bool { return runtime.NumGoroutine() <= f.base })
}

// 2020-08: an expired victim was taken off the map and then looked up to be closed.
func TestFaultOneANewSessionTakesThePlaceOfAnOldOne(t *testing.T) {
	f := newFull(t)
	old, leaveOld := guest(t)
	f.enter(t, old, "old")
	f.sessions.look(func(table *sessionTable) { // it came two days ago, and was of use then
		for _, s := range table.sessions {
			s.since = s.since.Add(-48 * time.Hour)
			s.of.used = s.of.used.Add(-48 * time.Hour)
		}
	})
	young, leaveYoung := guest(t)
	f.enter(t, young, "new")
	f.finish(t, old, leaveOld, leaveYoung)
}

// 2020-09: a live victim was closed by who took its place and by its own reader.
func TestFaultTwoANewSessionTakesThePlaceOfAYoungOne(t *testing.T) {
	f := newFull(t)
	first, leaveFirst := guest(t)
	f.enter(t, first, "first")
	second, leaveSecond := guest(t)
	f.enter(t, second, "second")
	f.finish(t, first, leaveFirst, leaveSecond)
}

// 2020-11: to close one session closed the socket that all share. The victim is busy with a request.
func TestFaultThreeANewSessionTakesThePlaceOfABusyOne(t *testing.T) {
	f := newFull(t)
	busy, leaveBusy := guest(t)
	f.enter(t, busy, "busy")
	failed := make(chan error, 1)
	go func() { _, err := busy.Request(t.Context(), f.ID(), "/wait", nil); failed <- err }()
	<-f.entered
	other, leaveOther := guest(t)
	f.enter(t, other, "other")
	if err := <-failed; err == nil {
		t.Error("the request of who has left was answered")
	}
	close(f.release)
	f.finish(t, busy, leaveBusy, leaveOther)
}

// 2021-03: what belonged to the victim outlived it. The victim has its place and not yet its answer.
func TestFaultFourANewSessionTakesThePlaceOfOneInItsHandshake(t *testing.T) {
	f := newFull(t)
	tr, _ := bareTransport(t)
	bareDial(t, tr, f.Host).Close() // what the transport itself has is there before
	f.base = settledGoroutines(t)
	slow := bareDial(t, tr, f.Host)
	s, err := slow.OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(encodeHello(hello{ProtocolVersion, testNetwork("test")})); err != nil {
		t.Fatal(err)
	}
	s.CloseWrite() // it reads nothing
	within(t, patience, "it has the place", func() bool {
		n := 0
		f.sessions.look(func(table *sessionTable) { n = len(table.sessions) })
		return n == 1
	})
	other, leaveOther := guest(t)
	f.enter(t, other, "other")
	within(t, patience, "the one in its handshake is closed", slow.IsClosed)
	slow.Close()
	again, leaveAgain := guest(t)
	f.enter(t, again, "again")
	f.finish(t, other, leaveOther, leaveAgain)
}

// 2021: the two ends of a connection that closed together left their goroutines. The victim is closing.
func TestFaultFiveANewSessionTakesThePlaceOfAClosingOne(t *testing.T) {
	f := newFull(t)
	first, leaveFirst := guest(t)
	for i := range 20 {
		f.enter(t, first, fmt.Sprint("first ", i))
		second, leaveSecond := guest(t)
		start := make(chan struct{})
		closing := make(chan struct{}, 2)
		go func() { <-start; first.Disconnect(f.ID()); closing <- struct{}{} }()
		go func() { <-start; f.Disconnect(first.ID()); closing <- struct{}{} }()
		close(start)
		f.enter(t, second, fmt.Sprint("second ", i))
		<-closing
		<-closing
		leaveSecond()
		within(t, patience, "the second is gone", func() bool { return len(f.Peers()) == 0 })
	}
	second, leaveSecond := guest(t)
	f.enter(t, second, "second")
	f.finish(t, first, leaveFirst, leaveSecond)
}

// countedConn is a real connection that counts its closes.
type countedConn struct {
	transport.CapableConn
	closed atomic.Int32
}

func (c *countedConn) Close() error { c.closed.Add(1); return c.CapableConn.Close() }
func (c *countedConn) CloseWithError(code network.ConnErrorCode) error {
	c.closed.Add(1)
	return c.CapableConn.CloseWithError(code)
}

// A connection is closed once by whoever comes first: its reader, its owner, or the newcomer.
func TestASessionIsClosedOnce(t *testing.T) {
	h := newHost(t, loopbackConfig(t, "test"))
	run(t, h)
	tr, _ := bareTransport(t)
	other, _ := bareTransport(t)
	for range 20 {
		s := newSessions(newSessionTable(1, 1, [16]byte{}, nil))
		inner, newcomer := &countedConn{CapableConn: bareDial(t, tr, h)}, &countedConn{CapableConn: bareDial(t, other, h)}
		c, err := s.admit(inner, true)
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		start := make(chan struct{})
		for _, end := range []func(){
			func() { c.Close() },
			func() { c.CloseWithError(codeRefused) },
			func() {
				if _, err := s.admit(newcomer, true); err != nil {
					t.Error(err)
				}
			},
		} {
			all.Go(func() { <-start; end() })
		}
		close(start)
		all.Wait()
		if inner.closed.Load() != 1 || newcomer.closed.Load() != 0 || len(s.table.sessions) != 1 || len(s.conns) != 1 {
			t.Fatalf("closed %d times, the newcomer %d times; %d sessions", inner.closed.Load(), newcomer.closed.Load(), len(s.table.sessions))
		}
	}
}

// What an operator is told of each session, and of why one left.
func TestSessionsAreTold(t *testing.T) {
	f := newFull(t)
	a, leaveA := guest(t)
	f.enter(t, a, "a")
	now, left, limit := f.Sessions()
	if len(now) != 1 || len(left) != 0 || limit != 1 {
		t.Fatalf("%d sessions, %d left, limit %d", len(now), len(left), limit)
	}
	if s := now[0]; s.Peer != a.ID() || !s.Inbound || s.State != StateUseful || s.In == 0 || s.Out == 0 || s.Used.Before(s.Since) {
		t.Errorf("%+v", s)
	}
	if theirs, _, _ := a.Sessions(); len(theirs) != 1 || theirs[0].Inbound || theirs[0].State != StateChosen {
		t.Errorf("the other side: %+v", theirs)
	}
	if f.Reached() {
		t.Error("a peer on loopback proves that others can reach it")
	}
	b, leaveB := guest(t)
	f.enter(t, b, "b")
	within(t, patience, "a knows", func() bool { return len(a.Peers()) == 0 })
	if _, left, _ := f.Sessions(); len(left) != 1 || left[0].Peer != a.ID() || left[0].Reason != LeftRoom {
		t.Errorf("at the full host: %+v", left)
	}
	if _, left, _ := a.Sessions(); len(left) != 1 || left[0].Peer != f.ID() || left[0].Reason != LeftPeer {
		t.Errorf("at the one that left: %+v", left)
	}
	leaveA()
	leaveB()
}
