package main

import "fmt"

// spaceARM returns the kernels of package post for arm64: ROMix on NEON, which every such
// processor has, and AES-128 on an extension of ARMv8, which most have.
func spaceARM() string {
	t := new(text)
	t.head("")
	t.comment("The order of bytes that turns words left by 8 bits.")
	t.table("by8", 0x02010003, 0x06050407, 0x0a09080b, 0x0e0d0c0f)
	for _, r := range []neon{{chains: 3, groups: 1}, {chains: 6, groups: 1}, {chains: 6, groups: 2}} {
		r.text = t
		r.function()
	}
	eagerNEON(t)
	lazyNEON(t)
	return t.String()
}

// A neon is a romix for arm64, whose registers have 16 bytes: one row of four words of one
// label. A chain is one label. Its state, and what it stores in V, is a block as it is.
//
// A register could hold one word of four labels instead. A round of a label then takes 14
// instructions and not 17, for no row is turned; but labels lie in V one by one, so that
// each mix turns words into labels or back, 16 instructions for a label. Of a mix that
// leaves 240 of 272. Such a state fills half of the registers: there is no room for a
// second, and the four quarter rounds of the one wait for themselves. Of rows there
// are six labels in registers, so six instructions of which none waits for another: V0 to
// V23 are rows, and each chain has one of V24 to V29, as a turn by 12 or 7 bits is not
// done in place. A turn by 16 or 8 bits is one instruction, on V30 the latter.
//
// Rounds are a loop: written out, those of two groups are 26 KB, about what small cores
// cache of instructions. As in romix, with two groups what one reads is fetched while the
// other is mixed.
type neon struct {
	*text
	chains, groups int
	loops          int // so far: their labels are numbered
}

func (r *neon) labels() int  { return r.chains * r.groups }
func (r *neon) name() string { return fmt.Sprintf("romix%dNEON", r.labels()) }

// each does something for all chains of a group in turn.
func (r *neon) each(f func(chain int)) {
	for c := range r.chains {
		f(c)
	}
}

// pair loads or stores (op) two registers from V(first) on, at a multiple of 16 bytes from
// a register: less than 1,024, more would take another instruction.
func (r *neon) pair(op string, first, at int, base string) {
	registers, memory := fmt.Sprintf("(F%d, F%d)", first, first+1), fmt.Sprintf("%d(%s)", at, base)
	if op == "FSTPQ" {
		registers, memory = memory, registers
	}
	r.line("%s %s, %s", op, memory, registers)
}

// rows loads or stores rows i and i+1 (of 0 to 7) of the state of a chain.
func (r *neon) rows(op string, first, g, c, i int) {
	r.pair(op, first, 128*c+16*i, fmt.Sprintf("R%d", 9+g))
}

// xor and add change two registers from V(to) on by two from V(x) on.
func (r *neon) xor(x, to int) { r.two("VEOR", "B16", x, to) }
func (r *neon) add(x, to int) { r.two("VADD", "S4", x, to) }
func (r *neon) two(op, lanes string, x, to int) {
	for i := range 2 {
		r.line("%s V%d.%s, V%d.%s, V%d.%s", op, x+i, lanes, to+i, lanes, to+i, lanes)
	}
}

// function writes func(x, v *block, n int): x is the states, v the scratch, n the cost, a
// power of two.
func (r *neon) function() {
	name := r.name()
	r.text.function(name+"(x, v *block, n int)", name, "$0-24")
	r.line("MOVD x+0(FP), R9") // of the first group, R10 of the second
	r.line("MOVD v+8(FP), R1")
	r.line("MOVD n+16(FP), R2")
	if r.groups > 1 {
		r.line("ADD $%d, R9, R10", 128*r.chains)
	}
	r.line("SUB $1, R2, R3") // the mask of an index
	r.line("MOVD R1, R4")
	r.line("MOVD $%d, R5", 128*r.labels()) // bytes of an entry
	r.line("MOVD $by8<>(SB), R7")
	r.line("FMOVQ (R7), F30")
	r.label(name + "Fill")
	for g := range r.groups {
		r.each(func(c int) { r.fill(g, c) })
		r.mix(g, false)
	}
	r.line("ADD R5, R4, R4")
	r.line("SUB $1, R2, R2")
	r.line("CBNZ R2, %sFill", name)
	r.line("MOVD n+16(FP), R2")
	r.label(name + "Read")
	for g := range r.groups {
		r.each(func(c int) { r.read(g, c) })
		r.mix(g, r.groups > 1)
	}
	r.line("SUB $1, R2, R2")
	r.line("CBNZ R2, %sRead", name)
	r.line("RET")
}

// fill stores the state of a chain in V at R4, and leaves what the first block is mixed
// from in registers and in its place.
func (r *neon) fill(g, c int) {
	if c == 0 {
		r.line("ADD $%d, R4, R8", 128*g*r.chains)
	}
	for i := 0; i < 4; i += 2 {
		x := 4*c + i
		r.rows("FLDPQ", x, g, c, i)
		r.rows("FLDPQ", 24, g, c, 4+i)
		r.pair("FSTPQ", x, 128*c+16*i, "R8")
		r.pair("FSTPQ", 24, 128*c+64+16*i, "R8")
		r.xor(24, x)
		r.rows("FSTPQ", x, g, c, i)
	}
}

// find sets R8 to the entry of V that a chain reads next.
func (r *neon) find(g, c int) {
	r.line("MOVWU %d(R%d), R8", 128*c+64, 9+g)
	r.line("AND R3, R8, R8")
	r.line("MADD R5, R1, R8, R8")
	r.line("ADD $%d, R8, R8", 128*(g*r.chains+c))
}

// read joins the state of a chain with the entry of V that it names.
func (r *neon) read(g, c int) {
	r.find(g, c)
	for i := 0; i < 4; i += 2 {
		x := 4*c + i
		r.rows("FLDPQ", x, g, c, i)
		r.pair("FLDPQ", 24, 16*i, "R8")
		r.rows("FLDPQ", 26, g, c, 4+i)
		r.pair("FLDPQ", 28, 64+16*i, "R8")
		r.xor(24, x)
		r.xor(28, 26)
		r.rows("FSTPQ", 26, g, c, 4+i)
		r.xor(26, x)
		r.rows("FSTPQ", x, g, c, i)
	}
}

// mix mixes both blocks of a group. The rows of the first are in registers and in their
// place. It may fetch what is read next ahead of that.
func (r *neon) mix(g int, ahead bool) {
	for half := range 2 {
		loop := fmt.Sprintf("%sRounds%d", r.name(), r.loops)
		r.loops++
		r.line("MOVD $4, R6")
		r.line("PCALIGN $64")
		r.label(loop)
		r.round()
		r.turn(1)
		r.round()
		r.turn(3)
		r.line("SUB $1, R6, R6")
		r.line("CBNZ R6, %s", loop)
		r.each(func(c int) {
			for i := 0; i < 4; i += 2 {
				x := 4*c + i
				r.rows("FLDPQ", 24, g, c, 4*half+i)
				r.add(24, x)
				r.rows("FSTPQ", x, g, c, 4*half+i)
				if half == 0 {
					r.rows("FLDPQ", 26, g, c, 4+i)
					r.xor(26, x)
					r.rows("FSTPQ", x, g, c, 4+i)
				}
			}
		})
	}
	if ahead {
		r.each(func(c int) {
			r.find(g, c)
			for line := range 2 {
				r.line("PRFM %d(R8), PLDL1KEEP", 64*line)
			}
		})
	}
}

// round does the quarter rounds of all columns.
func (r *neon) round() {
	for i, by := range []int{16, 12, 8, 7} {
		a, b, d := 0, 1, 3
		if i%2 == 1 {
			a, b, d = 2, 3, 1
		}
		// Row 1 is in the chain's other register between its two turns.
		row := func(c, k int) int {
			if k == 1 && i >= 2 {
				return 24 + c
			}
			return 4*c + k
		}
		r.each(func(c int) { r.line("VADD V%d.S4, V%d.S4, V%[2]d.S4", row(c, b), row(c, a)) })
		r.each(func(c int) { r.line("VEOR V%d.B16, V%d.B16, V%[2]d.B16", row(c, a), row(c, d)) })
		switch by {
		case 16:
			r.each(func(c int) { r.line("VREV32 V%d.H8, V%[1]d.H8", row(c, d)) })
		case 8:
			r.each(func(c int) { r.line("VTBL V30.B16, [V%d.B16], V%[1]d.B16", row(c, d)) })
		default:
			to := func(c int) int {
				if i == 1 {
					return 24 + c
				}
				return 4*c + 1
			}
			r.each(func(c int) { r.line("VSHL $%d, V%d.S4, V%d.S4", by, row(c, d), to(c)) })
			r.each(func(c int) { r.line("VSRI $%d, V%d.S4, V%d.S4", 32-by, row(c, d), to(c)) })
		}
	}
}

// turn moves the words of row 1 by so many places, those of row 2 by two, and those of
// row 3 the other way.
func (r *neon) turn(by int) {
	for i, n := range []int{by, 2, 4 - by} {
		r.each(func(c int) { r.line("VEXT $%d, V%d.B16, V%[2]d.B16, V%[2]d.B16", 4*n, 4*c+i+1) })
	}
}
