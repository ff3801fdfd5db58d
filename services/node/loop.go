package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/protocol/hare"
	"tweedle/protocol/mesh"
	"tweedle/protocol/txpool"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// maxInputs bounds the inputs that wait for the loop; gossip that finds it
// full is ignored.
const maxInputs = 1024

// input is what the loop is told: one of the types below.
type (
	inputProposal struct{ proposal }
	inputCertify  struct {
		msg   types.CertifyMessage
		reply chan error
	}
	inputCertified struct {
		cert  types.Certificate
		block *types.Block
		reply chan error
	}
	inputTx struct {
		raw   types.Transaction
		reply chan error
	}
	inputStepBack struct {
		from  types.Layer
		reply chan error
	}
	inputProjected struct {
		address types.Address
		reply   chan projected
	}
)

// input hands something to the loop; false if ctx ended first.
func (n *Node) input(ctx context.Context, in any) bool {
	select {
	case n.inputs <- in:
		return true
	case <-ctx.Done():
		return false
	}
}

// ask hands something to the loop and waits for its answer.
func (n *Node) ask(ctx context.Context, in any, reply chan error) error {
	if !n.input(ctx, in) {
		return ctx.Err()
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// loop owns all consensus state: nobody else writes it. It ends with ctx, or
// with an error that the node cannot live with.
func (n *Node) loop(ctx context.Context) error {
	for {
		if err := n.advance(n.now()); err != nil {
			return err
		}
		timer := time.NewTimer(n.nextWake().Sub(n.now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case in := <-n.inputs:
			timer.Stop()
			if err := n.take(n.now(), in); err != nil {
				return err
			}
		case <-n.heavier.wake:
			timer.Stop()
			if err := n.recheckAll(); err != nil {
				return err
			}
		case <-timer.C:
		}
	}
}

// nextWake returns when something is due without input.
func (n *Node) nextWake() time.Time {
	next := n.schedule.LayerStart(n.layer + 1)
	if n.layer == 0 && n.now().Before(n.schedule.Genesis) {
		next = n.schedule.Genesis
	}
	if at := n.agreement.Next(); !at.IsZero() && at.Before(next) {
		next = at
	}
	return next
}

// advance does what the clock asks for.
func (n *Node) advance(now time.Time) error {
	if n.trustIn != 0 && n.schedule.EpochAt(now) >= n.trustIn {
		n.trustIn = 0
		if err := n.db.TrustLocal(); err != nil {
			return n.fatal("trust local.db", err)
		}
		n.log.Info("signing again: nothing that was signed before the rollback can conflict any more")
	}
	if layer := n.schedule.LayerAt(now); layer > n.layer {
		n.layer = layer
		if err := n.forgetDropped(); err != nil {
			return n.fatal("forget transactions", err)
		}
		if n.signs(layer) {
			if err := n.propose(now, layer); err != nil {
				return n.fatal("propose", err)
			}
		}
	}
	for _, r := range n.agreement.Step(now) {
		err := n.decide(r)
		delete(n.proposals, r.Layer)
		if err := n.fatal("decide", err); err != nil {
			return err
		}
	}
	return nil
}

// signs tells whether we take part in a layer.
func (n *Node) signs(layer types.Layer) bool {
	return n.signer != nil && layer >= n.schedule.FirstBallotLayer() && n.synced.Load()
}

// take handles one input.
func (n *Node) take(now time.Time, in any) error {
	switch in := in.(type) {
	case inputProposal:
		n.addProposal(now, in.proposal)
	case inputCertify:
		err := n.certify(in.msg)
		in.reply <- err
		return n.fatal("certify", err)
	case inputCertified:
		err := n.apply(&in.cert, in.block)
		in.reply <- err
		return n.fatal("apply", err)
	case inputTx:
		err := n.addTx(in.raw)
		in.reply <- err
		return n.fatal("transaction", err)
	case inputStepBack:
		err := n.stepBack(in.from)
		in.reply <- err
		return n.fatal("step back", err)
	case inputProjected:
		nonce, balance := n.pool.Projected(in.address)
		in.reply <- projected{nonce, balance}
	default:
		panic(fmt.Sprintf("node: unknown input %T", in))
	}
	return nil
}

func (n *Node) addProposal(now time.Time, p proposal) {
	if !n.agreement.Add(now, p.layer, p.id) {
		return
	}
	if n.proposals[p.layer] == nil {
		n.proposals[p.layer] = make(map[types.ProposalID]proposal)
	}
	n.proposals[p.layer][p.id] = p
}

// decide builds the block of an agreed layer, executes it, and signs what came
// out.
func (n *Node) decide(r hare.Result) error {
	el, err := n.epochs.Electorate(n.schedule.EpochOf(r.Layer))
	if err != nil {
		return err
	}
	block, err := n.build(r)
	if err != nil || r.Layer <= n.chain.Tip().Layer {
		return err
	}
	content, err := n.content(block)
	if err != nil {
		return err
	}
	out := n.chain.Try(content)
	block.Txs = effective(out)
	for _, r := range out.Results {
		if r.Status == vm.Ineffective {
			n.drop(r.ID)
		}
	}
	if err := n.db.AddBlock(block); err != nil || !n.signs(r.Layer) {
		return err
	}
	atx, ok := el.of(n.signer.NodeID())
	if !ok {
		return nil
	}
	d := types.Decision{Layer: r.Layer, Electorate: el.ids.Hash(), Parent: n.chain.Tip().State.Root(), Block: block.ID(), StateRoot: out.State.Root()}
	// If we stop before the guard holds, nothing was sent; the next start does
	// not come back to this layer.
	if err := n.guard(signing.Certify, r.Layer, types.Sum(codec.Encode(&d))); err != nil {
		return err
	}
	m := types.CertifyMessage{Decision: d, By: types.CertifySignature{
		ATX: atx.ID, Smesher: n.signer.NodeID(), Signature: n.signer.Sign(signing.Certify, codec.Encode(&d)),
	}}
	n.send(topicCertify, codec.Encode(&m))
	return n.certify(m)
}

// effective returns the transactions that did something. Only they are part of
// the block: the state root that is signed with it says on top of what.
func effective(out vm.Outcome) []types.TransactionID {
	var ids []types.TransactionID
	for _, r := range out.Results {
		if r.Status != vm.Ineffective {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// build makes the block of a layer from its agreed proposals.
func (n *Node) build(r hare.Result) (*types.Block, error) {
	var shares []mesh.Share
	var txs []vm.Tx
	var seed []byte
	for _, id := range r.Proposals {
		p := n.proposals[r.Layer][id]
		shares = append(shares, p.share)
		seed = append(seed, id[:]...)
		for _, id := range p.txs {
			stored, err := n.db.Transaction(id)
			if err != nil {
				return nil, err
			}
			tx, err := vm.Parse(stored.Raw)
			if err != nil {
				n.drop(id) // nobody can execute it
				continue
			}
			txs = append(txs, tx)
		}
	}
	var ids []types.TransactionID
	for _, tx := range txpool.Order(types.Sum(seed), txs) {
		ids = append(ids, tx.Raw.ID())
	}
	return mesh.BuildBlock(r.Layer, shares, ids), nil
}

// content gathers what executing a block needs.
func (n *Node) content(b *types.Block) (vm.Block, error) {
	out := vm.Block{Layer: b.Layer}
	for _, id := range b.Txs {
		tx, err := n.db.Transaction(id)
		if err != nil {
			return out, err
		}
		out.Txs = append(out.Txs, tx.Raw)
	}
	for _, r := range b.Rewards {
		atx, err := n.db.ATXRecord(r.ATX)
		if err != nil {
			return out, err
		}
		out.Rewards = append(out.Rewards, vm.Share{ATX: r.ATX, Coinbase: atx.Coinbase, Num: r.Num, Den: r.Den})
	}
	return out, nil
}

// onCertify judges a gossiped signature under a decision.
func (n *Node) onCertify(ctx context.Context, from p2p.PeerID, msg []byte) p2p.Verdict {
	var m types.CertifyMessage
	if err := codec.Decode(msg, &m); err != nil {
		return p2p.Reject("malformed decision")
	}
	if l := n.schedule.LayerAt(n.now().Add(n.skew())); m.Decision.Layer > l || m.Decision.Layer+hare.MaxOpenLayers < l {
		return p2p.Ignore("decision of another time")
	}
	if !n.verifier.Verify(signing.Certify, m.By.Smesher, codec.Encode(&m.Decision), m.By.Signature) {
		return p2p.Reject("decision has a wrong signature")
	}
	if err := n.wantATXs(ctx, from, []types.ATXID{m.By.ATX}); err != nil {
		return n.judge("decision", err)
	}
	reply := make(chan error, 1)
	err := n.ask(ctx, inputCertify{m, reply}, reply)
	switch {
	case err == nil:
		return p2p.Accept()
	case errors.Is(err, hare.ErrEquivocation):
		return p2p.Accept() // others must see it too
	case errors.Is(err, hare.ErrKnown), errors.Is(err, hare.ErrOldLayer):
		return p2p.Ignore(err.Error())
	}
	return n.judge("decision", err)
}

// certify counts a signature whose validity is known, and applies the block
// when it completes a certificate.
func (n *Node) certify(m types.CertifyMessage) error {
	el, err := n.epochs.Electorate(n.schedule.EpochOf(m.Decision.Layer))
	if err != nil {
		return err
	}
	weight, ok := el.Weight(m.By.ATX, m.By.Smesher)
	if !ok {
		return hare.ErrStranger
	}
	cert, err := n.certifier.Add(m, weight, el.total)
	if errors.Is(err, hare.ErrEquivocation) {
		n.log.Warn("smesher signed two decisions", "layer", m.Decision.Layer, "smesher", m.By.Smesher.Short())
	}
	if err != nil || cert == nil {
		return err
	}
	block, err := n.db.Block(cert.Decision.Block)
	if errors.Is(err, store.ErrNotFound) {
		n.catchUp.poke() // the others built it from proposals that we did not get in time
		return nil
	}
	if err != nil {
		return err
	}
	err = n.apply(cert, block)
	if errors.Is(err, mesh.ErrNoBase) || errors.Is(err, store.ErrNotFound) {
		n.catchUp.poke()
		return nil
	}
	if errors.Is(err, mesh.ErrClosed) {
		return nil
	}
	return err
}

// guard asks the store whether we may sign.
func (n *Node) guard(d signing.Domain, slot types.Layer, hash types.Hash32) error {
	return n.db.Guard(d, n.signer.NodeID(), uint64(slot), hash)
}

// fatal tells the errors that end the node from those that concern one input.
// A full or broken store ends it: a node that cannot write must not go on.
func (n *Node) fatal(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case store.Fatal(err):
		return fmt.Errorf("%s: %w", doing, err)
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrRolledBack):
		n.log.Error("we do not sign", "doing", doing, "err", err)
	default:
		n.log.Debug("input without effect", "doing", doing, "err", err)
	}
	return nil
}
