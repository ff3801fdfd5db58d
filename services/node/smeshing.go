package node

import (
	"context"
	"fmt"
	"path/filepath"

	"tweedle/base/telemetry"
	"tweedle/edges/smeshing"
	"tweedle/protocol/core"
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
		Coinbase: n.cfg.Coinbase, NumUnits: n.cfg.NumUnits, Workers: n.cfg.PostWorkers, NoPull: n.cfg.DrillNoPull,
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
func (c chain) Highest(before types.Epoch) (types.ATXID, bool) {
	c.n.driver.mu.Lock() // it may load an epoch
	defer c.n.driver.mu.Unlock()
	return c.n.driver.machine.Highest(before)
}

// Last implements activation.Positions.
func (c chain) Last() (types.ATXID, types.Epoch, bool) {
	last, err := c.n.db.LastATX(c.n.signer.NodeID())
	return last.ID, last.PublishEpoch, err == nil
}

// Slots implements smeshing.Node.
func (c chain) Slots(e types.Epoch) []types.Layer {
	return look(c.n.driver, func(m *core.Machine) []types.Layer { return m.Slots(e) })
}

// KnowsATX implements smeshing.Node.
func (c chain) KnowsATX(id types.ATXID) bool {
	_, err := c.n.db.ATXRecord(id)
	return err == nil
}

// AddPoet implements smeshing.Node.
func (c chain) AddPoet(m *types.PoetProofMessage) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.n.params.LayerDuration)
	defer cancel()
	_, err := c.n.addPoet(ctx, core.Self, m)
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
	v, ok := c.n.driver.heard(ctx, 0, core.Self, core.Own(a))
	switch {
	case !ok:
		return ctx.Err()
	case v.Class != core.Accept && !c.KnowsATX(id):
		return fmt.Errorf("our own ATX is not valid: %s", v.Reason)
	}
	c.n.log.Info("published ATX", "epoch", a.PublishEpoch, "id", id.Short())
	return nil
}

// SubmitTransaction takes a transaction from a user, lets it wait for a block,
// and gossips it. The error says why it is refused, and wraps a reason of
// package vm or txpool.
func (n *Node) SubmitTransaction(ctx context.Context, raw types.Transaction) error {
	m, err := n.check(ctx, core.Self, core.TopicTx, raw)
	if err != nil {
		return err
	}
	v, ok := n.driver.heard(ctx, 0, core.Self, m)
	if !ok {
		return ctx.Err()
	}
	return v.Err
}

// Projected implements api.Node.
func (n *Node) Projected(_ context.Context, a types.Address) (nextNonce, balance uint64, err error) {
	look(n.driver, func(m *core.Machine) struct{} {
		nextNonce, balance = m.Projected(a)
		return struct{}{}
	})
	return nextNonce, balance, nil
}
