package txpool

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

func params() vm.Params {
	p := vm.LocalParams()
	p.Network = types.GenesisID{7}
	p.EffectiveGenesis = 1 << 31 // no subsidy: balances are what tests say
	return p
}

func signer(t testing.TB, i int) *signing.Signer {
	t.Helper()
	s, err := signing.NewSigner(signing.SeedFrom(fmt.Sprint("payer ", i)), params().Network)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func address(s *signing.Signer) types.Address { return vm.WalletAddress(s.NodeID()) }

// funded returns a state in which the first n signers are spawned.
func funded(t testing.TB, n int, balance uint64) vm.State {
	t.Helper()
	var entries []vm.Entry
	for i := range n {
		k := signer(t, i).NodeID()
		entries = append(entries, vm.Entry{Address: vm.WalletAddress(k), Account: vm.Account{
			NextNonce: 1, Balance: balance, Template: vm.WalletTemplate(), State: k[:],
		}})
	}
	s, err := vm.Restore(entries)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// spendGas is what the spends of these tests take, by the published table.
const spendGas = 33_369

// spend moves one smidge.
func spend(t testing.TB, from int, nonce, price uint64) types.Transaction {
	t.Helper()
	return vm.Spend(signer(t, from), types.Address{23: 9}, 1, nonce, price)
}

// offer reads a transaction and adds it.
func offer(p *Pool, raw types.Transaction) ([]vm.Tx, error) {
	tx, err := vm.Parse(raw)
	if err != nil {
		return nil, err
	}
	return p.Add(tx)
}

func read(raws ...types.Transaction) (txs []vm.Tx) {
	for _, raw := range raws {
		tx, err := vm.Parse(raw)
		if err != nil {
			panic(err)
		}
		txs = append(txs, tx)
	}
	return txs
}

func names(txs []vm.Tx) (list []types.TransactionID) {
	for _, tx := range txs {
		list = append(list, tx.ID)
	}
	return list
}

func add(t *testing.T, p *Pool, raw types.Transaction) []types.TransactionID {
	t.Helper()
	evicted, err := offer(p, raw)
	if err != nil {
		t.Fatal(err)
	}
	return names(evicted)
}

func refuse(t *testing.T, p *Pool, raw types.Transaction, want error) {
	t.Helper()
	n, size := p.Len(), p.Bytes()
	evicted, err := offer(p, raw)
	if !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("refused with %v, want %v", err, want)
	}
	if p.Len() != n || p.Bytes() != size || evicted != nil {
		t.Fatal("a refused transaction changed the pool")
	}
	checkInvariants(t, p)
}

func ids(txs ...types.Transaction) []types.TransactionID {
	var list []types.TransactionID
	for _, tx := range txs {
		list = append(list, tx.ID())
	}
	return list
}

// checkInvariants compares every index with the transactions themselves.
func checkInvariants(t interface {
	Helper()
	Fatalf(string, ...any)
}, p *Pool) {
	t.Helper()
	size, n := 0, 0
	for a, q := range p.accounts {
		var cost uint64
		for i, e := range q.entries {
			if e.Principal != a || (i > 0 && q.entries[i-1].Nonce >= e.Nonce) {
				t.Fatalf("queue of %x is out of order", a)
			}
			if p.byID[e.ID] != e || p.cheapest[e.place] != e {
				t.Fatalf("%s is not in every index", e.ID)
			}
			size, n, cost = size+len(e.Raw), n+1, cost+e.Cost
		}
		if len(q.entries) == 0 || q.cost != cost || cost > p.state.Account(a).Balance || len(q.entries) > p.limits.PerAccount {
			t.Fatalf("queue of %x: %d transactions cost %d, noted %d", a, len(q.entries), cost, q.cost)
		}
	}
	if size != p.bytes || n != len(p.byID) || n != len(p.cheapest) || n > p.limits.Transactions || size > p.limits.Bytes {
		t.Fatalf("%d transactions of %d bytes, noted %d of %d", n, size, len(p.byID), p.bytes)
	}
}

func TestWhatTheLedgerRefusesThePoolRefuses(t *testing.T) {
	p := New(funded(t, 1, 1<<40), params(), DefaultLimits())
	refuse(t, p, types.Transaction{1}, vm.ErrMalformed)
	refuse(t, p, spend(t, 0, 0, 1), vm.ErrNonce)
	refuse(t, p, spend(t, 0, 1, 0), vm.ErrGasPrice)
	refuse(t, p, spend(t, 0, 1, 1<<62), vm.ErrBalance)
	refuse(t, p, spend(t, 1, 1, 1), vm.ErrNotSpawned)
	bad := spend(t, 0, 1, 1)
	bad[len(bad)-1] ^= 1
	refuse(t, p, bad, vm.ErrSignature)
	good := spend(t, 0, 1, 1)
	add(t, p, good)
	refuse(t, p, good, ErrKnown)
	if v, ok := p.Get(good.ID()); !ok || v.Cost != spendGas+1 {
		t.Fatalf("holds %+v", v)
	}
}

func TestTheBestPriceOfANonceWaits(t *testing.T) {
	p := New(funded(t, 1, 1<<40), params(), DefaultLimits())
	first := spend(t, 0, 1, 100)
	add(t, p, first)
	refuse(t, p, spend(t, 0, 1, 99), ErrUnderpriced)
	refuse(t, p, spend(t, 0, 1, 109), ErrUnderpriced)
	better := spend(t, 0, 1, 110)
	if evicted := add(t, p, better); !slices.Equal(evicted, ids(first)) {
		t.Fatalf("replaced %v", evicted)
	}
	// A tenth of one is rounded up.
	add(t, p, spend(t, 0, 2, 1))
	add(t, p, spend(t, 0, 2, 2))
	checkInvariants(t, p)
	if p.Len() != 2 {
		t.Fatalf("%d wait", p.Len())
	}
}

func TestTheBalanceMustCoverEverythingThatWaits(t *testing.T) {
	const cost = spendGas + 1
	p := New(funded(t, 1, 2*cost+5), params(), DefaultLimits())
	add(t, p, spend(t, 0, 1, 1))
	add(t, p, spend(t, 0, 9, 1)) // a gap in nonces
	if nonce, balance := p.Projected(address(signer(t, 0))); nonce != 10 || balance != 5 {
		t.Fatalf("projected nonce %d, balance %d", nonce, balance)
	}
	refuse(t, p, spend(t, 0, 5, 1), ErrPending)
	refuse(t, p, spend(t, 0, 9, 2), ErrPending)
	if nonce, balance := p.Projected(types.Address{23: 9}); nonce != 0 || balance != 0 {
		t.Fatalf("an account that nobody knows is projected at %d, %d", nonce, balance)
	}
}

func TestAnAccountHasALimit(t *testing.T) {
	for _, limit := range []int{1, 2} {
		p := New(funded(t, 2, 1<<40), params(), Limits{PerAccount: limit, Transactions: 100, Bytes: 1 << 20})
		for i := range limit {
			add(t, p, spend(t, 0, uint64(1+i), 1))
		}
		refuse(t, p, spend(t, 0, 50, 1000), ErrAccountFull)
		add(t, p, spend(t, 0, 1, 2)) // replacing is no addition
		add(t, p, spend(t, 1, 1, 1))
		checkInvariants(t, p)
	}
}

func TestTheCheapestLeavesAFullPoolTheLatestOfSeveral(t *testing.T) {
	p := New(funded(t, 4, 1<<40), params(), Limits{PerAccount: 9, Transactions: 1, Bytes: 1 << 20})
	first, better := spend(t, 0, 1, 5), spend(t, 1, 1, 6)
	add(t, p, first)
	refuse(t, p, spend(t, 1, 1, 5), ErrPoolFull)
	if evicted := add(t, p, better); !slices.Equal(evicted, ids(first)) {
		t.Fatalf("evicted %v", evicted)
	}
	replacing := spend(t, 1, 1, 7)
	if evicted := add(t, p, replacing); !slices.Equal(evicted, ids(better)) {
		t.Fatalf("evicted %v", evicted)
	}

	p = New(funded(t, 4, 1<<40), params(), Limits{PerAccount: 9, Transactions: 2, Bytes: 1 << 20})
	early, late := spend(t, 0, 1, 5), spend(t, 1, 1, 5)
	add(t, p, early)
	add(t, p, late)
	third := spend(t, 2, 1, 6)
	if evicted := add(t, p, third); !slices.Equal(evicted, ids(late)) {
		t.Fatalf("evicted %v", evicted)
	}
	if evicted := add(t, p, spend(t, 3, 1, 7)); !slices.Equal(evicted, ids(early)) {
		t.Fatalf("evicted %v", evicted)
	}
	refuse(t, p, spend(t, 0, 1, 6), ErrPoolFull)
	checkInvariants(t, p)
}

func TestBytesAreLimitedAndARefusalEvictsNobody(t *testing.T) {
	size := len(spend(t, 0, 1, 1))
	p := New(funded(t, 20, 1<<40), params(), Limits{PerAccount: 9, Transactions: 1000, Bytes: types.MaxTransactionSize})
	fit := types.MaxTransactionSize / size
	for i := range fit {
		add(t, p, spend(t, i, 1, uint64(1+i)))
	}
	add(t, p, spend(t, 15, 1, 2)) // makes the only one at price 1 leave
	if p.Len() != fit {
		t.Fatalf("%d wait, %d fit", p.Len(), fit)
	}

	// A larger one needs the room of two and outbids one of them only.
	p = New(funded(t, 2, 1<<62), params(), Limits{PerAccount: 9, Transactions: 1000, Bytes: types.MaxTransactionSize})
	add(t, p, spend(t, 0, 1, 1))
	add(t, p, spend(t, 0, 2, 1<<20))
	p.limits.Bytes = p.bytes
	large := vm.Spend(signer(t, 1), types.Address{23: 9}, 1<<40, 1<<40, 1000)
	if len(large) <= size {
		t.Fatal("the large one is not larger")
	}
	refuse(t, p, large, ErrPoolFull)
}

func TestAppliedTransactionsAndWhatTheyMadeImpossibleLeave(t *testing.T) {
	const cost = spendGas + 1
	state := funded(t, 3, 3*cost)
	p := New(state, params(), DefaultLimits())
	applied, next, last := spend(t, 0, 1, 1), spend(t, 0, 2, 1), spend(t, 0, 3, 1)
	other := spend(t, 1, 1, 1)
	for _, tx := range []types.Transaction{applied, next, last, other} {
		add(t, p, tx)
	}
	// A block has the first, and one that takes money of the second and that
	// this pool never saw.
	unseen := vm.Spend(signer(t, 1), address(signer(t, 2)), 100, 1, 1)
	out := vm.Apply(state, vm.Block{Txs: read(applied, unseen)}, params())
	dropped := names(p.Applied(out.State))
	want := ids(applied, other)
	slices.SortFunc(want, func(a, b types.TransactionID) int { return slices.Compare(a[:], b[:]) })
	if !slices.Equal(dropped, want) {
		t.Fatalf("dropped %v, want %v", dropped, want)
	}
	checkInvariants(t, p)

	// The account loses what the last one needs.
	entries := []vm.Entry{}
	for a, account := range out.State.All() {
		if a == address(signer(t, 0)) {
			account.Balance = cost
		}
		entries = append(entries, vm.Entry{Address: a, Account: account})
	}
	poorer, err := vm.Restore(entries)
	if err != nil {
		t.Fatal(err)
	}
	if dropped := names(p.Applied(poorer)); !slices.Equal(dropped, ids(last)) {
		t.Fatalf("dropped %v, want the last one", dropped)
	}

	// The chain goes back: what was applied waits again.
	if dropped := p.Reverted(state, read(applied, unseen)); len(dropped) != 0 {
		t.Fatalf("reverting dropped %v", dropped)
	}
	for _, tx := range []types.Transaction{applied, next, unseen} {
		if _, ok := p.Get(tx.ID()); !ok {
			t.Fatalf("%s does not wait after reverting", tx.ID())
		}
	}
	checkInvariants(t, p)
}

func TestAPassedOverTransactionStays(t *testing.T) {
	state := funded(t, 1, 1<<40)
	p := New(state, params(), DefaultLimits())
	tx := spend(t, 0, 1, 1)
	add(t, p, tx)
	small := params()
	small.BlockGasLimit = 1
	out := vm.Apply(state, vm.Block{Txs: read(tx)}, small)
	if dropped := p.Applied(out.State); dropped != nil || p.Len() != 1 {
		t.Fatalf("dropped %v", dropped)
	}
}

// Whatever happens, all that waits can be executed together.
func TestEverythingThatWaitsCanBeExecuted(t *testing.T) {
	genesis := funded(t, 3, 20*spendGas)
	rules := params()
	rapid.Check(t, func(t *rapid.T) {
		state, history := genesis, []vm.State{}
		var undone [][]vm.Tx
		p := New(state, rules, Limits{
			PerAccount: rapid.IntRange(1, 4).Draw(t, "per account"), Transactions: rapid.IntRange(1, 6).Draw(t, "count"), Bytes: 1 << 20,
		})
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0: // a block of some of them is applied
				var txs []vm.Tx
				for _, v := range p.Select(types.Hash32{1}, rapid.IntRange(0, 3).Draw(t, "block")) {
					txs = append(txs, v.Tx)
				}
				history, undone = append(history, state), append(undone, txs)
				out := vm.Apply(state, vm.Block{Txs: txs}, rules)
				for _, r := range out.Results {
					if r.Status != vm.Success {
						t.Fatalf("waited, but: %s", r.Reason)
					}
				}
				state = out.State
				p.Applied(state)
			case 1: // the last block is undone
				if last := len(history) - 1; last >= 0 {
					state = history[last]
					p.Reverted(state, undone[last])
					history, undone = history[:last], undone[:last]
				}
			default:
				s, err := signing.NewSigner(signing.SeedFrom(fmt.Sprint("payer ", rapid.IntRange(0, 2).Draw(t, "from"))), rules.Network)
				if err != nil {
					t.Fatal(err)
				}
				raw := vm.Spend(s, address(s), rapid.Uint64Range(0, 3*spendGas).Draw(t, "amount"),
					rapid.Uint64Range(1, 6).Draw(t, "nonce"), rapid.Uint64Range(1, 4).Draw(t, "price"))
				_, known := p.Get(raw.ID())
				evicted, err := offer(p, raw)
				if _, now := p.Get(raw.ID()); now != (err == nil || known) {
					t.Fatalf("added with %v, waits: %v", err, now)
				}
				for _, gone := range evicted {
					if _, ok := p.Get(gone.ID); ok {
						t.Fatal("evicted and still there")
					}
				}
			}
			checkInvariants(t, p)
		}
	})
}

func FuzzAdd(f *testing.F) {
	state := funded(f, 2, 1<<40)
	f.Add([]byte(spend(f, 0, 1, 1)))
	f.Add([]byte(spend(f, 1, 1<<40, 1<<63)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := New(state, params(), Limits{PerAccount: 1, Transactions: 1, Bytes: 2000})
		add(t, p, spend(t, 0, 1, 5))
		_, _ = offer(p, raw)
		checkInvariants(t, p)
	})
}

func BenchmarkPool(b *testing.B) {
	const accounts, each = 500, 100
	state := funded(b, accounts, 1<<50)
	var txs []types.Transaction
	for i := range accounts {
		for n := range each {
			txs = append(txs, spend(b, i, uint64(1+n), uint64(1+(i*7+n)%50)))
		}
	}
	full := New(state, params(), DefaultLimits())
	for _, tx := range txs {
		if _, err := offer(full, tx); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("Add", func(b *testing.B) {
		p := New(state, params(), DefaultLimits())
		i := 0
		for b.Loop() {
			if i == len(txs) {
				b.StopTimer()
				p, i = New(state, params(), DefaultLimits()), 0
				b.StartTimer()
			}
			if _, err := offer(p, txs[i]); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
	b.Run("Applied50000", func(b *testing.B) {
		for b.Loop() {
			full.Applied(state)
		}
	})
	b.Run("Select700of50000", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			full.Select(types.Hash32{byte(i), byte(i >> 8)}, 700)
		}
	})
	var parsed []vm.Tx
	for _, tx := range txs[:3000] {
		v, err := vm.Parse(tx)
		if err != nil {
			b.Fatal(err)
		}
		parsed = append(parsed, v)
	}
	b.Run("Order3000", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			Order(types.Hash32{byte(i)}, parsed)
		}
	})
}
