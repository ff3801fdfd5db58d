// Package eligibility says in which layers of an epoch a smesher may publish
// ballots, and checks the proofs of it (reference/protocol.md A5).
//
// It promises: the same answer on every machine, from the arguments alone. It
// leaves to the caller which ATXs form the active set, and the signatures of
// ballots.
package eligibility

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// kindVoting keeps random values for different purposes apart
// (reference/protocol.md A2).
const kindVoting = 3

// MaxSlots bounds the slots of one smesher in one epoch.
const MaxSlots = 1 << 20

// Params are the parts of the rule that a network sets.
type Params struct {
	LayerSize      uint32 // ballots that a layer has on average
	LayersPerEpoch uint32
	MinWeight      uint64 // the active set counts as at least this much
}

// Slots returns how many ballots a smesher may publish in an epoch: its share
// of all slots by weight, at least one. total is the weight of the active set.
func Slots(p Params, weight, total uint64) uint32 {
	total = max(total, p.MinWeight, 1)
	hi, lo := bits.Mul64(weight, uint64(p.LayerSize)*uint64(p.LayersPerEpoch))
	if hi >= total { // the quotient would not fit 64 bits
		return MaxSlots
	}
	q, _ := bits.Div64(hi, lo, total)
	return uint32(min(max(q, 1), MaxSlots))
}

// Message returns what the VRF of slot j is made over.
func Message(beacon types.Beacon, epoch types.Epoch, vrfNonce uint64, j uint32) []byte {
	e := codec.NewEncoder(64)
	e.Compact(kindVoting)
	e.Raw(beacon[:])
	e.Compact(uint64(epoch))
	e.Compact(vrfNonce)
	e.Compact(uint64(j))
	return e.Bytes()
}

// Layer returns the layer that a slot's random value falls into.
func Layer(p Params, epoch types.Epoch, value types.VRFSignature) types.Layer {
	place := binary.LittleEndian.Uint64(value[:8]) % uint64(p.LayersPerEpoch)
	return types.Layer(uint32(epoch)*p.LayersPerEpoch + uint32(place))
}

// Prover holds the identity's random function.
type Prover interface {
	VRF(msg []byte) types.VRFSignature
}

// Assign computes all slots of a smesher in an epoch, by layer, each layer's
// in ascending j. A layer keeps at most types.MaxEligibilities of them.
func Assign(p Params, id Prover, beacon types.Beacon, epoch types.Epoch, vrfNonce uint64, slots uint32) map[types.Layer][]types.Eligibility {
	byLayer := make(map[types.Layer][]types.Eligibility)
	for j := range slots {
		value := id.VRF(Message(beacon, epoch, vrfNonce, j))
		l := Layer(p, epoch, value)
		if len(byLayer[l]) < types.MaxEligibilities {
			byLayer[l] = append(byLayer[l], types.Eligibility{J: j, Proof: value})
		}
	}
	return byLayer
}

// Reasons why a ballot's eligibilities are not valid.
var (
	ErrNone  = errors.New("ballot has no eligibility")
	ErrOrder = errors.New("eligibilities are not in strictly ascending order")
	ErrSlot  = errors.New("eligibility is for a slot that the smesher does not have")
	ErrLayer = errors.New("eligibility is for another layer")
	ErrProof = errors.New("eligibility proof is not valid")
)

// Claim is what a ballot says about its place. Check is cheap; Verify takes some 0.1 ms for
// each of up to types.MaxEligibilities proofs.
type Claim struct {
	Smesher  types.NodeID
	Layer    types.Layer
	Beacon   types.Beacon
	VRFNonce uint64
	Slots    uint32
	Proofs   []types.Eligibility
}

// Check applies all rules but that the proofs are valid.
func (c Claim) Check(p Params) error {
	if len(c.Proofs) == 0 {
		return ErrNone
	}
	epoch := types.Epoch(uint32(c.Layer) / p.LayersPerEpoch)
	for i, el := range c.Proofs {
		switch {
		case i > 0 && el.J <= c.Proofs[i-1].J:
			return ErrOrder
		case el.J >= c.Slots:
			return ErrSlot
		case Layer(p, epoch, el.Proof) != c.Layer:
			return ErrLayer
		}
	}
	return nil
}

// Verify tells whether the proofs are valid, each as verify says (signing.VerifyVRF).
func (c Claim) Verify(p Params, verify func(types.NodeID, []byte, types.VRFSignature) bool) error {
	epoch := types.Epoch(uint32(c.Layer) / p.LayersPerEpoch)
	for _, el := range c.Proofs {
		if !verify(c.Smesher, Message(c.Beacon, epoch, c.VRFNonce, el.J), el.Proof) {
			return ErrProof
		}
	}
	return nil
}
