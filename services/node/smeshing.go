package node

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/edges/smeshing"
	"tweedle/protocol/core"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// identity is one with which we smesh.
type identity struct {
	*signing.Signer
	trustIn                types.Epoch // when an old local.db may sign again; 0: it is not old; the loop owns it
	signed, assigned, used prometheus.Counter
}

// smesh makes the smeshers of the node, if it is to smesh.
func (n *Node) smesh() (err error) {
	var all []smeshing.Identity
	if n.cfg.Smeshing {
		if all, err = smeshing.Identities(n.activation.Network, append([]string{n.cfg.Dir}, n.cfg.Identities...)...); err != nil {
			return err
		}
		if err := smeshing.NoteIdentities(n.cfg.Dir, n.cfg.Identities); err != nil {
			return err
		}
	}
	for _, i := range all {
		if i.Signer != nil {
			n.identities = append(n.identities, &identity{Signer: i.Signer})
		}
	}
	n.smeshers, err = smeshing.NewSmeshers(smeshing.Config{
		Network: n.cfg.Network, Poets: n.cfg.Poets, Coinbase: n.cfg.Coinbase, NumUnits: n.cfg.NumUnits, Workers: n.cfg.PostWorkers, NoPull: n.cfg.DrillNoPull,
		Store: n.db, Node: chain{n}, HTTP: n.cfg.PoetTransport, Now: n.now, Log: n.log,
	}, all)
	return err
}

// identity returns ours of an id, nil if it is not ours.
func (n *Node) identity(id types.NodeID) *identity {
	for _, i := range n.identities {
		if i.NodeID() == id {
			return i
		}
	}
	return nil
}

// chain is what smeshers see of the node: it implements smeshing.Node.
type chain struct{ n *Node }

// Highest implements activation.Positions.
func (c chain) Highest(before types.Epoch) (types.ATXID, bool) {
	c.n.driver.mu.Lock() // it may load an epoch
	defer c.n.driver.mu.Unlock()
	return c.n.driver.machine.Highest(before)
}

// Slots implements smeshing.Node.
func (c chain) Slots(id types.NodeID, e types.Epoch) []types.Layer {
	return look(c.n.driver, func(m *core.Machine) []types.Layer { return m.Slots(id, e) })
}

// Elsewhere implements smeshing.Node.
func (c chain) Elsewhere(id types.NodeID) bool {
	return look(c.n.driver, func(m *core.Machine) bool { return m.Elsewhere(id) })
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
	v, ok := c.n.driver.heard(ctx, 0, core.Self, core.TopicATX, core.Own(a))
	if !ok {
		return ctx.Err()
	}
	if _, err := c.n.db.ATXRecord(id); v.Class != core.Accept && err != nil {
		return fmt.Errorf("our own ATX is not valid: %s", v.Reason)
	}
	c.n.log.Info("published ATX", "identity", a.SmesherID.Short(), "epoch", a.PublishEpoch, "id", id.Short())
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
	v, ok := n.driver.heard(ctx, 0, core.Self, core.TopicTx, m)
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
