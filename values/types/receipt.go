package types

import (
	"crypto/ed25519"
	"encoding/binary"
	"time"

	"tweedle/values/codec"
)

// PoetReceipt is a PoET's signed word that a registration is in a round.
type PoetReceipt struct {
	Round     string
	NodeID    NodeID
	Challenge Hash32
	// Time is when the registration was stored, in whole milliseconds. A
	// repeated registration gets the receipt of the first.
	Time      time.Time
	PoetID    NodeID
	Signature Signature
}

// receiptPrefix begins everything that a receipt's signature is over, so that it
// can stand for nothing else.
const receiptPrefix = "tweedle poet receipt 1\x00"

// message returns what the receipt's signature is over: prefix, length of the
// round's name in one byte, round, public key, challenge, unix milliseconds as
// eight bytes, big endian.
func (r *PoetReceipt) message() []byte {
	b := append([]byte(receiptPrefix), byte(len(r.Round)))
	b = append(b, r.Round...)
	b = append(b, r.NodeID[:]...)
	b = append(b, r.Challenge[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(r.Time.UnixMilli()))
}

// Verify tells whether the PoET that the receipt names has signed it.
func (r *PoetReceipt) Verify() bool {
	return len(r.Round) <= MaxPoetRoundID && ed25519.Verify(r.PoetID[:], r.message(), r.Signature[:])
}

// Sign names the key's owner as the PoET and signs for it.
func (r *PoetReceipt) Sign(key ed25519.PrivateKey) {
	r.PoetID = NodeID(key.Public().(ed25519.PublicKey))
	r.Signature = Signature(ed25519.Sign(key, r.message()))
}

// EncodeTo appends the encoding: the fields in their order, the time as compact
// unix milliseconds.
func (r *PoetReceipt) EncodeTo(e *codec.Encoder) {
	e.String(r.Round)
	e.Raw(r.NodeID[:])
	e.Raw(r.Challenge[:])
	e.Compact(uint64(r.Time.UnixMilli()))
	e.Raw(r.PoetID[:])
	e.Raw(r.Signature[:])
}

// DecodeFrom reads the encoding.
func (r *PoetReceipt) DecodeFrom(d *codec.Decoder) {
	r.Round = d.String(MaxPoetRoundID)
	d.Raw(r.NodeID[:])
	d.Raw(r.Challenge[:])
	r.Time = time.UnixMilli(int64(d.Compact()))
	d.Raw(r.PoetID[:])
	d.Raw(r.Signature[:])
}
