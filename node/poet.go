package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"tweedle/activation"
	"tweedle/codec"
	"tweedle/p2p"
	"tweedle/posw"
	"tweedle/store"
	"tweedle/types"
)

// Reasons why a PoET proof is refused.
var (
	errPoetShort  = errors.New("PoET proof has less work than one tick")
	errPoetForm   = errors.New("malformed PoET proof")
	errPoetWork   = errors.New("PoET proof is not valid")
	errPoetFuture = errors.New("PoET proof claims more work than there was time for")
)

// maxLeavesPerSecond is more than any machine computes: proofs that claim
// more work since genesis are refused before they cost anything.
const maxLeavesPerSecond = 200_000

// checkPoet verifies a proof. It costs some milliseconds of one core.
func (n *Node) checkPoet(m *types.PoetProofMessage) error {
	if m.Proof.NumLeaves < n.params.TickSize {
		return errPoetShort
	}
	// A round began after the network did, give or take an epoch.
	age := n.now().Sub(n.schedule.Genesis) + n.schedule.EpochDuration()
	if m.Proof.NumLeaves > uint64(max(age.Seconds(), 1))*maxLeavesPerSecond {
		return errPoetFuture
	}
	p := posw.Proof{Root: m.Proof.Root, Leaves: hashes(m.Proof.Leaves), Nodes: hashes(m.Proof.Nodes)}
	if err := posw.Verify(m.Statement[:], p, m.Proof.NumLeaves, 1); err != nil {
		return fmt.Errorf("%w: %w", errPoetWork, err)
	}
	return nil
}

func hashes(in []types.Hash32) [][32]byte {
	out := make([][32]byte, len(in))
	for i := range in {
		out[i] = in[i]
	}
	return out
}

// addPoet verifies and stores a proof; known tells that it was there before.
func (n *Node) addPoet(m *types.PoetProofMessage) (known bool, err error) {
	ref := m.Proof.Ref()
	if known, err := n.db.Has(store.KindPoetProof, ref[:]); err != nil || known {
		return known, err
	}
	if err := n.checkPoet(m); err != nil {
		return false, err
	}
	// If we stop before this is durable, the PoET has no acknowledgement and
	// offers the proof again.
	if err := n.db.AddPoetProof(m); err != nil {
		return false, err
	}
	n.log.Info("PoET proof", "poet", m.PoetID.Short(), "round", m.RoundID, "leaves", m.Proof.NumLeaves, "ref", ref.Short())
	n.smesher.poke()
	return false, nil
}

// onPoet judges a gossiped proof.
func (n *Node) onPoet(_ context.Context, _ p2p.PeerID, msg []byte) p2p.Verdict {
	var m types.PoetProofMessage
	if err := codec.Decode(msg, &m); err != nil {
		return p2p.Reject(errPoetForm.Error())
	}
	_, err := n.addPoet(&m)
	switch {
	case err == nil:
		return p2p.Accept()
	case errors.Is(err, errPoetWork), errors.Is(err, errPoetFuture), errors.Is(err, errPoetShort):
		return p2p.Reject(err.Error())
	}
	n.storeFailed(err)
	return p2p.Ignore(err.Error())
}

// servePoet takes a proof that a peer hands over, and says that it is stored.
func (n *Node) servePoet(_ context.Context, _ p2p.PeerID, req []byte) ([]byte, error) {
	var m types.PoetProofMessage
	if err := codec.Decode(req, &m); err != nil {
		return nil, errPoetForm
	}
	known, err := n.addPoet(&m)
	if err != nil {
		return nil, err
	}
	return codec.Encode(poetAnswer{known}), nil
}

// gatewayPeers is to how many peers a gateway hands a proof before it
// acknowledges; all of them if it has fewer.
const gatewayPeers = 3

// maxHandedOver bounds how many proofs' hand-overs are remembered.
const maxHandedOver = 256

// handedOver remembers to how many peers each proof was given.
type handedOver struct {
	mu    sync.Mutex
	peers map[types.PoetProofRef]int
	order []types.PoetProofRef // oldest first
}

func (h *handedOver) get(ref types.PoetProofRef) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.peers[ref]
}

func (h *handedOver) set(ref types.PoetProofRef, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.peers == nil {
		h.peers = make(map[types.PoetProofRef]int)
	}
	if _, ok := h.peers[ref]; !ok {
		h.order = append(h.order, ref)
	}
	h.peers[ref] = max(h.peers[ref], n)
	if len(h.order) > maxHandedOver {
		delete(h.peers, h.order[0])
		h.order = h.order[1:]
	}
}

// Published is what a gateway acknowledges of a PoET proof.
type Published struct {
	Ref   types.PoetProofRef
	Known bool // was stored before this call
	Peers int  // how many peers have it from us, now or earlier
}

// Reasons why a gateway does not take proofs now.
var (
	ErrNotSynced = errors.New("node is not synced: offer the proof to another gateway")
	ErrNoPeers   = errors.New("node has no peers to hand the proof to: offer it to another gateway")
)

// PublishPoet is the gateway's part in the delivery of a proof: it validates
// and stores it, gossips it, and hands it to a few peers directly, so that the
// acknowledgement means that others have it, also when gossip saw it before.
func (n *Node) PublishPoet(ctx context.Context, data []byte) (Published, error) {
	var m types.PoetProofMessage
	if err := codec.Decode(data, &m); err != nil {
		return Published{}, fmt.Errorf("%w: %w", errPoetForm, err)
	}
	out := Published{Ref: m.Proof.Ref()}
	if !n.synced.Load() {
		return out, ErrNotSynced
	}
	var err error
	if out.Known, err = n.addPoet(&m); err != nil {
		return out, err
	}
	if out.Peers = n.handed.get(out.Ref); out.Peers >= gatewayPeers {
		return out, nil
	}
	if _, err := n.host.Publish(ctx, topicPoet, data); err != nil && !errors.Is(err, p2p.ErrDuplicate) && !errors.Is(err, p2p.ErrNoPeers) {
		n.log.Warn("PoET proof was not gossiped", "ref", out.Ref.Short(), "err", err)
	}
	out.Peers = n.handOver(ctx, data)
	n.handed.set(out.Ref, out.Peers)
	if out.Peers == 0 {
		return out, ErrNoPeers
	}
	return out, nil
}

// handOver gives a proof to peers one after the other, until enough have it.
func (n *Node) handOver(ctx context.Context, data []byte) (took int) {
	for _, p := range n.host.Peers() {
		if took >= gatewayPeers {
			break
		}
		if _, err := n.host.Request(ctx, p.ID, protocolPoet, data); err != nil {
			n.log.Debug("peer did not take a PoET proof", "peer", p.ID, "err", err)
			continue
		}
		took++
	}
	return took
}

// PoetProof returns a stored proof's encoding, or store.ErrNotFound.
func (n *Node) PoetProof(ref types.PoetProofRef) ([]byte, error) {
	return n.db.Object(store.KindPoetProof, ref[:])
}

// poetView answers package activation from the store.
func (n *Node) poetView(ref types.PoetProofRef) (*activation.Poet, error) {
	m, err := n.db.PoetProof(ref)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &activation.Poet{Statement: m.Statement, NumLeaves: m.Proof.NumLeaves}, nil
}
