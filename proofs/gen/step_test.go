package main

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strings"
)

// step runs one instruction that is no jump. Operands stand in the order of Go's
// assembler, the destination last.
func (m *machine) step(in *instruction) {
	switch {
	case strings.HasPrefix(in.op, "SHA256"):
		m.sha(in)
	case in.op == "VZEROUPPER":
		for i := range m.dirty {
			m.dirty[i] = false
			clear(m.vec[i][16:])
		}
	case in.op == "KXNORW":
		m.mask[in.args[2]] = uint64(^uint16(m.mask[in.args[0]] ^ m.mask[in.args[1]]))
	case in.op == "VPGATHERDD":
		m.gather(in)
	case in.op == "VPSCATTERDD":
		m.scatter(in)
	case in.op == "VEXTRACTI128":
		half := int(immediateOf(in.args[0])) * 16
		m.write(in.args[2], append([]byte(nil), m.read(in.args[1], 32)[half:half+16]...))
	case in.op == "VINSERTI128":
		half := int(immediateOf(in.args[0])) * 16
		value := append([]byte(nil), m.read(in.args[2], 32)...)
		copy(value[half:half+16], m.read(in.args[1], 16))
		m.write(in.args[3], value)
	case in.op == "PREFETCHT0": // anything may be fetched, but what is no memory is of no use
		m.memory(m.address(in.args[0]), 64)
	case in.op == "VPMOVMSKB":
		_, size, _ := vector(in.args[0])
		mask := uint64(0)
		for i, b := range m.read(in.args[0], size) {
			mask |= uint64(b>>7) << i
		}
		m.regs[in.args[1]] = mask
	case in.op == "VPTESTNMB":
		mask, b := uint64(0), m.read(in.args[1], 64)
		for i, a := range m.read(in.args[0], 64) {
			if a&b[i] == 0 {
				mask |= 1 << i
			}
		}
		m.mask[in.args[2]] = mask
	case in.op == "KMOVQ":
		m.regs[in.args[1]] = m.mask[in.args[0]]
	case in.op == "VBROADCASTI32X4":
		m.write(in.args[1], bytes.Repeat(m.read(in.args[0], 16), 4))
	case in.op == "VMOVQ":
		copy(m.memory(m.address(in.args[1]), 8), m.read(in.args[0], 8))
	case in.op[0] == 'V':
		to := in.args[len(in.args)-1]
		_, size, ok := vector(to)
		if !ok { // a store
			_, size, _ = vector(in.args[0])
		}
		m.write(to, m.avx(in, size))
	default:
		m.scalar(in)
	}
}

// scalar runs an instruction on general registers.
func (m *machine) scalar(in *instruction) {
	size := 8
	if strings.HasSuffix(in.op, "L") {
		size = 4
	}
	value := func(operand string) uint64 {
		var b [8]byte
		switch {
		case operand[0] == '$':
			if n, negative := strings.CutPrefix(operand[1:], "-"); negative {
				return -decimal(n)
			}
			n, inverted := strings.CutPrefix(operand[1:], "~")
			if inverted {
				return ^decimal(n)
			}
			return decimal(n)
		case strings.Contains(operand, "("):
			copy(b[:], m.memory(m.address(operand), size))
		default:
			r, ok := m.regs[operand]
			if !ok {
				m.fault("no register %s", operand)
			}
			binary.LittleEndian.PutUint64(b[:], r)
			clear(b[size:])
		}
		return binary.LittleEndian.Uint64(b[:])
	}
	to := in.args[len(in.args)-1]
	var result uint64
	switch in.op {
	case "MOVQ", "MOVL":
		if strings.Contains(to, "(") {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], value(in.args[0]))
			copy(m.memory(m.address(to), size), b[:size])
			return
		}
		m.regs[to] = value(in.args[0])
		return
	case "SETNE":
		m.regs[to] &^= 0xff
		if !m.zero {
			m.regs[to] |= 1
		}
		return
	case "LEAQ":
		m.regs[to] = m.address(in.args[0])
		return
	case "CMPQ": // of the flags that it sets, the carry is of use to us
		m.carry = value(in.args[0]) < value(to)
		return
	case "SBBQ":
		result = value(to) - value(in.args[0])
		if m.carry {
			result--
		}
	case "BSWAPL":
		m.regs[to] = uint64(bits.ReverseBytes32(uint32(value(to))))
		return
	case "TESTQ", "TESTL":
		result = value(in.args[0]) & value(to)
	case "ADDQ":
		result = value(in.args[0]) + value(to)
	case "ANDQ":
		result = value(in.args[0]) & value(to)
	case "IMULQ":
		result = value(in.args[0]) * value(to)
	case "XORL":
		result = value(in.args[0]) ^ value(to)
	case "SUBQ":
		result = value(to) - value(in.args[0])
	case "SHRQ":
		result = value(to) >> value(in.args[0])
	case "INCQ":
		result = value(to) + 1
	case "DECQ":
		result = value(to) - 1
	default:
		m.fault("unknown instruction: %s", in.line)
	}
	m.zero, m.sign = result == 0, int64(result) < 0
	if !strings.HasPrefix(in.op, "TEST") {
		m.regs[to] = result
	}
}

// avx returns the result of an AVX instruction.
func (m *machine) avx(in *instruction, size int) []byte {
	op, broadcast := strings.CutSuffix(in.op, ".BCST")
	args := in.args
	immediate := 0
	if args[0][0] == '$' {
		immediate, args = int(immediateOf(args[0])), args[1:]
	}
	first := func() []byte { // the operand that may be in memory
		if broadcast || op == "VPBROADCASTD" {
			one := m.read(args[0], 4)
			return []byte(strings.Repeat(string(one), size/4))
		}
		return m.read(args[0], size)
	}
	a := first()
	if (op == "VMOVDQA" || op == "VMOVDQA32") && strings.Contains(in.line, "(") {
		m.fault("%s: these need alignment, VMOVDQU does not", in.line)
	}
	each := func(f func(a, b uint32) uint32) []byte {
		b := a
		if len(args) > 2 {
			b = m.read(args[1], size)
		}
		x, y := words(a), words(b)
		out := make([]uint32, len(x))
		for i := range out {
			out[i] = f(x[i], y[i])
		}
		return unwords(out)
	}
	switch op {
	case "VMOVDQU", "VMOVDQA", "VMOVDQU32", "VMOVDQA32", "VPBROADCASTD":
		return append([]byte(nil), a...)
	case "VPADDD":
		return each(func(a, b uint32) uint32 { return a + b })
	case "VPSUBD":
		return each(func(a, b uint32) uint32 { return b - a })
	case "VPXOR", "VPXORD":
		return each(func(a, b uint32) uint32 { return a ^ b })
	case "VPOR":
		return each(func(a, b uint32) uint32 { return a | b })
	case "VPAND":
		return each(func(a, b uint32) uint32 { return a & b })
	case "VPROLD":
		return each(func(a, _ uint32) uint32 { return bits.RotateLeft32(a, immediate) })
	case "VPRORD":
		return each(func(a, _ uint32) uint32 { return bits.RotateLeft32(a, -immediate) })
	case "VPSRLD":
		return each(func(a, _ uint32) uint32 { return a >> immediate })
	case "VPSLLD":
		return each(func(a, _ uint32) uint32 { return a << immediate })
	case "VPCMPEQB":
		out := make([]byte, size)
		for i, b := range m.read(args[1], size) {
			if a[i] == b {
				out[i] = 0xff
			}
		}
		return out
	case "VAESENC", "VAESENCLAST":
		var out []byte
		for at := 0; at < size; at += 16 {
			out = append(out, aesRound(m.read(args[1], size)[at:][:16], a[at:][:16], op == "VAESENCLAST")...)
		}
		return out
	case "VSHUFI32X4":
		b := m.read(args[1], size)
		var out []byte
		for i, from := range [][]byte{b, b, a, a} {
			out = append(out, from[16*(immediate>>(2*i)&3):][:16]...)
		}
		return out
	case "VPTERNLOGD":
		return m.ternary(immediate, a, m.read(args[1], size), m.read(args[2], size))
	}
	var out []byte
	for at := 0; at < size; at += 16 {
		b := a[at:][:16]
		if len(args) > 2 {
			b = m.read(args[1], size)[at:][:16]
		}
		out = append(out, m.shuffle(in, op, immediate, a[at:][:16], b)...)
	}
	return out
}

func immediateOf(s string) uint64 {
	if hex, ok := strings.CutPrefix(s, "$0x"); ok {
		var n uint64
		for _, c := range hex {
			n = n*16 + uint64(strings.IndexRune("0123456789abcdef", c))
		}
		return n
	}
	return decimal(s[1:])
}

// ternary looks every bit up in the table, by the bits of the destination, the second
// and the first operand.
func (m *machine) ternary(table int, a, b, c []byte) []byte {
	out := make([]byte, len(a))
	for i := range out {
		for bit := range 8 {
			index := c[i]>>bit&1<<2 | b[i]>>bit&1<<1 | a[i]>>bit&1
			out[i] |= byte(table>>index&1) << bit
		}
	}
	return out
}

// shuffle moves bytes within 16, of a and b.
func (m *machine) shuffle(in *instruction, op string, immediate int, a, b []byte) []byte {
	out := make([]byte, 16)
	x, y := words(a), words(b)
	switch op {
	case "VPSHUFB":
		for i := range out {
			if a[i]&0x80 == 0 {
				out[i] = b[a[i]&15]
			}
		}
	case "VPSHUFD":
		return unwords([]uint32{x[immediate&3], x[immediate>>2&3], x[immediate>>4&3], x[immediate>>6&3]})
	case "VSHUFPS":
		return unwords([]uint32{y[immediate&3], y[immediate>>2&3], x[immediate>>4&3], x[immediate>>6&3]})
	case "VPALIGNR":
		copy(out, append(append([]byte(nil), a...), b...)[immediate:])
	case "VPSRLDQ":
		copy(out, a[immediate:])
	case "VPSLLDQ":
		copy(out[immediate:], a)
	default:
		m.fault("unknown instruction: %s", in.line)
	}
	return out
}

// lanes returns the address of each lane of an operand like 4(AX)(Z15*4).
func (m *machine) lanes(operand string) []uint64 {
	base, index, _ := strings.Cut(operand, ")(")
	name, scale, _ := strings.Cut(strings.TrimSuffix(index, ")"), "*")
	i, size, ok := vector(name)
	if !ok {
		m.fault("no index in %s", operand)
	}
	var at []uint64
	for _, x := range words(m.vec[i][:size]) {
		at = append(at, m.address(base+")")+uint64(int64(int32(x)))*decimal(scale))
	}
	return at
}

func (m *machine) gather(in *instruction) {
	if m.mask[in.args[1]] != 0xffff {
		m.fault("%s without its mask", in.line)
	}
	var out []byte
	for _, at := range m.lanes(in.args[0]) {
		out = append(out, m.memory(at, 4)...)
	}
	m.write(in.args[2], out)
	m.mask[in.args[1]] = 0
}

func (m *machine) scatter(in *instruction) {
	if m.mask[in.args[1]] != 0xffff {
		m.fault("%s without its mask", in.line)
	}
	value := m.read(in.args[0], 64)
	for i, at := range m.lanes(in.args[2]) {
		copy(m.memory(at, 4), value[4*i:][:4])
	}
	m.mask[in.args[1]] = 0
}

// sha runs one of the SHA extensions (Intel SDM volume 2). They have the legacy
// encoding.
func (m *machine) sha(in *instruction) {
	for i, used := range m.dirty {
		if used {
			m.fault("%s: the upper half of register %d is in use", in.line, i)
		}
	}
	from, to := in.args[len(in.args)-2], in.args[len(in.args)-1]
	if strings.Contains(from, "(") && m.address(from)%16 != 0 {
		m.fault("%s: operand at %#x is not aligned", in.line, m.address(from))
	}
	a, d := words(m.read(from, 16)), words(m.read(to, 16))
	var out []uint32
	switch in.op {
	case "SHA256MSG1":
		next := []uint32{d[1], d[2], d[3], a[0]}
		for i := range d {
			out = append(out, d[i]+smallSigma0(next[i]))
		}
	case "SHA256MSG2":
		w14, w15 := a[2], a[3]
		w16 := d[0] + smallSigma1(w14)
		w17 := d[1] + smallSigma1(w15)
		out = []uint32{w16, w17, d[2] + smallSigma1(w16), d[3] + smallSigma1(w17)}
	case "SHA256RNDS2":
		if in.args[0] != "X0" {
			m.fault("%s: message words are in X0", in.line)
		}
		k := words(m.vec[0][:8])
		// f e b a is in the source from lane 0 up, h g d c in the destination.
		s := [8]uint32{a[3], a[2], d[3], d[2], a[1], a[0], d[1], d[0]}
		for _, word := range k {
			t1 := s[7] + bigSigma1(s[4]) + choose(s[4], s[5], s[6]) + word
			t2 := bigSigma0(s[0]) + majority(s[0], s[1], s[2])
			s = [8]uint32{t1 + t2, s[0], s[1], s[2], s[3] + t1, s[4], s[5], s[6]}
		}
		out = []uint32{s[5], s[4], s[1], s[0]}
	default:
		m.fault("unknown instruction: %s", in.line)
	}
	i, _, _ := vector(to)
	copy(m.vec[i][:], unwords(out)) // the legacy encoding leaves what is above
}
