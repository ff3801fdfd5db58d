package p2p

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// stumbling is a libp2p host whose first stream of gossip opens late, and then not: its connection is
// the old one of two, and just closes.
type stumbling struct {
	host.Host
	late    time.Duration
	stumble atomic.Bool
}

func (s *stumbling) NewStream(ctx context.Context, p PeerID, protocols ...protocol.ID) (network.Stream, error) {
	if strings.HasPrefix(string(protocols[0]), "/meshsub/") && s.stumble.CompareAndSwap(false, true) {
		select {
		case <-time.After(s.late):
		case <-ctx.Done():
		}
		return nil, errors.New("its connection has just closed")
	}
	return s.Host.NewStream(ctx, p, protocols...)
}

// gossipsub forgets a peer to which it could not open a stream. A host at rest, which asks nobody for peers
// and to which nothing happens, tells it again.
func TestAPeerThatGossipForgotIsBackInSeconds(t *testing.T) {
	t.Parallel()
	cfg := loopbackConfig(t, "test")
	cfg.MinPeers, cfg.MinOutbound = 1, 1 // it wants nobody else
	a := forgetful(t, cfg)
	s := &stumbling{Host: a.libp2p, late: 2 * askSoon}
	a.libp2p = s
	a.Register(Topic{Name: "t", MaxSize: 100}, new(inbox).handle)
	b := forgetful(t, loopbackConfig(t, "test"))
	b.Register(Topic{Name: "t", MaxSize: 100}, new(inbox).handle)
	run(t, a)
	run(t, b)
	if err := a.Connect(t.Context(), b.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	within(t, s.late+3*rejoinEvery, "b finds the topic", func() bool { return !errors.Is(b.Publish(t.Context(), "t", []byte("b")), ErrNoPeers) })
	if !s.stumble.Load() {
		t.Error("no stream was opened")
	}
}
