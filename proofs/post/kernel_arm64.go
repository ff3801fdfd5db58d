package post

import "golang.org/x/sys/cpu"

// The romix functions mix so many states as their names say, with cost n. v is the
// scratch. They are written by proofs/gen.
//
//go:noescape
func romix3NEON(x, v *block, n int)

//go:noescape
func romix6NEON(x, v *block, n int)

//go:noescape
func romix12NEON(x, v *block, n int)

// labelKernels returns the kernels for labels that this processor can run, simplest
// first.
func labelKernels() []labelKernel {
	kernels := []labelKernel{portableLabels}
	if cpu.ARM64.HasASIMD {
		kernels = append(kernels, labelKernel{"neon", []mixer{
			one, {lanes: 3, mix: asBlocks(romix3NEON)}, {lanes: 6, mix: asBlocks(romix6NEON)}, {lanes: 12, mix: asBlocks(romix12NEON)},
		}})
	}
	return kernels
}

// asBlocks is mixer.mix by one of the romix functions.
func asBlocks(romix func(x, v *block, n int)) func(x, v []block) {
	return func(x, v []block) { romix(&x[0], &v[0], len(v)/len(x)) }
}

// eagerNEON encrypts n times 16 labels with the cipher of a nonce group. It is written and
// described by proofs/gen.
//
//go:noescape
func eagerNEON(labels *byte, keys *[11][2][16]byte, found, numbers *uint64, n int)

// scanKernels returns the kernels for scanning that this processor can run, simplest
// first.
func scanKernels() []scanKernel {
	kernels := []scanKernel{portableScan}
	if cpu.ARM64.HasAES {
		kernels = append(kernels, scanKernel{"aes", batched(eagerNEON, 4, 16)})
	}
	return kernels
}
