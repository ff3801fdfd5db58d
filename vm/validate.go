package vm

import (
	"fmt"

	"tweedle/signing"
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

// Validate tells whether a transaction, sent alone, would be executed on top
// of a state with success as far as can be foreseen. The error is one line
// and wraps one of ErrMalformed, ErrGasPrice, ErrNotSpawned, ErrNonce,
// ErrBalance, ErrBlockGas, ErrSignature; the costly check comes last.
func Validate(raw []byte, s State, p Params) (Valid, error) {
	tx, err := Parse(raw)
	if err != nil {
		return Valid{}, err
	}
	principal := s.Account(tx.Principal)
	c, err := prepare(&tx, principal)
	if err != nil {
		return Valid{}, err
	}
	if c.gas.Max > p.BlockGasLimit {
		return Valid{}, fmt.Errorf("%w: it needs %d of %d", ErrBlockGas, c.gas.Max, p.BlockGasLimit)
	}
	cost, ok := tx.Cost(c.gas)
	if !ok || cost > principal.Balance {
		return Valid{}, fmt.Errorf("%w: it is %d, amount %d and gas %d at price %d are more",
			ErrBalance, principal.Balance, tx.Amount, c.gas.Max, tx.GasPrice)
	}
	if !c.template.verify(signing.NewVerifier(p.Network), &tx) {
		return Valid{}, ErrSignature
	}
	return Valid{tx, c.gas, cost}, nil
}
