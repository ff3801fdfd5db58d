package sim

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"

	"tweedle/proofs/post"
	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Proofs of work and space are cheap in the simulator. A PoET's proof says in
// its root that its work was done. A proof of space lists in its indices the
// places of the labels that do not pass; each node looks at some places of its
// own choice, as with real space.

const (
	labels  = 37 // in a proof of space
	checked = 8  // of them, by each node
)

// space stands for the proofs that both kinds of crypto share.
type space struct {
	seed    []byte
	state   func() vm.State
	network types.GenesisID
}

// poetRoot is the root that proves work in the simulator.
func poetRoot(statement types.Hash32, leaves uint64) types.Hash32 {
	return types.Sum([]byte("work"), statement[:], binary.LittleEndian.AppendUint64(nil, leaves))
}

// VerifyTx implements core.Crypto as in a node: users' signatures are real.
func (s space) VerifyTx(tx *vm.Tx) error {
	return vm.VerifySignature(tx, s.state().Account(tx.Principal), s.network)
}

var errWork = errors.New("the work was not done")

// VerifyPoet implements core.Crypto.
func (space) VerifyPoet(m *types.PoetProofMessage) error {
	if m.Proof.Root != poetRoot(m.Statement, m.Proof.NumLeaves) {
		return errWork
	}
	return nil
}

// VerifySpace implements core.Crypto.
func (s space) VerifySpace(claims []*activation.Claim) []error {
	errs := make([]error, len(claims))
	for i, c := range claims {
		wrong := c.ATX.NIPosts[0].Posts[0].Post.Indices
		for _, place := range s.places(c.Info.ID) {
			if errs[i] == nil && slices.Contains(wrong, place) {
				errs[i] = &post.InvalidIndexError{Ordinal: int(place)}
			}
		}
	}
	return errs
}

// places are the labels that a node looks at.
func (s space) places(id types.ATXID) []byte {
	h := types.Sum(s.seed, id[:])
	out := make([]byte, checked)
	for i := range out {
		out[i] = h[i] % labels
	}
	return out
}

// WrongLabel implements core.Crypto.
func (space) WrongLabel(a *types.ATX, _ types.ATXID, ordinal uint32) bool {
	return ordinal < labels && slices.Contains(a.NIPosts[0].Posts[0].Post.Indices, byte(ordinal))
}

// cheap is crypto that costs a hash, for most of the runs. Everybody could forge
// it; the adversaries do not.
type cheap struct{ space }

func cheapSign(d signing.Domain, id types.NodeID, msg []byte) (s types.Signature) {
	mix(s[:], uint64(d), id, msg)
	return s
}

func cheapVRF(id types.NodeID, msg []byte) (v types.VRFSignature) {
	mix(v[:], 1<<32, id, msg)
	return v
}

// mix fills out with what follows from the rest, a few nanoseconds' worth.
func mix(out []byte, seed uint64, id types.NodeID, msg []byte) {
	h := seed + binary.LittleEndian.Uint64(id[:])
	for ; len(msg) >= 8; msg = msg[8:] {
		hi, lo := bits.Mul64(h^binary.LittleEndian.Uint64(msg), 0x9e3779b97f4a7c15)
		h = hi ^ lo
	}
	for _, b := range msg {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	for ; len(out) >= 8; out = out[8:] {
		hi, lo := bits.Mul64(h^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
		h += hi ^ lo
		binary.LittleEndian.PutUint64(out, h)
	}
}

// Verify implements core.Crypto.
func (cheap) Verify(d signing.Domain, id types.NodeID, msg []byte, sig types.Signature) bool {
	return sig == cheapSign(d, id, msg)
}

// VerifyVRF implements core.Crypto.
func (cheap) VerifyVRF(id types.NodeID, msg []byte, sig types.VRFSignature) bool {
	return sig == cheapVRF(id, msg)
}

// cheapKey is an identity for cheap.
type cheapKey types.NodeID

// NodeID implements core.Identity.
func (k cheapKey) NodeID() types.NodeID { return types.NodeID(k) }

// Sign implements core.Identity.
func (k cheapKey) Sign(d signing.Domain, msg []byte) types.Signature {
	return cheapSign(d, types.NodeID(k), msg)
}

// VRF implements core.Identity.
func (k cheapKey) VRF(msg []byte) types.VRFSignature { return cheapVRF(types.NodeID(k), msg) }

// real is ed25519 and ECVRF as in a node.
type real struct {
	signing.Verifier
	space
}

// VerifyVRF implements core.Crypto.
func (real) VerifyVRF(id types.NodeID, msg []byte, sig types.VRFSignature) bool {
	return signing.VerifyVRF(id, msg, sig)
}

var (
	_ core.Crypto = cheap{}
	_ core.Crypto = real{}
)
