//go:build !amd64 && !arm64

package posw

// runnable returns the kernels that this processor can run: only the portable one is
// written for it.
func runnable() []kernel { return []kernel{newKernel(portable)} }

// Processor returns what is known of the processor.
func Processor() string { return "unnamed processor" }

// ticks returns the clock to compare kernels with: none, there is nothing to compare.
func ticks() func() uint64 { return nil }

// floor returns the function that runs the latency floor of n hashes: none here.
func floor() func(n int) { return nil }
