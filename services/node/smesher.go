package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tweedle/base/telemetry"
	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/proofs/post"
	"tweedle/protocol/activation"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Names under which the smesher's record and setup are kept in local.db.
const (
	stepRecord = "record"
	stepSetup  = "setup"
)

// maxSmesherInputs bounds the results that wait for the smesher.
const maxSmesherInputs = 64

// smesher does the work that the passive machine of package activation asks
// for. The goroutine of Run owns the machine.
type smesher struct {
	n       *Node
	machine *activation.Smesher
	inputs  chan activation.Input
	work    sync.WaitGroup
	status  atomic.Pointer[telemetry.SmesherStep]
	poets   []*poetClient
	// progress of a long step in parts of 1<<20.
	progress atomic.Int64
	detail   atomic.Pointer[string]
	// members holds what we know of our membership in rounds, so that a proof
	// which comes by gossip alone is enough.
	mu       sync.Mutex
	members  map[activation.Registration]*memberOf
	accused  map[activation.Registration]string // the files of evidence
	learning atomic.Bool
}

// memberOf is our place in a round's statement.
type memberOf struct {
	poet      types.NodeID
	statement types.Hash32
	index     uint64
	total     uint64
	path      []types.Hash32
}

func newSmesher(n *Node, client *http.Client) (*smesher, error) {
	s := &smesher{n: n, inputs: make(chan activation.Input, maxSmesherInputs), members: make(map[activation.Registration]*memberOf), accused: make(map[activation.Registration]string)}
	if n.signer == nil {
		s.status.Store(&telemetry.SmesherStep{Step: "off"})
		return s, nil
	}
	s.status.Store(&telemetry.SmesherStep{Step: "starting"})
	for _, url := range n.cfg.Poets {
		s.poets = append(s.poets, &poetClient{base: url, http: client})
	}
	var rec activation.Record
	err := n.db.LoadStep(n.signer.NodeID(), stepRecord, &rec)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	p := n.params
	s.machine = activation.NewSmesher(activation.Config{
		Params: n.activation, Schedule: n.schedule, Poet: n.cfg.Network.PoetSchedule(p),
		NumUnits: n.cfg.NumUnits, Coinbase: n.cfg.Coinbase, Grace: p.PoetGrace,
		FetchDelay: s.fetchDelay(), Retry: p.LayerDuration / 2,
	}, n.signer, rec)
	return s, nil
}

// fetchDelay spreads the smeshers of a network over a part of the cycle gap,
// each always at its own moment.
func (s *smesher) fetchDelay() time.Duration {
	id := s.n.signer.NodeID()
	part := time.Duration(id[0]) * time.Duration(id[1]) // 0..65025
	return s.n.params.PoetCycleGap / 50 * part / 65025
}

// poke has the machine look at the clock and the store again.
func (s *smesher) poke() {
	select {
	case s.inputs <- activation.Tick{}:
	default:
	}
}

// Run drives the machine until ctx ends, and returns when all its work has.
func (s *smesher) Run(ctx context.Context) error {
	if s.machine == nil {
		<-ctx.Done()
		return nil
	}
	defer s.work.Wait()
	var in activation.Input = activation.Tick{}
	for {
		out := s.machine.Step(s.n.now(), in, s.n)
		if out.Dropped != "" {
			s.n.log.Warn("smesher starts over", "reason", out.Dropped)
		}
		if out.Save {
			// If we stop before this is durable, the machine repeats the step.
			if err := s.n.db.SaveStep(s.n.signer.NodeID(), stepRecord, s.machine.Record()); err != nil {
				return fmt.Errorf("smesher: %w", err)
			}
		}
		for _, w := range out.Work {
			s.start(ctx, w)
		}
		s.report()
		s.learn(ctx)
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
func (s *smesher) until(wake time.Time) time.Duration {
	pause := s.n.params.LayerDuration
	if !wake.IsZero() {
		pause = min(pause, wake.Sub(s.n.now()))
	}
	return max(pause, 0)
}

func (s *smesher) report() {
	step, until, trouble := s.machine.Status()
	st := &telemetry.SmesherStep{Step: string(step), Error: trouble}
	if !until.IsZero() {
		st.Until = until.UTC().Format(time.RFC3339)
	}
	s.status.Store(st)
}

// Status tells what the smesher is doing.
func (s *smesher) Status() telemetry.SmesherStep {
	st := *s.status.Load()
	if d := s.detail.Load(); d != nil && (st.Step == string(activation.StepInit) || st.Step == string(activation.StepProve)) {
		st.Detail = *d
		st.Progress = float64(s.progress.Load()) / (1 << 20)
	}
	return st
}

// start does one piece of work in a goroutine of its own; the machine never
// has two of a kind.
func (s *smesher) start(ctx context.Context, w activation.Work) {
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		if !w.Until.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, w.Until)
			defer cancel()
		}
		in, err := s.do(ctx, w)
		if err != nil {
			in = activation.Failed{Kind: w.Kind, Reason: err.Error()}
			s.n.log.Warn("smesher", "step", workName(w.Kind), "err", err)
		}
		s.tell(in)
	}()
}

// tell hands a result to the machine; when it has ended there is nobody to
// tell, and nothing is lost: the work is done again at the next start.
func (s *smesher) tell(in activation.Input) {
	select {
	case s.inputs <- in:
	case <-s.n.ending:
	}
}

func workName(k activation.WorkKind) string {
	return map[activation.WorkKind]string{
		activation.WorkInit: "initialize", activation.WorkRegister: "register", activation.WorkFetch: "fetch",
		activation.WorkProve: "prove", activation.WorkPublish: "publish",
	}[k]
}

func (s *smesher) do(ctx context.Context, w activation.Work) (activation.Input, error) {
	switch w.Kind {
	case activation.WorkInit:
		return s.initialize(ctx)
	case activation.WorkRegister:
		return s.register(ctx, w)
	case activation.WorkFetch:
		return s.fetch(ctx, w)
	case activation.WorkProve:
		proof, err := s.prove(ctx, w.PostChallenge)
		return activation.Proved{Challenge: w.PostChallenge, Post: proof}, err
	case activation.WorkPublish:
		return s.publish(ctx, w.ATX)
	}
	panic(fmt.Sprintf("node: unknown work %d", w.Kind))
}

func (s *smesher) dir() string { return filepath.Join(s.n.cfg.Dir, "post") }

// setup is what the labels are bound to: chosen once.
type setup struct{ commitment types.ATXID }

func (s *setup) EncodeTo(e *codec.Encoder)   { e.Raw(s.commitment[:]) }
func (s *setup) DecodeFrom(d *codec.Decoder) { d.Raw(s.commitment[:]) }

// initialize fills the space and proves it for the zero challenge.
func (s *smesher) initialize(ctx context.Context) (activation.Input, error) {
	id := s.n.signer.NodeID()
	var chosen setup
	err := s.n.db.LoadStep(id, stepSetup, &chosen)
	if errors.Is(err, store.ErrNotFound) {
		chosen.commitment = s.n.activation.Golden
		if highest, ok := s.n.Highest(s.n.epoch()); ok {
			chosen.commitment = highest
		}
		// If we stop before this is durable, no label was written yet.
		err = s.n.db.SaveStep(id, stepSetup, &chosen)
	}
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir(), 0o700); err != nil {
		return nil, err
	}
	started := s.n.now()
	meta, err := post.Init(s.dir(), s.n.activation.Post, post.Setup{
		NodeID: id, CommitmentATX: chosen.commitment, NumUnits: s.n.cfg.NumUnits,
	}, post.InitOptions{
		Workers: s.n.cfg.PostWorkers, Cancel: func() bool { return ctx.Err() != nil },
		Progress: func(p post.InitProgress) {
			left := p.Left(s.n.now().Sub(started))
			s.say(float64(p.Done)/float64(max(p.Total, 1)), fmt.Sprintf("%d of %d labels, %v left", p.Done, p.Total, left.Round(time.Second)))
		},
	})
	if err != nil {
		return nil, err
	}
	if meta.Nonce == nil {
		return nil, errors.New("space is initialized but has no VRF nonce")
	}
	proof, err := s.prove(ctx, types.PoetProofRef{})
	if err != nil {
		return nil, err
	}
	return activation.Initialized{Space: activation.Space{
		CommitmentATX: chosen.commitment, NumUnits: s.n.cfg.NumUnits, VRFNonce: *meta.Nonce, Post: proof,
	}}, nil
}

func (s *smesher) say(part float64, detail string) {
	s.progress.Store(int64(min(part, 1) * (1 << 20)))
	s.detail.Store(&detail)
}

// prove proves the space for a challenge.
func (s *smesher) prove(ctx context.Context, challenge types.PoetProofRef) (types.PostProof, error) {
	data, err := post.Open(s.dir())
	if err != nil {
		return types.PostProof{}, err
	}
	p, err := data.Prove(challenge, s.n.activation.Post, post.ProveOptions{
		Workers: s.n.cfg.PostWorkers, Cancel: func() bool { return ctx.Err() != nil },
		Progress: func(p post.ProveProgress) {
			s.say(float64(p.Done)/float64(max(p.Total, 1)), fmt.Sprintf("proving, nonces %d to %d", p.FirstNonce, p.EndNonce))
		},
		Lost: func(err error) { s.n.log.Warn("the proof does without a place that the disk lost", "error", err) },
	})
	return types.PostProof{Nonce: p.Nonce, Indices: p.Indices, Pow: p.Pow}, err
}

// register submits the challenge to every PoET until its round starts. Each
// success is told to the machine at once.
func (s *smesher) register(ctx context.Context, w activation.Work) (activation.Input, error) {
	deadline := s.n.schedule.EpochStart(s.n.schedule.EpochOf(s.n.schedule.LayerAt(w.Until)) + 2)
	errs := make([]error, len(s.poets))
	var all sync.WaitGroup
	for i, c := range s.poets {
		all.Add(1)
		go func() {
			defer all.Done()
			errs[i] = s.registerAt(ctx, c, w.Challenge, deadline)
		}()
	}
	all.Wait()
	for _, err := range errs {
		if err == nil {
			return activation.Tick{}, nil
		}
	}
	return nil, fmt.Errorf("no PoET takes our challenge: %w", errors.Join(errs...))
}

// registerAt tries one PoET again and again until ctx ends.
func (s *smesher) registerAt(ctx context.Context, c *poetClient, challenge types.Hash32, deadline time.Time) error {
	for {
		round, signed, err := c.register(ctx, s.n.activation.Network, s.n.signer, challenge, deadline)
		if err == nil {
			if err := s.receive(ctx, c, round, signed, challenge); err != nil {
				return err
			}
			s.n.log.Info("registered", "poet", c.base, "round", round)
			s.tell(activation.Registered{Challenge: challenge, Registration: activation.Registration{Poet: c.base, Round: round}})
			return nil
		}
		if errors.Is(err, errPoetRefused) || !sleep(ctx, s.n.params.LayerDuration/4) {
			return fmt.Errorf("PoET %s: %w", c.base, err)
		}
	}
}

// fetch looks for a proof of the rounds that we are registered for: at the
// PoETs, and among what gossip brought. It takes the one with most leaves of
// those that come within a moment of the first.
func (s *smesher) fetch(ctx context.Context, w activation.Work) (activation.Input, error) {
	patience := s.n.params.PoetCycleGap / 8
	var best *activation.Membership
	var since time.Time
	answered := make(map[activation.Registration]bool)
	var last error
	for {
		for _, r := range w.Registrations {
			if answered[r] {
				continue
			}
			m, err := s.membership(ctx, r, w.Challenge)
			if err != nil {
				last = fmt.Errorf("PoET %s, round %s: %w", r.Poet, r.Round, err)
				continue
			}
			answered[r] = true
			if best == nil {
				since = s.n.now()
			}
			if best == nil || m.NumLeaves > best.NumLeaves {
				best = m
			}
		}
		if best != nil && (len(answered) == len(w.Registrations) || s.n.now().Sub(since) >= patience) {
			return activation.Fetched{Challenge: w.Challenge, Membership: *best}, nil
		}
		if !sleep(ctx, s.n.params.PoetCycleGap/32) {
			if best != nil {
				return activation.Fetched{Challenge: w.Challenge, Membership: *best}, nil
			}
			return nil, errors.Join(ctx.Err(), last)
		}
	}
}

// membership finds a valid proof of a registration's round with our place in
// it.
func (s *smesher) membership(ctx context.Context, r activation.Registration, challenge types.Hash32) (*activation.Membership, error) {
	m, err := s.fromPoet(ctx, r, challenge)
	if err == nil {
		return m, nil
	}
	if got, gossipErr := s.fromGossip(r, challenge); gossipErr == nil {
		return got, nil
	}
	return nil, err
}

func (s *smesher) fromPoet(ctx context.Context, r activation.Registration, challenge types.Hash32) (*activation.Membership, error) {
	c := s.client(r.Poet)
	if c == nil {
		return nil, errors.New("it is not configured any more")
	}
	p, err := c.proof(ctx, r.Round)
	if err != nil {
		return nil, err
	}
	for i, member := range p.members {
		if member != challenge {
			continue
		}
		if _, err := s.n.addPoet(&p.msg); err != nil {
			return nil, err
		}
		m := &activation.Membership{
			Ref: p.msg.Proof.Ref(), NumLeaves: p.msg.Proof.NumLeaves, LeafIndex: uint64(i), NumMembers: uint64(len(p.members)),
		}
		for _, h := range merkle.Proof(p.members, uint64(i)) {
			m.Nodes = append(m.Nodes, h)
		}
		return m, nil
	}
	return nil, s.omitted(r, challenge, p)
}

func (s *smesher) client(base string) *poetClient {
	for _, c := range s.poets {
		if c.base == base {
			return c
		}
	}
	return nil
}

// learn asks for our places while the PoETs work, so that their proofs are of
// use to us also when the PoETs themselves are gone.
func (s *smesher) learn(ctx context.Context) {
	step, until, _ := s.machine.Status()
	if step != activation.StepWait || !s.learning.CompareAndSwap(false, true) {
		return
	}
	registrations := slices.Clone(s.machine.Record().Pending.Registrations)
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		defer s.learning.Store(false)
		ctx, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		for _, r := range registrations {
			if c := s.client(r.Poet); c != nil {
				s.learnMembership(ctx, c, r)
			}
		}
	}()
}

// learnMembership gets our place in a round that is running.
func (s *smesher) learnMembership(ctx context.Context, c *poetClient, r activation.Registration) {
	s.mu.Lock()
	known := s.members[r] != nil
	s.mu.Unlock()
	if known {
		return
	}
	poet, err := c.serviceID(ctx)
	if err != nil {
		return
	}
	resp, err := c.member(ctx, r.Round, s.n.signer.NodeID())
	if err != nil {
		return // it is no PoET of ours, or not ready: the proof itself has the members
	}
	root, err := hash32(resp.GetRoot())
	if err != nil {
		return
	}
	path, err := hash32s(resp.GetPath(), types.MaxMembershipNodes)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for old := range s.members {
		if old.Round != r.Round {
			delete(s.members, old)
		}
	}
	s.members[r] = &memberOf{poet, root, resp.GetIndex(), resp.GetMembers(), path}
}

// fromGossip combines a proof that came by gossip with what the PoET told us
// of our membership before.
func (s *smesher) fromGossip(r activation.Registration, challenge types.Hash32) (*activation.Membership, error) {
	s.mu.Lock()
	place := s.members[r]
	s.mu.Unlock()
	if place == nil {
		return nil, store.ErrNotFound
	}
	msg, err := s.n.db.PoetProofOf(place.statement)
	if err != nil {
		return nil, err
	}
	if err := merkle.Verify(msg.Statement, challenge, place.index, place.total, hashes(place.path)); err != nil {
		return nil, err
	}
	return &activation.Membership{
		Ref: msg.Proof.Ref(), NumLeaves: msg.Proof.NumLeaves, LeafIndex: place.index, NumMembers: place.total, Nodes: place.path,
	}, nil
}

// publish stores our ATX and gossips it. Storing is what counts: peers that
// do not hear it ask for the epoch's ATXs.
func (s *smesher) publish(ctx context.Context, a *types.ATX) (activation.Input, error) {
	id := a.ID()
	// If we stop before the guard holds, the ATX has not left us, and the
	// record still has it: the next start publishes the same one.
	if err := s.n.db.Guard(signing.ATX, a.SmesherID, uint64(a.PublishEpoch), types.Hash32(id)); err != nil {
		return nil, err
	}
	if _, err := s.n.addATX(a); err != nil {
		return nil, fmt.Errorf("our own ATX is not valid: %w", err)
	}
	if err := s.n.host.Publish(ctx, topicATX, codec.Encode(a)); err != nil && !errors.Is(err, p2p.ErrNoPeers) {
		return nil, err
	}
	s.n.log.Info("published ATX", "epoch", a.PublishEpoch, "id", id.Short())
	return activation.Published{ID: id}, nil
}
