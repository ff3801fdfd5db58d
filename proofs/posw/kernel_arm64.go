package posw

import "golang.org/x/sys/cpu"

//go:noescape
func blocksSHA2(state *node, p *byte, n int)

// severalSHA2 takes one message after the other: their blocks do not depend on each
// other, and overlap as far as the processor looks ahead.
func severalSHA2(states *[lanes]node, p *[lanes]*byte, n int) {
	for i := range states {
		blocksSHA2(&states[i], p[i], n)
	}
}

//go:noescape
func chainSHA2(d *node, n int)

//go:noescape
func chainsSHA2(d *[lanes]node, n int)

// accelerated returns the kernels that this processor can run.
func accelerated() []kernel {
	if !cpu.ARM64.HasSHA2 {
		return nil
	}
	return []kernel{{name: "sha2", blocks: blocksSHA2, several: severalSHA2, chain: chainSHA2, chains: chainsSHA2}}
}

// floor returns the function that runs the latency floor of n hashes: none is
// written for this processor.
func floor() func(n int) { return nil }
