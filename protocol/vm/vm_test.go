package vm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

func testNetwork() types.GenesisID { return types.GenesisID{1, 2, 3} }

func testParams() Params {
	p := LocalParams()
	p.Network = testNetwork()
	for i := range 3 {
		s, err := signing.NewSigner(signing.SeedFrom(fmt.Sprint("founder ", i)), p.Network)
		if err != nil {
			panic(err)
		}
		p.Genesis = append(p.Genesis, GenesisAccount{addressOf(s), 100_000_000 * Smidges})
	}
	return p
}

func key(t testing.TB, name string) *signing.Signer {
	t.Helper()
	s, err := signing.NewSigner(signing.SeedFrom(name), testNetwork())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func addressOf(s *signing.Signer) types.Address { return WalletAddress(s.NodeID()) }

func genesis(t testing.TB, p Params) State {
	t.Helper()
	s, err := Genesis(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rich returns a state in which the signers are spawned and have the balance.
func rich(t testing.TB, balance uint64, signers ...*signing.Signer) State {
	t.Helper()
	var entries []Entry
	for _, s := range signers {
		k := s.NodeID()
		entries = append(entries, Entry{addressOf(s), Account{
			NextNonce: 1, Balance: balance, Template: WalletTemplate(), State: k[:],
		}})
	}
	state, err := Restore(entries)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func supply(s State) uint64 {
	var sum uint64
	for _, a := range s.All() {
		sum += a.Balance
	}
	return sum
}

// read is what a node does with transactions when they come.
func read(raws ...types.Transaction) (txs []Tx) {
	for _, raw := range raws {
		tx, err := Parse(raw)
		if err != nil {
			panic(err)
		}
		txs = append(txs, tx)
	}
	return txs
}

func validate(raw types.Transaction, s State, p Params) (Valid, error) {
	tx, err := Parse(raw)
	if err != nil {
		return Valid{}, err
	}
	return Validate(tx, s, p)
}

// Frozen: wire form, ids, address rule, gas and root. A change here is a
// change of protocol.
func TestTransactionsAndRootsAreFrozen(t *testing.T) {
	alice, bob := key(t, "alice"), key(t, "bob")
	spawn, spend := Spawn(alice, 0, 1), Spend(alice, addressOf(bob), 1_000_000, 1, 1)
	state := genesis(t, testParams())
	for name, pair := range map[string][2]string{
		"alice":      {addressOf(alice).Bech32("stest"), "stest1qqqqqqxg90ffxv9c2608938ng6drpl37e2j9njsqq6g9g"},
		"spawn body": {hex.EncodeToString(spawn[:len(spawn)-64]), "0000000000c82bd29330b8569e72c4f3469a30fe3ecaa459ca000000000000000000000000000000000000000000000000010004368487f6627ecabec31bbfa484d3cd358e752bf88f7c765987faaf0b7edf2701"},
		"spawn id":   {spawn.ID().String(), "ce68bf9f2041bc8e8b77ce0d5da75379865584be2329ecd61db22119def13d47"},
		"spend body": {hex.EncodeToString(spend[:len(spend)-64]), "0000000000c82bd29330b8569e72c4f3469a30fe3ecaa459ca40040400000000685547345676045cf7cc8b88a17e4cc03ab9eaba02093d00"},
		"spend id":   {spend.ID().String(), "8f86d64ce10839d8cb365e3d9590756a51e141ed10edea63d5642e7b8acb67b2"},
		"a genesis":  {state.Root().String(), "f08c8d582477aa4dd36ab436c1afbc2fcfa1fcdc8610ccb3d2d7facb212614a7"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %s", name, pair[0])
		}
	}
	out := Apply(rich(t, 1<<40, alice), Block{Layer: 20, Txs: read(spend)}, testParams())
	if got := out.State.Root().String(); got != "a2be728628a2648f9a690dda045c07386ea48cc6a8ce7e2ae729c5096a19075a" {
		t.Errorf("root after a spend: %s", got)
	}
}

// reference/protocol.md A15 and E: 3000 plain spends fill a mainnet block.
func TestGasIsThatOfThePublishedTable(t *testing.T) {
	alice, bob := key(t, "alice"), key(t, "bob")
	state := rich(t, 1<<40, alice)
	spend, err := validate(Spend(alice, addressOf(bob), 1_000_000, 1, 1), state, testParams())
	if err != nil {
		t.Fatal(err)
	}
	if spend.Gas.Max != 33_369 || MainnetParams().BlockGasLimit/spend.Gas.Max != 3000 {
		t.Errorf("a spend takes %d gas", spend.Gas.Max)
	}
	state, err = Restore([]Entry{{addressOf(bob), Account{Balance: 1 << 40}}})
	if err != nil {
		t.Fatal(err)
	}
	spawn, err := validate(Spawn(bob, 0, 1), state, testParams())
	if err != nil {
		t.Fatal(err)
	}
	// 53,000 for the call, 30,000 for six words of state, 19 words of data.
	if want := uint64(53_000 + 30_000 + 19*128); spawn.Gas.Max != want || len(spawn.Raw) != 148 {
		t.Errorf("a spawn of %d bytes takes %d gas, want %d", len(spawn.Raw), spawn.Gas.Max, want)
	}
}

func TestAnAccountIsSpawnedThenSpends(t *testing.T) {
	p := testParams()
	founder, bob := key(t, "founder 0"), key(t, "bob")
	before := genesis(t, p)
	out := Apply(before, Block{Layer: 20, Txs: read(
		Spawn(founder, 0, 2), Spend(founder, addressOf(bob), 500, 7, 3), // gaps in nonces are allowed
	)}, p)
	for i, r := range out.Results {
		if r.Status != Success || r.Reason != "" || r.Layer != 20 {
			t.Fatalf("transaction %d: %+v", i, r)
		}
	}
	if want := []types.Address{addressOf(founder), addressOf(bob)}; !slices.Equal(out.Results[1].Addresses, want) {
		t.Errorf("names %x", out.Results[1].Addresses)
	}
	if r := out.Results[1]; r.Fee != 3*r.Gas || r.Gas == 0 {
		t.Errorf("fee %d for gas %d at price 3", r.Fee, r.Gas)
	}
	account := out.State.Account(addressOf(founder))
	spent := 500 + out.Results[0].Fee + out.Results[1].Fee
	if account.NextNonce != 8 || account.Balance != p.Genesis[0].Balance-spent {
		t.Errorf("payer is left with %+v", account)
	}
	if out.State.Account(addressOf(bob)).Balance != 500 {
		t.Error("recipient got something else")
	}
	if before.Account(addressOf(founder)).NextNonce != 0 || before.Root() != genesis(t, p).Root() {
		t.Error("the old state changed")
	}
}

// Each of these is refused on submission and passed over in a block, for the
// same reason, and changes nothing.
func TestATransactionWithoutEffectSaysWhyAndChangesNothing(t *testing.T) {
	p := testParams()
	alice, bob, carol := key(t, "alice"), key(t, "bob"), key(t, "carol")
	to := addressOf(bob)
	state := rich(t, 1_000_000, alice)
	stranger, err := signing.NewSigner(signing.SeedFrom("alice"), types.GenesisID{9})
	if err != nil {
		t.Fatal(err)
	}
	good := Spend(alice, to, 1, 1, 1)
	change := func(at int, b byte) types.Transaction {
		raw := slices.Clone(good)
		raw[at] = b
		return raw
	}
	for name, tc := range map[string]struct {
		raw  types.Transaction
		want error
		says string
	}{
		"nothing":              {nil, ErrMalformed, "ends inside"},
		"half":                 {good[:40], ErrMalformed, "ends inside"},
		"another version":      {change(0, 4), ErrMalformed, "version 1"},
		"another method":       {change(25, 3<<2), ErrMalformed, "method 3"},
		"too long":             {append(slices.Clone(good), make([]byte, 1000)...), ErrMalformed, "limit of 1024"},
		"unreserved recipient": {Spend(alice, types.Address{1}, 1, 1, 1), ErrMalformed, "not the address"},
		"last nonce":           {Spend(alice, to, 1, math.MaxUint64, 1), ErrMalformed, "no successor"},
		"unknown template": {sign(alice, Tx{Principal: addressOf(alice), Template: types.Address{23: 9}, GasPrice: 1,
			spawn: wallet{alice.NodeID()}}), ErrMalformed, "template"},
		"no gas price":       {Spend(alice, to, 1, 1, 0), ErrGasPrice, "at least 1"},
		"old nonce":          {Spend(alice, to, 1, 0, 1), ErrNonce, "next one is 1"},
		"not spawned":        {Spend(bob, to, 1, 0, 1), ErrNotSpawned, "spawn"},
		"price over balance": {Spend(alice, to, 1, 1, 1000), ErrBalance, "does not pay"},
		"price overflows":    {Spend(alice, to, 1, 1, math.MaxUint64), ErrBalance, "does not pay"},
		"wrong signature":    {change(len(good)-1, good[len(good)-1]^1), ErrSignature, ""},
		"short signature":    {good[:len(good)-1], ErrSignature, ""},
		"longer signature":   {append(slices.Clone(good), 0), ErrSignature, ""},
		"wrong network":      {Spend(stranger, to, 1, 1, 1), ErrSignature, "another network"},
		"another's account": {sign(carol, Tx{Principal: addressOf(alice), Method: MethodSpend, Nonce: 1, GasPrice: 1,
			To: to, Amount: 1}), ErrSignature, ""},
	} {
		_, err := validate(tc.raw, state, p)
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: refused with %v", name, err)
			continue
		}
		if errors.Is(err, ErrMalformed) {
			continue // what cannot be read is not part of a block
		}
		out := Apply(state, Block{Layer: 20, Txs: read(tc.raw)}, p)
		if r := out.Results[0]; r.Status != Ineffective || r.Reason != err.Error() || r.Fee != 0 || r.Gas != 0 || r.ID != tc.raw.ID() {
			t.Errorf("%s: in a block it is %+v", name, r)
		}
		if out.State.Root() != state.Root() || len(out.Changed) != 0 {
			t.Errorf("%s: state changed", name)
		}
	}
	if _, err := validate(good, state, p); err != nil {
		t.Fatalf("the good one is refused: %v", err)
	}
}

func TestAFailedTransactionPaysItsFeeAndDoesNothingElse(t *testing.T) {
	p := testParams()
	p.EffectiveGenesis = 1000 // no subsidy: one case has all the money there can be
	alice, bob := key(t, "alice"), key(t, "bob")
	to := addressOf(bob)
	for name, tc := range map[string]struct {
		balance uint64
		raw     types.Transaction
		fee     uint64
		reason  error
	}{
		"amount over balance":     {1_000_000, Spend(alice, to, 1_000_000, 5, 1), 33_369, errAmount},
		"gas over balance":        {30_000, Spend(alice, to, 0, 5, 1), 30_000, errCannotPay},
		"spawned twice":           {1_000_000, Spawn(alice, 5, 2), 2 * 85_432, ErrSpawned},
		"amount and fee overflow": {1_000_000, Spend(alice, to, math.MaxUint64, 5, 1), 33_497, errAmount},
		"fee is over 64 bits":     {math.MaxUint64, Spend(alice, to, 1, 5, math.MaxUint64/30_000), math.MaxUint64, errCannotPay},
	} {
		state := rich(t, tc.balance, alice)
		if _, err := validate(tc.raw, state, p); !errors.Is(err, ErrBalance) && !errors.Is(err, ErrSpawned) {
			t.Errorf("%s: admitted with %v", name, err)
		}
		out := Apply(state, Block{Layer: 20, Txs: read(tc.raw)}, p)
		if r := out.Results[0]; r.Status != Failure || r.Fee != tc.fee || r.Reason != tc.reason.Error() {
			t.Errorf("%s: %+v", name, r)
		}
		account := out.State.Account(addressOf(alice))
		if account.Balance != tc.balance-tc.fee || account.NextNonce != 6 || out.State.Account(to).Balance != 0 {
			t.Errorf("%s: leaves %+v", name, account)
		}
		if len(out.Changed) != 1 {
			t.Errorf("%s: %d accounts changed", name, len(out.Changed))
		}
	}
}

func TestBlockGasIsNotExceededAndSmallerTransactionsStillFit(t *testing.T) {
	p := testParams()
	alice, bob := key(t, "alice"), key(t, "bob")
	state, err := Restore([]Entry{
		{addressOf(alice), rich(t, 1<<40, alice).Account(addressOf(alice))},
		{addressOf(bob), Account{Balance: 1 << 40}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.BlockGasLimit = 2 * 33_369
	spend := func(nonce uint64) types.Transaction { return Spend(alice, addressOf(bob), 1_000_000, nonce, 1) }
	out := Apply(state, Block{Layer: 20, Txs: read(
		spend(1), Spawn(bob, 0, 1), spend(2), spend(3))}, p)
	var got []Status
	for _, r := range out.Results {
		got = append(got, r.Status)
	}
	if want := []Status{Success, Ineffective, Success, Ineffective}; !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if out.Results[3].Reason != ErrBlockGas.Error() {
		t.Errorf("reason %q", out.Results[3].Reason)
	}
}

func TestOneAccountSpawnsAnother(t *testing.T) {
	p := testParams()
	alice, bob := key(t, "alice"), key(t, "bob")
	raw := sign(alice, Tx{Principal: addressOf(alice), Nonce: 1, GasPrice: 1, Template: WalletTemplate(), spawn: wallet{bob.NodeID()}})
	out := Apply(rich(t, 1<<40, alice), Block{Layer: 20, Txs: read(raw)}, p)
	if r := out.Results[0]; r.Status != Success || !slices.Equal(r.Addresses, []types.Address{addressOf(alice), addressOf(bob)}) {
		t.Fatalf("%+v", r)
	}
	if a := out.State.Account(addressOf(bob)); !a.Spawned() || a.NextNonce != 0 {
		t.Fatalf("spawned %+v", a)
	}
	// Somebody who is not spawned cannot do that.
	raw = sign(bob, Tx{Principal: addressOf(bob), GasPrice: 1, Template: WalletTemplate(), spawn: wallet{alice.NodeID()}})
	if _, err := validate(raw, genesis(t, p), p); !errors.Is(err, ErrNotSpawned) {
		t.Fatal(err)
	}
}

func TestParametersThatCannotWorkAreRefused(t *testing.T) {
	if err := MainnetParams().Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Params){
		"no prefix":         func(p *Params) { p.HRP = "" },
		"no block gas":      func(p *Params) { p.BlockGasLimit = 0 },
		"no issuance time":  func(p *Params) { p.Economics.FifthLayers = 0 },
		"one address twice": func(p *Params) { p.Genesis = append(p.Genesis, p.Genesis[0]) },
		"more than 64 bits": func(p *Params) { p.Genesis[0].Balance = math.MaxUint64 - 1 },
		"more with subsidy": func(p *Params) { p.Economics.TotalSubsidy = math.MaxUint64 - 1000 },
	} {
		p := testParams()
		change(&p)
		if _, err := Genesis(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, entries := range map[string][]Entry{
		"stored twice":     {{}, {}},
		"unknown template": {{Account: Account{Template: types.Address{23: 9}}}},
		"short state":      {{Account: Account{Template: WalletTemplate(), State: make([]byte, 31)}}},
		"long state":       {{Account: Account{Template: WalletTemplate(), State: make([]byte, 33)}}},
		"state of nobody":  {{Account: Account{State: make([]byte, 32)}}},
	} {
		if _, err := Restore(entries); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	alice, bob := key(f, "alice"), key(f, "bob")
	f.Add([]byte(Spawn(alice, 0, 1)))
	f.Add([]byte(Spend(alice, addressOf(bob), 1<<40, 1<<20, 1<<63)))
	f.Add([]byte{})
	state := rich(f, 1<<40, alice)
	p := testParams()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if tx, err := Parse(raw); err == nil && !bytes.Equal(codec.Encode(tx), raw) {
			t.Fatalf("%x is read as %x", raw, codec.Encode(tx))
		}
		tx, err := Parse(raw)
		if err != nil {
			return
		}
		_, err = Validate(tx, state, p)
		out := Apply(state, Block{Layer: 20, Txs: []Tx{tx}}, p)
		if err == nil && out.Results[0].Status != Success {
			t.Fatalf("validated, then %+v", out.Results[0])
		}
	})
}

func FuzzAccount(f *testing.F) {
	f.Add(codec.Encode(Account{1, 2, WalletTemplate(), make([]byte, 32)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Account
		if codec.Decode(b, &a) == nil && !bytes.Equal(codec.Encode(a), b) {
			t.Fatalf("%x is read as %x", b, codec.Encode(a))
		}
	})
}

// A mainnet block that is full of spends between accounts that are spawned.
func BenchmarkApplySpends(b *testing.B) {
	p := testParams()
	var signers []*signing.Signer
	for i := range 3000 {
		signers = append(signers, key(b, fmt.Sprint("payer ", i)))
	}
	state := rich(b, 1<<40, signers...)
	var others []Entry
	for i := range 100_000 {
		others = append(others, Entry{types.DeriveAddress(types.Address{}, fmt.Append(nil, i)), Account{Balance: 1}})
	}
	slices.SortFunc(others, func(a, b Entry) int { return a.Address.Compare(b.Address) })
	state = state.with(others)
	block := Block{Layer: 20}
	for i, s := range signers {
		block.Txs = append(block.Txs, read(Spend(s, others[i].Address, 1_000_000, 1, 1))...)
	}
	for b.Loop() {
		out := Apply(state, block, p)
		if out.Results[2999].Status != Success {
			b.Fatal(out.Results[2999].Reason)
		}
	}
	b.ReportMetric(float64(len(block.Txs)*b.N)/b.Elapsed().Seconds(), "tx/s")
}

// A signature is looked at once, by whoever comes first; that it is right stays
// with the transaction. Bytes that change afterwards show who looks again.
func TestASignatureIsLookedAtOnce(t *testing.T) {
	p := testParams()
	alice := key(t, "alice")
	state := rich(t, 1<<40, alice)
	spoil := func(tx Tx) Tx { tx.Raw[len(tx.Raw)-1] ^= 1; return tx }
	block := func(tx Tx) Result { return Apply(state, Block{Layer: 20, Txs: []Tx{tx}}, p).Results[0] }
	fresh := func() Tx { return read(Spend(alice, types.Address{23: 1}, 1, 1, 1))[0] }

	if r := block(spoil(fresh())); r.Status != Ineffective {
		t.Errorf("a wrong signature that nobody looked at: %+v", r)
	}
	v, err := Validate(fresh(), state, p)
	if err != nil {
		t.Fatal(err)
	}
	if r := block(spoil(v.Tx)); r.Status != Success {
		t.Errorf("validated, and looked at again in a block: %s", r.Reason)
	}
	tx := fresh()
	if err := VerifySignature(&tx, state.Account(tx.Principal), p.Network); err != nil {
		t.Fatal(err)
	}
	if _, err := Validate(spoil(tx), state, p); err != nil {
		t.Errorf("verified, and looked at again by the pool: %v", err)
	}

	wrong := spoil(fresh())
	if err := VerifySignature(&wrong, state.Account(wrong.Principal), p.Network); !errors.Is(err, ErrSignature) {
		t.Errorf("a wrong signature: %v", err)
	}
	unknown := spoil(fresh())
	if err := VerifySignature(&unknown, Account{}, p.Network); err != nil {
		t.Errorf("nobody knows whose keys: %v", err)
	}
	if _, err := Validate(unknown, state, p); !errors.Is(err, ErrSignature) {
		t.Errorf("what could not be told is not looked at later: %v", err)
	}
	spawn := spoil(read(Spawn(key(t, "bob"), 0, 1))[0])
	if err := VerifySignature(&spawn, Account{}, p.Network); !errors.Is(err, ErrSignature) {
		t.Errorf("a spawn says itself who signs: %v", err)
	}
}
