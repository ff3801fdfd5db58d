package posw

import "tweedle/proofs/processor"

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

// runnable returns the kernels that this processor can run, simplest first.
func runnable() []kernel {
	kernels := []kernel{newKernel(portable)}
	has := processor.Detect()
	avx2 := parallel{name: "avx2", lanes: 8, chains: chains8AVX2}
	avx512 := parallel{name: "avx512", lanes: 16, several: several16AVX512, chains: chains16AVX512}
	if has.AVX2 {
		kernels = append(kernels, newKernel(portable, avx2))
	}
	if has.AVX512 {
		kernels = append(kernels, newKernel(portable, avx512))
	}
	if !has.SHA {
		return kernels
	}
	four := parallel{lanes: 4, several: severalNI, chains: chainsNI}
	for _, s := range []serial{
		{name: "sha-ni", blocks: blocksNI, chain: chainNI},
		{name: "sha-ni-late", blocks: blocksNILate, chain: chainNILate},
	} {
		kernels = append(kernels, newKernel(s, four))
		if has.AVX512 {
			kernels = append(kernels, newKernel(s, four, avx512))
		}
	}
	return kernels
}

// Processor returns the name that the processor gives itself, with family and model.
func Processor() string { return processor.Name() }

// ticks returns the clock to compare kernels with, nil if there is none.
func ticks() func() uint64 { return processor.Ticks }

// floor returns the function that runs the latency floor of n hashes, nil if this
// processor has none.
func floor() func(n int) {
	if !processor.Detect().SHA {
		return nil
	}
	return floorNI
}
