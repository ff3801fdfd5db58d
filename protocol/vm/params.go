// Package vm is the ledger: accounts, transactions, gas, rewards, and the
// state that follows from them.
//
// It promises: Apply is a pure function of state, block and parameters, the
// same on every machine, and it accepts any bytes as a transaction; money is
// conserved (the balances of a state are the genesis balances plus what was
// issued minus what was burnt); a State is an immutable snapshot, so that a
// block can be tried, kept or forgotten at no cost; the root of a state
// depends on its accounts only.
//
// It leaves to the caller: which block a layer has and in which order its
// transactions stand (package txpool has the rule), which coinbase an ATX
// declared, and storing the accounts that changed.
package vm

import (
	"fmt"
	"math/bits"

	"tweedle/values/types"
)

// Smidges is one coin (SMH) in the unit of every amount of this package.
const Smidges = 1_000_000_000

// Params are the rules of a network's ledger. Two networks in one process
// have two values.
type Params struct {
	// HRP is the network's prefix of written addresses.
	HRP string
	// Network binds signatures; it is known when the genesis time is.
	Network types.GenesisID
	// EffectiveGenesis is the layer before the first that may have a block
	// (types.Schedule.FirstBallotLayer). Issuance counts from it.
	EffectiveGenesis types.Layer
	// BlockGasLimit bounds the gas of the transactions of one block.
	BlockGasLimit uint64
	Economics     Economics
	// Genesis has the balances that the network starts with.
	Genesis []GenesisAccount
}

// GenesisAccount has a balance in smidges before the first block. It is not
// spawned: its owner does that like everybody else.
type GenesisAccount struct {
	Address types.Address
	Balance uint64
}

// MainnetParams returns the published constants (reference/protocol.md A15,
// A11) without genesis accounts.
func MainnetParams() Params {
	return Params{
		HRP:              "sm",
		EffectiveGenesis: 2*4032 - 1,
		BlockGasLimit:    100_107_000,
		Economics:        Economics{TotalSubsidy: 2_250_000_000 * Smidges, FifthLayers: 1_051_201},
	}
}

// LocalParams returns the rules of a testnet on one machine, without genesis
// accounts: short epochs, and issuance that visibly decays.
func LocalParams() Params {
	p := MainnetParams()
	p.HRP = "stest"
	p.EffectiveGenesis = 2*10 - 1
	p.Economics.FifthLayers = 105_120
	return p
}

// Check returns what is wrong with the parameters. All money that can ever
// exist must fit 64 bits, so that no sum of balances overflows.
func (p Params) Check() error {
	if err := types.CheckHRP(p.HRP); err != nil {
		return err
	}
	if p.BlockGasLimit == 0 || p.Economics.FifthLayers == 0 {
		return fmt.Errorf("block gas limit and issuance time must not be zero")
	}
	seen := map[types.Address]bool{}
	total := p.Economics.TotalSubsidy
	for _, a := range p.Genesis {
		if seen[a.Address] {
			return fmt.Errorf("genesis account %s is named twice", a.Address.Bech32(p.HRP))
		}
		seen[a.Address] = true
		var over uint64
		if total, over = bits.Add64(total, a.Balance, 0); over != 0 {
			return fmt.Errorf("genesis balances and subsidy together do not fit 64 bits: lower the balances")
		}
	}
	return nil
}
