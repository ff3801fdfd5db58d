package vm

import (
	"math/big"
	"sync"

	"tweedle/values/types"
)

// Economics is the curve of issuance: after n layers
// TotalSubsidy * (1 - (4/5)^(n/FifthLayers)) smidges have been issued, so a
// fifth of what is left comes every FifthLayers layers
// (reference/protocol.md A11, rewards).
type Economics struct {
	TotalSubsidy uint64 // smidges, over all time
	FifthLayers  uint32
}

// Subsidy returns what a layer issues. The effective genesis counts as the
// first layer of the curve although it has no block: the published curve
// starts there.
func (p Params) Subsidy(l types.Layer) uint64 {
	if l < p.EffectiveGenesis {
		return 0
	}
	n := uint64(l - p.EffectiveGenesis)
	return p.Economics.issued(n+1) - p.Economics.issued(n)
}

// spentFifths is a q with 2^64 * (4/5)^q < 1.
const spentFifths = 200

// fraction is the precision of the curve's arithmetic in bits. Smidges need
// 61; the rest keeps rounding errors far from them on every layer.
const fraction = 256

// issued returns what has been issued after n layers, rounded down. The
// arithmetic is on integers, so that every machine gets the same.
//
// With n = q*FifthLayers + r the remainder is
// TotalSubsidy * (4/5)^q * e^-x, x = ln(5/4)*r/FifthLayers. The power is an
// exact fraction; the rest is left out when r is zero, so that whole fifths
// come out exact.
//
// After spentFifths less than one smidge of any total is left. It is never
// issued: what has been issued is rounded down.
func (e Economics) issued(n uint64) uint64 {
	q, r := n/uint64(e.FifthLayers), n%uint64(e.FifthLayers)
	if q >= spentFifths {
		return e.TotalSubsidy - min(e.TotalSubsidy, 1)
	}
	left := new(big.Int).SetUint64(e.TotalSubsidy)
	left.Lsh(left, uint(2*q)) // 4^q
	by := new(big.Int).Exp(big.NewInt(5), new(big.Int).SetUint64(q), nil)
	if r != 0 {
		x := new(big.Int).Mul(lnFiveFourths(), new(big.Int).SetUint64(r))
		x.Quo(x, new(big.Int).SetUint64(uint64(e.FifthLayers)))
		left.Mul(left, expMinus(x))
		by.Lsh(by, fraction)
	}
	left, rest := left.QuoRem(left, by, new(big.Int))
	if rest.Sign() != 0 { // round what is left up: what is issued goes down
		left.Add(left, big.NewInt(1))
	}
	return e.TotalSubsidy - left.Uint64()
}

// lnFiveFourths returns ln(5/4) = 2 artanh(1/9) = 2 * sum 1/((2i+1) 9^(2i+1)). It is
// one number for all: not to be changed.
var lnFiveFourths = sync.OnceValue(func() *big.Int {
	sum := new(big.Int)
	power := new(big.Int).Lsh(big.NewInt(2), fraction)
	power.Quo(power, big.NewInt(9))
	for i := int64(1); power.Sign() != 0; i += 2 {
		sum.Add(sum, new(big.Int).Quo(power, big.NewInt(i)))
		power.Quo(power, big.NewInt(81))
	}
	return sum
})

// expMinus returns e^-x for 0 <= x < 1 by its power series.
func expMinus(x *big.Int) *big.Int {
	term := new(big.Int).Lsh(big.NewInt(1), fraction)
	sum := new(big.Int).Set(term)
	for i := int64(1); term.Sign() != 0; i++ {
		term.Mul(term, x)
		term.Rsh(term, fraction)
		term.Quo(term, big.NewInt(i))
		if i%2 == 1 {
			sum.Sub(sum, term)
		} else {
			sum.Add(sum, term)
		}
	}
	return sum
}
