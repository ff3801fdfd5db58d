package testnet

import (
	"testing"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"

	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// pool is a node's view of the accounts: what is applied, and what waits.
type pool struct {
	t        *testing.T
	accounts map[types.Address]*poolAccount
}

type poolAccount struct {
	nonce   uint64 // next to be applied
	waiting uint64 // transactions in the pool
	balance uint64
}

func (p *pool) states(a *account) (current, projected *spacemesh.AccountState) {
	x := p.accounts[a.addr]
	current = &spacemesh.AccountState{Counter: x.nonce, Balance: &spacemesh.Amount{Value: x.balance}}
	return current, &spacemesh.AccountState{Counter: x.nonce + x.waiting}
}

// submit takes a transaction if it is the next of its account.
func (p *pool) submit(raw types.Transaction) bool {
	tx, err := vm.Parse(raw)
	if err != nil {
		p.t.Fatal(err)
	}
	from := p.accounts[tx.Principal]
	spawned := from.nonce > 0
	if tx.Nonce != from.nonce+from.waiting || from.balance < tx.Amount || spawned == (tx.Method == vm.MethodSpawn) {
		return false
	}
	from.waiting++
	from.balance -= tx.Amount
	p.accounts[tx.To].balance += tx.Amount
	return true
}

// apply puts all that waits into a block.
func (p *pool) apply() {
	for _, a := range p.accounts {
		a.nonce, a.waiting = a.nonce+a.waiting, 0
	}
}

// forget loses all that waits, as a node that was killed does.
func (p *pool) forget() {
	for _, a := range p.accounts {
		a.waiting = 0
	}
}

func newTestLoad(t *testing.T) (*load, *pool) {
	t.Helper()
	g, p := &load{}, &pool{t: t, accounts: map[types.Address]*poolAccount{}}
	for i := range loadAccounts + 1 {
		s, err := signing.NewSigner(signing.SeedFrom(string(rune('a'+i))), types.GenesisID{})
		if err != nil {
			t.Fatal(err)
		}
		a := &account{signer: s, addr: vm.WalletAddress(s.NodeID()), doubt: true}
		g.accounts = append(g.accounts, a)
		p.accounts[a.addr] = &poolAccount{}
	}
	p.accounts[g.accounts[0].addr].balance = faucetBalance
	return g, p
}

func TestTheLoadFundsSpawnsAndKeepsItsNoncesThroughLosses(t *testing.T) {
	g, p := newTestLoad(t)
	const layer = 2 * time.Second
	now := time.Unix(1000, 0)
	refused, sent := 0, 0
	run := func(layers int) {
		for range layers {
			for _, a := range g.accounts {
				current, projected := p.states(a)
				a.learn(current, projected, now, stuckLayers*layer)
			}
			for range 10 {
				a, tx := g.choose(now)
				if a == nil {
					continue
				}
				sent++
				if !p.submit(tx) {
					refused++
					a.doubt = true
				}
			}
			p.apply()
			now = now.Add(layer)
		}
	}
	if a, _ := g.choose(now); a != nil {
		t.Error("something was sent before anything is known")
	}
	run(10)
	for i, a := range g.accounts {
		if !a.spawned {
			t.Errorf("account %d is not spawned after 10 layers", i)
		}
	}
	if refused > 0 {
		t.Errorf("%d of %d transactions refused although nothing was lost", refused, sent)
	}
	sent = 0
	run(10)
	if sent != 100 {
		t.Errorf("%d transactions sent of 100 that were asked for", sent)
	}
	// The node that took the transactions is killed, and they with it.
	for range 10 {
		if a, tx := g.choose(now); a != nil {
			p.submit(tx)
		}
	}
	p.forget()
	run(stuckLayers + 3)
	refused, sent = 0, 0
	run(10)
	if refused > 0 || sent < 90 {
		t.Errorf("after the loss: %d sent, %d refused", sent, refused)
	}
}
