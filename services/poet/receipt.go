package poet

import (
	"crypto/ed25519"
	"encoding/binary"

	"tweedle/values/types"
)

// receiptPrefix begins everything that a receipt's signature is over, so that it
// can stand for nothing else.
const receiptPrefix = "tweedle poet receipt 1\x00"

// message returns what the receipt's signature is over: prefix, length of the
// round's name in one byte, round, public key, challenge, unix milliseconds as
// eight bytes, big endian.
func (r *Receipt) message() []byte {
	b := append([]byte(receiptPrefix), byte(len(r.Round)))
	b = append(b, r.Round...)
	b = append(b, r.NodeID[:]...)
	b = append(b, r.Challenge[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(r.Time.UnixMilli()))
}

// Verify tells whether the PoET that the receipt names has signed it.
func (r *Receipt) Verify() bool {
	return len(r.Round) <= types.MaxPoetRoundID &&
		ed25519.Verify(r.PoetID[:], r.message(), r.Signature[:])
}

// Sign names the key's owner as the PoET and signs for it.
func (r *Receipt) Sign(key ed25519.PrivateKey) {
	r.PoetID = types.NodeID(key.Public().(ed25519.PublicKey))
	r.Signature = types.Signature(ed25519.Sign(key, r.message()))
}
