package node

import (
	"errors"
	"testing"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/protocol/hare"
	"tweedle/protocol/mesh"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// has tells whether the store still has a transaction.
func (w *world) has(tb testing.TB, raw types.Transaction) bool {
	tb.Helper()
	_, err := w.db.Transaction(raw.ID())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		tb.Fatal(err)
	}
	return err == nil
}

// later moves the node to a layer after stillLayer without the clock.
func (w *world) later(tb testing.TB, layers types.Layer) {
	tb.Helper()
	if err := w.advance(w.schedule.LayerStart(stillLayer + layers)); err != nil {
		tb.Fatal(err)
	}
}

// Whoever replaces a transaction between a proposal and its block must not
// cost the network the block.
func TestATransactionThatIsReplacedIsThereForTheBlockThatHasIt(t *testing.T) {
	for name, beforeTheBlock := range map[string]bool{"before the block is built": true, "before it is certified": false} {
		t.Run(name, func(t *testing.T) {
			w := populated(t)
			cheap, dear := w.spawn(t, 1), w.spawn(t, 2)
			if err := w.addTx(cheap); err != nil {
				t.Fatal(err)
			}
			p := w.proposal(t, w.miners[1], func(p *types.Proposal) { p.Txs = []types.TransactionID{cheap.ID()} })
			if v := w.onProposal(soon(t), peer, codec.Encode(p)); v != p2p.Accept() {
				t.Fatalf("%+v", v)
			}
			replace := func() {
				if err := w.addTx(dear); err != nil {
					t.Fatal(err)
				}
			}
			if beforeTheBlock {
				replace()
			}
			d := w.decided(t, p)
			if !beforeTheBlock {
				replace()
			}
			for _, m := range w.miners[:3] {
				if err := w.certify(m.certify(d)); err != nil {
					t.Fatal(err)
				}
			}
			if w.tip.Load().root != d.StateRoot {
				t.Fatal("the certified block was not applied")
			}
			if tx, err := w.db.Transaction(cheap.ID()); err != nil || tx.Result == nil || tx.Result.Status != vm.Success {
				t.Errorf("%+v, %v", tx, err)
			}
			w.later(t, keepDropped+2)
			if !w.has(t, cheap) {
				t.Error("an applied transaction is forgotten")
			}
			if w.has(t, dear) {
				t.Error("the transaction that came too late is kept for ever")
			}
		})
	}
}

func TestTransactionsThatLeaveThePoolAreForgottenInTheEnd(t *testing.T) {
	w := openWorld(t)
	old, replacement := w.spawn(t, 1), w.spawn(t, 2)
	for _, raw := range []types.Transaction{old, replacement} {
		if err := w.addTx(raw); err != nil {
			t.Fatal(err)
		}
	}
	w.later(t, keepDropped)
	if !w.has(t, old) {
		t.Errorf("forgotten within %d layers", keepDropped)
	}
	w.later(t, keepDropped+1)
	if w.has(t, old) || !w.has(t, replacement) {
		t.Errorf("after %d layers: the replaced one is there: %v, the waiting one: %v", keepDropped+1, w.has(t, old), w.has(t, replacement))
	}
	// One that comes back in time stays.
	if err := w.addTx(w.spawn(t, 3)); err != nil {
		t.Fatal(err)
	}
	if err := w.addTx(w.spawn(t, 4)); err != nil {
		t.Fatal(err)
	}
	w.later(t, 2*keepDropped+4)
	if w.has(t, w.spawn(t, 3)) || !w.has(t, w.spawn(t, 4)) {
		t.Error("not the replaced one was forgotten")
	}
}

// A proposal may come a little before its layer, and name what we are about to
// forget.
func TestWhatAnOpenProposalNamesIsNotForgotten(t *testing.T) {
	w := populated(t)
	old := w.spawn(t, 1)
	for _, raw := range []types.Transaction{old, w.spawn(t, 2)} {
		if err := w.addTx(raw); err != nil {
			t.Fatal(err)
		}
	}
	soonOpen := stillLayer + keepDropped + 1
	w.addProposal(time.Now(), proposal{id: types.ProposalID{1}, layer: soonOpen, txs: []types.TransactionID{old.ID()}})
	w.later(t, keepDropped+1)
	if !w.has(t, old) {
		t.Fatal("it is forgotten at the start of the layer that needs it")
	}
	w.later(t, keepDropped+2) // closes the layer before
	w.later(t, 2*keepDropped+3)
	if w.has(t, old) {
		t.Error("it is kept for ever")
	}
}

func TestNotTooManyTransactionsAreKept(t *testing.T) {
	w := openWorld(t)
	for i := range maxDropped + 10 {
		w.drop(types.TransactionID{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	if err := w.forgetDropped(); err != nil || len(w.dropped) != maxDropped {
		t.Errorf("%d are kept, %v", len(w.dropped), err)
	}
	if w.dropped[0].id != (types.TransactionID{10}) {
		t.Error("not the oldest were forgotten")
	}
}

// What a proposal brings and nobody can execute does not stay in the store.
func TestWhatOnlyAProposalBroughtIsForgotten(t *testing.T) {
	w := populated(t)
	junk := types.Transaction{1, 2, 3}
	poor := vm.Spend(richSigner(), types.Address{23: 1}, 1, 7, 1) // not spawned, and signed for no network
	for _, raw := range []types.Transaction{junk, poor} {
		if err := w.storeTx(raw); err != nil {
			t.Fatal(err)
		}
	}
	p := w.proposal(t, w.miners[1], func(p *types.Proposal) { p.Txs = []types.TransactionID{junk.ID(), poor.ID()} })
	if v := w.onProposal(soon(t), peer, codec.Encode(p)); v != p2p.Accept() {
		t.Fatalf("%+v", v)
	}
	p.Txs = nil // they have no effect, so the block has none
	w.decided(t, p)
	w.later(t, keepDropped+2)
	if w.has(t, junk) || w.has(t, poor) {
		t.Error("they are kept for ever")
	}
}

func TestWhatCannotWaitAfterARestartIsForgotten(t *testing.T) {
	w := openWorld(t)
	if err := w.storeTx(types.Transaction{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	if err := w.addTx(w.spawn(t, 1)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	n, err := Open(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Node = n
	t.Cleanup(n.Close)
	if got := w.Status().Mempool; got != 1 {
		t.Errorf("%d transactions wait after a restart, one did before", got)
	}
	if err := w.advance(w.schedule.LayerStart(w.layer + keepDropped + 1)); err != nil {
		t.Fatal(err)
	}
	if !w.has(t, w.spawn(t, 1)) || w.has(t, types.Transaction{1, 2, 3}) {
		t.Error("not the one that cannot be executed was forgotten")
	}
}

// A process that was stopped for longer than layers are kept open still builds
// what it was about to build, not an empty block.
func TestALayerThatIsClosedLateHasItsProposals(t *testing.T) {
	w := populated(t)
	p := w.proposal(t, w.miners[1], nil)
	if v := w.onProposal(soon(t), peer, codec.Encode(p)); v != p2p.Accept() {
		t.Fatalf("%+v", v)
	}
	if err := w.take(time.Now(), <-w.inputs); err != nil {
		t.Fatal(err)
	}
	w.later(t, 2*hare.MaxOpenLayers)
	w.decided(t, p) // fails unless the block of the proposal is there
	if len(w.proposals) != 0 {
		t.Errorf("proposals of %d layers are kept", len(w.proposals))
	}
}

// Layers that were applied here and are not part of what the others decided
// are undone, and their transactions wait again.
func TestGoingBackLetsUndoneTransactionsWaitAgain(t *testing.T) {
	w := populated(t)
	w.history(t) // applies a spawn in stillLayer
	if w.Status().Mempool != 0 {
		t.Fatal("a transaction waits")
	}
	// The others closed stillLayer as empty, and certified the next one.
	genesis, err := vm.Genesis(w.vmParams)
	if err != nil {
		t.Fatal(err)
	}
	atx := w.electorate(t).atxs[w.miners[2].atx.ID()]
	block := mesh.BuildBlock(stillLayer+1, []mesh.Share{{ATX: atx.ID, Weight: 1, Slots: 1, Proofs: 1}}, nil)
	out := vm.Apply(genesis, vm.Block{Layer: block.Layer, Rewards: []vm.Share{{ATX: atx.ID, Coinbase: atx.Coinbase, Num: 1, Den: 1}}}, w.vmParams)
	if err := w.db.AddBlock(block); err != nil {
		t.Fatal(err)
	}
	d := types.Decision{Layer: block.Layer, Block: block.ID(), StateRoot: out.State.Root()}
	for _, m := range w.miners[:3] {
		if err := w.certify(m.certify(d)); err != nil {
			t.Fatal(err)
		}
	}
	if tip := w.tip.Load(); tip.layer != d.Layer || tip.root != d.StateRoot {
		t.Fatalf("the tip is layer %d", tip.layer)
	}
	if got := w.Status().Mempool; got != 1 {
		t.Errorf("%d transactions wait, the undone one should", got)
	}
	if _, waits := w.pool.Get(w.spawn(t, 1).ID()); !waits {
		t.Error("the undone transaction does not wait")
	}
	layers, err := w.Layers(0)
	if err != nil || len(layers) != 3 || layers[1].Block != "" || layers[2].StateRoot != d.StateRoot.String() {
		t.Errorf("layers %+v, %v", layers, err)
	}
	w.later(t, keepDropped+3)
	if !w.has(t, w.spawn(t, 1)) {
		t.Error("the waiting transaction is forgotten")
	}
}
