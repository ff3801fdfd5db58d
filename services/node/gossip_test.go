package node

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/protocol/activation"
	"tweedle/protocol/hare"
	"tweedle/protocol/mesh"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// verdict names what a handler thinks of a message.
func verdict(v p2p.Verdict) string {
	switch reason := reflect.ValueOf(v).FieldByName("reason").String(); v {
	case p2p.Accept():
		return "accept"
	case p2p.Ignore(reason):
		return "ignore"
	default:
		return "reject"
	}
}

// counts is how much the store has of what gossip brings.
func (w *world) counts(tb testing.TB) string {
	tb.Helper()
	atxs, err := w.db.EpochATXs(1)
	if err != nil {
		tb.Fatal(err)
	}
	ballots, err := w.db.LayerBallots(stillLayer)
	if err != nil {
		tb.Fatal(err)
	}
	txs, err := w.db.PendingTransactions(0, store.MaxPage)
	if err != nil {
		tb.Fatal(err)
	}
	last, err := w.db.LastApplied()
	if err != nil {
		tb.Fatal(err)
	}
	ref := w.poet.Proof.Ref()
	poet, err := w.db.Has(store.KindPoetProof, ref[:])
	if err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("%d ATXs, %d ballots, %d waiting transactions, applied layer %d, proof %v", len(atxs), len(ballots), len(txs), last.Layer, poet)
}

func TestGossipedATXs(t *testing.T) {
	w := openWorld(t)
	if _, err := w.addPoet(&w.poet); err != nil {
		t.Fatal(err)
	}
	alice, bob := w.miners[0], w.miners[1]
	spoilt := func(change func(*types.ATX)) []byte {
		var a types.ATX
		if err := codec.Decode(codec.Encode(bob.atx), &a); err != nil {
			t.Fatal(err)
		}
		change(&a)
		if a.Signature == bob.atx.Signature {
			bob.sign(&a)
		}
		return codec.Encode(&a)
	}
	forged := codec.Encode(alice.atx)
	forged[len(forged)-1]++
	for _, tc := range []struct {
		name string
		msg  []byte
		want string
	}{
		{"empty", nil, "reject"},
		{"cut off", codec.Encode(alice.atx)[:100], "reject"},
		{"something after it", append(codec.Encode(alice.atx), 0), "reject"},
		{"wrong signature", spoilt(func(a *types.ATX) { a.Signature[0]++ }), "reject"},
		{"signed by another", spoilt(func(a *types.ATX) { id := a.ID(); a.Signature = alice.id.Sign(signing.ATX, id[:]) }), "reject"},
		{"signed as something else", spoilt(func(a *types.ATX) { id := a.ID(); a.Signature = bob.id.Sign(signing.Ballot, id[:]) }), "reject"},
		{"proof of space cut off", spoilt(func(a *types.ATX) {
			post := &a.NIPosts[0].Posts[0].Post
			post.Indices = post.Indices[1:]
		}), "reject"},
		{"more space than proved", spoilt(func(a *types.ATX) { a.NIPosts[0].Posts[0].NumUnits++ }), "reject"},
		{"of epoch 0", spoilt(func(a *types.ATX) { a.PublishEpoch = 0 }), "reject"},
		{"of a later epoch", spoilt(func(a *types.ATX) { a.PublishEpoch = 99 }), "ignore"},
		{"with an unknown PoET proof", spoilt(func(a *types.ATX) { a.NIPosts[0].PoetProof[0]++ }), "ignore"},
		{"on an unknown ATX", spoilt(func(a *types.ATX) { a.PositioningATX[0]++ }), "ignore"},
		{"valid", codec.Encode(alice.atx), "accept"},
		{"again", codec.Encode(alice.atx), "accept"}, // it may have come from a fetch
		// The id does not cover the signature: who does not have the ATX yet
		// would refuse what we passed on.
		{"known, with a wrong signature", forged, "reject"},
		{"a second one of the smesher", codec.Encode(w.second), "ignore"},
	} {
		before := w.counts(t)
		v := w.onATX(soon(t), peer, tc.msg)
		if verdict(v) != tc.want {
			t.Errorf("%s: %+v, want %s", tc.name, v, tc.want)
		}
		if after := w.counts(t); (after != before) != (tc.name == "valid") {
			t.Errorf("%s: the store had %s, has %s", tc.name, before, after)
		}
	}
}

func TestGossipedProposals(t *testing.T) {
	w := populated(t)
	alice, bob := w.miners[0], w.miners[1]
	epoch := w.schedule.EpochOf(stillLayer)
	small := types.ActiveSet{bob.atx.ID()}
	if err := w.db.AddActiveSet(small); err != nil {
		t.Fatal(err)
	}
	strangers := types.ActiveSet{{0}}
	if err := w.db.AddActiveSet(strangers); err != nil {
		t.Fatal(err)
	}
	of := func(change func(*types.Proposal)) []byte { return codec.Encode(w.proposal(t, bob, change)) }
	unsigned := func(change func(*types.Proposal)) []byte {
		p := w.proposal(t, bob, nil)
		change(p)
		return codec.Encode(p)
	}
	for _, tc := range []struct {
		name string
		msg  []byte
		want string
	}{
		{"empty", nil, "reject"},
		{"of the layer before", of(func(p *types.Proposal) { p.Ballot.Layer-- }), "ignore"},
		{"of the layer after", of(func(p *types.Proposal) { p.Ballot.Layer++ }), "ignore"},
		{"wrong ballot signature", unsigned(func(p *types.Proposal) { p.Ballot.Signature[0]++ }), "reject"},
		{"wrong proposal signature", unsigned(func(p *types.Proposal) { p.Signature[0]++ }), "reject"},
		// Otherwise whoever passes a proposal on could change the smesher's share,
		// and with it the block, from node to node.
		{"an eligibility taken away after signing", unsigned(func(p *types.Proposal) {
			p.Ballot.Eligibilities = p.Ballot.Eligibilities[1:]
		}), "reject"},
		{"votes added after signing", unsigned(func(p *types.Proposal) {
			p.Ballot.Votes.Abstain = []types.Layer{1}
		}), "reject"},
		{"transactions added after signing", unsigned(func(p *types.Proposal) { p.Txs = []types.TransactionID{{1}} }), "reject"},
		{"unknown ATX", of(func(p *types.Proposal) { p.Ballot.ATX[0]++ }), "ignore"},
		{"another's ATX", of(func(p *types.Proposal) { p.Ballot.ATX = alice.atx.ID() }), "reject"},
		{"unknown active set", of(func(p *types.Proposal) { p.Ballot.EpochData.ActiveSet[0]++ }), "ignore"},
		{"active set of strangers", of(func(p *types.Proposal) { p.Ballot.EpochData.ActiveSet = strangers.Hash() }), "ignore"},
		{"more slots than its share", of(func(p *types.Proposal) { p.Ballot.EpochData.Eligibilities++ }), "reject"},
		{"fewer slots than its share", of(func(p *types.Proposal) { p.Ballot.EpochData.Eligibilities-- }), "reject"},
		{"no eligibility", of(func(p *types.Proposal) { p.Ballot.Eligibilities = nil }), "reject"},
		{"an eligibility twice", of(func(p *types.Proposal) {
			p.Ballot.Eligibilities = append(p.Ballot.Eligibilities[:1:1], p.Ballot.Eligibilities[0])
		}), "reject"},
		{"a slot it does not have", of(func(p *types.Proposal) { p.Ballot.Eligibilities[0].J = 1 << 30 }), "reject"},
		{"another's eligibility", of(func(p *types.Proposal) {
			p.Ballot.Eligibilities = w.proposal(t, alice, nil).Ballot.Eligibilities
		}), "reject"},
		{"unknown reference ballot", of(func(p *types.Proposal) {
			p.Ballot.EpochData, p.Ballot.Reference = nil, types.BallotID{1}
		}), "ignore"},
		{"unknown transaction", of(func(p *types.Proposal) { p.Txs = []types.TransactionID{{1}} }), "ignore"},
		// What depends on which ATXs we know is no proof of anything.
		{"another beacon", of(func(p *types.Proposal) { p.Ballot.EpochData.Beacon[0]++ }), "ignore"},
		{"active set smaller than what we know", of(func(p *types.Proposal) { p.Ballot.EpochData.ActiveSet = small.Hash() }), "ignore"},
	} {
		before := w.counts(t)
		v := w.onProposal(soon(t), peer, tc.msg)
		if verdict(v) != tc.want {
			t.Errorf("%s: %+v, want %s", tc.name, v, tc.want)
		}
		if after := w.counts(t); after != before || len(w.inputs) != 0 {
			t.Errorf("%s: the store had %s, has %s, %d inputs", tc.name, before, after, len(w.inputs))
		}
	}

	valid := w.proposal(t, bob, nil)
	if v := w.onProposal(soon(t), peer, codec.Encode(valid)); v != p2p.Accept() {
		t.Fatalf("valid proposal: %+v", v)
	}
	in, ok := (<-w.inputs).(inputProposal)
	el, err := w.epochs.Electorate(epoch)
	if err != nil {
		t.Fatal(err)
	}
	atx := el.atxs[bob.atx.ID()]
	if !ok || in.id != valid.ID() || in.share.Proofs != len(valid.Ballot.Eligibilities) || in.share.Weight != atx.Weight ||
		in.share.Slots != valid.Ballot.EpochData.Eligibilities || in.share.ATX != bob.atx.ID() {
		t.Errorf("the loop was told %+v", in)
	}
	if _, err := w.db.Ballot(valid.Ballot.ID()); err != nil {
		t.Errorf("the ballot is not stored: %v", err)
	}
	// From now on it is the reference for the smesher's other ballots, and for
	// nobody else's.
	refer := func(p *types.Proposal) { p.Ballot.EpochData, p.Ballot.Reference = nil, valid.Ballot.ID() }
	if v := w.onProposal(soon(t), peer, of(refer)); v != p2p.Accept() {
		t.Errorf("a ballot with a reference: %+v", v)
	}
	// That was the second one of the layer: the smesher cheats.
	before := w.counts(t)
	again := w.proposal(t, bob, nil)
	third := w.proposal(t, bob, func(p *types.Proposal) { p.MeshHash[0]++ })
	for name, p := range map[string]*types.Proposal{"a known proposal": again, "a third one": third} {
		if v := w.onProposal(soon(t), peer, codec.Encode(p)); verdict(v) != "ignore" || w.counts(t) != before || len(w.inputs) != 1 {
			t.Errorf("%s: %+v, the store had %s, has %s", name, v, before, w.counts(t))
		}
	}
	if v := w.onProposal(soon(t), peer, codec.Encode(w.proposal(t, alice, refer))); verdict(v) != "reject" {
		t.Errorf("a ballot with another's reference: %+v", v)
	}
}

func TestGossipedDecisions(t *testing.T) {
	w := populated(t)
	w.runLoop(t)
	alice, bob, carol := w.miners[0], w.miners[1], w.miners[2]
	d := types.Decision{Layer: stillLayer, Block: types.BlockID{1}, StateRoot: types.Hash32{2}}
	other, third := d, d
	other.Block[0]++
	third.Block[0] += 2
	at := func(l types.Layer) types.Decision { o := d; o.Layer = l; return o }
	spoilt := func(change func(*types.CertifyMessage)) types.CertifyMessage {
		m := alice.certify(d)
		change(&m)
		return m
	}
	for _, tc := range []struct {
		name string
		msg  types.CertifyMessage
		want string
	}{
		{"of a later layer", alice.certify(at(stillLayer + 1)), "ignore"},
		{"of the last layer there is", alice.certify(at(1<<32 - 1)), "ignore"},
		{"of a layer before ballots", alice.certify(at(1)), "reject"},
		{"wrong signature", spoilt(func(m *types.CertifyMessage) { m.By.Signature[0]++ }), "reject"},
		{"signed by another", spoilt(func(m *types.CertifyMessage) { m.By.Smesher = bob.id.NodeID() }), "reject"},
		{"decision changed after signing", spoilt(func(m *types.CertifyMessage) { m.Decision.StateRoot[0]++ }), "reject"},
		{"unknown ATX", spoilt(func(m *types.CertifyMessage) { m.By.ATX[0]++ }), "ignore"},
		{"another's ATX", spoilt(func(m *types.CertifyMessage) { m.By.ATX = bob.atx.ID() }), "reject"},
		{"valid", alice.certify(d), "accept"},
		{"again", alice.certify(d), "ignore"},
		{"a second decision of the smesher", alice.certify(other), "accept"}, // others must see it too
		{"that again", alice.certify(other), "ignore"},
		{"a third one", alice.certify(third), "ignore"}, // two are all the proof there can be
		{"of another smesher", bob.certify(d), "accept"},
		{"complete, of a block that we do not have", carol.certify(d), "accept"},
	} {
		before := w.counts(t)
		v := w.onCertify(soon(t), peer, codec.Encode(&tc.msg))
		if verdict(v) != tc.want {
			t.Errorf("%s: %+v, want %s", tc.name, v, tc.want)
		}
		if after := w.counts(t); after != before {
			t.Errorf("%s: the store had %s, has %s", tc.name, before, after)
		}
	}
	if v := w.onCertify(soon(t), peer, []byte{1}); verdict(v) != "reject" {
		t.Errorf("malformed: %+v", v)
	}
}

func TestGossipedTransactions(t *testing.T) {
	w := openWorld(t)
	w.runLoop(t)
	rich, err := signing.NewSigner(signing.SeedFrom("rich"), w.activation.Network)
	if err != nil {
		t.Fatal(err)
	}
	poor, err := signing.NewSigner(signing.SeedFrom("poor"), w.activation.Network)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := signing.NewSigner(signing.SeedFrom("rich"), types.GenesisID{1})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		raw  types.Transaction
		want string
	}{
		{"empty", nil, "reject"},
		{"too long", make(types.Transaction, types.MaxTransactionSize+1), "reject"},
		{"cut off", vm.Spawn(rich, 0, 1)[:40], "reject"},
		{"for another network", vm.Spawn(elsewhere, 0, 1), "reject"},
		{"of an account without coins", vm.Spawn(poor, 0, 1), "ignore"},
		{"of an account that is not spawned", vm.Spend(rich, types.Address{23: 1}, 1, 0, 1), "ignore"},
		{"without a gas price", vm.Spawn(rich, 0, 0), "ignore"},
		{"valid", vm.Spawn(rich, 0, 10), "accept"},
		{"again", vm.Spawn(rich, 0, 10), "ignore"},
		{"a cheaper one with its nonce", vm.Spawn(rich, 0, 9), "ignore"},
	} {
		before := w.counts(t)
		v := w.onTx(soon(t), peer, tc.raw)
		if verdict(v) != tc.want {
			t.Errorf("%s: %+v, want %s", tc.name, v, tc.want)
		}
		if after := w.counts(t); (after != before) != (tc.want == "accept") {
			t.Errorf("%s: the store had %s, has %s", tc.name, before, after)
		}
	}
}

func TestGossipedPoetProofs(t *testing.T) {
	w := openWorld(t)
	spoilt := func(change func(*types.PoetProofMessage)) []byte {
		var m types.PoetProofMessage
		if err := codec.Decode(codec.Encode(&w.poet), &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		return codec.Encode(&m)
	}
	for _, tc := range []struct {
		name string
		msg  []byte
		want string
	}{
		{"empty", nil, "reject"},
		{"something after it", append(codec.Encode(&w.poet), 0), "reject"},
		{"of another statement", spoilt(func(m *types.PoetProofMessage) { m.Statement[0]++ }), "reject"},
		{"with another root", spoilt(func(m *types.PoetProofMessage) { m.Proof.Root[0]++ }), "reject"},
		{"less than a tick", spoilt(func(m *types.PoetProofMessage) { m.Proof.NumLeaves = w.params.TickSize - 1 }), "reject"},
		{"more work than it shows", spoilt(func(m *types.PoetProofMessage) { m.Proof.NumLeaves++ }), "reject"},
		{"more work than there was time for", spoilt(func(m *types.PoetProofMessage) { m.Proof.NumLeaves = 1 << 62 }), "reject"},
		{"valid", codec.Encode(&w.poet), "accept"},
		{"again", codec.Encode(&w.poet), "accept"}, // it may have come from a PoET
		// The reference covers neither the statement nor the names.
		{"known, of another statement", spoilt(func(m *types.PoetProofMessage) { m.Statement[0]++ }), "reject"},
		{"known, of another round", spoilt(func(m *types.PoetProofMessage) { m.RoundID = "8" }), "ignore"},
		{"known, of another PoET", spoilt(func(m *types.PoetProofMessage) { m.PoetID[0]++ }), "ignore"},
	} {
		before := w.counts(t)
		v := w.onPoet(soon(t), peer, tc.msg)
		if verdict(v) != tc.want {
			t.Errorf("%s: %+v, want %s", tc.name, v, tc.want)
		}
		if after := w.counts(t); (after != before) != (tc.name == "valid") {
			t.Errorf("%s: the store had %s, has %s", tc.name, before, after)
		}
	}
}

// Three of four smeshers with equal weight are more than two thirds.
func TestACertifiedBlockIsAppliedAndPaysItsSmeshers(t *testing.T) {
	w := populated(t)
	raw := w.spawn(t, 1)
	if err := w.addTx(raw); err != nil {
		t.Fatal(err)
	}
	p := w.proposal(t, w.miners[1], func(p *types.Proposal) { p.Txs = []types.TransactionID{raw.ID()} })
	if v := w.onProposal(soon(t), peer, codec.Encode(p)); v != p2p.Accept() {
		t.Fatalf("%+v", v)
	}
	d := w.decided(t, p)
	w.runLoop(t)
	for i, m := range w.miners[:3] {
		msg := m.certify(d)
		if v := w.onCertify(soon(t), peer, codec.Encode(&msg)); v != p2p.Accept() {
			t.Fatalf("%+v", v)
		}
		if applied := w.tip.Load().layer == stillLayer; applied != (i == 2) {
			t.Fatalf("after %d of 4 signatures the block is applied: %v", i+1, applied)
		}
	}
	state := w.tip.Load().state
	if w.tip.Load().root != d.StateRoot || !state.Account(vm.WalletAddress(richKey())).Spawned() {
		t.Error("the state is not that of the block")
	}
	if state.Account(w.miners[1].atx.Coinbase).Balance == 0 {
		t.Error("the smesher of the block was not paid")
	}
	cert, err := w.db.Certificate(stillLayer)
	if err != nil {
		t.Fatal(err)
	}
	err = hare.VerifyCertificate(cert, w.electorate(t), func(s types.CertifySignature) bool {
		return w.verifier.Verify(signing.Certify, s.Smesher, codec.Encode(&cert.Decision), s.Signature)
	})
	if err != nil || len(cert.Signatures) != 3 {
		t.Errorf("certificate with %d signatures: %v", len(cert.Signatures), err)
	}
	if st := w.Status(); st.Mempool != 0 {
		t.Errorf("%d transactions wait after the only one was applied", st.Mempool)
	}
}

// decided has the loop's part take the proposals that came, closes the layer,
// and returns the decision that honest smeshers sign: it is computed here from
// the proposal, and the node must have come to the same block.
func (w *world) decided(tb testing.TB, p *types.Proposal) types.Decision {
	tb.Helper()
	for len(w.inputs) > 0 {
		if err := w.take(time.Now(), <-w.inputs); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.advance(w.schedule.LayerStart(stillLayer).Add(w.params.ProposalWindow)); err != nil {
		tb.Fatal(err)
	}
	el := w.electorate(tb)
	atx := el.atxs[p.Ballot.ATX]
	block := &types.Block{Layer: stillLayer, Txs: p.Txs, Rewards: []types.Reward{{
		ATX: atx.ID, Num: atx.Weight * uint64(len(p.Ballot.Eligibilities)), Den: uint64(p.Ballot.EpochData.Eligibilities),
	}}}
	if _, err := w.db.Block(block.ID()); err != nil {
		tb.Fatalf("the node did not build the block of the proposal: %v", err)
	}
	content := vm.Block{Layer: stillLayer, Rewards: []vm.Share{{
		ATX: atx.ID, Coinbase: atx.Coinbase, Num: block.Rewards[0].Num, Den: block.Rewards[0].Den,
	}}}
	for _, id := range p.Txs {
		tx, err := w.db.Transaction(id)
		if err != nil {
			tb.Fatal(err)
		}
		content.Txs = append(content.Txs, tx.Raw)
	}
	out := vm.Apply(w.tip.Load().state, content, w.vmParams)
	return types.Decision{Layer: stillLayer, Block: block.ID(), StateRoot: out.State.Root()}
}

func (w *world) electorate(tb testing.TB) *electorate {
	tb.Helper()
	el, err := w.epochs.Electorate(w.schedule.EpochOf(stillLayer))
	if err != nil {
		tb.Fatal(err)
	}
	return el
}

// A peer's trouble with us, or ours with ourselves, never costs it anything.
func TestWhatCouldNotBeDecidedCostsNobody(t *testing.T) {
	w := openWorld(t)
	for _, err := range []error{
		errMissing, errTooDeep, errSecondATX, errNotNow, errTaken, errBeacon, errActiveSet, activation.ErrFuture,
		p2p.ErrNotRunning, p2p.ErrNotConnected, p2p.ErrUnsupported, p2p.ErrBusy, p2p.ErrRateLimited, p2p.ErrTooLarge,
		p2p.ErrTimeout, p2p.ErrBroken, &p2p.RemoteError{}, context.Canceled, context.DeadlineExceeded,
		store.ErrFull, store.ErrBroken, store.ErrClosed, store.ErrCorrupt, store.ErrNotFound,
	} {
		if v := w.judge("message", fmt.Errorf("wrapped: %w", err)); verdict(v) != "ignore" {
			t.Errorf("%v: %+v", err, v)
		}
	}
	for _, err := range []error{
		errBallotSig, errProposalSig, errBallotATX, errReference, errSlots, errTxSize, errRequest,
		hare.ErrStranger, codec.ErrShort, errors.New("post: index is wrong"),
	} {
		v := w.judge("message", fmt.Errorf("wrapped: %w", err))
		if verdict(v) != "reject" || !strings.Contains(fmt.Sprintf("%+v", v), err.Error()) {
			t.Errorf("%v: %+v", err, v)
		}
	}
}

func TestOnlyTheNewestLayersProposalsAreRemembered(t *testing.T) {
	var s taken
	for l := range types.Layer(100) {
		for i := range byte(5) {
			p := proposal{id: types.ProposalID{i}, layer: l, share: mesh.Share{ATX: types.ATXID{byte(l)}}}
			if got, want := s.take(p), i < maxProposals; got != want {
				t.Fatalf("layer %d, proposal %d is taken: %v", l, i, got)
			}
		}
		if len(s.of) > 2 {
			t.Fatalf("proposals of %d layers are remembered", len(s.of))
		}
	}
}
