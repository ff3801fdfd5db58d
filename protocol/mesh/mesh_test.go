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
	first  Link
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
	l.first = Link{Decision: types.Decision{Layer: l.params.EffectiveGenesis, StateRoot: state.Root()}, State: state}
	return l
}

// block pays a fee, an amount to somebody, and its subsidy to a smesher.
func (l *ledger) block(layer types.Layer, nonce uint64) vm.Block {
	b := vm.Block{Layer: layer, Rewards: []vm.Share{{ATX: types.ATXID{1}, Coinbase: types.Address{23: 9}, Num: 1, Den: 1}}}
	raw := vm.Spawn(l.bank, nonce, 1)
	if nonce > 0 {
		raw = vm.Spend(l.bank, types.Address{23: 7}, 1000, nonce, 1)
	}
	tx, err := vm.Parse(raw)
	if err != nil {
		panic(err)
	}
	b.Txs = append(b.Txs, tx)
	return b
}

// decide signs, as it were, what a block makes of a state.
func (l *ledger) decide(s vm.State, b vm.Block) types.Decision {
	return types.Decision{Layer: b.Layer, Parent: s.Root(), Block: types.BlockID{byte(b.Layer)}, StateRoot: vm.Apply(s, b, l.params).State.Root()}
}

// extend adds the next block to the history; it fails unless it follows.
func (l *ledger) extend(t *testing.T, h *History, layer types.Layer, nonce uint64) Link {
	t.Helper()
	before := h.Tip()
	d, path := l.grow(t, h, before.State, l.block(layer, nonce))
	if path.Base.Decision != before.Decision || len(path.Undone) != 0 {
		t.Fatalf("layer %d goes back to %d although it extends %d", layer, path.Base.Decision.Layer, before.Decision.Layer)
	}
	if tip := h.Tip(); tip.Decision != d || tip.State.Root() != d.StateRoot {
		t.Fatalf("layer %d: the tip is %+v", layer, tip)
	}
	return h.Tip()
}

// grow executes and applies a block on a state.
func (l *ledger) grow(t *testing.T, h *History, on vm.State, b vm.Block) (types.Decision, Path) {
	t.Helper()
	d := l.decide(on, b)
	draft, err := h.Execute(d, &types.Block{Layer: b.Layer}, b)
	if err != nil {
		t.Fatalf("layer %d: %v", b.Layer, err)
	}
	path, err := h.Extend(draft)
	if err != nil {
		t.Fatalf("layer %d: %v", b.Layer, err)
	}
	if h.Tip().Decision == d {
		t.Fatal("asking how a draft extends the history has changed it")
	}
	h.Commit(path)
	return d, path
}

func (l *ledger) history() *History { return NewHistory(l.params, l.first) }

func TestDecidedBlocksExtendTheHistoryAndMoveCoins(t *testing.T) {
	l := newLedger(t)
	h := l.history()
	l.extend(t, h, 20, 0)
	l.extend(t, h, 21, 1)
	tip := l.extend(t, h, 25, 2) // the layers between are empty
	if got := tip.State.Account(types.Address{23: 7}).Balance; got != 2000 {
		t.Errorf("two payments of 1000 arrived as %d", got)
	}
	if tip.State.Account(types.Address{23: 9}).Balance == 0 {
		t.Error("no reward was paid")
	}
}

func TestTryingABlockChangesNothing(t *testing.T) {
	l := newLedger(t)
	h := l.history()
	before := l.extend(t, h, 20, 0)
	out, err := h.Try(before.Decision.StateRoot, l.block(21, 1))
	if err != nil || out.State.Root() == before.Decision.StateRoot {
		t.Errorf("the block has no effect, %v", err)
	}
	if h.Tip().Decision != before.Decision || h.Tip().State.Root() != before.Decision.StateRoot {
		t.Error("trying a block moved the tip")
	}
}

func TestWhatIsAppliedStaysAsItIs(t *testing.T) {
	l := newLedger(t)
	h := l.history()
	l.extend(t, h, 20, 0)
	tip := l.extend(t, h, 22, 1)
	again := &Draft{Decision: tip.Decision}
	if _, err := h.Extend(again); !errors.Is(err, ErrKnown) {
		t.Errorf("the same again: %v", err)
	}
	if h.Tip().Decision != tip.Decision {
		t.Errorf("the tip is layer %d", h.Tip().Decision.Layer)
	}
}

func TestALaterLayerThatLeavesSomeOutTakesThemBack(t *testing.T) {
	l := newLedger(t)
	h := l.history()
	base := l.extend(t, h, 20, 0)
	l.extend(t, h, 21, 1)
	l.extend(t, h, 22, 2)
	_, path := l.grow(t, h, base.State, l.block(23, 1))
	if path.Base.Decision.Layer != 20 || len(path.Undone) != 2 || path.Undone[0].Decision.Layer != 21 || path.Undone[1].Decision.Layer != 22 {
		t.Fatalf("back to layer %d, %d undone", path.Base.Decision.Layer, len(path.Undone))
	}
	if got := h.Tip().State.Account(types.Address{23: 7}).Balance; got != 1000 {
		t.Errorf("after one payment instead of the two undone ones the balance is %d", got)
	}
	if links := h.Links(); len(links) != 3 || links[1].Decision.Layer != 20 || links[2].Decision.Layer != 23 {
		t.Errorf("%d links are left", len(links))
	}
	l.extend(t, h, 24, 2)
}

func TestADraftCarriesWhatItBuildsOnWithIt(t *testing.T) {
	l := newLedger(t)
	h := l.history()
	base := l.extend(t, h, 20, 0)
	on, drafts := base.State, []*Draft(nil)
	for i, layer := range []types.Layer{21, 22, 23} {
		b := l.block(layer, uint64(i)+1)
		d, err := h.Execute(l.decide(on, b), &types.Block{Layer: layer}, b)
		if err != nil {
			t.Fatal(err)
		}
		h.Keep(d)
		on, drafts = d.Outcome.State, append(drafts, d)
	}
	path, err := h.Extend(drafts[2])
	if err != nil || len(path.Drafts) != 3 || path.Drafts[0] != drafts[0] || path.Base.Decision != base.Decision {
		t.Fatalf("%d drafts on layer %d, %v", len(path.Drafts), path.Base.Decision.Layer, err)
	}
	h.Commit(path)
	if h.Tip().Decision != drafts[2].Decision {
		t.Errorf("the tip is layer %d", h.Tip().Decision.Layer)
	}
}

func TestADecisionOnAnUnknownStateOrWithAWrongOneIsNoDraft(t *testing.T) {
	l := newLedger(t)
	h := l.history()
	tip := l.extend(t, h, 20, 0)
	theirs := vm.Apply(tip.State, l.block(21, 1), l.params).State // a layer that is missing here
	b := l.block(22, 2)
	if _, err := h.Execute(l.decide(theirs, b), &types.Block{Layer: 22}, b); !errors.Is(err, ErrParent) {
		t.Errorf("on an unknown state: %v", err)
	}
	wrong := l.decide(tip.State, b)
	wrong.StateRoot[0]++
	if _, err := h.Execute(wrong, &types.Block{Layer: 22}, b); !errors.Is(err, ErrRoot) {
		t.Errorf("another state comes out: %v", err)
	}
	if h.Tip().Decision != tip.Decision {
		t.Error("the refused decision moved the tip")
	}
}

func TestOnlyTheNewestStatesAndDraftsAreKept(t *testing.T) {
	l := newLedger(t)
	h := l.history()
	for i := range 2 * MaxHistory {
		l.extend(t, h, types.Layer(20+i), uint64(i))
	}
	if n := len(h.Links()); n != MaxHistory {
		t.Errorf("%d states are kept, the limit is %d", n, MaxHistory)
	}
	for i := range 2 * MaxDrafts {
		h.Keep(&Draft{Decision: types.Decision{Layer: types.Layer(1000 + i)}})
	}
	if len(h.drafts) != MaxDrafts || h.drafts[0].Decision.Layer != types.Layer(1000+MaxDrafts) {
		t.Errorf("%d drafts are kept, the limit is %d", len(h.drafts), MaxDrafts)
	}
}
