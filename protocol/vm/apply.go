package vm

import (
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"slices"

	"tweedle/values/signing"
	"tweedle/values/types"
)

// Block is what a layer does to the state.
type Block struct {
	Layer   types.Layer
	Txs     []Tx // in block order
	Rewards []Share
}

// Share is the part of an ATX in the subsidy and fees of a block: Num/Den of a
// weight unit relative to the block's other shares, as in types.Reward. A
// share with a zero in it is worth nothing.
type Share struct {
	ATX      types.ATXID
	Coinbase types.Address // that the ATX declares
	Num, Den uint64
}

// Status tells what became of a transaction.
type Status uint8

// What can become of a transaction.
const (
	Ineffective Status = iota // passed over: no fee, nothing changed
	Failure                   // the fee was charged, nothing else happened
	Success
)

func (s Status) String() string {
	switch s {
	case Ineffective:
		return "ineffective"
	case Failure:
		return "failure"
	case Success:
		return "success"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Result is what became of one transaction of a block.
type Result struct {
	ID        types.TransactionID
	Layer     types.Layer
	Status    Status
	Reason    string          // one line, empty on success
	Gas       uint64          // units
	Fee       uint64          // smidges
	Addresses []types.Address // principal first, then the others it names
}

// Reward is what a share was paid, in smidges.
type Reward struct {
	ATX      types.ATXID
	Coinbase types.Address
	Total    uint64
	Subsidy  uint64 // the part of Total that was issued by the layer
}

// Outcome is a block's effect. Results and Rewards are parallel to the block's
// transactions and shares.
type Outcome struct {
	State   State
	Results []Result
	Rewards []Reward
	Changed []Entry // the accounts to store, ascending
	Issued  uint64  // subsidy of the layer, smidges
	Burnt   uint64  // of subsidy and fees: what no share was paid
}

// Reasons why an executed transaction fails, beside ErrSpawned.
var (
	errCannotPay = errors.New("balance did not cover the gas and is used up")
	errAmount    = errors.New("balance is lower than the amount after the fee")
)

// Apply executes a block on top of a state (reference/protocol.md A11). The
// caller keeps the state it had: going back is forgetting the outcome.
func Apply(s State, b Block, p Params) Outcome {
	x := execution{
		base: s, changed: map[types.Address]Account{}, verifier: signing.NewVerifier(p.Network),
		gasLeft: p.BlockGasLimit,
	}
	out := Outcome{Issued: p.Subsidy(b.Layer)}
	for _, tx := range b.Txs {
		out.Results = append(out.Results, x.transaction(tx, b.Layer))
	}
	out.Rewards = split(b.Rewards, out.Issued, x.fees)
	out.Burnt = out.Issued + x.fees
	for _, r := range out.Rewards {
		x.credit(r.Coinbase, r.Total)
		out.Burnt -= r.Total
	}
	out.Changed = x.changes()
	out.State = s.with(out.Changed)
	return out
}

// execution is the state of a block that is being applied.
type execution struct {
	base     State
	changed  map[types.Address]Account
	verifier signing.Verifier
	gasLeft  uint64
	fees     uint64
}

func (x *execution) account(a types.Address) Account {
	if account, ok := x.changed[a]; ok {
		return account
	}
	return x.base.Account(a)
}

// credit adds to a balance. All money fits 64 bits (Params.Check).
func (x *execution) credit(a types.Address, amount uint64) {
	account := x.account(a)
	var over uint64
	if account.Balance, over = bits.Add64(account.Balance, amount, 0); over != 0 {
		panic("vm: more money than can exist")
	}
	x.changed[a] = account
}

// changes returns the accounts that differ from the state before the block.
func (x *execution) changes() []Entry {
	var list []Entry
	for address, account := range x.changed {
		if !account.equal(x.base.Account(address)) {
			list = append(list, Entry{address, account})
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return a.Address.Compare(b.Address) })
	return list
}

func (x *execution) transaction(tx Tx, layer types.Layer) Result {
	r := Result{ID: tx.ID, Layer: layer, Addresses: tx.Addresses()}
	c, err := prepare(&tx, x.account(tx.Principal))
	switch {
	case err != nil:
	case c.gas.Max > x.gasLeft:
		err = ErrBlockGas
	case !signed(c.template, x.verifier, &tx):
		err = ErrSignature
	}
	if err != nil {
		r.Reason = err.Error()
		return r
	}
	r.Gas, r.Fee, err = x.execute(&tx, c)
	r.Status = Success
	if err != nil {
		r.Status, r.Reason = Failure, err.Error()
	}
	return r
}

// execute charges the principal and does what the transaction says. An error
// means that it was charged and nothing else was done.
func (x *execution) execute(tx *Tx, c call) (gas, charged uint64, err error) {
	principal := x.account(tx.Principal)
	charged, ok := fee(c.gas.Max, tx.GasPrice)
	if !ok || charged > principal.Balance {
		charged, err = principal.Balance, errCannotPay
	}
	principal.Balance -= charged
	principal.NextNonce = tx.Nonce + 1
	x.changed[tx.Principal] = principal
	x.gasLeft -= c.gas.Max
	x.fees += charged
	switch {
	case err != nil:
	case tx.Method == MethodSpawn:
		err = x.spawn(tx)
	default:
		err = x.spend(tx)
	}
	return c.gas.Max, charged, err
}

func (x *execution) spawn(tx *Tx) error {
	account := x.account(tx.To)
	if account.Spawned() {
		return ErrSpawned
	}
	account.Template, account.State = tx.Template, spawnArgs(tx.spawn)
	x.changed[tx.To] = account
	return nil
}

func (x *execution) spend(tx *Tx) error {
	principal := x.account(tx.Principal)
	if tx.Amount > principal.Balance {
		return errAmount
	}
	principal.Balance -= tx.Amount
	x.changed[tx.Principal] = principal
	x.credit(tx.To, tx.Amount)
	return nil
}

// Addresses returns the accounts that the transaction names: the principal,
// then the recipient or the spawned account if it is another one.
func (tx *Tx) Addresses() []types.Address {
	if tx.To == tx.Principal {
		return []types.Address{tx.Principal}
	}
	return []types.Address{tx.Principal, tx.To}
}

// split divides subsidy and fees among the shares.
//
// The rule, which is protocol: the weight of a share is Num * 2^64 / Den,
// rounded down; a share is paid (subsidy + fees) * weight / sum of weights,
// rounded down. Fixed-point weights keep the sum small whatever the
// denominators are; sums of fractions would not be.
func split(shares []Share, subsidy, fees uint64) []Reward {
	weights := make([]big.Int, len(shares))
	var sum, whole, rest, product, quotient big.Int // used again: a block has thousands of shares
	for i, s := range shares {
		if s.Den != 0 {
			low, _ := bits.Div64(s.Num%s.Den, 0, s.Den)
			whole.SetUint64(s.Num / s.Den)
			weights[i].Lsh(&whole, 64)
			weights[i].Add(&weights[i], rest.SetUint64(low))
		}
		sum.Add(&sum, &weights[i])
	}
	rewards := make([]Reward, len(shares))
	part := func(of uint64, weight *big.Int) uint64 {
		if sum.Sign() == 0 {
			return 0
		}
		product.Mul(whole.SetUint64(of), weight)
		quotient.QuoRem(&product, &sum, &rest)
		return quotient.Uint64()
	}
	for i, s := range shares {
		rewards[i] = Reward{s.ATX, s.Coinbase, part(subsidy+fees, &weights[i]), part(subsidy, &weights[i])}
	}
	return rewards
}
