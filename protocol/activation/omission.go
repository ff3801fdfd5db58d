package activation

import (
	"errors"
	"fmt"
	"slices"

	"tweedle/proofs/posw"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// MaxOmissionMembers bounds the members of a round in evidence.
const MaxOmissionMembers = 1 << 21

// Omission is evidence that a PoET signed for a registration and left it out: its
// receipt, and the round's proof with the members that it covers.
//
// A PoET does not sign its proofs. So whoever judges also makes sure that the proof
// is the one which the PoET published for the round: its reference is what nodes
// know, and ATXs rest on it.
type Omission struct {
	Receipt types.PoetReceipt
	Proof   types.PoetProofMessage
	Members []types.Hash32 // in the order of the membership tree
}

// Verify returns nil if the evidence holds, else what is wrong with it. It costs as
// much as a proof's verification, a hundredth of a second.
func (o *Omission) Verify() error {
	return o.VerifyBy(func(m *types.PoetProofMessage) error {
		statement := m.Statement[:]
		if len(o.Members) == 0 {
			statement = nil // reference/poet.md 1.1
		}
		return posw.Verify(statement, &m.Proof, 1)
	})
}

// VerifyBy is Verify with somebody else to check the round's work.
func (o *Omission) VerifyBy(work func(*types.PoetProofMessage) error) error {
	switch {
	case !o.Receipt.Verify():
		return errors.New("the receipt is not signed by the PoET that it names")
	case o.Receipt.PoetID != o.Proof.PoetID:
		return fmt.Errorf("the receipt is of PoET %s, the proof names %s", o.Receipt.PoetID, o.Proof.PoetID)
	case o.Receipt.Round != o.Proof.RoundID:
		return fmt.Errorf("the receipt is of round %s, the proof of round %s", o.Receipt.Round, o.Proof.RoundID)
	case slices.Contains(o.Members, o.Receipt.Challenge):
		return errors.New("the challenge is among the members: nothing was omitted")
	}
	members := make([][32]byte, len(o.Members))
	for i, m := range o.Members {
		members[i] = m
	}
	if merkle.Root(members) != o.Proof.Statement {
		return errors.New("the members are not those that the proof covers")
	}
	if err := work(&o.Proof); err != nil {
		return fmt.Errorf("the round's proof is wrong: %w", err)
	}
	return nil
}

// EncodeTo appends the encoding: the fields in their order.
func (o *Omission) EncodeTo(e *codec.Encoder) {
	o.Receipt.EncodeTo(e)
	o.Proof.EncodeTo(e)
	e.Compact(uint64(len(o.Members)))
	for i := range o.Members {
		e.Raw(o.Members[i][:])
	}
}

// DecodeFrom reads the encoding.
func (o *Omission) DecodeFrom(d *codec.Decoder) {
	o.Receipt.DecodeFrom(d)
	o.Proof.DecodeFrom(d)
	n := d.Count(MaxOmissionMembers)
	if d.Remaining() < n*32 {
		d.Fail(codec.ErrShort)
		return
	}
	o.Members = make([]types.Hash32, n)
	for i := range o.Members {
		d.Raw(o.Members[i][:])
	}
}
