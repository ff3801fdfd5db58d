package txpool

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// drawTxs makes transactions of a few principals with colliding nonces. Their
// ids are free, so that none need be signed.
func drawTxs(t *rapid.T) []vm.Tx {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) vm.Tx {
		tx := vm.Tx{
			Principal: types.Address{23: rapid.ByteRange(1, 3).Draw(t, "principal")},
			Nonce:     rapid.Uint64Range(0, 3).Draw(t, "nonce"),
			GasPrice:  rapid.Uint64Range(1, 2).Draw(t, "price"),
			Amount:    rapid.Uint64Range(0, 2).Draw(t, "amount"),
		}
		tx.ID = types.TransactionID(types.Sum(fmt.Appendf(nil, "%+v", tx)))
		return tx
	}), 0, 12).Draw(t, "txs")
}

// slowOrder is the rule read aloud: it fills one place after the other.
func slowOrder(seed types.Hash32, txs []vm.Tx) []vm.Tx {
	unique := map[types.TransactionID]vm.Tx{}
	for _, tx := range txs {
		unique[tx.ID] = tx
	}
	var places []vm.Tx
	for _, tx := range unique {
		places = append(places, tx)
	}
	slices.SortFunc(places, func(a, b vm.Tx) int {
		x, y := types.Sum(seed[:], a.ID[:]), types.Sum(seed[:], b.ID[:])
		return bytes.Compare(x[:], y[:])
	})
	var out []vm.Tx
	for _, place := range places {
		var next *vm.Tx
		for _, tx := range places {
			if tx.Principal != place.Principal || slices.ContainsFunc(out, func(o vm.Tx) bool { return o.ID == tx.ID }) {
				continue
			}
			if next == nil || cmp.Or(cmp.Compare(tx.Nonce, next.Nonce), -cmp.Compare(tx.GasPrice, next.GasPrice), bytes.Compare(tx.ID[:], next.ID[:])) < 0 {
				next = &tx
			}
		}
		out = append(out, *next)
	}
	return out
}

func txIDs(txs []vm.Tx) string {
	var s strings.Builder
	for _, tx := range txs {
		s.WriteString(tx.ID.Short() + " ")
	}
	return s.String()
}

func TestABlocksOrderFollowsItsRuleWhateverOrderProposalsComeIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		txs := drawTxs(t)
		seed := types.Hash32{rapid.Byte().Draw(t, "seed")}
		want := txIDs(slowOrder(seed, txs))
		if got := txIDs(Order(seed, txs)); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		shuffled := rapid.Permutation(slices.Concat(txs, txs)).Draw(t, "shuffled")
		if got := txIDs(Order(seed, shuffled)); got != want {
			t.Fatalf("in another order: %s, want %s", got, want)
		}
	})
}

// Frozen: a change here is a change of protocol.
func TestABlocksOrderIsFrozen(t *testing.T) {
	var txs []vm.Tx
	for i := range 6 {
		txs = append(txs, vm.Tx{ID: types.TransactionID{byte(i)}, Principal: types.Address{23: byte(i % 2)}, Nonce: uint64(10 - i), GasPrice: 1})
	}
	var got []string
	for seed := range byte(3) {
		var s []string
		for _, tx := range Order(types.Hash32{seed}, txs) {
			s = append(s, fmt.Sprint(tx.ID[0]))
		}
		got = append(got, strings.Join(s, ""))
	}
	if fmt.Sprint(got) != "[420531 452310 425301]" {
		t.Errorf("%v", got)
	}
}

func TestASampleDependsOnTheSeedAndKeepsNonces(t *testing.T) {
	state := funded(t, 6, 1<<40)
	var txs []types.Transaction
	for i := range 6 {
		for n := range uint64(5) {
			txs = append(txs, spend(t, i, 1+n, 1+n%3))
		}
	}
	p, q := New(state, params(), DefaultLimits()), New(state, params(), DefaultLimits())
	for i := range txs {
		add(t, p, txs[i])
		add(t, q, txs[len(txs)-1-i])
	}
	samples := map[string]bool{}
	for seed := range byte(10) {
		picked := p.Select(types.Hash32{seed}, 7)
		if len(picked) != 7 {
			t.Fatalf("%d picked", len(picked))
		}
		next := map[types.Address]uint64{}
		var s string
		for _, v := range picked {
			if v.Nonce != next[v.Principal]+1 {
				t.Fatalf("nonce %d after %d", v.Nonce, next[v.Principal])
			}
			next[v.Principal] = v.Nonce
			s += v.ID.Short()
		}
		var other string
		for _, v := range q.Select(types.Hash32{seed}, 7) {
			other += v.ID.Short()
		}
		if s != other {
			t.Fatal("the sample depends on the order of arrival")
		}
		samples[s] = true
	}
	if len(samples) != 10 {
		t.Fatalf("10 seeds gave %d samples", len(samples))
	}
	if all := p.Select(types.Hash32{}, 1000); len(all) != len(txs) {
		t.Fatalf("%d of %d picked", len(all), len(txs))
	}
}

func TestAHigherPriceIsPickedMoreOften(t *testing.T) {
	p := New(funded(t, 2, 1<<40), params(), DefaultLimits())
	add(t, p, spend(t, 0, 1, 1))
	rich := spend(t, 1, 1, 4)
	add(t, p, rich)
	wins := 0
	for seed := range 1000 {
		if p.Select(types.Hash32{byte(seed), byte(seed >> 8)}, 1)[0].ID == rich.ID() {
			wins++
		}
	}
	// Four times the price loses one draw in eight: 875 of 1000.
	if wins < 840 || wins > 910 {
		t.Errorf("the higher price won %d of 1000", wins)
	}
}

func TestASampleHasNoMoreGasThanABlock(t *testing.T) {
	rules := params()
	rules.BlockGasLimit = 2*spendGas + spendGas/2
	p := New(funded(t, 5, 1<<40), rules, DefaultLimits())
	for i := range 5 {
		add(t, p, spend(t, i, 1, 1))
	}
	if picked := p.Select(types.Hash32{}, 5); len(picked) != 2 {
		t.Errorf("%d picked", len(picked))
	}
	if picked := p.Select(types.Hash32{}, 0); picked != nil {
		t.Errorf("%d picked of none asked for", len(picked))
	}
}
