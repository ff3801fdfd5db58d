package work

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"time"

	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/clock"
	"tweedle/services/poet/journal"
)

// openPatience is how long a journal that cannot be read is tried again: a full
// table of files, or a disk that hiccups, may pass.
const openPatience = 30 * time.Second

// load goes on from the round's journal, or begins one. An error is the disk's, or
// that ctx ended.
func (w *Worker) load(ctx context.Context, job Job) (*run, error) {
	want := job.header(w.k(job))
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
	r := &run{job: job, k: j.Header().K, journal: j}
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
func (w *Worker) open(ctx context.Context, want journal.Header) (*journal.Journal, error, error) {
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

// restore makes the round's prover from its journal. What the journal has wrong is
// left out, see repair. It fails only when ctx ends.
func (w *Worker) restore(ctx context.Context, r *run) error {
	for {
		p, err := unlessStopped(ctx, func() (*posw.Prover, error) {
			return posw.Resume(r.job.statement(), r.k, r.journal.Reader(), r.journal.Checkpoint())
		})
		if err == nil {
			r.prover = p
			r.leaves.Store(p.Leaves())
			return nil
		}
		if err := w.repair(ctx, r, err); err != nil {
			return err
		}
	}
}

// repair finds the first node that is wrong, after cause said that there is one, and
// has the journal leave it out. What follows it comes back when it is computed again,
// if it was right: so a bit that flips in memory costs a node or two. It fails only
// when ctx ends.
//
// A node that comes out right says that all before it are right, for its leaves depend
// on them. So the first wrong one is found by halving.
func (w *Worker) repair(ctx context.Context, r *run, cause error) error {
	known := r.journal.Nodes() // the first number that is known to be wrong
	if m := (*posw.Mismatch)(nil); errors.As(cause, &m) && m.End&(1<<r.k-1) == 0 {
		known = min(known, m.End>>r.k-1)
	}
	wrong, err := unlessStopped(ctx, func() (uint64, error) {
		if known < r.journal.Nodes() && r.right(known) {
			return r.journal.Nodes(), nil // the prover was wrong
		}
		n := sort.Search(int(known), func(n int) bool { return ctx.Err() != nil || !r.right(uint64(n)) })
		return uint64(n), ctx.Err()
	})
	if err != nil {
		return err
	}
	r.journal.Doubt(wrong)
	w.tell(r.job.Round, poet.EventDamage, fmt.Sprintf("what is kept of the round is wrong from leaf %d on, it is computed again", wrong<<r.k), cause)
	return nil
}

// right computes a kept node again, from those before it.
func (r *run) right(node uint64) bool {
	p, err := posw.Resume(r.job.statement(), r.k, r.journal.Reader(), posw.Checkpoint{Leaves: node << r.k})
	return err == nil && bytes.Equal(p.Advance(1<<r.k, nil), r.journal.Node(node))
}
