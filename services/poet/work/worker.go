// Package work executes closed rounds and makes their proofs.
//
// It promises: a round goes on from its last checkpoint after a stop; its data is
// deleted only after its source has stored the proof, durably, and read it back; a
// full disk costs crash safety and raises an alert, never the round; damage of a
// journal, or of memory, costs the leaves that are damaged; a call of the disk that
// fails costs none. It leaves to its [Source] which rounds there are, and what becomes
// of their proofs, and to its clock to be right.
package work

import (
	"cmp"
	"context"
	"maps"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

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
	// ProveWorkers is the number of goroutines that recompute subtrees at a
	// round's end; 0 means one for each core.
	ProveWorkers int
	// CheckpointInterval is the time between syncs of a journal; 0 means
	// DefaultCheckpointInterval.
	CheckpointInterval time.Duration

	// Now is the time, of a clock.Clock: one wrong reading must not end a round. Nil
	// means time.Now.
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
	c.ProveWorkers = cmp.Or(c.ProveWorkers, runtime.GOMAXPROCS(0))
	c.CheckpointInterval = cmp.Or(c.CheckpointInterval, DefaultCheckpointInterval)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.LeavesPerSecond == 0 {
		c.LeavesPerSecond = measureRate()
	}
	if c.MaxLeavesPerSecond != 0 {
		c.LeavesPerSecond = min(c.LeavesPerSecond, c.MaxLeavesPerSecond)
	}
	return c
}

// Worker executes rounds of a source, one after another, and makes their proofs
// beside that. Its data are the journals in its directory.
type Worker struct {
	cfg     Config
	fs      durable.FS
	dir     string // of the journals
	rate    uint64 // leaves per second, expected
	metrics *metrics
	emit    func(poet.Event)

	executing atomic.Int32  // provers at work
	proving   chan struct{} // one round makes its proof at a time: it takes all cores

	mu        sync.Mutex
	runs      map[uint32]*run
	leftovers []uint32
}

// run is a round at work. It is executed, then its proof is made, by one goroutine
// after the other; what others see of it is atomic.
type run struct {
	job     Job
	k       uint
	journal *journal.Journal
	prover  *posw.Prover
	kept    string // the damaged file that was told last

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
		proving: make(chan struct{}, 1), runs: map[uint32]*run{},
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

// Run executes the source's rounds in their order until ctx ends, then checkpoints
// and returns nil within a second. Any other return is the source's error, or that of a
// journal that cannot be read: its work is not lost, and not begun anew, and the error
// says what to do.
func (w *Worker) Run(outer context.Context, source Source) error {
	w.removeLeftovers(outer, source)
	group, ctx := errgroup.WithContext(outer)
	group.Go(func() error {
		for {
			job, err := source.Next(ctx)
			if err != nil {
				return err
			}
			r, err := w.load(ctx, job)
			if err != nil {
				return err
			}
			w.execute(ctx, r)
			group.Go(func() error {
				defer w.leave(r)
				return w.finish(ctx, source, r)
			})
		}
	})
	err := group.Wait()
	if outer.Err() != nil {
		return nil
	}
	return err
}

// removeLeftovers deletes the journals of rounds whose proof is stored: we were
// stopped between the two. One that cannot be asked for stays.
func (w *Worker) removeLeftovers(ctx context.Context, source Source) {
	for _, n := range w.leftovers {
		stored, err := source.Stored(ctx, n)
		if err != nil {
			w.tell(n, poet.EventDamage, "its journal stays, for nobody knows whether its proof is stored", err)
		} else if stored {
			w.remove(n)
		}
	}
}

// remove deletes the data of a round whose proof is stored.
func (w *Worker) remove(round uint32) {
	if err := journal.Remove(w.fs, journal.Path(w.dir, round)); err != nil {
		w.tell(round, poet.EventWriteFailed, "data of a proved round could not be removed", err)
	}
}

func (w *Worker) tell(round uint32, kind poet.EventKind, text string, err error) {
	w.emit(poet.Event{Kind: kind, Round: poet.RoundID(round), Text: text, Err: err})
}

// enter and leave show a round to those who ask for the rounds at work.
func (w *Worker) enter(r *run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs[r.job.Round] = r
}

func (w *Worker) leave(r *run) {
	r.journal.Close()
	w.mu.Lock()
	delete(w.runs, r.job.Round)
	w.mu.Unlock()
	w.metrics.forget(r.job.Round)
}

// leastNodes is the binary logarithm of the number of nodes that a round keeps at
// least before k grows.
const leastNodes = 13

// chooseK returns the configured height, or one so that a proof recomputes a small part
// of the round, below DefaultK at most T/2^leastNodes or under 2 %, and a stop costs at
// most a second's leaves.
func chooseK(configured uint, rate uint64, duration time.Duration) uint {
	if configured != 0 {
		return min(configured, posw.MaxHeight)
	}
	n := uint(bits.Len64(expected(rate, duration)))
	if n <= leastNodes {
		return 0
	}
	return min(n-leastNodes, uint(bits.Len64(rate)-1), DefaultK)
}

// nodes returns how many nodes of height k a round keeps, about.
func nodes(rate uint64, duration time.Duration, k uint) uint64 {
	return expected(rate, duration)>>k + 1
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
		out = append(out, w.runs[n].status(w.cfg.Now()))
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
	return nodes(w.rate, duration, chooseK(w.cfg.K, w.rate, duration)) * journal.RecordSize
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
