package main

import "fmt"

// An eager writes the function that encrypts n times so many labels as a step takes
// with the cipher of a nonce group, and lists those where a byte of the cipher text is 0.
// It takes eight registers at once, of one label each, of two (VAES) or of four (AVX-512
// too), as an AES instruction takes long but a processor starts two in a cycle.
type eager struct {
	*text
	name string
	size int // bytes of a register
}

var eagers = []eager{{name: "eagerAES", size: 16}, {name: "eagerVAES", size: 32}, {name: "eagerVAES512", size: 64}}

// step is how many labels it encrypts before it counts one.
func (e *eager) step() int { return max(16, 8*e.size/16) }

func (e *eager) reg(i int) string { return fmt.Sprintf("%c%d", "XY_Z"[e.size/32+e.size/64], i) }

// key loads a round key, which is in memory twice.
func (e *eager) key(round int, to string) {
	if e.size == 64 {
		e.line("VBROADCASTI32X4 %d(BX), %s", 32*round, to)
		return
	}
	e.line("VMOVDQU %d(BX), %s", 32*round, to)
}

// function writes func(labels *byte, keys *[11][2][16]byte, found *[eagerMost+2]uint64, numbers *[eagerMost+1]uint64, n int).
//
// keys are 11 round keys, each twice. found gets, behind how many there are, a bit for
// each byte of a register with such bytes, and numbers which register it was. Both are
// always written, and stay if their place goes on: most registers have none, some do,
// and a jump would often be foreseen wrongly.
func (e *eager) function() {
	t := e.text
	t.function(e.name+"(labels *byte, keys *[11][2][16]byte, found, numbers *uint64, n int)", e.name, "$0-40")
	t.line("VZEROUPPER")
	t.line("MOVQ labels+0(FP), AX")
	t.line("MOVQ keys+8(FP), BX")
	t.line("MOVQ found+16(FP), DI")
	t.line("MOVQ numbers+24(FP), R10")
	t.line("MOVQ n+32(FP), CX")
	t.line("MOVQ $0, DX") // how many there are
	t.line("MOVQ $0, SI") // the number of a register
	t.line("VPXOR X15, X15, X15")
	t.line("PCALIGN $64")
	t.label(e.name + "Loop")
	for at := 0; at < 16*e.step(); at += 8 * e.size {
		e.key(0, e.reg(8))
		for i := range 8 {
			if e.size == 64 {
				t.line("VPXORD %d(AX), %s, %s", at+e.size*i, e.reg(8), e.reg(i))
			} else {
				t.line("VPXOR %d(AX), %s, %s", at+e.size*i, e.reg(8), e.reg(i))
			}
		}
		for round := 1; round <= 10; round++ {
			op, key := "VAESENC", e.reg(8+round%2)
			if round == 10 {
				op = "VAESENCLAST"
			}
			e.key(round, key)
			for i := range 8 {
				t.line("%s %s, %s, %s", op, key, e.reg(i), e.reg(i))
			}
		}
		for i := range 8 {
			x := e.reg(i)
			if e.size == 64 {
				t.line("VPTESTNMB %s, %s, K1", x, x)
				t.line("KMOVQ K1, R8")
			} else {
				t.line("VPCMPEQB %s, %s, %s", e.reg(15), x, x)
				t.line("VPMOVMSKB %s, R8", x)
			}
			t.line("MOVQ R8, 8(DI)(DX*8)")
			t.line("MOVQ SI, (R10)(DX*8)")
			t.line("CMPQ R8, $1")
			t.line("SBBQ $-1, DX") // DX++ if R8 is not 0
			t.line("INCQ SI")
		}
	}
	t.line("ADDQ $%d, AX", 16*e.step())
	t.line("DECQ CX")
	t.line("JNZ %sLoop", e.name)
	t.line("MOVQ DX, (DI)")
	t.line("VZEROUPPER")
	t.line("RET")
}

// lazyBlocks is how many labels lazy encrypts in a step, one behind the other: there
// are no more registers for addresses, and a processor looks some steps ahead.
const lazyBlocks = 4

// lazy writes the function that encrypts n times four labels, each with the cipher of a
// nonce of a group. Of each, at holds where it begins among the labels plus the place of
// the nonce, and the first eight bytes of the cipher text go to texts. keys are 11 round
// keys for each nonce.
func lazy(t *text) {
	const name = "lazyAES"
	t.function(name+"(labels *byte, keys *[16][11][16]byte, at *uint32, texts *uint64, n int)", name, "$0-40")
	t.line("VZEROUPPER")
	t.line("MOVQ labels+0(FP), AX")
	t.line("MOVQ keys+8(FP), BX")
	t.line("MOVQ at+16(FP), SI")
	t.line("MOVQ texts+24(FP), DI")
	t.line("MOVQ n+32(FP), CX")
	t.line("PCALIGN $64")
	t.label(name + "Loop")
	for i := range lazyBlocks {
		key := fmt.Sprintf("R%d", 8+i)
		t.line("MOVL %d(SI), DX", 4*i)
		t.line("MOVQ DX, %s", key)
		t.line("ANDQ $15, %s", key)
		t.line("IMULQ $%d, %s", 11*16, key)
		t.line("ADDQ BX, %s", key)
		t.line("ANDQ $~15, DX")
		t.line("ADDQ AX, DX")
		t.line("VMOVDQU (DX), X%d", i)
	}
	for round := range 11 {
		op := "VAESENC"
		switch round {
		case 0:
			op = "VPXOR"
		case 10:
			op = "VAESENCLAST"
		}
		for i := range lazyBlocks {
			t.line("%s %d(R%d), X%d, X%d", op, 16*round, 8+i, i, i)
		}
	}
	for i := range lazyBlocks {
		t.line("VMOVQ X%d, %d(DI)", i, 8*i)
	}
	t.line("ADDQ $%d, SI", 4*lazyBlocks)
	t.line("ADDQ $%d, DI", 8*lazyBlocks)
	t.line("DECQ CX")
	t.line("JNZ %sLoop", name)
	t.line("VZEROUPPER")
	t.line("RET")
}
