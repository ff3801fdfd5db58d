package main

import "fmt"

// space returns the kernels of package post for x86.
func space() string {
	t := new(text)
	t.head("")
	romixTables(t)
	for _, r := range []romix{
		{chains: 1, groups: 1}, {chains: 3, groups: 1}, {chains: 3, groups: 2},
		{avx512: true, chains: 1, groups: 1}, {avx512: true, chains: 4, groups: 1}, {avx512: true, chains: 5, groups: 2},
	} {
		r.text = t
		r.function()
	}
	for _, e := range eagers {
		e.text = t
		e.function()
	}
	lazy(t)
	return t.String()
}

// A romix mixes labels side by side: scrypt's ROMix at r = 1 on ChaCha20/8.
//
// A register holds one row of four words of two labels, with AVX-512 of four. The four
// rows of a block are mixed down columns; between two rounds rows turn, so that
// diagonals become columns. One such chain of instructions waits for itself most of the
// time, so chains are interleaved. With AVX2 three fill the registers: twelve rows, two
// that shifts need, two masks. Such a group waits for the entries of V that it names,
// which are anywhere in memory: with two groups, those of one are fetched while the
// other is mixed. With AVX-512 five chains and what turns rows into labels fill them.
//
// Between two blocks the state lies in memory, for the labels of each chain eight rows,
// that is 2 blocks. The entries of V lie side by side: label l of entry k begins at
// 128*(k*labels + l), so that writing is one stream.
type romix struct {
	*text
	avx512         bool
	chains, groups int
}

// wide is the number of labels of a chain.
func (r *romix) wide() int {
	if r.avx512 {
		return 4
	}
	return 2
}

func (r *romix) labels() int { return r.wide() * r.chains * r.groups }

func (r *romix) name() string {
	if r.avx512 {
		return fmt.Sprintf("romix%dAVX512", r.labels())
	}
	return fmt.Sprintf("romix%dAVX2", r.labels())
}

// row and temp are registers of a chain. What is in temp is used at once.
func (r *romix) row(chain, i int) string { return r.reg(4*chain + i) }
func (r *romix) temp(chain int) string   { return r.reg(12 + chain%2) }

func (r *romix) reg(i int) string {
	if r.avx512 {
		return fmt.Sprintf("Z%d", i)
	}
	return fmt.Sprintf("Y%d", i)
}

// slot is where row i (0 to 7) of a chain waits.
func (r *romix) slot(chain, i int) string {
	return fmt.Sprintf("%d(AX)", 16*r.wide()*(8*chain+i))
}

// move and xor are instructions that AVX-512 has under other names.
func (r *romix) move(from, to string) {
	if r.avx512 {
		r.line("VMOVDQU32 %s, %s", from, to)
		return
	}
	r.line("VMOVDQU %s, %s", from, to)
}

func (r *romix) xor(a, b, to string) {
	if r.avx512 {
		r.line("VPXORD %s, %s, %s", a, b, to)
		return
	}
	r.line("VPXOR %s, %s, %s", a, b, to)
}

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
	if !r.avx512 {
		r.line("VMOVDQU by16<>+0(SB), Y14")
		r.line("VMOVDQU by8<>+0(SB), Y15")
	}
	r.line("PCALIGN $64")
	r.label(name + "Fill")
	for g := range r.groups {
		r.each(func(c int) {
			if r.avx512 {
				r.fillFour(g, c)
			} else {
				r.fillTwo(g, c)
			}
		})
		r.mix(g, false)
	}
	r.line("ADDQ $%d, DI", 128*r.labels())
	r.line("DECQ CX")
	r.line("JNZ %sFill", name)
	r.line("MOVQ n+16(FP), CX")
	r.line("PCALIGN $64")
	r.label(name + "Read")
	for g := range r.groups {
		r.each(func(c int) {
			if r.avx512 {
				r.readFour(g, c)
			} else {
				r.readTwo(g, c)
			}
		})
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

// entry is where a label of a chain begins in an entry of V.
func (r *romix) entry(g, c, label int) int { return 128 * (r.wide()*(g*r.chains+c) + label) }

// fillTwo stores the states of a chain in V at DI, and leaves what the first block is
// mixed from in registers and in its slots. fillFour does so with AVX-512.
func (r *romix) fillTwo(g, c int) {
	for i := range 4 {
		x, t := r.row(c, i), r.temp(c)
		at := func(label, row int) string { return fmt.Sprintf("%d(DI)", r.entry(g, c, label)+16*row) }
		r.move(r.slot(g*r.chains+c, i), x)
		r.move(r.slot(g*r.chains+c, 4+i), t)
		r.line("VMOVDQU X%s, %s", x[1:], at(0, i))
		r.line("VEXTRACTI128 $1, %s, %s", x, at(1, i))
		r.line("VMOVDQU X%s, %s", t[1:], at(0, 4+i))
		r.line("VEXTRACTI128 $1, %s, %s", t, at(1, 4+i))
		r.xor(t, x, x)
		r.move(x, r.slot(g*r.chains+c, i))
	}
}

func (r *romix) fillFour(g, c int) {
	for half := range 2 {
		rows, to := r.four(24), r.four(24)
		if half == 0 {
			rows = r.four(4 * c)
		}
		for i := range 4 {
			r.move(r.slot(g*r.chains+c, 4*half+i), rows[i])
		}
		if half == 1 {
			for i := range 4 {
				x := r.row(c, i)
				r.xor(rows[i], x, x)
				r.move(x, r.slot(g*r.chains+c, i))
			}
		}
		r.transpose(rows, to)
		for label := range 4 {
			r.move(to[label], fmt.Sprintf("%d(DI)", r.entry(g, c, label)+64*half))
		}
	}
}

// four returns registers one after another.
func (r *romix) four(first int) [4]string {
	return [4]string{r.reg(first), r.reg(first + 1), r.reg(first + 2), r.reg(first + 3)}
}

// transpose makes of four rows of four labels those labels' blocks, and the other way.
// It uses Z28 to Z31.
func (r *romix) transpose(from, to [4]string) {
	t := r.four(28)
	const even, odd = 0x88, 0xdd
	for i, order := range []int{even, even, odd, odd} {
		at := i % 2 * 2
		r.line("VSHUFI32X4 $%#02x, %s, %s, %s", order, from[at+1], from[at], t[i])
	}
	for i, order := range []int{even, even, odd, odd} {
		at := i % 2 * 2
		r.line("VSHUFI32X4 $%#02x, %s, %s, %s", order, t[at+1], t[at], to[i])
	}
}

// find sets R8 and those after it to the entries of V that the labels of a chain read
// next.
func (r *romix) find(chain int) {
	for label := range r.wide() {
		to := fmt.Sprintf("R%d", 8+label)
		r.line("MOVL %d(AX), %s", 16*(r.wide()*(8*chain+4)+label), to)
		r.line("ANDQ DX, %s", to)
		r.line("IMULQ $%d, %s", 128*r.labels(), to)
		r.line("ADDQ BX, %s", to)
	}
}

// readTwo joins the states of a chain with the entries of V that it names. readFour does
// so with AVX-512.
func (r *romix) readTwo(g, c int) {
	r.find(g*r.chains + c)
	t := r.temp(c)
	entry := func(i int, to string) {
		r.line("VMOVDQU %d(R8), X%s", r.entry(g, c, 0)+16*i, to[1:])
		r.line("VINSERTI128 $1, %d(R9), %s, %s", r.entry(g, c, 1)+16*i, to, to)
	}
	for i := range 4 {
		entry(i, r.row(c, i))
		entry(4+i, t)
		r.join(g, c, i, t)
	}
}

func (r *romix) readFour(g, c int) {
	r.find(g*r.chains + c)
	rows := [2][4]string{r.four(4 * c), r.four(24)}
	for half, to := range rows {
		for label, t := range to {
			r.move(fmt.Sprintf("%d(R%d)", r.entry(g, c, label)+64*half, 8+label), t)
		}
		r.transpose(to, to)
	}
	for i := range 4 {
		r.join(g, c, i, rows[1][i])
	}
}

// join joins row i of both blocks of a chain with what was read, into row i and t.
func (r *romix) join(g, c, i int, t string) {
	x := r.row(c, i)
	r.xor(r.slot(g*r.chains+c, i), x, x)
	r.xor(r.slot(g*r.chains+c, 4+i), t, t)
	r.move(t, r.slot(g*r.chains+c, 4+i))
	r.xor(t, x, x)
	r.move(x, r.slot(g*r.chains+c, i))
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
					r.xor(r.slot(g*r.chains+c, at+i), x, x)
					r.move(x, r.slot(g*r.chains+c, at+i))
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
				r.line("VPADDD %s, %s, %s", r.slot(g*r.chains+c, at+i), x, x)
				r.move(x, r.slot(g*r.chains+c, at+i))
			})
		}
	}
	if ahead {
		r.each(func(c int) {
			r.find(g*r.chains + c)
			for label := range r.wide() {
				for line := range 2 {
					r.line("PREFETCHT0 %d(R%d)", r.entry(g, c, label)+64*line, 8+label)
				}
			}
		})
	}
}

// round does the quarter rounds of all columns.
func (r *romix) round() {
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
	rotate := []func(x, t string){bytes("Y14"), bits(12), bytes("Y15"), bits(7)}
	for i, by := range []int{16, 12, 8, 7} {
		a, b, d := 0, 1, 3
		if i%2 == 1 {
			a, b, d = 2, 3, 1
		}
		r.each(func(c int) { r.line("VPADDD %s, %s, %s", r.row(c, b), r.row(c, a), r.row(c, a)) })
		r.each(func(c int) { r.xor(r.row(c, a), r.row(c, d), r.row(c, d)) })
		r.each(func(c int) {
			if x := r.row(c, d); r.avx512 {
				r.line("VPROLD $%d, %s, %s", by, x, x)
			} else {
				rotate[i](x, r.temp(c))
			}
		})
	}
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
