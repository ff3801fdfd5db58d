package virtual_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"tweedle/edges/p2p"
	"tweedle/edges/p2p/virtual"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// with returns the lines that have a text.
func (l *lines) with(text string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// Strangers from many addresses dial us, more than we keep, and are the more useful ones: the first with
// every message. Whom we dialed stays.
func TestThePeersThatWeChoseAreNotTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		var boot []string
		var all []*node
		for i := range 3 {
			n := start(t, net, 1+i)
			all, boot = append(all, n), append(boot, n.Addrs()...)
		}
		cfg := config(t, net, 0, boot...)
		cfg.MinPeers, cfg.MinOutbound, cfg.MaxPeers = 3, 3, 6
		hub := startWith(t, cfg, accept)
		time.Sleep(10 * time.Second)
		chosen := make(map[p2p.PeerID]time.Time)
		for _, p := range hub.Peers() {
			chosen[p.ID] = p.Since
		}
		if len(chosen) != 3 {
			t.Fatalf("%d peers: the scene is not set", len(chosen))
		}
		var strangers []*node
		for i := range 10 {
			cfg := config(t, net, 100+i, hub.Addrs()...)
			cfg.MinPeers, cfg.MinOutbound = 1, 1
			strangers = append(strangers, startWith(t, cfg, accept))
		}
		defer stopAll(append(append(all, strangers...), hub))
		for i := range 60 {
			time.Sleep(time.Second)
			for k, n := range strangers {
				_ = n.Publish(t.Context(), "t", fmt.Append(nil, i, " ", k)) // some are not connected
			}
			there := 0
			for _, p := range hub.Peers() {
				if since, ok := chosen[p.ID]; ok && since.Equal(p.Since) {
					there++
				}
			}
			if there != len(chosen) {
				t.Fatalf("%d of %d chosen peers are left", there, len(chosen))
			}
		}
	})
}

// Ten of one operator are behind one address: the ninth is told of in the log of whom it dials, by the
// name of the limit and of the setting, and with the setting raised all ten are let in.
func TestTheLimitOfOneAddressIsNamedAndCanBeRaised(t *testing.T) {
	for _, limit := range []int{p2p.DefaultMaxConnsPerIP, 20} {
		synctest.Test(t, func(t *testing.T) {
			net := virtual.NewNetwork(20 * time.Millisecond)
			defer net.Close()
			var log lines
			cfg := config(t, net, 0)
			cfg.MaxConnsPerIP = limit
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			hub := startWith(t, cfg, accept)
			all := []*node{hub}
			for i := range 10 {
				cfg := config(t, net, 7, hub.Addrs()...)
				cfg.Listen = []string{fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", virtual.IP(7), 7600+i)}
				cfg.MinPeers, cfg.MinOutbound = 1, 1
				all = append(all, startWith(t, cfg, accept))
			}
			defer stopAll(all)
			time.Sleep(30 * time.Second)
			if !hub.Reached() {
				t.Error("it does not know that others can dial it")
			}
			said := log.with("raise --peers-per-address")
			if got, want := len(hub.Peers()), min(limit, 10); got != want {
				t.Errorf("limit %d: %d peers, want %d", limit, got, want)
			}
			if (len(said) > 0) != (limit < 10) || len(said) > 2 {
				t.Errorf("limit %d: %d lines name it", limit, len(said))
			}
		})
	}
}

// A bootnode that is not there, one at whose address somebody else is, and one that lives: the first two
// are named with the reason, each once a minute.
func TestABootnodeThatCannotBeReachedIsNamedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		alive, other := start(t, net, 1), start(t, net, 2)
		defer alive.stop()
		defer other.stop()
		var log lines
		cfg := config(t, net, 0, alive.Addrs()[0],
			fmt.Sprintf("/ip4/%s/udp/1/quic-v1/p2p/%s", virtual.IP(9), someID(t)), strings.Replace(other.Addrs()[0], other.ID().String(), someID(t), 1))
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		h := startWith(t, cfg, accept)
		defer h.stop()
		time.Sleep(10*time.Minute + time.Second)
		said := log.with("bootnode cannot be reached")
		for address, reason := range map[string]string{virtual.IP(9).String(): "timeout", virtual.IP(2).String(): "peer id mismatch"} {
			n := 0
			for _, line := range said {
				if strings.Contains(line, address) && strings.Contains(line, reason) {
					n++
				}
			}
			if n < 8 || n > 11 {
				t.Errorf("%s is named %d times in ten minutes with %q: %q", address, n, reason, said[:min(2, len(said))])
			}
		}
		if len(log.with(alive.ID().String())) != 0 {
			t.Error("the one that lives is named")
		}
	})
}

// someID is the name of a host that is nowhere.
func someID(t *testing.T) string {
	t.Helper()
	key, err := p2p.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// A peer asks with a few bytes for the largest answer, as often as the number of requests allows: what it
// gets is bounded in bytes, and whoever asks for less is served.
func TestAnswersAreBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(5 * time.Millisecond)
		defer net.Close()
		const protocol, answer = "/test/1", 1 << 20
		limits := p2p.Limits{MaxResponse: answer, Rate: 50, Burst: 200, ByteRate: 1 << 20, ByteBurst: 4 << 20}
		host := func(i int, boot ...string) *node {
			return startWithHandler(t, config(t, net, i, boot...), protocol, limits, func(_ context.Context, _ p2p.PeerID, req []byte) ([]byte, error) {
				return make([]byte, map[bool]int{true: answer, false: 100}[len(req) > 0]), nil
			})
		}
		server := host(0)
		greedy, modest := host(1, server.Addrs()...), host(2, server.Addrs()...)
		defer stopAll([]*node{server, greedy, modest})
		time.Sleep(10 * time.Second)
		begin, got := time.Now(), 0
		for time.Since(begin) < 20*time.Second {
			b, err := greedy.Request(t.Context(), server.ID(), protocol, []byte("much"))
			switch {
			case err == nil:
				got += len(b)
			case errors.Is(err, p2p.ErrRateLimited):
				time.Sleep(50 * time.Millisecond)
			default:
				t.Fatal(err)
			}
			if _, err := modest.Request(t.Context(), server.ID(), protocol, nil); err != nil {
				t.Fatalf("the modest one: %v", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		// The burst, what came since, and one answer on credit.
		if limit := 4<<20 + 20<<20 + answer; got > limit || got < limit/2 {
			t.Errorf("%d bytes in 20 s, the limit is %d", got, limit)
		}
	})
}

// Peers that bring us messages dial us, and then strangers from a hundred places do who bring nothing.
// The table stays within its limit, and whoever was of use stays in it but for one.
func TestNewcomersDisplaceNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(20 * time.Millisecond)
		defer net.Close()
		const limit, useful, strangers = 8, 6, 40 / shrink
		cfg := config(t, net, 0)
		cfg.MinPeers, cfg.MinOutbound, cfg.MaxPeers = 1, 1, limit
		var log lines
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		begin := time.Now()
		hub := startWith(t, cfg, accept)
		all := []*node{hub}
		for i := range useful + strangers {
			cfg := config(t, net, 1+i, hub.Addrs()...)
			cfg.MinPeers, cfg.MinOutbound = 1, 1
			all = append(all, startWith(t, cfg, accept))
			if i == useful-1 {
				time.Sleep(30 * time.Second) // longer than any grace
			}
			if i < useful {
				continue
			}
			// Two of them a second.
			time.Sleep(500 * time.Millisecond)
			for k, n := range all[1 : 1+useful] {
				_ = n.Publish(t.Context(), "t", fmt.Append(nil, i, " ", k)) // who was displaced has no peer
			}
		}
		defer stopAll(all)
		most, least := 0, useful
		for range 60 {
			time.Sleep(time.Second)
			peers, there := hub.Peers(), 0
			most = max(most, len(peers))
			for _, p := range peers {
				for _, n := range all[1 : 1+useful] {
					if p.ID == n.ID() {
						there++
					}
				}
			}
			least = min(least, there)
			for k, n := range all[1 : 1+useful] {
				_ = n.Publish(t.Context(), "t", fmt.Append(nil, "late ", time.Now().Unix(), " ", k))
			}
		}
		minutes := int(time.Since(begin)/time.Minute) + 1
		if said := log.with("made room for newcomers"); len(said) == 0 || len(said) > minutes || !strings.Contains(said[0], "--max-peers") {
			t.Errorf("%d lines in %d minutes tell that the table is full: %q", len(said), minutes, said)
		}
		t.Logf("of %d useful peers at least %d are there; at most %d sessions, the limit is %d", useful, least, most, limit)
		if most > limit || least < useful-1 {
			t.Fail()
		}
	})
}
