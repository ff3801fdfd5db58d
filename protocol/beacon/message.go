package beacon

import (
	"bytes"
	"errors"

	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// MaxMessageSize is the longest encoding of a message, in bytes.
const MaxMessageSize = 1 + 5 + 32 + 1 + 2 + 4*MaxProposals + 5 + 9 + 80 + 64

// Kind tells what a message is.
type Kind uint8

// The kinds.
const (
	Propose Kind = 1 + iota // a random value; its proof is its signature
	Vote                    // which proposals the smesher is for
	Toss                    // a random value, the coin, and what its smesher is for if it is the lowest
)

// Message is all that is said for the beacon of an epoch.
type Message struct {
	Kind      Kind
	Target    types.Epoch // whose beacon it is
	Smesher   types.NodeID
	Round     uint8              // not of Propose; 0 has the first votes
	Unit      uint32             // Toss: which of the smesher's units
	Yes       []Value            // not of Propose; ascending
	Nonce     uint64             // not of Vote; of the smesher's ATX, so that whoever gets it can check the proof
	Proof     types.VRFSignature // not of Vote
	Signature types.Signature    // not of Propose
}

// EncodeTo appends the canonical encoding.
func (m *Message) EncodeTo(e *codec.Encoder) {
	m.body(e)
	if m.Kind != Propose {
		e.Raw(m.Signature[:])
	}
}

func (m *Message) body(e *codec.Encoder) {
	e.U8(uint8(m.Kind))
	e.Compact(uint64(m.Target))
	e.Raw(m.Smesher[:])
	if m.Kind != Propose {
		e.U8(m.Round)
		encodeValues(e, m.Yes)
	}
	if m.Kind == Toss {
		e.Compact(uint64(m.Unit))
	}
	if m.Kind != Vote {
		e.Compact(m.Nonce)
		e.Raw(m.Proof[:])
	}
}

// DecodeFrom reads the canonical encoding.
func (m *Message) DecodeFrom(d *codec.Decoder) {
	m.Kind = Kind(d.U8())
	m.Target = types.Epoch(d.Compact32())
	d.Raw(m.Smesher[:])
	if m.Kind != Propose {
		m.Round = d.U8()
		m.Yes = decodeValues(d, MaxProposals)
	}
	if m.Kind == Toss {
		m.Unit = d.Compact32()
	}
	if m.Kind != Vote {
		m.Nonce = d.Compact()
		d.Raw(m.Proof[:])
	}
	if m.Kind < Propose || m.Kind > Toss || m.Round > MaxRounds {
		d.Fail(codec.ErrRange)
		return
	}
	if m.Kind != Propose {
		d.Raw(m.Signature[:])
	}
}

func encodeValues(e *codec.Encoder, list []Value) {
	e.Compact(uint64(len(list)))
	for i := range list {
		e.Raw(list[i][:])
	}
}

func decodeValues(d *codec.Decoder, limit int) []Value {
	n := d.Count(limit)
	if d.Err() != nil || n == 0 {
		return nil
	}
	out := make([]Value, n)
	for i := range out {
		d.Raw(out[i][:])
	}
	return out
}

// SignedBytes is what the signature covers.
func (m *Message) SignedBytes() []byte {
	e := codec.NewEncoder(64)
	m.body(e)
	return e.Bytes()
}

// Domain is that of the signature.
func (m *Message) Domain() signing.Domain {
	if m.Round == 0 && m.Kind == Vote {
		return signing.BeaconFirst
	}
	return signing.BeaconFollowup
}

// Verifier checks signatures and random values (package signing).
type Verifier interface {
	Verify(d signing.Domain, id types.NodeID, msg []byte, sig types.Signature) bool
	VerifyVRF(id types.NodeID, msg []byte, sig types.VRFSignature) bool
}

// Errors of Check.
var (
	ErrOrder     = errors.New("beacon vote: proposals are not in strictly ascending order")
	ErrSignature = errors.New("beacon vote: the smesher did not sign that")
	ErrProof     = errors.New("beacon message: the random value is not its smesher's")
)

// Check verifies what needs nothing but the message.
func (m *Message) Check(v Verifier) error {
	for i := 1; i < len(m.Yes); i++ {
		if bytes.Compare(m.Yes[i-1][:], m.Yes[i][:]) >= 0 {
			return ErrOrder
		}
	}
	if m.Kind != Propose && !v.Verify(m.Domain(), m.Smesher, m.SignedBytes(), m.Signature) {
		return ErrSignature
	}
	if m.Kind != Vote && !v.VerifyVRF(m.Smesher, m.Input(), m.Proof) {
		return ErrProof
	}
	return nil
}

// Input is what the random value is made over.
func (m *Message) Input() []byte {
	if m.Kind == Propose {
		return proposalInput(m.Target, m.Nonce)
	}
	return coinInput(m.Target, m.Nonce, m.Round, m.Unit)
}

// proposalInput is what the random value of a proposal is made over.
func proposalInput(target types.Epoch, nonce uint64) []byte {
	e := codec.NewEncoder(24)
	e.Compact(kindBeacon)
	e.Compact(nonce)
	e.Compact(uint64(target))
	return e.Bytes()
}

// coinInput is what a coin's random value is made over.
func coinInput(target types.Epoch, nonce uint64, round uint8, unit uint32) []byte {
	e := codec.NewEncoder(32)
	e.Compact(kindCoin)
	e.Compact(nonce)
	e.Compact(uint64(target))
	e.Compact(uint64(round))
	e.Compact(uint64(unit))
	return e.Bytes()
}
