// Package smeshing does the work that the passive smesher of package
// activation asks for: it fills and proves space, and speaks to PoETs.
//
// It promises: what is wrong with the space or with the addresses of PoETs is
// known before anything runs; the smesher's record is durable before the work
// that follows from it; all PoETs are asked side by side, each call has a
// deadline that follows from the network's times, and one that hangs, stalls,
// sends garbage, too much, or a lie costs nothing as long as another is well; a
// disk without room, or a PoET that cannot be used, is named, and tried again.
// Run blocks and leaves nothing behind.
//
// A node's identities smesh side by side, each with its key, space and record, and share the
// workers: what is wrong with one, at start or later, keeps no other.
//
// It leaves to the caller: to verify and store a PoET's proof (and tell Stored
// of every proof that is stored), to guard, store and gossip an ATX, and the
// clock.
package smeshing

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"tweedle/base/telemetry"
	"tweedle/base/words"
	"tweedle/edges/preset"
	"tweedle/edges/store"
	"tweedle/protocol/activation"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// stepRecord is the name of the smesher's record in local.db.
const stepRecord = "smesher"

// maxInputs bounds the results that wait for the machine.
const maxInputs = 64

// maxCall is the longest that a PoET may take for one answer; networks with
// short rounds allow less (callTimeout).
const maxCall = 10 * time.Second

// Node is what a smesher needs of the node around it.
type Node interface {
	// Highest returns the highest valid ATX published before an epoch, however long ago;
	// false when there is none.
	Highest(before types.Epoch) (types.ATXID, bool)
	// AddPoet verifies a proof and stores it, unless it is known.
	AddPoet(m *types.PoetProofMessage) error
	// PublishATX guards, stores and gossips our ATX. It may be asked for the
	// same one again.
	PublishATX(ctx context.Context, a *types.ATX) error
	// Slots returns the layers of an identity's slots of an epoch, ascending, as far as they
	// are known.
	Slots(id types.NodeID, e types.Epoch) []types.Layer
	// Elsewhere tells whether an identity was shown to sign somewhere else too.
	Elsewhere(id types.NodeID) bool
}

// Config is what a smesher is told.
type Config struct {
	Network  preset.Network
	Dir      string // of the space
	Evidence string // folder for what shows that a PoET cheated
	Signer   *signing.Signer
	Poets    []string // addresses as URLs, at most activation.MaxRegistrations
	Coinbase types.Address
	NumUnits uint32 // 0: what the space has, or the least that the network allows
	Workers  int    // goroutines for initializing and proving; 0: 1
	// NoPull leaves PoETs alone when a round is over: its proof must come from the network.
	NoPull bool
	Store  *store.DB
	Node   Node
	HTTP   http.RoundTripper // nil: the real network
	Now    func() time.Time  // nil: the machine's clock
	Log    *slog.Logger

	turn *turn // of the node; nil: it has no other identity
}

// Smesher smeshes with one identity. Make it with New, then Run it.
type Smesher struct {
	cfg      Config
	params   preset.Params
	rules    activation.Params
	schedule types.Schedule
	poet     types.PoetSchedule
	id       types.NodeID
	log      *slog.Logger

	machine *activation.Smesher
	inputs  chan activation.Input
	ended   chan struct{} // closed when Run begins to end
	work    sync.WaitGroup
	stop    map[activation.WorkKind]context.CancelFunc // of the work that runs; Run owns it
	poets   []*client
	trouble nag
	turn    *turn

	mu      sync.Mutex           // guards receipts, and
	accused map[poetRound]string // the files of evidence

	// commitment is what labels are to be bound to, if it is known from before.
	commitment *types.ATXID

	seen     atomic.Pointer[seen]
	progress atomic.Pointer[progress]
}

// progress of a long step, from 0 to 1.
type progress struct {
	part   float64
	detail string
}

// spaceError says what is wrong with a space: other spaces may be well.
type spaceError struct{ error }

func (e *spaceError) Unwrap() error { return e.error }

// New checks the space and the addresses, and loads the record. An error is one
// line that says what to do.
func New(cfg Config) (*Smesher, error) {
	params, err := cfg.Network.Params()
	if err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Smesher{
		cfg: cfg, params: params, rules: cfg.Network.Activation(params), schedule: cfg.Network.Schedule(params),
		poet: cfg.Network.PoetSchedule(params), id: cfg.Signer.NodeID(), log: cfg.Log,
		inputs: make(chan activation.Input, maxInputs), ended: make(chan struct{}), stop: make(map[activation.WorkKind]context.CancelFunc),
		accused: make(map[poetRound]string), turn: cfg.turn,
	}
	if s.turn == nil {
		s.turn = &turn{stuck: callTimeout(s.params)}
	}
	s.seen.Store(&seen{step: telemetry.SmesherStep{Step: "starting"}})
	if s.poets, err = s.clients(); err != nil {
		return nil, err
	}
	if _, err := s.rules.Post.NumLabels(cfg.NumUnits); err != nil && cfg.NumUnits != 0 {
		return nil, fmt.Errorf("--units %d: the network allows %d to %d", cfg.NumUnits, s.rules.Post.MinUnits, s.rules.Post.MaxUnits)
	}
	var rec activation.Record
	if err := cfg.Store.LoadStep(s.id, stepRecord, &rec); err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err := s.checkSpace(&rec); err != nil {
		return nil, &spaceError{err}
	}
	s.machine = activation.NewSmesher(activation.Config{
		Params: s.rules, Schedule: s.schedule, Poet: s.poet,
		NumUnits: s.cfg.NumUnits, Coinbase: cfg.Coinbase, Grace: params.PoetGrace,
		FetchDelay: fetchDelay(s.id, params.PoetCycleGap), Retry: params.LayerDuration / 2,
		Patience: callTimeout(s.params), ChooseBy: params.PoetCycleGap / 2,
	}, cfg.Signer, rec)
	return s, nil
}

// positions implements activation.Positions.
type positions struct{ *Smesher }

func (p positions) Highest(before types.Epoch) (types.ATXID, bool) { return p.cfg.Node.Highest(before) }

func (p positions) Last() (types.ATXID, types.Epoch, bool) {
	last, err := p.cfg.Store.LastATX(p.id)
	return last.ID, last.PublishEpoch, err == nil
}

// fetchDelay spreads the smeshers of a network evenly over a part of the cycle
// gap, each always at its own moment.
func fetchDelay(id types.NodeID, gap time.Duration) time.Duration {
	part := float64(binary.BigEndian.Uint64(id[:])) / (1 << 64)
	return time.Duration(part * float64(gap/50))
}

// callTimeout bounds one call of a PoET: proof and PoST must be done within the
// cycle gap.
func callTimeout(p preset.Params) time.Duration { return min(maxCall, p.PoetCycleGap/8) }

// pause is between two calls of a PoET that has no proof yet.
func (s *Smesher) pause() time.Duration { return min(maxCall, s.params.PoetCycleGap/32) }

// Stored tells of a valid PoET proof that was stored. It does not wait: what is
// lost here is found in the store.
func (s *Smesher) Stored(m *types.PoetProofMessage) {
	select {
	case s.inputs <- activation.ProofStored{Ref: m.Proof.Ref(), Statement: m.Statement, NumLeaves: m.Proof.NumLeaves}:
	default:
	}
}

// Run smeshes until ctx ends, and returns when all its work has.
func (s *Smesher) Run(ctx context.Context) error {
	defer s.work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer close(s.ended)
	var in activation.Input = activation.Tick{}
	for {
		out := s.machine.Step(s.cfg.Now(), in, positions{s})
		if out.Dropped != "" {
			s.log.Warn("smesher starts over", "reason", out.Dropped)
		}
		if out.Save {
			// If we stop before this is durable, the machine repeats the step.
			if err := s.cfg.Store.SaveStep(s.id, stepRecord, s.machine.Record()); err != nil {
				return fmt.Errorf("smesher: %w", err)
			}
		}
		s.endWork()
		for _, w := range out.Work {
			s.start(ctx, w)
		}
		s.report()
		wake := time.NewTimer(s.until(out.Wake))
		select {
		case <-ctx.Done():
			wake.Stop()
			return nil
		case in = <-s.inputs:
			wake.Stop()
		case <-wake.C:
			in = activation.Tick{}
		}
	}
}

// until bounds the pause, so that deadlines are noticed also if the machine
// named none.
func (s *Smesher) until(wake time.Time) time.Duration {
	pause := s.params.LayerDuration
	if !wake.IsZero() {
		pause = min(pause, wake.Sub(s.cfg.Now()))
	}
	return max(pause, 0)
}

func (s *Smesher) say(part float64, detail string) { s.progress.Store(&progress{min(part, 1), detail}) }

// endWork ends the search for a proof once one is chosen, or the challenge is
// dropped.
func (s *Smesher) endWork() {
	if p := s.machine.Record().Pending; p == nil || p.Poet != nil {
		for _, kind := range []activation.WorkKind{activation.WorkPlace, activation.WorkFetch} {
			if stop := s.stop[kind]; stop != nil {
				stop()
				delete(s.stop, kind)
			}
		}
	}
}

// start does one piece of work in a goroutine of its own. Of a kind the newest
// goes on: what is left of an older challenge's ends.
func (s *Smesher) start(ctx context.Context, w activation.Work) {
	if old := s.stop[w.Kind]; old != nil {
		old()
	}
	var end context.CancelFunc
	if w.Until.IsZero() {
		ctx, end = context.WithCancel(ctx)
	} else {
		ctx, end = context.WithTimeout(ctx, w.Until.Sub(s.cfg.Now()))
	}
	s.stop[w.Kind] = end
	s.work.Go(func() {
		defer end()
		in, err := s.do(ctx, w)
		if err != nil {
			in = activation.Failed{Kind: w.Kind, Of: w.Of, Reason: words.Of(err)}
			if ctx.Err() != context.Canceled && s.trouble.due(err.Error()) {
				s.log.Warn("smesher", "step", workName(w.Kind), "err", err)
			}
		}
		if in != nil {
			s.tell(in)
		}
	})
}

// tell hands a result to the machine; when it has ended there is nobody to
// tell, and nothing is lost: the work is done again at the next start.
func (s *Smesher) tell(in activation.Input) {
	select {
	case s.inputs <- in:
	case <-s.ended:
	}
}

func workName(k activation.WorkKind) string {
	return map[activation.WorkKind]string{
		activation.WorkInit: "initialize", activation.WorkRegister: "register", activation.WorkPlace: "place",
		activation.WorkFetch: "fetch", activation.WorkProve: "prove", activation.WorkPublish: "publish",
	}[k]
}

// do returns the result, or nil where results are told one by one.
func (s *Smesher) do(ctx context.Context, w activation.Work) (activation.Input, error) {
	switch w.Kind {
	case activation.WorkInit:
		return s.initialize(ctx)
	case activation.WorkRegister:
		return nil, s.register(ctx, w)
	case activation.WorkPlace:
		s.place(ctx, w)
		return nil, nil
	case activation.WorkFetch:
		s.fetch(ctx, w)
		return nil, nil
	case activation.WorkProve:
		proof, err := s.prove(ctx, w.PostChallenge)
		return activation.Proved{Challenge: w.PostChallenge, Post: proof}, err
	case activation.WorkPublish:
		return activation.Published{ID: w.ATX.ID()}, s.cfg.Node.PublishATX(ctx, w.ATX)
	}
	panic(fmt.Sprintf("smeshing: unknown work %d", w.Kind))
}

// nagEvery bounds the lines about one and the same trouble.
const nagEvery = time.Minute

// nag tells which troubles are worth a line: a new one at once, one that lasts
// once a minute.
type nag struct {
	mu   sync.Mutex
	text string
	at   time.Time
}

func (n *nag) due(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if text == n.text && time.Since(n.at) < nagEvery {
		return false
	}
	n.text, n.at = text, time.Now()
	return true
}
