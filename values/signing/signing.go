// Package signing signs and verifies with the identities of smeshers:
// ed25519 signatures under a domain of the network, and verifiable random
// functions over the same key.
//
// It promises: a signature made for one network or one kind of message never
// verifies for another; an identity has one random value for a message. It leaves to the caller the keeping of keys, and the
// order of things: whatever is signed must be durable before it is sent.
package signing

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519/extra/ecvrf"

	"tweedle/values/types"
)

// Domain separates the kinds of messages an identity signs
// (reference/protocol.md A2).
type Domain byte

// The domains. Values up to BeaconFollowup are the published ones; Certify is
// ours, for decisions that carry a state root.
const (
	ATX            Domain = 0
	Proposal       Domain = 1
	Ballot         Domain = 2
	Hare           Domain = 3
	Poet           Domain = 4
	Marriage       Domain = 5
	BeaconFirst    Domain = 10
	BeaconFollowup Domain = 11
	Certify        Domain = 32
)

// MinTransactionBody is the least length of what SignTransaction signs, in
// bytes. What all wallets sign has no domain (reference/protocol.md A11); its
// first byte is the transaction's version, 0, which is also the domain ATX. An
// ATX signs 33 bytes in this place, so more than that cannot be one.
const MinTransactionBody = 1 + len(types.ATXID{}) + 1

// SeedSize is the length of a secret seed in bytes.
const SeedSize = ed25519.SeedSize

// message is what is really signed: network prefix, domain, message.
func message(network types.GenesisID, d Domain, msg []byte) []byte {
	out := make([]byte, 0, len(network)+1+len(msg))
	out = append(out, network[:]...)
	out = append(out, byte(d))
	return append(out, msg...)
}

// Signer holds an identity's secret key for one network.
type Signer struct {
	key     ed25519.PrivateKey
	network types.GenesisID
}

// NewSigner derives an identity from SeedSize secret bytes.
func NewSigner(seed []byte, network types.GenesisID) (*Signer, error) {
	if len(seed) != SeedSize {
		return nil, fmt.Errorf("identity seed has %d bytes, not %d", len(seed), SeedSize)
	}
	return &Signer{key: ed25519.NewKeyFromSeed(seed), network: network}, nil
}

// NodeID returns the public name of the identity.
func (s *Signer) NodeID() types.NodeID { return types.NodeID(s.key[SeedSize:]) }

// Sign returns the signature of msg in a domain.
func (s *Signer) Sign(d Domain, msg []byte) types.Signature {
	return types.Signature(ed25519.Sign(s.key, message(s.network, d, msg)))
}

// SignTransaction signs a transaction's body for the network. It panics on a
// body of less than MinTransactionBody bytes.
func (s *Signer) SignTransaction(body []byte) types.Signature {
	if len(body) < MinTransactionBody {
		panic(fmt.Sprintf("signing: %d bytes are no transaction", len(body)))
	}
	return types.Signature(ed25519.Sign(s.key, append(s.network[:len(s.network):len(s.network)], body...)))
}

// SignPrefixed signs prefix || msg without domain: the registration signature
// of PoETs, whose prefix is the server's setting (reference/poet.md 1.7).
func (s *Signer) SignPrefixed(prefix, msg []byte) types.Signature {
	return types.Signature(ed25519.Sign(s.key, append(append([]byte{}, prefix...), msg...)))
}

// VRF returns the identity's verifiable random value for msg.
func (s *Signer) VRF(msg []byte) types.VRFSignature {
	return types.VRFSignature(ecvrf.Prove(s.key, msg))
}

// Verifier checks signatures of one network.
type Verifier struct{ network types.GenesisID }

// NewVerifier returns a verifier for a network.
func NewVerifier(network types.GenesisID) Verifier { return Verifier{network} }

// Verify tells whether id signed msg in the domain.
func (v Verifier) Verify(d Domain, id types.NodeID, msg []byte, sig types.Signature) bool {
	return ed25519.Verify(id[:], message(v.network, d, msg), sig[:])
}

// VerifyTransaction tells whether key signed a transaction's body.
func (v Verifier) VerifyTransaction(key [32]byte, body []byte, sig types.Signature) bool {
	return len(body) >= MinTransactionBody && ed25519.Verify(key[:], append(v.network[:len(v.network):len(v.network)], body...), sig[:])
}

// VerifyPrefixed tells whether id signed prefix || msg.
func VerifyPrefixed(prefix []byte, id types.NodeID, msg []byte, sig types.Signature) bool {
	return ed25519.Verify(id[:], append(append([]byte{}, prefix...), msg...), sig[:])
}

// VerifyVRF tells whether sig proves id's random value for msg. There is one
// value: of the eight points that the equations hold for, seven differ from the
// honest one by a point of small order, and are refused.
func VerifyVRF(id types.NodeID, msg []byte, sig types.VRFSignature) bool {
	if ok, _ := ecvrf.Verify(id[:], sig[:], msg); !ok {
		return false
	}
	var c curve.CompressedEdwardsY
	var gamma curve.EdwardsPoint
	copy(c[:], sig[:])
	_, err := gamma.SetCompressedY(&c)
	return err == nil && gamma.IsTorsionFree()
}

// errKeyFile does not repeat the content: it may be a secret.
var errKeyFile = errors.New("key file does not hold 64 hexadecimal digits: restore it from a backup")

// ReadSeed reads the hexadecimal seed of a key file.
func ReadSeed(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, 256))
	if err != nil {
		return nil, err
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(seed) != SeedSize {
		return nil, errKeyFile
	}
	return seed, nil
}

// SeedFrom derives a seed from text, for test networks whose accounts must be
// known before they start. Never use it where the funds have value.
func SeedFrom(text string) []byte {
	sum := sha512.Sum512_256([]byte("tweedle test seed " + text))
	return sum[:]
}
