// Package post is proof of space-time: a smesher fills disk space with labels
// that are expensive to compute (Init), later shows for a given challenge that
// it still keeps them (Data.Prove), and anybody checks that by recomputing a
// handful of them (Verify).
//
// The package promises labels, files and proofs that are byte-exact with
// post-rs (reference/post.md 1.2). Verify is stricter than post-rs in ways
// that an honest proof always meets: indices are distinct and inside the
// space, padding bits are zero, the length is exact, and the proof of work
// counter stays below MaxPowNonce. Nothing here deletes or shortens a file.
// The result of Prove depends on the data, the challenge and Nonces only,
// never on the number of workers.
//
// It leaves to the caller: that one process at a time writes a directory, that
// the same Params are used by everybody on a network, the clock (progress
// carries counts, the caller knows the time), and what to do about a damaged
// file once it is named.
package post

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/zeebo/blake3"
)

const (
	// LabelSize is how many bytes of a label are stored.
	LabelSize = 16
	// MaxNonces bounds a proof's nonce: a nonce's group must fit one byte.
	MaxNonces = 256 * nonceGroupSize
	// MaxPowNonce bounds a proof's Pow. The proof of work hashes 7 bytes of
	// the counter but the ciphers are keyed with 8, so without this bound one
	// solved proof of work would buy 256 different keys.
	MaxPowNonce = 1 << 56
	// MaxIndicesSize is the wire limit of Proof.Indices, in bytes
	// (reference/post.md 1.2).
	MaxIndicesSize = 800
	// MaxScryptN is the largest supported cost, 128 MiB of scratch.
	MaxScryptN = 1 << 20

	// nonceGroupSize nonces share one AES key, one byte of its output each.
	nonceGroupSize = 16
)

// ErrCancelled is returned by Init and Data.Prove when their Cancel option
// says so. Whatever Init had made durable is kept.
var ErrCancelled = errors.New("post: cancelled")

// Params are the rules of one network. Everybody on it must use the same.
type Params struct {
	LabelsPerUnit uint64 // labels in one unit of space
	MinUnits      uint32 // fewest units of an identity
	MaxUnits      uint32 // most units of an identity

	// K1 is the number of labels expected to pass for one nonce.
	K1 uint32
	// K2 is the number of passing labels in a proof.
	K2 uint32
	// K3 is the number of indices that Subset checks, at most K2.
	K3 uint32

	// ScryptN is the cost of a label, a power of two; r and p are 1. A label
	// needs 128*ScryptN bytes of scratch.
	ScryptN uint32

	// PowDifficulty, big endian, divided by the number of units is what the
	// proof of work of a nonce group must stay below.
	PowDifficulty [32]byte
	// PoW is the hash of that proof of work.
	PoW PoW
}

// TestParams returns parameters for tests and simulators: milliseconds to
// initialise.
func TestParams() Params {
	p := Params{
		LabelsPerUnit: 128, MinUnits: 2, MaxUnits: 4,
		K1: 12, K2: 4, K3: 1, ScryptN: 2, PoW: Blake3{},
	}
	for i := range p.PowDifficulty {
		p.PowDifficulty[i] = 0xff
	}
	return p
}

// LocalParams returns parameters for a testnet on one machine: the published labels and
// proofs, all of whose indices every node checks, little space, and about 2^10 hashes
// of proof of work for a unit and nonce group.
func LocalParams() Params {
	return Params{
		LabelsPerUnit: 512, MinUnits: 2, MaxUnits: 8,
		K1: 26, K2: 37, K3: 37, ScryptN: 8192,
		PowDifficulty: [32]byte{0x00, 0x40}, PoW: Blake3{},
	}
}

// MainnetLikeParams returns mainnet's rules with units of 1 MiB and BLAKE3.
func MainnetLikeParams() Params {
	p := MainnetParams()
	p.LabelsPerUnit, p.MinUnits, p.MaxUnits = 1<<16, 4, 64
	p.PoW = Blake3{}
	return p
}

// MainnetParams returns the published constants. Their proof of work is
// RandomX, which this build does not have: Init refuses before it makes a label, and
// Prove and Verify fail with ErrNotBuiltIn (docs/decisions/0004-where-we-differ.md).
func MainnetParams() Params {
	return Params{
		LabelsPerUnit: 1 << 32, MinUnits: 4, MaxUnits: 1<<32 - 1,
		K1: 26, K2: 37, K3: 1, ScryptN: 8192,
		PowDifficulty: [32]byte{0x00, 0x0d, 0xfb, 0x23, 0xb0, 0x97, 0x9b, 0x4b},
		PoW:           notBuiltIn{randomX},
	}
}

// Validate reports the first rule that these parameters break.
func (p Params) Validate() error {
	switch {
	case p.LabelsPerUnit == 0:
		return errors.New("post parameters: LabelsPerUnit must be positive")
	case p.MinUnits == 0 || p.MinUnits > p.MaxUnits:
		return fmt.Errorf("post parameters: need 1 <= MinUnits <= MaxUnits, have %d and %d", p.MinUnits, p.MaxUnits)
	case p.K1 == 0 || p.K2 == 0 || p.K3 == 0 || p.K3 > p.K2:
		return fmt.Errorf("post parameters: need K1, K2, K3 positive and K3 <= K2, have %d, %d, %d", p.K1, p.K2, p.K3)
	case p.ScryptN < 2 || p.ScryptN > MaxScryptN || p.ScryptN&(p.ScryptN-1) != 0:
		return fmt.Errorf("post parameters: ScryptN %d must be a power of two in 2..%d", p.ScryptN, MaxScryptN)
	case p.PoW == nil:
		return errors.New("post parameters: PoW is not set")
	}
	high, most := bits.Mul64(p.LabelsPerUnit, uint64(p.MaxUnits))
	if high != 0 {
		return fmt.Errorf("post parameters: %d units of %d labels overflow 64 bits", p.MaxUnits, p.LabelsPerUnit)
	}
	if least := p.LabelsPerUnit * uint64(p.MinUnits); least <= uint64(p.K1) {
		return fmt.Errorf("post parameters: the smallest space has %d labels, it must exceed K1 %d", least, p.K1)
	}
	if size := uint64(p.K2) * uint64(indexBits(most)); size > 8*MaxIndicesSize {
		return fmt.Errorf("post parameters: a proof's indices take %d bits, more than %d bytes", size, MaxIndicesSize)
	}
	return nil
}

// NumLabels returns the labels of numUnits units, or an error if the
// parameters are invalid or do not allow so many units.
func (p Params) NumLabels(numUnits uint32) (uint64, error) {
	if err := p.Validate(); err != nil {
		return 0, err
	}
	if numUnits < p.MinUnits || numUnits > p.MaxUnits {
		return 0, fmt.Errorf("post: %d units, must be in %d..%d", numUnits, p.MinUnits, p.MaxUnits)
	}
	return p.LabelsPerUnit * uint64(numUnits), nil
}

// Proof shows that its maker could read K2 labels that few would pass for the
// challenge.
type Proof struct {
	// Nonce chose the cipher, below MaxNonces.
	Nonce uint32
	// Indices are K2 label indices, packed; at most MaxIndicesSize bytes.
	Indices []byte
	// Pow solves the proof of work of the nonce's group, below MaxPowNonce.
	Pow uint64
}

// ProofMetadata is what a proof is about.
type ProofMetadata struct {
	NodeID        [32]byte // the identity
	CommitmentATX [32]byte // the ATX that the space was initialised for
	Challenge     [32]byte // the PoET reference that the proof answers
	NumUnits      uint32   // units of space that the identity claims
}

// Commitment returns what binds labels to an identity and a commitment ATX.
func Commitment(nodeID, commitmentATX [32]byte) [32]byte {
	var in [64]byte
	copy(in[:32], nodeID[:])
	copy(in[32:], commitmentATX[:])
	return blake3.Sum256(in[:])
}
