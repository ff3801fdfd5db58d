// Package types holds the values of the protocol: identities, time, ATXs,
// ballots, proposals, blocks, transactions and PoET proofs, with their
// canonical encodings and their ids.
//
// It promises: values are plain data; decoding enforces every limit that is
// named here; an id is a pure function of the value it names. Nothing is
// cached inside a value, so a value may be copied and compared freely.
//
// It leaves to the caller: whether a value is valid. Decoding checks form,
// never meaning; signatures are checked with package signing, rules live in
// the protocol packages.
package types

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"

	"tweedle/values/codec"
)

// Hash32 is a BLAKE3-256 digest, or another 32-byte value of that standing.
type Hash32 [32]byte

// NodeID names a smesher: its ed25519 public key.
type NodeID [32]byte

// ATXID names an ATX: the Merkle root over its fields.
type ATXID [32]byte

// BallotID names a ballot: the first bytes of its hash.
type BallotID [20]byte

// ProposalID names a proposal: the first bytes of its hash.
type ProposalID [20]byte

// BlockID names a block: the first bytes of its hash.
type BlockID [20]byte

// TransactionID names a transaction: the hash of its raw bytes.
type TransactionID [32]byte

// PoetProofRef names a PoET proof: the hash of its encoding. It is also the
// challenge of the PoST that an ATX carries beside the proof.
type PoetProofRef [32]byte

// GenesisID names a network: the first bytes of its golden ATX id.
type GenesisID [20]byte

// Beacon is the randomness of an epoch.
type Beacon [4]byte

// Signature is an ed25519 signature.
type Signature [64]byte

// VRFSignature is an ECVRF proof. Its first 32 bytes are the value, which its
// maker cannot choose; the others prove it, and their maker has many.
type VRFSignature [80]byte

// EmptyBlock is the id that stands for "no block in this layer".
var EmptyBlock BlockID

// shortSum is up to how many bytes Sum gathers the parts first.
const shortSum = 512

// Sum returns the BLAKE3-256 digest of the concatenated parts.
func Sum(parts ...[]byte) Hash32 {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if size <= shortSum { // a Hasher has kilobytes to clear
		buf := make([]byte, 0, shortSum)
		for _, p := range parts {
			buf = append(buf, p...)
		}
		return blake3.Sum256(buf)
	}
	h := blake3.New()
	for _, p := range parts {
		_, _ = h.Write(p) // a hash never fails to write
	}
	var out Hash32
	h.Sum(out[:0])
	return out
}

// short keeps identifiers readable in a line of text; they are told apart by
// their beginning.
func short(b []byte) string { return hex.EncodeToString(b[:5]) }

func (h Hash32) String() string         { return hex.EncodeToString(h[:]) }
func (id NodeID) String() string        { return hex.EncodeToString(id[:]) }
func (id ATXID) String() string         { return hex.EncodeToString(id[:]) }
func (id BallotID) String() string      { return hex.EncodeToString(id[:]) }
func (id ProposalID) String() string    { return hex.EncodeToString(id[:]) }
func (id BlockID) String() string       { return hex.EncodeToString(id[:]) }
func (id TransactionID) String() string { return hex.EncodeToString(id[:]) }
func (id PoetProofRef) String() string  { return hex.EncodeToString(id[:]) }
func (id GenesisID) String() string     { return hex.EncodeToString(id[:]) }
func (b Beacon) String() string         { return hex.EncodeToString(b[:]) }

// Short returns the beginning of the id, for log lines.
func (h Hash32) Short() string { return short(h[:]) }

// Short returns the beginning of the id, for log lines.
func (id NodeID) Short() string { return short(id[:]) }

// Short returns the beginning of the id, for log lines.
func (id ATXID) Short() string { return short(id[:]) }

// Short returns the beginning of the id, for log lines.
func (id BlockID) Short() string { return short(id[:]) }

// Short returns the beginning of the id, for log lines.
func (id TransactionID) Short() string { return short(id[:]) }

// Short returns the beginning of the id, for log lines.
func (id PoetProofRef) Short() string { return short(id[:]) }

// IsZero tells whether the id is absent.
func (id ATXID) IsZero() bool { return id == ATXID{} }

// ParseHex32 reads 64 hexadecimal digits, with or without a leading 0x.
func ParseHex32(s string) ([32]byte, error) {
	var out [32]byte
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil || len(b) != len(out) {
		return out, fmt.Errorf("%q is not 64 hexadecimal digits", s)
	}
	copy(out[:], b)
	return out, nil
}

// encodeIDs and decodeIDs are for lists of names of 32 bytes.
func encodeIDs[T ~[32]byte](e *codec.Encoder, ids []T) {
	e.Compact(uint64(len(ids)))
	for i := range ids {
		b := [32]byte(ids[i])
		e.Raw(b[:])
	}
}

func decodeIDs[T ~[32]byte](d *codec.Decoder, limit int) []T {
	n := d.Count(limit)
	if d.Remaining() < n*32 {
		d.Fail(codec.ErrShort)
		return nil
	}
	if n == 0 {
		return nil
	}
	ids := make([]T, n)
	for i := range ids {
		var b [32]byte
		d.Raw(b[:])
		ids[i] = T(b)
	}
	return ids
}
