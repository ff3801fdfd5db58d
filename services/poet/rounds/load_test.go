package rounds

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/work"

	"golang.org/x/sys/unix"
)

// BenchmarkRegistrationsWhileProving measures how many registrations a server
// takes while a round executes at full speed on the same machine, and what that
// costs the round. The requests are signed beforehand; clients and network are
// left out, package rpc measures with them. LOAD_SECONDS sets the time.
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
