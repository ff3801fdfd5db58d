package hare

import (
	"errors"
	"slices"

	"tweedle/protocol/eligibility"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// CertifyRound stands for the committee that certifies where the others have their round
// (reference/protocol.md A9).
const CertifyRound = 1<<31 - 1

// MaxSeals bounds the signatures of a committee under one decision.
const MaxSeals = 4096

// Seal is a committee member's signature under a decision (signing.Certify), with the
// proof of its seats.
type Seal struct {
	types.CertifySignature
	Proof types.VRFSignature
}

// EncodeTo appends the canonical encoding.
func (s *Seal) EncodeTo(e *codec.Encoder) {
	s.CertifySignature.EncodeTo(e)
	e.Raw(s.Proof[:])
}

// DecodeFrom reads the canonical encoding.
func (s *Seal) DecodeFrom(d *codec.Decoder) {
	s.CertifySignature.DecodeFrom(d)
	d.Raw(s.Proof[:])
}

// Sealed is a decision with seals: of one member as a message, of enough as a
// certificate. The decision names the electorate from which the committee is drawn, and
// the state on which the layer builds.
type Sealed struct {
	Decision types.Decision
	Seals    []Seal // ascending smesher
}

// EncodeTo appends the canonical encoding.
func (c *Sealed) EncodeTo(e *codec.Encoder) {
	c.Decision.EncodeTo(e)
	codec.EncodeList(e, c.Seals)
}

// DecodeFrom reads the canonical encoding.
func (c *Sealed) DecodeFrom(d *codec.Decoder) {
	c.Decision.DecodeFrom(d)
	c.Seals = codec.DecodeList[Seal](d, MaxSeals)
}

// Reasons why seals do not count.
var (
	ErrNoSeal = errors.New("certificate: a signer has no seat in the committee")
	ErrSeal   = errors.New("certificate: the proof of a signer's seats is not valid")
	ErrFew    = errors.New("certificate has not more than half of the committee's seats")
)

// Committee is who may sign decisions of a layer, as one electorate has it.
type Committee struct {
	Params Params
	Layer  types.Layer
	Beacon types.Beacon
	Electorate
	// Signed tells whether a signature under the decision is valid, Proved whether a
	// smesher's random value for a message is (signing.VerifyVRF).
	Signed func(types.CertifySignature) bool
	Proved func(types.NodeID, []byte, types.VRFSignature) bool
}

// Seats returns how many seats a seal has, without looking at its signatures.
func (v Committee) Seats(s *Seal) (uint32, error) {
	weight, ok := v.Weight(s.ATX, s.Smesher)
	if !ok {
		return 0, ErrStranger
	}
	seats := eligibility.Seats(v.Params.Certifiers, weight, v.Total(), s.Proof)
	if seats == 0 {
		return 0, ErrNoSeal
	}
	return seats, nil
}

// Verify checks all of a message or, if it has to be enough, of a certificate.
func (v Committee) Verify(c *Sealed, enough bool) error {
	var sum uint32
	for i := range c.Seals {
		if i > 0 && slices.Compare(c.Seals[i-1].Smesher[:], c.Seals[i].Smesher[:]) >= 0 {
			return ErrSigners
		}
		seats, err := v.Seats(&c.Seals[i])
		if err != nil {
			return err
		}
		sum += seats
	}
	if enough && !v.Params.certifies(sum) {
		return ErrFew
	}
	msg := eligibility.CommitteeMessage(v.Beacon, v.Layer, CertifyRound)
	for _, s := range c.Seals {
		if !v.Signed(s.CertifySignature) {
			return ErrSignature
		}
		if !v.Proved(s.Smesher, msg, s.Proof) {
			return ErrSeal
		}
	}
	return nil
}

// certifies tells whether seats are more than half of the committee.
func (p Params) certifies(seats uint32) bool { return seats >= p.Certifiers/2+1 }

// Tally collects the seals of a layer until those under one decision are enough. It
// holds one seal of a smesher, so no more than a committee has.
type Tally struct {
	p     Params
	first map[types.NodeID]types.Decision
	under map[types.Decision]*sealed
	done  bool
}

type sealed struct {
	seats uint32
	seals []Seal
}

// NewTally returns the tally of a layer.
func NewTally(p Params) *Tally {
	return &Tally{p: p, first: make(map[types.NodeID]types.Decision), under: make(map[types.Decision]*sealed)}
}

// Add counts a seal that is valid, for so many seats. It returns the certificate that the
// seal completes, once. ErrEquivocation says that the smesher sealed another decision
// before, which counts: Signed has it.
func (t *Tally) Add(d types.Decision, s Seal, seats uint32) (*Sealed, error) {
	if before, ok := t.first[s.Smesher]; ok {
		if before != d {
			return nil, ErrEquivocation
		}
		return nil, ErrKnown
	}
	if len(t.first) >= MaxSeals {
		return nil, ErrFull
	}
	t.first[s.Smesher] = d
	u := t.under[d]
	if u == nil {
		u = &sealed{}
		t.under[d] = u
	}
	u.seats += seats
	u.seals = append(u.seals, s)
	if t.done || !t.p.certifies(u.seats) {
		return nil, nil
	}
	t.done = true
	out := &Sealed{Decision: d, Seals: slices.Clone(u.seals)}
	slices.SortFunc(out.Seals, func(a, b Seal) int { return slices.Compare(a.Smesher[:], b.Smesher[:]) })
	return out, nil
}

// Signed returns what a smesher sealed first.
func (t *Tally) Signed(smesher types.NodeID) (types.CertifyMessage, bool) {
	d, ok := t.first[smesher]
	if !ok {
		return types.CertifyMessage{}, false
	}
	for _, s := range t.under[d].seals {
		if s.Smesher == smesher {
			return types.CertifyMessage{Decision: d, By: s.CertifySignature}, true
		}
	}
	panic("hare: a seal is counted that is not there")
}
