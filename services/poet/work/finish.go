package work

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tweedle/base/clock"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/values/types"
)

const (
	// retryInterval is the time between tries of what the disk or the source did
	// not do.
	retryInterval = time.Second

	// refusedInterval is the time between tries to hand over a proof that the source
	// takes for wrong.
	refusedInterval = time.Minute

	// stopGrace is how long a stop waits for a proof that is being made, or a
	// tree that is being restored. After it the computation is left behind; it
	// touches no file, and the process is about to end.
	stopGrace = 500 * time.Millisecond
)

// finish makes the proof of an executed round, hands it over, and deletes the round's
// data. The error is that ctx ended.
func (w *Worker) finish(ctx context.Context, source Source, r *run) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.proving.Store(true)
	w.tell(r.job.Round, poet.EventProving, fmt.Sprintf("%d leaves are computed, the proof is being made", r.prover.Leaves()), nil)
	proof, err := w.prove(ctx, r)
	if err != nil {
		return err
	}
	if err := w.handOver(ctx, source, Result{Round: r.job.Round, Proof: proof}); err != nil {
		return err
	}
	// If we stop here, the next start asks the source and removes it.
	r.journal.Close()
	w.remove(r.job.Round)
	return nil
}

// prove makes the proof until it verifies. What was kept and is wrong is computed
// again.
func (w *Worker) prove(ctx context.Context, r *run) (types.PoetProof, error) {
	for {
		proof, err := w.proveOnce(ctx, r)
		if err == nil || ctx.Err() != nil {
			return proof, err
		}
		w.tell(r.job.Round, poet.EventDamage, "proof is not right, it is made again", err)
		clock.Sleep(ctx, retryInterval)
		if m := (*posw.Mismatch)(nil); errors.As(err, &m) {
			if err := w.repair(ctx, r, m); err != nil {
				return proof, err
			}
			w.execute(ctx, r)
		}
	}
}

// proveOnce makes the proof on all cores but those of provers at work, and verifies it.
func (w *Worker) proveOnce(ctx context.Context, r *run) (types.PoetProof, error) {
	select {
	case <-ctx.Done():
		return types.PoetProof{}, ctx.Err()
	case w.proving <- struct{}{}:
	}
	defer func() { <-w.proving }()
	workers := max(1, w.cfg.ProveWorkers-int(w.executing.Load()))
	return unlessStopped(ctx, func() (types.PoetProof, error) {
		proof, err := r.prover.Prove(r.journal.Reader(), workers, func(done, total int) {
			r.done.Store(int64(done))
			r.total.Store(int64(total))
		})
		if err != nil {
			return proof, err
		}
		return proof, posw.Verify(r.job.statement(), &proof, workers)
	})
}

// handOver gives a proof, which is right, to the source until that has stored it. A
// source that takes it for wrong is broken, and nothing of the round is given up for
// that. The error is that ctx ended.
func (w *Worker) handOver(ctx context.Context, source Source, result Result) error {
	for told, refused := false, false; ; {
		err := source.Finish(ctx, result)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, poet.ErrBadProof):
			if !refused {
				refused = true
				w.tell(result.Round, poet.EventProofRefused, "a proof that is right here is refused where it is to be stored: the processor or the database there is broken; the round's data stays, and it is tried again every minute", err)
			}
			clock.Sleep(ctx, refusedInterval)
		default:
			if !told {
				told = true
				w.tell(result.Round, poet.EventWriteFailed, "proof could not be stored, it is tried again until it is", err)
			}
			clock.Sleep(ctx, retryInterval)
		}
	}
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
	select {
	case o := <-done:
		return o.value, o.err
	case <-time.After(stopGrace):
		var zero T
		return zero, ctx.Err()
	}
}
