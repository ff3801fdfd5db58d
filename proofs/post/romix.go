package post

import "math/bits"

// block is ROMix's state at r=1: two ChaCha blocks of 16 words.
type block [32]uint32

// romixPortable mixes x in place through the scratch v, whose length is the
// cost N, a power of two (reference/post.md 1.2).
func romixPortable(x *block, v []block) {
	v[0] = *x
	for k := range len(v) - 1 {
		chunkMix(&v[k+1], &v[k])
	}
	chunkMix(x, &v[len(v)-1])

	mask := uint32(len(v) - 1)
	var t block
	for range len(v) {
		from := &v[x[16]&mask]
		for i := range t {
			t[i] = x[i] ^ from[i]
		}
		chunkMix(x, &t)
	}
}

// chunkMix is scrypt's BlockMix at r=1 with ChaCha20/8. dst and src differ.
func chunkMix(dst, src *block) {
	d0, d1 := (*[16]uint32)(dst[:16]), (*[16]uint32)(dst[16:])
	s0, s1 := (*[16]uint32)(src[:16]), (*[16]uint32)(src[16:])
	chacha8(d0, s0, s1)
	chacha8(d1, s1, d0)
}

// chacha8 sets out to b plus eight ChaCha rounds of b, where b = p xor q. It
// has no constants and no counter. The words live in locals so that the
// compiler can keep them in registers.
func chacha8(out, p, q *[16]uint32) {
	b0, b1, b2, b3 := p[0]^q[0], p[1]^q[1], p[2]^q[2], p[3]^q[3]
	b4, b5, b6, b7 := p[4]^q[4], p[5]^q[5], p[6]^q[6], p[7]^q[7]
	b8, b9, b10, b11 := p[8]^q[8], p[9]^q[9], p[10]^q[10], p[11]^q[11]
	b12, b13, b14, b15 := p[12]^q[12], p[13]^q[13], p[14]^q[14], p[15]^q[15]

	x0, x1, x2, x3 := b0, b1, b2, b3
	x4, x5, x6, x7 := b4, b5, b6, b7
	x8, x9, x10, x11 := b8, b9, b10, b11
	x12, x13, x14, x15 := b12, b13, b14, b15
	for range 4 {
		x0, x4, x8, x12 = quarter(x0, x4, x8, x12)
		x1, x5, x9, x13 = quarter(x1, x5, x9, x13)
		x2, x6, x10, x14 = quarter(x2, x6, x10, x14)
		x3, x7, x11, x15 = quarter(x3, x7, x11, x15)

		x0, x5, x10, x15 = quarter(x0, x5, x10, x15)
		x1, x6, x11, x12 = quarter(x1, x6, x11, x12)
		x2, x7, x8, x13 = quarter(x2, x7, x8, x13)
		x3, x4, x9, x14 = quarter(x3, x4, x9, x14)
	}
	*out = [16]uint32{
		x0 + b0, x1 + b1, x2 + b2, x3 + b3,
		x4 + b4, x5 + b5, x6 + b6, x7 + b7,
		x8 + b8, x9 + b9, x10 + b10, x11 + b11,
		x12 + b12, x13 + b13, x14 + b14, x15 + b15,
	}
}

func quarter(a, b, c, d uint32) (uint32, uint32, uint32, uint32) {
	a += b
	d = bits.RotateLeft32(d^a, 16)
	c += d
	b = bits.RotateLeft32(b^c, 12)
	a += b
	d = bits.RotateLeft32(d^a, 8)
	c += d
	b = bits.RotateLeft32(b^c, 7)
	return a, b, c, d
}
