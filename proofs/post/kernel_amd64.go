package post

import "tweedle/proofs/processor"

// The romix functions mix so many states as their names say, with cost n. x holds for
// each two labels, four with AVX-512, eight rows of four words of each, v the scratch.
// They are written by proofs/gen.
//
//go:noescape
func romix2AVX2(x, v *block, n int)

//go:noescape
func romix6AVX2(x, v *block, n int)

//go:noescape
func romix12AVX2(x, v *block, n int)

//go:noescape
func romix4AVX512(x, v *block, n int)

//go:noescape
func romix16AVX512(x, v *block, n int)

//go:noescape
func romix40AVX512(x, v *block, n int)

// labelKernels returns the kernels for labels that this processor can run, simplest
// first.
func labelKernels() []labelKernel {
	kernels := []labelKernel{portableLabels}
	has := processor.Detect()
	if has.AVX2 {
		kernels = append(kernels, labelKernel{"avx2", []mixer{
			one, {lanes: 2, mix: inRows(2, romix2AVX2)}, {lanes: 6, mix: inRows(2, romix6AVX2)}, {lanes: 12, mix: inRows(2, romix12AVX2)},
		}})
	}
	if has.AVX512 {
		kernels = append(kernels, labelKernel{"avx512", []mixer{
			one, {lanes: 4, mix: inRows(4, romix4AVX512)}, {lanes: 16, mix: inRows(4, romix16AVX512)}, {lanes: 40, mix: inRows(4, romix40AVX512)},
		}})
	}
	return kernels
}

// inRows is mixer.mix by one of the romix functions, whose registers hold rows of wide
// labels side by side.
func inRows(wide int, romix func(x, v *block, n int)) func(x, v []block) {
	return func(x, v []block) {
		for i := 0; i < len(x); i += wide {
			turn(x[i:i+wide], true)
		}
		romix(&x[0], &v[0], len(v)/len(x))
		for i := 0; i < len(x); i += wide {
			turn(x[i:i+wide], false)
		}
	}
}

// turn makes rows of the states that lie side by side in registers, four at most, or
// states of their rows.
func turn(side []block, toRows bool) {
	var was [4]block
	copy(was[:], side)
	for l := range side {
		for w := range len(block{}) {
			at := 4*(len(side)*(w/4)+l) + w%4
			if toRows {
				side[at/32][at%32] = was[l][w]
			} else {
				side[l][w] = was[at/32][at%32]
			}
		}
	}
}
