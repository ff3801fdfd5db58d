package main

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"
)

// romixSlow is scrypt's ROMix at r = 1 with ChaCha20/8, written from its description.
func romixSlow(x [32]uint32, n int) [32]uint32 {
	mix := func(x [32]uint32) (out [32]uint32) {
		t := [16]uint32(x[16:])
		for half := range 2 {
			for i := range t {
				t[i] ^= x[16*half+i]
			}
			before := t
			for i := range 8 { // rounds, by columns and diagonals
				for q := range 4 {
					var at [4]int
					for row := range at {
						at[row] = 4*row + (q+i%2*row)%4
					}
					for k, by := range []int{16, 12, 8, 7} {
						to, other := at[2*(k%2)], [2][2]int{{at[1], at[3]}, {at[3], at[1]}}[k%2]
						t[to] += t[other[0]]
						t[other[1]] = bits.RotateLeft32(t[other[1]]^t[to], by)
					}
				}
			}
			for i := range t {
				t[i] += before[i]
			}
			copy(out[16*half:], t[:])
		}
		return out
	}
	v := make([][32]uint32, n)
	for k := range v {
		v[k] = x
		x = mix(x)
	}
	for range n {
		for i, w := range v[int(x[16])%n] {
			x[i] ^= w
		}
		x = mix(x)
	}
	return x
}

// tryRomix calls a kernel for that many labels on random states and compares what comes
// out. It returns the fault that ended it, and whether all is right.
func tryRomix(p *program, name string, labels, n int, sp uint64, rng *rand.Rand) (fault, bool) {
	m := newMachine(p, rng)
	states := make([][32]uint32, labels)
	x := make([]byte, 128*labels)
	wide := map[bool]int{true: 1, false: 2}[p.arm] // labels of a register
	if strings.HasSuffix(name, "AVX512") {
		wide = 4
	}
	word := func(label, w int) []byte { return x[16*(wide*(8*(label/wide)+w/4)+label%wide)+4*(w%4):] }
	for l := range states {
		for w := range states[l] {
			states[l][w] = rng.Uint32()
			binary.LittleEndian.PutUint32(word(l, w), states[l][w])
		}
	}
	m.place(digests, x)
	m.place(buffer, make([]byte, 128*labels*n))
	if ended := m.call(name, sp, digests, buffer, uint64(n)); ended != "" {
		return ended, false
	}
	for l := range states {
		want := romixSlow(states[l], n)
		for w := range want {
			if binary.LittleEndian.Uint32(word(l, w)) != want[w] {
				return "", false
			}
		}
	}
	return "", true
}

// labelsOf is how many labels a kernel mixes by its name, 0 if it is another kind of kernel.
func labelsOf(name string) (labels int) {
	fmt.Sscanf(name, "romix%d", &labels)
	return labels
}

func TestEveryKernelOfSpaceForX86IsRunOnAnyMachine(t *testing.T) {
	everyKernelOfSpace(t, parse(t, space()))
}

func everyKernelOfSpace(t *testing.T, p *program) {
	rng := rand.New(rand.NewPCG(31, 32))
	for name := range p.functions {
		if size := aesSize[name]; size != 0 {
			for range 20 {
				if ended, right := tryAES(p, name, size, rng); !right {
					t.Errorf("%s: wrong cipher texts (%s)", name, ended)
				}
			}
			continue
		}
		labels := labelsOf(name)
		if labels == 0 {
			t.Fatalf("%s: a kernel that nothing tests", name)
		}
		for i, n := range []int{2, 4, 16} {
			if ended, right := tryRomix(p, name, labels, n, stack+8*uint64(i), rng); !right {
				t.Errorf("%s at N=%d: wrong labels (%s)", name, n, ended)
			}
		}
	}
}

// A wrong rotation, turn or place in any one instruction is seen.
func TestAWrongInstructionOfSpaceIsFound(t *testing.T) {
	rng := rand.New(rand.NewPCG(33, 34))
	text := space()
	for name, change := range map[string][2]string{
		"eagerAES":     {"VAESENCLAST X8, X7, X7", "VAESENC X8, X7, X7"},
		"eagerVAES":    {"VMOVDQU 96(BX), Y9", "VMOVDQU 64(BX), Y9"},
		"eagerVAES512": {"SBBQ $-1, DX", "ADDQ $1, DX"},
		"lazyAES":      {"IMULQ $176, R10", "IMULQ $160, R10"},
	} {
		begin := strings.Index(text, "TEXT ·"+name+"(SB)")
		spoiled := text[:begin] + strings.Replace(text[begin:], change[0], change[1], 1)
		if spoiled == text {
			t.Errorf("%s has no %s", name, change[0])
		} else if p, all := parse(t, spoiled), true; true {
			for range 20 {
				_, right := tryAES(p, name, aesSize[name], rng)
				all = all && right
			}
			if all {
				t.Errorf("%s with %s is not noticed", name, change[1])
			}
		}
	}
	for _, change := range [][3]string{
		{"romix6AVX2", "VPSLLD $12, Y1, Y12", "VPSLLD $13, Y1, Y12"},
		{"romix6AVX2", "VPSHUFD $0x93, Y11, Y11", "VPSHUFD $0x39, Y11, Y11"},
		{"romix6AVX2", "VINSERTI128 $1, 640(R9)", "VINSERTI128 $1, 624(R9)"},
		{"romix6AVX2", "VPADDD 32(AX), Y1, Y1", "VPADDD 64(AX), Y1, Y1"},
		{"romix16AVX512", "VPROLD $12, Z1, Z1", "VPROLD $13, Z1, Z1"},
		{"romix16AVX512", "VSHUFI32X4 $0xdd, Z31, Z30, Z27", "VSHUFI32X4 $0x88, Z31, Z30, Z27"},
		{"romix16AVX512", "VMOVDQU32 448(R11), Z27", "VMOVDQU32 448(R10), Z27"},
	} {
		name := change[0]
		begin := strings.Index(text, "TEXT ·"+name+"(SB)")
		spoiled := text[:begin] + strings.Replace(text[begin:], change[1], change[2], 1)
		if spoiled == text {
			t.Errorf("%s has no %s", name, change[1])
			continue
		}
		if _, right := tryRomix(parse(t, spoiled), name, labelsOf(name), 4, stack, rng); right {
			t.Errorf("%s with %s is not noticed", name, change[2])
		}
	}
}

func TestKernelsOfSpaceLeaveNoUpperHalvesInUse(t *testing.T) {
	rng := rand.New(rand.NewPCG(35, 36))
	p := parse(t, strings.ReplaceAll(space(), "\tVZEROUPPER\n\tRET\n", "\tRET\n"))
	for name := range p.functions {
		labels := labelsOf(name)
		if labels == 0 {
			continue
		}
		if ended, _ := tryRomix(p, name, labels, 2, stack, rng); !strings.Contains(string(ended), "in use") {
			t.Errorf("%s without VZEROUPPER: %q", name, ended)
		}
	}
}
