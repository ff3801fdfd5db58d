package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"tweedle/base/telemetry"
	"tweedle/edges/p2p"
	"tweedle/edges/smeshing"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// newSmesher makes the smesher of the node, if it is to smesh.
func (n *Node) newSmesher() (err error) {
	if n.signer == nil {
		return nil
	}
	n.smesher, err = smeshing.New(smeshing.Config{
		Network: n.cfg.Network, Dir: filepath.Join(n.cfg.Dir, postDir), Evidence: filepath.Join(n.cfg.Dir, "evidence"), Signer: n.signer, Poets: n.cfg.Poets,
		Coinbase: n.cfg.Coinbase, NumUnits: n.cfg.NumUnits, Workers: n.cfg.PostWorkers,
		Store: n.db, Node: chain{n}, HTTP: n.cfg.PoetTransport, Log: n.log,
	})
	return err
}

// runSmesher smeshes until ctx ends.
func (n *Node) runSmesher(ctx context.Context) error {
	if n.smesher == nil {
		<-ctx.Done()
		return nil
	}
	return n.smesher.Run(ctx)
}

func (n *Node) smesherStatus() telemetry.SmesherStep {
	if n.smesher == nil {
		return telemetry.SmesherStep{Step: "off"}
	}
	return n.smesher.Status()
}

// poetStored tells the smesher of a proof.
func (n *Node) poetStored(m *types.PoetProofMessage) {
	if n.smesher != nil {
		n.smesher.Stored(m)
	}
}

// chain is what the smesher sees of the node: it implements smeshing.Node.
type chain struct{ n *Node }

// Highest implements activation.Positions.
func (c chain) Highest(before types.Epoch) (types.ATXID, bool) { return c.n.Highest(before) }

// Last implements activation.Positions.
func (c chain) Last() (types.ATXID, types.Epoch, bool) {
	last, err := c.n.db.LastATX(c.n.signer.NodeID())
	return last.ID, last.PublishEpoch, err == nil
}

// KnowsATX implements smeshing.Node.
func (c chain) KnowsATX(id types.ATXID) bool {
	_, err := c.n.db.ATXRecord(id)
	return err == nil
}

// AddPoet implements smeshing.Node.
func (c chain) AddPoet(m *types.PoetProofMessage) error {
	_, err := c.n.addPoet(m)
	return err
}

// PublishATX stores our ATX and gossips it. Storing is what counts: peers that
// do not hear it ask for the epoch's ATXs.
func (c chain) PublishATX(ctx context.Context, a *types.ATX) error {
	id := a.ID()
	// If we stop before the guard holds, the ATX has not left us, and the
	// record still has it: the next start publishes the same one.
	if err := c.n.db.Guard(signing.ATX, a.SmesherID, uint64(a.PublishEpoch), types.Hash32(id)); err != nil {
		return err
	}
	if _, err := c.n.addATX(a); err != nil {
		return fmt.Errorf("our own ATX is not valid: %w", err)
	}
	if err := c.n.host.Publish(ctx, topicATX, codec.Encode(a)); err != nil && !errors.Is(err, p2p.ErrNoPeers) {
		return err
	}
	c.n.log.Info("published ATX", "epoch", a.PublishEpoch, "id", id.Short())
	return nil
}
