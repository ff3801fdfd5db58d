package post

import "tweedle/proofs/processor"

// These encrypt n times 16 labels, the last of them 32, with the cipher of a nonce group.
// They are written and described by proofs/gen.
//
//go:noescape
func eagerAES(labels *byte, keys *[11][2][16]byte, found, numbers *uint64, n int)

//go:noescape
func eagerVAES(labels *byte, keys *[11][2][16]byte, found, numbers *uint64, n int)

//go:noescape
func eagerVAES512(labels *byte, keys *[11][2][16]byte, found, numbers *uint64, n int)

// scanKernels returns the kernels for scanning that this processor can run, simplest
// first.
func scanKernels() []scanKernel {
	kernels := []scanKernel{portableScan}
	has := processor.Detect()
	if has.AES {
		kernels = append(kernels, scanKernel{"aes", batched(eagerAES, 1, 16)})
	}
	if has.VAES {
		kernels = append(kernels, scanKernel{"vaes", batched(eagerVAES, 2, 16)})
	}
	if has.VAES && has.AVX512 {
		kernels = append(kernels, scanKernel{"vaes512", batched(eagerVAES512, 4, 32)})
	}
	return kernels
}
