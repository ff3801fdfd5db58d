package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/journal"
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

	// retryInterval is the time between tries to store a proof.
	retryInterval = time.Second

	// stopGrace is how long a stop waits for a proof that is being made, or a
	// tree that is being restored. After it the computation is left behind; it
	// touches no file, and the process is about to end.
	stopGrace = 500 * time.Millisecond
)

// execute computes leaves until the round's end, and until there are enough for
// a proof, on a thread of its own. It stops early when ctx ends. The journal is
// synced beside it, and at the end.
func (w *Worker) execute(ctx context.Context, r *run, p *posw.Prover) {
	stop := make(chan struct{})
	var syncer, prover sync.WaitGroup
	syncer.Go(func() { w.syncEvery(r, stop) })
	prover.Go(func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		w.compute(ctx, r, p)
	})
	prover.Wait()
	close(stop)
	syncer.Wait()
	cp := p.Checkpoint()
	r.journal.Append(nil, &cp)
	w.sync(r)
}

// compute is the loop that the whole server is for. Between two slices of leaves
// it does nothing that waits, but for the pace.
func (w *Worker) compute(ctx context.Context, r *run, p *posw.Prover) {
	now := time.Now()
	pace := pacer{perSecond: w.cfg.MaxLeavesPerSecond, from: now}
	meter := meter{gauge: w.metrics.rate.WithLabelValues(poet.RoundID(r.job.Round)), from: now, told: now}
	mark := marker{every: w.cfg.CheckpointInterval, last: now, kept: p.Kept()}
	kept := make([]byte, 0, (maxSlice>>r.k+1)*posw.NodeSize)
	slice := uint64(16)
	for ctx.Err() == nil {
		late := !now.Before(r.job.End)
		if late && p.Leaves() >= types.MaxPoetLeaves {
			return
		}
		n := min(slice, types.MaxPoetLeaves) // when it is late, nothing is gained by being slow
		if !late {
			var wait time.Duration
			if n, wait = pace.next(slice, now); n == 0 {
				now = sleep(ctx, min(wait, r.job.End.Sub(now)))
				continue
			}
		}
		kept = p.Advance(n, kept[:0])
		before := now
		now = time.Now()
		if cp := mark.checkpoint(p, now); cp != nil || len(kept) > 0 {
			r.journal.Append(kept, cp)
		}
		r.leaves.Store(p.Leaves())
		w.metrics.computed(r.job.Round, n)
		if meter.add(r, n, now) {
			w.emit(progress(r, now))
		}
		slice = nextSlice(n, now.Sub(before))
	}
}

// nextSlice returns how many leaves take sliceTime, given how long n took.
func nextSlice(n uint64, took time.Duration) uint64 {
	if took <= 0 {
		return maxSlice
	}
	return min(max(n*uint64(sliceTime)/uint64(took), 1), maxSlice)
}

// sleep waits, or until ctx ends, and returns the time.
func sleep(ctx context.Context, d time.Duration) time.Time {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return time.Now()
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

// marker decides when a checkpoint needs the nodes below height k: when none of
// height k came out for so long.
type marker struct {
	every time.Duration
	last  time.Time
	kept  uint64
}

func (m *marker) checkpoint(p *posw.Prover, now time.Time) *posw.Checkpoint {
	if now.Sub(m.last) < m.every {
		return nil
	}
	stuck := p.Kept() == m.kept
	m.last, m.kept = now, p.Kept()
	if !stuck {
		return nil
	}
	cp := p.Checkpoint()
	return &cp
}

// syncEvery makes checkpoints durable until stop is closed. The first one makes
// the file, and reserves its room.
func (w *Worker) syncEvery(r *run, stop chan struct{}) {
	w.sync(r)
	if err := r.journal.Reserve(int64(journalNeed(w.rate, r.job.End.Sub(r.job.Start), r.k))); err != nil {
		w.emit(poet.Event{Kind: poet.EventDiskLow, Round: poet.RoundID(r.job.Round), Text: "no room could be reserved for the journal", Err: err})
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
		w.emit(poet.Event{Kind: poet.EventJournalPaused, Round: poet.RoundID(r.job.Round), Text: "journal is paused, the round goes on: make room on the disk", Err: err})
	case err == nil && paused:
		r.paused.Store(false)
		w.emit(poet.Event{Kind: poet.EventJournalResumed, Round: poet.RoundID(r.job.Round), Text: "journal is complete again"})
	}
}

// finish makes the proof and hands it over, again and again until the source has
// stored it or ctx ends. Then it deletes the round's data.
func (w *Worker) finish(ctx context.Context, source Source, r *run, p *posw.Prover) {
	r.proving.Store(true)
	id := poet.RoundID(r.job.Round)
	w.emit(poet.Event{Kind: poet.EventProving, Round: id, Text: "proof is being made"})
	var proof types.PoetProof
	for made, told, tries := false, false, 0; ; {
		var err error
		if !made {
			proof, err = w.prove(ctx, r, p)
		}
		if err == nil {
			made = true
			err = source.Finish(ctx, Result{Round: r.job.Round, Proof: proof})
		}
		switch {
		case err == nil:
			// If we stop here, the next start asks the source and removes it.
			if err := r.journal.Remove(); err != nil {
				w.emit(poet.Event{Kind: poet.EventWriteFailed, Round: id, Text: "data of a proved round could not be removed", Err: err})
			}
			return
		case ctx.Err() != nil:
			return
		case !made || errors.Is(err, poet.ErrBadProof):
			w.emit(poet.Event{Kind: poet.EventDamage, Round: id, Text: "proof does not verify, it is made again from the last good data", Err: err})
			if p, made = w.repair(ctx, r, tries), false; ctx.Err() != nil {
				return
			}
			tries++
		default:
			if !told {
				told = true
				w.emit(poet.Event{Kind: poet.EventWriteFailed, Round: id, Text: "proof could not be stored, it is tried again until it is", Err: err})
			}
			sleep(ctx, retryInterval)
		}
	}
}

// prove makes the proof on all cores but those of the provers at work.
func (w *Worker) prove(ctx context.Context, r *run, p *posw.Prover) (types.PoetProof, error) {
	select {
	case <-ctx.Done():
		return types.PoetProof{}, ctx.Err()
	case w.proving <- struct{}{}:
	}
	defer func() { <-w.proving }()
	workers := max(1, w.cfg.ProveWorkers-len(w.provers))
	return unlessStopped(ctx, func() (types.PoetProof, error) {
		return p.Prove(r.journal.Reader(), workers, func(done, total int) {
			r.done.Store(int64(done))
			r.total.Store(int64(total))
		})
	})
}

// unlessStopped computes something that takes long and cannot be stopped. When
// ctx ends it waits for stopGrace and then leaves the computation behind.
func unlessStopped[T any](ctx context.Context, compute func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := compute()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case o := <-done:
		return o.value, o.err
	case <-grace.C:
		var zero T
		return zero, ctx.Err()
	}
}

// repair returns a prover that is consistent with its kept nodes, after a proof
// that was not: from the file if it differs from memory, for the file has
// checksums; else from a few nodes earlier, twice as many at each try. The proof
// then opens other leaves, and the work lost is small.
func (w *Worker) repair(ctx context.Context, r *run, try int) *posw.Prover {
	if j, _, err := journal.Open(w.fs, journal.Path(w.dir, r.job.Round)); err == nil {
		if p, err := resume(ctx, j, r.job); err == nil && !samePrefix(j, r.journal) {
			r.journal.Close()
			w.mu.Lock() // for those who ask for the status
			r.journal = j
			w.mu.Unlock()
			return w.enough(ctx, r, p)
		}
		j.Close()
	}
	r.journal.Cut(1 << min(try, 62))
	p, err := resume(ctx, r.journal, r.job)
	if err != nil && ctx.Err() == nil {
		r.journal.Cut(1 << 62)
		p = posw.NewProver(r.job.statement(), r.k)
	}
	return w.enough(ctx, r, p)
}

// enough computes what a proof needs at least.
func (w *Worker) enough(ctx context.Context, r *run, p *posw.Prover) *posw.Prover {
	if ctx.Err() != nil {
		return p
	}
	r.leaves.Store(p.Leaves())
	if p.Leaves() < types.MaxPoetLeaves {
		w.execute(ctx, r, p)
	}
	return p
}

// samePrefix tells whether all nodes of a are those of b.
func samePrefix(a, b *journal.Journal) bool {
	x, y := a.Reader(), b.Reader()
	var p, q [posw.NodeSize]byte
	for {
		if _, err := io.ReadFull(x, p[:]); err != nil {
			return true
		}
		if _, err := io.ReadFull(y, q[:]); err != nil || p != q {
			return false
		}
	}
}
