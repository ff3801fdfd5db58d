package posw

import (
	"bytes"
	"math"
	"testing"
	"time"
)

func BenchmarkAdvance(b *testing.B) {
	p := NewProver(vectorStatement(), 14)
	kept := make([]byte, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		kept = p.Advance(1, kept[:0])
	}
}

// BenchmarkFloorShare compares the best of many short slices with the best of as many
// of the floor: what the prover reaches while nothing else takes the core.
func BenchmarkFloorShare(b *testing.B) {
	if !Floor(0) {
		b.Skip("NOT MEASURED: no floor is written for this processor")
	}
	p := NewProver(vectorStatement(), 14)
	kept := p.Advance(1<<16, nil)
	ours, floor := math.Inf(1), math.Inf(1)
	for b.Loop() {
		first, start := p.Leaves(), time.Now()
		kept = p.Advance(32, kept[:0])
		middle := time.Now()
		hashes := Sequential(len(vectorStatement()), first, p.Leaves())
		between := time.Now()
		Floor(int(hashes))
		ours = min(ours, float64(middle.Sub(start))/float64(hashes))
		floor = min(floor, float64(time.Since(between))/float64(hashes))
	}
	b.ReportMetric(ours, "ns/hash")
	b.ReportMetric(floor, "floor-ns/hash")
	b.ReportMetric(floor/ours, "floor-share")
}

func BenchmarkVerify(b *testing.B) {
	p := prove(b, vectorStatement(), 10, 100_000, 2)
	for b.Loop() {
		if err := Verify(vectorStatement(), &p, 1); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChain and BenchmarkBeside run each part of each kernel, the ns/hash of one
// lane being what counts.
func BenchmarkChain(b *testing.B) {
	for _, k := range runnable() {
		if len(k.beside) > 0 && k.beside[len(k.beside)-1].name != "" {
			continue // has the chain of another kernel
		}
		b.Run(k.name, func(b *testing.B) {
			var d node
			for b.Loop() {
				k.chain(&d, LeafHashes)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/LeafHashes, "ns/hash")
		})
	}
}

func BenchmarkBeside(b *testing.B) {
	for _, k := range runnable() {
		if len(k.beside) == 0 {
			continue
		}
		p := k.beside[len(k.beside)-1]
		b.Run(k.id(), func(b *testing.B) {
			var d [maxLanes]node
			for b.Loop() {
				p.chains(&d, LeafHashes)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/LeafHashes/float64(p.lanes), "ns/hash")
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
