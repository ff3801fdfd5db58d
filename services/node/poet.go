package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"tweedle/edges/api"
	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/proofs/posw"
	"tweedle/protocol/activation"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// Reasons why a PoET proof is refused.
var (
	errPoetForm      = errors.New("malformed PoET proof")
	errPoetShort     = fmt.Errorf("%w: it has less work than one tick", api.ErrInvalidProof)
	errPoetFuture    = fmt.Errorf("%w: it claims more work than there was time for", api.ErrInvalidProof)
	errPoetStatement = fmt.Errorf("%w: it is known, and of another statement", api.ErrInvalidProof)
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
	if err := posw.Verify(m.Statement[:], &m.Proof, 1); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalidProof, err)
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

// addPoet verifies and stores a proof; known tells that it was there before,
// maybe under another name. A proof that comes from several sides at once is
// verified once; the reference does not cover the statement, so it is not
// enough to tell that two are the same.
func (n *Node) addPoet(m *types.PoetProofMessage) (known bool, err error) {
	whole := types.Sum(codec.Encode(m))
	v, err, _ := n.adding.Do(string(whole[:]), func() (any, error) { return n.verifyPoet(m) })
	return v.(bool), err
}

func (n *Node) verifyPoet(m *types.PoetProofMessage) (known bool, err error) {
	ref := m.Proof.Ref()
	stored, err := n.db.PoetProof(ref)
	switch {
	case err == nil && stored.Statement != m.Statement:
		return true, errPoetStatement
	case err == nil:
		return true, nil
	case !errors.Is(err, store.ErrNotFound):
		return false, err
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
	n.poetStored(m)
	return false, nil
}

// onPoet judges a gossiped proof.
func (n *Node) onPoet(_ context.Context, _ p2p.PeerID, msg []byte) p2p.Verdict {
	var m types.PoetProofMessage
	if err := codec.Decode(msg, &m); err != nil {
		return p2p.Reject(errPoetForm.Error())
	}
	known, err := n.addPoet(&m)
	switch {
	case err == nil && known && !n.hasPoet(m.Proof.Ref(), msg):
		return p2p.Ignore("PoET proof is known under another name")
	case err == nil:
		return p2p.Accept()
	case errors.Is(err, api.ErrInvalidProof):
		return p2p.Reject(err.Error())
	}
	n.storeFailed(err)
	return p2p.Ignore(err.Error())
}

// hasPoet tells whether a proof is stored in exactly this form. Everybody can
// write other names on a proof; if we passed those on there were no end of it.
func (n *Node) hasPoet(ref types.PoetProofRef, msg []byte) bool {
	b, err := n.db.Object(store.KindPoetProof, ref[:])
	return err == nil && bytes.Equal(b, msg)
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
	if !n.synced.Load() {
		return out, errNotSynced
	}
	var err error
	if out.Known, err = n.addPoet(&m); err != nil {
		return out, err
	}
	if out.Peers = n.handed.get(out.Ref); out.Peers >= gatewayPeers {
		return out, nil
	}
	if err := n.host.Publish(ctx, topicPoet, data); err != nil && !errors.Is(err, p2p.ErrNoPeers) {
		n.log.Warn("PoET proof was not gossiped", "ref", out.Ref.Short(), "err", err)
	}
	out.Peers = n.handOver(ctx, data)
	n.handed.set(out.Ref, out.Peers)
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

// GatewayPeers returns our name as a gateway and the gRPC addresses of those
// peers that serve as gateways too.
func (n *Node) GatewayPeers() (id string, addresses []string) {
	return n.host.ID().String(), n.gateways.of(n.host.Peers())
}

// maxGateways bounds the peers whose gateway addresses are remembered.
const maxGateways = 1024

// gateways remembers what peers told of their gRPC addresses.
type gateways struct {
	mu   sync.Mutex
	addr map[p2p.PeerID]string
}

// of returns the addresses of some peers, each once.
func (g *gateways) of(peers []p2p.PeerInfo) (addresses []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range peers {
		if a := g.addr[p.ID]; a != "" && !slices.Contains(addresses, a) {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

func (g *gateways) set(p p2p.PeerID, address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.addr == nil || len(g.addr) >= maxGateways {
		g.addr = make(map[p2p.PeerID]string)
	}
	g.addr[p] = address
}

// serveGateway tells a peer where PoETs can reach us.
func (n *Node) serveGateway(context.Context, p2p.PeerID, []byte) ([]byte, error) {
	return []byte(n.servers.advertised()), nil
}

// askGateway learns where PoETs can reach a peer.
func (n *Node) askGateway(ctx context.Context, p p2p.PeerID) {
	b, err := n.host.Request(ctx, p, protocolGateway, nil)
	if err != nil {
		return
	}
	if _, _, err := net.SplitHostPort(string(b)); err == nil {
		n.gateways.set(p, string(b))
	}
}
