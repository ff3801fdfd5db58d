package main

import "fmt"

// space returns the kernels of package post for x86.
func space() string {
	t := new(text)
	t.head("")
	romixTables(t)
	for _, shape := range [][2]int{{1, 1}, {3, 1}, {3, 2}} {
		r := romix{text: t, chains: shape[0], groups: shape[1]}
		r.function()
	}
	for _, vaes := range []bool{false, true} {
		eager(t, vaes)
	}
	lazy(t)
	return t.String()
}

// A romix mixes labels side by side: scrypt's ROMix at r = 1 on ChaCha20/8.
//
// A register holds one row of four words of two labels. The four rows of a block are
// mixed down columns; between two rounds rows turn, so that diagonals become columns.
// One such chain of instructions waits for itself most of the time, so chains are
// interleaved. Three fill the registers: twelve rows, two that shifts need, two masks.
// Such a group waits for the entries of V that it names, which are anywhere in memory:
// with two groups, those of one are fetched while the other is mixed.
//
// Between two blocks the state lies in memory, for each pair of labels eight rows, that
// is 2 blocks, of 32 bytes. The entries of V lie side by side: label l of entry k begins
// at 128*(k*labels + l), so that writing is one stream.
type romix struct {
	*text
	chains, groups int
}

func (r *romix) labels() int  { return 2 * r.chains * r.groups }
func (r *romix) name() string { return fmt.Sprintf("romix%dAVX2", r.labels()) }

// row and temp are registers of a chain. What is in temp is used at once.
func (r *romix) row(chain, i int) string { return fmt.Sprintf("Y%d", 4*chain+i) }
func (r *romix) temp(chain int) string   { return fmt.Sprintf("Y%d", 12+chain%2) }

// slot is where row i (0 to 7) of a pair waits.
func slot(pair, i int) string { return fmt.Sprintf("%d(AX)", 256*pair+32*i) }

func romixTables(t *text) {
	var by16, by8 [8]uint32
	for i := range by16 {
		base := 0x04040404 * uint32(i%4)
		by16[i], by8[i] = 0x01000302+base, 0x02010003+base
	}
	t.comment("The order of bytes that turns words left by 16 and by 8 bits.")
	t.table("by16", by16[:]...)
	t.table("by8", by8[:]...)
}

// function writes func(x, v *block, n int): x is the state, v the scratch, n the cost, a
// power of two.
func (r *romix) function() {
	name := r.name()
	r.text.function(name+"(x, v *block, n int)", name, "$0-24")
	r.line("VZEROUPPER")
	r.line("MOVQ x+0(FP), AX")
	r.line("MOVQ v+8(FP), BX")
	r.line("MOVQ n+16(FP), CX")
	r.line("MOVQ CX, DX")
	r.line("DECQ DX") // the mask of an index
	r.line("MOVQ BX, DI")
	r.line("VMOVDQU by16<>+0(SB), Y14")
	r.line("VMOVDQU by8<>+0(SB), Y15")
	r.line("PCALIGN $64")
	r.label(name + "Fill")
	for g := range r.groups {
		r.fill(g)
		r.mix(g, false)
	}
	r.line("ADDQ $%d, DI", 128*r.labels())
	r.line("DECQ CX")
	r.line("JNZ %sFill", name)
	r.line("MOVQ n+16(FP), CX")
	r.line("PCALIGN $64")
	r.label(name + "Read")
	for g := range r.groups {
		r.read(g)
		r.mix(g, r.groups > 1)
	}
	r.line("DECQ CX")
	r.line("JNZ %sRead", name)
	r.line("VZEROUPPER")
	r.line("RET")
}

// each does something for all chains of a group in turn.
func (r *romix) each(f func(chain int)) {
	for c := range r.chains {
		f(c)
	}
}

// fill stores the states of a group in V at DI, and leaves what the first block is mixed from in
// registers and in its slots.
func (r *romix) fill(g int) {
	for i := range 4 {
		r.each(func(c int) {
			x, t := r.row(c, i), r.temp(c)
			at := func(label, row int) string { return fmt.Sprintf("%d(DI)", 128*(2*(g*r.chains+c)+label)+16*row) }
			r.line("VMOVDQU %s, %s", slot(g*r.chains+c, i), x)
			r.line("VMOVDQU %s, %s", slot(g*r.chains+c, 4+i), t)
			r.line("VMOVDQU X%s, %s", x[1:], at(0, i))
			r.line("VEXTRACTI128 $1, %s, %s", x, at(1, i))
			r.line("VMOVDQU X%s, %s", t[1:], at(0, 4+i))
			r.line("VEXTRACTI128 $1, %s, %s", t, at(1, 4+i))
			r.line("VPXOR %s, %s, %s", t, x, x)
			r.line("VMOVDQU %s, %s", x, slot(g*r.chains+c, i))
		})
	}
}

// find sets R8 and R9 to the entries of V that the labels of a pair read next.
func (r *romix) find(pair int) {
	for label := range 2 {
		to := fmt.Sprintf("R%d", 8+label)
		r.line("MOVL %d(AX), %s", 256*pair+128+16*label, to)
		r.line("ANDQ DX, %s", to)
		r.line("IMULQ $%d, %s", 128*r.labels(), to)
		r.line("ADDQ BX, %s", to)
	}
}

// read joins the states of a group with the entries of V that it names.
func (r *romix) read(g int) {
	r.each(func(c int) {
		r.find(g*r.chains + c)
		t := r.temp(c)
		entry := func(i int, to string) {
			r.line("VMOVDQU %d(R8), X%s", 256*(g*r.chains+c)+16*i, to[1:])
			r.line("VINSERTI128 $1, %d(R9), %s, %s", 256*(g*r.chains+c)+128+16*i, to, to)
		}
		for i := range 4 {
			x := r.row(c, i)
			entry(i, x)
			entry(4+i, t)
			r.line("VPXOR %s, %s, %s", slot(g*r.chains+c, i), x, x)
			r.line("VPXOR %s, %s, %s", slot(g*r.chains+c, 4+i), t, t)
			r.line("VMOVDQU %s, %s", t, slot(g*r.chains+c, 4+i))
			r.line("VPXOR %s, %s, %s", t, x, x)
			r.line("VMOVDQU %s, %s", x, slot(g*r.chains+c, i))
		}
	})
}

// mix mixes both blocks of a group. The rows of the first are in registers and slots. It
// may fetch what is read next ahead of that.
func (r *romix) mix(g int, ahead bool) {
	for half := range 2 {
		at := 4 * half
		if half == 1 {
			for i := range 4 {
				r.each(func(c int) {
					x := r.row(c, i)
					r.line("VPXOR %s, %s, %s", slot(g*r.chains+c, at+i), x, x)
					r.line("VMOVDQU %s, %s", x, slot(g*r.chains+c, at+i))
				})
			}
		}
		for range 4 {
			r.round()
			r.turn(1)
			r.round()
			r.turn(3)
		}
		for i := range 4 {
			r.each(func(c int) {
				x := r.row(c, i)
				r.line("VPADDD %s, %s, %s", slot(g*r.chains+c, at+i), x, x)
				r.line("VMOVDQU %s, %s", x, slot(g*r.chains+c, at+i))
			})
		}
	}
	if ahead {
		r.each(func(c int) {
			pair := g*r.chains + c
			r.find(pair)
			for label := range 2 {
				for line := range 2 {
					r.line("PREFETCHT0 %d(R%d)", 256*pair+128*label+64*line, 8+label)
				}
			}
		})
	}
}

// round does the quarter rounds of all columns.
func (r *romix) round() {
	step := func(a, b, d int, rotate func(x, t string)) {
		r.each(func(c int) { r.line("VPADDD %s, %s, %s", r.row(c, b), r.row(c, a), r.row(c, a)) })
		r.each(func(c int) { r.line("VPXOR %s, %s, %s", r.row(c, a), r.row(c, d), r.row(c, d)) })
		r.each(func(c int) { rotate(r.row(c, d), r.temp(c)) })
	}
	bytes := func(mask string) func(x, t string) {
		return func(x, _ string) { r.line("VPSHUFB %s, %s, %s", mask, x, x) }
	}
	bits := func(n int) func(x, t string) {
		return func(x, t string) {
			r.line("VPSLLD $%d, %s, %s", n, x, t)
			r.line("VPSRLD $%d, %s, %s", 32-n, x, x)
			r.line("VPOR %s, %s, %s", t, x, x)
		}
	}
	step(0, 1, 3, bytes("Y14"))
	step(2, 3, 1, bits(12))
	step(0, 1, 3, bytes("Y15"))
	step(2, 3, 1, bits(7))
}

// turn moves the words of row 1 by so many places, those of row 2 by two, and those of
// row 3 the other way.
func (r *romix) turn(by int) {
	order := map[int]int{1: 0x39, 2: 0x4e, 3: 0x93}
	for i, n := range []int{by, 2, 4 - by} {
		r.each(func(c int) {
			x := r.row(c, i+1)
			r.line("VPSHUFD $%#02x, %s, %s", order[n], x, x)
		})
	}
}
