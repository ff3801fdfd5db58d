package sim

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// play runs a network and fails with every invariant that it breaks.
func play(t *testing.T, o Options) Result {
	t.Helper()
	if os.Getenv("TWEEDLE_SIM_LOG") != "" {
		o.Transcript = os.Stderr
	}
	r := Run(o)
	for _, v := range r.Violations {
		t.Errorf("seed %d: %s", o.Seed, v)
	}
	if t.Failed() {
		t.Logf("go run ./sim/cmd --seed %d # %v", o.Seed, r)
	}
	return r
}

// calm is weather without faults.
func calm() *Faults { return &Faults{Latency: 20 * time.Millisecond} }

func TestAnHonestNetworkFillsItsLayers(t *testing.T) {
	r := play(t, Options{Seed: 3, Nodes: 8, Epochs: 6, Hostile: []string{}, Strangers: []string{}, Faults: calm()})
	// With so few smeshers some layers have no slot.
	if r.Empty > r.Layers/10 {
		t.Errorf("%d of %d layers are empty: %v", r.Empty, r.Layers, r)
	}
}

func TestTheSameSeedIsTheSameRun(t *testing.T) {
	for _, real := range []bool{false, true} {
		o := Options{Seed: 77, Nodes: 8, Epochs: 3, RealKeys: real}
		if a, b := play(t, o), play(t, o); a.Digest != b.Digest || a.Steps != b.Steps {
			t.Errorf("real keys %v: %v\nand then %v", real, a, b)
		}
	}
	if a, b := play(t, Options{Seed: 1}), play(t, Options{Seed: 3}); a.Digest == b.Digest {
		t.Error("two seeds have one digest")
	}
}

// Each strategy alone, in calm weather: what it costs the network is bounded.
func TestEachLieOfASmesherAlone(t *testing.T) {
	for _, name := range strategyNames().smeshers {
		t.Run(name, func(t *testing.T) {
			r := play(t, Options{Seed: 5, Nodes: 10, Epochs: 5, Hostile: []string{name, name}, Strangers: []string{}, Faults: calm()})
			if r.Empty > r.Layers/5 {
				t.Errorf("%d of %d layers are empty", r.Empty, r.Layers)
			}
		})
	}
}

func TestEachLieOfAStrangerAlone(t *testing.T) {
	for _, name := range strategyNames().strangers {
		t.Run(name, func(t *testing.T) {
			r := play(t, Options{Seed: 6, Nodes: 8, Epochs: 4, Hostile: []string{}, Strangers: []string{name, name, name, name, name, name}, Faults: calm()})
			if r.Empty > r.Layers/10 {
				t.Errorf("%d of %d layers are empty", r.Empty, r.Layers)
			}
		})
	}
}

func TestRealKeysPlayTheSameProtocol(t *testing.T) {
	for seed := range uint64(3) {
		play(t, Options{Seed: 1000 + seed, Nodes: 7, Epochs: 3, RealKeys: true})
	}
}

// A network whose genesis is long ago makes blocks, and takes up nodes that
// join together, each knowing of the other, among liars.
func TestAnOldNetworkTakesUpTwoFreshNodesAtOnce(t *testing.T) {
	for _, age := range []int{0, 250, 5000} {
		for _, strangers := range [][]string{{}, {"lying-peer", "empty-peer", "stale-certificates", "made-up-ids"}} {
			r := play(t, Options{Seed: 9, Nodes: 8, Epochs: 4, Age: age, Late: 2, Hostile: []string{}, Strangers: strangers, Faults: calm()})
			if r.Empty > r.Layers/5 {
				t.Errorf("age %d, %v: %d of %d layers are empty", age, strangers, r.Empty, r.Layers)
			}
		}
	}
}

// nightly is the number of a short campaign, or of a long one.
func nightly(short, long int) int {
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		return long
	}
	return short
}

// campaign are the options of a seed: 20 nodes for 10 epochs, but of every fourth
// seed other networks.
func campaign(seed uint64) Options {
	if seed%4 == 0 {
		return Options{Seed: seed}
	}
	return Options{Seed: seed, Nodes: 20, Epochs: 10, BeaconRounds: 2 + int(seed/4%3)}
}

// Seeds draw everything: weather, adversaries, clients. A run is one goroutine;
// so many of them run side by side as there are processors. One in twenty is
// played twice: the digests are the same.
func TestSeeds(t *testing.T) {
	const twice = 20
	seeds := nightly(300, 1_250)
	part, _ := strconv.Atoi(os.Getenv("TWEEDLE_SIM_PART")) // of the nightly campaign, from 1 on
	first := uint64(max(part-1, 0) * seeds)
	if n, err := strconv.Atoi(os.Getenv("TWEEDLE_SIM_SEEDS")); err == nil {
		seeds = n
	}
	if testing.Short() {
		seeds = 10
	}
	start, cpu := time.Now(), processor()
	var virtual, again, shrunk, undone atomic.Int64
	sideBySide(seeds, func(i int) {
		seed := first + uint64(i) + 1
		o := campaign(seed)
		r := Run(o)
		virtual.Add(int64(r.Virtual))
		undone.Add(int64(r.Undone))
		if seed%twice == 0 {
			again.Add(1)
			if b := Run(o); b.Digest != r.Digest {
				t.Errorf("two runs of seed %d have digests %s and %s", seed, r.Digest.Short(), b.Digest.Short())
			}
		}
		for _, v := range r.Violations {
			t.Errorf("seed %d: %s (%s)", seed, v, o.Command())
		}
		if len(r.Violations) > 0 && shrunk.Add(1) <= 3 {
			least, runs := Shrink(o, 60, func(o Options) bool { return len(Run(o).Violations) > 0 })
			t.Errorf("after %d runs the least of seed %d that fails is\n%s\n%s", runs, seed, least.Command(), least.Test())
		}
	})
	t.Logf("%d seeds from %d on, %d of them twice, %.1f virtual hours, %d layers taken back, %.1f s, %.1f s of processor", seeds, first+1, again.Load(),
		time.Duration(virtual.Load()).Hours(), undone.Load(), time.Since(start).Seconds(), (processor() - cpu).Seconds())
}

// sideBySide does as many runs at once as there are processors: each is one goroutine.
// The heap of a run is small, and most of it is garbage.
func sideBySide(n int, run func(i int)) {
	defer debug.SetGCPercent(debug.SetGCPercent(2000))
	var next atomic.Int64
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				run(i)
			}
		})
	}
	all.Wait()
}

// processor is the time that this process has used of all processors.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
