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
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"tweedle/protocol/vm"
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

// Step is a state in the history: what it was after a layer.
type Step struct {
	Layer types.Layer
	Block types.BlockID
	State vm.State
}

// Errors of Chain.
var (
	// ErrClosed says that a later layer is applied already; the layer stays
	// as it is.
	ErrClosed = errors.New("layer is closed")
	// ErrNoBase says that the decision does not follow from any state that we
	// had: layers before it are missing here, or our state is wrong.
	ErrNoBase = errors.New("decision does not follow from any known state")
)

// Chain is the newest part of the history, oldest step first.
type Chain struct {
	params vm.Params
	steps  []Step
}

// NewChain returns a history that begins with a step.
func NewChain(p vm.Params, first Step) *Chain { return &Chain{params: p, steps: []Step{first}} }

// Tip returns the newest step.
func (c *Chain) Tip() Step { return c.steps[len(c.steps)-1] }

// Try executes a block on the newest state without changing the history.
func (c *Chain) Try(b vm.Block) vm.Outcome { return vm.Apply(c.Tip().State, b, c.params) }

// Extension is how a decision extends the history.
type Extension struct {
	Base    types.Layer // the layer to go back to first; the tip's if there is nothing to undo
	Outcome vm.Outcome
}

// Extend applies a decided block. It executes the block on the newest state,
// and if another root comes out, on the ones before: then our newest layers
// were not part of what the others decided, and the history goes back. The
// decision's root says which history it extends, so nothing else has to.
func (c *Chain) Extend(d types.Decision, b vm.Block) (Extension, error) {
	if d.Layer <= c.Tip().Layer {
		return Extension{}, ErrClosed
	}
	for i := len(c.steps) - 1; i >= 0; i-- {
		out := vm.Apply(c.steps[i].State, b, c.params)
		if out.State.Root() != d.StateRoot {
			continue
		}
		base := c.steps[i].Layer
		c.steps = append(c.steps[:i+1], Step{d.Layer, d.Block, out.State})
		if over := len(c.steps) - MaxHistory; over > 0 {
			c.steps = slices.Delete(c.steps, 0, over)
		}
		return Extension{base, out}, nil
	}
	return Extension{}, ErrNoBase
}
