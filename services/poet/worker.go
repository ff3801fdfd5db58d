package poet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tweedle/base/durable"
	"tweedle/proofs/posw"
	"tweedle/services/poet/journal"
)

// Worker executes rounds of a source and makes their proofs. Its data are the
// journals in its directory.
type Worker struct {
	cfg     Config
	fs      durable.FS
	dir     string // of the journals
	rate    uint64 // leaves per second that one prover has
	metrics *metrics
	emit    func(Event)
	lock    io.Closer

	provers chan struct{} // holds a token for each prover at work
	proving chan struct{} // one round makes its proof at a time: it takes all cores

	mu        sync.Mutex
	runs      map[uint32]*run
	leftovers []uint32
}

// run is a round at work.
type run struct {
	job     Job
	k       uint
	journal *journal.Journal

	leaves  atomic.Uint64
	rate    atomic.Uint64 // leaves per second, lately
	proving atomic.Bool
	done    atomic.Int64 // subtrees
	total   atomic.Int64
	paused  atomic.Bool // the journal
}

// roundsDir is where the journals are, in the data directory.
const roundsDir = "rounds"

func newWorker(cfg Config, m *metrics, rate uint64, emit func(Event)) (*Worker, error) {
	w := &Worker{
		cfg: cfg, fs: cfg.FS, dir: filepath.Join(cfg.Dir, roundsDir), rate: rate, metrics: m, emit: emit,
		provers: make(chan struct{}, cfg.Provers), proving: make(chan struct{}, 1),
		runs: map[uint32]*run{},
	}
	if err := w.fs.Mkdir(w.dir, 0o700); err != nil {
		return nil, err
	}
	names, err := w.fs.ReadDir(w.dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if id, ok := strings.CutSuffix(name, ".journal"); ok {
			if n, err := ParseRoundID(id); err == nil {
				w.leftovers = append(w.leftovers, n)
			}
		}
	}
	slices.Sort(w.leftovers)
	return w, nil
}

// OpenWorker opens a data directory for a worker whose rounds come from another
// process. It uses no database. The caller closes it after Run.
func OpenWorker(cfg Config) (*Worker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.FS.Mkdir(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := durable.Lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	rate := cfg.LeavesPerSecond
	if rate == 0 {
		rate = measureRate()
	}
	w, err := newWorker(cfg, newMetrics(cfg.Metrics), cfg.capped(rate), cfg.tell)
	if err != nil {
		lock.Close()
		return nil, err
	}
	w.lock = lock
	return w, nil
}

// Close releases the data directory of OpenWorker.
func (w *Worker) Close() error {
	if w.lock == nil {
		return nil
	}
	return w.lock.Close()
}

// Run executes the source's rounds until ctx ends, then checkpoints and returns
// within a second. The error, if any, is the source's.
func (w *Worker) Run(ctx context.Context, source RoundSource) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	if err := w.removeLeftovers(ctx, source); err != nil {
		return ended(ctx, err)
	}
	turn := make(chan struct{})
	close(turn)
	for {
		job, err := source.Next(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		// Rounds start in the order of the source, whichever goroutine is first.
		before, after := turn, make(chan struct{})
		turn = after
		group.Go(func() { w.round(ctx, source, job, before, after) })
	}
}

// ended hides errors that come from the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// removeLeftovers deletes the journals of rounds whose proof is stored: we were
// stopped between the two.
func (w *Worker) removeLeftovers(ctx context.Context, source RoundSource) error {
	for _, n := range w.leftovers {
		stored, err := source.Stored(ctx, n)
		if err != nil {
			return err
		}
		if !stored {
			continue
		}
		if err := journal.Remove(w.fs, journal.Path(w.dir, n)); err != nil {
			w.emit(Event{Kind: EventWriteFailed, Round: RoundID(n), Text: "data of a proved round could not be removed", Err: err})
		}
	}
	return nil
}

// round takes a job from its journal to its stored proof. It returns early only
// when ctx ends.
func (w *Worker) round(ctx context.Context, source RoundSource, job Job, before, after chan struct{}) {
	r, p := w.load(ctx, job)
	if ctx.Err() != nil {
		r.journal.Close()
		close(after)
		return
	}
	w.mu.Lock()
	w.runs[job.Round] = r
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.runs, job.Round)
		w.mu.Unlock()
		w.metrics.forget(job.Round)
	}()
	defer r.journal.Close()

	select {
	case <-ctx.Done():
		close(after)
		return
	case <-before:
	}
	select {
	case <-ctx.Done():
		close(after)
		return
	case w.provers <- struct{}{}:
		close(after)
	}
	w.execute(ctx, r, p)
	<-w.provers
	if ctx.Err() != nil {
		return
	}
	source.Executed(ctx, job.Round)
	w.finish(ctx, source, r, p)
}

// load goes on from the round's journal, or from the beginning.
func (w *Worker) load(ctx context.Context, job Job) (*run, *posw.Prover) {
	path := journal.Path(w.dir, job.Round)
	j, lost, err := journal.Open(w.fs, path)
	if err == nil {
		if lost != nil {
			w.emit(Event{Kind: EventDamage, Round: RoundID(job.Round), Text: "end of the journal is cut off", Err: lost})
		}
		var p *posw.Prover
		if p, err = resume(ctx, j, job); err == nil {
			r := &run{job: job, k: j.Header().K, journal: j}
			r.leaves.Store(p.Leaves())
			w.emit(Event{Kind: EventResumed, Round: RoundID(job.Round), Text: fmt.Sprintf("round goes on from leaf %d", p.Leaves())})
			return r, p
		}
		j.Close()
	}
	if !errors.Is(err, os.ErrNotExist) && ctx.Err() == nil {
		// Without the journal the work of this round until now is lost, but not
		// the round: its members get a proof of the time that is left.
		w.emit(Event{Kind: EventDamage, Round: RoundID(job.Round), Text: "journal cannot be used, round starts from leaf 0", Err: err})
	}
	k := w.k(job)
	r := &run{job: job, k: k}
	r.journal = journal.Create(w.fs, path, job.header(k))
	return r, posw.NewProver(job.statement(), k)
}

func (j Job) header(k uint) journal.Header {
	return journal.Header{
		Round: j.Round, Members: j.Members, K: k, Statement: j.Statement,
		Start: j.Start.UnixMilli(), End: j.End.UnixMilli(),
	}
}

func resume(ctx context.Context, j *journal.Journal, job Job) (*posw.Prover, error) {
	h := j.Header()
	if h.Round != job.Round || h.Statement != job.Statement || h.Members != job.Members {
		return nil, errors.New("journal is about another statement")
	}
	return unlessStopped(ctx, func() (*posw.Prover, error) {
		cp, err := j.Checkpoint()
		if err != nil {
			return nil, err
		}
		return posw.Resume(job.statement(), h.K, j.Reader(), cp)
	})
}

// k returns the height of the nodes to keep for a job.
func (w *Worker) k(job Job) uint {
	return chooseK(w.cfg.K, w.rate, job.End.Sub(job.Start))
}

// keptNodes is the binary logarithm of the number of nodes that a round keeps at
// least before k grows.
const keptNodes = 13

// chooseK returns the configured height, or one so that a proof recomputes a
// small part of the round: below DefaultK at most T/2^keptNodes, under 2 %.
func chooseK(configured uint, rate uint64, duration time.Duration) uint {
	if configured != 0 {
		return min(configured, posw.MaxHeight)
	}
	leaves := expected(rate, duration)
	if n := uint(bits.Len64(leaves)); n > keptNodes {
		return min(n-keptNodes, DefaultK)
	}
	return 0
}

// expected returns the number of leaves at that rate.
func expected(rate uint64, duration time.Duration) uint64 {
	if duration <= 0 {
		return 0
	}
	return uint64(float64(rate) * duration.Seconds())
}

// Rounds returns the rounds at work, lowest number first.
func (w *Worker) Rounds() []RoundStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []RoundStatus
	for _, n := range slices.Sorted(maps.Keys(w.runs)) {
		out = append(out, w.runs[n].status(time.Now()))
	}
	return out
}

func (r *run) status(now time.Time) RoundStatus {
	s := RoundStatus{
		Round: RoundID(r.job.Round), State: StateExecuting, Start: r.job.Start, End: r.job.End,
		Members: r.job.Members, Leaves: r.leaves.Load(), K: r.k, JournalPaused: r.paused.Load(),
		Rate: float64(r.rate.Load()), Proving: int(r.done.Load()), ProvingTotal: int(r.total.Load()),
	}
	s.Checkpoint, s.JournalBytes = r.journal.Saved()
	s.Expected = s.Leaves
	if r.proving.Load() {
		s.State, s.Rate = StateProving, 0
	} else {
		s.Expected += expected(uint64(s.Rate), r.job.End.Sub(now))
	}
	return s
}

// journalBytes returns the bytes that all journals have.
func (w *Worker) journalBytes() (total uint64) {
	for _, r := range w.Rounds() {
		total += uint64(r.JournalBytes)
	}
	return total
}
