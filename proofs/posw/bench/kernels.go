package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tweedle/proofs/posw"
	"tweedle/values/types"
)

// Spread is how a figure was distributed over short slices. A minimum says what the
// machine can do; a mean or maximum far above it says that something keeps it from it.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Mean   float64 `json:"mean"`
	Max    float64 `json:"max"`
}

// NewSpread sums values up; there must be one at least.
func NewSpread(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	sum := 0.0
	for _, v := range sorted {
		sum += v
	}
	last := len(sorted) - 1
	return Spread{sorted[0], sorted[len(sorted)/2], sum / float64(len(sorted)), sorted[last]}
}

// KernelFigures is what one kernel reaches. Times are CPU time of the thread.
type KernelFigures struct {
	Kernel string `json:"kernel"`
	InUse  bool   `json:"in_use"`
	// PerHash is the time of one of the SHA-256 that follow one another, in nanoseconds.
	PerHash Spread `json:"ns_per_hash"`
	// FloorShare is the latency floor divided by this time, slice by slice beside one
	// another, the median: 1 is the floor. Null where no floor is known.
	FloorShare *float64 `json:"floor_share"`
	// Verify is the time of verifying a proof on one core, in microseconds.
	Verify Spread `json:"verify_us"`
}

// sliceLeaves is the length of one slice of a kernel: half a millisecond on a fast one.
const sliceLeaves = 32

// Kernels measures every kernel that this processor can run, alternating between them,
// for about that long, and the verification of the proof of a round with this statement.
// A cancelled context ends it with its error.
func Kernels(ctx context.Context, duration time.Duration, statement []byte, proof *types.PoetProof) ([]KernelFigures, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	inUse, err := posw.Kernel()
	if err != nil {
		return nil, err
	}
	engines := posw.Engines()
	perHash, verify, shares := make([][]float64, len(engines)), make([][]float64, len(engines)), make([][]float64, len(engines))
	provers := make([]*posw.Prover, len(engines))
	for i, e := range engines {
		provers[i] = e.NewProver(statement, 14)
	}
	kept := make([]byte, 0, posw.NodeSize)
	for start := time.Now(); time.Since(start) < duration || len(verify[0]) == 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for i, e := range engines {
			first, begin := provers[i].Leaves(), ThreadTime()
			kept = provers[i].Advance(sliceLeaves, kept[:0])
			middle := ThreadTime()
			hashes := posw.Sequential(len(statement), first, provers[i].Leaves())
			ours := float64(middle-begin) / float64(hashes)
			perHash[i] = append(perHash[i], ours)
			begin = ThreadTime()
			if posw.Floor(int(hashes)) {
				shares[i] = append(shares[i], float64(ThreadTime()-begin)/float64(hashes)/ours)
			}
			if len(perHash[i])%10 != 1 {
				continue
			}
			begin = ThreadTime()
			if err := e.Verify(statement, proof, 1); err != nil {
				return nil, fmt.Errorf("kernel %s computes wrong, do not use this machine: %w", e.Name(), err)
			}
			verify[i] = append(verify[i], float64(ThreadTime()-begin)/1e3)
		}
	}
	figures := make([]KernelFigures, len(engines))
	for i, e := range engines {
		f := KernelFigures{Kernel: e.Name(), InUse: e.Name() == inUse, PerHash: NewSpread(perHash[i]), Verify: NewSpread(verify[i])}
		if len(shares[i]) > 0 {
			share := NewSpread(shares[i]).Median
			f.FloorShare = &share
		}
		figures[i] = f
	}
	return figures, nil
}

// Spin keeps twice as many goroutines as there are processors busy, in loops that only
// a signal of the runtime interrupts, until stop: so everything in this process is
// preempted all the time.
func Spin() (stop func()) {
	var done atomic.Bool
	var wait sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for n := 0; !done.Load(); {
				for range 1 << 20 {
					n++
				}
			}
		})
	}
	return func() { done.Store(true); wait.Wait() }
}

// Table writes the figures of kernels for people.
func Table(figures []KernelFigures) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-20s %-10s %-34s %s\n", "kernel", "of floor", "ns per hash: min median mean max", "verify, µs: min median mean max")
	for _, f := range figures {
		share := "-"
		if f.FloorShare != nil {
			share = fmt.Sprintf("%.1f %%", *f.FloorShare*100)
		}
		name := f.Kernel
		if f.InUse {
			name += " *"
		}
		row := func(s Spread, format string) string {
			return fmt.Sprintf(strings.TrimSpace(strings.Repeat(format+" ", 4)), s.Min, s.Median, s.Mean, s.Max)
		}
		fmt.Fprintf(&b, "%-20s %-10s %-34s %s\n", name, share, row(f.PerHash, "%.1f"), row(f.Verify, "%.0f"))
	}
	b.WriteString("* is in use; --kernel or TWEEDLE_KERNEL chooses another\n")
	return b.String()
}
