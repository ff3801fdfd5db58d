package core

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"tweedle/proofs/post"
	"tweedle/protocol/activation"
	"tweedle/protocol/hare"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

var network = types.GenesisID{7}

// lenient finds every proof of work and space right, and checks signatures.
type lenient struct{ signing.Verifier }

func (lenient) VerifyVRF(id types.NodeID, msg []byte, sig types.VRFSignature) bool {
	return signing.VerifyVRF(id, msg, sig)
}
func (lenient) VerifyTx(*vm.Tx) error                           { return nil }
func (lenient) VerifyPoet(*types.PoetProofMessage) error        { return nil }
func (lenient) VerifySpace(claims []*activation.Claim) []error  { return make([]error, len(claims)) }
func (lenient) WrongLabel(*types.ATX, types.ATXID, uint32) bool { return true }

func crypto() Crypto { return lenient{signing.NewVerifier(network)} }

func signer(name string) *signing.Signer {
	s, err := signing.NewSigner(signing.SeedFrom(name), network)
	if err != nil {
		panic(err)
	}
	return s
}

func anATX(s *signing.Signer) *types.ATX {
	a := &types.ATX{PublishEpoch: 1, SmesherID: s.NodeID(), NIPosts: []types.NIPost{{Posts: []types.SubPost{{}}}}, PreviousATXs: []types.ATXID{{1}}}
	id := a.ID()
	a.Signature = s.Sign(signing.ATX, id[:])
	return a
}

func aProposal(s *signing.Signer) *types.Proposal {
	p := &types.Proposal{Ballot: types.Ballot{Layer: 9, Smesher: s.NodeID()}, Txs: []types.TransactionID{{5}}}
	p.Ballot.Signature = s.Sign(signing.Ballot, p.Ballot.SignedBytes())
	p.Signature = s.Sign(signing.Proposal, p.SignedBytes())
	return p
}

func aHareMessage(s *signing.Signer) *hare.Message {
	m := &hare.Message{Layer: 9, Round: hare.Preround, Smesher: s.NodeID(), Set: []types.ProposalID{{1}, {2}}}
	m.Signature = s.Sign(signing.Hare, hare.SignedBytes(m.Layer, m.Round, m.Says()))
	return m
}

func aDecision(s *signing.Signer, block byte) *types.CertifyMessage {
	return Seal(s, types.ATXID{}, types.Decision{Layer: 9, Block: types.BlockID{block}})
}

// messages has a well formed one of each topic.
func messages() map[Topic][]byte {
	s := signer("somebody")
	return map[Topic][]byte{
		TopicATX: codec.Encode(anATX(s)), TopicProposal: codec.Encode(aProposal(s)), TopicDecision: codec.Encode(aDecision(s, 1)),
		TopicHare:        codec.Encode(aHareMessage(s)),
		TopicPoet:        codec.Encode(&types.PoetProofMessage{RoundID: "1", Proof: types.PoetProof{NumLeaves: 1}}),
		TopicMalfeasance: codec.Encode(malfeasance.FromDecisions(*aDecision(s, 1), *aDecision(s, 2))),
	}
}

func TestOnlyWhatIsSignedPassesTheCheck(t *testing.T) {
	for topic, raw := range messages() {
		if _, err := Check(crypto(), topic, raw); err != nil {
			t.Errorf("%s: %v", topic, err)
		}
		if topic == TopicPoet {
			continue // nobody signs it
		}
		for i := range raw {
			if by := len(raw) - 64 - 80 - 32 - 32; topic == TopicDecision && i >= by && i < by+32 {
				continue // which ATX gives the weight is not signed: the electorate says it
			}
			if by := len(raw) - 64; topic == TopicHare && i >= by-80 && i < by {
				continue // nor is the proof of its seats: there is one random value, however it is proved
			}
			spoilt := bytes.Clone(raw)
			spoilt[i] ^= 1
			if _, err := Check(crypto(), topic, spoilt); err == nil {
				t.Errorf("%s passes with byte %d changed", topic, i)
			}
		}
		if _, err := Check(crypto(), topic, append(bytes.Clone(raw), 0)); err == nil {
			t.Errorf("%s passes with a byte more", topic)
		}
	}
	if _, err := Check(crypto(), TopicATX, make([]byte, MaxATXSize+1)); err == nil {
		t.Error("an ATX over its limit passes")
	}
}

func FuzzMessagesFromTheNetwork(f *testing.F) {
	for topic, raw := range messages() {
		f.Add(uint8(topic), raw)
	}
	f.Fuzz(func(t *testing.T, topic uint8, raw []byte) {
		m, err := Check(crypto(), Topic(topic), raw)
		if err == nil && m.size() > 2*len(raw)+512 {
			t.Fatalf("%d bytes count as %d", len(raw), m.size())
		}
	})
}

func asks() []syncer.Ask {
	return []syncer.Ask{
		{Objects: []syncer.Name{{Kind: syncer.ATX, ID: anATX(signer("somebody")).ID()}, {Kind: syncer.Transaction, ID: [32]byte{1}}}},
		{Epochs: &syncer.Epochs{From: 1, To: 5}},
		{Layers: &syncer.Layers{From: 8, Ballots: 7}},
	}
}

func TestRequestsCrossTheWire(t *testing.T) {
	for _, a := range asks() {
		raw := codec.Encode(RequestOf(a))
		var r Request
		if err := codec.Decode(raw, &r); err != nil || !bytes.Equal(codec.Encode(&r), raw) {
			t.Errorf("%+v: %v", a, err)
		}
		if len(raw) > MaxRequest {
			t.Errorf("%d bytes are more than MaxRequest", len(raw))
		}
	}
	full := syncer.Ask{}
	for range syncer.MaxObjects {
		full.Objects = append(full.Objects, syncer.Name{Kind: syncer.ATX})
	}
	if n := len(codec.Encode(RequestOf(full))); n > MaxRequest {
		t.Errorf("the largest request has %d bytes, MaxRequest is %d", n, MaxRequest)
	}
}

func FuzzAnswersOfPeers(f *testing.F) {
	s := signer("somebody")
	cert := types.Certificate{Decision: aDecision(s, 1).Decision, Signatures: []types.CertifySignature{aDecision(s, 1).By}}
	f.Add(uint8(0), codec.Encode(ObjectsAnswer{codec.Encode(anATX(s)), nil}))
	f.Add(uint8(1), codec.Encode(&EpochsAnswer{ATXs: [][]types.ATXID{{{1}}, nil}, Malicious: []types.NodeID{{2}}}))
	f.Add(uint8(2), codec.Encode(&LayersAnswer{Certs: []types.Certificate{cert}, Open: []types.Certificate{cert}, Ballots: []types.BallotID{{1}}}))
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		a := asks()[int(which)%3]
		answer, err := CheckAnswer(crypto(), a, raw)
		if err != nil {
			return
		}
		for i, o := range answer.Objects {
			if o == nil {
				continue
			}
			if n, ok := nameOf(o); !ok || n != a.Objects[i] {
				t.Fatalf("asked for %v, took %v", a.Objects[i], n)
			}
		}
		for _, c := range answer.Layers.Certs {
			if c.Decision.Layer < a.Layers.From {
				t.Fatalf("took layer %d, asked from %d", c.Decision.Layer, a.Layers.From)
			}
		}
	})
}

func FuzzRequestsOfPeers(f *testing.F) {
	for _, a := range asks() {
		f.Add(codec.Encode(RequestOf(a)))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r Request
		if codec.Decode(raw, &r) == nil && !bytes.Equal(codec.Encode(&r), raw) {
			t.Fatal("two encodings of one request")
		}
	})
}

func TestAnAnswerIsWhatWasAskedFor(t *testing.T) {
	s := signer("somebody")
	a := anATX(s)
	ask := syncer.Ask{Objects: []syncer.Name{{Kind: syncer.ATX, ID: a.ID()}}}
	other := anATX(signer("other"))
	forged := *a
	forged.Signature[0] ^= 1
	cert := func(l types.Layer, parent, root byte, signed bool) types.Certificate {
		c := types.Certificate{Decision: types.Decision{Layer: l, Parent: types.Hash32{parent}, StateRoot: types.Hash32{root}}}
		if signed {
			c.Signatures = []types.CertifySignature{Seal(s, types.ATXID{}, c.Decision).By}
		}
		return c
	}
	layers := syncer.Ask{Layers: &syncer.Layers{From: 8}}
	lie := cert(9, 1, 2, true)
	lie.Decision.Block[0] ^= 1
	unseated := cert(9, 1, 2, true)
	unseated.Signatures[0].Proof[40] ^= 1
	for name, tc := range map[string]struct {
		ask  syncer.Ask
		raw  []byte
		good bool
	}{
		"the ATX":                {ask, codec.Encode(ObjectsAnswer{codec.Encode(a)}), true},
		"nothing":                {ask, codec.Encode(ObjectsAnswer{nil}), true},
		"less":                   {ask, codec.Encode(ObjectsAnswer{}), true},
		"another ATX":            {ask, codec.Encode(ObjectsAnswer{codec.Encode(other)}), false},
		"a forged ATX":           {ask, codec.Encode(ObjectsAnswer{codec.Encode(&forged)}), false},
		"more than asked":        {ask, codec.Encode(ObjectsAnswer{codec.Encode(a), codec.Encode(a)}), false},
		"layers in order":        {layers, codec.Encode(&LayersAnswer{Certs: []types.Certificate{cert(8, 0, 1, true), cert(9, 1, 2, true)}}), true},
		"one said by the next":   {layers, codec.Encode(&LayersAnswer{Certs: []types.Certificate{cert(8, 0, 1, false), cert(9, 1, 2, true)}}), true},
		"one said by nobody":     {layers, codec.Encode(&LayersAnswer{Certs: []types.Certificate{cert(8, 0, 5, false), cert(9, 1, 2, true)}}), false},
		"layers twice":           {layers, codec.Encode(&LayersAnswer{Certs: []types.Certificate{cert(8, 0, 1, true), cert(8, 0, 1, true)}}), false},
		"older than asked":       {layers, codec.Encode(&LayersAnswer{Certs: []types.Certificate{cert(7, 0, 1, true)}}), false},
		"a signature of nothing": {layers, codec.Encode(&LayersAnswer{Certs: []types.Certificate{lie}}), false},
		"a seat of nobody":       {layers, codec.Encode(&LayersAnswer{Certs: []types.Certificate{unseated}}), false},
		"and among open ones":    {layers, codec.Encode(&LayersAnswer{Open: []types.Certificate{lie}}), false},
	} {
		if _, err := CheckAnswer(crypto(), tc.ask, tc.raw); (err == nil) != tc.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func park(q *intake, from Peer, size int, until time.Time, names ...syncer.Name) (*parked, bool) {
	p := &parked{from: from, msg: &setMessage{make(types.ActiveSet, size/32)}, until: until, missing: names}
	return p, q.park(p)
}

func name(i int) syncer.Name {
	return syncer.Name{Kind: syncer.ATX, ID: [32]byte{byte(i), byte(i >> 8), 1}}
}

func TestWhatWaitsIsBoundedForEachPeerAndInAll(t *testing.T) {
	q := newIntake()
	until := time.Unix(100, 0)
	n := 0
	for ; ; n++ {
		if _, ok := park(&q, "a", 32, until, name(n)); !ok {
			break
		}
	}
	if n != MaxParkedPerPeer {
		t.Errorf("one peer has %d messages waiting", n)
	}
	if _, ok := park(&q, "b", 32, until, name(1)); !ok {
		t.Error("another peer's message finds no place")
	}
	bytes := 0
	for i := 0; ; i++ {
		if _, ok := park(&q, "c", 1<<20, until, name(i)); !ok {
			break
		}
		bytes += 1 << 20
	}
	if bytes > MaxParkedBytesPerPeer {
		t.Errorf("one peer has %d bytes waiting", bytes)
	}
	for i := range 1000 {
		for {
			if _, ok := park(&q, Peer(fmt.Sprint("peer", i)), 1<<20, until, name(i)); !ok {
				break
			}
		}
	}
	if q.all.count > MaxParked || q.all.bytes > MaxParkedBytes {
		t.Errorf("%d messages of %d bytes wait", q.all.count, q.all.bytes)
	}
	if got := len(q.expire(until.Add(1))); got == 0 || q.all != (account{}) || len(q.by) != 0 || len(q.peers) != 0 || len(q.hand) != 0 {
		t.Errorf("%d expired; left: %+v, %d names, %d peers", got, q.all, len(q.by), len(q.peers))
	}
}

func TestAMessageIsReadyWhenAllIsThere(t *testing.T) {
	q := newIntake()
	p, _ := park(&q, "a", 32, time.Unix(100, 0), name(1), name(2))
	q.arrived(name(1))
	if len(q.ready) != 0 {
		t.Fatal("ready with one of two")
	}
	q.arrived(name(2))
	if len(q.ready) != 1 || q.ready[0] != p || q.all.count != 1 {
		t.Fatalf("%d ready, %d waiting", len(q.ready), q.all.count)
	}
	q.leave(p)
	// It may wait again, for something else.
	p.missing = []syncer.Name{name(3)}
	if !q.park(p) {
		t.Fatal("it does not wait again")
	}
	if lost := q.lost(name(3)); len(lost) != 1 || q.all.count != 0 {
		t.Fatalf("%d lost, %d waiting", len(lost), q.all.count)
	}
}

func TestJunkProofsDoNotPushOutARealOne(t *testing.T) {
	b := newPoetBudget(MaxUnreferredPoets, MaxUnreferredPoetBytes)
	realProof := types.PoetProofRef{255}
	if _, ok := b.add(realProof, poetCost{leaves: 1_000_000, size: 20_000}); !ok {
		t.Fatal("no room for the first")
	}
	refused := 0
	for i := range 3 * MaxUnreferredPoets {
		gone, ok := b.add(types.PoetProofRef{byte(i), byte(i >> 8), 1}, poetCost{leaves: 100, size: 20_000})
		if !ok {
			refused++
		}
		for _, ref := range gone {
			if ref == realProof {
				t.Fatal("junk pushed out a proof of much work")
			}
		}
	}
	if len(b.proofs) > MaxUnreferredPoets || b.bytes > MaxUnreferredPoetBytes || refused == 0 {
		t.Fatalf("%d proofs of %d bytes, %d refused", len(b.proofs), b.bytes, refused)
	}
	b.referred(realProof)
	b.forget(100)
	if len(b.proofs) != 0 || b.bytes != 0 {
		t.Fatalf("%d proofs of %d bytes are left when their time is over", len(b.proofs), b.bytes)
	}
}

// A transaction's signature is looked at where it is read, beside the machine, as
// soon as the state says who has to sign.
func TestTheSignatureOfATransactionIsLookedAtWhenItIsRead(t *testing.T) {
	p := vm.LocalParams()
	p.Network = network
	who := signer("payer")
	state, err := vm.Restore([]vm.Entry{{Address: vm.WalletAddress(who.NodeID()), Account: vm.Account{Balance: 1 << 40}}})
	if err != nil {
		t.Fatal(err)
	}
	c := Real{Verifier: signing.NewVerifier(network), Params: activation.Params{Network: network}, State: func() vm.State { return state }}
	spawn, spend := vm.Spawn(who, 0, 1), vm.Spend(who, types.Address{23: 1}, 1, 1, 1)
	for _, raw := range []types.Transaction{spawn, spend} {
		if _, err := Check(c, TopicTx, raw); err != nil {
			t.Fatal(err)
		}
		raw[len(raw)-1] ^= 1
	}
	if _, err := Check(c, TopicTx, spawn); !errors.Is(err, vm.ErrSignature) {
		t.Errorf("a spawn with a wrong signature: %v", err)
	}
	if _, err := Check(c, TopicTx, spend); err != nil {
		t.Errorf("nobody knows yet who has to sign: %v", err)
	}
	spawn[len(spawn)-1] ^= 1
	m, err := Check(c, TopicTx, spawn)
	if err != nil {
		t.Fatal(err)
	}
	spawn[len(spawn)-1] ^= 1 // who looks again, sees it
	if _, err := vm.Validate(m.(*txMessage).tx, state, p); err != nil {
		t.Errorf("it is looked at again: %v", err)
	}
}

// shelf is a library with long lists.
type shelf struct {
	Library
	atxs map[types.Epoch][]types.ATXID
	evil []types.NodeID
}

func (s shelf) EpochATXs(e types.Epoch) ([]types.ATXID, error) { return s.atxs[e], nil }
func (s shelf) MaliciousIDs() ([]types.NodeID, error)          { return s.evil, nil }

// Lists that are longer than an answer may be are had in pages, all of them and
// each id once.
func TestLongListsAreHadInPages(t *testing.T) {
	id := func(e, i int) (id [32]byte) { return [32]byte{byte(i >> 16), byte(i >> 8), byte(i), byte(e)} }
	lib := shelf{atxs: make(map[types.Epoch][]types.ATXID)}
	for e, n := range []int{3: 10, 4: 120_000, 5: syncer.MaxIDs - 5, 6: 0, 7: 20} {
		for i := range n {
			lib.atxs[types.Epoch(e)] = append(lib.atxs[types.Epoch(e)], id(e, i+1))
		}
	}
	for i := range 2*syncer.MaxMalicious + 7 {
		lib.evil = append(lib.evil, id(0, i+1))
	}
	want := syncer.Epochs{From: 3, To: 8}
	atxs, evil := make(map[types.ATXID]bool), make(map[types.NodeID]bool)
	for pages := 1; ; pages++ {
		ask := syncer.Ask{Epochs: &want}
		raw, err := Serve(lib, codec.Encode(RequestOf(ask)))
		if err != nil || len(raw) > MaxAnswer {
			t.Fatalf("page %d: %d bytes, %v", pages, len(raw), err)
		}
		got, err := CheckAnswer(crypto(), ask, raw)
		if err != nil {
			t.Fatalf("page %d: %v", pages, err)
		}
		for _, ids := range got.Epochs.ATXs {
			for _, id := range ids {
				if atxs[id] {
					t.Fatalf("page %d lists %s again", pages, id.Short())
				}
				atxs[id] = true
			}
		}
		for _, id := range got.Epochs.Malicious {
			evil[id] = true
		}
		rest := restOf(want, got.Epochs)
		if rest == want {
			if pages > 6 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		want = rest
	}
	if len(atxs) != 10+120_000+syncer.MaxIDs-5+20 || len(evil) != len(lib.evil) {
		t.Errorf("%d ATXs and %d smeshers were listed", len(atxs), len(evil))
	}
	// A list that does not go on leads to no further page.
	full := EpochsAnswer{ATXs: [][]types.ATXID{make([]types.ATXID, syncer.MaxIDs)}, Malicious: make([]types.NodeID, syncer.MaxMalicious)}
	if asked := (syncer.Epochs{From: 4, To: 8, After: id(4, 9), Evil: id(0, 9)}); restOf(asked, full) != asked {
		t.Error("a list that goes back is asked for again")
	}
}

// Who is woken for a message whose time is over finds it over: else it would be
// woken for it again at once.
func TestAMessageIsOverAtTheMomentForWhichWeAreWoken(t *testing.T) {
	q := newIntake()
	until := time.Unix(1_800_000_000, 0)
	if !q.park(&parked{msg: &poetMessage{}, from: "peer", missing: []syncer.Name{{}}, until: until}) {
		t.Fatal("it is not parked")
	}
	if over := q.expire(until.Add(-1)); len(over) != 0 || !q.first.Equal(until) {
		t.Errorf("before: %d are over, the next at %v", len(over), q.first)
	}
	if over := q.expire(q.first); len(over) != 1 || !q.first.IsZero() {
		t.Errorf("at that moment: %d are over, the next at %v", len(over), q.first)
	}
}

// What we could not check ourselves is nobody's fault; a wrong label convicts its
// smesher, unless it is that of the first proof, which everybody checks whole.
func TestWhatCouldNotBeCheckedBlamesNobody(t *testing.T) {
	label := &post.InvalidIndexError{Ordinal: 3}
	for name, tc := range map[string]struct {
		err   error
		class Class
		label bool
	}{
		"valid":            {nil, Accept, false},
		"not built in":     {fmt.Errorf("post: %w", post.ErrNotBuiltIn), Ignore, false},
		"a wrong label":    {fmt.Errorf("post: %w", label), Reject, true},
		"of the first one": {errors.Join(activation.ErrInitialPost, label), Reject, false},
		"anything else":    {errors.New("short"), Reject, false},
	} {
		if v := outcome(types.ATXID{1}, tc.err); v.Class != tc.class || v.WrongLabel != tc.label || v.WrongLabel && v.Ordinal != 3 {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
