package main

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// program is the assembler text of a file, as far as machine can run it.
type program struct {
	arm       bool // for arm64, not amd64
	functions map[string]*function
	symbols   map[string][]byte
}

type function struct {
	signature string // of the comment before it
	frame     int
	code      []instruction
	labels    map[string]int
}

type instruction struct {
	op   string
	args []string
	line string
}

// parse reads the text of a file, for amd64.
func parse(t testing.TB, text string) *program {
	t.Helper()
	p := &program{functions: map[string]*function{}, symbols: map[string][]byte{}}
	var f *function
	signature := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		fields := strings.Fields(strings.ReplaceAll(line, ",", " "))
		switch {
		case len(fields) == 0 || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "// func "):
			signature = strings.TrimPrefix(line, "// func ")
		case strings.HasPrefix(line, "//"):
		case fields[0] == "DATA": // DATA name<>+8(SB)/8 $0x0123456789abcdef
			name, at, _ := strings.Cut(strings.TrimSuffix(fields[1], "(SB)/8"), "<>+")
			b := p.symbols[name]
			if offset := number(t, at); offset != uint64(len(b)) {
				t.Fatalf("%s: the bytes before are missing", line)
			}
			p.symbols[name] = binary.LittleEndian.AppendUint64(b, number(t, fields[2]))
		case fields[0] == "GLOBL":
			name := strings.TrimSuffix(fields[1], "<>(SB)")
			if size := number(t, fields[len(fields)-1]); size != uint64(len(p.symbols[name])) {
				t.Fatalf("%s: %d bytes are given", line, len(p.symbols[name]))
			}
		case fields[0] == "TEXT":
			name := strings.TrimSuffix(strings.TrimPrefix(fields[1], "·"), "(SB)")
			frame, _, _ := strings.Cut(fields[len(fields)-1], "-")
			f = &function{signature: signature, frame: int(number(t, frame)), labels: map[string]int{}}
			p.functions[name] = f
		case strings.HasSuffix(line, ":"):
			f.labels[strings.TrimSuffix(line, ":")] = len(f.code)
		case fields[0] == "PCALIGN":
		default:
			f.code = append(f.code, instruction{fields[0], fields[1:], line})
		}
	}
	return p
}

// number reads $0x10, $~15, 16 and the like.
func number(t testing.TB, s string) uint64 {
	t.Helper()
	s, inverted := strings.CutPrefix(strings.TrimPrefix(s, "$"), "~")
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		t.Fatalf("%q is not a number", s)
	}
	if inverted {
		return ^n
	}
	return n
}

// machine runs a function instruction by instruction as an Intel processor does, as far
// as the kernels need it. Other than AMD's it faults where an instruction of the legacy
// encoding has a memory operand that is not aligned to 16 bytes, or runs while the upper
// half of a register is in use: the first is an exception there, the second costs
// hundreds of cycles.
type machine struct {
	p     *program
	f     *function
	regs  map[string]uint64
	vec   [32][64]byte
	dirty [16]bool // upper halves of these registers are in use
	mask  map[string]uint64
	zero  bool // flags of the last arithmetic
	sign  bool
	carry bool
	heap  []region
	where map[string]uint64 // address of each symbol
}

type region struct {
	at    uint64
	bytes []byte
}

// fault is why a function cannot go on.
type fault string

func (m *machine) fault(format string, args ...any) {
	panic(fault(fmt.Sprintf(format, args...)))
}

// newMachine puts the tables into memory, each aligned as Go's linker does: to its size
// rounded down to a power of two, at most 32. What is in registers is random.
func newMachine(p *program, rng *rand.Rand) *machine {
	m := &machine{p: p, regs: map[string]uint64{}, mask: map[string]uint64{}, where: map[string]uint64{}}
	at := uint64(0x1000_0000)
	for _, name := range slices.Sorted(maps.Keys(p.symbols)) {
		size := uint64(len(p.symbols[name]))
		align := min(32, uint64(1)<<(bits.Len64(size)-1))
		at = (at + align - 1) / align * align
		at += align * (1 - at/align%2) // never aligned better than that
		m.where[name] = at
		m.heap = append(m.heap, region{at, p.symbols[name]})
		at += size + 8
	}
	for i := range m.vec {
		for j := range m.vec[i] {
			m.vec[i][j] = byte(rng.Uint32())
		}
	}
	for i := range m.dirty {
		m.dirty[i] = true
	}
	for _, r := range []string{"AX", "BX", "CX", "DX", "SI", "DI", "R8", "R9", "R10", "R11"} {
		m.regs[r] = rng.Uint64()
	}
	if p.arm {
		m.regs = map[string]uint64{}
		for i := range 27 { // the others are Go's, and the system's
			if i != 18 {
				m.regs[fmt.Sprintf("R%d", i)] = rng.Uint64()
			}
		}
		m.dirty = [16]bool{}
	}
	return m
}

// place puts bytes at an address.
func (m *machine) place(at uint64, b []byte) { m.heap = append(m.heap, region{at, b}) }

// memory returns the bytes at an address, all of one region.
func (m *machine) memory(at uint64, size int) []byte {
	for _, r := range m.heap {
		if at >= r.at && at+uint64(size) <= r.at+uint64(len(r.bytes)) {
			return r.bytes[at-r.at:][:size]
		}
	}
	m.fault("%d bytes at %#x are not in memory", size, at)
	return nil
}

// call runs a function on its arguments, with the stack where it says: a multiple of 8.
// It returns the fault that ended it, empty if it returned.
func (m *machine) call(name string, sp uint64, args ...uint64) (ended fault) {
	f := m.p.functions[name]
	if sp%8 != 0 || f == nil {
		panic("a call that cannot be")
	}
	m.f = f
	var frame []byte
	for _, a := range args {
		frame = binary.LittleEndian.AppendUint64(frame, a)
	}
	before := len(m.heap)
	m.place(sp, make([]byte, f.frame))
	m.regs["SP"], m.regs["FP"] = sp, sp+uint64(f.frame)+8
	m.place(m.regs["FP"], frame)
	defer func() {
		m.heap = m.heap[:before]
		if p := recover(); p != nil {
			text, ok := p.(fault)
			if !ok {
				panic(p)
			}
			ended = text
		}
	}()
	for pc := 0; ; {
		in := &f.code[pc]
		if in.op == "RET" {
			if slices.Contains(m.dirty[:], true) {
				m.fault("%s returns with upper halves in use", name)
			}
			return ""
		}
		pc++
		if m.p.arm {
			if taken, branch := m.branches(in); taken {
				pc = f.labels[in.args[len(in.args)-1]]
			} else if !branch {
				m.stepARM(in)
			}
			continue
		}
		if strings.HasPrefix(in.op, "J") {
			if m.jumps(in.op) {
				pc = f.labels[in.args[0]]
			}
			continue
		}
		m.step(in)
	}
}

func (m *machine) jumps(op string) bool {
	switch op {
	case "JZ":
		return m.zero
	case "JNZ":
		return !m.zero
	case "JLE":
		return m.zero || m.sign
	}
	m.fault("unknown instruction %s", op)
	return false
}

// address returns where an operand like 16(AX), 4(AX)(R8*1), d+0(FP) or keys<>+16(SB) is.
func (m *machine) address(operand string) uint64 {
	if base, index, ok := strings.Cut(operand, ")("); ok {
		if name, shift, ok := strings.Cut(strings.TrimSuffix(index, ")"), "<<"); ok {
			return m.address(base+")") + m.get(name)<<decimal(shift)
		}
		name, scale, _ := strings.Cut(strings.TrimSuffix(index, ")"), "*")
		return m.address(base+")") + m.regs[name]*decimal(scale)
	}
	inner := strings.TrimSuffix(operand, ")")
	before, base, _ := strings.Cut(inner, "(")
	switch base {
	case "SB":
		name, at, _ := strings.Cut(before, "<>")
		where, ok := m.where[name]
		if !ok {
			m.fault("no symbol %s", name)
		}
		return where + decimal(strings.TrimPrefix(at, "+"))
	case "FP":
		_, at, _ := strings.Cut(before, "+")
		return m.regs["FP"] + decimal(at)
	}
	value, ok := m.regs[base]
	if !ok {
		m.fault("no register %s", base)
	}
	return value + decimal(before)
}

func decimal(s string) uint64 {
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		panic(err)
	}
	return n
}

// vector returns the number and the size in bytes of a vector register.
func vector(operand string) (i, size int, ok bool) {
	size, ok = map[byte]int{'X': 16, 'Y': 32, 'Z': 64}[operand[0]]
	if !ok || strings.Contains(operand, "(") {
		return 0, 0, false
	}
	i, err := strconv.Atoi(operand[1:])
	return i, size, err == nil
}

// read returns the value of a vector operand, of a register or in memory.
func (m *machine) read(operand string, size int) []byte {
	if i, _, ok := vector(operand); ok {
		return m.vec[i][:size]
	}
	return m.memory(m.address(operand), size)
}

// write sets a vector register, or memory. An AVX instruction clears what is above its
// size, and one wider than 16 bytes makes the upper half used.
func (m *machine) write(operand string, value []byte) {
	i, _, ok := vector(operand)
	if !ok {
		copy(m.memory(m.address(operand), len(value)), value)
		return
	}
	var whole [64]byte
	copy(whole[:], value)
	m.vec[i] = whole
	if i < 16 && len(value) > 16 {
		m.dirty[i] = true
	}
}

func words(b []byte) []uint32 {
	out := make([]uint32, len(b)/4)
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return out
}

func unwords(w []uint32) []byte {
	b := make([]byte, 0, 4*len(w))
	for _, x := range w {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return b
}
