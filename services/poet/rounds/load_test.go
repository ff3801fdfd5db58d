package rounds

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/book/booktest"
	"tweedle/services/poet/work"

	"golang.org/x/sys/unix"
)

// BenchmarkRegistrationsWhileProving measures how many registrations a server
// takes while a round executes at full speed on the same machine, and what that
// costs the round. The requests are signed beforehand; clients and network are
// left out, package server measures with them. LOAD_SECONDS sets the time.
func BenchmarkRegistrationsWhileProving(b *testing.B) {
	seconds := time.Duration(envInt("LOAD_SECONDS", 5)) * time.Second
	cfg := Config{Dir: filepath.Join(b.TempDir(), "poet")}
	cfg.Schedule.Genesis = time.Now().Add(2 * time.Second)
	cfg.Schedule.EpochDuration, cfg.Schedule.PhaseShift = time.Hour, 100*time.Millisecond
	s, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		s.Close()
	}()
	for len(s.Rounds()) < 2 || s.Rounds()[0].Leaves == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	for round := 0; b.Loop(); round++ {
		requests := make([]poet.Registration, 5000*int(seconds/time.Second))
		for i := range requests {
			requests[i] = request(s.PowParams(), round<<32+i)
		}
		alone := leafRate(s, seconds/5)
		var next, failed atomic.Int64
		var mu sync.Mutex
		var took []time.Duration
		var group sync.WaitGroup
		end := time.Now().Add(seconds)
		for range 512 {
			group.Go(func() {
				var mine []time.Duration
				for time.Now().Before(end) {
					i := int(next.Add(1)) - 1
					if i >= len(requests) {
						break
					}
					begin := time.Now()
					if _, err := s.Submit(ctx, requests[i]); err != nil {
						failed.Add(1)
					}
					mine = append(mine, time.Since(begin))
				}
				mu.Lock()
				took = append(took, mine...)
				mu.Unlock()
			})
		}
		begin := time.Now()
		busy := leafRate(s, seconds*9/10)
		group.Wait()
		total := time.Since(begin)
		if failed.Load() > 0 {
			b.Fatalf("%d registrations failed", failed.Load())
		}
		slices.Sort(took)
		b.ReportMetric(float64(len(took))/total.Seconds(), "registrations/s")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1e3, "p99-ms")
		b.ReportMetric(alone, "leaves/s-alone")
		b.ReportMetric(busy, "leaves/s-busy")
	}
}

func leafRate(s *Service, d time.Duration) float64 {
	first, begin := s.Rounds()[0].Leaves, time.Now()
	time.Sleep(d)
	return float64(s.Rounds()[0].Leaves-first) / time.Since(begin).Seconds()
}

// BenchmarkRegistration measures the processor time of one registration, of the
// checks, the batch and the receipt, on whatever else a machine does.
func BenchmarkRegistration(b *testing.B) {
	cfg := Config{Dir: filepath.Join(b.TempDir(), "poet"), Work: work.Config{MaxLeavesPerSecond: 1}}
	cfg.Schedule.Genesis = time.Now()
	cfg.Schedule.EpochDuration, cfg.Schedule.PhaseShift = time.Hour, time.Hour
	s, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	requests := make([]poet.Registration, b.N)
	for i := range requests {
		requests[i] = request(s.PowParams(), i)
	}
	b.ResetTimer()
	before := cpuTime()
	var next atomic.Int64
	var group sync.WaitGroup
	for range 256 {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				if _, err := s.Submit(ctx, requests[i]); err != nil {
					b.Error(err)
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
	s.Close()
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRootWhileOldRoundsAreAskedFor measures how long a round of 100,000
// members that has closed waits for its execution, while 200 readers ask for the
// memberships of five old rounds as large. One address may ask for 200 at once and
// for 20 a second then; these do not pause.
func BenchmarkRootWhileOldRoundsAreAskedFor(b *testing.B) {
	const old, members = 5, 100_000
	cfg := Config{Dir: b.TempDir(), BallastBytes: 1 << 16, NewIdentity: true}
	cfg.Work.MaxLeavesPerSecond = 1000
	cfg.Schedule.Genesis, cfg.Schedule.EpochDuration, cfg.Schedule.CycleGap = time.Now(), time.Hour, time.Minute
	for n := range uint32(old) {
		if err := booktest.Prove(cfg.Dir, cfg.Schedule, n, members, 4500); err != nil {
			b.Fatal(err)
		}
	}
	if err := booktest.Close(cfg.Dir, cfg.Schedule, old, members); err != nil {
		b.Fatal(err)
	}
	// For the server it is a minute after that round has closed.
	ahead := time.Until(cfg.Schedule.Start(old)) + time.Minute
	cfg.Wall = func() time.Time { return time.Now().Add(ahead) }
	for b.Loop() {
		for _, readers := range []int{0, 200} {
			b.ReportMetric(waitForExecution(b, cfg, old, readers).Seconds(), fmt.Sprintf("s-with-%d-readers", readers))
		}
	}
}

// waitForExecution starts a server, with readers, and returns how long it takes until
// a round executes.
func waitForExecution(b *testing.B, cfg Config, old uint32, readers int) time.Duration {
	executing := make(chan struct{})
	cfg.OnEvent = func(e poet.Event) {
		if e.Kind == poet.EventExecuting {
			close(executing)
		}
	}
	s, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var group sync.WaitGroup
	defer func() {
		cancel()
		group.Wait()
		s.Close()
	}()
	for i := range readers {
		group.Go(func() {
			id := booktest.NodeID(i)
			for round := uint32(i); ctx.Err() == nil; round++ {
				if _, err := s.Member(ctx, poet.RoundID(round%old), id[:]); err != nil && ctx.Err() == nil {
					b.Error(err)
					return
				}
			}
		})
	}
	begin := time.Now()
	group.Go(func() {
		if err := s.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	<-executing
	return time.Since(begin)
}
