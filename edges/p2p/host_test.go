package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	LogLibraries(slog.DiscardHandler)
	goleak.VerifyTestMain(m)
}

func testNetwork(name string) NetworkID {
	n := NetworkID{Name: name}
	copy(n.GenesisID[:], name)
	return n
}

func loopbackConfig(t *testing.T, network string) Config {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Network: testNetwork(network), Key: key,
		Listen:    []string{"/ip4/127.0.0.1/udp/0/quic-v1"},
		Heartbeat: 100 * time.Millisecond,
	}
}

func newHost(t *testing.T, cfg Config) *Host {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// run runs the host until the test ends, or stop is called.
func run(t *testing.T, h *Host) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	<-h.Running()
	return stop
}

// patience is a limit for a hung test on a busy machine, and no claim about time.
const patience = 30 * time.Second

// within waits for real I/O.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func connected(a, b *Host) func() bool {
	return func() bool {
		for _, p := range a.Peers() {
			if p.ID == b.ID() {
				return true
			}
		}
		return false
	}
}

// inbox is a topic handler that keeps what it accepts.
type inbox struct {
	mu   sync.Mutex
	msgs [][]byte
}

func (i *inbox) handle(_ context.Context, _ PeerID, msg []byte) Verdict {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.msgs = append(i.msgs, bytes.Clone(msg))
	return Accept()
}

func (i *inbox) has(msg string) func() bool {
	return func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, m := range i.msgs {
			if string(m) == msg {
				return true
			}
		}
		return false
	}
}

func (i *inbox) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.msgs)
}

// pair returns two connected hosts after setup has been called on each.
func pair(t *testing.T, setup func(h *Host, first bool)) (a, b *Host) {
	t.Helper()
	a = newHost(t, loopbackConfig(t, "test"))
	cfg := loopbackConfig(t, "test")
	cfg.Bootnodes = a.Addrs()
	b = newHost(t, cfg)
	if setup != nil {
		setup(a, true)
		setup(b, false)
	}
	run(t, a)
	run(t, b)
	within(t, patience, "b finds a", connected(b, a))
	within(t, patience, "a sees b", connected(a, b))
	return a, b
}

func TestTwoHostsOfOneNetworkGossip(t *testing.T) {
	var boxes [2]inbox
	a, b := pair(t, func(h *Host, first bool) {
		box := &boxes[1]
		if first {
			box = &boxes[0]
		}
		h.Register(Topic{Name: "atx", MaxSize: 1000}, box.handle)
	})
	ctx := t.Context()
	var err error
	within(t, patience, "b takes the topic", func() bool { err = a.Publish(ctx, "atx", []byte("one")); return !errors.Is(err, ErrNoPeers) })
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	within(t, patience, "b has it", boxes[1].has("one"))

	for who, h := range map[string]*Host{"publish again": a, "publish what was received": b} {
		if err := h.Publish(ctx, "atx", []byte("one")); err != nil { // nobody hears it twice, see below
			t.Errorf("%s: %v", who, err)
		}
	}
	if err := b.Publish(ctx, "atx", []byte("two")); err != nil {
		t.Errorf("publish back: %v", err)
	}
	within(t, patience, "a has it", boxes[0].has("two"))
	if boxes[0].count() != 1 || boxes[1].count() != 1 {
		t.Errorf("handlers saw %d and %d messages, want 1 and 1", boxes[0].count(), boxes[1].count())
	}
	if err := a.Publish(ctx, "atx", make([]byte, 1001)); err == nil || !strings.Contains(err.Error(), "1001 bytes, the limit is 1000") {
		t.Errorf("oversized publish: %v", err)
	}
	if err := a.Publish(ctx, "nope", nil); err == nil || !strings.Contains(err.Error(), "no such topic") {
		t.Errorf("publish to an unknown topic: %v", err)
	}
}

func TestPublishWithoutPeersMayBeRepeated(t *testing.T) {
	a := newHost(t, loopbackConfig(t, "test"))
	a.Register(Topic{Name: "atx", MaxSize: 10}, new(inbox).handle)
	if err := a.Publish(t.Context(), "atx", []byte("x")); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("publish before run: %v; want ErrNotRunning", err)
	}
	run(t, a)
	if err := a.Publish(t.Context(), "atx", []byte("x")); !errors.Is(err, ErrNoPeers) {
		t.Fatalf("publish alone: %v; want ErrNoPeers", err)
	}
	cfg := loopbackConfig(t, "test")
	cfg.Bootnodes = a.Addrs()
	b := newHost(t, cfg)
	var box inbox
	b.Register(Topic{Name: "atx", MaxSize: 10}, box.handle)
	run(t, b)
	var err error
	within(t, patience, "b takes the topic", func() bool { err = a.Publish(t.Context(), "atx", []byte("x")); return !errors.Is(err, ErrNoPeers) })
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	within(t, patience, "b has it", box.has("x"))
}

func TestAHostOfAnotherNetworkIsRefusedOnBothSides(t *testing.T) {
	var mu sync.Mutex
	var refusals []Refusal
	note := func(r Refusal) { mu.Lock(); defer mu.Unlock(); refusals = append(refusals, r) }

	cfg := loopbackConfig(t, "bar")
	cfg.OnRefused = note
	a := newHost(t, cfg)
	cfg = loopbackConfig(t, "foo")
	cfg.OnRefused = note
	b := newHost(t, cfg)
	run(t, a)
	run(t, b)
	err := b.Connect(t.Context(), a.Addrs()[0])
	var mismatch *MismatchError
	if !errors.As(err, &mismatch) {
		t.Fatalf("connect: %v; want a MismatchError", err)
	}
	want := func(peer *Host, theirs, ours string) string {
		t, o := testNetwork(theirs), testNetwork(ours)
		return fmt.Sprintf("peer %s is of network %q (%x), we are of %q (%x): refused", peer.ID(), theirs, t.GenesisID, ours, o.GenesisID)
	}
	if got := mismatch.Error(); got != want(a, "bar", "foo") {
		t.Errorf("dialer's error:\n got %s\nwant %s", got, want(a, "bar", "foo"))
	}
	within(t, patience, "both sides tell", func() bool { mu.Lock(); defer mu.Unlock(); return len(refusals) == 2 })
	mu.Lock()
	defer mu.Unlock()
	for _, r := range refusals {
		w := want(a, "bar", "foo")
		if r.Inbound {
			w = want(b, "foo", "bar")
		}
		if r.Reason != RefusedNetwork || r.Err.Error() != w {
			t.Errorf("refusal %+v\nwant %s", r, w)
		}
	}
	if refusals[0].Inbound == refusals[1].Inbound {
		t.Errorf("only one side refused: %+v", refusals)
	}
	if len(a.Peers())+len(b.Peers()) != 0 {
		t.Errorf("peers after refusal: %v, %v", a.Peers(), b.Peers())
	}
}

func TestRequests(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	defer once.Do(func() { close(release) })
	entered := make(chan struct{}, 16)
	a, b := pair(t, func(h *Host, first bool) {
		h.Handle("/echo", Limits{MaxRequest: 1000, MaxResponse: 1000}, func(_ context.Context, _ PeerID, req []byte) ([]byte, error) {
			return req, nil
		})
		h.Handle("/fail", Limits{}, func(context.Context, PeerID, []byte) ([]byte, error) { return nil, errors.New("no such epoch") })
		h.Handle("/big", Limits{MaxResponse: 10}, func(context.Context, PeerID, []byte) ([]byte, error) { return make([]byte, 11), nil })
		h.Handle("/slow", Limits{Timeout: 200 * time.Millisecond}, func(ctx context.Context, _ PeerID, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		h.Handle("/full", Limits{Workers: 1, Queue: 1}, func(ctx context.Context, _ PeerID, _ []byte) ([]byte, error) {
			entered <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, nil
		})
		h.Handle("/rated", Limits{Rate: 0.001, Burst: 2}, func(context.Context, PeerID, []byte) ([]byte, error) { return nil, nil })
		if first {
			h.Handle("/only-a", Limits{}, func(context.Context, PeerID, []byte) ([]byte, error) { return nil, nil })
		}
	})
	ctx := t.Context()
	for _, size := range []int{0, 1, 999, 1000} {
		req := bytes.Repeat([]byte{7}, size)
		if resp, err := a.Request(ctx, b.ID(), "/echo", req); err != nil || !bytes.Equal(resp, req) {
			t.Errorf("echo of %d bytes: %d bytes, %v", size, len(resp), err)
		}
	}
	if _, err := a.Request(ctx, b.ID(), "/echo", make([]byte, 1001)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversized request: %v; want ErrTooLarge", err)
	}
	if _, err := a.Request(ctx, b.ID(), "/big", nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversized response: %v; want ErrTooLarge", err)
	}
	var remote *RemoteError
	if _, err := a.Request(ctx, b.ID(), "/fail", nil); !errors.As(err, &remote) || remote.Text != "no such epoch" {
		t.Errorf("failing handler: %v; want its text", err)
	}
	if _, err := a.Request(ctx, b.ID(), "/slow", nil); !errors.Is(err, ErrTimeout) {
		t.Errorf("slow handler: %v; want ErrTimeout", err)
	}
	if _, err := a.Request(ctx, b.ID(), "/only-a", nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("unknown protocol: %v; want ErrUnsupported", err)
	}
	stranger := newHost(t, loopbackConfig(t, "test"))
	if _, err := a.Request(ctx, stranger.ID(), "/echo", nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("stranger: %v; want ErrNotConnected", err)
	}
	for i := range 3 {
		_, err := a.Request(ctx, b.ID(), "/rated", nil)
		if want := i == 2; errors.Is(err, ErrRateLimited) != want || !want && err != nil {
			t.Errorf("request %d of a burst of 2: %v", i+1, err)
		}
	}
	// One peer may hold one of the two places.
	held := make(chan error, 1)
	go func() { _, err := a.Request(ctx, b.ID(), "/full", nil); held <- err }()
	<-entered
	if _, err := a.Request(ctx, b.ID(), "/full", nil); !errors.Is(err, ErrBusy) {
		t.Errorf("full queue: %v; want ErrBusy", err)
	}
	once.Do(func() { close(release) })
	if err := <-held; err != nil {
		t.Errorf("request that held the place: %v", err)
	}
}

func TestARestartedHostRejoins(t *testing.T) {
	cfg := loopbackConfig(t, "test")
	a := newHost(t, cfg)
	stop := run(t, a)
	cfg.Listen = []string{strings.Split(a.Addrs()[0], "/p2p/")[0]} // the same port again

	cfg2 := loopbackConfig(t, "test")
	cfg2.Bootnodes = a.Addrs()
	b := newHost(t, cfg2)
	var box inbox
	b.Register(Topic{Name: "atx", MaxSize: 10}, box.handle)
	run(t, b)
	within(t, patience, "b finds a", connected(b, a))
	stop()
	within(t, patience, "b loses a", func() bool { return len(b.Peers()) == 0 })
	a = newHost(t, cfg)
	a.Register(Topic{Name: "atx", MaxSize: 10}, new(inbox).handle)
	run(t, a)
	within(t, patience, "b finds a again", connected(b, a))
	var err error
	within(t, patience, "gossip flows again", func() bool {
		err = a.Publish(t.Context(), "atx", []byte("back"))
		return !errors.Is(err, ErrNoPeers)
	})
	if err != nil {
		t.Fatal(err)
	}
	within(t, patience, "b has it", box.has("back"))
}

func TestPeersAreFoundThroughABootnodeAndRememberedWithoutIt(t *testing.T) {
	boot := newHost(t, loopbackConfig(t, "test"))
	stopBoot := run(t, boot)
	file := filepath.Join(t.TempDir(), "peers.json")
	start := func(cfg Config) (*Host, func()) {
		h := newHost(t, cfg)
		return h, run(t, h)
	}
	cfg1, cfg2 := loopbackConfig(t, "test"), loopbackConfig(t, "test")
	cfg1.Bootnodes, cfg2.Bootnodes = boot.Addrs(), boot.Addrs()
	cfg2.PeersFile = file
	a, _ := start(cfg1)
	b, stopB := start(cfg2)
	within(t, patience, "b finds a through the bootnode", connected(b, a))
	stopB()
	stopBoot()
	b, _ = start(cfg2)
	within(t, 3*patience, "b finds a from its file", connected(b, a))
}

// A peer is among the host's as soon as libp2p has its connection, and is in the book when libp2p has told
// everybody, one after the other. Who is stopped in between remembers it all the same.
func TestAPeerThatCameJustBeforeTheEndIsRemembered(t *testing.T) {
	a := newHost(t, loopbackConfig(t, "test"))
	run(t, a)
	cfg := loopbackConfig(t, "test")
	cfg.Bootnodes = a.Addrs()
	cfg.PeersFile = filepath.Join(t.TempDir(), "peers.json")
	b := newHost(t, cfg)
	told := make(chan struct{})
	for range 16 { // in no order, so that most are told before the book
		b.libp2p.Network().Notify(&network.NotifyBundle{ConnectedF: func(network.Network, network.Conn) { <-told }})
	}
	stop := run(t, b)
	within(t, patience, "b finds a", connected(b, a))
	time.AfterFunc(300*time.Millisecond, func() { close(told) })
	stop()
	file, err := os.ReadFile(cfg.PeersFile)
	if err != nil || !strings.Contains(string(file), a.ID().String()) {
		t.Errorf("b met a, and remembers %q, %v", file, err)
	}
}

func TestCloseTwice(t *testing.T) {
	h := newHost(t, loopbackConfig(t, "test"))
	run(t, h)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := h.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	wg.Wait()
	if err := h.Publish(t.Context(), "x", nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("publish after close: %v", err)
	}
	never := newHost(t, loopbackConfig(t, "test"))
	if err := errors.Join(never.Close(), never.Close()); err != nil {
		t.Errorf("close of a host that never ran: %v", err)
	}
}

// Who lost its key has another identity at the same address. The old one is not dialed for days.
func TestWhoseAddressSomebodyElseHasIsForgotten(t *testing.T) {
	t.Parallel()
	a := newHost(t, loopbackConfig(t, "test"))
	run(t, a)
	cfg := loopbackConfig(t, "test")
	b := newHost(t, cfg)
	stop := run(t, b)
	cfg.Listen = []string{strings.Split(b.Addrs()[0], "/p2p/")[0]}
	if err := a.Connect(t.Context(), b.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	stop()
	b.Close()
	cfg.Key = loopbackConfig(t, "test").Key
	run(t, newHost(t, cfg))
	within(t, patience, "a forgets b", func() bool {
		a.book.mu.Lock()
		defer a.book.mu.Unlock()
		return a.book.entries[b.ID()] == nil
	})
}
