package node

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"tweedle/edges/api"
	"tweedle/edges/store"
	"tweedle/protocol/hare"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// apply makes a certified block part of the history: the layers since the last
// one are empty for ever.
func (n *Node) apply(cert *types.Certificate, block *types.Block) error {
	content, err := n.content(block)
	if err != nil {
		return err
	}
	tip := n.chain.Tip()
	ext, err := n.chain.Extend(cert.Decision, content)
	if err != nil {
		return err
	}
	var again []types.Transaction
	if ext.Base < tip.Layer {
		n.log.Warn("our newest layers are not part of what was decided", "undone", tip.Layer-ext.Base, "layer", cert.Decision.Layer)
		if again, err = n.undone(ext.Base); err != nil {
			return err
		}
	}
	result := store.LayerResult{
		Layer: cert.Decision.Layer, Base: ext.Base, Block: block, Certificate: cert, Outcome: ext.Outcome,
	}
	// If we stop before this is written, the next start gets the certificate
	// again from a peer.
	if err := n.db.Apply(result); err != nil {
		return err
	}
	n.repool(ext.Outcome.State, again)
	n.setTip(cert.Decision.Layer, cert.Decision.StateRoot, ext.Outcome.State)
	n.log.Info("layer applied", "layer", cert.Decision.Layer, "block", cert.Decision.Block.Short(),
		"txs", len(block.Txs), "state", cert.Decision.StateRoot.Short(), "signatures", len(cert.Signatures))
	n.events.Publish(api.Applied{LayerResult: result})
	return nil
}

// stepBack gives up our newest layer, if it is still the one from which what
// others certified does not follow: the state before it comes from the store.
// Catching up goes on from there, and back further if need be.
func (n *Node) stepBack(from types.Layer) error {
	if n.chain.Tip().Layer != from {
		return nil
	}
	return n.giveUp(from)
}

// heavier remembers in which epochs more weight became known, until the loop
// looks at their certificates.
type heavier struct {
	wake chan struct{}
	mu   sync.Mutex
	in   map[types.Epoch]bool
}

func newHeavier() *heavier {
	return &heavier{wake: make(chan struct{}, 1), in: make(map[types.Epoch]bool)}
}

func (h *heavier) add(e types.Epoch) {
	h.mu.Lock()
	h.in[e] = true
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// take returns the epochs in ascending order and forgets them.
func (h *heavier) take() []types.Epoch {
	h.mu.Lock()
	defer h.mu.Unlock()
	epochs := slices.Sorted(maps.Keys(h.in))
	clear(h.in)
	return epochs
}

// recheckAll checks the certificates of all epochs that became heavier.
func (n *Node) recheckAll() error {
	for _, e := range n.heavier.take() {
		if err := n.fatal("check our certificates again", n.recheck(e)); err != nil {
			return err
		}
	}
	return nil
}

// recheck looks at our certificates of an epoch again when more of its weight
// has become known: what was more than two thirds of less may not be enough
// any more. The first layer whose signatures do not suffice is given up, with
// all after it; the others' certificates come by catching up.
func (n *Node) recheck(epoch types.Epoch) error {
	el, err := n.epochs.Electorate(epoch)
	if err != nil {
		return err
	}
	layers, err := n.db.BlockLayers(n.schedule.First(epoch), store.MaxPage)
	if err != nil {
		return err
	}
	for _, l := range layers {
		if n.schedule.EpochOf(l.Layer) != epoch {
			break
		}
		cert, err := n.db.Certificate(l.Layer)
		if err != nil {
			return err
		}
		if n.enough(cert, el) {
			continue
		}
		if more := n.certifier.Collected(cert.Decision); more != nil && n.enough(more, el) {
			if err := n.db.AddCertificate(more); err != nil {
				return err
			}
			continue
		}
		n.catchUp.poke()
		return n.giveUp(l.Layer)
	}
	return nil
}

// enough tells whether the signatures of a certificate, which were verified
// before, are of more than two thirds of the weight.
func (n *Node) enough(cert *types.Certificate, el *electorate) bool {
	return hare.VerifyCertificate(cert, el, func(types.CertifySignature) bool { return true }) == nil
}

// giveUp takes a layer and all after it out of our history.
func (n *Node) giveUp(layer types.Layer) error {
	before, err := n.db.LayerBefore(layer)
	if errors.Is(err, store.ErrNotFound) {
		return nil // it is genesis, which nobody certifies
	}
	if err != nil {
		return err
	}
	again, err := n.undone(before.Layer)
	if err != nil {
		return err
	}
	n.log.Warn("our newest layers are not part of what was decided", "from", layer, "back_to", before.Layer)
	// If we stop before this is written, the next start has the layers still
	// and gives them up when it hears of the others' again.
	if err := n.db.Revert(before.Layer); err != nil {
		return err
	}
	state, err := n.loadChain(before)
	if err != nil {
		return err
	}
	n.repool(state, again)
	return nil
}

// repool moves the pool to a state and lets the transactions of undone blocks
// wait again.
func (n *Node) repool(state vm.State, undone []types.Transaction) {
	n.drop(n.pool.Reverted(state, undone)...)
	for _, raw := range undone {
		n.drop(raw.ID()) // unless it waits when its time has come
	}
	n.waiting.Store(int64(n.pool.Len()))
}

// undone returns the transactions of the blocks after base: they wait again.
func (n *Node) undone(base types.Layer) ([]types.Transaction, error) {
	layers, err := n.db.BlockLayers(base+1, store.MaxPage)
	if err != nil {
		return nil, err
	}
	var again []types.Transaction
	for _, l := range layers {
		txs, err := n.db.LayerTransactions(l.Layer)
		if err != nil {
			return nil, err
		}
		for _, tx := range txs {
			again = append(again, tx.Raw)
		}
	}
	return again, nil
}
