package main

import "fmt"

// eagerBlocks is how many labels eager encrypts in a step.
const eagerBlocks = 16

// eager writes the function that encrypts n times 16 labels with the cipher of a nonce
// group and lists those where a byte of the cipher text is 0. It takes eight registers
// at once, of one label each or of two (VAES), as an AES instruction takes long but a
// processor starts two in a cycle.
//
// keys are 11 round keys, each twice. found gets, behind the number of entries, an entry
// for each register with such bytes: which register, and below it a bit for each byte.
// An entry is always written, and stays if the number goes on: most have none, some do,
// and a jump would often be foreseen wrongly.
func eager(t *text, vaes bool) {
	name, size := "eagerAES", 16
	if vaes {
		name, size = "eagerVAES", 32
	}
	reg := func(i int) string { return fmt.Sprintf("%c%d", "XY"[size/32], i) }
	t.function(name+"(labels *byte, keys *[11][2][16]byte, found *uint64, n int)", name, "$0-32")
	t.line("VZEROUPPER")
	t.line("MOVQ labels+0(FP), AX")
	t.line("MOVQ keys+8(FP), BX")
	t.line("MOVQ found+16(FP), DI")
	t.line("MOVQ n+24(FP), CX")
	t.line("MOVQ DI, DX") // the end of the entries, 8 before the next
	t.line("MOVQ $0, SI") // the number of a register
	t.line("VPXOR %s, %s, %s", reg(15), reg(15), reg(15))
	t.line("PCALIGN $64")
	t.label(name + "Loop")
	for at := 0; at < 16*eagerBlocks; at += 8 * size {
		t.line("VMOVDQU (BX), %s", reg(8))
		for i := range 8 {
			t.line("VPXOR %d(AX), %s, %s", at+size*i, reg(8), reg(i))
		}
		for round := 1; round <= 10; round++ {
			op, key := "VAESENC", reg(8+round%2)
			if round == 10 {
				op = "VAESENCLAST"
			}
			t.line("VMOVDQU %d(BX), %s", 32*round, key)
			for i := range 8 {
				t.line("%s %s, %s, %s", op, key, reg(i), reg(i))
			}
		}
		for i := range 8 {
			t.line("VPCMPEQB %s, %s, %s", reg(15), reg(i), reg(i))
			t.line("VPMOVMSKB %s, R8", reg(i))
			t.line("MOVL R8, 8(DX)")
			t.line("MOVL SI, 12(DX)")
			t.line("XORL R9, R9")
			t.line("TESTL R8, R8")
			t.line("SETNE R9")
			t.line("LEAQ (DX)(R9*8), DX")
			t.line("INCQ SI")
		}
	}
	t.line("ADDQ $%d, AX", 16*eagerBlocks)
	t.line("DECQ CX")
	t.line("JNZ %sLoop", name)
	t.line("SUBQ DI, DX")
	t.line("SHRQ $3, DX")
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
