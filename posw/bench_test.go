package posw

import (
	"bytes"
	"testing"
)

func BenchmarkAdvance(b *testing.B) {
	p := NewProver(vectorStatement(), 14)
	kept := make([]byte, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		kept = p.Advance(1, kept[:0])
	}
}

func BenchmarkVerify(b *testing.B) {
	p := prove(b, vectorStatement(), 10, 100_000, 2)
	for b.Loop() {
		if err := Verify(vectorStatement(), p, 100_000, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChain(b *testing.B) {
	for _, k := range append(accelerated(), portable) {
		b.Run(k.name, func(b *testing.B) {
			var d node
			for b.Loop() {
				k.chain(&d, LeafHashes)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/LeafHashes, "ns/hash")
		})
	}
}

func BenchmarkChains(b *testing.B) {
	for _, k := range append(accelerated(), portable) {
		b.Run(k.name, func(b *testing.B) {
			var d [lanes]node
			for b.Loop() {
				k.chains(&d, LeafHashes)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/LeafHashes/lanes, "ns/hash")
		})
	}
}

func BenchmarkProve(b *testing.B) {
	p := NewProver(vectorStatement(), 6)
	kept := p.Advance(1<<15, nil)
	for b.Loop() {
		if _, err := p.Prove(bytes.NewReader(kept), 1, nil); err != nil {
			b.Fatal(err)
		}
	}
}
