package main

import "fmt"

// eagerNEON writes the function that eager does, on the AES extension of ARMv8 and for four
// labels at once in what it lists. Sixteen labels are in flight, in V0 to V15, and the keys
// stay in V16 to V26. AESE adds the key first, so ten follow one another, and the last key
// is not added but compared with: a byte of the cipher text is 0 where they are equal.
//
// There is no instruction for a bit of each byte. V27 has a bit for each of eight bytes,
// and adding neighbours three times over makes 64 bits of four registers.
func eagerNEON(t *text) {
	const name = "eagerNEON"
	t.comment("A bit for each of eight bytes, twice.")
	t.table("bits", 0x08040201, 0x80402010, 0x08040201, 0x80402010)
	t.function(name+"(labels *byte, keys *[11][2][16]byte, found, numbers *uint64, n int)", name, "$0-40")
	t.line("MOVD labels+0(FP), R0")
	t.line("MOVD keys+8(FP), R1")
	t.line("MOVD found+16(FP), R3")
	t.line("MOVD numbers+24(FP), R4")
	t.line("MOVD n+32(FP), R2")
	t.line("MOVD $bits<>(SB), R7")
	t.line("FMOVQ (R7), F27")
	for round := range 11 {
		t.line("FMOVQ %d(R1), F%d", 32*round, 16+round)
	}
	t.line("ADD $8, R3, R9")
	t.line("MOVD $0, R5") // how many there are
	t.line("MOVD $0, R6") // the number of four labels
	t.line("PCALIGN $64")
	t.label(name + "Loop")
	for i := 0; i < 16; i += 2 {
		t.line("FLDPQ %d(R0), (F%d, F%d)", 16*i, i, i+1)
	}
	for round := range 10 {
		for i := range 16 {
			t.line("AESE V%d.B16, V%d.B16", 16+round, i)
			if round < 9 { // a processor does the two as one where they follow each other
				t.line("AESMC V%d.B16, V%[1]d.B16", i)
			}
		}
	}
	for i := range 16 {
		t.line("VCMEQ V26.B16, V%d.B16, V%[1]d.B16", i)
		t.line("VAND V27.B16, V%d.B16, V%[1]d.B16", i)
	}
	add := func(x, to int) { t.line("VADDP V%d.B16, V%d.B16, V%[2]d.B16", x, to) }
	for i := 0; i < 16; i += 2 {
		add(i+1, i)
	}
	for i := 0; i < 16; i += 4 {
		add(i+2, i)
	}
	for i := 0; i < 16; i += 4 {
		add(i, i)
	}
	for i := 0; i < 16; i += 4 {
		t.line("VMOV V%d.D[0], R8", i)
		t.line("MOVD R8, (R9)(R5<<3)")
		t.line("MOVD R6, (R4)(R5<<3)")
		t.line("CMP $0, R8")
		t.line("CINC NE, R5, R5")
		t.line("ADD $1, R6, R6")
	}
	t.line("ADD $256, R0, R0")
	t.line("SUB $1, R2, R2")
	t.line("CBNZ R2, %sLoop", name)
	t.line("MOVD R5, (R3)")
	t.line("RET")
}

// lazyNEON writes the function that lazy does. The keys of two rounds are loaded beside
// those of the two before.
func lazyNEON(t *text) {
	const name = "lazyAES"
	t.function(name+"(labels *byte, keys *[16][11][16]byte, at *uint32, texts *uint64, n int)", name, "$0-40")
	t.line("MOVD labels+0(FP), R0")
	t.line("MOVD keys+8(FP), R1")
	t.line("MOVD at+16(FP), R2")
	t.line("MOVD texts+24(FP), R3")
	t.line("MOVD n+32(FP), R4")
	t.line("MOVD $%d, R5", 11*16)
	t.line("PCALIGN $64")
	t.label(name + "Loop")
	each := func(f func(i int, key string)) {
		for i := range lazyBlocks {
			f(i, fmt.Sprintf("R%d", 8+i))
		}
	}
	each(func(i int, key string) {
		t.line("MOVWU %d(R2), R6", 4*i)
		t.line("AND $15, R6, %s", key)
		t.line("MADD R5, R1, %s, %s", key, key)
		t.line("BIC $15, R6, R6")
		t.line("ADD R0, R6, R6")
		t.line("FMOVQ (R6), F%d", i)
	})
	for round := 0; round < 10; round += 2 {
		first := func(i int) int { return 16 + 8*(round/2%2) + 2*i }
		each(func(i int, key string) { t.line("FLDPQ %d(%s), (F%d, F%d)", 16*round, key, first(i), first(i)+1) })
		for k := range 2 {
			each(func(i int, _ string) {
				t.line("AESE V%d.B16, V%d.B16", first(i)+k, i)
				if round+k < 9 {
					t.line("AESMC V%d.B16, V%[1]d.B16", i)
				}
			})
		}
	}
	each(func(i int, key string) {
		t.line("FMOVQ 160(%s), F%d", key, 24+i)
		t.line("VEOR V%d.B16, V%d.B16, V%[2]d.B16", 24+i, i)
		t.line("FMOVD F%d, %d(R3)", i, 8*i)
	})
	t.line("ADD $%d, R2, R2", 4*lazyBlocks)
	t.line("ADD $%d, R3, R3", 8*lazyBlocks)
	t.line("SUB $1, R4, R4")
	t.line("CBNZ R4, %sLoop", name)
	t.line("RET")
}
