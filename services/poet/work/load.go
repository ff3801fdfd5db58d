package work

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"time"

	"tweedle/base/clock"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/journal"
)

// openPatience is how long a journal that cannot be read is tried again: a full
// table of files, or a disk that hiccups, may pass.
const openPatience = 30 * time.Second

// load goes on from the round's journal, or begins one. An error is the disk's, or
// that ctx ended.
func (w *Worker) load(ctx context.Context, job Job) (*run, error) {
	want := job.about(chooseK(w.cfg.K, w.rate, job.duration()))
	j, lost, err := w.open(ctx, want)
	switch {
	case errors.Is(err, os.ErrNotExist):
		j = journal.Create(w.fs, journal.Path(w.dir, job.Round), want)
	case errors.Is(err, journal.ErrOther):
		w.tell(job.Round, poet.EventDamage, "the round begins at leaf 0, and the journal that is there is kept beside its own", err)
		j = journal.Create(w.fs, journal.Path(w.dir, job.Round), want)
	case err != nil:
		return nil, err
	case lost != nil:
		w.tell(job.Round, poet.EventDamage, "the journal is not whole, what is good of it is used", lost)
	}
	r := &run{job: job, k: j.K(), journal: j}
	if err := w.restore(ctx, r); err != nil {
		j.Close()
		return nil, err
	}
	if n := r.prover.Leaves(); n > 0 {
		w.tell(job.Round, poet.EventResumed, fmt.Sprintf("round goes on from leaf %d", n), nil)
	}
	w.enter(r)
	return r, nil
}

// open opens a journal, again and again while the disk fails, up to openPatience.
func (w *Worker) open(ctx context.Context, want journal.About) (*journal.Journal, error, error) {
	told := false
	for begin := time.Now(); ; clock.Sleep(ctx, retryInterval) {
		j, lost, err := journal.Open(w.fs, journal.Path(w.dir, want.Round), want)
		if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, journal.ErrOther) {
			return j, lost, err
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if time.Since(begin) >= openPatience {
			return nil, nil, fmt.Errorf("round %d stands still, for its journal cannot be read; none of its work is lost: mend what the error says (who owns the file, how many files may be open, the disk) and start again, or move the file away to begin the round anew: %w", want.Round, err)
		}
		if !told {
			told = true
			w.tell(want.Round, poet.EventJournalUnreadable, "journal cannot be read, it is tried again", err)
		}
	}
}

// restore makes the round's prover from its journal. It fails only when ctx ends.
func (w *Worker) restore(ctx context.Context, r *run) error {
	p, err := unlessStopped(ctx, func() (*posw.Prover, error) { return r.proverAt(r.journal.Count()) })
	if err != nil {
		return err
	}
	r.prover = p
	r.leaves.Store(p.Leaves())
	return nil
}

// proverAt returns a prover that goes on after so many of the kept nodes.
func (r *run) proverAt(node uint64) (*posw.Prover, error) {
	return posw.Resume(r.job.statement(), r.k, r.journal.Reader(), node)
}

// repair finds the nodes that are wrong, after cause said that there are some, and goes
// on before them. It fails only when ctx ends.
func (w *Worker) repair(ctx context.Context, r *run, cause *posw.Mismatch) error {
	type span struct{ first, end uint64 }
	wrong, err := unlessStopped(ctx, func() (span, error) {
		first, end := r.wrong(ctx, cause)
		return span{first, end}, ctx.Err()
	})
	if err != nil {
		return err
	}
	if wrong.first < wrong.end { // else the prover was wrong
		r.journal.Doubt(wrong.first, wrong.end)
		w.tell(r.job.Round, poet.EventDamage, fmt.Sprintf("what is kept of leaves %d to %d is wrong, it is computed again", wrong.first<<r.k, wrong.end<<r.k), cause)
	}
	return w.restore(ctx, r)
}

// wrong returns the first kept node that is wrong, and the next that is right after it.
// A bit that flips in what is kept costs that node: the next comes out the same. One
// that flipped in the prover spoiled all that it computed from then on.
//
// A node that comes out right says that all before it are right, for its leaves depend
// on them. So the first wrong one is found by halving.
func (r *run) wrong(ctx context.Context, cause *posw.Mismatch) (first, end uint64) {
	count := r.journal.Count()
	known := count // the first number that is known to be wrong
	if cause.End&(1<<r.k-1) == 0 {
		known = min(known, cause.End>>r.k-1)
	}
	if known < count && r.right(known, known) {
		return count, count
	}
	first = uint64(sort.Search(int(known), func(n int) bool { return ctx.Err() != nil || !r.right(uint64(n), uint64(n)) }))
	if first+1 < count && r.right(first, first+1) {
		return first, first + 1
	}
	return first, count
}

// right tells whether a kept node comes out the same when it is computed again, from
// those before another one, which come out as they do.
func (r *run) right(from, node uint64) bool {
	p, err := r.proverAt(from)
	if err != nil {
		return false
	}
	again := p.Advance((node+1-from)<<r.k, nil)
	return bytes.HasSuffix(again, r.journal.Node(node))
}
