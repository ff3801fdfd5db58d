package post

import (
	"math/bits"

	"tweedle/proofs/processor"
)

// These encrypt n times 16 labels with the cipher of a nonce group, and n times four
// labels with those of nonces. They are written and described by proofs/gen.
//
//go:noescape
func eagerAES(labels *byte, keys *[11][2][16]byte, found *uint64, n int)

//go:noescape
func eagerVAES(labels *byte, keys *[11][2][16]byte, found *uint64, n int)

//go:noescape
func lazyAES(labels *byte, keys *[16][11][16]byte, at *uint32, texts *uint64, n int)

// scanKernels returns the kernels for scanning that this processor can run, simplest
// first.
func scanKernels() []scanKernel {
	kernels := []scanKernel{portableScan}
	has := processor.Detect()
	if has.AES {
		kernels = append(kernels, scanKernel{"aes", batched(eagerAES, 1)})
	}
	if has.VAES {
		kernels = append(kernels, scanKernel{"vaes", batched(eagerVAES, 2)})
	}
	return kernels
}

const (
	// eagerStep and lazyStep are how many labels a step of the kernels takes.
	eagerStep, lazyStep = 16, 4
	// eagerMost is how many labels are looked at by the one before the other.
	eagerMost = 1024
	// lazyMost is how many labels wait for their lazy ciphers at most. On average there
	// are 64 of eagerMost.
	lazyMost = 256
)

// batched is scanKernel.scan by an eager kernel that takes so many labels in a register.
func batched(eager func(labels *byte, keys *[11][2][16]byte, found *uint64, n int), each int) func([]hit, []byte, uint64, *nonceGroup, difficulty) []hit {
	return func(hits []hit, labels []byte, first uint64, g *nonceGroup, d difficulty) []hit {
		if d.msb != 0 { // so few labels that it matters nothing
			return scanPortable(hits, labels, first, g, d)
		}
		var found [eagerMost + 2]uint64 // the number of entries, them, and one that is overwritten
		var wait waiting
		for len(labels) >= eagerStep*LabelSize {
			n := min(len(labels)/LabelSize, eagerMost) / eagerStep
			eager(&labels[0], &g.eagerKeys, &found[0], n)
			for _, entry := range found[1 : 1+found[0]] {
				at := uint32(entry>>32) * uint32(each*LabelSize)
				for mask := uint32(entry); mask != 0; mask &= mask - 1 {
					// The bits are those of one label after another.
					wait.at[wait.n] = at + uint32(bits.TrailingZeros32(mask))
					if wait.n++; wait.n == lazyMost {
						hits = wait.test(hits, labels, first, g, d)
					}
				}
			}
			hits = wait.test(hits, labels, first, g, d)
			labels, first = labels[n*eagerStep*LabelSize:], first+uint64(n*eagerStep)
		}
		return scanPortable(hits, labels, first, g, d)
	}
}

// waiting is what lazy ciphers decide on, each by where the label begins plus the place
// of the nonce in its group.
type waiting struct {
	n     int
	at    [lazyMost]uint32
	texts [lazyMost]uint64
}

// test appends what passes, and leaves nothing waiting.
func (w *waiting) test(hits []hit, labels []byte, first uint64, g *nonceGroup, d difficulty) []hit {
	if w.n == 0 {
		return hits
	}
	steps := (w.n + lazyStep - 1) / lazyStep
	for i := w.n; i < steps*lazyStep; i++ {
		w.at[i] = 0 // any label
	}
	lazyAES(&labels[0], &g.lazyKeys, &w.at[0], &w.texts[0], steps)
	for i, text := range w.texts[:w.n] {
		if text&lsbMask < d.lsb {
			at := w.at[i]
			hits = append(hits, hit{nonce: g.first + at%nonceGroupSize, index: first + uint64(at/LabelSize)})
		}
	}
	w.n = 0
	return hits
}
