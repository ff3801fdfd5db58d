package eligibility

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"tweedle/values/types"
)

func value(u uint64) (v types.VRFSignature) {
	binary.LittleEndian.PutUint64(v[:], u)
	return v
}

// half returns 2u+1: the value is the middle of what 64 bits may stand for.
func half(u uint64) *big.Int {
	x := new(big.Int).SetUint64(u)
	return x.Add(x.Lsh(x, 1), big.NewInt(1))
}

// slowSeats is the rule as it is written, with numbers so long that nothing is lost:
// fractions where they can be, else floating point of 4,096 bits.
func slowSeats(committee uint32, weight, total, u uint64) uint32 {
	c := new(big.Int).SetUint64(uint64(committee))
	n, w := new(big.Int).SetUint64(weight), new(big.Int).SetUint64(total)
	if c.Cmp(w) >= 0 {
		n.Mul(n, c)
		w.Mul(w, c)
	}
	const prec = 4096
	float := func(x *big.Int) *big.Float { return new(big.Float).SetPrec(prec).SetInt(x) }
	p := new(big.Float).SetPrec(prec).Quo(float(c), float(w))
	q := new(big.Float).SetPrec(prec).Sub(big.NewFloat(1), p)
	if q.Sign() == 0 {
		return uint32(n.Uint64())
	}
	term := new(big.Float).SetPrec(prec).SetInt64(1)
	for i := n.BitLen() - 1; i >= 0; i-- {
		if term.Mul(term, term); n.Bit(i) == 1 {
			term.Mul(term, q)
		}
	}
	odds := new(big.Float).SetPrec(prec).Quo(p, q)
	at := new(big.Float).SetPrec(prec).SetMantExp(new(big.Float).SetPrec(prec).SetInt(half(u)), -65)
	sum := new(big.Float).SetPrec(prec)
	for k := uint64(0); ; k++ {
		if sum.Add(sum, term); sum.Cmp(at) >= 0 || k == n.Uint64() {
			return uint32(k)
		}
		term.Mul(term, float(new(big.Int).SetUint64(n.Uint64()-k)))
		term.Quo(term, float(new(big.Int).SetUint64(k+1)))
		term.Mul(term, odds)
	}
}

// exactSeats is the rule in fractions, for weights that are small.
func exactSeats(committee uint32, weight, total, u uint64) uint32 {
	if uint64(committee) >= total {
		weight, total = weight*uint64(committee), total*uint64(committee)
	}
	p := big.NewRat(int64(committee), int64(total))
	q := new(big.Rat).Sub(big.NewRat(1, 1), p)
	at := new(big.Rat).SetFrac(half(u), new(big.Int).Lsh(big.NewInt(1), 65))
	power := func(x *big.Rat, n uint64) *big.Rat {
		e := new(big.Int).SetUint64(n)
		return new(big.Rat).SetFrac(new(big.Int).Exp(x.Num(), e, nil), new(big.Int).Exp(x.Denom(), e, nil))
	}
	sum := new(big.Rat)
	for k := uint64(0); ; k++ {
		term := new(big.Rat).SetInt(new(big.Int).Binomial(int64(weight), int64(k)))
		term.Mul(term, power(p, k)).Mul(term, power(q, weight-k))
		if sum.Add(sum, term); sum.Cmp(at) >= 0 || k == weight {
			return uint32(k)
		}
	}
}

// any seats are drawn for: a weight of up to a third, half, or all of a total.
func draw(rng *rand.Rand) (committee uint32, weight, total, u uint64) {
	committee = []uint32{1, 5, 10, 50, 200, 400, 800}[rng.IntN(7)]
	total = 1 + rng.Uint64N(1<<(1+rng.IntN(63)))
	weight = 1 + rng.Uint64N(max(total>>rng.IntN(12), 1))
	if u = rng.Uint64(); rng.IntN(8) == 0 {
		u = []uint64{0, 1, math.MaxUint64, math.MaxUint64 - 1}[rng.IntN(4)]
	}
	return
}

func TestSeatsAreThoseOfTheSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1500 {
		c, w, n, u := draw(rng)
		if got, want := Seats(c, w, n, value(u)), slowSeats(c, w, n, u); got != want {
			t.Fatalf("%d seats, not %d: committee %d, weight %d of %d, value %x", got, want, c, w, n, u)
		}
	}
	for range 400 {
		c, n := 1+rng.Uint32N(40), 1+rng.Uint64N(60)
		w, u := 1+rng.Uint64N(n), rng.Uint64()
		if c < uint32(n) && rng.IntN(2) == 0 { // at a boundary: the value is the sum itself, rounded down
			q := math.Pow(1-float64(c)/float64(n), float64(w))
			u = uint64(q * (1 << 63) * 2)
		}
		if got, want := Seats(c, w, n, value(u)), exactSeats(c, w, n, u); got != want {
			t.Fatalf("%d seats, not %d: committee %d, weight %d of %d, value %x", got, want, c, w, n, u)
		}
	}
}

// What is random is the point. Its maker has many proofs of it.
func TestSeatsAreNotInTheHandsOfTheProver(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	v := value(rng.Uint64())
	want := Seats(400, 1<<38, 1<<40, v)
	for range 100 {
		for i := 32; i < len(v); i++ {
			v[i] = byte(rng.Uint32())
		}
		if got := Seats(400, 1<<38, 1<<40, v); got != want {
			t.Fatalf("another proof of one point has %d seats, not %d", got, want)
		}
	}
}

// All seats together are as many as the committee has, more or less, however the weight
// is spread, and whether there is more of it than seats.
func TestACommitteeHasAsManySeatsAsItShould(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, total := range []uint64{3, 50, 400, 401, 1 << 20, 1 << 40} {
		for _, smeshers := range []uint64{1, 3, 50, 1000} {
			if smeshers > total {
				continue
			}
			const draws = 50
			var sum float64
			for range draws {
				for range smeshers {
					sum += float64(Seats(400, total/smeshers, total/smeshers*smeshers, value(rng.Uint64())))
				}
			}
			if mean := sum / draws; math.Abs(mean-400) > 6*math.Sqrt(400./draws) {
				t.Errorf("%d smeshers of a weight of %d have %.1f seats of 400 on average", smeshers, total, mean)
			}
		}
	}
	if got := Seats(400, 1, 1, value(0)); got != 400 {
		t.Errorf("who has all of a weight of 1 has %d seats, not 400", got)
	}
	if Seats(0, 1, 1, value(0)) != 0 || Seats(400, 0, 5, value(math.MaxUint64)) != 0 {
		t.Error("no weight or no committee, and a seat")
	}
}

func BenchmarkSeats(b *testing.B) {
	for _, c := range []struct {
		name          string
		committee     uint32
		weight, total uint64
	}{
		{"of=400/share=1e-6", 400, 1 << 20, 1 << 40},
		{"of=400/share=third", 400, 1 << 40 / 3, 1 << 40},
		{"of=800/share=all", 800, 1 << 40, 1 << 40},
	} {
		b.Run(c.name, func(b *testing.B) {
			rng := rand.New(rand.NewPCG(7, 8))
			for b.Loop() {
				Seats(c.committee, c.weight, c.total, value(rng.Uint64()))
			}
		})
	}
}
