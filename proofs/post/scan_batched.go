//go:build amd64 || arm64

package post

import "math/bits"

// lazyAES encrypts n times four labels with the ciphers of nonces. It is written and
// described by proofs/gen.
//
//go:noescape
func lazyAES(labels *byte, keys *[16][11][16]byte, at *uint32, texts *uint64, n int)

const (
	// lazyStep is how many labels a step of the lazy kernel takes.
	lazyStep = 4
	// eagerMost is how many labels are looked at by the one before the other.
	eagerMost = 1024
	// lazyMost is how many labels wait for their lazy ciphers at most. On average there
	// are 64 of eagerMost.
	lazyMost = 256
)

// batched is scanKernel.scan by an eager kernel that takes each labels in a register
// and step of them at once.
func batched(eager func(labels *byte, keys *[11][2][16]byte, found, numbers *uint64, n int), each, step int) func([]hit, []byte, uint64, *nonceGroup, difficulty) []hit {
	return func(hits []hit, labels []byte, first uint64, g *nonceGroup, d difficulty) []hit {
		if d.msb != 0 { // so few labels that it matters nothing
			return scanPortable(hits, labels, first, g, d)
		}
		// One more than there can be: it is overwritten.
		var found [1 + eagerMost + 1]uint64 // how many, and of each the bytes
		var numbers [eagerMost + 1]uint64
		var wait waiting
		for len(labels) >= step*LabelSize {
			n := min(len(labels)/LabelSize, eagerMost) / step
			eager(&labels[0], &g.eagerKeys, &found[0], &numbers[0], n)
			for i, mask := range found[1 : 1+found[0]] {
				at := uint32(numbers[i]) * uint32(each*LabelSize)
				for ; mask != 0; mask &= mask - 1 {
					// The bits are those of one label after another.
					wait.at[wait.n] = at + uint32(bits.TrailingZeros64(mask))
					if wait.n++; wait.n == lazyMost {
						hits = wait.test(hits, labels, first, g, d)
					}
				}
			}
			hits = wait.test(hits, labels, first, g, d)
			labels, first = labels[n*step*LabelSize:], first+uint64(n*step)
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
