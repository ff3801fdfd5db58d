package main

import "fmt"

// SHA256RNDS2 does two rounds. It keeps the state in two registers, from lane 3 down
// A B E F and C D G H, and takes the message words, keys added, in lanes 0 and 1 of
// X0. It leaves A B E F in its destination, and the old A B E F is the new C D G H.
// Its latency is the floor under a chain: 32 of them follow one another in each hash.
//
// One chain comes in two schedules. The early one makes each four message words as
// soon as it can, two groups of rounds ahead. The late one makes them one group ahead
// and adds the newest word that goes into them after SHA256MSG2, so that from one four to
// the next there is SHA256MSG2 and one addition. It takes two instructions more. On
// Intel's Redwood Cove the early schedule keeps the rounds from their port and costs
// 142 cycles a hash, the late one 131; on AMD's Zen 4 the early one costs 129.

// pair is the state of one hash: the registers change roles with every two rounds.
type pair struct{ abef, cdgh string }

// rounds does two rounds on the words in X0.
func (p *pair) rounds(t *text) {
	t.line("SHA256RNDS2 X0, %s, %s", p.abef, p.cdgh)
	p.abef, p.cdgh = p.cdgh, p.abef
}

// toState turns words A to D in x and E to H in y into the state p.
func (p *pair) toState(t *text, x, y string) {
	t.line("VSHUFPS $0x11, %s, %s, %s", x, y, p.abef)
	t.line("VSHUFPS $0xbb, %s, %s, %s", x, y, p.cdgh)
}

// toWords is the reverse.
func (p *pair) toWords(t *text, x, y string) {
	t.line("VSHUFPS $0xbb, %s, %s, %s", p.cdgh, p.abef, x)
	t.line("VSHUFPS $0x11, %s, %s, %s", p.cdgh, p.abef, y)
}

// named returns the name of the function in one of the schedules.
func named(name string, late bool) string {
	if late {
		return name + "Late"
	}
	return name
}

// amd64Blocks hashes any whole blocks from any state.
func amd64Blocks(t *text, late bool) {
	symbol := named("blocksNI", late)
	t.function(symbol+"(state *node, p *byte, n int)", symbol, "$0-24")
	t.line("VZEROUPPER")
	t.line("MOVQ state+0(FP), AX")
	t.line("MOVQ p+8(FP), BX")
	t.line("MOVQ n+16(FP), CX")
	t.line("VMOVDQU swap<>(SB), X15")
	t.line("VMOVDQU (AX), X4")
	t.line("VMOVDQU 16(AX), X5")
	t.line("VPSHUFB X15, X4, X4")
	t.line("VPSHUFB X15, X5, X5")
	s := &pair{"X1", "X2"}
	s.toState(t, "X4", "X5")
	t.line("TESTQ CX, CX")
	t.line("JZ %sDone", symbol)
	t.label(symbol + "Loop")
	m := []string{"X4", "X5", "X6", "X7"}
	for i, x := range m {
		t.line("VMOVDQU %d(BX), %s", 16*i, x)
		t.line("VPSHUFB X15, %s, %s", x, x)
	}
	t.line("VMOVDQA X1, X13")
	t.line("VMOVDQA X2, X12")
	for g := range 16 {
		now, last := m[g%4], m[(g+3)%4] // of words 4g and 4g-4; the next group's is m[g+1]
		t.line("VPADDD keys<>+%d(SB), %s, X0", 16*g, now)
		s.rounds(t)
		if next := m[(g+1)%4]; g >= 3 && g < 15 {
			if late {
				lateWords(t, last, now, next, next)
			} else {
				t.line("VPALIGNR $4, %s, %s, X10", last, now)
				t.line("VPADDD X10, %s, %s", next, next)
				t.line("SHA256MSG2 %s, %s", now, next)
			}
		}
		t.line("VPSHUFD $0x0e, X0, X0")
		s.rounds(t)
		if g >= 1 && g < 13 {
			t.line("SHA256MSG1 %s, %s", now, last)
		}
	}
	t.line("VPADDD X13, X1, X1")
	t.line("VPADDD X12, X2, X2")
	t.line("ADDQ $64, BX")
	t.line("DECQ CX")
	t.line("JNZ %sLoop", symbol)
	t.label(symbol + "Done")
	s.toWords(t, "X4", "X5")
	t.line("VPSHUFB X15, X4, X4")
	t.line("VPSHUFB X15, X5, X5")
	t.line("VMOVDQU X4, (AX)")
	t.line("VMOVDQU X5, 16(AX)")
	t.line("RET")
}

// lateWords makes four message words in the late schedule: before and now are the
// eight words before them, partial is SHA256MSG1 of the eight before those (or a table).
func lateWords(t *text, before, now, partial, to string) {
	t.line("VPSRLDQ $4, %s, X10", before)
	if partial == to {
		t.line("VPADDD X10, %s, %s", to, to)
	} else {
		t.line("VPADDD %s, X10, %s", partial, to)
	}
	t.line("VPSLLDQ $12, %s, X11", now)
	t.line("SHA256MSG2 %s, %s", now, to)
	t.line("VPADDD X11, %s, %s", to, to)
}

// amd64Chain hashes a digest again and again, for latency. From one hash to the next
// only one shuffle stands between two SHA256RNDS2.
func amd64Chain(t *text, late bool) {
	symbol := named("chainNI", late)
	t.function(symbol+"(d *node, n int)", symbol, "$0-16")
	t.line("VZEROUPPER")
	t.line("MOVQ d+0(FP), AX")
	t.line("MOVQ n+8(FP), CX")
	t.line("TESTQ CX, CX")
	t.line("JZ %sDone", symbol)
	t.line("VMOVDQU swap<>(SB), X15")
	t.line("VMOVDQU initABEF<>(SB), X13")
	t.line("VMOVDQU foldCDGH<>(SB), X14")
	t.line("VMOVDQU words12<>(SB), X12")
	raw := &pair{"X1", "X2"}
	amd64LoadRaw(t, "0(AX)", "16(AX)", raw)
	t.line("PCALIGN $64")
	t.label(symbol + "Loop")
	amd64ChainBody(t, raw, late)
	t.line("DECQ CX")
	t.line("JNZ %sLoop", symbol)
	amd64StoreRaw(t, "0(AX)", "16(AX)", raw)
	t.label(symbol + "Done")
	t.line("RET")
}

// amd64LoadRaw loads a digest and takes the initial state off again. It uses X0 and
// X3, which hold nothing of a chain between two hashes.
func amd64LoadRaw(t *text, at, at16 string, p *pair) {
	t.line("VMOVDQU %s, X0", at)
	t.line("VMOVDQU %s, X3", at16)
	t.line("VPSHUFB X15, X0, X0")
	t.line("VPSHUFB X15, X3, X3")
	t.line("VPSUBD init<>+0(SB), X0, X0")
	t.line("VPSUBD init<>+16(SB), X3, X3")
	p.toState(t, "X0", "X3")
}

// amd64StoreRaw is the reverse.
func amd64StoreRaw(t *text, at, at16 string, p *pair) {
	p.toWords(t, "X0", "X3")
	t.line("VPADDD init<>+0(SB), X0, X0")
	t.line("VPADDD init<>+16(SB), X3, X3")
	t.line("VPSHUFB X15, X0, X0")
	t.line("VPSHUFB X15, X3, X3")
	t.line("VMOVDQU X0, %s", at)
	t.line("VMOVDQU X3, %s", at16)
}

// amd64ChainBody does one hash: raw state in, raw state out.
func amd64ChainBody(t *text, raw *pair, late bool) {
	s := &pair{"X8", "X9"}
	m := []string{"X4", "X5", "X6", "X7"}
	t.line("VPSHUFD $0x0b, %s, X0", raw.abef) // the raw words 0 and 1
	t.line("VMOVDQA X13, %s", s.abef)
	t.line("VMOVDQA X14, %s", s.cdgh)
	s.rounds(t)
	t.line("VPSHUFD $0x0b, %s, X0", raw.cdgh) // 2 and 3
	t.line("VPADDD rawKeys2<>(SB), X0, X0")
	raw.toWords(t, m[0], m[1])
	s.rounds(t)
	if late {
		t.line("VPADDD init<>+0(SB), %s, %s", m[0], m[0])
		t.line("VPADDD init<>+16(SB), %s, %s", m[1], m[1])
		t.line("VPADDD keys<>+16(SB), %s, X0", m[1])
		s.rounds(t)
	} else {
		t.line("VPADDD rawKeys<>+16(SB), %s, X0", m[1])
		s.rounds(t)
		t.line("VPADDD init<>+0(SB), %s, %s", m[0], m[0])
		t.line("VPADDD init<>+16(SB), %s, %s", m[1], m[1])
	}
	t.line("VPSHUFD $0x0e, X0, X0")
	s.rounds(t)
	for g := 2; g < 16; g++ {
		if g < 4 { // nothing but constants
			t.line("VMOVDQU padKeys<>+%d(SB), X0", 16*g)
		} else {
			t.line("VPADDD padKeys<>+%d(SB), %s, X0", 16*g, m[g%4])
		}
		s.rounds(t)
		switch {
		case late && g >= 3 && g < 15:
			chainLateWords(t, m, g+1)
		case !late && g == 2:
			t.line("SHA256MSG1 %s, %s", m[1], m[0])
		case !late && g == 3:
			t.line("SHA256MSG1 words8<>(SB), %s", m[1])
		case !late && g < 14:
			chainEarlyWords(t, m, g+2)
		}
		if g < 4 {
			t.line("VMOVDQU padKeys<>+%d(SB), X0", 16*g+8)
		} else {
			t.line("VPSHUFD $0x0e, X0, X0")
		}
		s.rounds(t)
		switch {
		case late:
		case g == 2:
			t.line("SHA256MSG2 X12, %s", m[0]) // words 16; 9 to 12 are zero
		case g == 3:
			t.line("VPALIGNR $4, X12, %s, X10", m[0])
			t.line("VPADDD X10, %s, %s", m[1], m[1])
			t.line("SHA256MSG2 %s, %s", m[0], m[1]) // words 20
		case g == 4: // words 28 begin with 12 to 15
			t.line("VMOVDQA X12, %s", m[3])
			t.line("SHA256MSG1 %s, %s", m[0], m[3])
			t.line("SHA256MSG1 %s, %s", m[1], m[0])
		case g < 12:
			t.line("SHA256MSG1 %s, %s", m[(g+1)%4], m[g%4])
		}
	}
	t.line("VMOVDQA %s, %s", s.abef, raw.abef)
	t.line("VMOVDQA %s, %s", s.cdgh, raw.cdgh)
}

// chainEarlyWords makes words 4g to 4g+3, from 24 on, in the early schedule. Their
// SHA256MSG1 is done.
func chainEarlyWords(t *text, m []string, g int) {
	to, now, before := m[g%4], m[(g+3)%4], m[(g+2)%4]
	t.line("VPALIGNR $4, %s, %s, X10", before, now)
	if g == 6 {
		t.line("VPADDD msg24<>(SB), X10, %s", to)
	} else {
		t.line("VPADDD X10, %s, %s", to, to)
	}
	t.line("SHA256MSG2 %s, %s", now, to)
}

// chainLateWords makes words 4g to 4g+3, from 16 on, in the late schedule.
func chainLateWords(t *text, m []string, g int) {
	to, now, before, partial := m[g%4], m[(g+3)%4], m[(g+2)%4], m[g%4]
	switch g {
	case 4: // 9 to 12 are zero
		t.line("SHA256MSG1 %s, %s", m[1], m[0])
		t.line("SHA256MSG2 X12, %s", m[0])
		return
	case 5:
		before = "X12"
		t.line("SHA256MSG1 words8<>(SB), %s", to)
	case 6:
		partial = "msg24<>(SB)"
	case 7:
		t.line("VMOVDQA X12, %s", to)
		t.line("SHA256MSG1 %s, %s", m[0], to)
	default:
		t.line("SHA256MSG1 %s, %s", m[(g+1)%4], to)
	}
	lateWords(t, before, now, partial, to)
}

// lanes is the number of chains that run side by side, for throughput: enough to
// cover the latency, and three registers for each with what they share make 16.
const lanes = 4

// amd64Chains hashes each of four digests again and again. Older message words wait
// on the stack.
func amd64Chains(t *text) {
	t.function(chainsSignature("chainsNI"), "chainsNI", fmt.Sprintf("$%d-16", 64*lanes+16))
	t.line("VZEROUPPER")
	t.line("MOVQ d+0(FP), AX")
	t.line("MOVQ n+8(FP), CX")
	t.line("TESTQ CX, CX")
	t.line("JZ chainsDone")
	t.align("BX", 16)
	t.line("VMOVDQU swap<>(SB), X15")
	all := make([]*lane, lanes)
	for i := range all {
		all[i] = newLane(i)
		amd64LoadRaw(t, fmt.Sprintf("%d(AX)", 32*i), fmt.Sprintf("%d(AX)", 32*i+16), &all[i].raw)
	}
	t.line("PCALIGN $64")
	t.label("chainsLoop")
	for g := range 16 {
		for _, l := range all {
			l.group(t, g)
		}
	}
	t.line("DECQ CX")
	t.line("JNZ chainsLoop")
	t.line("VMOVDQU swap<>(SB), X15")
	for i, l := range all {
		amd64StoreRaw(t, fmt.Sprintf("%d(AX)", 32*i), fmt.Sprintf("%d(AX)", 32*i+16), &l.raw)
	}
	t.label("chainsDone")
	t.line("RET")
}

// lane is one of several chains: its state, its newest four message words, and where
// on the stack the 16 newest are. X14 and X15 are scratch of all lanes.
type lane struct {
	raw    pair
	newest string
	ring   int
}

// newLane returns lane i.
func newLane(i int) *lane {
	return &lane{
		raw:    pair{fmt.Sprintf("X%d", 1+3*i), fmt.Sprintf("X%d", 2+3*i)},
		newest: fmt.Sprintf("X%d", 3+3*i),
		ring:   64 * i,
	}
}

// words returns where words 4g and up are.
func (l *lane) words(g int) string {
	switch g {
	case 2:
		return "words8<>(SB)"
	case 3:
		return "words12<>(SB)"
	}
	return fmt.Sprintf("%d(BX)", l.ring+g%4*16)
}

// group does four rounds, and makes the message words of the next four.
func (l *lane) group(t *text, g int) {
	s, newest := &l.raw, l.newest
	switch g {
	case 0:
		s.toWords(t, "X14", newest)
		t.line("VPADDD rawKeys<>(SB), X14, X0")
		t.line("VMOVDQU initABEF<>(SB), %s", s.abef)
		t.line("VMOVDQU initCDGH<>(SB), %s", s.cdgh)
	case 1:
		t.line("VPADDD rawKeys<>+16(SB), %s, X0", newest)
	case 2, 3:
		t.line("VMOVDQU padKeys<>+%d(SB), X0", 16*g)
	default:
		t.line("VPADDD padKeys<>+%d(SB), %s, X0", 16*g, newest)
	}
	s.rounds(t)
	switch g {
	case 0:
		t.line("VPADDD init<>+0(SB), X14, X14")
		t.line("VMOVDQU X14, %s", l.words(0))
	case 1:
		t.line("VPADDD init<>+16(SB), %s, %s", newest, newest)
		t.line("VMOVDQU %s, %s", newest, l.words(1))
	case 2, 15:
	case 5:
		t.line("VPALIGNR $4, %s, %s, X14", l.words(4), newest)
		t.line("VPADDD msg24<>(SB), X14, X14")
		t.line("SHA256MSG2 %s, X14", newest)
	case 3:
		t.line("VMOVDQU %s, X14", l.words(0))
		t.line("SHA256MSG1 %s, X14", newest)
		t.line("SHA256MSG2 %s, X14", l.words(3))
	default:
		t.line("VMOVDQU %s, X14", l.words(g-3))
		t.line("SHA256MSG1 %s, X14", l.words(g-2))
		t.line("VPALIGNR $4, %s, %s, X15", l.words(g-1), newest)
		t.line("VPADDD X15, X14, X14")
		t.line("SHA256MSG2 %s, X14", newest)
	}
	if g >= 3 && g < 15 {
		if g < 13 { // later ones are not needed again
			t.line("VMOVDQU X14, %d(BX)", l.ring+(g+1)%4*16)
		}
		t.line("VMOVDQA X14, %s", newest)
	}
	if g == 2 || g == 3 {
		t.line("VMOVDQU padKeys<>+%d(SB), X0", 16*g+8)
	} else {
		t.line("VPSHUFD $0x0e, X0, X0")
	}
	s.rounds(t)
}

// amd64Several hashes whole blocks of several messages in one buffer side by side, each
// from its state. What a state was before the block waits on the stack above the message words.
func amd64Several(t *text) {
	t.function(severalSignature("severalNI"), "severalNI", fmt.Sprintf("$%d-48", 96*lanes+16))
	t.line("VZEROUPPER")
	t.line("MOVQ states+0(FP), AX")
	t.line("MOVQ room_base+8(FP), DI")
	t.line("MOVQ at+32(FP), DX")
	t.line("MOVQ n+40(FP), CX")
	t.line("TESTQ CX, CX")
	t.line("JZ severalDone")
	t.align("BX", 16)
	all := make([]*lane, lanes)
	for i := range all {
		l := newLane(i)
		all[i] = l
		t.line("MOVL %d(DX), R%d", 4*i, 8+i)
		t.line("ADDQ DI, R%d", 8+i)
		t.line("VMOVDQU %d(AX), X14", 32*i)
		t.line("VMOVDQU %d(AX), X15", 32*i+16)
		t.line("VPSHUFB swap<>(SB), X14, X14")
		t.line("VPSHUFB swap<>(SB), X15, X15")
		l.raw.toState(t, "X14", "X15")
	}
	t.line("PCALIGN $64")
	t.label("severalLoop")
	for i, l := range all {
		t.line("VMOVDQU %s, %d(BX)", l.raw.abef, 64*lanes+32*i)
		t.line("VMOVDQU %s, %d(BX)", l.raw.cdgh, 64*lanes+32*i+16)
	}
	for g := range 16 {
		for i, l := range all {
			l.anyGroup(t, g, fmt.Sprintf("%d(R%d)", 16*g, 8+i))
		}
	}
	for i, l := range all {
		t.line("VPADDD %d(BX), %s, %s", 64*lanes+32*i, l.raw.abef, l.raw.abef)
		t.line("VPADDD %d(BX), %s, %s", 64*lanes+32*i+16, l.raw.cdgh, l.raw.cdgh)
		t.line("ADDQ $64, R%d", 8+i)
	}
	t.line("DECQ CX")
	t.line("JNZ severalLoop")
	for i, l := range all {
		l.raw.toWords(t, "X14", "X15")
		t.line("VPSHUFB swap<>(SB), X14, X14")
		t.line("VPSHUFB swap<>(SB), X15, X15")
		t.line("VMOVDQU X14, %d(AX)", 32*i)
		t.line("VMOVDQU X15, %d(AX)", 32*i+16)
	}
	t.label("severalDone")
	t.line("RET")
}

// anyGroup is group for a block of any message: words 4g are at from while g < 4.
func (l *lane) anyGroup(t *text, g int, from string) {
	ring := func(g int) string { return fmt.Sprintf("%d(BX)", l.ring+g%4*16) }
	if g < 4 {
		t.line("VMOVDQU %s, X14", from)
		t.line("VPSHUFB swap<>(SB), X14, %s", l.newest)
		t.line("VMOVDQU %s, %s", l.newest, ring(g))
	}
	t.line("VPADDD keys<>+%d(SB), %s, X0", 16*g, l.newest)
	l.raw.rounds(t)
	if g >= 3 && g < 15 {
		t.line("VMOVDQU %s, X14", ring(g-3))
		t.line("SHA256MSG1 %s, X14", ring(g-2))
		t.line("VPALIGNR $4, %s, %s, X15", ring(g-1), l.newest)
		t.line("VPADDD X15, X14, X14")
		t.line("SHA256MSG2 %s, X14", l.newest)
		t.line("VMOVDQU X14, %s", ring(g+1))
		t.line("VMOVDQA X14, %s", l.newest)
	}
	t.line("VPSHUFD $0x0e, X0, X0")
	l.raw.rounds(t)
}

// amd64Floor times what no chain can undercut: dependent SHA256RNDS2, as many as n
// hashes need.
func amd64Floor(t *text) {
	t.function("floorNI(n int)", "floorNI", "$0-8")
	t.line("VZEROUPPER")
	t.line("MOVQ n+0(FP), CX")
	t.line("TESTQ CX, CX")
	t.line("JLE floorDone")
	for _, x := range []string{"X0", "X1", "X2"} {
		t.line("VPXOR %s, %s, %s", x, x, x)
	}
	t.line("PCALIGN $64")
	t.label("floorLoop")
	s := &pair{"X1", "X2"}
	for range 32 {
		s.rounds(t)
	}
	t.line("DECQ CX")
	t.line("JNZ floorLoop")
	t.label("floorDone")
	t.line("RET")
}
