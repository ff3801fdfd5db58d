package posw

import (
	"encoding/binary"
	"fmt"
	"strings"
)

//go:noescape
func blocksNI(state *node, p *byte, n int)

//go:noescape
func blocksNILate(state *node, p *byte, n int)

//go:noescape
func chainNI(d *node, n int)

//go:noescape
func chainNILate(d *node, n int)

// chainsNI and severalNI take four messages, the others as many as their names say.
//
//go:noescape
func chainsNI(d *[maxLanes]node, n int)

//go:noescape
func severalNI(states *[maxLanes]node, room []byte, at *[maxLanes]uint32, n int)

//go:noescape
func chains8AVX2(d *[maxLanes]node, n int)

//go:noescape
func chains16AVX512(d *[maxLanes]node, n int)

//go:noescape
func several16AVX512(states *[maxLanes]node, room []byte, at *[maxLanes]uint32, n int)

// floorNI runs the dependent SHA256RNDS2 of n hashes, and nothing else.
//
//go:noescape
func floorNI(n int)

// cpuid, xgetbv and rdtsc are the instructions of these names.
func cpuid(eax, ecx uint32) (a, b, c, d uint32)
func xgetbv() (low uint32)
func rdtsc() uint64

// runnable returns the kernels that this processor can run, simplest first.
func runnable() []kernel {
	kernels := []kernel{newKernel(portable)}
	has := detect()
	avx2 := parallel{name: "avx2", lanes: 8, chains: chains8AVX2}
	avx512 := parallel{name: "avx512", lanes: 16, several: several16AVX512, chains: chains16AVX512}
	if has.avx2 {
		kernels = append(kernels, newKernel(portable, avx2))
	}
	if has.avx512 {
		kernels = append(kernels, newKernel(portable, avx512))
	}
	if !has.sha {
		return kernels
	}
	four := parallel{lanes: 4, several: severalNI, chains: chainsNI}
	for _, s := range []serial{
		{name: "sha-ni", blocks: blocksNI, chain: chainNI},
		{name: "sha-ni-late", blocks: blocksNILate, chain: chainNILate},
	} {
		kernels = append(kernels, newKernel(s, four))
		if has.avx512 {
			kernels = append(kernels, newKernel(s, four, avx512))
		}
	}
	return kernels
}

// features is what processor and operating system support of what kernels need.
type features struct{ sha, avx2, avx512 bool }

// detect asks the processor (Intel SDM volume 1, chapters 14.3 and 15.3, and volume 2,
// CPUID). The SHA kernels use AVX encodings too.
func detect() features {
	const (
		avx, osxsave = 1 << 28, 1 << 27         // leaf 1, ECX
		avx2, sha    = 1 << 5, 1 << 29          // leaf 7, EBX
		f, bw        = 1 << 16, 1 << 30         // AVX-512, leaf 7, EBX
		ymm          = 1<<1 | 1<<2              // XCR0
		zmm          = ymm | 1<<5 | 1<<6 | 1<<7 // XCR0
	)
	if most, _, _, _ := cpuid(0, 0); most < 7 {
		return features{}
	}
	_, _, ecx, _ := cpuid(1, 0)
	if ecx&(avx|osxsave) != avx|osxsave || xgetbv()&ymm != ymm {
		return features{}
	}
	_, ebx, _, _ := cpuid(7, 0)
	return features{
		sha:    ebx&sha != 0,
		avx2:   ebx&avx2 != 0,
		avx512: ebx&(f|bw) == f|bw && xgetbv()&zmm == zmm,
	}
}

// Processor returns the name that the processor gives itself, with family and model.
func Processor() string {
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

// ticks returns the clock to compare kernels with, nil if there is none.
func ticks() func() uint64 { return rdtsc }

// floor returns the function that runs the latency floor of n hashes, nil if this
// processor has none.
func floor() func(n int) {
	if !detect().sha {
		return nil
	}
	return floorNI
}
