package main

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// product multiplies in the field of FIPS 197, section 4.2.
func product(a, b byte) (p byte) {
	for ; b != 0; b >>= 1 {
		p ^= a * (b & 1)
		a = a<<1 ^ a>>7*0x1b
	}
	return p
}

// sbox is the substitution of FIPS 197, section 5.1.1.
func sbox(b byte) byte {
	inverse := byte(1)
	for range 254 {
		inverse = product(inverse, b)
	}
	s := byte(0x63)
	for n := range 5 {
		s ^= bits.RotateLeft8(inverse, n)
	}
	return s
}

// boxes is sbox of every byte.
var boxes = func() (s [256]byte) {
	for b := range s {
		s[b] = sbox(byte(b))
	}
	return s
}()

// aesRound is AESENC, or AESENCLAST (Intel SDM volume 2).
func aesRound(state, key []byte, last bool) []byte {
	out := make([]byte, 16)
	for i := range out {
		out[i] = boxes[state[(i+i%4*4)%16]]
	}
	if !last {
		out = mixColumns(out)
	}
	for i := range out {
		out[i] ^= key[i]
	}
	return out
}

// mixColumns is that of FIPS 197, section 5.1.3.
func mixColumns(state []byte) []byte {
	out := make([]byte, 16)
	for c := 0; c < 16; c += 4 {
		x := [4]byte(state[c:])
		for i := range 4 {
			out[c+i] = product(x[i], 2) ^ product(x[(i+1)%4], 3) ^ x[(i+2)%4] ^ x[(i+3)%4]
		}
	}
	return out
}

// roundKeysOf is the key expansion of FIPS 197, section 5.2.
func roundKeysOf(key []byte) [][]byte {
	w := bytes.Clone(key)
	factor := byte(1)
	for i := 16; i < 176; i += 4 {
		x := [4]byte(w[i-4:])
		if i%16 == 0 {
			x = [4]byte{boxes[x[1]] ^ factor, boxes[x[2]], boxes[x[3]], boxes[x[0]]}
			factor = product(factor, 2)
		}
		for k := range x {
			w = append(w, x[k]^w[i-16+k])
		}
	}
	var keys [][]byte
	for i := 0; i < len(w); i += 16 {
		keys = append(keys, w[i:i+16])
	}
	return keys
}

// aesSize is how many bytes each kernel encrypts in a register.
var aesSize = map[string]int{"eagerAES": 16, "eagerVAES": 32, "eagerVAES512": 64, "eagerNEON": 64, "lazyAES": 16}

// tryAES calls a kernel on random labels and compares with crypto/aes. It returns the
// fault that ended it, and whether all is right.
func tryAES(p *program, name string, size int, rng *rand.Rand) (fault, bool) {
	const steps = 3
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	encrypt := func(key, label []byte) []byte {
		c, err := aes.NewCipher(key)
		if err != nil {
			panic(err)
		}
		text := make([]byte, 16)
		c.Encrypt(text, label)
		return text
	}
	m := newMachine(p, rng)
	step := 16
	if name == "eagerVAES512" {
		step = 32
	}
	labels := random(16 * step * steps)
	m.place(buffer, labels)
	const keysAt, listAt, textsAt = 0x5000_0001, 0x6000_0004, 0x6100_0008
	if name == "lazyAES" {
		var ciphers, schedules []byte
		for range 16 {
			key := random(16)
			ciphers = append(ciphers, key...)
			schedules = append(schedules, bytes.Join(roundKeysOf(key), nil)...)
		}
		var at []uint32
		var want []byte
		for range steps * lazyBlocks {
			place := rng.IntN(len(labels))
			at = append(at, uint32(place))
			want = append(want, encrypt(ciphers[place%16*16:][:16], labels[place/16*16:][:16])[:8]...)
		}
		got := make([]byte, len(want))
		m.place(keysAt, schedules)
		m.place(listAt, unwords(at))
		m.place(textsAt, got)
		ended := m.call(name, stack, buffer, keysAt, listAt, textsAt, steps)
		return ended, ended == "" && bytes.Equal(got, want)
	}
	key := random(16)
	var keys []byte
	for _, k := range roundKeysOf(key) {
		keys = append(append(keys, k...), k...)
	}
	want, numbers := []uint64{0}, []uint64(nil)
	for at := 0; at < len(labels); at += size {
		mask := uint64(0)
		for i := range size {
			if encrypt(key, labels[at+i/16*16:][:16])[i%16] == 0 {
				mask |= 1 << i
			}
		}
		if mask != 0 {
			want, numbers = append(want, mask), append(numbers, uint64(at/size))
		}
	}
	want[0] = uint64(len(numbers))
	found, places := make([]byte, 8*(len(labels)/size+2)), make([]byte, 8*(len(labels)/size+1))
	m.place(keysAt, keys)
	m.place(listAt, found)
	m.place(textsAt, places)
	ended := m.call(name, stack, buffer, keysAt, listAt, textsAt, steps)
	right := ended == ""
	for i, mask := range want {
		right = right && binary.LittleEndian.Uint64(found[8*i:]) == mask
	}
	for i, number := range numbers {
		right = right && binary.LittleEndian.Uint64(places[8*i:]) == number
	}
	return ended, right
}
