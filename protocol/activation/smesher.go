package activation

import (
	"fmt"
	"slices"
	"time"

	"tweedle/values/signing"
	"tweedle/values/types"
)

// Config is what a smesher's steps depend on.
type Config struct {
	Params   Params
	Schedule types.Schedule
	Poet     types.PoetSchedule
	NumUnits uint32
	Coinbase types.Address
	// Grace is how long before a round starts the challenge is made: as late
	// as is safe, so that the positioning ATX is as high as possible.
	Grace time.Duration
	// FetchDelay is how long after a round's end its proof is first asked
	// for. It should differ from smesher to smesher.
	FetchDelay time.Duration
	// Retry is the pause after work that failed.
	Retry time.Duration
	// Patience is how long a proof waits for better ones, twice that if no PoET
	// gave it to us: anybody can make one of little work.
	Patience time.Duration
	// ChooseBy is how long after a round's end PoETs that still work on their
	// proof are waited for when there is another.
	ChooseBy time.Duration
}

// Signer is the smesher's identity.
type Signer interface {
	NodeID() types.NodeID
	Sign(d signing.Domain, msg []byte) types.Signature
}

// Positions finds what a new ATX can be positioned on.
type Positions interface {
	// Highest returns the highest valid ATX published before an epoch,
	// however long ago; false when there is none.
	Highest(before types.Epoch) (types.ATXID, bool)
	// Last returns the newest valid ATX of the smesher itself; false when the
	// network knows none. It is what a lost record would have said.
	Last() (types.ATXID, types.Epoch, bool)
}

// Work is something that takes time. The caller does it and answers with the
// input that is named at each kind, or with Failed.
type Work struct {
	Kind WorkKind
	// Of names what the work is for: the challenge to register, to find the
	// place or the proof of; the proof to prove space for; the ATX. Failed
	// repeats it.
	Of types.Hash32
	// Until is when the result stops being of use.
	Until time.Time
	// Registrations of the challenge whose place or proof is wanted.
	Registrations []Registration
	// PostChallenge to prove space for.
	PostChallenge types.PoetProofRef
	// ATX to publish.
	ATX *types.ATX
}

// WorkKind names a kind of work.
type WorkKind int

// The kinds of work.
const (
	WorkInit     WorkKind = iota + 1 // initialize space and prove it: Initialized
	WorkRegister                     // at every PoET: Registered, once for each success
	WorkPlace                        // in the rounds' statements: Placed, once for each registration
	WorkFetch                        // proofs of the registered rounds: Fetched or Answered, until told to end
	WorkProve                        // space for a challenge: Proved
	WorkPublish                      // an ATX: Published
)

// Input is what happened: one of the types below.
type Input interface{ input() }

// Tick says only that time has passed.
type Tick struct{}

// Initialized answers WorkInit.
type Initialized struct{ Space Space }

// Registered answers WorkRegister.
type Registered struct {
	Challenge    types.Hash32
	Registration Registration
}

// Placed answers WorkPlace. The registration has its Place, which is checked.
type Placed struct {
	Challenge    types.Hash32
	Registration Registration
}

// Fetched answers WorkFetch with a valid proof that the registration's PoET
// gave, and our place in it.
type Fetched struct {
	Challenge    types.Hash32
	Registration Registration
	Membership   Membership
}

// Answered says what a registration's PoET did that gave no proof: either it
// still works on it, or it said nothing of use.
type Answered struct {
	Challenge    types.Hash32
	Registration Registration
	Works        bool
}

// ProofStored says that a valid proof is there, from whoever it came.
type ProofStored struct {
	Ref       types.PoetProofRef
	Statement types.Hash32
	NumLeaves uint64
}

// Proved answers WorkProve.
type Proved struct {
	Challenge types.PoetProofRef
	Post      types.PostProof
}

// Published answers WorkPublish.
type Published struct{ ID types.ATXID }

// Failed says that work came to nothing; it will be asked for again.
type Failed struct {
	Kind   WorkKind
	Of     types.Hash32
	Reason string
}

func (Tick) input()        {}
func (Initialized) input() {}
func (Registered) input()  {}
func (Placed) input()      {}
func (Fetched) input()     {}
func (Answered) input()    {}
func (ProofStored) input() {}
func (Proved) input()      {}
func (Published) input()   {}
func (Failed) input()      {}

// Step names where the smesher is.
type Step string

// The steps in their order.
const (
	StepInit     Step = "initializing"
	StepIdle     Step = "idle" // waits for the time to make its next challenge
	StepRegister Step = "registering"
	StepWait     Step = "waiting" // for the PoET round to end
	StepFetch    Step = "fetching"
	StepProve    Step = "proving"
	StepPublish  Step = "publishing"
)

// Output says what is to be done, in this order.
type Output struct {
	// Save tells that the record changed. If we stop before it is durable,
	// the same step is done again at start; therefore save before the work.
	Save bool
	// Work to start now.
	Work []Work
	// Wake is when to call Step with a Tick at the latest, or zero.
	Wake time.Time
	// Dropped tells why a challenge was given up, or is empty.
	Dropped string
}

// Smesher is the passive machine of one identity's way to its next ATX.
type Smesher struct {
	cfg     Config
	id      Signer
	rec     Record
	running map[WorkKind]types.Hash32 // what for
	retryAt map[WorkKind]time.Time
	fetch   fetching
	lastErr string
	step    Step
	until   time.Time
}

// NewSmesher returns the machine as its record left it.
func NewSmesher(cfg Config, id Signer, rec Record) *Smesher {
	return &Smesher{
		cfg: cfg, id: id, rec: rec, step: StepInit,
		running: make(map[WorkKind]types.Hash32), retryAt: make(map[WorkKind]time.Time),
	}
}

// Record returns what is to be saved. It shares memory with the machine.
func (s *Smesher) Record() *Record { return &s.rec }

// Status tells the step, when it should end (or zero), and the last trouble.
func (s *Smesher) Status() (step Step, until time.Time, trouble string) {
	return s.step, s.until, s.lastErr
}

// Step feeds the machine one input at now, which never goes backwards.
//
// The publish epoch is always taken from the clock: a challenge that can no
// longer be met is dropped and a new one is made at once, so an epoch that
// everybody missed costs that epoch and nothing else.
func (s *Smesher) Step(now time.Time, in Input, pos Positions) Output {
	var out Output
	s.take(now, in, &out)
	for s.advance(now, pos, &out) {
	}
	return out
}

// take records the result of work. What belongs to another challenge than the
// pending one changes nothing.
func (s *Smesher) take(now time.Time, in Input, out *Output) {
	p := s.rec.Pending
	if p == nil {
		p = &Pending{} // that nothing belongs to
	}
	switch in := in.(type) {
	case Failed:
		if of, ok := s.running[in.Kind]; ok && of == in.Of {
			delete(s.running, in.Kind)
			s.retryAt[in.Kind] = now.Add(s.cfg.Retry)
			s.lastErr = in.Reason
		}
	case Initialized:
		s.done(WorkInit)
		s.rec.Space = &in.Space
		out.Save = true
	case Registered:
		if p.registration(in.Challenge, in.Registration) != nil || p.hash() != in.Challenge || len(p.Registrations) >= MaxRegistrations {
			return
		}
		p.Registrations = append(p.Registrations, in.Registration)
		s.lastErr = ""
		out.Save = true
	case Placed:
		r := p.registration(in.Challenge, in.Registration)
		if place := in.Registration.Place; r != nil && place != nil && place.holds(in.Challenge) {
			r.Place = place
			out.Save = true
		}
	case Fetched:
		if p.registration(in.Challenge, in.Registration) != nil && p.Poet == nil {
			s.fetch.offer(now, in.Membership, s.cfg.Patience)
			s.fetch.answer(in.Registration, answerProof)
			s.lastErr = ""
		}
	case Answered:
		if p.registration(in.Challenge, in.Registration) != nil && p.Poet == nil {
			s.fetch.answer(in.Registration, map[bool]answer{true: answerWorks, false: answerNone}[in.Works])
		}
	case ProofStored:
		s.stored(now, p, in)
	case Proved:
		if p.Poet != nil && p.Poet.Ref == in.Challenge && p.Post == nil {
			s.done(WorkProve)
			p.Post = &in.Post
			out.Save = true
		}
	case Published:
		if p.ATX != nil && p.ATX.ID() == in.ID {
			s.rec.Last, s.rec.LastEpoch = in.ID, p.ATX.PublishEpoch
			s.drop(out)
		}
	}
}

// drop ends the pending challenge and all that was done for it.
func (s *Smesher) drop(out *Output) {
	s.rec.Pending, s.fetch, s.lastErr = nil, fetching{}, ""
	clear(s.running)
	clear(s.retryAt)
	out.Save = true
}

func (s *Smesher) done(k WorkKind) {
	delete(s.running, k)
	delete(s.retryAt, k)
	s.lastErr = ""
}

// advance makes one step and tells whether another may follow at once.
func (s *Smesher) advance(now time.Time, pos Positions, out *Output) bool {
	if s.rec.Space == nil {
		s.at(StepInit, time.Time{})
		s.work(now, out, Work{Kind: WorkInit})
		return false
	}
	p := s.rec.Pending
	if p == nil {
		if id, epoch, ok := pos.Last(); ok && (epoch > s.rec.LastEpoch || s.rec.Last.IsZero()) {
			s.rec.Last, s.rec.LastEpoch = id, epoch
			out.Save = true
		}
		return s.challenge(now, pos, out)
	}
	if why := s.hopeless(now, p); why != "" {
		out.Dropped = fmt.Sprintf("challenge for epoch %d dropped: %s", p.Challenge.PublishEpoch, why)
		s.drop(out)
		return true
	}
	round := s.round(p.Challenge.PublishEpoch)
	start, end := s.cfg.Poet.Start(round), s.cfg.Poet.End(round)
	switch {
	case p.ATX != nil:
		s.at(StepPublish, s.publishDeadline(p.Challenge.PublishEpoch))
		s.work(now, out, Work{Kind: WorkPublish, Of: types.Hash32(p.ATX.ID()), ATX: p.ATX, Until: s.until})
	case p.Post != nil:
		p.ATX = s.build(p)
		out.Save = true
		return true
	case p.Poet != nil:
		s.at(StepProve, s.publishDeadline(p.Challenge.PublishEpoch))
		s.work(now, out, Work{Kind: WorkProve, Of: types.Hash32(p.Poet.Ref), PostChallenge: p.Poet.Ref, Until: s.until})
	case now.Before(start):
		s.at(StepRegister, start)
		s.work(now, out, Work{Kind: WorkRegister, Of: p.hash(), Until: start})
		s.wake(out, start)
	case now.Before(end.Add(s.cfg.FetchDelay)):
		s.at(StepWait, end)
		if missing := p.unplaced(); len(missing) > 0 && now.Before(end) {
			s.work(now, out, Work{Kind: WorkPlace, Of: p.hash(), Registrations: missing, Until: end})
		}
		s.wake(out, end.Add(s.cfg.FetchDelay))
	default:
		s.at(StepFetch, s.publishDeadline(p.Challenge.PublishEpoch))
		if s.choose(now, end, p, out) {
			return true
		}
		s.work(now, out, Work{Kind: WorkFetch, Of: p.hash(), Registrations: slices.Clone(p.Registrations), Until: s.until})
		s.wake(out, s.until)
	}
	return false
}

// challenge makes the next challenge if it is time, and tells whether it did.
func (s *Smesher) challenge(now time.Time, pos Positions, out *Output) bool {
	epoch := s.nextEpoch(now)
	begin := s.cfg.Poet.Start(s.round(epoch)).Add(-s.cfg.Grace)
	if now.Before(begin) {
		s.at(StepIdle, begin)
		s.wake(out, begin)
		return false
	}
	c := types.PoetChallenge{PublishEpoch: epoch, PreviousATX: s.rec.Last, PositioningATX: s.cfg.Params.Golden}
	if highest, ok := pos.Highest(epoch); ok {
		c.PositioningATX = highest
	} else if !s.rec.Last.IsZero() {
		c.PositioningATX = s.rec.Last
	}
	if s.rec.Last.IsZero() {
		post := s.rec.Space.Post
		c.InitialPost = &post
	}
	s.rec.Pending = &Pending{Challenge: c}
	out.Save = true
	return true
}

// nextEpoch returns the first epoch, after the last one published in, whose
// PoET round still takes registrations.
func (s *Smesher) nextEpoch(now time.Time) types.Epoch {
	return max(types.Epoch(s.cfg.Poet.Open(now))+1, s.rec.LastEpoch+1)
}

// round returns the PoET round that serves the ATXs of a publish epoch.
func (s *Smesher) round(publish types.Epoch) uint32 { return uint32(publish) - 1 }

func (s *Smesher) publishDeadline(e types.Epoch) time.Time { return s.cfg.Schedule.EpochStart(e + 1) }

// hopeless tells why a challenge cannot be met any more, or nothing.
func (s *Smesher) hopeless(now time.Time, p *Pending) string {
	e := p.Challenge.PublishEpoch
	switch {
	case !now.Before(s.publishDeadline(e)):
		return "its publish epoch is over"
	case len(p.Registrations) == 0 && !now.Before(s.cfg.Poet.Start(s.round(e))):
		return "no PoET took it before its round began"
	}
	// A proof that is late is waited for to the end of the epoch: the round for
	// the next one has begun without us by then, so giving up gains nothing.
	return ""
}

// build assembles and signs the ATX. It is stored with the record before it
// is published, so a crash never makes a second one.
func (s *Smesher) build(p *Pending) *types.ATX {
	a := &types.ATX{
		PublishEpoch:   p.Challenge.PublishEpoch,
		PositioningATX: p.Challenge.PositioningATX,
		Coinbase:       s.cfg.Coinbase,
		VRFNonce:       s.rec.Space.VRFNonce,
		SmesherID:      s.id.NodeID(),
		NIPosts: []types.NIPost{{
			Membership: p.Poet.Nodes,
			NumMembers: p.Poet.NumMembers,
			PoetProof:  p.Poet.Ref,
			Posts: []types.SubPost{{
				MembershipLeafIndex: p.Poet.LeafIndex,
				Post:                *p.Post,
				NumUnits:            s.rec.Space.NumUnits,
			}},
		}},
	}
	if p.Challenge.InitialPost != nil {
		a.Initial = &types.InitialATX{CommitmentATX: s.rec.Space.CommitmentATX, Post: *p.Challenge.InitialPost}
	} else {
		a.PreviousATXs = []types.ATXID{p.Challenge.PreviousATX}
	}
	id := a.ID()
	a.Signature = s.id.Sign(signing.ATX, id[:])
	return a
}

// work asks for w unless it is being done, or must wait after a failure.
func (s *Smesher) work(now time.Time, out *Output, w Work) {
	if of, ok := s.running[w.Kind]; ok && of == w.Of {
		return
	}
	if at, ok := s.retryAt[w.Kind]; ok && now.Before(at) {
		s.wake(out, at)
		return
	}
	s.running[w.Kind] = w.Of
	out.Work = append(out.Work, w)
}

func (s *Smesher) wake(out *Output, at time.Time) {
	if out.Wake.IsZero() || at.Before(out.Wake) {
		out.Wake = at
	}
}

func (s *Smesher) at(step Step, until time.Time) { s.step, s.until = step, until }
