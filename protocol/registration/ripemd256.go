package registration

import (
	"encoding/binary"
	"math/bits"
)

// RIPEMD-256: two lines of RIPEMD-128 side by side, which exchange one word
// after each round (Dobbertin, Bosselaers, Preneel 1996).

var (
	ripemdOrder = [2][64]uint8{{
		0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
		7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8,
		3, 10, 14, 4, 9, 15, 8, 1, 2, 7, 0, 6, 13, 11, 5, 12,
		1, 9, 11, 10, 0, 8, 12, 4, 13, 3, 7, 15, 14, 5, 6, 2,
	}, {
		5, 14, 7, 0, 9, 2, 11, 4, 13, 6, 15, 8, 1, 10, 3, 12,
		6, 11, 3, 7, 0, 13, 5, 10, 14, 15, 8, 12, 4, 9, 1, 2,
		15, 5, 1, 3, 7, 14, 6, 9, 11, 8, 12, 2, 10, 0, 4, 13,
		8, 6, 4, 1, 3, 11, 15, 0, 5, 12, 2, 13, 9, 7, 10, 14,
	}}
	ripemdShift = [2][64]uint8{{
		11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8,
		7, 6, 8, 13, 11, 9, 7, 15, 7, 12, 15, 9, 11, 7, 13, 12,
		11, 13, 6, 7, 14, 9, 13, 15, 14, 8, 13, 6, 5, 12, 7, 5,
		11, 12, 14, 15, 14, 15, 9, 8, 9, 14, 5, 6, 8, 6, 5, 12,
	}, {
		8, 9, 9, 11, 13, 15, 15, 5, 7, 7, 8, 11, 14, 14, 12, 6,
		9, 13, 15, 7, 12, 8, 9, 11, 7, 7, 12, 7, 6, 15, 13, 11,
		9, 7, 15, 11, 8, 6, 6, 14, 12, 13, 5, 14, 13, 13, 7, 5,
		15, 5, 8, 11, 14, 14, 6, 14, 6, 9, 12, 9, 12, 5, 15, 8,
	}}
	ripemdConst = [2][4]uint32{
		{0, 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc},
		{0x50a28be6, 0x5c4dd124, 0x6d703ef3, 0},
	}
)

// ripemd256 returns the hash of msg.
func ripemd256(msg []byte) (sum [32]byte) {
	state := [2][4]uint32{
		{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476},
		{0x76543210, 0xfedcba98, 0x89abcdef, 0x01234567},
	}
	length := uint64(len(msg)) * 8
	padded := append(append(make([]byte, 0, len(msg)+72), msg...), 0x80)
	for len(padded)%64 != 56 {
		padded = append(padded, 0)
	}
	padded = binary.LittleEndian.AppendUint64(padded, length)
	for ; len(padded) > 0; padded = padded[64:] {
		ripemdBlock(&state, padded[:64])
	}
	for i := range 8 {
		binary.LittleEndian.PutUint32(sum[4*i:], state[i/4][i%4])
	}
	return sum
}

func ripemdBlock(state *[2][4]uint32, block []byte) {
	var x [16]uint32
	for i := range x {
		x[i] = binary.LittleEndian.Uint32(block[4*i:])
	}
	line := *state
	for round := range 4 {
		for side := range line {
			v := &line[side]
			which := round
			if side == 1 {
				which = 3 - round
			}
			for i := 16 * round; i < 16*round+16; i++ {
				t := v[0] + ripemdMix(which, v[1], v[2], v[3]) + x[ripemdOrder[side][i]] + ripemdConst[side][round]
				t = bits.RotateLeft32(t, int(ripemdShift[side][i]))
				v[0], v[1], v[2], v[3] = v[3], t, v[1], v[2]
			}
		}
		line[0][round], line[1][round] = line[1][round], line[0][round]
	}
	for side := range line {
		for i := range line[side] {
			state[side][i] += line[side][i]
		}
	}
}

func ripemdMix(which int, x, y, z uint32) uint32 {
	switch which {
	case 0:
		return x ^ y ^ z
	case 1:
		return x&y | ^x&z
	case 2:
		return (x | ^y) ^ z
	}
	return x&z | y&^z
}
