package eligibility

import (
	"encoding/binary"
	"math/bits"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// kindHare is the purpose of the random values that seat a committee.
const kindHare = 2

// CommitteeMessage returns what the VRF of a smesher is made over, that gives it
// seats in a committee of a layer. The rounds of a layer have a committee each.
func CommitteeMessage(beacon types.Beacon, layer types.Layer, round uint32) []byte {
	e := codec.NewEncoder(16)
	e.Compact(kindHare)
	e.Raw(beacon[:])
	e.Compact(uint64(round))
	e.Compact(uint64(layer))
	return e.Bytes()
}

// Seats returns how many of a committee's seats a smesher has: each unit of the
// weight of all gets one with the probability committee/total, and how many are the
// smesher's is read off its random value, by the inverse of the binomial
// distribution. Its mean is weight*committee/total. If there are more seats than
// units, each unit is cut into as many as the committee has seats.
//
// The only part of the value that is used is the beginning of its point, 64 bits: its
// maker can choose the rest. They stand for the middle of what they may be, (u+1/2)/2^64.
// What is computed has 256 bits, so the result is the true one but where the two differ by
// less than some 2^-180; it is the same on every machine in any case.
func Seats(committee uint32, weight, total uint64, value types.VRFSignature) uint32 {
	c := uint64(committee)
	if c == 0 || weight == 0 {
		return 0
	}
	if c >= total { // total fits 32 bits, and so does weight
		weight, total = weight*c, total*c
	}
	if c == total { // a single unit, that has all seats
		return uint32(weight)
	}
	u := binary.LittleEndian.Uint64(value[:8])
	term := quotient(total-c, total).pow(weight) // of no seat at all
	var below fixed
	for k := uint64(0); ; k++ {
		if below.add(term); below.reaches(u) || k == weight {
			return uint32(k)
		}
		term = term.scale(weight-k, c, k+1, total-c)
	}
}

// limbs is the precision of what is computed here, in 64 bits.
const limbs = 4

// float is the number m/2^256 * 2^-e, m with its highest bit set, the lowest limb
// first. All results are rounded down.
type float struct {
	m [limbs]uint64
	e uint64
}

// fixed is a number from 0 to 1, the lowest limb first.
type fixed [limbs]uint64

// normal makes a float of the highest bits of m/2^(64*len(m)) * 2^-e. It is not 0.
func normal(m []uint64, e uint64) (out float) {
	for m[len(m)-1] == 0 {
		m, e = m[:len(m)-1], e+64
	}
	shift := bits.LeadingZeros64(m[len(m)-1])
	for i := range limbs {
		from := len(m) - limbs + i
		if from >= 0 {
			out.m[i] = m[from] << shift
		}
		if from > 0 {
			out.m[i] |= m[from-1] >> 1 >> (63 - shift)
		}
	}
	out.e = e + uint64(shift)
	return out
}

// quotient returns a/b, with 0 < a < b.
func quotient(a, b uint64) float {
	var m [limbs + 1]uint64
	rest := a
	for i := limbs; i >= 0; i-- {
		m[i], rest = bits.Div64(rest, 0, b)
	}
	return normal(m[:], 0)
}

func (x float) times(y float) float {
	var m [2 * limbs]uint64
	for i, a := range x.m {
		var carry uint64
		for j, b := range y.m {
			hi, lo := bits.Mul64(a, b)
			var c uint64
			lo, c = bits.Add64(lo, m[i+j], 0)
			hi += c
			lo, c = bits.Add64(lo, carry, 0)
			m[i+j], carry = lo, hi+c
		}
		m[i+limbs] = carry
	}
	return normal(m[:], x.e+y.e)
}

// pow returns x^n, n at least 1.
func (x float) pow(n uint64) float {
	out := x
	for i := bits.Len64(n) - 2; i >= 0; i-- {
		if out = out.times(out); n>>i&1 == 1 {
			out = out.times(x)
		}
	}
	return out
}

// scale returns x*a*b/(c*d).
func (x float) scale(a, b, c, d uint64) float {
	var m [limbs + 2]uint64
	copy(m[:], x.m[:])
	for i, by := range [...]uint64{a, b} {
		var carry uint64
		for j := range limbs + i {
			hi, lo := bits.Mul64(m[j], by)
			var c uint64
			m[j], c = bits.Add64(lo, carry, 0)
			carry = hi + c
		}
		m[limbs+i] = carry
	}
	for _, by := range [...]uint64{c, d} {
		var rest uint64
		for j := len(m) - 1; j >= 0; j-- {
			m[j], rest = bits.Div64(rest, m[j], by)
		}
	}
	// Two limbs more than a float has stand for 2^128; what is left of them is cut off.
	out := normal(m[:], 0)
	if out.e >= 128 {
		out.e = x.e + out.e - 128
	} else {
		out.e = x.e - (128 - out.e)
	}
	return out
}

func (s *fixed) add(x float) {
	if x.e >= 64*limbs {
		return
	}
	from, shift := int(x.e/64), x.e%64
	var carry uint64
	for i := range limbs {
		var v uint64
		if i+from < limbs {
			v = x.m[i+from] >> shift
		}
		if i+from+1 < limbs {
			v |= x.m[i+from+1] << 1 << (63 - shift)
		}
		s[i], carry = bits.Add64(s[i], v, carry)
	}
}

// reaches tells whether s is at least (u+1/2)/2^64.
func (s *fixed) reaches(u uint64) bool {
	return s[limbs-1] > u || s[limbs-1] == u && s[limbs-2]>>63 == 1
}
