package posw

//go:noescape
func blocksNI(state *node, p *byte, n int)

//go:noescape
func severalNI(states *[lanes]node, p *[lanes]*byte, n int)

//go:noescape
func chainNI(d *node, n int)

//go:noescape
func chainsNI(d *[lanes]node, n int)

// floorNI runs the dependent SHA256RNDS2 of n hashes, and nothing else.
//
//go:noescape
func floorNI(n int)

// cpuid and xgetbv are the instructions of these names.
func cpuid(eax, ecx uint32) (a, b, c, d uint32)
func xgetbv() (low uint32)

// accelerated returns the kernels that this processor can run.
func accelerated() []kernel {
	if !hasSHANI() {
		return nil
	}
	return []kernel{{name: "sha-ni", blocks: blocksNI, several: severalNI, chain: chainNI, chains: chainsNI}}
}

// hasSHANI reports whether processor and operating system support the SHA extensions
// and AVX (Intel SDM volume 1, 14.3, and volume 2, CPUID).
func hasSHANI() bool {
	const (
		avx, osxsave = 1 << 28, 1 << 27 // leaf 1, ECX
		sha          = 1 << 29          // leaf 7, EBX
		xmm, ymm     = 1 << 1, 1 << 2   // XCR0
	)
	if most, _, _, _ := cpuid(0, 0); most < 7 {
		return false
	}
	_, _, ecx, _ := cpuid(1, 0)
	_, ebx, _, _ := cpuid(7, 0)
	return ecx&(avx|osxsave) == avx|osxsave && ebx&sha != 0 && xgetbv()&(xmm|ymm) == xmm|ymm
}

// floor returns the function that runs the latency floor of n hashes, nil if this
// processor has none.
func floor() func(n int) {
	if !hasSHANI() {
		return nil
	}
	return floorNI
}
