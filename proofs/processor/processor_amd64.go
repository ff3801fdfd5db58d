package processor

import (
	"encoding/binary"
	"fmt"
	"strings"
)

func cpuid(eax, ecx uint32) (a, b, c, d uint32)
func xgetbv() (low uint32)
func rdtsc() uint64

// Ticks is a clock that runs on at an even pace, whatever its unit. It is for comparing
// kernels, and nothing that is computed may depend on it.
func Ticks() uint64 { return rdtsc() }

// Detect asks the processor (Intel SDM volume 1, chapters 14.3 and 15.3, and volume 2,
// CPUID). The SHA kernels use AVX encodings too.
func Detect() Features {
	const (
		avx, osxsave = 1 << 28, 1 << 27         // leaf 1, ECX
		aes          = 1 << 25                  // leaf 1, ECX
		avx2, sha    = 1 << 5, 1 << 29          // leaf 7, EBX
		f, bw        = 1 << 16, 1 << 30         // AVX-512, leaf 7, EBX
		vaes         = 1 << 9                   // leaf 7, ECX
		ymm          = 1<<1 | 1<<2              // XCR0
		zmm          = ymm | 1<<5 | 1<<6 | 1<<7 // XCR0
	)
	if most, _, _, _ := cpuid(0, 0); most < 7 {
		return Features{}
	}
	_, _, one, _ := cpuid(1, 0)
	if one&(avx|osxsave) != avx|osxsave || xgetbv()&ymm != ymm {
		return Features{}
	}
	_, ebx, ecx, _ := cpuid(7, 0)
	return Features{
		SHA:    ebx&sha != 0,
		AVX2:   ebx&avx2 != 0,
		AVX512: ebx&(f|bw) == f|bw && xgetbv()&zmm == zmm,
		AES:    one&aes != 0,
		VAES:   one&aes != 0 && ebx&avx2 != 0 && ecx&vaes != 0,
	}
}

// Name returns the name that the processor gives itself, with family and model.
func Name() string {
	if most, _, _, _ := cpuid(0x80000000, 0); most < 0x80000004 {
		return "unnamed x86-64 processor"
	}
	var name []byte
	for leaf := uint32(0x80000002); leaf <= 0x80000004; leaf++ {
		a, b, c, d := cpuid(leaf, 0)
		for _, word := range []uint32{a, b, c, d} {
			name = binary.LittleEndian.AppendUint32(name, word)
		}
	}
	text, _, _ := strings.Cut(string(name), "\x00")
	a, _, _, _ := cpuid(1, 0)
	family, model := a>>8&15, a>>4&15
	if family == 15 {
		family += a >> 20 & 255
	}
	if family >= 6 {
		model |= a >> 16 & 15 << 4
	}
	return fmt.Sprintf("%s (family %d, model %d)", strings.TrimSpace(text), family, model)
}
