// Package work executes closed rounds and makes their proofs.
//
// It promises: a round goes on from its last checkpoint after a stop; its data is
// deleted only after its source has stored the proof, durably, and read it back; a
// full disk costs crash safety and raises an alert, never the round. It leaves to
// its [Source] which rounds there are, and what becomes of their proofs.
package work

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/base/durable"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/journal"
)

// Config is what a worker needs. Zero values of the fields that name a default
// mean that default.
type Config struct {
	// Dir is the directory of the journals; it is made if missing. FS holds it.
	Dir string
	FS  durable.FS

	// K is the height of the lowest tree layer that is kept; 0 lets the worker
	// choose by the length of the round, at most DefaultK. A proof recomputes
	// 150 subtrees of 2^K leaves; a stop of the process may cost up to 2^K leaves.
	K uint
	// MaxLeavesPerSecond slows the prover down, smoothly; 0 means full speed.
	MaxLeavesPerSecond uint64
	// LeavesPerSecond is the expected speed, for the disk budget and for
	// progress; 0 means that it is measured.
	LeavesPerSecond uint64
	// Provers is the number of rounds that execute at the same time, each on a
	// core of its own; 0 means 1. Rounds beyond it wait in order of their
	// number, so the oldest always advances at full speed.
	Provers int
	// ProveWorkers is the number of goroutines that recompute subtrees at a
	// round's end; 0 means one for each core.
	ProveWorkers int
	// CheckpointInterval is the time between syncs of a journal; 0 means
	// DefaultCheckpointInterval.
	CheckpointInterval time.Duration

	// Now is the time, of a clock.Clock: one wrong reading must not end a round.
	Now func() time.Time
	// Emit is told every event, from several goroutines, one of them a prover:
	// it must return at once.
	Emit func(poet.Event)
	// Metrics may be nil; then they are registered nowhere.
	Metrics prometheus.Registerer
}

// Defaults of Config.
const (
	DefaultK                  = 14
	DefaultCheckpointInterval = time.Second
)

func (c Config) withDefaults() Config {
	c.Provers = cmp.Or(c.Provers, 1)
	c.ProveWorkers = cmp.Or(c.ProveWorkers, runtime.GOMAXPROCS(0))
	c.CheckpointInterval = cmp.Or(c.CheckpointInterval, DefaultCheckpointInterval)
	if c.LeavesPerSecond == 0 {
		c.LeavesPerSecond = measureRate()
	}
	if c.MaxLeavesPerSecond != 0 {
		c.LeavesPerSecond = min(c.LeavesPerSecond, c.MaxLeavesPerSecond)
	}
	return c
}

// Worker executes rounds of a source and makes their proofs. Its data are the
// journals in its directory.
type Worker struct {
	cfg     Config
	fs      durable.FS
	dir     string // of the journals
	rate    uint64 // leaves per second that one prover has
	metrics *metrics
	emit    func(poet.Event)

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

// New makes a worker; it starts nothing.
func New(cfg Config) (*Worker, error) {
	cfg = cfg.withDefaults()
	w := &Worker{
		cfg: cfg, fs: cfg.FS, dir: cfg.Dir, rate: cfg.LeavesPerSecond, metrics: newMetrics(cfg.Metrics), emit: cfg.Emit,
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
			if n, err := poet.ParseRoundID(id); err == nil {
				w.leftovers = append(w.leftovers, n)
			}
		}
	}
	slices.Sort(w.leftovers)
	return w, nil
}

// Run executes the source's rounds until ctx ends, then checkpoints and returns
// within a second. The error, if any, is the source's.
func (w *Worker) Run(ctx context.Context, source Source) error {
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
func (w *Worker) removeLeftovers(ctx context.Context, source Source) error {
	for _, n := range w.leftovers {
		stored, err := source.Stored(ctx, n)
		if err != nil {
			return err
		}
		if !stored {
			continue
		}
		if err := journal.Remove(w.fs, journal.Path(w.dir, n)); err != nil {
			w.emit(poet.Event{Kind: poet.EventWriteFailed, Round: poet.RoundID(n), Text: "data of a proved round could not be removed", Err: err})
		}
	}
	return nil
}

// round takes a job from its journal to its stored proof. It returns early only
// when ctx ends.
func (w *Worker) round(ctx context.Context, source Source, job Job, before, after chan struct{}) {
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
	w.finish(ctx, source, r, p)
}

// load goes on from the round's journal, or from the beginning.
func (w *Worker) load(ctx context.Context, job Job) (*run, *posw.Prover) {
	path := journal.Path(w.dir, job.Round)
	j, lost, err := journal.Open(w.fs, path)
	if err == nil {
		if lost != nil {
			w.emit(poet.Event{Kind: poet.EventDamage, Round: poet.RoundID(job.Round), Text: "end of the journal is cut off", Err: lost})
		}
		var p *posw.Prover
		if p, err = resume(ctx, j, job); err == nil {
			r := &run{job: job, k: j.Header().K, journal: j}
			r.leaves.Store(p.Leaves())
			w.emit(poet.Event{Kind: poet.EventResumed, Round: poet.RoundID(job.Round), Text: fmt.Sprintf("round goes on from leaf %d", p.Leaves())})
			return r, p
		}
		j.Close()
	}
	if !errors.Is(err, os.ErrNotExist) && ctx.Err() == nil {
		// Without the journal the work of this round until now is lost, but not
		// the round: its members get a proof of the time that is left.
		w.emit(poet.Event{Kind: poet.EventDamage, Round: poet.RoundID(job.Round), Text: "journal cannot be used, round starts from leaf 0", Err: err})
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

// chunkBytes is what a sync adds to a journal beside the nodes.
const chunkBytes = 32

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
func (w *Worker) Rounds() []poet.RoundStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []poet.RoundStatus
	for _, n := range slices.Sorted(maps.Keys(w.runs)) {
		out = append(out, w.runs[n].status(time.Now()))
	}
	return out
}

func (r *run) status(now time.Time) poet.RoundStatus {
	s := poet.RoundStatus{
		Round: poet.RoundID(r.job.Round), State: poet.StateExecuting, Start: r.job.Start, End: r.job.End,
		Members: r.job.Members, Leaves: r.leaves.Load(), K: r.k, JournalPaused: r.paused.Load(),
		Rate: float64(r.rate.Load()), Proving: int(r.done.Load()), ProvingTotal: int(r.total.Load()),
	}
	s.Checkpoint, s.JournalBytes = r.journal.Saved()
	s.Expected = s.Leaves
	if r.proving.Load() {
		s.State, s.Rate = poet.StateProving, 0
	} else {
		s.Expected += expected(uint64(s.Rate), r.job.End.Sub(now))
	}
	return s
}

// Need returns the bytes that the journal of a round of that length takes.
func (w *Worker) Need(duration time.Duration) uint64 {
	return journalNeed(w.rate, duration, chooseK(w.cfg.K, w.rate, duration))
}

// JournalBytes returns the bytes that all journals have.
func (w *Worker) JournalBytes() (total uint64) {
	for _, r := range w.Rounds() {
		total += uint64(r.JournalBytes)
	}
	return total
}

// measureRate returns about how many leaves a second this machine computes now.
func measureRate() uint64 {
	const leaves = 512
	p := posw.NewProver(nil, 0)
	kept := make([]byte, 0, leaves*posw.NodeSize)
	begin := time.Now()
	p.Advance(leaves, kept)
	took := max(time.Since(begin), time.Millisecond)
	return uint64(leaves / took.Seconds())
}

// journalNeed returns the bytes that the journal of a round takes: one node for
// 2^k leaves, and something for each sync.
func journalNeed(rate uint64, duration time.Duration, k uint) uint64 {
	nodes := expected(rate, duration)>>k + 1
	syncs := min(nodes, uint64(max(0, duration.Seconds()))+1)
	return nodes*posw.NodeSize + syncs*chunkBytes + 1<<10
}
