//go:build linux

package bench

import (
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tweedle/proofs/posw"
)

// threadTime returns the CPU time of the calling thread.
func threadTime() time.Duration {
	const rusageThread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(rusageThread, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

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
		start := threadTime()
		kept = p.Advance(leaves, kept)
		return float64(threadTime()-start) / leaves
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
