package rounds

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/base/durable"
	"tweedle/protocol/registration"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/services/poet/clock"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

// Service is a PoET server without its network side. Its methods may be called
// concurrently, also before and after Run.
type Service struct {
	cfg     Config
	key     ed25519.PrivateKey
	lock    io.Closer
	store   *book.Book
	metrics *metrics
	clock   *clock.Clock
	worker  *work.Worker
	trees   book.Trees

	// registrations
	pending  chan struct{} // holds a token for each Submit under way
	crypto   chan struct{} // and for each that checks or makes a signature now
	queue    chan *submission
	refusing atomic.Bool // the disk takes no registrations
	pow      atomic.Pointer[book.Pow]
	trusted  atomic.Pointer[[]ed25519.PublicKey]

	// rounds
	machine   *Machine // owned by drive
	openRound atomic.Uint32
	rounds    atomic.Pointer[[]book.Round] // those at work, for readers
	inputs    chan input
	jobs      chan work.Job
	stopped   chan struct{} // closed when Run ends

	// spare room on the disk
	spare    sync.Mutex // guards reserve, and both files
	reserve  durable.File
	reserved atomic.Bool
	ballast  atomic.Bool
}

// roundsDir is where the journals are, in the data directory.
const roundsDir = "rounds"

// maxUnproved is the number of closed rounds without a proof that a server can
// have. A round closes once an epoch at most, so it is never reached.
const maxUnproved = 1 << 10

// provedShown is how many proved rounds Rounds returns.
const provedShown = 8

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = durable.OS{}
	}
	def(&c.MaxRoundMembers, DefaultMaxRoundMembers)
	def(&c.MaxSubmitBatch, DefaultMaxSubmitBatch)
	def(&c.SubmitFlush, DefaultSubmitFlush)
	def(&c.BallastBytes, DefaultBallastBytes)
	def(&c.Work.ProveWorkers, runtime.GOMAXPROCS(0))
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Open opens the data directory, making it if it is missing, and starts nothing.
// It fails if another process has the directory, if its format or schedule is
// another one, or if its files are damaged; the error says what to do.
func Open(cfg Config) (_ *Service, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.FS.Mkdir(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s := &Service{
		cfg:     cfg,
		metrics: newMetrics(cfg.Metrics),
		pending: make(chan struct{}, MaxPending),
		crypto:  make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
		queue:   make(chan *submission, MaxPending),
		inputs:  make(chan input),
		jobs:    make(chan work.Job, maxUnproved),
		stopped: make(chan struct{}),
	}
	s.clock = clock.New(cfg.Schedule.EpochDuration, cfg.Wall, s.jumped)
	if s.lock, err = durable.Lock(cfg.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.key, err = loadIdentity(cfg.FS, cfg.Dir, cfg.Key, cfg.NewIdentity); err != nil {
		return nil, err
	}
	if s.store, err = book.Open(cfg.Dir, cfg.Schedule, cfg.AcceptOlderState); err != nil {
		return nil, err
	}
	if err := s.loadPow(); err != nil {
		return nil, err
	}
	if err := s.ReloadTrustedKeys(); err != nil {
		return nil, err
	}
	cfg.Work.Dir, cfg.Work.FS = filepath.Join(cfg.Dir, roundsDir), cfg.FS
	cfg.Work.Now, cfg.Work.Emit, cfg.Work.Metrics = s.clock.Now, s.emit, cfg.Metrics
	if s.worker, err = work.New(cfg.Work); err != nil {
		return nil, err
	}
	return s, s.loadMachine()
}

func (s *Service) loadMachine() error {
	stored, open, joined, found, err := s.store.Rounds()
	if err != nil {
		return err
	}
	if !found {
		// Before anybody registers: else a start after a stop right at the end of
		// this round would not know that it was open.
		open = s.cfg.Schedule.Open(s.clock.Now())
		if err := s.store.WriteOpen(open); err != nil {
			return err
		}
	}
	s.machine = NewMachine(s.cfg.Schedule, stored, open, joined)
	s.publish()
	return nil
}

// publish shows readers what the machine knows.
func (s *Service) publish() {
	rounds := s.machine.Rounds()
	s.rounds.Store(&rounds)
	s.openRound.Store(s.machine.Open())
}

func (s *Service) snapshot() []book.Round { return *s.rounds.Load() }

// loadPow restores the parameters of the proof of work. They are stored when they
// change, so that no restart brings an old or an empty challenge back.
func (s *Service) loadPow() error {
	p, err := s.store.Pow()
	if err != nil {
		return err
	}
	changed := false
	if len(p.Current.Challenge) == 0 {
		p.Current = registration.PowParams{Challenge: make([]byte, 32), Difficulty: s.cfg.PowDifficulty}
		rand.Read(p.Current.Challenge)
		changed = true
	}
	if p.Current.Difficulty != s.cfg.PowDifficulty {
		p.Previous = p.Current
		p.Current.Difficulty = s.cfg.PowDifficulty
		changed = true
	}
	if changed {
		if err := s.store.WritePow(p); err != nil {
			return err
		}
	}
	s.pow.Store(&p)
	return nil
}

// Close releases the data directory. Call it after Run has returned.
func (s *Service) Close() error {
	var errs []error
	s.dropReserve()
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Run does everything that happens by itself until ctx ends: it stores
// registrations, closes, executes and proves rounds. When ctx ends it
// checkpoints and returns nil, within a second. Any other return is an error of
// the disk that only a person, or a restart, can clear. Call it once.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	d := &driver{Service: s, ctx: ctx, group: &group}
	// The first step comes before the first registration, which must not join a
	// round whose time was over while nobody was here.
	next := d.step(input{})
	group.Go(func() { d.drive(next) })
	group.Go(func() { s.registrar(ctx) })
	group.Go(func() { s.watchStorage(ctx) })
	var unworkable error
	group.Go(func() {
		defer cancel()
		unworkable = s.worker.Run(ctx, source{s})
	})
	select {
	case <-ctx.Done():
	case <-s.store.Failed():
	}
	cancel()
	group.Wait()
	close(s.stopped)
	return cmp.Or(s.store.Err(), unworkable)
}

func (s *Service) emit(e poet.Event) {
	s.metrics.events.WithLabelValues(string(e.Kind)).Inc()
	poet.Tell(s.cfg.Log, e)
	if s.cfg.OnEvent != nil {
		s.cfg.OnEvent(e)
	}
}

// jumped tells of a jump of the wall clock.
func (s *Service) jumped(j clock.Jump) {
	way := "ahead"
	if j.By < 0 {
		way = "back"
	}
	e := poet.Event{Kind: poet.EventClockJumped, Text: fmt.Sprintf("the clock has gone %s: it is believed only if it stays there for %s", way, s.clock.Patience())}
	if j.Followed {
		e.Kind, e.Text = poet.EventClockFollowed, fmt.Sprintf("the clock has gone %s and stays there: it is followed", way)
	}
	e.Err = fmt.Errorf("it reads %s, %s off: look at the machine's time service", j.Wall.UTC().Format(time.RFC3339), j.By.Round(time.Millisecond))
	s.emit(e)
}

// Now returns the server's time: that of the wall clock, but a jump of it only once
// it has lasted (package clock). Whoever acts on time in this server asks here.
func (s *Service) Now() time.Time { return s.clock.Now() }

// Info describes the server.
func (s *Service) Info() poet.Info {
	info := poet.Info{
		PoetID:     types.NodeID(s.key.Public().(ed25519.PublicKey)),
		OpenRound:  poet.RoundID(s.openRound.Load()),
		PhaseShift: s.cfg.Schedule.PhaseShift,
		CycleGap:   s.cfg.Schedule.CycleGap,
		Certifier:  s.cfg.Certifier,
	}
	for _, r := range s.snapshot() {
		info.Executing = append(info.Executing, r.ID())
	}
	return info
}

// Proof returns the stored proof of a round, or ErrNotFound.
func (s *Service) Proof(round string) (poet.ProofRecord, error) {
	number, err := poet.ParseRoundID(round)
	if err != nil {
		return poet.ProofRecord{}, err
	}
	var p poet.ProofRecord
	if p.Message, err = s.store.Proof(number); err != nil {
		return poet.ProofRecord{}, err
	}
	p.Members, err = s.store.Challenges(number)
	return p, err
}

// Message returns the stored proof of a round as nodes take it, without its
// members, or ErrNotFound.
func (s *Service) Message(round uint32) (types.PoetProofMessage, error) { return s.store.Proof(round) }

// Members returns how many members a round has.
func (s *Service) Members(round uint32) uint64 { return s.store.Members(round) }

// Proofs returns the rounds whose proof is stored, from a number on, lowest first.
func (s *Service) Proofs(from uint32) ([]uint32, error) { return s.store.Proofs(from) }

// Rounds returns the open round, those at work, and the latest proved ones,
// lowest number first.
func (s *Service) Rounds() []poet.RoundStatus {
	var out []poet.RoundStatus
	add := func(r book.Round) {
		out = append(out, poet.RoundStatus{
			Round: r.ID(), State: r.State, Members: r.Members, Leaves: r.Leaves, Expected: r.Leaves,
			Start: s.cfg.Schedule.Start(r.Number), End: s.cfg.Schedule.End(r.Number),
		})
	}
	// Damage is found and told by those who need the data.
	proved, _ := s.store.Proofs(0)
	for _, n := range proved[max(0, len(proved)-provedShown):] {
		if r, found, err := s.store.Round(n); found && err == nil {
			add(r)
		}
	}
	for _, r := range s.snapshot() {
		if r.State == poet.StateClosed {
			r.Members = s.store.Members(r.Number)
		}
		add(r)
	}
	open := s.openRound.Load()
	add(book.Round{Number: open, Members: s.store.Members(open)})
	for _, r := range s.worker.Rounds() {
		if i := slices.IndexFunc(out, func(o poet.RoundStatus) bool { return o.Round == r.Round }); i >= 0 && out[i].State != poet.StateProved {
			out[i] = r
		}
	}
	return out
}

// DB returns the database, for reading buckets of other packages. They write with
// Update.
func (s *Service) DB() *bbolt.DB { return s.store.DB() }

// Update runs a transaction that is durable when it returns nil. The error wraps
// ErrDiskFull if there is no room; then nothing was changed. Values should be
// stored with book.SealValue.
func (s *Service) Update(fn func(tx *bbolt.Tx) error) error { return s.store.Update("delivery", fn) }
