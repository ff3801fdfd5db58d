// Package registration has the rules by which a PoET accepts a member: shape,
// signature, proof of work, certificate (reference/poet.md 1.7).
//
// It promises: every check is a pure function of its arguments, its cost is
// bounded by the limits named here, and a PoW challenge that is empty or not
// the server's own is never accepted. It leaves to the caller what depends on
// the state of a round: duplicates, the deadline, the number of members.
package registration

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Limits of a registration, in bytes.
const (
	ChallengeSize      = 32
	MaxPrefix          = 256
	MaxPowChallenge    = 64
	MaxCertificateData = 128
	HintSize           = 4
)

// PowParams are the parameters of a registration's proof of work. Difficulty is
// in leading zero bits.
type PowParams struct {
	Challenge  []byte
	Difficulty uint
}

// Equal tells whether they are the same.
func (p PowParams) Equal(q PowParams) bool {
	return p.Difficulty == q.Difficulty && bytes.Equal(p.Challenge, q.Challenge)
}

// Certificate is a certifier's word for a member, with its signature.
type Certificate struct {
	Data      []byte
	Signature []byte
}

// Request is a registration as it arrives.
type Request struct {
	NodeID    []byte // public key
	Challenge []byte
	Prefix    []byte // of what is signed
	Signature []byte // of prefix || challenge
	// Nonce solves the proof of work with the parameters Pow.
	Nonce uint64
	Pow   PowParams
	// Certificate, if not nil, replaces the proof of work where the server has
	// a certifier. Hint is empty, or the beginning of the certifier's key.
	Certificate *Certificate
	Hint        []byte
	// Deadline, if not zero, is when the round must have ended.
	Deadline time.Time
}

// CheckShape checks all lengths.
func (r *Request) CheckShape() error {
	switch {
	case len(r.NodeID) != ed25519.PublicKeySize:
		return fmt.Errorf("public key has %d bytes, must have %d", len(r.NodeID), ed25519.PublicKeySize)
	case len(r.Challenge) != ChallengeSize:
		return fmt.Errorf("challenge has %d bytes, must have %d", len(r.Challenge), ChallengeSize)
	case len(r.Signature) != ed25519.SignatureSize:
		return fmt.Errorf("signature has %d bytes, must have %d", len(r.Signature), ed25519.SignatureSize)
	case len(r.Prefix) > MaxPrefix:
		return fmt.Errorf("prefix has %d bytes, must have at most %d", len(r.Prefix), MaxPrefix)
	case len(r.Pow.Challenge) > MaxPowChallenge:
		return fmt.Errorf("challenge of the proof of work has %d bytes, must have at most %d", len(r.Pow.Challenge), MaxPowChallenge)
	case len(r.Hint) != 0 && len(r.Hint) != HintSize:
		return fmt.Errorf("certifier hint has %d bytes, must have %d", len(r.Hint), HintSize)
	case r.Certificate == nil:
		return nil
	case len(r.Certificate.Data) > MaxCertificateData:
		return fmt.Errorf("certificate has %d bytes, must have at most %d", len(r.Certificate.Data), MaxCertificateData)
	case len(r.Certificate.Signature) != ed25519.SignatureSize:
		return fmt.Errorf("certificate's signature has %d bytes, must have %d", len(r.Certificate.Signature), ed25519.SignatureSize)
	}
	return nil
}

// CheckSignature checks that the member signed its challenge. The shape must
// have been checked.
func (r *Request) CheckSignature() error {
	if !signing.VerifyPrefixed(r.Prefix, types.NodeID(r.NodeID), r.Challenge, types.Signature(r.Signature)) {
		return errors.New("signature of the challenge is wrong")
	}
	return nil
}

// CheckPow checks the proof of work: it must be about one of the server's challenges
// and of the difficulty that the server asks for now (reference/poet.md 1.7). A
// challenge must never be empty, or work could be done in advance for ever; empty
// ones among the server's stand for none.
func (r *Request) CheckPow(difficulty uint, challenges ...[]byte) error {
	known := slices.ContainsFunc(challenges, func(c []byte) bool { return bytes.Equal(c, r.Pow.Challenge) })
	if len(r.Pow.Challenge) == 0 || !known || r.Pow.Difficulty != difficulty {
		return errors.New("parameters of the proof of work are not the server's: ask for them again")
	}
	hash := PowHash(r.Pow.Challenge, r.NodeID, r.Challenge, r.Nonce)
	if zeros := leadingZeros(hash[:]); zeros < r.Pow.Difficulty {
		return fmt.Errorf("proof of work has %d leading zero bits, needs %d", zeros, r.Pow.Difficulty)
	}
	return nil
}

// PowHash is the hash of a registration's proof of work.
func PowHash(powChallenge, nodeID, challenge []byte, nonce uint64) [32]byte {
	msg := make([]byte, 0, len(powChallenge)+len(nodeID)+len(challenge)+8)
	msg = append(msg, powChallenge...)
	msg = append(msg, nodeID...)
	msg = append(msg, challenge...)
	return ripemd256(binary.LittleEndian.AppendUint64(msg, nonce))
}

// SolvePow returns the lowest nonce that solves a proof of work, or false if
// none of the first tries does. It is for clients; the work doubles with each
// bit of difficulty.
func SolvePow(p PowParams, nodeID, challenge []byte, tries uint64) (nonce uint64, ok bool) {
	return SolvePowWhile(p, nodeID, challenge, func(tried uint64) bool { return tried < tries })
}

// SolvePowWhile is SolvePow for as long as more says so, which is told how many
// nonces were tried.
func SolvePowWhile(p PowParams, nodeID, challenge []byte, more func(tried uint64) bool) (nonce uint64, ok bool) {
	for ; more(nonce); nonce++ {
		hash := PowHash(p.Challenge, nodeID, challenge, nonce)
		if leadingZeros(hash[:]) >= p.Difficulty {
			return nonce, true
		}
	}
	return 0, false
}

func leadingZeros(b []byte) uint {
	var n uint
	for _, x := range b {
		n += uint(bits.LeadingZeros8(x))
		if x != 0 {
			break
		}
	}
	return n
}

// CheckCertificate checks that one of the keys certified the member, and that
// the certificate has not expired at now.
func (r *Request) CheckCertificate(keys []ed25519.PublicKey, now time.Time) error {
	if r.Certificate == nil {
		return errors.New("certificate is missing")
	}
	var data certificateData
	if err := codec.Decode(r.Certificate.Data, &data); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if !bytes.Equal(data.nodeID, r.NodeID) {
		return errors.New("certificate is for another public key")
	}
	if data.expires && uint64(max(0, now.Unix())) >= data.expiry {
		return errors.New("certificate has expired")
	}
	for _, key := range keys {
		if ed25519.Verify(key, r.Certificate.Data, r.Certificate.Signature) {
			return nil
		}
	}
	return errors.New("certificate is not signed by a trusted key")
}

// EncodeCertificate returns the data that a certifier signs. A zero expiry means
// that it never expires.
func EncodeCertificate(nodeID []byte, expiry time.Time) []byte {
	return codec.Encode(&certificateData{nodeID, !expiry.IsZero(), uint64(max(0, expiry.Unix()))})
}

type certificateData struct {
	nodeID  []byte
	expires bool
	expiry  uint64 // unix seconds
}

func (c *certificateData) EncodeTo(e *codec.Encoder) {
	e.ByteSlice(c.nodeID)
	e.Option(c.expires)
	if c.expires {
		e.Compact(c.expiry)
	}
}

func (c *certificateData) DecodeFrom(d *codec.Decoder) {
	c.nodeID = d.ByteSlice(ed25519.PublicKeySize)
	if c.expires = d.Option(); c.expires {
		c.expiry = d.Compact()
	}
}
