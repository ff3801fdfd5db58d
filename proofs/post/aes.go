package post

import "math/bits"

// expandKey returns the round keys of AES-128 (FIPS 197, section 5.2), which crypto/aes
// keeps to itself.
func expandKey(key [16]byte) (round [11][16]byte) {
	round[0] = key
	factor := byte(1)
	for r := 1; r < len(round); r++ {
		before := &round[r-1]
		for i := range 4 {
			round[r][i] = before[i] ^ substitution[before[12+(i+1)%4]]
		}
		round[r][0] ^= factor
		for i := 4; i < 16; i++ {
			round[r][i] = before[i] ^ round[r][i-4]
		}
		factor = double(factor)
	}
	return round
}

// double multiplies by x in the field of FIPS 197, section 4.2.
func double(b byte) byte { return b<<1 ^ b>>7*0x1b }

// substitution is the S-box of FIPS 197, section 5.1.1: the inverse in the field, and of
// that an affine map.
var substitution = func() (s [256]byte) {
	p, q := byte(1), byte(1) // each other's inverse
	for {
		p ^= double(p) // times 3, which generates all but 0
		q ^= q << 1    // divided by 3
		q ^= q << 2
		q ^= q << 4
		q ^= q >> 7 * 0x09
		s[p] = 0x63 ^ q ^ bits.RotateLeft8(q, 1) ^ bits.RotateLeft8(q, 2) ^ bits.RotateLeft8(q, 3) ^ bits.RotateLeft8(q, 4)
		if p == 1 {
			break
		}
	}
	s[0] = 0x63
	return s
}()
