package vm

import (
	"fmt"

	"tweedle/values/signing"
	"tweedle/values/types"
)

// call is a transaction whose principal can be asked to execute it.
type call struct {
	template template // of the principal
	gas      Gas
}

// prepare checks everything that is cheap: that there is somebody to ask,
// gas price, nonce, and that the principal can pay for its place in a block.
// The published rule compares the balance with gas units; that let accounts
// into blocks that could not pay, so we compare with the price.
func prepare(tx *Tx, principal Account) (call, error) {
	c := call{template: principal.template()}
	switch {
	case tx.GasPrice == 0:
		return c, ErrGasPrice
	case c.template != nil:
	case tx.selfSpawn():
		c.template = tx.spawn
	default:
		return c, ErrNotSpawned
	}
	c.gas.Intrinsic = c.template.callGas(tx.Method) + words(len(tx.Raw))*gasDataWord
	c.gas.Max = c.gas.Intrinsic
	switch {
	case tx.selfSpawn():
		c.gas.Max += tx.spawn.spawnGas()
	case tx.Method == MethodSpawn:
		c.gas.Max += c.template.loadGas() + tx.spawn.spawnGas()
	default:
		c.gas.Max += c.template.loadGas() + spendGas
	}
	if tx.Nonce < principal.NextNonce {
		return c, fmt.Errorf("%w: it is %d, the account's next one is %d", ErrNonce, tx.Nonce, principal.NextNonce)
	}
	if charge, ok := fee(c.gas.Intrinsic, tx.GasPrice); !ok || charge > principal.Balance {
		return c, fmt.Errorf("%w: it is %d and does not pay for gas %d at price %d",
			ErrBalance, principal.Balance, c.gas.Intrinsic, tx.GasPrice)
	}
	return c, nil
}

// Valid is a transaction that has been validated, with its price.
type Valid struct {
	Tx
	Gas  Gas
	Cost uint64 // the most it can take from its principal, in smidges
}

// Validate tells whether a transaction, sent alone, would be executed with
// success on top of a state. The error is one line and wraps one of
// ErrGasPrice, ErrNotSpawned, ErrSpawned, ErrNonce, ErrBalance, ErrBlockGas,
// ErrSignature; the costly check comes last. What it returns is not asked for
// its signature again.
func Validate(tx Tx, s State, p Params) (Valid, error) {
	c, v, err := check(tx, s, p)
	if err != nil {
		return Valid{}, err
	}
	if !signed(c.template, signing.NewVerifier(p.Network), &v.Tx) {
		return Valid{}, ErrSignature
	}
	return v, nil
}

// VerifySignature looks at a transaction's signature, as far as an account that
// may not be the newest one tells who has to sign, and remembers that it is
// right. The error is ErrSignature, or nil also if it cannot be told yet.
//
// An address is a hash of the keys that sign for it, so a signature is right in
// every state or in none: it is looked at once, wherever that is cheap.
func VerifySignature(tx *Tx, principal Account, network types.GenesisID) error {
	t := principal.template()
	if t == nil && tx.selfSpawn() {
		t = tx.spawn
	}
	if t != nil && !signed(t, signing.NewVerifier(network), tx) {
		return ErrSignature
	}
	return nil
}

// signed tells whether a signature is right, and looks at it once.
func signed(t template, v signing.Verifier, tx *Tx) bool {
	tx.signed = tx.signed || t.verify(v, tx)
	return tx.signed
}

// Revalidate is Validate for a transaction that was valid on top of another
// state. Its price is the same in every state, as its keys are.
func Revalidate(v Valid, s State, p Params) error {
	_, _, err := check(v.Tx, s, p)
	return err
}

func check(tx Tx, s State, p Params) (call, Valid, error) {
	principal := s.Account(tx.Principal)
	c, err := prepare(&tx, principal)
	if err != nil {
		return c, Valid{}, err
	}
	if c.gas.Max > p.BlockGasLimit {
		return c, Valid{}, fmt.Errorf("%w: it needs %d of %d", ErrBlockGas, c.gas.Max, p.BlockGasLimit)
	}
	if tx.Method == MethodSpawn && s.Account(tx.To).Spawned() {
		return c, Valid{}, ErrSpawned
	}
	cost, ok := tx.cost(c.gas)
	if !ok || cost > principal.Balance {
		return c, Valid{}, fmt.Errorf("%w: it is %d, amount %d and gas %d at price %d are more",
			ErrBalance, principal.Balance, tx.Amount, c.gas.Max, tx.GasPrice)
	}
	return c, Valid{tx, c.gas, cost}, nil
}
