package main

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// parseARM reads the text of a file for arm64. A machine on it has the general registers
// that Go leaves to assembler, and faults on what its assembler would make several
// instructions of, behind which a register more is used.
func parseARM(t testing.TB, text string) *program {
	t.Helper()
	p := parse(t, text)
	p.arm = true
	return p
}

// branches tells whether an instruction is a branch, and whether it is taken.
func (m *machine) branches(in *instruction) (taken, branch bool) {
	switch in.op {
	case "CBNZ":
		return m.get(in.args[0]) != 0, true
	case "CBZ":
		return m.get(in.args[0]) == 0, true
	}
	return false, false
}

// get and set are of general registers.
func (m *machine) get(register string) uint64 {
	value, ok := m.regs[register]
	if !ok {
		m.fault("no register %s", register)
	}
	return value
}

func (m *machine) set(register string, value uint64) {
	m.get(register)
	m.regs[register] = value
}

// of returns the vector register of an operand like V3.B16, [V3.B16], V3.D[0], F3 or (F3.
func (m *machine) of(operand string) []byte {
	name, _, _ := strings.Cut(strings.Trim(operand, "[]()"), ".")
	i, err := strconv.Atoi(name[1:])
	if err != nil || name[0] != 'V' && name[0] != 'F' {
		m.fault("no vector register %s", operand)
	}
	return m.vec[i][:16]
}

// stepARM runs one instruction that is no branch (Arm ARM, C6 and C7).
func (m *machine) stepARM(in *instruction) {
	args := in.args
	to := args[len(args)-1]
	switch {
	case strings.HasPrefix(in.op, "VLD1"), strings.HasPrefix(in.op, "VST1"):
		m.several(in)
		return
	case strings.HasPrefix(in.op, "SHA256"):
		m.sha2(in)
		return
	case in.op[0] == 'V', strings.HasPrefix(in.op, "AES"):
		m.neon(in)
		return
	}
	value := func(operand string) uint64 {
		if operand[0] == '$' {
			return immediateOf(operand)
		}
		return m.get(operand)
	}
	three := func(f func(a, b uint64) uint64) { m.set(to, f(m.get(args[1]), value(args[0]))) }
	// at is where an operand is in memory, which must be near enough to its register.
	at := func(operand string, size int, most uint64) []byte {
		if offset, _, _ := strings.Cut(operand, "("); !strings.Contains(operand, "P)") && (decimal(offset)%uint64(size) != 0 || decimal(offset) > most*uint64(size)) {
			m.fault("%s takes more than one instruction", in.line)
		}
		return m.memory(m.address(operand), size)
	}
	switch in.op {
	case "MOVD":
		switch {
		case strings.HasSuffix(args[0], "(SB)"):
			m.set(to, m.address(args[0][1:]))
		case strings.HasSuffix(to, ")"):
			binary.LittleEndian.PutUint64(at(to, 8, 4095), m.get(args[0]))
		case strings.HasSuffix(args[0], ")"):
			m.set(to, binary.LittleEndian.Uint64(at(args[0], 8, 4095)))
		default:
			m.set(to, value(args[0]))
		}
	case "MOVWU":
		m.set(to, uint64(binary.LittleEndian.Uint32(at(args[0], 4, 4095))))
	case "ADD", "SUB":
		if args[0][0] == '$' && immediateOf(args[0]) > 4095 {
			m.fault("%s takes more than one instruction", in.line)
		}
		three(map[string]func(a, b uint64) uint64{
			"ADD": func(a, b uint64) uint64 { return a + b }, "SUB": func(a, b uint64) uint64 { return a - b },
		}[in.op])
	case "AND":
		three(func(a, b uint64) uint64 { return a & b })
	case "BIC":
		three(func(a, b uint64) uint64 { return a &^ b })
	case "MADD":
		m.set(to, m.get(args[1])+m.get(args[0])*m.get(args[2]))
	case "CMP":
		m.zero = m.get(to) == value(args[0])
	case "CINC":
		n := m.get(args[1])
		if args[0] == "NE" && !m.zero {
			n++
		} else if args[0] != "NE" {
			m.fault("unknown condition: %s", in.line)
		}
		m.set(to, n)
	case "PRFM": // what is no memory is of no use
		m.memory(m.address(args[0]), 64)
	case "FMOVQ":
		copy(m.of(to), at(args[0], 16, 4095))
	case "FMOVD":
		copy(at(to, 8, 4095), m.of(args[0]))
	case "FLDPQ":
		copy(m.of(args[1]), at(args[0], 16, 63))
		copy(m.of(args[2]), m.memory(m.address(args[0])+16, 16))
	case "FSTPQ":
		copy(at(to, 16, 63), m.of(args[0]))
		copy(m.memory(m.address(to)+16, 16), m.of(args[1]))
	default:
		m.fault("unknown instruction: %s", in.line)
	}
}

// several loads or stores up to four registers, which are one after another, and may move
// the register that points to them.
func (m *machine) several(in *instruction) {
	op, moves := strings.CutSuffix(in.op, ".P")
	list, pointer := in.args[1:], in.args[0]
	if op == "VST1" {
		list, pointer = in.args[:len(in.args)-1], in.args[len(in.args)-1]
	}
	by, base, _ := strings.Cut(strings.TrimSuffix(pointer, ")"), "(")
	at := m.get(base)
	for i, register := range list {
		if op == "VST1" {
			copy(m.memory(at+16*uint64(i), 16), m.of(register))
		} else {
			copy(m.of(register), m.memory(at+16*uint64(i), 16))
		}
	}
	if moves != (by != "") || moves && decimal(by) != uint64(16*len(list)) {
		m.fault("unknown instruction: %s", in.line)
	}
	m.set(base, at+decimal(by))
}

// sha2 runs one of the SHA2 extension.
func (m *machine) sha2(in *instruction) {
	to := m.of(in.args[len(in.args)-1])
	w, n, d := words(m.of(in.args[0])), words(m.of(in.args[len(in.args)-2])), words(to)
	switch in.op {
	case "SHA256H", "SHA256H2":
		x, y := d, n // A to D, E to H
		if in.op == "SHA256H2" {
			x, y = n, d
		}
		for i := range 4 {
			t := y[3] + bigSigma1(y[0]) + choose(y[0], y[1], y[2]) + w[i]
			x, y = []uint32{t + bigSigma0(x[0]) + majority(x[0], x[1], x[2]), x[0], x[1], x[2]}, []uint32{x[3] + t, y[0], y[1], y[2]}
		}
		if in.op == "SHA256H2" {
			x = y
		}
		d = x
	case "SHA256SU0":
		next := []uint32{d[1], d[2], d[3], n[0]}
		for i := range d {
			d[i] += smallSigma0(next[i])
		}
	case "SHA256SU1":
		next := []uint32{n[1], n[2], n[3], w[0]}
		for i, before := range []*uint32{&w[2], &w[3], &d[0], &d[1]} {
			d[i] += next[i] + smallSigma1(*before)
		}
	default:
		m.fault("unknown instruction: %s", in.line)
	}
	copy(to, unwords(d))
}

// shapes are the lanes that each vector instruction is written with here.
var shapes = map[string]string{
	"VADD": "S4", "VEOR": "B16", "VAND": "B16", "VREV32": "H8", "VMOV": "B16", "VSHL": "S4", "VSRI": "S4", "VTBL": "B16",
	"VEXT": "B16", "VCMEQ": "B16", "VADDP": "B16", "AESE": "B16", "AESMC": "B16",
}

// neon runs an instruction on vectors. The operand that Arm writes last is Go's first.
func (m *machine) neon(in *instruction) {
	args := in.args
	to := args[len(args)-1]
	if in.op == "VMOV" && strings.HasSuffix(args[0], ".D[0]") {
		m.set(to, binary.LittleEndian.Uint64(m.of(args[0])))
		return
	}
	immediate := 0
	if args[0][0] == '$' {
		immediate, args = int(immediateOf(args[0])), args[1:]
	}
	for _, a := range args {
		if _, lanes, _ := strings.Cut(strings.Trim(a, "[]"), "."); lanes != shapes[in.op] && in.op+lanes != "VREV32B16" {
			m.fault("unknown instruction: %s", in.line)
		}
	}
	// The operands, each a copy.
	a, d := bytes.Clone(m.of(args[0])), bytes.Clone(m.of(to))
	b := bytes.Clone(m.of(args[len(args)-2]))
	out := make([]byte, 16)
	bytewise := func(f func(a, b byte) byte) {
		for i := range out {
			out[i] = f(a[i], b[i])
		}
	}
	wordwise := func(f func(a, b, d uint32) uint32) {
		x, y, z := words(a), words(b), words(d)
		for i := range x {
			binary.LittleEndian.PutUint32(out[4*i:], f(x[i], y[i], z[i]))
		}
	}
	switch in.op {
	case "VADD":
		wordwise(func(a, b, _ uint32) uint32 { return a + b })
	case "VSHL":
		wordwise(func(a, _, _ uint32) uint32 { return a << immediate })
	case "VSRI": // the bits that nothing is shifted into stay
		wordwise(func(a, _, d uint32) uint32 { return d&^(^uint32(0)>>immediate) | a>>immediate })
	case "VMOV":
		out = a
	case "VREV32":
		if strings.HasSuffix(to, ".B16") {
			wordwise(func(a, _, _ uint32) uint32 { return bits.ReverseBytes32(a) })
			break
		}
		wordwise(func(a, _, _ uint32) uint32 { return bits.RotateLeft32(a, 16) })
	case "VEOR":
		bytewise(func(a, b byte) byte { return a ^ b })
	case "VAND":
		bytewise(func(a, b byte) byte { return a & b })
	case "VCMEQ":
		bytewise(func(a, b byte) byte {
			if a == b {
				return 0xff
			}
			return 0
		})
	case "VTBL":
		for i, at := range a {
			if at < 16 {
				out[i] = b[at]
			}
		}
	case "VEXT":
		copy(out, append(b, a...)[immediate:])
	case "VADDP":
		both := append(b, a...)
		for i := range out {
			out[i] = both[2*i] + both[2*i+1]
		}
	case "AESE":
		for i := range out {
			out[i] = a[i] ^ d[i]
		}
		out = aesRound(out, make([]byte, 16), true)
	case "AESMC":
		out = mixColumns(a)
	}
	copy(m.of(to), out)
}

func TestEveryKernelOfSpaceForARMIsRunOnAnyMachine(t *testing.T) {
	everyKernelOfSpace(t, parseARM(t, spaceARM()))
}

func TestEveryKernelForARMHashesAsCryptoSHA256(t *testing.T) {
	everyKernelHashes(t, parseARM(t, arm64()))
}

// Go and the system keep values in these.
func TestRegistersThatAreNotOursAreRefused(t *testing.T) {
	rng := rand.New(rand.NewPCG(39, 40))
	for _, register := range []string{"R18", "R27", "R28", "R29", "R30"} {
		p := parseARM(t, strings.ReplaceAll(spaceARM(), "R10", register))
		if ended, _ := tryRomix(p, "romix12NEON", 12, 2, stack, rng); !strings.Contains(string(ended), "no register "+register) {
			t.Errorf("%s: %q", register, ended)
		}
	}
}

// A wrong rotation, turn or place in any one instruction is seen.
func TestAWrongInstructionOfSpaceForARMIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(37, 38))
	text := spaceARM()
	for _, change := range [][3]string{
		{"romix6NEON", "VSHL $12, V1.S4, V24.S4", "VSHL $13, V1.S4, V24.S4"},
		{"romix6NEON", "VSRI $25, V29.S4, V21.S4", "VSRI $25, V28.S4, V21.S4"},
		{"romix6NEON", "VREV32 V23.H8, V23.H8", "VTBL V30.B16, [V23.B16], V23.B16"},
		{"romix6NEON", "VEXT $12, V9.B16, V9.B16, V9.B16", "VEXT $4, V9.B16, V9.B16, V9.B16"},
		{"romix6NEON", "FLDPQ 64(R8), (F28, F29)", "FLDPQ 96(R8), (F28, F29)"},
		{"romix6NEON", "AND R3, R8, R8", "AND R2, R8, R8"},
		{"romix12NEON", "FSTPQ (F0, F1), 0(R10)", "FSTPQ (F0, F1), 0(R9)"},
		{"romix12NEON", "MOVD $4, R6", "MOVD $3, R6"},
		{"romix12NEON", "ADD $768, R8, R8", "ADD $640, R8, R8"},
		{"romix12NEON", "FLDPQ 640(R10), (F20, F21)", "FLDPQ 1408(R9), (F20, F21)"},
		{"eagerNEON", "AESMC V7.B16, V7.B16", "AESMC V6.B16, V7.B16"},
		{"eagerNEON", "FMOVQ 96(R1), F19", "FMOVQ 80(R1), F19"},
		{"eagerNEON", "VADDP V3.B16, V2.B16, V2.B16", "VADDP V2.B16, V3.B16, V2.B16"},
		{"eagerNEON", "VCMEQ V26.B16, V15.B16, V15.B16", "VCMEQ V25.B16, V15.B16, V15.B16"},
		{"eagerNEON", "CINC NE, R5, R5", "ADD $1, R5, R5"},
		{"lazyAES", "MOVD $176, R5", "MOVD $160, R5"},
		{"lazyAES", "BIC $15, R6, R6", "BIC $7, R6, R6"},
		{"lazyAES", "VEOR V27.B16, V3.B16, V3.B16", "VEOR V26.B16, V3.B16, V3.B16"},
	} {
		name := change[0]
		begin := strings.Index(text, "TEXT ·"+name+"(SB)")
		spoiled := text[:begin] + strings.Replace(text[begin:], "\t"+change[1]+"\n", "\t"+change[2]+"\n", 1)
		if spoiled == text {
			t.Errorf("%s has no %s", name, change[1])
			continue
		}
		p, all := parseARM(t, spoiled), true
		for range 10 {
			var right bool
			if labels := labelsOf(name); labels != 0 {
				_, right = tryRomix(p, name, labels, 4, stack, rng)
			} else {
				_, right = tryAES(p, name, aesSize[name], rng)
			}
			all = all && right
		}
		if all {
			t.Errorf("%s with %s is not noticed", name, change[2])
		}
	}
}
