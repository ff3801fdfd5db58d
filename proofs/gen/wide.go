package main

import "fmt"

// A wide kernel hashes one message in each 32-bit lane of its registers. Registers 0
// to 7 hold the working variables a to h, 8 to 15 are scratch, taken in turn.
//
// With AVX-512 the newest 16 message words are registers 16 to 31, three operands
// combine in one instruction, and keys come as broadcast memory operands. With AVX2
// the words wait on the stack, and a rotation is two shifts.
type wide struct {
	*text
	avx512  bool
	scratch int
}

// lanes returns how many messages the kernel hashes side by side.
func (w *wide) lanes() int {
	if w.avx512 {
		return 16
	}
	return 8
}

func (w *wide) reg(i int) string {
	if w.avx512 {
		return fmt.Sprintf("Z%d", i)
	}
	return fmt.Sprintf("Y%d", i)
}

// temp returns the next scratch register. What is in it lasts for seven more.
func (w *wide) temp() string {
	w.scratch++
	return w.reg(8 + w.scratch%8)
}

// variable returns the register of one of a (0) to h (7) in round t: they move up by
// one with each round.
func (w *wide) variable(t, i int) string { return w.reg((i - t%8 + 8) % 8) }

// slot is where message word t waits on the stack (AVX2).
func (w *wide) slot(t int) string { return fmt.Sprintf("%d(BX)", 32*(t%16)) }

// word returns a register with message word t.
func (w *wide) word(t int) string {
	if w.avx512 {
		return w.reg(16 + t%16)
	}
	x := w.temp()
	w.line("VMOVDQU %s, %s", w.slot(t), x)
	return x
}

// operand returns message word t as the first operand of an instruction.
func (w *wide) operand(t int) string {
	if w.avx512 {
		return w.word(t)
	}
	return w.slot(t)
}

// constant adds a constant at the symbol to x.
func (w *wide) constant(symbol string, at int, x, to string) {
	if w.avx512 {
		w.line("VPADDD.BCST %s<>+%d(SB), %s, %s", symbol, at, x, to)
		return
	}
	c := w.temp()
	w.line("VPBROADCASTD %s<>+%d(SB), %s", symbol, at, c)
	w.line("VPADDD %s, %s, %s", c, x, to)
}

// copied returns a copy of x.
func (w *wide) copied(x string) string {
	c := w.temp()
	w.line("VMOVDQA32 %s, %s", x, c)
	return c
}

// sigma returns the exclusive or of x rotated right by r1 and r2, and rotated by r3 or
// shifted by it (FIPS 180-4, section 4.1.2).
func (w *wide) sigma(x string, r1, r2, r3 int, shift bool) string {
	if w.avx512 {
		a, b, c := w.temp(), w.temp(), w.temp()
		w.line("VPRORD $%d, %s, %s", r1, x, a)
		w.line("VPRORD $%d, %s, %s", r2, x, b)
		if shift {
			w.line("VPSRLD $%d, %s, %s", r3, x, c)
		} else {
			w.line("VPRORD $%d, %s, %s", r3, x, c)
		}
		w.line("VPTERNLOGD $0x96, %s, %s, %s", c, b, a)
		return a
	}
	sum, next := w.temp(), w.temp()
	w.line("VPSRLD $%d, %s, %s", r1, x, sum)
	add := func(op string, n int) {
		w.line("%s $%d, %s, %s", op, n, x, next)
		w.line("VPXOR %s, %s, %s", next, sum, sum)
	}
	add("VPSLLD", 32-r1)
	add("VPSRLD", r2)
	add("VPSLLD", 32-r2)
	add("VPSRLD", r3)
	if !shift {
		add("VPSLLD", 32-r3)
	}
	return sum
}

// choice and majority are Ch and Maj of FIPS 180-4, section 4.1.2.
func (w *wide) choice(e, f, g string) string {
	if w.avx512 {
		x := w.copied(e)
		w.line("VPTERNLOGD $0xca, %s, %s, %s", g, f, x)
		return x
	}
	x := w.temp()
	w.line("VPXOR %s, %s, %s", f, g, x)
	w.line("VPAND %s, %s, %s", e, x, x)
	w.line("VPXOR %s, %s, %s", g, x, x)
	return x
}

func (w *wide) majority(a, b, c string) string {
	if w.avx512 {
		x := w.copied(a)
		w.line("VPTERNLOGD $0xe8, %s, %s, %s", c, b, x)
		return x
	}
	x, y := w.temp(), w.temp()
	w.line("VPXOR %s, %s, %s", a, b, x)
	w.line("VPXOR %s, %s, %s", c, b, y)
	w.line("VPAND %s, %s, %s", y, x, x)
	w.line("VPXOR %s, %s, %s", b, x, x)
	return x
}

func (w *wide) add(x, to string) { w.line("VPADDD %s, %s, %s", x, to, to) }

// round does round t. The word's key is at the symbol; a constant word is in it.
func (w *wide) round(t int, keys string, constant bool) {
	v := func(i int) string { return w.variable(t, i) }
	h := v(7)
	if constant {
		w.constant(keys, 4*t, h, h)
	} else {
		x := w.word(t)
		to := x
		if w.avx512 {
			to = w.temp()
		}
		w.constant(keys, 4*t, x, to)
		w.add(to, h)
	}
	w.add(w.choice(v(4), v(5), v(6)), h)
	w.add(w.sigma(v(4), 6, 11, 25, false), h)
	w.add(h, v(3))
	w.add(w.majority(v(0), v(1), v(2)), h)
	w.add(w.sigma(v(0), 2, 13, 22, false), h)
}

// schedule makes message word t from earlier ones, of which those for which fixed
// tells a value are constants; their terms are added up in the table at the symbol.
func (w *wide) schedule(t int, fixed func(t int) (uint32, bool), symbol string) {
	varies := func(t int) bool { _, ok := fixed(t); return !ok }
	var terms []string // as first operands
	if constantTerms(t, fixed) != 0 {
		terms = append(terms, symbol)
	}
	if varies(t - 15) {
		terms = append(terms, w.sigma(w.word(t-15), 7, 18, 3, true))
	}
	if varies(t - 7) {
		terms = append(terms, w.operand(t-7))
	}
	if varies(t - 2) {
		terms = append(terms, w.sigma(w.word(t-2), 17, 19, 10, true))
	}
	to := w.reg(16 + t%16)
	sum := to
	switch {
	case varies(t - 16):
		sum = w.word(t - 16)
	case terms[0] == symbol:
		sum, terms = terms[1], append([]string{symbol}, terms[2:]...)
	default:
		sum, terms = terms[0], terms[1:]
	}
	if !w.avx512 {
		to = w.temp()
		if sum[0] != 'Y' {
			w.line("VMOVDQU %s, %s", sum, to)
			sum = to
		}
	}
	for _, x := range terms {
		if x == symbol {
			w.constant(symbol, 4*t, sum, to)
		} else {
			w.line("VPADDD %s, %s, %s", x, sum, to)
		}
		sum = to
	}
	if !w.avx512 {
		w.line("VMOVDQU %s, %s", to, w.slot(t))
	}
}

// constantTerms is the sum of the terms of message word t that are constants.
func constantTerms(t int, fixed func(t int) (uint32, bool)) uint32 {
	var sum uint32
	for _, term := range []struct {
		back int
		of   func(uint32) uint32
	}{
		{16, func(x uint32) uint32 { return x }}, {15, smallSigma0},
		{7, func(x uint32) uint32 { return x }}, {2, smallSigma1},
	} {
		if x, ok := fixed(t - term.back); ok {
			sum += term.of(x)
		}
	}
	return sum
}

// load reads eight words of each lane, big-endian and side by side in memory, into
// registers from first on (AVX-512), or into the slots from 0 on (AVX2). AX points to
// the words of lane 0, those of the next lane are 32 bytes further.
func (w *wide) load(first int) {
	if !w.avx512 {
		for lane := range w.lanes() {
			for i := range 8 {
				w.line("MOVL %d(AX), R8", 32*lane+4*i)
				w.line("BSWAPL R8")
				w.line("MOVL R8, %d(BX)", 32*i+4*lane)
			}
		}
		return
	}
	w.line("VMOVDQU32 stride<>+0(SB), Z15")
	w.line("VMOVDQU32 swapWide<>+0(SB), Z14")
	for i := range 8 {
		w.line("KXNORW K1, K1, K1")
		w.line("VPGATHERDD %d(AX)(Z15*4), K1, Z%d", 4*i, first+i)
	}
	for i := range 8 {
		w.line("VPSHUFB Z14, Z%d, Z%d", first+i, first+i)
	}
}

// store is the reverse.
func (w *wide) store(first int) {
	if !w.avx512 {
		for lane := range w.lanes() {
			for i := range 8 {
				w.line("MOVL %d(BX), R8", 32*i+4*lane)
				w.line("BSWAPL R8")
				w.line("MOVL R8, %d(AX)", 32*lane+4*i)
			}
		}
		return
	}
	w.line("VMOVDQU32 stride<>+0(SB), Z15")
	w.line("VMOVDQU32 swapWide<>+0(SB), Z14")
	for i := range 8 {
		w.line("VPSHUFB Z14, Z%d, Z%d", first+i, first+i)
		w.line("KXNORW K1, K1, K1")
		w.line("VPSCATTERDD Z%d, K1, %d(AX)(Z15*4)", first+i, 4*i)
	}
}

// leave ends a kernel that used wide registers.
func (w *wide) leave() {
	w.line("VZEROUPPER")
	w.line("RET")
}

// paddedWord tells the message words of a padded block that are constants.
func paddedWord(t int) (uint32, bool) {
	if t < 8 || t > 15 {
		return 0, false
	}
	return padding[t-8], true
}

// noWord is that of any block.
func noWord(int) (uint32, bool) { return 0, false }

// wideTables writes the constants that only wide kernels use.
func wideTables(t *text) {
	var terms [32]uint32
	for i := 16; i < 32; i++ {
		terms[i] = constantTerms(i, paddedWord)
	}
	t.comment("What the constant words of a padded block contribute to words 16 to 31.")
	t.table("terms", terms[:]...)
	a, e := firstRound()
	t.comment("A and E after the first round on a word of 0.")
	t.table("first", a, e)
	t.comment("Where the lanes of 16 digests lie, in units of 4 bytes; the byte order of words.")
	var stride, swap [16]uint32
	for i := range stride {
		stride[i], swap[i] = uint32(8*i), 0x00010203+0x04040404*uint32(i%4)
	}
	t.table("stride", stride[:]...)
	t.table("swapWide", swap[:]...)
}

// firstRound does round 0 from the initial state on a word of 0.
func firstRound() (a, e uint32) {
	s := initial
	t1 := s[7] + bigSigma1(s[4]) + choose(s[4], s[5], s[6]) + roundKeys[0]
	return t1 + bigSigma0(s[0]) + majority(s[0], s[1], s[2]), s[3] + t1
}

// wideChains hashes each of several digests again and again.
func wideChains(t *text, symbol string, avx512 bool) {
	w := &wide{text: t, avx512: avx512}
	frame := 0
	if !avx512 {
		frame = 32*16 + 32
	}
	w.function(chainsSignature(symbol), symbol, fmt.Sprintf("$%d-16", frame))
	w.line("VZEROUPPER")
	w.line("MOVQ d+0(FP), AX")
	w.line("MOVQ n+8(FP), CX")
	w.line("TESTQ CX, CX")
	w.line("JZ %sDone", symbol)
	if !avx512 {
		w.align("BX", 32)
	}
	w.load(16)
	w.line("PCALIGN $64")
	w.label(symbol + "Loop")
	// Round 0 on the initial state, of which all but the word is constant.
	x := w.word(0)
	w.constant("first", 0, x, w.reg(7))
	w.constant("first", 4, x, w.reg(3))
	for _, i := range []int{0, 1, 2, 4, 5, 6} {
		w.line("VPBROADCASTD init<>+%d(SB), %s", 4*i, w.reg(i))
	}
	for t := 1; t < 64; t++ {
		if t >= 16 {
			w.schedule(t, paddedWord, "terms")
		}
		_, fixed := paddedWord(t)
		w.round(t, "padKeys", fixed)
	}
	for i := range 8 {
		if avx512 {
			w.constant("init", 4*i, w.reg(i), w.reg(16+i))
		} else {
			w.constant("init", 4*i, w.reg(i), w.reg(i))
			w.line("VMOVDQU %s, %s", w.reg(i), w.slot(i))
		}
	}
	w.line("DECQ CX")
	w.line("JNZ %sLoop", symbol)
	w.store(16)
	w.label(symbol + "Done")
	w.leave()
}

// wideSeveral hashes whole blocks of several messages in one buffer side by side, each
// from its state. What a state was before the block waits on the stack. AVX-512 only.
func wideSeveral(t *text, symbol string) {
	w := &wide{text: t, avx512: true}
	w.function(severalSignature(symbol), symbol, fmt.Sprintf("$%d-48", 64*8+64))
	w.line("VZEROUPPER")
	w.line("MOVQ states+0(FP), AX")
	w.line("MOVQ room_base+8(FP), DI")
	w.line("MOVQ at+32(FP), DX")
	w.line("MOVQ n+40(FP), CX")
	w.line("TESTQ CX, CX")
	w.line("JZ %sDone", symbol)
	w.align("BX", 64)
	w.load(0)
	w.line("PCALIGN $64")
	w.label(symbol + "Loop")
	for i := range 8 {
		w.line("VMOVDQU32 Z%d, %d(BX)", i, 64*i)
	}
	w.line("VMOVDQU32 (DX), Z15")
	w.line("VMOVDQU32 swapWide<>+0(SB), Z14")
	for i := range 16 {
		w.line("KXNORW K1, K1, K1")
		w.line("VPGATHERDD %d(DI)(Z15*1), K1, Z%d", 4*i, 16+i)
	}
	for i := range 16 {
		w.line("VPSHUFB Z14, Z%d, Z%d", 16+i, 16+i)
	}
	for t := range 64 {
		if t >= 16 {
			w.schedule(t, noWord, "")
		}
		w.round(t, "keys", false)
	}
	for i := range 8 {
		w.line("VPADDD %d(BX), Z%d, Z%d", 64*i, i, i)
	}
	w.line("ADDQ $64, DI")
	w.line("DECQ CX")
	w.line("JNZ %sLoop", symbol)
	w.store(0)
	w.label(symbol + "Done")
	w.leave()
}
