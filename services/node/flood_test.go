package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"tweedle/edges/p2p"
	"tweedle/protocol/core"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// runHost runs the network side of a world's node.
func (w *world) runHost(tb testing.TB) {
	tb.Helper()
	runHost(tb, w.host)
}

func runHost(tb testing.TB, h *p2p.Host) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	tb.Cleanup(func() { cancel(); <-done })
	<-h.Running()
}

// outsider is a host of the network without a node behind it: it answers
// requests with silence, or not at all. It looks for no peers but the nodes: what
// strangers say to each other is nothing to them, and takes their processors here.
func outsider(tb testing.TB, n *Node, others ...*Node) *p2p.Host {
	tb.Helper()
	key, err := p2p.NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	bootnodes := n.host.Addrs()
	for _, o := range others {
		bootnodes = append(bootnodes, o.host.Addrs()...)
	}
	h, err := p2p.New(p2p.Config{
		Network: p2p.NetworkID{GenesisID: n.cfg.Network.ID(), Name: n.cfg.Network.Name}, Key: key,
		Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, Bootnodes: bootnodes, MinPeers: 1 + len(others), Heartbeat: 100 * time.Millisecond,
	})
	if err != nil {
		tb.Fatal(err)
	}
	for _, t := range core.Topics() {
		h.Register(p2p.Topic{Name: t.Name(), MaxSize: t.MaxSize()}, func(context.Context, p2p.PeerID, []byte) p2p.Verdict { return p2p.Ignore("it only sends") })
	}
	h.Handle(protocolAsk, p2p.Limits{Timeout: time.Minute, Workers: 100, Queue: 100}, func(ctx context.Context, _ p2p.PeerID, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	runHost(tb, h)
	return h
}

// flood has hosts send messages with valid signatures that refer to nothing, so
// many a second each, until the test ends: one in two is a proposal, the other a
// signature under a decision.
func flood(tb testing.TB, n *Node, hosts []*p2p.Host, perSecond int) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, len(hosts))
	for k, h := range hosts {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := 0; ctx.Err() == nil; i++ {
				s, err := signing.NewSigner(signing.SeedFrom(fmt.Sprint("stranger", k, i)), n.activation.Network)
				if err != nil {
					panic(err)
				}
				layer := n.schedule.LayerAt(time.Now())
				p := &types.Proposal{Ballot: types.Ballot{Layer: layer, ATX: types.ATXID{1, byte(k), byte(i), byte(i >> 8)}, Smesher: s.NodeID()}}
				p.Ballot.Signature = s.Sign(signing.Ballot, p.Ballot.SignedBytes())
				p.Signature = s.Sign(signing.Proposal, p.SignedBytes())
				m := core.Seal(s, types.ATXID{}, types.Decision{Layer: layer, Electorate: types.Hash32{byte(k), byte(i), byte(i >> 8)}})
				_ = h.Publish(ctx, core.TopicProposal.Name(), codec.Encode(p)) // best effort, as a flood is
				_ = h.Publish(ctx, core.TopicDecision.Name(), codec.Encode(m))
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Second / time.Duration(perSecond)):
				}
			}
		}()
	}
	tb.Cleanup(func() {
		cancel()
		for range hosts {
			<-done
		}
	})
}

func peersOf(tb testing.TB, h *p2p.Host, n int) {
	tb.Helper()
	for until := time.Now().Add(30 * time.Second); len(h.Peers()) < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			tb.Fatalf("%d peers, want %d", len(h.Peers()), n)
		}
	}
}

// Strangers send what refers to nothing and never answer what it is. An honest
// peer's messages are judged all the same, and its answers are had.
func TestStrangersDelayNobody(t *testing.T) {
	w := openWorld(t)
	w.runHost(t)
	flood(t, w.Node, []*p2p.Host{outsider(t, w.Node), outsider(t, w.Node)}, 25)
	honest := outsider(t, w.Node)
	peersOf(t, w.host, 3)
	time.Sleep(3 * time.Second) // the flood has filled what it can
	for i, raw := range [][]byte{codec.Encode(w.miners[0].atx), codec.Encode(w.miners[1].atx)} {
		if i == 0 {
			if err := honest.Publish(t.Context(), core.TopicPoet.Name(), codec.Encode(&w.poet)); err != nil {
				t.Fatal(err)
			}
			w.wait(t, func(*core.Snapshot) bool { _, err := w.db.PoetProof(w.poet.Proof.Ref()); return err == nil })
		}
		if err := honest.Publish(t.Context(), core.TopicATX.Name(), raw); err != nil {
			t.Fatal(err)
		}
		id := w.miners[i].atx.ID()
		w.wait(t, func(*core.Snapshot) bool { _, err := w.db.ATXRecord(id); return err == nil })
	}
	if s := w.snapshot.Load(); s.Parked > 2*core.MaxParkedPerPeer {
		t.Errorf("%d messages of two strangers wait", s.Parked)
	}
}

// BenchmarkHonestMessagesDuringAFlood is from the publishing of an honest
// transaction at one host to its place in the pool of a node that strangers
// flood.
func BenchmarkHonestMessagesDuringAFlood(b *testing.B) {
	for _, f := range []struct{ strangers, perSecond int }{{0, 0}, {2, 25}, {20, 50}} {
		b.Run(fmt.Sprintf("%dx%d", f.strangers, f.perSecond), func(b *testing.B) {
			w := openWorld(b)
			w.runHost(b)
			var strangers []*p2p.Host
			for range f.strangers {
				strangers = append(strangers, outsider(b, w.Node))
			}
			flood(b, w.Node, strangers, f.perSecond)
			honest := outsider(b, w.Node)
			peersOf(b, w.host, f.strangers+1)
			time.Sleep(3 * time.Second)
			var took []time.Duration
			price := uint64(1)
			for b.Loop() {
				price += price/8 + 2
				raw := w.spawn(b, price)
				start := time.Now()
				if err := honest.Publish(b.Context(), core.TopicTx.Name(), raw); err != nil {
					b.Fatal(err)
				}
				for !w.waits(raw.ID()) {
					time.Sleep(time.Millisecond)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds()*1e3, "ms-p50")
			b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "ms-p99")
			b.ReportMetric(float64(w.snapshot.Load().Parked), "parked")
		})
	}
}

func (w *world) waits(id types.TransactionID) bool {
	w.driver.mu.RLock()
	defer w.driver.mu.RUnlock()
	return slices.ContainsFunc(w.driver.machine.Waiting(), func(tx vm.Tx) bool { return tx.ID == id })
}

// counted notes when a node counted messages of its peers, by what it logs.
type counted struct {
	slog.Handler
	mu    sync.Mutex
	times map[string][]time.Time // by topic
}

func newCounted() *counted {
	return &counted{Handler: slog.DiscardHandler, times: make(map[string][]time.Time)}
}

func (c *counted) Enabled(context.Context, slog.Level) bool { return true }
func (c *counted) WithAttrs([]slog.Attr) slog.Handler       { return c }

func (c *counted) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "counted" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "topic" {
			c.times[a.Value.String()] = append(c.times[a.Value.String()], r.Time)
		}
		return true
	})
	return nil
}

// Strangers flood smeshers that live by two-second layers: every proposal and
// every signature of each counts with all others, and soon.
func TestNoHonestSignatureIsLostInAFlood(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: three floods of half a minute each; TestStrangersDelayNobody is the short form; set TWEEDLE_NIGHTLY=1")
	}
	for _, f := range []struct{ strangers, perSecond int }{{0, 0}, {2, 25}, {20, 50}} {
		t.Run(fmt.Sprintf("%dx%d", f.strangers, f.perSecond), func(t *testing.T) {
			const nodes, layers = 3, 10
			a := grown(t, "local", nodes, 0, 5)
			var logs []*counted
			for i := range nodes {
				logs = append(logs, newCounted())
				a.configs[i].Log = slog.New(logs[i])
			}
			a.live(t)
			for _, n := range a.nodes {
				peersOf(t, n.host, nodes-1)
			}
			var strangers []*p2p.Host
			for range f.strangers {
				strangers = append(strangers, outsider(t, a.nodes[0].Node, a.nodes[1].Node, a.nodes[2].Node))
			}
			for _, n := range a.nodes { // each hears each of them
				peersOf(t, n.host, nodes-1+f.strangers)
			}
			flood(t, a.nodes[0].Node, strangers, f.perSecond)
			schedule, window := a.nodes[0].schedule, a.nodes[0].params.ProposalWindow
			for _, n := range a.nodes {
				for until := time.Now().Add(30 * time.Second); !n.snapshot.Load().Synced; time.Sleep(20 * time.Millisecond) {
					if time.Now().After(until) {
						t.Fatal("it is not synced")
					}
				}
			}
			first := schedule.LayerAt(time.Now()) + 2
			time.Sleep(time.Until(schedule.LayerStart(first + layers)))
			for topic, after := range map[core.Topic]time.Duration{core.TopicProposal: 0, core.TopicDecision: window} {
				var took []time.Duration
				for _, l := range logs {
					l.mu.Lock()
					for _, at := range l.times[topic.String()] {
						layer := schedule.LayerAt(at)
						if layer >= first && layer < first+layers {
							took = append(took, at.Sub(schedule.LayerStart(layer).Add(after)))
						}
					}
					l.mu.Unlock()
				}
				slices.Sort(took)
				want := nodes * (nodes - 1) * layers
				if len(took) == 0 {
					t.Fatalf("no %s is counted", topic)
				}
				t.Logf("%d strangers with %d messages a second each: %d of %d honest messages of topic %s counted; p50 %v, p99 %v, slowest %v after they are due",
					f.strangers, f.perSecond, len(took), want, topic, took[len(took)/2].Round(time.Millisecond),
					took[len(took)*99/100].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
				if len(took) != want {
					t.Errorf("%d of %d messages of topic %s were counted", len(took), want, topic)
				}
			}
		})
	}
}
