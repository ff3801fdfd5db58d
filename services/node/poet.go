package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"tweedle/edges/api"
	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/protocol/core"
	"tweedle/values/bounded"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// errPoetForm says that bytes are no PoET proof.
var errPoetForm = errors.New("malformed PoET proof")

// addPoet has a proof verified and stored; known tells that it was there
// before, maybe under another name. The error wraps api.ErrInvalidProof if no
// repetition will make the proof valid.
func (n *Node) addPoet(ctx context.Context, from core.Peer, m *types.PoetProofMessage) (known bool, err error) {
	ref := m.Proof.Ref()
	stored, err := n.db.PoetProof(ref)
	if err == nil && stored.Statement == m.Statement {
		return true, nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	msg, err := n.check(ctx, from, core.TopicPoet, codec.Encode(m))
	if err != nil {
		var refused *core.RefusedError
		if errors.As(err, &refused) {
			err = fmt.Errorf("%w: %w", api.ErrInvalidProof, err)
		}
		return false, err
	}
	v, ok := n.driver.heard(ctx, 0, from, core.TopicPoet, msg)
	switch {
	case !ok:
		return false, fmt.Errorf("%w: %w", api.ErrNotReady, context.Cause(ctx))
	case v.Class == core.Reject:
		return false, fmt.Errorf("%w: %s", api.ErrInvalidProof, v.Reason)
	case v.Class == core.Ignore:
		return false, fmt.Errorf("%w: %s", api.ErrNotReady, v.Reason)
	}
	return false, nil
}

// servePoet takes a proof that a peer hands over, and says that it is stored.
func (n *Node) servePoet(ctx context.Context, from p2p.PeerID, req []byte) ([]byte, error) {
	var m types.PoetProofMessage
	if err := codec.Decode(req, &m); err != nil {
		return nil, errPoetForm
	}
	known, err := n.addPoet(ctx, core.Peer(from), &m)
	if err != nil {
		return nil, err
	}
	return codec.Encode(poetAnswer{known}), nil
}

// poetAnswer tells whether a handed over proof is stored, and was before.
type poetAnswer struct{ known bool }

func (r poetAnswer) EncodeTo(e *codec.Encoder)    { e.Bool(r.known) }
func (r *poetAnswer) DecodeFrom(d *codec.Decoder) { r.known = d.Bool() }

// gatewayPeers is to how many peers a gateway hands a proof before it
// acknowledges; all of them if it has fewer.
const gatewayPeers = 3

// maxHandedOver bounds how many proofs' hand-overs are remembered.
const maxHandedOver = 256

// handedOver remembers to how many peers each proof was given.
type handedOver struct {
	mu    sync.Mutex
	peers bounded.Map[types.PoetProofRef, int]
}

// most notes that a proof was given to so many peers, and returns the most so far.
func (h *handedOver) most(ref types.PoetProofRef, n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if had, _ := h.peers.Get(ref); had >= n {
		return had
	}
	h.peers.Put(ref, n)
	return n
}

// Reasons why a gateway does not take proofs now.
var (
	errNotSynced = fmt.Errorf("%w: it is not synced, offer the proof to another gateway", api.ErrNotReady)
	errNoPeers   = fmt.Errorf("%w: no peer took the proof, offer it to another gateway", api.ErrNotReady)
)

// PublishPoet is the gateway's part in the delivery of a proof: it validates
// and stores it, gossips it, and hands it to a few peers directly, so that the
// acknowledgement means that others have it, also when gossip saw it before.
func (n *Node) PublishPoet(ctx context.Context, data []byte) (api.Published, error) {
	var m types.PoetProofMessage
	if err := codec.Decode(data, &m); err != nil {
		return api.Published{}, fmt.Errorf("%w: %w", api.ErrInvalidProof, err)
	}
	out := api.Published{Ref: m.Proof.Ref()}
	if !n.snapshot.Load().Synced {
		return out, errNotSynced
	}
	var err error
	if out.Known, err = n.addPoet(ctx, core.Self, &m); err != nil {
		return out, err
	}
	if out.Peers = n.handed.most(out.Ref, 0); out.Peers >= gatewayPeers {
		return out, nil
	}
	if err := n.host.Publish(ctx, core.TopicPoet.Name(), data); err != nil && !errors.Is(err, p2p.ErrNoPeers) {
		n.log.Warn("PoET proof was not gossiped", "ref", out.Ref.Short(), "err", err)
	}
	out.Peers = n.handOver(ctx, data)
	n.handed.most(out.Ref, out.Peers)
	if out.Peers == 0 {
		return out, errNoPeers
	}
	return out, nil
}

// handOver gives a proof to a few more peers than must have it, at the same
// time, and returns how many took it as soon as they are enough: one that does
// not answer keeps nobody waiting. They are drawn anew for each proof, so that
// a few hollow peers do not take them all.
func (n *Node) handOver(ctx context.Context, data []byte) (took int) {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	peers := n.host.Some(3 * gatewayPeers)
	answers := make(chan error, len(peers))
	var all sync.WaitGroup
	defer all.Wait()
	for _, p := range peers {
		all.Go(func() {
			_, err := n.host.Request(ctx, p, protocolPoet, data)
			answers <- err
		})
	}
	for range peers {
		if err := <-answers; err == nil {
			took++
		}
		if took >= gatewayPeers {
			enough()
			break
		}
	}
	return took
}

// PoetProof returns a stored proof's encoding, or store.ErrNotFound.
func (n *Node) PoetProof(ref types.PoetProofRef) ([]byte, error) {
	return n.db.Object(store.KindPoetProof, ref[:])
}

// GatewayID returns our name as a gateway.
func (n *Node) GatewayID() string { return n.host.ID().String() }
