package main

import (
	"crypto/sha256"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Where a call finds its data: the kernels take any alignment.
const (
	stack   = 0x7000_0000
	digests = 0x2000_0004
	buffer  = 0x3000_0003
	offsets = 0x4000_0004
)

// laneCount is how many messages each kernel hashes.
var laneCount = map[string]int{
	"chainsNI": 4, "severalNI": 4, "chains8AVX2": 8, "chains16AVX512": 16, "several16AVX512": 16, "chainsSHA2": 4,
}

// Every kernel for x86 is run, instruction by instruction, on any machine.
func TestEveryKernelForX86HashesAsCryptoSHA256(t *testing.T) {
	everyKernelHashes(t, parse(t, amd64()))
}

func everyKernelHashes(t *testing.T, p *program) {
	for _, name := range slices.Sorted(maps.Keys(p.functions)) {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(21, 22))
			for i := range 12 {
				m := newMachine(p, rng)
				sp := stack + 8*uint64(i)
				if ended := m.try(t, name, sp, i%4, rng); ended != "" {
					t.Fatalf("stack at %#x: %s", sp, ended)
				}
			}
		})
	}
}

// try calls a kernel on random input, n times or blocks, and compares what comes out.
func (m *machine) try(t *testing.T, name string, sp uint64, n int, rng *rand.Rand) fault {
	t.Helper()
	random := func(size int) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	kind, lanes := strings.TrimRight(name, "0123456789AVXNILateSH"), 1
	if kind == "chains" || kind == "several" {
		if lanes = laneCount[name]; lanes == 0 {
			t.Fatalf("%s: say how many lanes it has", name)
		}
	}
	got := random(16 * 32) // digests; those that the kernel does not take must stay
	m.place(digests, got)
	want := slices.Clone(got)
	var ended fault
	switch kind {
	case "floor":
		return m.call(name, sp, uint64(n))
	case "chain", "chains":
		for i := range lanes {
			for range n {
				d := sha256.Sum256(want[32*i:][:32])
				copy(want[32*i:], d[:])
			}
		}
		ended = m.call(name, sp, digests, uint64(n))
	case "blocks", "several":
		room := random(lanes*(64*n+16) + 64)
		var at []uint32
		for i := range lanes {
			at = append(at, uint32((lanes-1-i)*(64*n+16)+i)) // in any order
			copy(want[32*i:], compress(want[32*i:][:32], room[at[i]:][:64*n]))
		}
		m.place(buffer, room)
		if kind == "blocks" {
			ended = m.call(name, sp, digests, buffer+uint64(at[0]), uint64(n))
			break
		}
		m.place(offsets, unwords(append(at, make([]uint32, 16-lanes)...)))
		ended = m.call(name, sp, digests, buffer, uint64(len(room)), uint64(len(room)), offsets, uint64(n))
	default:
		t.Fatalf("%s: a kind of kernel that nothing tests", name)
	}
	if ended == "" && !slices.Equal(got, want) {
		t.Fatalf("%s, n = %d, stack at %#x: wrong digests", name, n, sp)
	}
	return ended
}

// compress goes on from a state over whole blocks, by crypto/sha256.
func compress(state, blocks []byte) []byte {
	type hash interface {
		Write([]byte) (int, error)
		MarshalBinary() ([]byte, error)
		UnmarshalBinary([]byte) error
	}
	h := sha256.New().(hash)
	b, err := h.MarshalBinary() // 4 bytes of magic, the state, a block, a length
	if err != nil {
		panic(err)
	}
	copy(b[4:], state)
	if err := h.UnmarshalBinary(b); err != nil {
		panic(err)
	}
	_, _ = h.Write(blocks)
	if b, err = h.MarshalBinary(); err != nil {
		panic(err)
	}
	return b[4:36]
}

// unaligned is the text as it was while the scratch space lay where the stack begins,
// and every Intel processor faulted on it.
func unaligned(text string) string {
	return strings.NewReplacer("\tADDQ $15, BX\n", "", "\tANDQ $~15, BX\n", "").Replace(text)
}

func TestAnUnalignedOperandFaultsAsOnIntel(t *testing.T) {
	p := parse(t, unaligned(amd64()))
	rng := rand.New(rand.NewPCG(23, 24))
	for _, name := range []string{"chainsNI", "severalNI"} {
		if ended := newMachine(p, rng).try(t, name, stack, 2, rng); ended != "" {
			t.Errorf("%s on a stack that happens to be aligned: %s", name, ended)
		}
		if ended := newMachine(p, rng).try(t, name, stack+8, 2, rng); !strings.Contains(string(ended), "is not aligned") {
			t.Errorf("%s on a stack aligned to 8 bytes: %q", name, ended)
		}
	}
}

func TestUpperHalvesInUseAreNoticed(t *testing.T) {
	p := parse(t, strings.ReplaceAll(amd64(), "\tVZEROUPPER\n", ""))
	rng := rand.New(rand.NewPCG(25, 26))
	for name := range p.functions {
		if ended := newMachine(p, rng).try(t, name, stack, 1, rng); !strings.Contains(string(ended), "in use") {
			t.Errorf("%s without VZEROUPPER: %q", name, ended)
		}
	}
}

// broken returns a line for every rule of amd64 that a function of the text breaks.
func broken(t *testing.T, text string) []string {
	var bad []string
	p := parse(t, text)
	for _, name := range slices.Sorted(maps.Keys(p.functions)) {
		f := p.functions[name]
		if f.code[0].op != "VZEROUPPER" {
			bad = append(bad, name+" begins without VZEROUPPER")
		}
		wide := slices.ContainsFunc(f.code, func(in instruction) bool {
			return slices.ContainsFunc(in.args, func(a string) bool { _, size, ok := vector(a); return ok && size > 16 })
		})
		for i, in := range f.code {
			if wide && in.op == "RET" && f.code[i-1].op != "VZEROUPPER" {
				bad = append(bad, name+" returns without VZEROUPPER")
			}
			if legacyVector(in) {
				for _, a := range in.args {
					if strings.Contains(a, "(") && !f.aligned(p, a, i) {
						bad = append(bad, name+in.line+": nothing aligns the operand")
					}
				}
			}
		}
	}
	return bad
}

// legacyVector tells whether an instruction works on vectors in the legacy encoding.
func legacyVector(in instruction) bool {
	return in.op[0] != 'V' && slices.ContainsFunc(in.args, func(a string) bool { _, _, ok := vector(a); return ok })
}

// aligned tells whether a memory operand is a multiple of 16 by what the function does:
// it is in a table of 16 bytes or more, which the linker aligns, or in the frame at a
// register that was rounded up before, by text.align, and is not written otherwise.
func (f *function) aligned(p *program, operand string, at int) bool {
	before, base, _ := strings.Cut(strings.TrimSuffix(operand, ")"), "(")
	if base == "SB" {
		name, offset, _ := strings.Cut(before, "<>")
		return len(p.symbols[name]) >= 16 && decimal(strings.TrimPrefix(offset, "+"))%16 == 0
	}
	var writes []string
	for i, in := range f.code {
		if len(in.args) > 0 && in.args[len(in.args)-1] == base {
			writes = append(writes, in.op+" "+in.args[0])
			if i > at {
				return false
			}
		}
	}
	offset := decimal(before)
	return slices.Equal(writes, []string{"MOVQ SP", "ADDQ $15", "ANDQ $~15"}) && offset%16 == 0 && int(offset)+16+15 <= f.frame
}

func TestTheTextKeepsTheRulesOfIntel(t *testing.T) {
	for _, line := range append(broken(t, amd64()), broken(t, space())...) {
		t.Error(line)
	}
	text := amd64()
	for what, spoiled := range map[string]string{
		"scratch space where the stack begins":  unaligned(text),
		"a frame without bytes to spare":        strings.Replace(text, "$272-16", "$256-16", 1),
		"an operand beside its table":           strings.Replace(text, "SHA256MSG1 words8<>(SB)", "SHA256MSG1 words8<>+8(SB)", 1),
		"an operand at a pointer":               strings.Replace(text, "SHA256MSG1 16(BX)", "SHA256MSG1 16(AX)", 1),
		"a register moved after it was aligned": strings.Replace(text, "\tANDQ $~15, BX\n", "\tANDQ $~15, BX\n\tADDQ $8, BX\n", 1),
		"no VZEROUPPER at a beginning":          strings.Replace(text, "\tVZEROUPPER\n", "", 1),
		"no VZEROUPPER at an end":               strings.Replace(text, "\tVZEROUPPER\n\tRET\n", "\tRET\n", 1),
	} {
		if spoiled == text {
			t.Errorf("%s: the text has changed, spoil it another way", what)
		}
		if len(broken(t, spoiled)) == 0 {
			t.Errorf("%s is not refused", what)
		}
	}
}

// The interpreter notices one wrong instruction among thousands.
func TestAWrongInstructionIsFound(t *testing.T) {
	wrongInstructionsAreFound(t, amd64(), parse, map[string][2]string{
		"chainNILate":    {"VPSRLDQ $4, X5, X10", "VPSRLDQ $8, X5, X10"},
		"chains16AVX512": {"VPRORD $22, Z7, Z9", "VPRORD $23, Z7, Z9"},
		"chains8AVX2":    {"VPSLLD $30, Y0, Y8", "VPSLLD $29, Y0, Y8"},
	})
	wrongInstructionsAreFound(t, arm64(), parseARM, map[string][2]string{
		"chainSHA2":  {"SHA256SU1 V7.S4, V6.S4, V4.S4", "SHA256SU1 V6.S4, V7.S4, V4.S4"},
		"chainsSHA2": {"SHA256H2 V3.S4, V2, V1", "SHA256H2 V3.S4, V0, V1"},
	})
}

func wrongInstructionsAreFound(t *testing.T, text string, parse func(testing.TB, string) *program, changes map[string][2]string) {
	rng := rand.New(rand.NewPCG(27, 28))
	for name, change := range changes {
		begin := strings.Index(text, "TEXT ·"+name+"(SB)")
		spoiled := text[:begin] + strings.Replace(text[begin:], change[0], change[1], 1)
		if spoiled == text {
			t.Errorf("%s has no %s", name, change[0])
			continue
		}
		m := newMachine(parse(t, spoiled), rng)
		m.place(digests, make([]byte, 16*32))
		if ended := m.call(name, stack, digests, 1); ended != "" {
			t.Errorf("%s: %s", name, ended)
		}
		zero := sha256.Sum256(make([]byte, 32))
		if slices.Equal(m.memory(digests, 32), zero[:]) {
			t.Errorf("%s with %s is not noticed", name, change[1])
		}
	}
}
