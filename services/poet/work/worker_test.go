package work

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/journal"
	"tweedle/values/types"
)

// source is a RoundSource whose proofs end in memory. fail, if not nil, may refuse
// a proof.
type source struct {
	jobs chan Job
	mu   sync.Mutex
	all  map[uint32]Job
	done map[uint32]Result
	fail func(Result) error
}

func newSource(jobs ...Job) *source {
	s := &source{jobs: make(chan Job, 100), all: map[uint32]Job{}, done: map[uint32]Result{}}
	for _, j := range jobs {
		s.all[j.Round] = j
		s.jobs <- j
	}
	return s
}

func (s *source) Next(ctx context.Context) (Job, error) {
	select {
	case j := <-s.jobs:
		return j, nil
	case <-ctx.Done():
		return Job{}, ctx.Err()
	}
}

func (s *source) Finish(_ context.Context, r Result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(r); err != nil {
			return err
		}
	}
	if err := posw.Verify(s.all[r.Round].statement(), &r.Proof, 1); err != nil {
		return fmt.Errorf("%w: %w", poet.ErrBadProof, err)
	}
	s.done[r.Round] = r
	return nil
}

func (s *source) Stored(_ context.Context, round uint32) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.done[round]
	return ok, nil
}

func (s *source) waitFor(rounds int) {
	for {
		s.mu.Lock()
		n := len(s.done)
		s.mu.Unlock()
		if n >= rounds {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func job(round uint32, from, until time.Duration) Job {
	return Job{Round: round, Statement: [32]byte{byte(round)}, Members: 1, Start: time.Now().Add(from), End: time.Now().Add(until)}
}

// labour runs a worker until stop is called, which returns the file system.
func labour(t *testing.T, cfg Config, src *source) (w *Worker, events func(poet.EventKind) int, stop func()) {
	t.Helper()
	var mu sync.Mutex
	var seen []poet.Event
	cfg.Emit = func(e poet.Event) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, e)
		t.Log(e.Kind, e.Round, e.Text, e.Err)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx, src) }()
	events = func(kind poet.EventKind) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range seen {
			if e.Kind == kind {
				n++
			}
		}
		return n
	}
	return w, events, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func workerConfig(t *testing.T) Config {
	return Config{Dir: t.TempDir(), FS: durable.OS{}, LeavesPerSecond: 1000, MaxLeavesPerSecond: 1000, K: 3, CheckpointInterval: 100 * time.Millisecond}
}

// Rounds that overlap share the provers in their order: with one, the oldest runs
// at full speed until its end, and the next gets what is left of its own time.
func TestRoundsThatOverlap(t *testing.T) {
	for provers, want := range map[int][2]uint64{1: {2000, 1000}, 2: {2000, 3000}} {
		synctest.Test(t, func(t *testing.T) {
			cfg := workerConfig(t)
			cfg.Provers = provers
			src := newSource(job(1, 0, 2*time.Second), job(2, 0, 3*time.Second))
			_, _, stop := labour(t, cfg, src)
			src.waitFor(2)
			stop()
			for i, leaves := range want {
				got := src.done[uint32(i+1)].Proof.NumLeaves
				if got < leaves*95/100 || got > leaves*105/100 {
					t.Errorf("%d provers: round %d has %d leaves, about %d are expected", provers, i+1, got, leaves)
				}
			}
		})
	}
}

// Several rounds, late ones too, are recovered at once after a loss of power.
func TestSeveralRoundsAreRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := workerConfig(t)
		cfg.Provers = 3
		mem := durabletest.NewMem(1 << 24)
		cfg.FS = mem
		jobs := []Job{job(1, 0, 2*time.Second), job(2, 0, 10*time.Second), job(3, 0, 20*time.Second)}
		_, _, stop := labour(t, cfg, newSource(jobs...))
		time.Sleep(1500 * time.Millisecond)
		cfg.FS = mem.Crash(7)
		stop()
		time.Sleep(time.Second) // round 1 is over
		src := newSource(jobs...)
		w, events, stop := labour(t, cfg, src)
		time.Sleep(500 * time.Millisecond)
		if got := len(w.Rounds()); got != 2 {
			t.Errorf("%d rounds at work, 2 are expected", got)
		}
		src.waitFor(3)
		stop()
		if events(poet.EventResumed) != 3 {
			t.Errorf("%d rounds went on", events(poet.EventResumed))
		}
		for round, least := range map[uint32]uint64{1: 1300, 2: 8500, 3: 18500} {
			if got := src.done[round].Proof.NumLeaves; got < least {
				t.Errorf("round %d has %d leaves, at least %d are expected", round, got, least)
			}
		}
		if names, _ := cfg.FS.ReadDir(w.dir); len(names) != 0 {
			t.Errorf("left: %v", names)
		}
	})
}

// A round has at least as many leaves as a proof opens, however late it is, and
// then it is not slowed down.
func TestLateRoundHasEnoughLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := workerConfig(t)
		cfg.MaxLeavesPerSecond = 10
		src := newSource(job(1, -2*time.Hour, -time.Hour), job(2, 0, time.Second))
		_, _, stop := labour(t, cfg, src)
		src.waitFor(2)
		stop()
		for round, r := range src.done {
			if r.Proof.NumLeaves < types.MaxPoetLeaves || r.Proof.NumLeaves > 2*types.MaxPoetLeaves {
				t.Errorf("round %d has %d leaves", round, r.Proof.NumLeaves)
			}
		}
	})
}

// The pace is even: no second has many more leaves than another.
func TestPaceIsEven(t *testing.T) {
	for _, rate := range []uint64{7, 100, 3333, 40_000} {
		now := time.Unix(0, 0)
		pace := pacer{perSecond: rate, from: now}
		var total uint64
		for now.Before(time.Unix(20, 0)) {
			n, wait := pace.next(maxSlice, now)
			total += n
			if n == 0 {
				if wait <= 0 {
					t.Fatal("a wait of nothing is a busy loop")
				}
				now = now.Add(wait)
			}
			due := now.Sub(time.Unix(0, 0)).Seconds() * float64(rate)
			if float64(total) > due+1 || float64(total) < due-float64(rate)*0.02-maxSlice {
				t.Fatalf("rate %d: %d leaves at %s, %.0f are due", rate, total, now, due)
			}
		}
		// After a pause it makes up for burstTime at most.
		now = now.Add(time.Hour)
		before := total
		for {
			n, _ := pace.next(maxSlice, now)
			if total += n; n == 0 {
				break
			}
		}
		if most := expected(rate, burstTime) + 2; total-before > most {
			t.Fatalf("rate %d: burst of %d leaves, %d are allowed", rate, total-before, most)
		}
	}
}

// A kept node that is damaged in memory is found, and the proof is made from the
// file; if the file has it too, from a few nodes earlier.
func TestDamagedMemoryIsRepaired(t *testing.T) {
	for _, inFile := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			cfg := workerConfig(t)
			cfg.FS = durabletest.NewMem(1 << 24)
			src := newSource()
			w, events, stop := labour(t, cfg, src)
			j := job(1, 0, time.Second)
			src.all[1] = j
			good := posw.NewProver(j.statement(), 3)
			kept := good.Advance(1000, nil)
			bad := append([]byte(nil), kept...)
			bad[len(bad)/2] ^= 4

			header := j.header(3)
			onDisk := journal.Create(w.fs, journal.Path(w.dir, 1), header)
			if inFile {
				onDisk.Append(bad, nil)
			} else {
				onDisk.Append(kept, nil)
			}
			if err := onDisk.Sync(); err != nil {
				t.Fatal(err)
			}
			r := &run{job: j, k: 3, journal: journal.Create(w.fs, journal.Path(w.dir, 1), header)}
			r.journal.Append(bad, nil)
			w.finish(t.Context(), src, r, good)
			stop()
			if events(poet.EventDamage) == 0 {
				t.Error("damage was not told")
			}
			// The last nodes are cut off where the file is of no help.
			if got := src.done[1].Proof.NumLeaves; got > 1000 || !inFile && got != 1000 || got < 150 {
				t.Errorf("proof of %d leaves", got)
			}
		})
	}
}

// A source that refuses is asked again until it takes the proof; the round's data
// stay until then.
func TestProofWaitsForItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := workerConfig(t)
		cfg.FS = durabletest.NewMem(1 << 24)
		src := newSource(job(1, 0, time.Second))
		tries := 0
		src.fail = func(Result) error {
			if tries++; tries < 100 {
				return errors.New("not now")
			}
			return nil
		}
		w, events, stop := labour(t, cfg, src)
		time.Sleep(30 * time.Second)
		if names, _ := cfg.FS.ReadDir(w.dir); len(names) != 1 || len(w.Rounds()) != 1 || w.Rounds()[0].State != poet.StateProving {
			t.Errorf("%v, %+v while the proof waits", names, w.Rounds())
		}
		src.waitFor(1)
		stop()
		if events(poet.EventWriteFailed) != 1 {
			t.Errorf("%d events, one is enough", events(poet.EventWriteFailed))
		}
		if names, _ := cfg.FS.ReadDir(w.dir); len(names) != 0 {
			t.Errorf("left: %v", names)
		}
	})
}

// The height of the kept nodes and the need of room follow from the length of a
// round (reference/poet.md 2.4: 0.3 GB at height 14 for a mainnet round).
func TestNeeds(t *testing.T) {
	mainnet := 324 * time.Hour
	if k := chooseK(0, 67_000, mainnet); k != DefaultK {
		t.Errorf("height %d for a round of mainnet", k)
	}
	if need := journalNeed(67_000, mainnet, DefaultK); need > 300<<20 || need < 100<<20 {
		t.Errorf("journal of mainnet needs %d bytes", need)
	}
	if k := chooseK(0, 5_000, 12*time.Second); k == 0 || k > 5 {
		t.Errorf("height %d for a round of a local network", k)
	}
	if k := chooseK(20, 67_000, time.Second); k != 20 {
		t.Errorf("configured height became %d", k)
	}
	for _, d := range []time.Duration{-time.Hour, 0} {
		if k := chooseK(0, 67_000, d); k != 0 {
			t.Errorf("height %d for no time", k)
		}
	}
}
