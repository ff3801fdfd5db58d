package vm

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"tweedle/values/signing"
	"tweedle/values/types"
)

// Money is neither made nor lost, whatever the blocks hold; and the state that
// was reached is the one that its stored accounts give back.
func TestMoneyIsConserved(t *testing.T) {
	p := testParams()
	var signers []*signing.Signer
	for i := range 4 {
		signers = append(signers, key(t, fmt.Sprint("holder ", i)))
	}
	rapid.Check(t, func(t *rapid.T) {
		p := p
		p.Genesis = nil
		var total uint64
		for _, s := range signers {
			balance := rapid.SampledFrom([]uint64{0, 1, 24_000, 33_369, 200_000, 1 << 50}).Draw(t, "balance")
			p.Genesis = append(p.Genesis, GenesisAccount{addressOf(s), balance})
			total += balance
		}
		p.BlockGasLimit = rapid.SampledFrom([]uint64{1, 100_000, 1 << 40}).Draw(t, "gas limit")
		state, err := Genesis(p)
		if err != nil {
			t.Fatal(err)
		}
		stored := map[types.Address]Account{}
		for a, account := range state.All() {
			stored[a] = account
		}
		for layer := types.Layer(20); layer < 24; layer++ {
			b := Block{Layer: layer, Txs: drawTxs(t, signers), Rewards: drawShares(t, signers)}
			out := Apply(state, b, p)
			again := Apply(state, b, p)
			if out.State.Root() != again.State.Root() {
				t.Fatal("the same block gave two states")
			}
			checkResults(t, b, out, state)
			total += out.Issued - out.Burnt
			if got := supply(out.State); got != total {
				t.Fatalf("layer %d: there are %d, there should be %d", layer, got, total)
			}
			for _, e := range out.Changed {
				stored[e.Address] = e.Account
			}
			state = out.State
		}
		var entries []Entry
		for a, account := range stored {
			entries = append(entries, Entry{a, account})
		}
		if restored, err := Restore(entries); err != nil || restored.Root() != state.Root() {
			t.Fatalf("stored accounts give another root: %v", err)
		}
	})
}

func checkResults(t *rapid.T, b Block, out Outcome, before State) {
	if len(out.Results) != len(b.Txs) || len(out.Rewards) != len(b.Rewards) {
		t.Fatal("results are not parallel to the block")
	}
	effective := false
	for i, r := range out.Results {
		if r.ID != b.Txs[i].ID || (r.Reason == "") != (r.Status == Success) {
			t.Fatalf("result %+v", r)
		}
		if r.Status == Ineffective && (r.Fee != 0 || r.Gas != 0) {
			t.Fatalf("charged without effect: %+v", r)
		}
		effective = effective || r.Status != Ineffective
	}
	for _, e := range out.Changed { // whoever has the root can check an account
		leaf, present, err := out.State.Prove(e.Address).Verify(out.State.Root(), e.Address)
		if err != nil || !present || leaf != e.Account.LeafHash() {
			t.Fatalf("account %x is not proved: %v, %v", e.Address, present, err)
		}
	}
	var paid uint64
	for _, r := range out.Rewards {
		paid += r.Total
	}
	if !effective && paid == 0 && (out.State.Root() != before.Root() || len(out.Changed) != 0) {
		t.Fatal("a block without effect changed the state")
	}
}

func drawTxs(t *rapid.T, signers []*signing.Signer) (txs []Tx) {
	add := func(raw types.Transaction) {
		if tx, err := Parse(raw); err == nil {
			txs = append(txs, tx)
		}
	}
	for range rapid.IntRange(0, 8).Draw(t, "txs") {
		s := rapid.SampledFrom(signers).Draw(t, "signer")
		to := rapid.SampledFrom(signers).Draw(t, "to")
		nonce := rapid.Uint64Range(0, 6).Draw(t, "nonce")
		price := rapid.SampledFrom([]uint64{0, 1, 2, 1 << 62}).Draw(t, "price")
		amount := rapid.SampledFrom([]uint64{0, 1, 1000, 1 << 49, 1 << 63}).Draw(t, "amount")
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			add(Spawn(s, nonce, price))
		case 1:
			add(sign(s, Tx{Principal: addressOf(s), Nonce: nonce, GasPrice: price,
				Template: WalletTemplate(), spawn: wallet{to.NodeID()}}))
		case 2:
			add(Spend(s, addressOf(to), amount, nonce, price))
		case 3:
			raw := Spend(s, types.Address{20: byte(nonce)}, amount, nonce, price)
			raw[rapid.IntRange(0, len(raw)-1).Draw(t, "at")] ^= 1
			add(raw)
		}
	}
	return txs
}

func drawShares(t *rapid.T, signers []*signing.Signer) []Share {
	var shares []Share
	for range rapid.IntRange(0, 3).Draw(t, "shares") {
		shares = append(shares, Share{
			Coinbase: addressOf(rapid.SampledFrom(signers).Draw(t, "coinbase")),
			Num:      rapid.Uint64Range(0, 5).Draw(t, "num"), Den: rapid.Uint64Range(0, 5).Draw(t, "den"),
		})
	}
	return shares
}
