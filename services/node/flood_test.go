package node

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"tweedle/edges/p2p"
	"tweedle/protocol/core"
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
// requests with silence, or not at all.
func outsider(tb testing.TB, w *world) *p2p.Host {
	tb.Helper()
	key, err := p2p.NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	h, err := p2p.New(p2p.Config{
		Network: p2p.NetworkID{GenesisID: stillNetwork().ID(), Name: "still"}, Key: key,
		Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, Bootnodes: w.host.Addrs(), Heartbeat: 100 * time.Millisecond,
	})
	if err != nil {
		tb.Fatal(err)
	}
	for _, t := range topics() {
		h.Register(p2p.Topic{Name: topicName(t), MaxSize: t.MaxSize()}, func(context.Context, p2p.PeerID, []byte) p2p.Verdict { return p2p.Accept() })
	}
	h.Handle(protocolAsk, p2p.Limits{Timeout: time.Minute, Workers: 100, Queue: 100}, func(ctx context.Context, _ p2p.PeerID, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	runHost(tb, h)
	return h
}

// flood has hosts send messages with valid signatures that refer to nothing, so
// many a second each, until the test ends.
func flood(tb testing.TB, w *world, hosts []*p2p.Host, perSecond int) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, len(hosts))
	for k, h := range hosts {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := 0; ctx.Err() == nil; i++ {
				s, err := signing.NewSigner(signing.SeedFrom(fmt.Sprint("stranger", k, i)), w.activation.Network)
				if err != nil {
					panic(err)
				}
				layer := w.schedule.LayerAt(time.Now())
				p := &types.Proposal{Ballot: types.Ballot{Layer: layer, ATX: types.ATXID{1, byte(k), byte(i), byte(i >> 8)}, Smesher: s.NodeID()}}
				p.Ballot.Signature = s.Sign(signing.Ballot, p.Ballot.SignedBytes())
				p.Signature = s.Sign(signing.Proposal, p.SignedBytes())
				m := &types.CertifyMessage{Decision: types.Decision{Layer: layer, Electorate: types.Hash32{byte(k), byte(i), byte(i >> 8)}}}
				m.By = types.CertifySignature{Smesher: s.NodeID(), Signature: s.Sign(signing.Certify, codec.Encode(&m.Decision))}
				_ = h.Publish(ctx, topicName(core.TopicProposal), codec.Encode(p)) // best effort, as a flood is
				_ = h.Publish(ctx, topicName(core.TopicDecision), codec.Encode(m))
				select {
				case <-ctx.Done():
				case <-time.After(time.Second / time.Duration(perSecond)):
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
	flood(t, w, []*p2p.Host{outsider(t, w), outsider(t, w)}, 25)
	honest := outsider(t, w)
	peersOf(t, w.host, 3)
	time.Sleep(3 * time.Second) // the flood has filled what it can
	for i, raw := range [][]byte{codec.Encode(w.miners[0].atx), codec.Encode(w.miners[1].atx)} {
		if i == 0 {
			if err := honest.Publish(t.Context(), topicName(core.TopicPoet), codec.Encode(&w.poet)); err != nil {
				t.Fatal(err)
			}
			w.wait(t, func(*core.Snapshot) bool { _, err := w.db.PoetProof(w.poet.Proof.Ref()); return err == nil })
		}
		if err := honest.Publish(t.Context(), topicName(core.TopicATX), raw); err != nil {
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
// flood. It reports the slowest of a hundred.
func BenchmarkHonestMessagesDuringAFlood(b *testing.B) {
	w := openWorld(b)
	w.runHost(b)
	flood(b, w, []*p2p.Host{outsider(b, w), outsider(b, w)}, 25)
	honest := outsider(b, w)
	peersOf(b, w.host, 3)
	time.Sleep(3 * time.Second)
	var slowest atomic.Int64
	price := uint64(1)
	for b.Loop() {
		price += price/8 + 2
		raw := w.spawn(b, price)
		start := time.Now()
		if err := honest.Publish(b.Context(), topicName(core.TopicTx), raw); err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := w.db.Transaction(raw.ID()); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		slowest.Store(max(slowest.Load(), int64(time.Since(start))))
	}
	b.ReportMetric(float64(slowest.Load())/1e6, "ms-slowest")
}
