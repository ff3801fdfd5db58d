package post

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkLabel is the cost of initialising at mainnet's N, on one core.
func BenchmarkLabel(b *testing.B) {
	l := NewLabeler(8192)
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		l.Label([32]byte{}, i)
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "labels/s")
}

// BenchmarkScan is one worker's part of proving, for the nonces of one pass.
func BenchmarkScan(b *testing.B) {
	labels := make([]byte, blockLabels*LabelSize)
	random := rand.NewChaCha8([32]byte{})
	random.Read(labels)
	for _, nonces := range []uint32{16, 64, 128, 288} {
		b.Run(fmt.Sprintf("%d nonces", nonces), func(b *testing.B) {
			var groups []*nonceGroup
			for n := uint32(0); n < nonces; n += nonceGroupSize {
				groups = append(groups, newNonceGroup(&[32]byte{}, n, 0))
			}
			d := newDifficulty(26, 4<<32)
			var hits []hit
			b.SetBytes(int64(len(labels)))
			for b.Loop() {
				for _, g := range groups {
					hits = inUse().scan.scan(hits[:0], labels, 0, g, d)
				}
			}
			scanned := float64(b.N) * float64(len(labels)) / (1 << 30) / b.Elapsed().Seconds()
			b.ReportMetric(scanned, "GiB/s")
			b.ReportMetric(scanned*float64(nonces/nonceGroupSize), "GiB*group/s")
		})
	}
}

// BenchmarkVerify checks a proof of the local network, all of its labels.
func BenchmarkVerify(b *testing.B) {
	p := LocalParams()
	_, proof, m := proveInTemp(b, p, [32]byte{1})
	for b.Loop() {
		if err := Verify(proof, m, p, All()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkProve is a pass over files, by all that Prove does but the last
// look at the proof's labels.
func BenchmarkProve(b *testing.B) {
	const labels = 1 << 20
	for _, nonces := range []uint32{16, 128} {
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("%d nonces, %d workers", nonces, workers), func(b *testing.B) {
				s, _ := searchRandom(b, labels, labels/4, nonces)
				s.opts.Workers = workers
				for b.Loop() {
					if _, found, err := s.pass(); found || err != nil {
						b.Fatal(found, err)
					}
				}
				b.ReportMetric(float64(b.N)*labels*LabelSize/(1<<30)/b.Elapsed().Seconds(), "GiB/s")
			})
		}
	}
}
