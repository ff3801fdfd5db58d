package vm

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// MaxAccountState is in bytes: the largest state a template may keep.
const MaxAccountState = 512

// Account is what the ledger knows about an address.
type Account struct {
	NextNonce uint64        // the lowest nonce that the next transaction may have
	Balance   uint64        // smidges
	Template  types.Address // zero until the account is spawned
	State     []byte        // the template's, never modified in place
}

// Spawned tells whether the account can send transactions.
func (a Account) Spawned() bool { return !a.Template.IsZero() }

// isZero tells whether the account is as if nobody had ever heard of it. Such
// accounts are not in the state.
func (a Account) isZero() bool { return a.NextNonce == 0 && a.Balance == 0 && !a.Spawned() }

// EncodeTo appends the canonical encoding.
func (a Account) EncodeTo(e *codec.Encoder) {
	e.Compact(a.NextNonce)
	e.Compact(a.Balance)
	e.Raw(a.Template[:])
	e.ByteSlice(a.State)
}

// DecodeFrom reads the canonical encoding.
func (a *Account) DecodeFrom(d *codec.Decoder) {
	a.NextNonce = d.Compact()
	a.Balance = d.Compact()
	d.Raw(a.Template[:])
	a.State = d.ByteSlice(MaxAccountState)
}

// LeafHash is the account's part in the state root: the hash of its encoding.
func (a Account) LeafHash() [32]byte {
	e := codec.NewEncoder(128) // a wallet's; the rest grows
	a.EncodeTo(e)
	return types.Sum(e.Bytes())
}

func (a Account) equal(b Account) bool {
	return a.NextNonce == b.NextNonce && a.Balance == b.Balance && a.Template == b.Template && bytes.Equal(a.State, b.State)
}

// State is all accounts after some layer: an immutable snapshot. The zero
// value has no accounts. Snapshots share what they have in common.
type State struct{ accounts merkle.Accounts[Account] }

// Entry is an account under its address.
type Entry struct {
	Address types.Address
	Account Account
}

// Genesis returns the state before the first block. The error is that of
// Params.Check.
func Genesis(p Params) (State, error) {
	if err := p.Check(); err != nil {
		return State{}, err
	}
	var entries []Entry
	for _, a := range p.Genesis {
		entries = append(entries, Entry{a.Address, Account{Balance: a.Balance}})
	}
	return Restore(entries)
}

// Restore returns the state of stored accounts, in any order. An address that
// comes twice or an account that cannot be read is an error: the store is
// damaged.
func Restore(entries []Entry) (State, error) {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b Entry) int { return a.Address.Compare(b.Address) })
	for i, e := range sorted {
		if i > 0 && sorted[i-1].Address == e.Address {
			return State{}, fmt.Errorf("account %x is stored twice", e.Address)
		}
		if _, ok := e.Account.readTemplate(); !ok {
			return State{}, fmt.Errorf("account %x is stored with a state that template %x cannot read", e.Address, e.Account.Template)
		}
	}
	return State{}.with(sorted), nil
}

// with returns the state with entries, which ascend, added or replaced.
func (s State) with(entries []Entry) State {
	list := make([]merkle.Account[Account], 0, len(entries))
	for _, e := range entries {
		if !e.Account.isZero() {
			list = append(list, merkle.Account[Account]{Key: e.Address, Value: e.Account})
		}
	}
	return State{s.accounts.Set(list...)}
}

// Root returns the hash of all accounts: the rule is that of merkle.Accounts
// over Account.LeafHash.
func (s State) Root() types.Hash32 { return s.accounts.Root() }

// Account returns the account at an address; one that nobody has heard of is
// the zero value.
func (s State) Account(address types.Address) Account {
	a, _ := s.accounts.Get(address)
	return a
}

// All yields all accounts in ascending order of their addresses.
func (s State) All() iter.Seq2[types.Address, Account] {
	return func(yield func(types.Address, Account) bool) {
		for key, a := range s.accounts.All() {
			if !yield(types.Address(key), a) {
				return
			}
		}
	}
}

// Prove returns the proof of what the state holds at an address, for somebody
// who has its root. The leaf hash is Account.LeafHash.
func (s State) Prove(address types.Address) merkle.AccountProof { return s.accounts.Prove(address) }
