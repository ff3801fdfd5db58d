package work

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/base/clock"
	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/journal"
	"tweedle/values/types"
)

// source is a Source whose proofs end in memory. fail, if not nil, may refuse
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

// Rounds that overlap are executed in their order: the oldest at full speed until its
// end, and the next gets what is left of its own time.
func TestRoundsThatOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(job(1, 0, 2*time.Second), job(2, 0, 3*time.Second))
		_, _, stop := labour(t, workerConfig(t), src)
		src.waitFor(2)
		stop()
		for i, leaves := range []uint64{2000, 1000} {
			got := src.done[uint32(i+1)].Proof.NumLeaves
			if got < leaves*95/100 || got > leaves*105/100 {
				t.Errorf("round %d has %d leaves, about %d are expected", i+1, got, leaves)
			}
		}
	})
}

// A proof that cannot be handed over does not hold up the rounds after it.
func TestFinishingRunsBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newSource(job(1, 0, time.Second), job(2, time.Second, 2*time.Second))
		src.fail = func(r Result) error {
			if r.Round == 1 && len(src.done) == 0 {
				return errors.New("not before the second")
			}
			return nil
		}
		_, _, stop := labour(t, workerConfig(t), src)
		src.waitFor(2)
		stop()
		if got := src.done[2].Proof.NumLeaves; got < 950 {
			t.Errorf("the second round has %d leaves", got)
		}
	})
}

// Several rounds, a late one too, are recovered in their order after each loss of
// power.
func TestSeveralRoundsAreRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := workerConfig(t)
		mem := durabletest.NewMem(1 << 24)
		cfg.FS = mem
		jobs := []Job{job(1, 0, 2*time.Second), job(2, 0, 10*time.Second), job(3, 0, 20*time.Second)}
		resumed := 0
		for _, at := range []time.Duration{1500 * time.Millisecond, 4 * time.Second, 12 * time.Second} {
			src := newSource(jobs...)
			src.fail = func(Result) error { return errors.New("not yet") }
			_, events, stop := labour(t, cfg, src)
			time.Sleep(at - time.Since(jobs[0].Start))
			mem = mem.Crash(uint64(at))
			stop()
			resumed += events(poet.EventResumed)
			cfg.FS = mem
			time.Sleep(time.Second)
		}
		src := newSource(jobs...)
		w, events, stop := labour(t, cfg, src)
		src.waitFor(3)
		stop()
		if resumed += events(poet.EventResumed); resumed < 5 {
			t.Errorf("rounds went on %d times", resumed)
		}
		for round, least := range map[uint32]uint64{1: 1300, 2: 5500, 3: 7500} {
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
	if need := nodes(67_000, mainnet, DefaultK) * journal.RecordSize; need > 300<<20 || need < 100<<20 {
		t.Errorf("journal of mainnet needs %d bytes", need)
	}
	if k := chooseK(0, 5_000, 12*time.Second); k == 0 || k > 5 {
		t.Errorf("height %d for a round of a local network", k)
	}
	// A stop costs a second's leaves at most on a slow machine too.
	if k := chooseK(0, 1000, mainnet); k != 9 {
		t.Errorf("height %d at a thousand leaves a second", k)
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

// One wrong reading of the clock, beyond the round's end, ends no execution; one before
// its beginning changes nothing. A clock that stays wrong is followed.
func TestOneGlanceBeyondTheEndEndsNothing(t *testing.T) {
	for name, by := range map[string]time.Duration{"an epoch ahead": time.Hour, "two hundred years ahead": 200 * 365 * 24 * time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var wrong atomic.Int64
				cfg := workerConfig(t)
				cfg.Now = clock.New(time.Minute, func() time.Time { return time.Now().Add(time.Duration(wrong.Load())).Round(0) }, nil).Now
				src := newSource(job(1, 0, 20*time.Second), job(2, 20*time.Second, time.Minute))
				_, _, stop := labour(t, cfg, src)
				for range 3 {
					time.Sleep(3 * time.Second)
					wrong.Store(int64(by))
					time.Sleep(100 * time.Millisecond)
					wrong.Store(0)
				}
				src.waitFor(1)
				if got := src.done[1].Proof.NumLeaves; got < 19_500 {
					t.Errorf("proof of %d leaves, about 20000 are expected", got)
				}
				if by > 0 {
					wrong.Store(int64(by))
					begin := time.Now()
					src.waitFor(2)
					if took := time.Since(begin); took < 5*time.Second || took > 8*time.Second {
						t.Errorf("a clock that stays ahead was followed after %s", took)
					}
				}
				stop()
			})
		})
	}
}
