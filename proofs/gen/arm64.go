package main

import "fmt"

// arm64 returns the kernels on the SHA2 extension of ARMv8.
//
// SHA256H and SHA256H2 do four rounds: on A to D in one register and E to H in
// another, with the message words, keys added, in a third.
func arm64() string {
	t := new(text)
	t.head("")
	keys := paddedKeys()
	t.table("keys", roundKeys[:]...)
	t.comment("The keys of a padded block: message words 8 to 15 are added.")
	t.table("padKeys", keys[:]...)
	t.table("init", initial[:]...)
	t.table("pad", padding[:]...)
	arm64Blocks(t)
	arm64Chain(t, "chainSHA2", "chain", 1)
	arm64Chain(t, "chainsSHA2", "chains", lanes)
	return t.String()
}

// vectors are the registers of one hash: its state, what the state was before the
// last rounds, words with keys, and message words.
type vectors struct {
	abcd, efgh, old, sum string
	m                    [4]string
}

// newVectors returns those from V(first) on, eight of them.
func newVectors(first int) vectors {
	v := func(i int) string { return fmt.Sprintf("V%d", first+i) }
	return vectors{v(0), v(1), v(2), v(3), [4]string{v(4), v(5), v(6), v(7)}}
}

// rounds does four rounds with the words in x, keys added.
func (v *vectors) rounds(t *text, x string) {
	t.line("VMOV %s.B16, %s.B16", v.abcd, v.old)
	t.line("SHA256H %s.S4, %s, %s", x, v.efgh, v.abcd)
	t.line("SHA256H2 %s.S4, %s, %s", x, v.old, v.efgh)
}

// schedule replaces words 4g by words 4g+16, in two steps around the rounds between.
func (v *vectors) schedule(t *text, g int) {
	m := func(i int) string { return v.m[(g+i)%4] }
	t.line("SHA256SU0 %s.S4, %s.S4", m(1), m(0))
	t.line("SHA256SU1 %s.S4, %s.S4, %s.S4", m(3), m(2), m(0))
}

// arm64Keys loads the 16 vectors of keys at the symbol into V16 to V31.
func arm64Keys(t *text, symbol string) {
	t.line("MOVD $%s<>(SB), R3", symbol)
	for i := 16; i < 32; i += 4 {
		t.line("VLD1.P 64(R3), [V%d.S4, V%d.S4, V%d.S4, V%d.S4]", i, i+1, i+2, i+3)
	}
}

// arm64Blocks hashes any whole blocks from any state.
func arm64Blocks(t *text) {
	t.function("blocksSHA2(state *node, p *byte, n int)", "blocksSHA2", "$0-24")
	t.line("MOVD state+0(FP), R0")
	t.line("MOVD p+8(FP), R1")
	t.line("MOVD n+16(FP), R2")
	t.line("CBZ R2, blocksDone")
	arm64Keys(t, "keys")
	v := newVectors(0)
	t.line("VLD1 (R0), [V8.B16, V9.B16]")
	t.line("VREV32 V8.B16, V8.B16")
	t.line("VREV32 V9.B16, V9.B16")
	t.label("blocksLoop")
	t.line("VLD1.P 64(R1), [%s.B16, %s.B16, %s.B16, %s.B16]", v.m[0], v.m[1], v.m[2], v.m[3])
	for _, m := range v.m {
		t.line("VREV32 %s.B16, %s.B16", m, m)
	}
	t.line("VMOV V8.B16, %s.B16", v.abcd)
	t.line("VMOV V9.B16, %s.B16", v.efgh)
	for g := range 16 {
		t.line("VADD V%d.S4, %s.S4, %s.S4", 16+g, v.m[g%4], v.sum)
		if g < 12 {
			v.schedule(t, g)
		}
		v.rounds(t, v.sum)
	}
	t.line("VADD %s.S4, V8.S4, V8.S4", v.abcd)
	t.line("VADD %s.S4, V9.S4, V9.S4", v.efgh)
	t.line("SUB $1, R2")
	t.line("CBNZ R2, blocksLoop")
	t.line("VREV32 V8.B16, V8.B16")
	t.line("VREV32 V9.B16, V9.B16")
	t.line("VST1 [V8.B16, V9.B16], (R0)")
	t.label("blocksDone")
	t.line("RET")
}

// arm64Chain hashes each of count digests again and again, two at a time if there is
// more than one.
func arm64Chain(t *text, symbol, prefix string, count int) {
	side := min(count, 2)
	signature := symbol + "(d *node, n int)"
	if count > 1 {
		signature = chainsSignature(symbol)
	}
	t.function(signature, symbol, "$0-16")
	t.line("MOVD d+0(FP), R0")
	t.line("MOVD n+8(FP), R1")
	t.line("CBZ R1, %sDone", prefix)
	arm64Keys(t, "padKeys")
	t.line("MOVD $init<>(SB), R4")
	t.line("MOVD $pad<>(SB), R5")
	t.line("MOVD $%d, R6", count/side)
	t.label(prefix + "Next")
	t.line("MOVD R0, R7")
	t.line("MOVD R1, R2")
	all := make([]vectors, side)
	for i := range all {
		all[i] = newVectors(8 * i)
		v := &all[i]
		t.line("VLD1.P 32(R7), [%s.B16, %s.B16]", v.m[0], v.m[1])
		t.line("VREV32 %s.B16, %s.B16", v.m[0], v.m[0])
		t.line("VREV32 %s.B16, %s.B16", v.m[1], v.m[1])
	}
	t.label(prefix + "Loop")
	for i := range all {
		v := &all[i]
		t.line("VLD1 (R4), [%s.S4, %s.S4]", v.abcd, v.efgh)
		t.line("VLD1 (R5), [%s.S4, %s.S4]", v.m[2], v.m[3])
	}
	for g := range 16 {
		for i := range all {
			v := &all[i]
			sum := v.sum
			if g == 2 || g == 3 { // nothing but constants
				sum = fmt.Sprintf("V%d", 16+g)
			} else {
				t.line("VADD V%d.S4, %s.S4, %s.S4", 16+g, v.m[g%4], sum)
			}
			if g < 12 {
				v.schedule(t, g)
			}
			v.rounds(t, sum)
		}
	}
	for i := range all {
		v := &all[i]
		t.line("VLD1 (R4), [%s.S4, %s.S4]", v.m[0], v.m[1])
		t.line("VADD %s.S4, %s.S4, %s.S4", v.abcd, v.m[0], v.m[0])
		t.line("VADD %s.S4, %s.S4, %s.S4", v.efgh, v.m[1], v.m[1])
	}
	t.line("SUB $1, R2")
	t.line("CBNZ R2, %sLoop", prefix)
	for i := range all {
		v := &all[i]
		t.line("VREV32 %s.B16, %s.B16", v.m[0], v.m[0])
		t.line("VREV32 %s.B16, %s.B16", v.m[1], v.m[1])
		t.line("VST1.P [%s.B16, %s.B16], 32(R0)", v.m[0], v.m[1])
	}
	t.line("SUB $1, R6")
	t.line("CBNZ R6, %sNext", prefix)
	t.label(prefix + "Done")
	t.line("RET")
}
