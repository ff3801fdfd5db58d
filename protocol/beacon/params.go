package beacon

import (
	"encoding/binary"
	"math/big"
	"time"

	"tweedle/values/types"
)

// Params are what a network sets.
type Params struct {
	// Phase is for one message to reach everybody, with what clocks differ by.
	Phase time.Duration
	// Rounds of following votes. All but the last end a dispute with a chance of two thirds or
	// more; the last tells who found what (docs/decisions/0012).
	Rounds int
}

// Limits of what is said and held.
const (
	MaxProposals = 100 // in a vote; the published VotesLimit
	MaxRounds    = 32  // of following votes
)

// The published constants: no proposal at all is at most as likely as 2^-kappa, while at most
// hostileNum/hostileDen of the smeshers are hostile.
const (
	kappa                  = 40
	hostileNum, hostileDen = 1, 3
)

// The schedule: two phases for proposals, and in each round, of which 0 has the first votes, one for
// votes and one for coins.

// Duration is how long after its start the protocol ends.
func (p Params) Duration() time.Duration { return p.tally(p.Rounds) }

// voteStart is when the votes of a round are sent; until that of round 0 proposals are in time.
func (p Params) voteStart(round int) time.Duration { return time.Duration(2+2*round) * p.Phase }

// coinStart is when the votes of a round do not count any more, and coins are sent.
func (p Params) coinStart(round int) time.Duration { return p.voteStart(round) + p.Phase }

// tally is when the votes of a round are counted.
func (p Params) tally(round int) time.Duration { return p.voteStart(round + 1) }

// threshold returns below which value an identity may propose, of 2^64, when n
// are expected: p(n) = 1 - 2^(-kappa/((1-q)n)) (reference/protocol.md A7). In
// integers: every machine has the same.
func threshold(n int) uint64 {
	const bits = 128
	one := new(big.Int).Lsh(big.NewInt(1), bits)
	if n <= 0 {
		return 0
	}
	// The exponent with 64 bits behind the point.
	x := new(big.Int).Lsh(big.NewInt(kappa*hostileDen), 64)
	x.Quo(x, big.NewInt((hostileDen-hostileNum)*int64(n)))
	whole := new(big.Int).Rsh(x, 64)
	if whole.Cmp(big.NewInt(64)) >= 0 {
		return 1<<64 - 1
	}
	// 2^-f = e^(-f ln 2) for what is behind the point, as a series.
	f, _ := new(big.Int).SetString("b17217f7d1cf79abc9e3b39803f2f6af", 16) // ln 2
	f.Rsh(f.Mul(f, x.And(x, new(big.Int).SetUint64(1<<64-1))), 64)
	power, term := new(big.Int).Set(one), new(big.Int).Set(one)
	for k := int64(1); term.Sign() != 0; k++ {
		term.Rsh(term.Mul(term, f), bits)
		term.Neg(term.Quo(term, big.NewInt(k)))
		power.Add(power, term)
	}
	power.Rsh(power, uint(whole.Uint64()))
	t := power.Rsh(one.Sub(one, power), bits-64)
	if !t.IsUint64() {
		return 1<<64 - 1
	}
	return t.Uint64()
}

// Value is what somebody proposes.
type Value [4]byte

// The kinds of random values (reference/protocol.md A2).
const (
	kindBeacon = 1
	kindCoin   = 4
)

// What is random in a proof are its first 32 bytes, the point. The 48 after it are
// chosen anew by whoever proves, as often as he likes.
func valueOf(p types.VRFSignature) Value { return Value(p[:4]) }

func rankOf(p types.VRFSignature) uint64 { return binary.BigEndian.Uint64(p[:8]) }
