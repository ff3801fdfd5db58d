package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
)

// bareTransport is libp2p's QUIC without our gate: what an attacker has.
func bareTransport(t *testing.T) (transport.Transport, PeerID) {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cm, err := quicreuse.NewConnManager(quic.StatelessResetKey{}, quic.TokenGeneratorKey{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cm.Close() })
	tr, err := libp2pquic.NewTransport(key, cm, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return tr, id
}

func bareDial(t *testing.T, tr transport.Transport, h *Host) transport.CapableConn {
	t.Helper()
	info, err := peer.AddrInfoFromString(h.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	c, err := tr.Dial(t.Context(), info.Addrs[0], info.ID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// refusals collects what OnRefused says.
type refusals struct {
	mu  sync.Mutex
	all []Refusal
}

func (r *refusals) note(one Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
}

func (r *refusals) count(reason string, inbound bool) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.all {
		if one.Reason == reason && one.Inbound == inbound {
			n++
		}
	}
	return n
}

func TestPeersThatSayNoProperHelloAreDropped(t *testing.T) {
	good := encodeHello(hello{ProtocolVersion, testNetwork("test")})
	newer := encodeHello(hello{ProtocolVersion + 1, testNetwork("test")})
	for _, tt := range []struct {
		name, reason string
		say          []byte
		end          bool // the stream
	}{
		{"nothing", RefusedTimeout, nil, false},
		{"half a hello and then nothing", RefusedTimeout, good[:10], false},
		{"a hello that does not end", RefusedTimeout, good, false},
		{"half a hello", RefusedGarbage, good[:20], true},
		{"another protocol", RefusedGarbage, []byte("\x13/multistream/1.0.0\n"), true},
		{"too much", RefusedGarbage, bytes.Repeat(good, 100), false},
		{"a later version", RefusedVersion, newer, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seen refusals
			cfg := loopbackConfig(t, "test")
			cfg.HelloTimeout = 300 * time.Millisecond
			cfg.OnRefused = seen.note
			h := newHost(t, cfg)
			run(t, h)
			tr, _ := bareTransport(t)
			c := bareDial(t, tr, h)
			if tt.say != nil {
				s, err := c.OpenStream(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				s.Write(tt.say) // fails if the peer has heard enough
				if tt.end {
					s.CloseWrite()
				}
			}
			within(t, patience, "it is refused", func() bool { return seen.count(tt.reason, true) == 1 })
			within(t, patience, "the connection is closed", c.IsClosed)
			if len(seen.all) != 1 || len(h.Peers()) != 0 {
				t.Errorf("refusals %+v, peers %v", seen.all, h.Peers())
			}
		})
	}
}

func TestAListenerThatDoesNotAnswerEndsTheDial(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		serve        func(transport.CapableConn)
	}{
		{"silent", RefusedTimeout, func(transport.CapableConn) {}},
		{"deaf", RefusedTimeout, func(c transport.CapableConn) { c.AcceptStream() }},
		{"rude", RefusedGarbage, func(c transport.CapableConn) {
			if s, err := c.AcceptStream(); err == nil {
				s.Write(bytes.Repeat([]byte("x"), MaxHello+1))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, id := bareTransport(t)
			l, err := tr.Listen(ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1"))
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				if c, err := l.Accept(); err == nil {
					tt.serve(c)
				}
			}()
			t.Cleanup(func() { l.Close(); <-served })
			var seen refusals
			cfg := loopbackConfig(t, "test")
			cfg.HelloTimeout = 300 * time.Millisecond
			cfg.OnRefused = seen.note
			h := newHost(t, cfg)
			run(t, h)
			if err := h.Connect(t.Context(), fmt.Sprintf("%s/p2p/%s", l.Multiaddr(), id)); err == nil {
				t.Fatal("connected")
			}
			if seen.count(tt.reason, false) != 1 || len(h.Peers()) != 0 {
				t.Errorf("refusals %+v, peers %v", seen.all, h.Peers())
			}
		})
	}
}

func TestAFloodOfSilentConnectionsIsBoundedAndLeavesNothing(t *testing.T) {
	var seen refusals
	cfg := loopbackConfig(t, "test")
	cfg.HelloTimeout = time.Minute // that a machine however slow holds all of them at once
	cfg.OnRefused = seen.note
	h := newHost(t, cfg)
	run(t, h)
	const extra = 10
	var conns []transport.CapableConn
	for range (DefaultMaxHalfOpen / 2) + extra {
		tr, _ := bareTransport(t) // each another peer: one alone would meet MaxConnsPerPeer
		conns = append(conns, bareDial(t, tr, h))
	}
	within(t, patience, "those above the limit are refused", func() bool { return seen.count(RefusedBusy, true) == extra })
	for _, c := range conns {
		c.Close()
	}
	within(t, patience, "so are the others as they leave", func() bool { return seen.count(RefusedGarbage, true) == (DefaultMaxHalfOpen / 2) })
	// Whatever else runs, of ours nothing is left.
	within(t, patience, "their goroutines end", func() bool {
		stacks := make([]byte, 1<<22)
		return !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("p2p.(*gateListener).admit"))
	})

	cfg = loopbackConfig(t, "test")
	cfg.Bootnodes = h.Addrs()
	honest := newHost(t, cfg)
	run(t, honest)
	within(t, patience, "an honest peer gets in", connected(h, honest))
}

func TestHostileRequestsEndWithinTheirLimits(t *testing.T) {
	var reg *prometheus.Registry
	a, b := pair(t, func(h *Host, first bool) {
		if first {
			reg = h.cfg.Registry.(*prometheus.Registry)
		}
		h.Handle("/echo", Limits{MaxRequest: 100, Timeout: 500 * time.Millisecond}, func(_ context.Context, _ PeerID, req []byte) ([]byte, error) { return req, nil })
	})
	open := func() network.Stream {
		t.Helper()
		s, err := b.libp2p.NewStream(t.Context(), a.ID(), protocol.ID("/echo"))
		if err != nil {
			t.Fatal(err)
		}
		s.SetDeadline(time.Now().Add(10 * time.Second))
		return s
	}
	served := func(result string, n float64) func() bool {
		return func() bool {
			return metric(t, reg, "tweedle_p2p_served_seconds", map[string]string{"protocol": "/echo", "result": result}) == n
		}
	}
	// Never-ending.
	s := open()
	var err error
	for n := 0; err == nil; n++ {
		if n > 1<<20 {
			t.Fatal("the peer reads for ever")
		}
		_, err = s.Write(make([]byte, 1000))
	}
	if answer, err := io.ReadAll(s); err != nil || !bytes.Equal(answer, []byte{statusTooLarge}) {
		t.Errorf("never-ending request: answer %v, %v; want status too large", answer, err)
	}
	within(t, patience, "it is counted", served("too_large", 1))
	// Never finished.
	s = open()
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(s); !errors.Is(err, network.ErrReset) {
		t.Errorf("unfinished request: %v; want a reset", err)
	}
	within(t, patience, "it is counted", served("unread", 1))
	// The peer is still served.
	if resp, err := b.Request(t.Context(), a.ID(), "/echo", []byte("hi")); err != nil || string(resp) != "hi" {
		t.Errorf("after that: %q, %v", resp, err)
	}
	if n := a.servers["/echo"].admission.taken(); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}

func TestAnswersOfHostilePeersAreBounded(t *testing.T) {
	a, b := pair(t, func(h *Host, first bool) {
		if first {
			h.Handle("/x", Limits{MaxResponse: 100, Timeout: 2 * time.Second}, func(context.Context, PeerID, []byte) ([]byte, error) { return nil, nil })
		}
	})
	for _, tt := range []struct {
		name  string
		serve func(s network.Stream)
		want  error
	}{
		{"never-ending", func(s network.Stream) {
			for _, err := s.Write([]byte{statusOK}); err == nil; _, err = s.Write(make([]byte, 1000)) {
			}
		}, ErrTooLarge},
		{"empty", func(s network.Stream) { s.Close() }, ErrBroken},
		{"reset", func(s network.Stream) { s.Reset() }, ErrBroken},
		{"unknown status", func(s network.Stream) { s.Write([]byte{99}); s.Close() }, ErrBroken},
		{"silent", func(s network.Stream) { io.Copy(io.Discard, s); s.Read(make([]byte, 1)) }, ErrTimeout},
	} {
		b.libp2p.SetStreamHandler("/x", func(s network.Stream) {
			tt.serve(s)
			if !errors.Is(tt.want, ErrTimeout) {
				s.Close()
			}
		})
		if _, err := a.Request(t.Context(), b.ID(), "/x", nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", tt.name, err, tt.want)
		}
	}
	b.libp2p.SetStreamHandler("/x", func(s network.Stream) {
		s.Write(append([]byte{statusFailed}, strings.Repeat("\xff", 300)...))
		s.Close()
	})
	var remote *RemoteError
	if _, err := a.Request(t.Context(), b.ID(), "/x", nil); !errors.As(err, &remote) || strings.Contains(err.Error(), "\xff") {
		t.Errorf("an error text that is no text: %v", err)
	}
}

func TestGossipVerdictsAndLimits(t *testing.T) {
	block, entered := make(chan struct{}), make(chan struct{}, 8)
	var reg *prometheus.Registry
	_, b := pair(t, func(h *Host, first bool) {
		judge := func(ctx context.Context, _ PeerID, msg []byte) Verdict {
			switch string(msg[:3]) {
			case "bad":
				return Reject("it says so itself")
			case "old":
				return Ignore("late")
			case "hog":
				entered <- struct{}{}
				<-block
			}
			return Accept()
		}
		size := 2000
		if first {
			reg = h.cfg.Registry.(*prometheus.Registry)
			size = 1000
		}
		h.Register(Topic{Name: "t", MaxSize: size, Workers: 1, Queue: 1}, judge)
		h.Register(Topic{Name: "slow", MaxSize: size, Timeout: 50 * time.Millisecond}, func(ctx context.Context, _ PeerID, _ []byte) Verdict {
			<-ctx.Done()
			return Reject("I had no time")
		})
	})
	publish := func(topic, msg string) {
		t.Helper()
		var err error
		within(t, patience, "a takes "+topic, func() bool {
			err = b.Publish(t.Context(), topic, []byte(msg))
			return !errors.Is(err, ErrNoPeers)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	counted := func(topic, verdict string, n float64) {
		t.Helper()
		within(t, patience, fmt.Sprintf("%s %s is %v", topic, verdict, n), func() bool {
			return metric(t, reg, "tweedle_p2p_gossip_received_total", map[string]string{"topic": topic, "verdict": verdict}) == n
		})
	}
	publish("t", "good")
	counted("t", "accept", 1)
	publish("t", "old")
	counted("t", "ignore", 1)
	publish("slow", "xxx")
	counted("slow", "late", 1)
	publish("t", "hog 1") // one place of two is what one peer may have
	<-entered
	publish("t", "hog 2")
	counted("t", "queue_full", 1)
	close(block)
	counted("t", "accept", 2)
	publish("t", "bad")
	counted("t", "reject", 1)
	publish("t", "x"+strings.Repeat("x", 1000))
	counted("t", "too_large", 1)
	if got := metric(t, reg, "tweedle_p2p_gossip_queue_length", map[string]string{"topic": "t"}); got != 0 {
		t.Errorf("%v places are still taken", got)
	}
}

// A peer that floods, and passes on what another says before that one does, keeps nothing of it
// from being heard: neither when it has no room for its copy, nor when its copy waits.
func TestAFloodersCopyKeepsNothingFromBeingHeard(t *testing.T) {
	for _, waits := range []bool{false, true} {
		t.Run(fmt.Sprintf("its copy waits: %v", waits), func(t *testing.T) {
			block := make(chan struct{})
			free := sync.OnceFunc(func() { close(block) })
			entered := make(chan struct{}, 8)
			var box inbox
			cfg := loopbackConfig(t, "test")
			reg := prometheus.NewRegistry()
			cfg.Registry = reg
			a := newHost(t, cfg)
			var greedy PeerID
			a.Register(Topic{Name: "t", MaxSize: 100, Workers: 20, Queue: 20, Share: 2, OwnTurn: true}, func(ctx context.Context, from PeerID, msg []byte) Verdict {
				if string(msg[:3]) == "hog" {
					entered <- struct{}{}
					<-block
					return Accept()
				}
				if from == greedy { // its turn comes when all is over
					<-ctx.Done()
					return Unseen("it has no turn")
				}
				if !Begin(ctx) {
					return Unseen("another looks at it")
				}
				return box.handle(ctx, from, msg)
			})
			run(t, a)
			var hosts []*Host
			for range 2 {
				cfg := loopbackConfig(t, "test")
				cfg.Bootnodes = a.Addrs()
				h := newHost(t, cfg)
				h.Register(Topic{Name: "t", MaxSize: 100}, func(context.Context, PeerID, []byte) Verdict { return Ignore("it only sends") })
				run(t, h)
				within(t, patience, "a sees it", connected(a, h))
				hosts = append(hosts, h)
			}
			defer free()
			flood, honest := hosts[0], hosts[1]
			greedy = flood.id
			publish := func(h *Host, msg string) {
				t.Helper()
				var err error
				within(t, patience, "a takes it", func() bool {
					err = h.Publish(t.Context(), "t", []byte(msg))
					return !errors.Is(err, ErrNoPeers)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			received := func(verdict string) float64 {
				return metric(t, reg, "tweedle_p2p_gossip_received_total", map[string]string{"topic": "t", "verdict": verdict})
			}
			publish(flood, "hog 1")
			<-entered
			if !waits {
				publish(flood, "hog 2") // two places are what one peer may have
				<-entered
			}
			publish(flood, "what the honest one says")
			if waits {
				within(t, patience, "its copy waits", func() bool {
					return metric(t, reg, "tweedle_p2p_gossip_queue_length", map[string]string{"topic": "t"}) == 2
				})
			} else {
				within(t, patience, "its copy has no room", func() bool { return received("queue_full") == 1 })
			}
			publish(honest, "what the honest one says")
			within(t, patience, "it is heard all the same", box.has("what the honest one says"))
			free()
			if n := box.count(); n != 1 {
				t.Errorf("it is heard %d times", n)
			}
		})
	}
}

func TestABannedPeerIsKeptOut(t *testing.T) {
	a, b := pair(t, nil)
	a.Penalise(b.ID(), BanThreshold-1, "a test")
	if !connected(a, b)() {
		t.Error("disconnected before the threshold")
	}
	a.Penalise(b.ID(), 2, "a test")
	within(t, patience, "both are disconnected", func() bool { return len(a.Peers())+len(b.Peers()) == 0 })
	if err := b.Connect(t.Context(), a.Addrs()[0]); err == nil || !strings.Contains(err.Error(), "has banned us") {
		t.Errorf("the banned peer connects: %v", err)
	}
	if err := a.Connect(t.Context(), b.Addrs()[0]); err == nil {
		t.Error("we dialed whom we banned")
	}
}

func TestNoMetricHasAPeerInItsLabels(t *testing.T) {
	var box inbox
	a, b := pair(t, func(h *Host, _ bool) { h.Register(Topic{Name: "t", MaxSize: 10}, box.handle) })
	within(t, patience, "b takes the topic", func() bool { return a.Publish(t.Context(), "t", []byte("x")) == nil })
	within(t, patience, "b has it", box.has("x"))
	families, err := a.cfg.Registry.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) < 8 {
		t.Errorf("only %d metrics", len(families))
	}
	for _, f := range families {
		if text := f.String(); strings.Contains(text, b.ID().String()) || strings.Contains(text, "127.0.0.1") {
			t.Errorf("a peer in a metric: %s", text)
		}
	}
	if got := metric(t, a.cfg.Registry.(*prometheus.Registry), "tweedle_p2p_peers", map[string]string{"direction": "in"}); got != 1 {
		t.Errorf("%v inbound peers, want 1", got)
	}
}

func TestBadConfigsSayWhatToChange(t *testing.T) {
	taken := newHost(t, loopbackConfig(t, "test"))
	for want, change := range map[string]func(*Config){
		"is not QUIC":       func(c *Config) { c.Listen = []string{"/ip4/127.0.0.1/tcp/0"} },
		"no listen address": func(c *Config) { c.Listen = nil },
		"choose another":    func(c *Config) { c.Listen = []string{strings.Split(taken.Addrs()[0], "/p2p/")[0]} },
		"bootnode":          func(c *Config) { c.Bootnodes = []string{"/ip4/127.0.0.1/udp/1/quic-v1"} },
		"no identity key":   func(c *Config) { c.Key = nil },
		"network name":      func(c *Config) { c.Network.Name = "" },
		"rising order":      func(c *Config) { c.MinPeers, c.MaxPeers = 10, 5 },
	} {
		cfg := loopbackConfig(t, "test")
		change(&cfg)
		h, err := New(cfg)
		if err == nil {
			h.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestIdentityKeyIsMadeOnceAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity")
	first, err := LoadOrCreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadOrCreateKey(path)
	if err != nil || !first.Equals(again) {
		t.Fatalf("second time: %v, the same: %v", err, first.Equals(again))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	if err := os.WriteFile(path, []byte("00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(path); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged key: %v", err)
	}
	if _, err := LoadOrCreateKey(filepath.Join(path, "no", "folder")); err == nil {
		t.Error("a key in no folder")
	}
}

// metric returns the value of one counter or gauge, or the count of one histogram; zero if there is none.
func metric(t *testing.T, reg *prometheus.Registry, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
					continue metrics
				}
			}
			if m.GetHistogram() != nil {
				return float64(m.GetHistogram().GetSampleCount())
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}
