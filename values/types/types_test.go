package types

import (
	"bytes"
	"encoding/hex"
	"math"
	"testing"
	"time"

	"tweedle/values/codec"
)

// sample returns one value of each type that goes over the wire, with every
// optional part present.
func samples() map[string]interface {
	codec.Encodable
	codec.Decodable
} {
	atx := &ATX{
		PublishEpoch: 7, PositioningATX: ATXID{1}, Coinbase: Address{0, 0, 0, 0, 9},
		Initial:      &InitialATX{CommitmentATX: ATXID{2}, Post: PostProof{3, []byte{4, 5}, 6}},
		PreviousATXs: []ATXID{{7}}, VRFNonce: 1 << 40,
		NIPosts: []NIPost{{
			Membership: []Hash32{{8}}, NumMembers: 2, PoetProof: PoetProofRef{9},
			Posts: []SubPost{{Post: PostProof{Nonce: 1, Indices: []byte{1}}, NumUnits: 4, MembershipLeafIndex: 1}},
		}},
		Marriages: []Marriage{{ATXID{1}, Signature{2}}}, MarriageATX: &ATXID{3},
		SmesherID: NodeID{4}, Signature: Signature{5},
	}
	ballot := Ballot{
		Layer: 20, ATX: ATXID{1}, Opinion: Hash32{2}, EpochData: &EpochData{Hash32{3}, Beacon{4}, 5},
		Smesher: NodeID{6}, Signature: Signature{7},
		Votes:         Votes{BallotID{8}, []Vote{{BlockID{9}, 1, 2}}, []Vote{{BlockID{10}, 3, 4}}, []Layer{19}},
		Eligibilities: []Eligibility{{1, VRFSignature{11}}},
	}
	decision := Decision{20, Hash32{3}, Beacon{5}, Hash32{4}, BlockID{1}, Hash32{2}}
	sig := CertifySignature{ATXID{1}, NodeID{2}, VRFSignature{4}, Signature{3}}
	return map[string]interface {
		codec.Encodable
		codec.Decodable
	}{
		"atx":         atx,
		"ballot":      &ballot,
		"proposal":    &Proposal{ballot, []TransactionID{{1}}, Hash32{2}, Signature{3}},
		"block":       &Block{20, 100, []Reward{{ATXID{1}, 2, 3}}, []TransactionID{{4}}},
		"certify":     &CertifyMessage{decision, sig},
		"certificate": &Certificate{decision, []CertifySignature{sig}},
		"challenge":   &PoetChallenge{3, ATXID{1}, ATXID{2}, &PostProof{Nonce: 1}},
		"active set":  &ActiveSet{{1}, {2}},
		"receipt":     &PoetReceipt{"12", NodeID{1}, Hash32{2}, time.UnixMilli(1234567890123), NodeID{3}, Signature{4}},
		"poet proof": &PoetProofMessage{
			PoetProof{Hash32{1}, []Hash32{{2}}, []Hash32{{3}, {4}}, 1000}, NodeID{5}, "12", Hash32{6},
		},
	}
}

// The digests freeze the wire form. A change here is a change of protocol.
func TestEncodingsAreFrozen(t *testing.T) {
	golden := map[string]string{
		"atx":         "06acb9f13295dbc1",
		"receipt":     "cf80901ad90f2363",
		"ballot":      "1de03564bc7fcf08",
		"proposal":    "a1dbfda4aa0e8f4b",
		"block":       "b3c885bd8d6b90e2",
		"certify":     "21751a65de956fe8",
		"certificate": "9e817a8ff75de0b7",
		"challenge":   "992a8d5b4517b313",
		"active set":  "d0b0b9eabf989773",
		"poet proof":  "ef8d0ad8c3d2c64d",
	}
	for name, v := range samples() {
		sum := Sum(codec.Encode(v))
		if got := hex.EncodeToString(sum[:8]); got != golden[name] {
			t.Errorf("%q: %q,", name, got)
		}
	}
}

func TestIDsAreFrozen(t *testing.T) {
	s := samples()
	for name, pair := range map[string][2]string{
		"atx":      {s["atx"].(*ATX).ID().Short(), "74b916c9f3"},
		"ballot":   {s["ballot"].(*Ballot).ID().String(), "92825e6990b40d79bdd4b73139b346e26e407063"},
		"proposal": {s["proposal"].(*Proposal).ID().String(), "0b483c300e9301e7ac9bcd93d543e8528b515b3e"},
		"block":    {s["block"].(*Block).ID().Short(), "b3c885bd8d"},
		"poet ref": {s["poet proof"].(*PoetProofMessage).Proof.Ref().Short(), "d0becf2a9d"},
		"golden":   {GoldenATX(time.Unix(1689321600, 0), "extra").Short(), "8e4ef9211f"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q", name, pair[0])
		}
	}
}

func TestEveryFieldOfAnATXChangesItsID(t *testing.T) {
	base := samples()["atx"].(*ATX).ID()
	for name, change := range map[string]func(*ATX){
		"publish epoch":     func(a *ATX) { a.PublishEpoch++ },
		"positioning":       func(a *ATX) { a.PositioningATX[0]++ },
		"coinbase":          func(a *ATX) { a.Coinbase[9]++ },
		"no initial":        func(a *ATX) { a.Initial = nil },
		"commitment":        func(a *ATX) { a.Initial.CommitmentATX[0]++ },
		"initial post":      func(a *ATX) { a.Initial.Post.Nonce++ },
		"previous":          func(a *ATX) { a.PreviousATXs[0][0]++ },
		"one previous more": func(a *ATX) { a.PreviousATXs = append(a.PreviousATXs, ATXID{}) },
		"membership":        func(a *ATX) { a.NIPosts[0].Membership[0][0]++ },
		"members":           func(a *ATX) { a.NIPosts[0].NumMembers++ },
		"poet":              func(a *ATX) { a.NIPosts[0].PoetProof[0]++ },
		"post":              func(a *ATX) { a.NIPosts[0].Posts[0].Post.Indices[0]++ },
		"units":             func(a *ATX) { a.NIPosts[0].Posts[0].NumUnits++ },
		"leaf index":        func(a *ATX) { a.NIPosts[0].Posts[0].MembershipLeafIndex++ },
		"vrf nonce":         func(a *ATX) { a.VRFNonce++ },
		"marriage":          func(a *ATX) { a.Marriages[0].Signature[0]++ },
		"marriage atx":      func(a *ATX) { a.MarriageATX = nil },
		"smesher":           func(a *ATX) { a.SmesherID[0]++ },
	} {
		a := samples()["atx"].(*ATX)
		change(a)
		if a.ID() == base {
			t.Errorf("%s is not part of the id", name)
		}
	}
	a := samples()["atx"].(*ATX)
	a.Signature[0]++
	if a.ID() != base {
		t.Error("the signature is part of the id")
	}
}

func TestEveryFieldOfABallotAndAProposalChangesItsID(t *testing.T) {
	base := samples()["proposal"].(*Proposal)
	ballot, proposal := base.Ballot.ID(), base.ID()
	for name, change := range map[string]func(*Ballot){
		"layer":                func(b *Ballot) { b.Layer++ },
		"ATX":                  func(b *Ballot) { b.ATX[0]++ },
		"opinion":              func(b *Ballot) { b.Opinion[0]++ },
		"active set":           func(b *Ballot) { b.EpochData.ActiveSet[0]++ },
		"beacon":               func(b *Ballot) { b.EpochData.Beacon[0]++ },
		"slots":                func(b *Ballot) { b.EpochData.Eligibilities++ },
		"reference":            func(b *Ballot) { b.EpochData, b.Reference = nil, BallotID{1} },
		"smesher":              func(b *Ballot) { b.Smesher[0]++ },
		"base ballot":          func(b *Ballot) { b.Votes.Base[0]++ },
		"support":              func(b *Ballot) { b.Votes.Support[0].Height++ },
		"against":              func(b *Ballot) { b.Votes.Against = nil },
		"abstain":              func(b *Ballot) { b.Votes.Abstain[0]++ },
		"an eligibility":       func(b *Ballot) { b.Eligibilities[0].J++ },
		"its proof":            func(b *Ballot) { b.Eligibilities[0].Proof[79]++ },
		"one eligibility less": func(b *Ballot) { b.Eligibilities = nil },
	} {
		p := samples()["proposal"].(*Proposal)
		change(&p.Ballot)
		if p.Ballot.ID() == ballot || p.ID() == proposal {
			t.Errorf("%s is not part of the id", name)
		}
		if bytes.Equal(p.Ballot.SignedBytes(), base.Ballot.SignedBytes()) || bytes.Equal(p.SignedBytes(), base.SignedBytes()) {
			t.Errorf("%s is not signed", name)
		}
	}
	for name, change := range map[string]func(*Proposal){
		"transactions": func(p *Proposal) { p.Txs[0][0]++ },
		"mesh hash":    func(p *Proposal) { p.MeshHash[0]++ },
	} {
		p := samples()["proposal"].(*Proposal)
		change(p)
		if p.ID() == proposal || bytes.Equal(p.SignedBytes(), base.SignedBytes()) {
			t.Errorf("%s is not part of the id", name)
		}
	}
	p := samples()["proposal"].(*Proposal)
	p.Signature[0]++
	p.Ballot.Signature[0]++
	if p.ID() != proposal || p.Ballot.ID() != ballot {
		t.Error("a signature is part of the id")
	}
}

func TestScheduleOfLayersEpochsAndRounds(t *testing.T) {
	g := time.Unix(1000, 0)
	s := Schedule{Genesis: g, LayerDuration: 2 * time.Second, LayersPerEpoch: 10}
	for _, tc := range []struct {
		after time.Duration
		layer Layer
		epoch Epoch
	}{
		{-time.Hour, 0, 0}, {0, 0, 0}, {1999 * time.Millisecond, 0, 0}, {2 * time.Second, 1, 0},
		{19 * time.Second, 9, 0}, {20 * time.Second, 10, 1}, {40 * time.Second, 20, 2},
	} {
		now := g.Add(tc.after)
		if s.LayerAt(now) != tc.layer || s.EpochAt(now) != tc.epoch {
			t.Errorf("%v: layer %d epoch %d", tc.after, s.LayerAt(now), s.EpochAt(now))
		}
	}
	if s.FirstBallotLayer() != 20 || !s.EpochStart(2).Equal(g.Add(40*time.Second)) {
		t.Error("first ballots are not in epoch 2")
	}
	p := PoetSchedule{Genesis: g, EpochDuration: 20 * time.Second, PhaseShift: 10 * time.Second, CycleGap: 8 * time.Second}
	for after, want := range map[time.Duration]uint32{-time.Second: 0, 9 * time.Second: 0, 10 * time.Second: 1, 29 * time.Second: 1, 30 * time.Second: 2} {
		if got := p.Open(g.Add(after)); got != want {
			t.Errorf("open round after %v: %d, want %d", after, got, want)
		}
	}
	if !p.Start(1).Equal(g.Add(30*time.Second)) || !p.End(1).Equal(g.Add(42*time.Second)) {
		t.Error("round 1 does not run from 30 s to 42 s")
	}
}

func fuzzWire[T any, P interface {
	*T
	codec.Encodable
	codec.Decodable
}](f *testing.F) {
	for _, v := range samples() {
		f.Add(codec.Encode(v))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v := P(new(T))
		if codec.Decode(b, v) == nil && !bytes.Equal(codec.Encode(v), b) {
			t.Fatalf("accepted %x, encodes as %x", b, codec.Encode(v))
		}
	})
}

func FuzzATX(f *testing.F)              { fuzzWire[ATX](f) }
func FuzzBallot(f *testing.F)           { fuzzWire[Ballot](f) }
func FuzzProposal(f *testing.F)         { fuzzWire[Proposal](f) }
func FuzzBlock(f *testing.F)            { fuzzWire[Block](f) }
func FuzzCertifyMessage(f *testing.F)   { fuzzWire[CertifyMessage](f) }
func FuzzCertificate(f *testing.F)      { fuzzWire[Certificate](f) }
func FuzzPoetChallenge(f *testing.F)    { fuzzWire[PoetChallenge](f) }
func FuzzActiveSet(f *testing.F)        { fuzzWire[ActiveSet](f) }
func FuzzPoetReceipt(f *testing.F)      { fuzzWire[PoetReceipt](f) }
func FuzzPoetProofMessage(f *testing.F) { fuzzWire[PoetProofMessage](f) }

// A clock can be a thousand years ahead, which no time.Duration holds.
func TestPoetScheduleOfFarTimes(t *testing.T) {
	for _, epoch := range []time.Duration{20 * time.Second, 336 * time.Hour, 1500 * time.Millisecond} {
		p := PoetSchedule{Genesis: time.Unix(1_000_000, 5), EpochDuration: epoch, PhaseShift: epoch / 3, CycleGap: epoch / 4}
		for _, years := range []int{0, 1, 100, 291, 292, 293, 1000, 100_000} {
			now := p.Genesis.AddDate(years, 1, 3)
			e := p.Open(now)
			if e == math.MaxUint32 {
				continue // there are no more rounds
			}
			if e == 0 || !p.Start(e).After(now) || p.Start(e-1).After(now) || !p.Start(e).Equal(p.End(e-1).Add(p.CycleGap)) {
				t.Errorf("epoch %s, %s: round %d from %s, the one before from %s", epoch, now, e, p.Start(e), p.Start(e-1))
			}
		}
	}
}
