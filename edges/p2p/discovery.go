package p2p

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"golang.org/x/sync/errgroup"

	"tweedle/base/durable"
)

const (
	// maxDials bounds the dials and the peer exchanges that run at the same time.
	maxDials = 8
	// dialTimeout bounds one dial, the hello included.
	dialTimeout = 10 * time.Second
	// lookEvery is the least time between two looks of the loop that nothing but time caused.
	lookEvery = 250 * time.Millisecond
	// askSoon and askRarely are the shortest and the longest time between two peer exchanges. The time
	// doubles while nothing changes, so that a network of few nodes comes to rest.
	askSoon   = 2 * time.Second
	askRarely = time.Minute
	// saveEvery is how often a changed address book is written.
	saveEvery = time.Minute
	// rejoinEvery is how often gossip is told of connected peers that it has forgotten.
	rejoinEvery = 5 * time.Second
)

// discover keeps the number of peers up until ctx ends: it dials whom it knows, and asks those whom it
// has for more. It owns all its goroutines.
func (h *Host) discover(ctx context.Context) {
	var work errgroup.Group
	work.SetLimit(maxDials)
	defer work.Wait()
	look := time.NewTimer(0)
	defer look.Stop()
	pause := askSoon
	var asked, ask time.Time // when last, when next
	save := time.Now().Add(saveEvery)
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		case <-h.wake: // a peer came or went, or a dial ended
			pause = askSoon
			if soon := asked.Add(askSoon); ask.After(soon) {
				ask = soon
			}
		}
		now := time.Now()
		if !now.Before(save) {
			h.saveBook()
			save = now.Add(saveEvery)
		}
		if g := h.gossip.Load(); g != nil {
			g.rejoin()
		}
		hungry := h.hungry()
		if !now.Before(ask) {
			if !hungry {
				pause = askRarely
			}
			if h.askSomeone(ctx, &work) {
				asked = now
			}
			ask = now.Add(jitter(pause))
			pause = min(2*pause, askRarely)
		}
		next := min(time.Until(save), max(lookEvery, time.Until(ask)), rejoinEvery)
		if hungry {
			h.dialDue(ctx, &work)
			if due, ok := h.book.nextDue(h.isConnected); ok {
				next = min(next, max(lookEvery, time.Until(due)))
			}
		}
		look.Reset(next)
	}
}

// hungry reports whether the host wants more peers.
func (h *Host) hungry() bool {
	in, out := h.countPeers()
	return in+out < h.cfg.MinPeers || out < h.cfg.MinOutbound
}

func (h *Host) isConnected(p PeerID) bool {
	return h.libp2p.Network().Connectedness(p) == network.Connected
}

func (h *Host) dialDue(ctx context.Context, work *errgroup.Group) {
	for _, info := range h.book.due(maxDials, time.Now(), h.isConnected) {
		dial := func() error {
			err := h.dial(ctx, info)
			var mismatch *MismatchError
			var another sec.ErrPeerIDMismatch
			stranger := errors.As(err, &mismatch) || errors.As(err, &another)
			if boot := h.book.dialed(info.ID, err == nil, stranger, time.Now()); boot != nil && ctx.Err() == nil {
				h.log.Warn("bootnode cannot be reached", "bootnode", fmt.Sprintf("%s/p2p/%s", boot, info.ID), "err", err, "peers", len(h.Peers()))
			}
			result := "ok"
			if err != nil {
				result = "failed"
				h.log.Debug("dial failed", "peer", info.ID, "err", err)
			}
			h.metrics.dials.WithLabelValues(result).Inc()
			h.nudge() // there is a free slot
			return nil
		}
		if !work.TryGo(dial) {
			h.book.release(info.ID)
		}
	}
}

// dial connects to a peer, whatever libp2p remembers of earlier failures: the address book has its own
// memory of them.
func (h *Host) dial(ctx context.Context, info peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if s, ok := h.libp2p.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	err := h.libp2p.Connect(ctx, info)
	// libp2p's text names each address and layer, on many lines; the innermost cause says it in one.
	var mismatch *MismatchError
	var dialed *swarm.DialError
	switch {
	case errors.As(err, &mismatch):
		return mismatch
	case errors.As(err, &dialed) && len(dialed.DialErrors) > 0:
		return dialed.DialErrors[0].Cause
	}
	return err
}

// askSomeone asks a random peer for others and reports whether there was one to ask.
func (h *Host) askSomeone(ctx context.Context, work *errgroup.Group) bool {
	ids := h.libp2p.Network().Peers()
	if len(ids) == 0 {
		return false
	}
	shuffle(ids)
	return work.TryGo(func() error {
		if err := h.askPeers(ctx, ids[0]); err != nil {
			h.log.Debug("peer exchange failed", "peer", ids[0], "err", err)
		}
		return nil
	})
}

// connected and disconnected hear of connections that have passed the hello. libp2p calls them for
// each connection, and waits for them.
func (h *Host) connected(_ network.Network, c network.Conn) {
	h.book.meet(c.RemotePeer(), c.RemoteMultiaddr(), c.Stat().Direction == network.DirOutbound, time.Now())
	h.probe(c)
	h.log.Debug("peer connected", "peer", c.RemotePeer(), "addr", c.RemoteMultiaddr(), "direction", direction(c.Stat().Direction == network.DirInbound))
	h.nudge()
}

// probeSize is what makes a packet long enough to be answered with a stateless reset, which is shorter than
// what causes it.
const probeSize = 64

// probe says something on the other connections of a peer that has a new one. A peer that died without a
// word and is back answers with QUIC's stateless reset, which ends them at once. Else gossipsub, which uses
// one connection of a peer, would keep the dead one until QUIC gives it up, and the peer would hear nothing.
// What it says is no protocol: a live peer drops the stream.
func (h *Host) probe(fresh network.Conn) {
	for _, c := range h.libp2p.Network().ConnsToPeer(fresh.RemotePeer()) {
		if c.ID() == fresh.ID() || !h.tasks.begin() {
			continue
		}
		go func() {
			defer h.tasks.end()
			ctx, cancel := context.WithTimeout(h.ctx, dialTimeout)
			defer cancel()
			s, err := c.NewStream(ctx)
			if err != nil {
				return // it is ending
			}
			s.SetDeadline(time.Now().Add(dialTimeout))
			s.Write(make([]byte, probeSize)) // fails if it ends
			s.Close()
		}()
	}
}

func (h *Host) disconnected(_ network.Network, c network.Conn) {
	if !h.isConnected(c.RemotePeer()) {
		h.book.lost(c.RemotePeer(), time.Now())
		h.log.Debug("peer disconnected", "peer", c.RemotePeer())
	}
	h.nudge()
}

func (h *Host) nudge() {
	select {
	case h.wake <- struct{}{}:
	default: // the loop will look anyway
	}
}

// loadBook reads Config.PeersFile. It is only a cache: without it the bootnodes must do.
func (h *Host) loadBook() {
	if h.cfg.PeersFile == "" {
		return
	}
	content, err := os.ReadFile(h.cfg.PeersFile)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		err = h.book.load(content, h.cfg.Network)
	}
	if err != nil {
		h.log.Warn("cannot use the remembered peers, starting from the bootnodes", "file", h.cfg.PeersFile, "err", err)
	}
}

func (h *Host) saveBook() {
	if h.cfg.PeersFile == "" {
		return
	}
	content, err := h.book.snapshot(h.cfg.Network)
	if err == nil && content != nil {
		err = durable.WriteFile(durable.OS{}, h.cfg.PeersFile, content, 0o600)
	}
	if err != nil {
		h.log.Warn("cannot remember peers", "file", h.cfg.PeersFile, "err", err)
	}
}
