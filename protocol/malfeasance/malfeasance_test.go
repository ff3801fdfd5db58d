package malfeasance

import (
	"bytes"
	"errors"
	"testing"

	"tweedle/protocol/hare"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

var network = types.GenesisID{7}

func signer(name string) *signing.Signer {
	s, err := signing.NewSigner(signing.SeedFrom(name), network)
	if err != nil {
		panic(err)
	}
	return s
}

func atx(s *signing.Signer, epoch types.Epoch, coinbase byte) *types.ATX {
	a := &types.ATX{
		PublishEpoch: epoch, Coinbase: types.Address{coinbase}, SmesherID: s.NodeID(), PreviousATXs: []types.ATXID{{1}},
		NIPosts: []types.NIPost{{Posts: []types.SubPost{{NumUnits: 1, Post: types.PostProof{Indices: []byte{1, 2}}}}}},
	}
	id := a.ID()
	a.Signature = s.Sign(signing.ATX, id[:])
	return a
}

func ballot(s *signing.Signer, layer types.Layer, n byte) Signed {
	b := types.Ballot{Layer: layer, Opinion: types.Hash32{n}, Smesher: s.NodeID()}
	return Signed{Hash: b.SignedHash(), Signature: s.Sign(signing.Ballot, b.SignedBytes())}
}

func proposal(s *signing.Signer, layer types.Layer, n byte) Signed {
	p := types.Proposal{Ballot: types.Ballot{Layer: layer, Smesher: s.NodeID()}, MeshHash: types.Hash32{n}}
	return Signed{Hash: p.SignedHash(), Signature: s.Sign(signing.Proposal, p.SignedBytes())}
}

func decision(s *signing.Signer, layer types.Layer, n byte) types.CertifyMessage {
	m := types.CertifyMessage{Decision: types.Decision{Layer: layer, Block: types.BlockID{n}}}
	m.By = types.CertifySignature{Smesher: s.NodeID(), Signature: s.Sign(signing.Certify, codec.Encode(&m.Decision))}
	return m
}

func message(s *signing.Signer, layer types.Layer, r hare.Round, set ...types.ProposalID) *hare.Message {
	m := &hare.Message{Layer: layer, Round: r, Smesher: s.NodeID(), Set: set, Ref: hare.SetRef(set)}
	m.Signature = s.Sign(signing.Hare, hare.SignedBytes(layer, r, m.Says()))
	return m
}

// space knows one ATX, and says of labels what it is told.
type space struct{ wrong bool }

func (s space) Commitment(id types.ATXID) (types.ATXID, bool) {
	return types.ATXID{9}, id == types.ATXID{1}
}
func (s space) Wrong(*types.ATX, types.ATXID, uint32) bool { return s.wrong }

// proofs are one of each kind.
func proofs(s *signing.Signer) []*Proof {
	id := types.ProposalID{1}
	return []*Proof{
		FromATXs(atx(s, 3, 1), atx(s, 3, 2)),
		FromHashes(TwoBallots, s.NodeID(), 5, ballot(s, 5, 1), ballot(s, 5, 2)),
		FromDecisions(decision(s, 5, 1), decision(s, 5, 2)),
		{Kind: InvalidPost, Smesher: s.NodeID(), ATX: atx(s, 3, 1), Ordinal: 1},
		FromHashes(TwoProposals, s.NodeID(), 5, proposal(s, 5, 1), proposal(s, 5, 2)),
		FromHare(hare.Equivocation{A: message(s, 5, hare.Commit, id), B: message(s, 5, hare.Commit)}),
	}
}

func judge(p *Proof, s Space) error {
	if err := p.Check(signing.NewVerifier(network)); err != nil {
		return err
	}
	return p.CheckSpace(s)
}

func TestEachKindConvincesAfterACrossingOfTheWire(t *testing.T) {
	for _, p := range proofs(signer("cheat")) {
		b := codec.Encode(p)
		var got Proof
		if err := codec.Decode(b, &got); err != nil {
			t.Fatalf("%s: %v", p.Kind, err)
		}
		if err := judge(&got, space{wrong: true}); err != nil {
			t.Errorf("%s: %v", p.Kind, err)
		}
		if !bytes.Equal(codec.Encode(&got), b) || got.ID() != p.ID() {
			t.Errorf("%s: does not encode as it was", p.Kind)
		}
	}
}

func TestTheOrderOfDiscoveryMakesNoSecondProof(t *testing.T) {
	s := signer("cheat")
	if FromATXs(atx(s, 3, 1), atx(s, 3, 2)).ID() != FromATXs(atx(s, 3, 2), atx(s, 3, 1)).ID() {
		t.Error("ATXs")
	}
	if FromDecisions(decision(s, 5, 1), decision(s, 5, 2)).ID() != FromDecisions(decision(s, 5, 2), decision(s, 5, 1)).ID() {
		t.Error("decisions")
	}
}

func TestWhoKeepsTheRulesCannotBeConvicted(t *testing.T) {
	s, other := signer("honest"), signer("other")
	a := atx(s, 3, 1)
	inOtherEpoch := FromATXs(a, atx(s, 4, 1))
	inOtherEpoch.Epoch = 3
	stolen := FromHashes(TwoBallots, s.NodeID(), 5, ballot(s, 5, 1), ballot(other, 5, 2))
	post := &Proof{Kind: InvalidPost, Smesher: s.NodeID(), ATX: a}
	elsewhere := *post
	elsewhere.Smesher = other.NodeID()
	merged := atx(s, 3, 1)
	merged.NIPosts = append(merged.NIPosts, merged.NIPosts[0])
	id := merged.ID()
	merged.Signature = s.Sign(signing.ATX, id[:])
	unknown := atx(s, 3, 1)
	unknown.PreviousATXs[0] = types.ATXID{2}
	p1 := types.ProposalID{1}
	id = unknown.ID()
	unknown.Signature = s.Sign(signing.ATX, id[:])
	for name, tc := range map[string]struct {
		p    *Proof
		want error
	}{
		"one ATX twice":                  {FromATXs(a, a), ErrSame},
		"ATXs of two epochs":             {inOtherEpoch, ErrEpoch},
		"one ballot twice":               {FromHashes(TwoBallots, s.NodeID(), 5, ballot(s, 5, 1), ballot(s, 5, 1)), ErrSame},
		"ballots of two layers":          {FromHashes(TwoBallots, s.NodeID(), 5, ballot(s, 5, 1), ballot(s, 6, 2)), ErrSignature},
		"ballot of somebody else":        {stolen, ErrSignature},
		"a ballot and a proposal":        {FromHashes(TwoBallots, s.NodeID(), 5, ballot(s, 5, 1), proposal(s, 5, 2)), ErrSignature},
		"decisions of two layers":        {FromDecisions(decision(s, 5, 1), decision(s, 6, 1)), ErrLayer},
		"one hare message twice":         {FromHare(hare.Equivocation{A: message(s, 5, hare.Propose), B: message(s, 5, hare.Propose)}), ErrSame},
		"hare messages of two rounds":    {FromHare(hare.Equivocation{A: message(s, 5, hare.Commit, p1), B: message(s, 5, hare.Notify)}), ErrSignature},
		"hare messages of two layers":    {FromHare(hare.Equivocation{A: message(s, 5, hare.Commit, p1), B: message(s, 6, hare.Commit)}), ErrSignature},
		"a label that passes":            {post, ErrHonest},
		"somebody else's label":          {&elsewhere, ErrSignature},
		"an ATX of another form":         {&Proof{Kind: InvalidPost, Smesher: s.NodeID(), ATX: merged}, ErrShape},
		"an ATX that builds on a secret": {&Proof{Kind: InvalidPost, Smesher: s.NodeID(), ATX: unknown}, &Unknown{types.ATXID{2}}},
	} {
		err := judge(tc.p, space{})
		var u *Unknown
		if errors.As(tc.want, &u) {
			if !errors.As(err, &u) || u.ATX != (types.ATXID{2}) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func FuzzProofsFromTheNetworkAreBounded(f *testing.F) {
	for _, p := range proofs(signer("cheat")) {
		f.Add(codec.Encode(p))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Proof
		if codec.Decode(b, &p) != nil {
			return
		}
		if !bytes.Equal(codec.Encode(&p), b) {
			t.Fatal("two encodings of one proof")
		}
		_ = judge(&p, space{wrong: true}) // never panics
	})
}
