package work

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/base/clock"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/values/types"
)

const (
	// sliceTime is how long a prover computes without looking at the clock,
	// about: the end of a round and a stop are noticed so late.
	sliceTime = 5 * time.Millisecond

	// maxSlice bounds it in leaves, whatever the clock does.
	maxSlice = 1 << 12

	// pauseTime is how long a prover that is slowed down sleeps at a time, at
	// least. Shorter is smoother and wakes the processor more often.
	pauseTime = 10 * time.Millisecond

	// burstTime is for how long a prover that was slowed down makes up for
	// time that it did not get.
	burstTime = 250 * time.Millisecond

	// rateTime is the time over which the rate is measured.
	rateTime = time.Second

	// progressInterval is the time between two progress events of a round.
	progressInterval = 30 * time.Second
)

// fillShare is the part of a round's length that computing what is damaged may take at
// most, when the round's time is over.
const fillShare = 128

// execute computes leaves until the round's end, and until there are enough for
// a proof, on a thread of its own. It stops early when ctx ends. The journal is
// synced beside it, and at the end.
func (w *Worker) execute(ctx context.Context, r *run) {
	w.executing.Add(1)
	defer w.executing.Add(-1)
	stop := make(chan struct{})
	var syncer, prover sync.WaitGroup
	syncer.Go(func() { w.syncEvery(r, stop) })
	prover.Go(func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		w.compute(ctx, r)
	})
	prover.Wait()
	close(stop)
	syncer.Wait()
	w.sync(r)
}

// compute is the loop that the whole server is for. Between two slices of leaves
// it does nothing that waits, but for the pace.
func (w *Worker) compute(ctx context.Context, r *run) {
	now := time.Now()
	pace := pacer{perSecond: w.cfg.MaxLeavesPerSecond, from: now}
	meter := meter{gauge: w.metrics.rate.WithLabelValues(poet.RoundID(r.job.Round)), from: now, told: now}
	kept := make([]byte, 0, (maxSlice>>r.k+1)*posw.NodeSize)
	slice := uint64(16)
	for ctx.Err() == nil {
		left := r.job.End.Sub(w.cfg.Now())
		if left <= 0 && w.complete(r) {
			return
		}
		n := min(slice, types.MaxPoetLeaves) // when it is late, nothing is gained by being slow
		if left > 0 {
			var wait time.Duration
			if n, wait = pace.next(slice, now); n == 0 {
				clock.Sleep(ctx, min(wait, left))
				now = time.Now()
				continue
			}
		}
		kept = r.prover.Advance(n, kept[:0])
		before := now
		now = time.Now()
		if r.journal.Append(kept) {
			if w.restore(ctx, r) != nil {
				return
			}
			w.tell(r.job.Round, poet.EventResumed, fmt.Sprintf("damage is mended, round goes on from leaf %d", r.prover.Leaves()), nil)
		}
		r.leaves.Store(r.prover.Leaves())
		w.metrics.computed(r.job.Round, n)
		if meter.add(r, n, now) {
			w.emit(progress(r, w.cfg.Now()))
		}
		slice = nextSlice(n, now.Sub(before))
	}
}

// complete tells whether a round whose time is over has been computed: it has enough
// leaves for a proof, and nothing is missing that takes little time and brings more.
func (w *Worker) complete(r *run) bool {
	missing := r.journal.Missing()
	worth := missing > 0 && missing<<r.k <= expected(w.rate, r.job.duration())/fillShare
	return r.prover.Leaves() >= types.MaxPoetLeaves && !worth
}

// nextSlice returns how many leaves take sliceTime, given how long n took.
func nextSlice(n uint64, took time.Duration) uint64 {
	if took <= 0 {
		return maxSlice
	}
	return min(max(n*uint64(sliceTime)/uint64(took), 1), maxSlice)
}

// pacer spreads leaves evenly over time, perSecond of them, or lets everything
// through if that is 0.
type pacer struct {
	perSecond uint64
	from      time.Time
	done      uint64 // leaves since from
}

// next returns how many of want leaves may be computed now, and if none, how long
// to wait.
func (p *pacer) next(want uint64, now time.Time) (n uint64, wait time.Duration) {
	if p.perSecond == 0 {
		return want, 0
	}
	due := uint64(now.Sub(p.from).Seconds() * float64(p.perSecond))
	if most := expected(p.perSecond, burstTime) + 1; due > p.done+most {
		p.done = due - most
	}
	if due <= p.done {
		return 0, max(pauseTime, time.Second/time.Duration(min(p.perSecond, uint64(time.Second))))
	}
	n = min(want, due-p.done)
	p.done += n
	return n, 0
}

// meter measures the rate of a round.
type meter struct {
	gauge  prometheus.Gauge
	from   time.Time
	leaves uint64
	told   time.Time
}

// add counts leaves, and tells whether it is time to report progress.
func (m *meter) add(r *run, n uint64, now time.Time) bool {
	m.leaves += n
	took := now.Sub(m.from)
	if took < rateTime {
		return false
	}
	rate := float64(m.leaves) / took.Seconds()
	r.rate.Store(uint64(rate))
	m.gauge.Set(rate)
	m.from, m.leaves = now, 0
	if now.Sub(m.told) < progressInterval {
		return false
	}
	m.told = now
	return true
}

func progress(r *run, now time.Time) poet.Event {
	s := r.status(now)
	return poet.Event{Kind: poet.EventProgress, Round: s.Round, Text: fmt.Sprintf("%d leaves, %.0f per second, %d expected at the end", s.Leaves, s.Rate, s.Expected)}
}

// syncEvery makes checkpoints durable until stop is closed. The first one makes
// the file, and reserves its room.
func (w *Worker) syncEvery(r *run, stop chan struct{}) {
	w.sync(r)
	if err := r.journal.Reserve(nodes(w.rate, r.job.duration(), r.k)); err != nil {
		w.tell(r.job.Round, poet.EventDiskLow, "no room could be reserved for the journal", err)
	}
	ticker := time.NewTicker(w.cfg.CheckpointInterval)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			w.sync(r)
		}
	}
}

// sync makes the journal durable. If the disk does not take it the round goes on
// in memory, and the next sync brings the missing part.
func (w *Worker) sync(r *run) {
	err := r.journal.Sync()
	switch paused := r.paused.Load(); {
	case err != nil && !paused:
		r.paused.Store(true)
		w.tell(r.job.Round, poet.EventJournalPaused, "journal is paused, the round goes on: make room on the disk", err)
	case err == nil && paused:
		r.paused.Store(false)
		w.tell(r.job.Round, poet.EventJournalResumed, "journal is complete again", nil)
	}
	if kept := r.journal.Kept(); kept != r.kept {
		r.kept = kept
		w.tell(r.job.Round, poet.EventDamage, "the journal that was there is kept as "+kept+": delete it when the round has its proof", nil)
	}
}
