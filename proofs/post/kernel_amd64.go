package post

import "tweedle/proofs/processor"

// The romix functions mix so many states as their names say, with cost n. x holds for
// each pair of labels eight rows of four words of the one and four of the other, v the
// scratch. They are written by proofs/gen.
//
//go:noescape
func romix2AVX2(x, v *block, n int)

//go:noescape
func romix6AVX2(x, v *block, n int)

//go:noescape
func romix12AVX2(x, v *block, n int)

// labelKernels returns the kernels for labels that this processor can run, simplest
// first.
func labelKernels() []labelKernel {
	kernels := []labelKernel{portableLabels}
	if processor.Detect().AVX2 {
		kernels = append(kernels, labelKernel{"avx2", []mixer{
			{lanes: 2, mix: inPairs(romix2AVX2)}, {lanes: 6, mix: inPairs(romix6AVX2)}, {lanes: 12, mix: inPairs(romix12AVX2)},
		}})
	}
	return kernels
}

// inPairs is mixer.mix by one of the romix functions.
func inPairs(romix func(x, v *block, n int)) func(x, v []block) {
	return func(x, v []block) {
		for i := 0; i < len(x); i += 2 {
			interleave((*[2]block)(x[i:]))
		}
		romix(&x[0], &v[0], len(v)/len(x))
		for i := 0; i < len(x); i += 2 {
			separate((*[2]block)(x[i:]))
		}
	}
}

// interleave puts the rows of two states side by side, separate takes them apart.
func interleave(p *[2]block) {
	q := *p
	for w := range 32 {
		for half := range 2 {
			at := w/4*8 + half*4 + w%4
			p[at/32][at%32] = q[half][w]
		}
	}
}

func separate(p *[2]block) {
	q := *p
	for w := range 32 {
		for half := range 2 {
			at := w/4*8 + half*4 + w%4
			p[half][w] = q[at/32][at%32]
		}
	}
}
