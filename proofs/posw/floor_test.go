package posw

import "testing"

// Sequential is compared with a count of the calls that a tree makes to its kernel.
func TestSequentialCountsWhatTheProverComputes(t *testing.T) {
	for _, size := range []int{0, 24, 32, 33, 64, 100} {
		var blocks uint64
		counting := serial{
			name:   "counting",
			blocks: func(_ *node, _ *byte, n int) { blocks += uint64(n) },
			chain:  func(_ *node, n int) { blocks += uint64(n) },
		}
		const first, end = 77, 1100
		p := NewProver(make([]byte, size), 5)
		p.hash = newHasher(newKernel(counting), make([]byte, size))
		p.Advance(first, nil)
		blocks = 0
		p.Advance(end-first, nil)
		halves := uint64(end-first) * uint64((size+NodeSize)/blockSize)
		if got, want := Sequential(size, first, end), blocks-halves; got != want {
			t.Errorf("statement of %d bytes: %d, the prover computes %d and %d halves", size, got, want, halves)
		}
	}
}

func BenchmarkFloorOfOneLeaf(b *testing.B) {
	if !Floor(0) {
		b.Skip("NOT MEASURED: no floor is written for this processor")
	}
	for b.Loop() {
		Floor(406)
	}
}
