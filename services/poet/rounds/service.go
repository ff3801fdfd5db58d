package rounds

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tweedle/base/clock"
	"tweedle/base/durable"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

// Service is a PoET server without its network side. Its methods may be called
// concurrently, also before and after Run.
type Service struct {
	cfg     Config
	key     ed25519.PrivateKey
	lock    io.Closer
	book    *book.Book
	clock   *clock.Clock
	metrics *metrics
	worker  *work.Worker

	registrar registrar
	storage   storage

	machine *Machine                 // owned by the driver
	latest  atomic.Pointer[snapshot] // of it, for all others
	calls   chan call                // to the driver
	jobs    chan work.Job            // to the worker
	stopped chan struct{}            // closed when Run ends
}

// snapshot is what the machine knows.
type snapshot struct {
	open   uint32
	rounds []poet.Round // closed and not proved
	refuse string       // why no registration is taken, or empty
}

// roundsDir is where the journals are, in the data directory.
const roundsDir = "rounds"

// maxUnproved is the number of rounds that may close while the worker does not come
// to take them. One closes in an epoch, and each ends.
const maxUnproved = 1 << 10

// provedShown is the number of rounds before the open one whose proof Rounds shows.
const provedShown = 8

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = durable.OS{}
	}
	c.MaxRoundMembers = cmp.Or(c.MaxRoundMembers, DefaultMaxRoundMembers)
	c.MaxSubmitBatch = cmp.Or(c.MaxSubmitBatch, DefaultMaxSubmitBatch)
	c.SubmitFlush = cmp.Or(c.SubmitFlush, DefaultSubmitFlush)
	c.BallastBytes = cmp.Or(c.BallastBytes, DefaultBallastBytes)
	c.Work.ProveWorkers = cmp.Or(c.Work.ProveWorkers, runtime.GOMAXPROCS(0))
	return c
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
		cfg: cfg, metrics: newMetrics(cfg.Metrics),
		calls: make(chan call), stopped: make(chan struct{}),
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
	if err := s.checkImport(); err != nil {
		return nil, err
	}
	if s.key, err = loadIdentity(cfg.FS, cfg.Dir, cfg.Key, cfg.NewIdentity); err != nil {
		return nil, err
	}
	if !cfg.Importing { // the published server has journals, and another database
		if err := checkLost(cfg.Dir); err != nil {
			return nil, err
		}
	}
	if s.book, err = book.Open(cfg.Dir, cfg.Schedule, cfg.AcceptOlderState); err != nil {
		return nil, err
	}
	if err := s.book.Own(s.key.Public().(ed25519.PublicKey), cfg.NewIdentity); err != nil {
		return nil, err
	}
	cfg.Work.Dir, cfg.Work.FS = filepath.Join(cfg.Dir, roundsDir), cfg.FS
	cfg.Work.Now, cfg.Work.Emit, cfg.Work.Metrics = s.clock.Now, s.emit, cfg.Metrics
	if s.worker, err = work.New(cfg.Work); err != nil {
		return nil, err
	}
	s.storage.Service, s.registrar.Service = s, s
	if err := s.registrar.load(); err != nil {
		return nil, err
	}
	return s, s.loadMachine()
}

func (s *Service) loadMachine() error {
	state, err := s.book.State()
	if err != nil {
		return err
	}
	if state.New {
		// Before anybody registers: else a start after a stop right at the end of
		// this round would not know that it was open.
		state.Open = s.cfg.Schedule.Open(s.clock.Now())
		if err := s.book.WriteOpen(state.Open); err != nil {
			return err
		}
	}
	s.machine = NewMachine(s.cfg.Schedule, state)
	s.jobs = make(chan work.Job, len(s.machine.Rounds())+maxUnproved)
	s.publish(false)
	return nil
}

// publish shows others what the machine knows.
func (s *Service) publish(strayed bool) {
	v := snapshot{open: s.machine.Open(), rounds: s.machine.Rounds()}
	if strayed {
		v.refuse = "by the server's clock another round should be open, and its administrator has been told"
	}
	s.latest.Store(&v)
}

// Close releases the data directory. Call it after Run has returned.
func (s *Service) Close() error {
	var errs []error
	if s.book != nil {
		errs = append(errs, s.book.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Run does everything that happens by itself until ctx ends: it stores
// registrations, closes, executes and proves rounds. When ctx ends it
// checkpoints and returns nil, within a second. Any other return is an error of
// the disk that only a person, or a restart, can clear. Call it once.
func (s *Service) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	defer close(s.stopped)
	if err := s.checkClock(ctx); err != nil {
		if ctx.Err() != nil {
			err = nil
		}
		return cmp.Or(err, s.book.Err())
	}
	d := &driver{Service: s, ctx: ctx, group: &group}
	// The first step comes before the first registration, which must not join a
	// round whose time was over while nobody was here.
	d.step(nil)
	group.Go(d.drive)
	group.Go(func() { s.registrar.run(ctx) })
	group.Go(func() { s.storage.watch(ctx) })
	worked := make(chan error, 1)
	group.Go(func() { worked <- s.worker.Run(ctx, source{s}) })
	select {
	case <-ctx.Done():
	case <-s.book.Failed():
		err = s.book.Err()
	case err = <-worked:
		if err != nil {
			err = fmt.Errorf("no round is executed any more: %w", err)
		}
	}
	cancel()
	group.Wait()
	return cmp.Or(err, s.book.Err())
}

// checkClock waits, before anything is decided, where the first reading of the clock
// would end a round: that cannot be taken back.
func (s *Service) checkClock(ctx context.Context) error {
	if !s.machine.Over(s.clock.Now()) {
		return nil
	}
	s.emit(poet.Event{Kind: poet.EventClockChecked, Text: fmt.Sprintf("by the clock a round has ended while the server was stopped: that counts when the clock has gone on evenly for %s", s.clock.Patience())})
	before := *s.latest.Load()
	before.refuse = "the server has started and looks at its clock"
	s.latest.Store(&before)
	return s.clock.Settle(ctx)
}

func (s *Service) emit(e poet.Event) {
	s.metrics.count(e)
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

func (s *Service) id() types.NodeID { return types.NodeID(s.key.Public().(ed25519.PublicKey)) }

// Book returns what the service keeps, for those who read it and have buckets of
// their own in it.
func (s *Service) Book() *book.Book { return s.book }

// Info describes the server.
func (s *Service) Info() poet.Info {
	now := s.latest.Load()
	info := poet.Info{
		PoetID:     s.id(),
		OpenRound:  poet.RoundID(now.open),
		PhaseShift: s.cfg.Schedule.PhaseShift,
		CycleGap:   s.cfg.Schedule.CycleGap,
		Certifier:  s.cfg.Certifier,
	}
	for _, r := range now.rounds {
		info.Executing = append(info.Executing, r.ID())
	}
	return info
}

// Proof returns the stored proof of a round, or poet.ErrNotFound.
func (s *Service) Proof(ctx context.Context, round string) (poet.ProofRecord, error) {
	number, err := poet.ParseRoundID(round)
	if err != nil {
		return poet.ProofRecord{}, err
	}
	var p poet.ProofRecord
	if p.Message, err = s.book.Proof(number); err != nil {
		return poet.ProofRecord{}, err
	}
	p.Members, err = s.book.Challenges(ctx, number)
	return p, err
}

// Member returns a registration with its membership proof, once its round is
// closed; poet.ErrNotFound before, and if there is no such member.
func (s *Service) Member(ctx context.Context, round string, nodeID []byte) (poet.MembershipProof, error) {
	number, err := poet.ParseRoundID(round)
	if err != nil {
		return poet.MembershipProof{}, err
	}
	if len(nodeID) != len(types.NodeID{}) {
		return poet.MembershipProof{}, fmt.Errorf("public key has %d bytes: %w", len(nodeID), poet.ErrInvalid)
	}
	statement, err := s.statement(number)
	if err != nil {
		return poet.MembershipProof{}, err
	}
	p, err := s.book.Prove(ctx, number, types.NodeID(nodeID))
	if errors.Is(err, poet.ErrNotFound) {
		err = fmt.Errorf("%x is no member of round %s: %w", nodeID, round, poet.ErrNotFound)
	}
	if err != nil {
		return poet.MembershipProof{}, err
	}
	if p.Statement != statement {
		return poet.MembershipProof{}, fmt.Errorf("%s: members of round %s do not give its root: %w: restore the file from a copy", book.DatabaseName, round, poet.ErrDamaged)
	}
	return p, nil
}

// statement returns the membership root of a round that has one.
func (s *Service) statement(number uint32) ([32]byte, error) {
	if r, found := s.executing(number); found {
		return r.Statement, nil
	}
	m, err := s.book.Proof(number)
	if errors.Is(err, poet.ErrNotFound) {
		err = fmt.Errorf("round %d has no membership root: %w", number, poet.ErrNotFound)
	}
	return m.Statement, err
}

// Rounds returns the open round, those at work, and the latest proved ones,
// lowest number first.
func (s *Service) Rounds() []poet.RoundStatus {
	var out []poet.RoundStatus
	open := s.latest.Load().open
	// Damage is found and told by those who need the data.
	proved, _ := s.book.Proofs(open - min(open, provedShown))
	for _, n := range proved {
		if m, err := s.book.Proof(n); err == nil {
			out = append(out, s.status(poet.Round{Number: n, State: poet.StateProved, Members: s.book.Members(n)}, m.Proof.NumLeaves))
		}
	}
	out = append(out, s.atWork()...)
	slices.SortStableFunc(out, func(a, b poet.RoundStatus) int { return a.Start.Compare(b.Start) })
	return out
}

// atWork returns the open round and those that are closed and not proved.
func (s *Service) atWork() []poet.RoundStatus {
	now, working := s.latest.Load(), s.worker.Rounds()
	var out []poet.RoundStatus
	for _, r := range append(slices.Clone(now.rounds), poet.Round{Number: now.open}) {
		status := s.status(r, 0)
		if i := slices.IndexFunc(working, func(w poet.RoundStatus) bool { return w.Round == r.ID() }); i >= 0 {
			status = working[i]
		} else if r.State != poet.StateExecuting {
			status.Members = s.book.Members(r.Number)
		}
		out = append(out, status)
	}
	return out
}

func (s *Service) status(r poet.Round, leaves uint64) poet.RoundStatus {
	return poet.RoundStatus{
		Round: r.ID(), State: r.State, Members: r.Members, Leaves: leaves, Expected: leaves,
		Start: s.cfg.Schedule.Start(r.Number), End: s.cfg.Schedule.End(r.Number),
	}
}
