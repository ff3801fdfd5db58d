// Package bench measures what this machine reaches as a PoET: the prover of package
// posw against the latency floor of the processor, in one run. It promises figures of
// CPU time, so that other load on the machine disturbs them little; it leaves it to
// the caller to keep that load low, and to print.
package bench

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"tweedle/proofs/posw"
	"tweedle/values/types"
)

// Figures is the result of Run.
type Figures struct {
	Leaves      uint64  `json:"leaves"`       // computed one after another
	CPUSeconds  float64 `json:"cpu_seconds"`  // of the thread that computed them
	WallSeconds float64 `json:"wall_seconds"` // that this took
	StoredBytes uint64  `json:"stored_bytes"` // nodes kept of these leaves

	// PeakRSSBytes is the largest resident memory of the process since its start.
	PeakRSSBytes uint64 `json:"peak_rss_bytes"`

	Processor string `json:"processor"` // as posw.Processor names it
	Kernel    string `json:"kernel"`    // in use, as posw.Kernel names it

	// FloorShare is the time in which the processor's SHA-256 instructions can do
	// this work at best, divided by the time it took: 1 is the floor. Null if no
	// floor is known for this processor.
	FloorShare *float64 `json:"floor_share"`

	Keep              uint    `json:"keep"`                // height k of the kept nodes
	RecomputePerSec   float64 `json:"recompute_per_sec"`   // leaves, on all cores, when a proof is made
	VerifyMillisecond float64 `json:"verify_milliseconds"` // wall time of verifying that proof, one core

	Kernels []KernelFigures `json:"kernels"` // all that this processor can run, measured beside one another
}

// slice is how long one of the alternating measurements lasts.
const slice = 50 * time.Millisecond

// batch is the number of leaves between two looks at the clock.
const batch = 64

// Run computes leaves for about that long, on one thread, with nodes of height keep
// kept, then proves and verifies them, all of them recomputed for the proof, and
// compares the kernels for half as long; so the whole takes about twice as long. A
// cancelled context ends it with its error.
func Run(ctx context.Context, duration time.Duration, keep uint) (Figures, error) {
	if keep > posw.MaxHeight {
		return Figures{}, fmt.Errorf("height of the kept nodes is %d, use at most %d", keep, posw.MaxHeight)
	}
	name, err := posw.Kernel()
	if err != nil {
		return Figures{}, err
	}
	f := Figures{Processor: posw.Processor(), Kernel: name, Keep: keep}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	statement := make([]byte, posw.NodeSize)
	p := posw.NewProver(statement, keep)
	var kept []byte
	var shares []float64
	for f.WallSeconds < duration.Seconds() || p.Leaves() < types.MaxPoetLeaves {
		if err := ctx.Err(); err != nil {
			return Figures{}, err
		}
		first, cpu, wall := p.Leaves(), ThreadTime(), time.Now()
		for time.Since(wall) < slice {
			kept = p.Advance(batch, kept)
		}
		spent := ThreadTime() - cpu
		f.CPUSeconds += spent.Seconds()
		f.WallSeconds += time.Since(wall).Seconds()
		hashes := posw.Sequential(len(statement), first, p.Leaves())
		if floor, ok := FloorPerHash(); ok && spent > 0 {
			shares = append(shares, floor*float64(hashes)/float64(spent))
		}
	}
	f.Leaves, f.StoredBytes = p.Leaves(), uint64(len(kept))
	if len(shares) > 0 {
		slices.Sort(shares)
		f.FloorShare = &shares[len(shares)/2]
	}
	wall, subtrees := time.Now(), 0
	proof, err := p.Prove(bytes.NewReader(kept), runtime.GOMAXPROCS(0), func(_, total int) { subtrees = total })
	if err != nil {
		return Figures{}, err
	}
	recomputed := min(uint64(subtrees)<<keep, f.Leaves)
	f.RecomputePerSec = float64(recomputed) / time.Since(wall).Seconds()
	wall = time.Now()
	if err := posw.Verify(statement, &proof, 1); err != nil {
		return Figures{}, fmt.Errorf("this machine computed a wrong proof, do not use it: %w", err)
	}
	f.VerifyMillisecond = float64(time.Since(wall).Microseconds()) / 1000
	f.PeakRSSBytes = peakRSS()
	f.Kernels, err = Kernels(ctx, duration/2, statement, &proof)
	return f, err
}

// FloorPerHash measures the latency floor of one SHA-256 compression, in nanoseconds
// of CPU time of the calling thread, for some milliseconds. False if none is known for this processor.
func FloorPerHash() (float64, bool) {
	const n = 1 << 18
	cpu := ThreadTime()
	if !posw.Floor(n) {
		return 0, false
	}
	return float64(ThreadTime()-cpu) / n, true
}

// Words says what the figures mean for a round of that length.
func (f Figures) Words(round time.Duration) string {
	rate := float64(f.Leaves) / f.CPUSeconds
	leaves := rate * round.Seconds()
	opened := min(float64(types.MaxPoetLeaves)*float64(uint64(1)<<f.Keep), leaves)
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", f.Processor)
	if len(f.Kernels) > 0 {
		fmt.Fprintf(&b, "%s\n", Table(f.Kernels))
	}
	fmt.Fprintf(&b, "This machine computes %.0f leaves per second of one core with the %s kernel", rate, f.Kernel)
	if f.FloorShare != nil {
		fmt.Fprintf(&b, ", %.1f %% of what its SHA-256 instructions allow", *f.FloorShare*100)
	}
	fmt.Fprintf(&b, ".\nA round of %v makes %.3g leaves and needs %s of disk at k = %d.\n",
		round, leaves, size(leaves/float64(uint64(1)<<f.Keep)*posw.NodeSize), f.Keep)
	if f.RecomputePerSec > 0 {
		fmt.Fprintf(&b, "Its proof is ready %v after the last leaf (at most %d subtrees of %d leaves are recomputed on %d cores).\n",
			(time.Duration(opened/f.RecomputePerSec*1000) * time.Millisecond).Round(100*time.Millisecond), types.MaxPoetLeaves, uint64(1)<<f.Keep, runtime.GOMAXPROCS(0))
	}
	return b.String()
}

// size writes a number of bytes with its unit.
func size(bytes float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	for bytes >= 1000 && len(units) > 1 {
		bytes, units = bytes/1000, units[1:]
	}
	return fmt.Sprintf("%.3g %s", bytes, units[0])
}
