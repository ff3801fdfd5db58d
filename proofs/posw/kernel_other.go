//go:build !amd64 && !arm64

package posw

// accelerated returns the kernels that this processor can run: none is written for it.
func accelerated() []kernel { return nil }

// floor returns the function that runs the latency floor of n hashes: none here.
func floor() func(n int) { return nil }
