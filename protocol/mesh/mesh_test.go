package mesh

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

func share(atx byte, weight uint64, slots uint32, proofs int) Share {
	return Share{ATX: types.ATXID{atx}, Weight: weight, BaseHeight: uint64(atx), Slots: slots, Proofs: proofs}
}

func TestABlockIsTheSameInWhateverOrderTheSharesCome(t *testing.T) {
	txs := []types.TransactionID{{3}, {1}, {2}}
	shares := []Share{share(5, 100, 10, 2), share(9, 70, 7, 1), share(1, 30, 3, 3), share(7, 1, 1, 1)}
	want := BuildBlock(20, shares, txs)
	for range 24 {
		rand.Shuffle(len(shares), func(i, j int) { shares[i], shares[j] = shares[j], shares[i] })
		if got := BuildBlock(20, shares, txs); got.ID() != want.ID() {
			t.Fatalf("%+v makes another block than %+v", got, want)
		}
	}
	if !slices.Equal(want.Txs, txs) {
		t.Errorf("transactions %v, want them as they were ordered: %v", want.Txs, txs)
	}
	if want.TickHeight != 9 {
		t.Errorf("height %d, want the greatest of the shares, 9", want.TickHeight)
	}
	rewards := []types.Reward{
		{ATX: types.ATXID{1}, Num: 90, Den: 3}, {ATX: types.ATXID{5}, Num: 200, Den: 10},
		{ATX: types.ATXID{7}, Num: 1, Den: 1}, {ATX: types.ATXID{9}, Num: 70, Den: 7},
	}
	if !slices.Equal(want.Rewards, rewards) {
		t.Errorf("rewards %v, want %v", want.Rewards, rewards)
	}
}

func TestOfTwoSharesOfOneATXTheFirstCounts(t *testing.T) {
	second := share(5, 100, 10, 7)
	second.BaseHeight = 1000
	b := BuildBlock(20, []Share{share(5, 100, 10, 2), second}, nil)
	if want := []types.Reward{{ATX: types.ATXID{5}, Num: 200, Den: 10}}; !slices.Equal(b.Rewards, want) {
		t.Errorf("rewards %v, want %v", b.Rewards, want)
	}
	if b.TickHeight != 5 {
		t.Errorf("height %d is that of a share that does not count", b.TickHeight)
	}
}

func TestSharesWithoutSlotsAreWorthNothing(t *testing.T) {
	b := BuildBlock(20, []Share{{ATX: types.ATXID{1}, BaseHeight: 9}}, nil)
	if len(b.Rewards) != 0 || b.TickHeight != 0 {
		t.Errorf("%+v", b)
	}
}

func TestABlockKeepsItsLimits(t *testing.T) {
	shares := make([]Share, types.MaxBlockRewards+10)
	for i := range shares {
		// Descending, so that what is left out is not simply the end.
		n := len(shares) - i
		shares[i] = Share{ATX: types.ATXID{byte(n >> 16), byte(n >> 8), byte(n)}, Weight: 1, Slots: 1, Proofs: 1}
	}
	b := BuildBlock(20, shares, make([]types.TransactionID, types.MaxBlockTxs+1))
	if len(b.Rewards) != types.MaxBlockRewards || len(b.Txs) != types.MaxBlockTxs {
		t.Fatalf("%d rewards, %d transactions", len(b.Rewards), len(b.Txs))
	}
	if b.Rewards[0].ATX != (types.ATXID{0, 0, 1}) {
		t.Errorf("the first reward is of ATX %s", b.Rewards[0].ATX)
	}
}

// A share's exact worth is Weight*Proofs/Slots. What the block says must be
// that, or less by less than one unit of weight where it does not fit.
func TestARewardIsTheShareOfTheWeightWhateverItsSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.Uint32Range(1, 1<<20).Draw(t, "slots")
		s := Share{
			ATX: types.ATXID{1}, Slots: slots, Weight: rapid.Uint64().Draw(t, "weight"),
			Proofs: rapid.IntRange(0, int(min(slots, types.MaxEligibilities))).Draw(t, "proofs"),
		}
		if rapid.Bool().Draw(t, "huge") {
			s.Weight = math.MaxUint64 - s.Weight%1000
		}
		r := BuildBlock(20, []Share{s}, nil).Rewards[0]
		product := new(big.Int).Mul(new(big.Int).SetUint64(s.Weight), big.NewInt(int64(s.Proofs)))
		want := new(big.Rat).SetFrac(product, big.NewInt(int64(s.Slots)))
		got := new(big.Rat).SetFrac(new(big.Int).SetUint64(r.Num), new(big.Int).SetUint64(r.Den))
		off := new(big.Rat).Sub(want, got)
		fits := product.IsUint64()
		if fits && off.Sign() != 0 || off.Sign() < 0 || off.Cmp(big.NewRat(1, 1)) >= 0 {
			t.Fatalf("%+v: reward %d/%d is off by %s", s, r.Num, r.Den, off)
		}
	})
}

func TestAShareWithMoreProofsThanSlotsIsOurOwnMistake(t *testing.T) {
	for _, s := range []Share{share(1, 1, 2, 3), share(1, 1, 2, -1)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d proofs of %d slots make a block", s.Proofs, s.Slots)
				}
			}()
			BuildBlock(20, []Share{s}, nil)
		}()
	}
}

// ledger is a network's ledger with a rich account that can spend.
type ledger struct {
	params vm.Params
	bank   *signing.Signer
	first  Step
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{params: vm.LocalParams()}
	var err error
	if l.bank, err = signing.NewSigner(signing.SeedFrom("bank"), l.params.Network); err != nil {
		t.Fatal(err)
	}
	l.params.Genesis = []vm.GenesisAccount{{Address: vm.WalletAddress(l.bank.NodeID()), Balance: vm.Smidges}}
	state, err := vm.Genesis(l.params)
	if err != nil {
		t.Fatal(err)
	}
	l.first = Step{Layer: l.params.EffectiveGenesis, State: state}
	return l
}

// block pays a fee, an amount to somebody, and its subsidy to a smesher.
func (l *ledger) block(layer types.Layer, nonce uint64) vm.Block {
	b := vm.Block{Layer: layer, Rewards: []vm.Share{{ATX: types.ATXID{1}, Coinbase: types.Address{23: 9}, Num: 1, Den: 1}}}
	if nonce == 0 {
		b.Txs = append(b.Txs, vm.Spawn(l.bank, nonce, 1))
	} else {
		b.Txs = append(b.Txs, vm.Spend(l.bank, types.Address{23: 7}, 1000, nonce, 1))
	}
	return b
}

// decide signs, as it were, what a block makes of a state.
func (l *ledger) decide(s vm.State, b vm.Block) types.Decision {
	return types.Decision{Layer: b.Layer, Block: types.BlockID{byte(b.Layer)}, StateRoot: vm.Apply(s, b, l.params).State.Root()}
}

// extend adds the next block to the chain; it fails unless the chain follows.
func (l *ledger) extend(t *testing.T, c *Chain, layer types.Layer, nonce uint64) Step {
	t.Helper()
	before := c.Tip()
	b := l.block(layer, nonce)
	d := l.decide(before.State, b)
	ext, err := c.Extend(d, b)
	if err != nil {
		t.Fatalf("layer %d: %v", layer, err)
	}
	if ext.Base != before.Layer {
		t.Fatalf("layer %d goes back to %d although it extends %d", layer, ext.Base, before.Layer)
	}
	tip := c.Tip()
	if tip.Layer != layer || tip.Block != d.Block || tip.State.Root() != d.StateRoot || ext.Outcome.State.Root() != d.StateRoot {
		t.Fatalf("layer %d: the tip is %+v", layer, tip)
	}
	return tip
}

func TestDecidedBlocksExtendTheHistoryAndMoveCoins(t *testing.T) {
	l := newLedger(t)
	c := NewChain(l.params, l.first)
	l.extend(t, c, 20, 0)
	l.extend(t, c, 21, 1)
	tip := l.extend(t, c, 25, 2) // the layers between are empty
	if got := tip.State.Account(types.Address{23: 7}).Balance; got != 2000 {
		t.Errorf("two payments of 1000 arrived as %d", got)
	}
	if tip.State.Account(types.Address{23: 9}).Balance == 0 {
		t.Error("no reward was paid")
	}
}

func TestTryingABlockChangesNothing(t *testing.T) {
	l := newLedger(t)
	c := NewChain(l.params, l.first)
	l.extend(t, c, 20, 0)
	before := c.Tip().State.Root()
	out := c.Try(l.block(21, 1))
	if out.State.Root() == before {
		t.Error("the block has no effect")
	}
	if c.Tip().State.Root() != before || c.Tip().Layer != 20 {
		t.Error("trying a block moved the tip")
	}
}

func TestAClosedLayerStaysAsItIs(t *testing.T) {
	l := newLedger(t)
	c := NewChain(l.params, l.first)
	l.extend(t, c, 22, 0)
	for layer := types.Layer(0); layer <= 22; layer++ {
		b := l.block(layer, 1)
		for _, s := range []vm.State{l.first.State, c.Tip().State} {
			if _, err := c.Extend(l.decide(s, b), b); !errors.Is(err, ErrClosed) {
				t.Fatalf("layer %d after 22: %v", layer, err)
			}
		}
	}
	if c.Tip().Layer != 22 {
		t.Errorf("the tip is layer %d", c.Tip().Layer)
	}
}

func TestTheHistoryGoesBackToTheStateThatADecisionExtends(t *testing.T) {
	l := newLedger(t)
	c := NewChain(l.params, l.first)
	base := l.extend(t, c, 20, 0)
	l.extend(t, c, 21, 1)
	l.extend(t, c, 22, 2)
	// The others closed 21 and 22 as empty.
	b := l.block(23, 1)
	ext, err := c.Extend(l.decide(base.State, b), b)
	if err != nil || ext.Base != 20 {
		t.Fatalf("back to layer %d, %v", ext.Base, err)
	}
	if got := c.Tip().State.Account(types.Address{23: 7}).Balance; got != 1000 {
		t.Errorf("after one payment instead of the two undone ones the balance is %d", got)
	}
	// What was undone is no base any more: the history is 19, 20, 23.
	if len(c.steps) != 3 || c.steps[1].Layer != 20 || c.steps[2].Layer != 23 {
		t.Errorf("%d steps are left", len(c.steps))
	}
	l.extend(t, c, 24, 2)
}

func TestADecisionOnAnUnknownStateHasNoBase(t *testing.T) {
	l := newLedger(t)
	c := NewChain(l.params, l.first)
	tip := l.extend(t, c, 20, 0)
	// Somebody else's layer 21 is missing here.
	theirs := vm.Apply(tip.State, l.block(21, 1), l.params).State
	b := l.block(22, 2)
	if _, err := c.Extend(l.decide(theirs, b), b); !errors.Is(err, ErrNoBase) {
		t.Fatalf("%v", err)
	}
	if c.Tip().Layer != 20 || c.Tip().State.Root() != tip.State.Root() {
		t.Error("the refused decision moved the tip")
	}
}

func TestOnlyTheNewestStatesAreKept(t *testing.T) {
	l := newLedger(t)
	c := NewChain(l.params, l.first)
	var steps []Step
	for i := range 2 * MaxHistory {
		steps = append(steps, l.extend(t, c, types.Layer(20+i), uint64(i)))
	}
	if len(c.steps) != MaxHistory {
		t.Fatalf("%d states are kept, the limit is %d", len(c.steps), MaxHistory)
	}
	at := func(back int) Step { return steps[len(steps)-1-back] }
	after := c.Tip().Layer + 1
	forgotten, oldest := at(MaxHistory), at(MaxHistory-1)
	b := l.block(after, uint64(forgotten.Layer)-20+1)
	if _, err := c.Extend(l.decide(forgotten.State, b), b); !errors.Is(err, ErrNoBase) {
		t.Errorf("a state that is %d layers old is still there: %v", MaxHistory, err)
	}
	b = l.block(after, uint64(oldest.Layer)-20+1)
	if ext, err := c.Extend(l.decide(oldest.State, b), b); err != nil || ext.Base != oldest.Layer {
		t.Errorf("the oldest kept state, layer %d: back to %d, %v", oldest.Layer, ext.Base, err)
	}
	if len(c.steps) != 2 {
		t.Errorf("%d steps are left", len(c.steps))
	}
}
