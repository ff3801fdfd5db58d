package posw

import "golang.org/x/sys/cpu"

//go:noescape
func blocksSHA2(state *node, p *byte, n int)

//go:noescape
func chainSHA2(d *node, n int)

// chainsSHA2 takes four chains, two side by side.
//
//go:noescape
func chainsSHA2(d *[maxLanes]node, n int)

// severalSHA2 takes one of four messages after the other: their blocks do not depend on
// each other, and overlap as far as the processor looks ahead.
func severalSHA2(states *[maxLanes]node, room []byte, at *[maxLanes]uint32, n int) {
	if n == 0 {
		return
	}
	for i := range 4 {
		blocksSHA2(&states[i], &room[at[i]], n)
	}
}

// runnable returns the kernels that this processor can run, simplest first.
func runnable() []kernel {
	kernels := []kernel{newKernel(portable)}
	if cpu.ARM64.HasSHA2 {
		kernels = append(kernels, newKernel(
			serial{name: "sha2", blocks: blocksSHA2, chain: chainSHA2},
			parallel{lanes: 4, several: severalSHA2, chains: chainsSHA2}))
	}
	return kernels
}

// Processor returns what is known of the processor.
func Processor() string { return "unnamed arm64 processor" }

// ticks returns the clock to compare kernels with: none, there is nothing to compare.
func ticks() func() uint64 { return nil }

// floor returns the function that runs the latency floor of n hashes: none is
// written for this processor.
func floor() func(n int) { return nil }
