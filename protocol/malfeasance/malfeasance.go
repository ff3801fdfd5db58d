// Package malfeasance has the proofs that a smesher broke a rule that no honest
// smesher breaks, whatever it hears and whenever it crashes: two ATXs in an
// epoch, two ballots, proposals or decisions in a layer, two hare messages in a
// round, a label in a proof of space that is not there.
//
// It promises: a proof convinces everybody by itself, or together with an ATX
// that everybody can get; nobody can make one against a smesher that keeps the
// rules; decoding is bounded. It leaves to the caller what a proof costs: the
// smesher's weight, from the next electorate on (package activation).
package malfeasance

import (
	"bytes"
	"errors"
	"fmt"

	"tweedle/protocol/hare"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Kind tells what a smesher did. The values are on the wire; up to InvalidPost
// they are those of reference/protocol.md A13.
type Kind uint8

// The kinds.
const (
	TwoATXs      Kind = 1 // for one epoch
	TwoBallots   Kind = 2 // in one layer
	TwoDecisions Kind = 3 // in one layer
	InvalidPost  Kind = 4 // a label that does not pass
	TwoProposals Kind = 5 // in one layer
	TwoMessages  Kind = 6 // of Hare, in one round
)

func (k Kind) String() string {
	switch k {
	case TwoATXs:
		return "two ATXs for one epoch"
	case TwoBallots:
		return "two ballots in one layer"
	case TwoDecisions:
		return "two decisions in one layer"
	case InvalidPost:
		return "a proof of space with a wrong label"
	case TwoProposals:
		return "two proposals in one layer"
	case TwoMessages:
		return "two hare messages in one round"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// MaxSize is the longest encoding of a proof, in bytes: an ATX as gossip takes
// it, and what names the label.
const MaxSize = 65 << 10

// maxSiblings is far above the height of the tree over an ATX's fields.
const maxSiblings = 16

// Proof is the evidence against a smesher. Which fields are used depends on
// the kind; A and B are the two things that it must not have signed both.
type Proof struct {
	Kind    Kind
	Smesher types.NodeID
	Epoch   types.Epoch // TwoATXs
	Layer   types.Layer // TwoBallots, TwoProposals, TwoMessages
	Round   hare.Round  // TwoMessages
	A, B    Signed
	ATX     *types.ATX // InvalidPost
	Ordinal uint32     // InvalidPost: place of the label in the proof, from 0
}

// Signed is one of two contradicting things. A's content sorts before B's, so
// that one contradiction has one proof.
type Signed struct {
	Hash      types.Hash32   // TwoATXs: the id; TwoMessages: of the set; TwoBallots, TwoProposals: of the content
	Epoch     []types.Hash32 // TwoATXs: siblings that lead from the publish epoch to the id
	Decision  types.Decision // TwoDecisions
	Signature types.Signature
}

// ID names a proof: one for each smesher and kind is enough.
func (p *Proof) ID() types.Hash32 { return types.Sum(codec.Encode(p)) }

// EncodeTo appends the canonical encoding.
func (p *Proof) EncodeTo(e *codec.Encoder) {
	e.U8(uint8(p.Kind))
	e.Raw(p.Smesher[:])
	switch p.Kind {
	case TwoATXs:
		e.Compact(uint64(p.Epoch))
	case TwoBallots, TwoProposals:
		e.Compact(uint64(p.Layer))
	case TwoMessages:
		e.Compact(uint64(p.Layer))
		e.U8(uint8(p.Round))
	case InvalidPost:
		p.ATX.EncodeTo(e)
		e.Compact(uint64(p.Ordinal))
		return
	}
	p.A.encodeTo(e, p.Kind)
	p.B.encodeTo(e, p.Kind)
}

func (s *Signed) encodeTo(e *codec.Encoder, k Kind) {
	if k == TwoDecisions {
		s.Decision.EncodeTo(e)
	} else {
		e.Raw(s.Hash[:])
	}
	if k == TwoATXs {
		e.Compact(uint64(len(s.Epoch)))
		for i := range s.Epoch {
			e.Raw(s.Epoch[i][:])
		}
	}
	e.Raw(s.Signature[:])
}

// DecodeFrom reads the canonical encoding.
func (p *Proof) DecodeFrom(d *codec.Decoder) {
	p.Kind = Kind(d.U8())
	d.Raw(p.Smesher[:])
	switch p.Kind {
	case TwoATXs:
		p.Epoch = types.Epoch(d.Compact32())
	case TwoBallots, TwoProposals:
		p.Layer = types.Layer(d.Compact32())
	case TwoMessages:
		p.Layer = types.Layer(d.Compact32())
		p.Round = hare.Round(d.U8())
	case TwoDecisions:
	case InvalidPost:
		p.ATX = &types.ATX{}
		p.ATX.DecodeFrom(d)
		p.Ordinal = d.Compact32()
		return
	default:
		d.Fail(codec.ErrRange)
		return
	}
	p.A.decodeFrom(d, p.Kind)
	p.B.decodeFrom(d, p.Kind)
}

func (s *Signed) decodeFrom(d *codec.Decoder, k Kind) {
	if k == TwoDecisions {
		s.Decision.DecodeFrom(d)
	} else {
		d.Raw(s.Hash[:])
	}
	if k == TwoATXs {
		for range d.Count(maxSiblings) {
			var h types.Hash32
			d.Raw(h[:])
			if d.Err() != nil {
				return
			}
			s.Epoch = append(s.Epoch, h)
		}
	}
	d.Raw(s.Signature[:])
}

// key is what A and B are sorted by.
func (s *Signed) key(k Kind) []byte {
	if k == TwoDecisions {
		return codec.Encode(&s.Decision)
	}
	return s.Hash[:]
}

// two orders the halves of a proof.
func two(p *Proof) *Proof {
	if bytes.Compare(p.A.key(p.Kind), p.B.key(p.Kind)) > 0 {
		p.A, p.B = p.B, p.A
	}
	return p
}

// FromATXs makes the proof that a smesher published twice in an epoch. The two
// must have one smesher, one epoch, and different ids.
func FromATXs(a, b *types.ATX) *Proof {
	half := func(x *types.ATX) Signed {
		return Signed{Hash: types.Hash32(x.ID()), Epoch: x.EpochProof(), Signature: x.Signature}
	}
	return two(&Proof{Kind: TwoATXs, Smesher: a.SmesherID, Epoch: a.PublishEpoch, A: half(a), B: half(b)})
}

// FromHashes makes the proof of two ballots or proposals in one layer from
// what their signatures cover (types.Ballot.SignedBytes).
func FromHashes(k Kind, smesher types.NodeID, layer types.Layer, a, b Signed) *Proof {
	return two(&Proof{Kind: k, Smesher: smesher, Layer: layer, A: a, B: b})
}

// FromHare makes the proof of two hare messages of a smesher in one round.
func FromHare(e hare.Equivocation) *Proof {
	half := func(m *hare.Message) Signed { return Signed{Hash: m.Says(), Signature: m.Signature} }
	return two(&Proof{Kind: TwoMessages, Smesher: e.A.Smesher, Layer: e.A.Layer, Round: e.A.Round, A: half(e.A), B: half(e.B)})
}

// FromDecisions makes the proof of two decisions of a smesher in one layer.
func FromDecisions(a, b types.CertifyMessage) *Proof {
	return two(&Proof{
		Kind: TwoDecisions, Smesher: a.By.Smesher,
		A: Signed{Decision: a.Decision, Signature: a.By.Signature}, B: Signed{Decision: b.Decision, Signature: b.By.Signature},
	})
}

// Errors of Validate.
var (
	ErrSame      = errors.New("malfeasance proof: its two halves are not different things in ascending order")
	ErrSignature = errors.New("malfeasance proof: the smesher did not sign that")
	ErrEpoch     = errors.New("malfeasance proof: an ATX is of another epoch")
	ErrLayer     = errors.New("malfeasance proof: the decisions are of different layers")
	ErrShape     = errors.New("malfeasance proof: its ATX is not one proof of one identity")
	ErrHonest    = errors.New("malfeasance proof: the label passes")
)

// Unknown says that the proof can be judged once an ATX is known.
type Unknown struct{ ATX types.ATXID }

func (u *Unknown) Error() string {
	return fmt.Sprintf("malfeasance proof refers to unknown ATX %s", u.ATX.Short())
}

// Verifier checks signatures (package signing).
type Verifier interface {
	Verify(d signing.Domain, id types.NodeID, msg []byte, sig types.Signature) bool
}

// Space answers about proofs of space.
type Space interface {
	// Commitment returns what the labels behind an ATX are bound to; false if
	// the ATX is not known.
	Commitment(types.ATXID) (types.ATXID, bool)
	// Wrong tells whether the label at a place of the ATX's proof does not
	// pass. It computes one label.
	Wrong(a *types.ATX, commitment types.ATXID, ordinal uint32) bool
}

// Check verifies all that needs nothing but the proof: for InvalidPost that is
// the signature, for the others it is everything.
func (p *Proof) Check(v Verifier) error {
	switch p.Kind {
	case TwoATXs:
		for _, s := range []*Signed{&p.A, &p.B} {
			if !types.ATXID(s.Hash).VerifyEpoch(p.Epoch, s.Epoch) {
				return ErrEpoch
			}
		}
		return p.pair(v, signing.ATX, func(s *Signed) []byte { return s.Hash[:] })
	case TwoBallots, TwoProposals:
		domain := signing.Ballot
		if p.Kind == TwoProposals {
			domain = signing.Proposal
		}
		return p.pair(v, domain, func(s *Signed) []byte { return types.LayerAndHash(p.Layer, s.Hash) })
	case TwoMessages:
		return p.pair(v, signing.Hare, func(s *Signed) []byte { return hare.SignedBytes(p.Layer, p.Round, s.Hash) })
	case TwoDecisions:
		if p.A.Decision.Layer != p.B.Decision.Layer {
			return ErrLayer
		}
		return p.pair(v, signing.Certify, func(s *Signed) []byte { return codec.Encode(&s.Decision) })
	}
	id := p.ATX.ID()
	switch {
	case p.ATX.SmesherID != p.Smesher || !v.Verify(signing.ATX, p.Smesher, id[:], p.ATX.Signature):
		return ErrSignature
	case len(p.ATX.NIPosts) != 1 || len(p.ATX.NIPosts[0].Posts) != 1 || (p.ATX.Initial == nil) != (len(p.ATX.PreviousATXs) == 1):
		return ErrShape
	}
	return nil
}

func (p *Proof) pair(v Verifier, d signing.Domain, signed func(*Signed) []byte) error {
	if bytes.Compare(p.A.key(p.Kind), p.B.key(p.Kind)) >= 0 {
		return ErrSame
	}
	for _, s := range []*Signed{&p.A, &p.B} {
		if !v.Verify(d, p.Smesher, signed(s), s.Signature) {
			return ErrSignature
		}
	}
	return nil
}

// CheckSpace verifies what Check leaves of an InvalidPost proof. The error may
// be an *Unknown. For the other kinds there is nothing left.
func (p *Proof) CheckSpace(s Space) error {
	if p.Kind != InvalidPost {
		return nil
	}
	commitment, err := p.Commitment(s)
	if err != nil {
		return err
	}
	if !s.Wrong(p.ATX, commitment, p.Ordinal) {
		return ErrHonest
	}
	return nil
}

// Commitment finds what the labels of an InvalidPost proof's ATX are bound to.
func (p *Proof) Commitment(s Space) (types.ATXID, error) {
	if p.ATX.Initial != nil {
		return p.ATX.Initial.CommitmentATX, nil
	}
	c, ok := s.Commitment(p.ATX.PreviousATXs[0])
	if !ok {
		return c, &Unknown{p.ATX.PreviousATXs[0]}
	}
	return c, nil
}
