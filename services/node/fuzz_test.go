package node

import (
	"bytes"
	"context"
	"testing"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/proofs/posw"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// The targets of this file call the handlers of one open node with whatever
// comes, as it is or signed by a smesher whom the node knows, so that the rules
// behind the signatures are reached too. Nothing may panic, and what is
// accepted must be what its handler promises.

// history gives a node without a running loop its first certified block.
func (w *world) history(tb testing.TB) types.Decision {
	tb.Helper()
	raw := w.spawn(tb, 1)
	if err := w.addTx(raw); err != nil {
		tb.Fatal(err)
	}
	p := w.proposal(tb, w.miners[1], func(p *types.Proposal) { p.Txs = []types.TransactionID{raw.ID()} })
	if v := w.onProposal(soon(tb), peer, codec.Encode(p)); v != p2p.Accept() {
		tb.Fatalf("%+v", v)
	}
	d := w.decided(tb, p)
	for _, m := range w.miners[:3] {
		if err := w.certify(m.certify(d)); err != nil {
			tb.Fatal(err)
		}
	}
	if w.tip.Load().layer != stillLayer {
		tb.Fatal("the block was not applied")
	}
	return d
}

func FuzzOnATX(f *testing.F) {
	w := openWorld(f)
	if _, err := w.addPoet(&w.poet); err != nil {
		f.Fatal(err)
	}
	for _, m := range w.miners {
		f.Add(codec.Encode(m.atx), false)
		f.Add(codec.Encode(m.atx), true)
	}
	alice := w.miners[0]
	f.Fuzz(func(t *testing.T, msg []byte, sign bool) {
		var a types.ATX
		decoded := codec.Decode(msg, &a) == nil
		if decoded && sign {
			a.SmesherID = alice.id.NodeID()
			alice.sign(&a)
			msg = codec.Encode(&a)
		}
		v := w.onATX(soon(t), peer, msg)
		w.drain()
		if v != p2p.Accept() {
			return
		}
		id := a.ID()
		stored, err := w.db.ATX(id)
		if !decoded || err != nil || !bytes.Equal(codec.Encode(stored), msg) ||
			!w.verifier.Verify(signing.ATX, a.SmesherID, id[:], a.Signature) {
			t.Fatalf("accepted %x", msg)
		}
	})
}

func FuzzOnProposal(f *testing.F) {
	w := populated(f)
	bob := w.miners[1]
	valid := w.proposal(f, bob, nil)
	if v := w.onProposal(soon(f), peer, codec.Encode(valid)); v != p2p.Accept() {
		f.Fatalf("%+v", v)
	}
	<-w.inputs
	for _, change := range []func(*types.Proposal){
		nil,
		func(p *types.Proposal) { p.Ballot.EpochData, p.Ballot.Reference = nil, valid.Ballot.ID() },
		func(p *types.Proposal) { p.Txs = []types.TransactionID{{1}} },
		func(p *types.Proposal) { p.Ballot.Eligibilities = p.Ballot.Eligibilities[:1] },
	} {
		f.Add(codec.Encode(w.proposal(f, bob, change)), false)
		f.Add(codec.Encode(w.proposal(f, bob, change)), true)
	}
	f.Fuzz(func(t *testing.T, msg []byte, sign bool) {
		var p types.Proposal
		decoded := codec.Decode(msg, &p) == nil
		if decoded && sign {
			p.Ballot.Smesher, p.Ballot.ATX = bob.id.NodeID(), bob.atx.ID()
			bob.signProposal(&p)
			msg = codec.Encode(&p)
		}
		w.taken = taken{} // else the third one would be the last
		v := w.onProposal(soon(t), peer, msg)
		if v != p2p.Accept() {
			if len(w.inputs) != 0 {
				t.Fatalf("%+v, but the loop was told", v)
			}
			return
		}
		in := (<-w.inputs).(inputProposal)
		if _, err := w.db.Ballot(p.Ballot.ID()); !decoded || err != nil || in.id != p.ID() || in.layer != stillLayer ||
			in.share.ATX != bob.atx.ID() || in.share.Proofs == 0 || uint64(in.share.Proofs) > uint64(in.share.Slots) {
			t.Fatalf("accepted %x as %+v: %v", msg, in, err)
		}
	})
}

func FuzzOnCertify(f *testing.F) {
	w := populated(f)
	w.runLoop(f)
	alice := w.miners[0]
	for _, d := range []types.Decision{{Layer: stillLayer}, {Layer: stillLayer + 1}, {Layer: 1}, {Layer: stillLayer - 1, Block: types.BlockID{1}}} {
		m := alice.certify(d)
		f.Add(codec.Encode(&m), false)
		f.Add(codec.Encode(&m), true)
	}
	f.Fuzz(func(t *testing.T, msg []byte, sign bool) {
		var m types.CertifyMessage
		decoded := codec.Decode(msg, &m) == nil
		if decoded && sign {
			m.By.Smesher = alice.id.NodeID()
			m.By.Signature = alice.id.Sign(signing.Certify, codec.Encode(&m.Decision))
			msg = codec.Encode(&m)
		}
		v := w.onCertify(soon(t), peer, msg)
		if v != p2p.Accept() {
			return
		}
		_, counts := w.electorate(t).Weight(m.By.ATX, m.By.Smesher)
		if !decoded || !counts || m.Decision.Layer > stillLayer ||
			!w.verifier.Verify(signing.Certify, m.By.Smesher, codec.Encode(&m.Decision), m.By.Signature) {
			t.Fatalf("accepted %x", msg)
		}
	})
}

func FuzzOnTx(f *testing.F) {
	w := openWorld(f)
	w.runLoop(f)
	rich, err := signing.NewSigner(signing.SeedFrom("rich"), w.activation.Network)
	if err != nil {
		f.Fatal(err)
	}
	for _, raw := range []types.Transaction{
		vm.Spawn(rich, 0, 1), vm.Spawn(rich, 3, 2), vm.Spend(rich, types.Address{23: 1}, 5, 1, 1), {}, make([]byte, types.MaxTransactionSize+1),
	} {
		f.Add([]byte(raw), false)
		f.Add([]byte(raw[:max(len(raw)-64, 0)]), true)
	}
	f.Fuzz(func(t *testing.T, msg []byte, sign bool) {
		if sign {
			sig := rich.SignTransaction(append(msg, make([]byte, max(0, signing.MinTransactionBody-len(msg)))...))
			msg = append(bytes.Clone(msg), sig[:]...)
		}
		kept := bytes.Clone(msg)
		v := w.onTx(soon(t), peer, msg)
		if !bytes.Equal(msg, kept) {
			t.Fatal("the handler changed the message")
		}
		if v != p2p.Accept() {
			return
		}
		genesis, err := vm.Genesis(w.vmParams)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vm.Validate(msg, genesis, w.vmParams); err != nil {
			t.Fatalf("accepted %x: %v", msg, err)
		}
		if stored, err := w.db.Transaction(types.Transaction(msg).ID()); err != nil || !bytes.Equal(stored.Raw, msg) {
			t.Fatalf("accepted %x and stored %x: %v", msg, stored.Raw, err)
		}
	})
}

// checkStoredProof fails unless the message is a proof that the node has and
// that shows its work.
func (w *world) checkStoredProof(t *testing.T, msg []byte) {
	t.Helper()
	var m types.PoetProofMessage
	if err := codec.Decode(msg, &m); err != nil {
		t.Fatalf("accepted %x: %v", msg, err)
	}
	if err := posw.Verify(m.Statement[:], &m.Proof, 1); err != nil {
		t.Fatalf("accepted %x: %v", msg, err)
	}
	if _, err := w.PoetProof(m.Proof.Ref()); err != nil {
		t.Fatalf("accepted %x, and has not stored it: %v", msg, err)
	}
}

func addProofs(f *testing.F, w *world) {
	f.Add(codec.Encode(&w.poet))
	other := w.poet
	other.RoundID = "8"
	f.Add(codec.Encode(&other))
	other.Proof.NumLeaves++
	f.Add(codec.Encode(&other))
	small, err := work(types.Hash32{1}, types.MaxPoetLeaves, "1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(codec.Encode(&small))
}

func FuzzOnPoet(f *testing.F) {
	w := openWorld(f)
	addProofs(f, w)
	f.Fuzz(func(t *testing.T, msg []byte) {
		if w.onPoet(soon(t), peer, msg) == p2p.Accept() {
			w.checkStoredProof(t, msg)
		}
	})
}

func FuzzServePoet(f *testing.F) {
	w := openWorld(f)
	addProofs(f, w)
	f.Fuzz(func(t *testing.T, msg []byte) {
		b, err := w.servePoet(soon(t), peer, msg)
		if err != nil {
			return
		}
		w.checkStoredProof(t, msg)
		var answer poetAnswer
		if err := codec.Decode(b, &answer); err != nil {
			t.Fatalf("answers %x: %v", b, err)
		}
	})
}

func FuzzServeObjects(f *testing.F) {
	w := populated(f)
	w.history(f)
	ref := w.poet.Proof.Ref()
	f.Add(codec.Encode(objectsRequest{
		name(store.KindATX, w.miners[0].atx.ID()), name(store.KindPoetProof, ref), name(store.KindATX, types.ATXID{}),
		name(store.KindTransaction, w.spawn(f, 1).ID()), {store.KindBlock, nil}, {200, []byte{1}},
	}))
	f.Add(codec.Encode(objectsRequest{}))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var names objectsRequest
		decoded := codec.Decode(msg, &names) == nil
		b, err := w.serveObjects(soon(t), peer, msg)
		if decoded != (err == nil) {
			t.Fatalf("request %x: %v", msg, err)
		}
		if err != nil {
			return
		}
		var answer objectsAnswer
		if err := codec.Decode(b, &answer); err != nil || len(b) > maxObjectsSize+maxObjectSize ||
			len(answer) > len(names) || len(names) > 0 && len(answer) == 0 {
			t.Fatalf("request %x: %d answers in %d bytes: %v", msg, len(answer), len(b), err)
		}
		for i, o := range answer {
			if len(o) > 0 && store.CheckName(names[i].kind, names[i].id, o) != nil {
				t.Fatalf("asked for %v %x, got %x", names[i].kind, names[i].id, o)
			}
		}
	})
}

func FuzzServeEpoch(f *testing.F) {
	w := populated(f)
	for _, e := range []uint32{0, 1, 2, 1<<32 - 1} {
		f.Add(codec.Encode(number(e)))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		b, err := w.serveEpoch(soon(t), peer, msg)
		if err != nil {
			return
		}
		var epoch number
		var ids epochAnswer
		if codec.Decode(msg, &epoch) != nil || codec.Decode(b, &ids) != nil {
			t.Fatalf("%x is answered with %x", msg, b)
		}
		if want := map[number]int{1: len(w.miners)}[epoch]; len(ids) != want {
			t.Fatalf("epoch %d has %d ATXs, want %d", epoch, len(ids), want)
		}
	})
}

func FuzzServeLayers(f *testing.F) {
	w := populated(f)
	d := w.history(f)
	for _, l := range []types.Layer{0, stillLayer, stillLayer + 1, 1<<32 - 1} {
		f.Add(codec.Encode(number(l)))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		b, err := w.serveLayers(soon(t), peer, msg)
		if err != nil {
			return
		}
		var from number
		var answer layersAnswer
		if codec.Decode(msg, &from) != nil || codec.Decode(b, &answer) != nil || answer.tip != stillLayer {
			t.Fatalf("%x is answered with %x", msg, b)
		}
		want := 0
		if types.Layer(from) <= stillLayer {
			want = 1
		}
		if len(answer.certs) != want || want == 1 && answer.certs[0].Decision != d {
			t.Fatalf("from layer %d on: %+v", from, answer.certs)
		}
	})
}

// A handler that is told to stop must stop, also when nobody takes its input.
func TestHandlersEndWithTheirContext(t *testing.T) {
	w := populated(t)
	for len(w.inputs) < cap(w.inputs) {
		w.inputs <- inputProposal{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if v := w.onProposal(ctx, peer, codec.Encode(w.proposal(t, w.miners[0], nil))); verdict(v) != "ignore" {
		t.Errorf("proposal: %+v", v)
	}
	m := w.miners[0].certify(types.Decision{Layer: stillLayer})
	if v := w.onCertify(ctx, peer, codec.Encode(&m)); verdict(v) != "ignore" {
		t.Errorf("decision: %+v", v)
	}
	if v := w.onTx(ctx, peer, w.spawn(t, 1)); verdict(v) != "ignore" {
		t.Errorf("transaction: %+v", v)
	}
}
