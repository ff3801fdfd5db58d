package hare

import (
	"errors"
	"slices"

	"tweedle/protocol/eligibility"
	"tweedle/values/types"
)

// Certify stands for the committee that certifies where the others have their round; what its
// random values are made over has another number (reference/protocol.md A9).
const (
	Certify       Round = 255
	certifyNumber       = 1<<31 - 1
)

// Reasons why a certificate is not valid.
var (
	ErrSigners  = errors.New("certificate's signers are not in strictly ascending order")
	ErrStranger = errors.New("certificate is signed by somebody without weight in its epoch")
	ErrNoSeat   = errors.New("certificate: a signer has no seat in the committee")
	ErrFew      = errors.New("certificate has not more than half of the committee's seats")
)

// Electorate tells who may sign in the epoch of a certificate.
type Electorate interface {
	// Weight returns the weight that an ATX gives to its smesher in the
	// epoch, false when it gives none.
	Weight(atx types.ATXID, smesher types.NodeID) (uint64, bool)
	// Total returns the weight of all.
	Total() uint64
}

// CertifyInput is what the random value of a smesher is made over, that gives it seats
// among those who sign a decision: the beacon is the one that the decision names.
func CertifyInput(d *types.Decision) []byte {
	return Draw{Layer: d.Layer, Beacon: d.Beacon}.Input(Certify)
}

// CertifySeats returns how many seats a signature has in the committee of its layer, as an
// electorate has it. That the signature and its random value are valid is left to the caller.
func (p Params) CertifySeats(s *types.CertifySignature, e Electorate) (uint32, error) {
	weight, ok := e.Weight(s.ATX, s.Smesher)
	if !ok {
		return 0, ErrStranger
	}
	seats := eligibility.Seats(p.Committee, weight, e.Total(), s.Proof)
	if seats == 0 {
		return 0, ErrNoSeat
	}
	return seats, nil
}

// Certifies returns why a certificate, whose signatures and random values are valid, is
// not enough to say what a layer came to; nil if it is.
func (p Params) Certifies(c *types.Certificate, e Electorate) error {
	var sum uint32
	for i := range c.Signatures {
		if i > 0 && slices.Compare(c.Signatures[i-1].Smesher[:], c.Signatures[i].Smesher[:]) >= 0 {
			return ErrSigners
		}
		seats, err := p.CertifySeats(&c.Signatures[i], e)
		if err != nil {
			return err
		}
		sum += seats
	}
	if sum < p.threshold() {
		return ErrFew
	}
	return nil
}
