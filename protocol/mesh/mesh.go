// Package mesh turns the agreed proposals of a layer into its block, and the
// certified blocks into one history of the state.
//
// It promises: everybody who builds from the same proposals gets the same
// block, and a decision is only ever applied to the state from which its state
// root follows. It leaves to the caller to verify certificates, to have the
// bodies of blocks and transactions at hand, and to store what is applied.
package mesh

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"

	"tweedle/values/types"
)

// Share is what one valid proposal contributes to its layer's block.
type Share struct {
	ATX        types.ATXID
	Weight     uint64 // of the ATX
	BaseHeight uint64 // of the ATX, in ticks
	Slots      uint32 // of the smesher in the epoch
	Proofs     int    // of them in this layer, never more
}

// reward returns the part of a weight unit that the share is worth: exactly
// Weight*Proofs/Slots, and rounded down to a whole unit if the product does
// not fit 64 bits.
func (s Share) reward() types.Reward {
	if s.Proofs < 0 || uint64(s.Proofs) > uint64(s.Slots) {
		panic(fmt.Sprintf("mesh: share with %d proofs of %d slots", s.Proofs, s.Slots))
	}
	hi, lo := bits.Mul64(s.Weight, uint64(s.Proofs))
	if hi == 0 {
		return types.Reward{ATX: s.ATX, Num: lo, Den: uint64(s.Slots)}
	}
	units, _ := bits.Div64(hi, lo, uint64(s.Slots)) // fits: it is not more than Weight
	return types.Reward{ATX: s.ATX, Num: units, Den: 1}
}

// BuildBlock returns the block of a layer from the shares of its proposals and
// its ordered transactions (reference/protocol.md A9). Of two shares of one
// ATX the first counts; shares without slots do not. Transactions and rewards
// over their limits are left out.
func BuildBlock(layer types.Layer, shares []Share, txs []types.TransactionID) *types.Block {
	b := &types.Block{Layer: layer, Txs: txs[:min(len(txs), types.MaxBlockTxs)]}
	counted := make(map[types.ATXID]bool, len(shares))
	for _, s := range shares {
		if counted[s.ATX] || s.Slots == 0 {
			continue
		}
		counted[s.ATX] = true
		b.TickHeight = max(b.TickHeight, s.BaseHeight)
		b.Rewards = append(b.Rewards, s.reward())
	}
	slices.SortFunc(b.Rewards, func(x, y types.Reward) int { return bytes.Compare(x.ATX[:], y.ATX[:]) })
	if len(b.Rewards) > types.MaxBlockRewards {
		b.Rewards = b.Rewards[:types.MaxBlockRewards]
	}
	return b
}

// MaxHistory is how many states are kept to go back to.
const MaxHistory = 32
