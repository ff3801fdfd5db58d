//go:build linux

package bench

import (
	"bytes"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tweedle/proofs/posw"
)

// BenchmarkAdvanceDisturbed alternates between a quiet process and one that collects
// garbage without pause, reads all runtime metrics and serves a busy counter, as a
// PoET under load would. It reports the prover thread's CPU time per leaf in both,
// and their ratio: 1 is undisturbed.
func BenchmarkAdvanceDisturbed(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := posw.NewProver(make([]byte, 32), 14)
	kept := make([]byte, 0, 1<<20)
	measure := func() float64 {
		const leaves = 2048
		start := ThreadTime()
		kept = p.Advance(leaves, kept)
		return float64(ThreadTime()-start) / leaves
	}
	var quiet, disturbed []float64
	collections := uint32(0)
	for b.Loop() {
		quiet = append(quiet, measure())
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		stop := disturb()
		disturbed = append(disturbed, measure())
		stop()
		runtime.ReadMemStats(&after)
		collections += after.NumGC - before.NumGC
	}
	slices.Sort(quiet)
	slices.Sort(disturbed)
	q, d := quiet[len(quiet)/2], disturbed[len(disturbed)/2]
	b.ReportMetric(q, "quiet-ns/leaf")
	b.ReportMetric(d, "disturbed-ns/leaf")
	b.ReportMetric(d/q, "disturbed/quiet")
	b.ReportMetric(float64(collections)/float64(b.N), "GCs/op")
}

// disturb starts what disturbs, and returns what ends it.
func disturb() (stop func()) {
	var done atomic.Bool
	var wait sync.WaitGroup
	var counter atomic.Uint64
	wait.Go(func() { // garbage, with pointers to follow
		var live []*[64]*int
		for !done.Load() {
			live = append(live, new([64]*int))
			if len(live) > 10_000 {
				live = nil
				runtime.GC()
			}
		}
	})
	wait.Go(func() { // metrics
		samples := make([]metrics.Sample, 0, 100)
		for _, d := range metrics.All() {
			samples = append(samples, metrics.Sample{Name: d.Name})
		}
		for !done.Load() {
			metrics.Read(samples)
			counter.Add(1)
			time.Sleep(time.Millisecond)
		}
	})
	return func() { done.Store(true); wait.Wait() }
}

// BenchmarkAdvancePreempted runs every kernel, and the verifier on it, beside goroutines
// that spin, and reports for the one in use how far the mean of short slices is above
// the minimum. A kernel that a preemption leaves behind dirty upper halves of registers
// is up to 125 times slower on Intel, for all slices until something cleans them.
func BenchmarkAdvancePreempted(b *testing.B) {
	statement := make([]byte, 32)
	p := posw.NewProver(statement, 10)
	kept := p.Advance(2000, nil)
	proof, err := p.Prove(bytes.NewReader(kept), 1, nil)
	if err != nil {
		b.Fatal(err)
	}
	stop := Spin()
	defer stop()
	for b.Loop() {
		figures, err := Kernels(b.Context(), 5*time.Second, statement, &proof)
		if err != nil {
			b.Fatal(err)
		}
		b.Log("\n" + Table(figures))
		for _, f := range figures {
			if f.InUse {
				b.ReportMetric(f.PerHash.Mean/f.PerHash.Min, "mean/min")
				b.ReportMetric(f.PerHash.Max/f.PerHash.Min, "max/min")
				b.ReportMetric(f.Verify.Mean/f.Verify.Min, "verify-mean/min")
			}
		}
	}
}
