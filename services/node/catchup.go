package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/protocol/hare"
	"tweedle/protocol/mesh"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// maxBehind is how many layers the tip of a peer may be ahead of ours while we
// still take part.
const maxBehind = 3

// catchUp brings the node to where its peers are: the ATXs of the epochs that
// it missed, then the certified blocks. Provisional
// (docs/decisions/0003-provisional-rules.md): it asks for everything since the
// last applied layer; package syncer will sync history.
type catchUp struct {
	n    *Node
	kick chan struct{}
	// epochs up to here were asked for since we started.
	epochsDone types.Epoch
	// astray has the peers whose certificates do not follow from our tip.
	astray struct {
		tip   types.Layer
		peers map[p2p.PeerID]bool
	}
}

func newCatchUp(n *Node) *catchUp { return &catchUp{n: n, kick: make(chan struct{}, 1)} }

// poke asks for a round at once.
func (c *catchUp) poke() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Run asks peers until ctx ends: once a layer, and when poked.
func (c *catchUp) Run(ctx context.Context) error {
	for {
		peers := c.n.host.Peers()
		rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
		if len(peers) == 0 && c.n.alone() {
			c.n.setSynced(true)
		}
		for _, p := range peers[:min(len(peers), 2)] {
			c.n.askGateway(ctx, p.ID)
			err := c.from(ctx, p.ID)
			if errors.Is(err, mesh.ErrNoBase) {
				err = c.disagree(ctx, p.ID, len(peers))
			}
			if err != nil && ctx.Err() == nil {
				c.n.log.Debug("catching up", "peer", p.ID, "err", err)
			}
		}
		pause := time.NewTimer(c.pause())
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-c.kick:
			pause.Stop()
			// What was just certified is stored at the others in a moment.
			if !sleep(ctx, c.n.params.LayerDuration/20) {
				return nil
			}
		case <-pause.C:
		}
	}
}

// disagree notes that what a peer certified does not follow from our tip. When
// two peers say so, or the only one, our newest layer goes: one alone may have
// left out a layer between, by mistake or by intent.
func (c *catchUp) disagree(ctx context.Context, p p2p.PeerID, peers int) error {
	if tip := c.n.tip.Load().layer; c.astray.peers == nil || c.astray.tip != tip {
		c.astray.tip, c.astray.peers = tip, make(map[p2p.PeerID]bool)
	}
	c.astray.peers[p] = true
	if len(c.astray.peers) < min(2, peers) {
		return mesh.ErrNoBase
	}
	reply := make(chan error, 1)
	return c.n.ask(ctx, inputStepBack{c.astray.tip, reply}, reply)
}

// pause is a layer, but less while we are not synced.
func (c *catchUp) pause() time.Duration {
	if c.n.synced.Load() {
		return c.n.params.LayerDuration
	}
	return min(c.n.params.LayerDuration/4, time.Second)
}

// from catches up with one peer.
func (c *catchUp) from(ctx context.Context, p p2p.PeerID) error {
	if err := c.atxs(ctx, p); err != nil {
		return err
	}
	for {
		tip, more, err := c.layers(ctx, p)
		if err != nil {
			return err
		}
		own := c.n.tip.Load().layer
		switch {
		case tip <= own+maxBehind || tip < c.n.schedule.FirstBallotLayer():
			c.n.setSynced(true)
		case !more:
			c.n.setSynced(false)
		}
		if !more {
			return nil
		}
	}
}

// atxs gets the ATXs that the peer has and we have not: of all epochs once,
// then of the current and the last one.
func (c *catchUp) atxs(ctx context.Context, p p2p.PeerID) error {
	current := c.n.epoch()
	from := min(c.epochsDone, max(current, 1)-1)
	for e := max(from, 1); e <= current+1; e++ {
		b, err := c.n.host.Request(ctx, p, protocolEpoch, codec.Encode(number(e)))
		if err != nil {
			return err
		}
		var ids epochAnswer
		if err := codec.Decode(b, &ids); err != nil {
			return fmt.Errorf("epoch %d: %w", e, errRequest)
		}
		for part := range slices.Chunk(ids, maxObjects) {
			if err := c.want(ctx, p, part); err != nil {
				return err
			}
		}
	}
	c.epochsDone = max(c.epochsDone, current)
	return nil
}

// want adds those ATXs of a peer that we do not have. One that we refuse, as a
// second one of its smesher, does not keep the others away.
func (c *catchUp) want(ctx context.Context, p p2p.PeerID, ids []types.ATXID) error {
	for _, id := range ids {
		err := c.n.wantATXs(ctx, p, []types.ATXID{id})
		if err != nil && (isNetwork(err) || ctx.Err() != nil) {
			return err
		}
		if err != nil {
			c.n.log.Debug("ATX not taken", "id", id.Short(), "peer", p, "err", err)
		}
	}
	return nil
}

// layers gets the certified blocks after our tip, and tells the peer's tip and
// whether there may be more.
func (c *catchUp) layers(ctx context.Context, p p2p.PeerID) (types.Layer, bool, error) {
	from := c.n.tip.Load().layer + 1
	b, err := c.n.host.Request(ctx, p, protocolLayers, codec.Encode(number(from)))
	if err != nil {
		return 0, false, err
	}
	var answer layersAnswer
	if err := codec.Decode(b, &answer); err != nil {
		return 0, false, fmt.Errorf("layers: %w", errRequest)
	}
	for i := range answer.certs {
		if err := c.certified(ctx, p, &answer.certs[i]); err != nil {
			return answer.tip, false, err
		}
	}
	return answer.tip, len(answer.certs) == maxLayers, nil
}

// certified verifies a certificate, gets its block and has it applied.
func (c *catchUp) certified(ctx context.Context, p p2p.PeerID, cert *types.Certificate) error {
	n := c.n
	d := &cert.Decision
	if d.Layer > n.schedule.LayerAt(n.now().Add(n.skew())) || d.Layer < n.schedule.FirstBallotLayer() {
		return errNotNow
	}
	el, err := n.epochs.Electorate(n.schedule.EpochOf(d.Layer))
	if err != nil {
		return err
	}
	signed := codec.Encode(d)
	err = hare.VerifyCertificate(cert, el, func(s types.CertifySignature) bool {
		return n.verifier.Verify(signing.Certify, s.Smesher, signed, s.Signature)
	})
	if err != nil {
		return fmt.Errorf("certificate of layer %d from peer %s: %w", d.Layer, p, err)
	}
	block, err := c.block(ctx, p, d.Block)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(block.Txs, maxObjects) {
		if err := n.fetchTxs(ctx, p, part); err != nil {
			return err
		}
	}
	var atxs []types.ATXID
	for _, r := range block.Rewards {
		atxs = append(atxs, r.ATX)
	}
	if err := n.wantATXs(ctx, p, atxs); err != nil {
		return err
	}
	reply := make(chan error, 1)
	err = n.ask(ctx, inputCertified{*cert, block, reply}, reply)
	if errors.Is(err, mesh.ErrClosed) {
		return nil
	}
	return err
}

func (c *catchUp) block(ctx context.Context, p p2p.PeerID, id types.BlockID) (*types.Block, error) {
	block, err := c.n.db.Block(id)
	if !errors.Is(err, store.ErrNotFound) {
		return block, err
	}
	got, err := c.n.fetch(ctx, p, objectsRequest{name20(store.KindBlock, id)})
	if err != nil {
		return nil, err
	}
	block = &types.Block{}
	if err := codec.Decode(got[0], block); err != nil {
		return nil, err
	}
	return block, c.n.db.AddBlock(block)
}

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
