package hare

import (
	"errors"
	"slices"
	"time"

	"tweedle/protocol/eligibility"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Params are the parts of the protocol that a network sets.
type Params struct {
	Committee  uint32 // seats of a round, and of those who sign what came of it, on average
	Leaders    uint32 // seats of a round in which sets are proposed
	Iterations int    // at most MaxIterations
	Delay      time.Duration
	Round      time.Duration
}

// last is the last round.
func (p Params) last() Round { return Notify.In(p.Iterations - 1) }

// threshold is more than half of a committee.
func (p Params) threshold() uint32 { return p.Committee/2 + 1 }

// maxSeats bounds the seats that speak in a round here, and so the memory for it. No
// draw of honest random values comes near.
func (p Params) maxSeats(r Round) uint32 { return 2*p.committee(r) + 64 }

// Slots is how many rounds of time a session takes at most.
func (p Params) Slots() int { return Hardlock.In(p.Iterations).slot() }

// Ends is how long after the start of its layer a round ends.
func (p Params) Ends(r Round) time.Duration { return p.Delay + time.Duration(r.slot()+1)*p.Round }

// Bound is how long after the start of its layer a session ends.
func (p Params) Bound() time.Duration { return p.Delay + time.Duration(p.Slots())*p.Round }

// Identity is a smesher's key.
type Identity interface {
	NodeID() types.NodeID
	Sign(d signing.Domain, msg []byte) types.Signature
}

// Member is one of our own smeshers.
type Member struct {
	Identity
	Weight uint64
}

// Seat is the random value of one of our smeshers in a round (Draw.Input): whoever has it
// computed gives it to Seat.
type Seat struct {
	Smesher types.NodeID
	Round   Round
	Proof   types.VRFSignature
}

// Session brings the smeshers of one layer to one set of proposals. It is a passive
// machine: time is an argument.
//
// What it promises, while less than a third of the weight is hostile and a message that
// one honest smesher has reaches all within a round: no two honest smeshers have
// different results, and whoever said two things in a round is found out.
//
// It holds the messages of Params.maxSeats seats in each round in which somebody speaks,
// two of a smesher at most; sets are at most MaxProposals long.
type Session struct {
	p     Params
	by    Draw
	start time.Time
	own   []Member
	set   func() []types.ProposalID

	slot   int                          // the next to begin
	drawn  int                          // iterations whose random values were asked for
	seats  map[place]types.VRFSignature // of ours
	rounds []votes
	valid  [6][]types.ProposalID // by grade; from grade 2 on
	sets   map[types.Hash32][]types.ProposalID
	lock   *types.Hash32 // what our smeshers commit to, or to nothing else
	hard   bool          // they do whatever the leader says
	result *types.Hash32
	ended  bool
}

// place is where one of ours may have seats.
type place struct {
	smesher types.NodeID
	round   Round
}

// NewSession returns the session of a layer that starts at a time, before which it only
// listens. set is called once, when our smeshers say what they begin with (Initial).
func NewSession(p Params, d Draw, layerStart time.Time, own []Member, set func() []types.ProposalID) *Session {
	return &Session{
		p: p, by: d, start: layerStart.Add(p.Delay), own: own, set: set,
		seats:  make(map[place]types.VRFSignature),
		rounds: make([]votes, p.last()+1),
		sets:   make(map[types.Hash32][]types.ProposalID),
	}
}

// slotAt returns the slot of a time; before the start it is negative.
func (s *Session) slotAt(now time.Time) int {
	d := now.Sub(s.start)
	if d < 0 {
		return -1
	}
	return int(min(d/s.p.Round, time.Duration(s.p.Slots())))
}

// Reasons why a message does not count, and is not passed on.
var (
	ErrHeard = errors.New("hare message is known")
	ErrFull  = errors.New("hare round has more seats than there can be")
)

// Equivocation is two messages of a smesher in one round that say different things
// (package malfeasance makes the proof of it).
type Equivocation struct{ A, B *Message }

// Hear counts a valid message that came at now, with the seats that it is for. Without an
// error it is to be passed on, also after the end. So is the second of a smesher that says
// something else, which makes all of one mind about the smesher; a third is not.
func (s *Session) Hear(now time.Time, m *Message, seats uint32) (*Equivocation, error) {
	if m.Round > s.p.last() {
		return nil, ErrRound
	}
	v, at, says := &s.rounds[m.Round], s.slotAt(now), m.Says()
	if before := v.of[m.Smesher]; before != nil {
		if before.says == says || before.again != never {
			return nil, ErrHeard
		}
		before.again = at
		return &Equivocation{before.first, m}, nil
	}
	if v.seats+seats > s.p.maxSeats(m.Round) {
		return nil, ErrFull
	}
	if v.of == nil {
		v.of = make(map[types.NodeID]*vote)
	}
	v.seats += seats
	x := &vote{first: m, says: says, seats: seats, at: at, again: never}
	if m.Round.lists() { // of no others lots are drawn
		x.ticket = ticket(m.Proof, seats)
	}
	v.of[m.Smesher] = x
	return nil, nil
}

// Held returns the seats for which messages are held, and the most that there may be.
func (s *Session) Held() (seats, most int) {
	for r := range s.rounds {
		if k := Round(r); k.lists() || k.names() {
			seats, most = seats+int(s.rounds[r].seats), most+int(s.p.maxSeats(k))
		}
	}
	return seats, most
}

// Knows tells whether Hear would say that a message is known.
func (s *Session) Knows(m *Message) bool {
	if m.Round > s.p.last() {
		return false
	}
	v := s.rounds[m.Round].of[m.Smesher]
	return v != nil && (v.says == m.Says() || v.again != never)
}

// Seat takes a random value of one of ours, which may be late: nothing is said in a round
// that has begun without it.
func (s *Session) Seat(v Seat) { s.seats[place{v.Smesher, v.Round}] = v.Proof }

// draw returns the rounds whose random values are needed next: those of the first
// iteration before it, of the others while the one before runs.
func (s *Session) draw(current int) (out []Round) {
	until := 0
	if current >= 0 {
		until = roundAt(current).Iteration() + 1
	}
	for ; len(s.own) > 0 && !s.ended && s.result == nil && s.drawn <= until && s.drawn < s.p.Iterations; s.drawn++ {
		if s.drawn == 0 {
			out = append(out, Preround)
		}
		for _, kind := range []Round{Propose, Commit, Notify} {
			out = append(out, kind.In(s.drawn))
		}
	}
	return out
}

// Output is what a step asks for.
type Output struct {
	// Draw are rounds for which the random values of our smeshers are to be computed
	// (Draw.Input), which takes some 0.1 ms for each, and given to Seat.
	Draw []Round
	// Signed is what our smeshers say. It is made durable first, then sent, and counts
	// here when it is heard back.
	Signed []*Message
	// Result is the set that was agreed on, once; not nil, also if it is empty.
	Result []types.ProposalID
	// Coin is the weak coin of the layer, once: mostly the same for all.
	Coin *bool
	// Ended says that there is nothing more to come: without a result, the layer has none.
	Ended bool
	// Wake is when the next step is due, zero if none is.
	Wake time.Time
}

// Step does what is due at now; the first one should come before the start. Nothing is said
// any more for a slot that is over.
func (s *Session) Step(now time.Time) (out Output) {
	current := s.slotAt(now)
	for ; s.slot <= current && !s.ended; s.slot++ {
		s.begin(roundAt(s.slot), s.slot == current, &out)
	}
	out.Draw = s.draw(current)
	if out.Ended = s.ended; !s.ended {
		out.Wake = s.start.Add(time.Duration(s.slot) * s.p.Round)
	}
	return out
}

// begin starts a round.
func (s *Session) begin(r Round, timely bool, out *Output) {
	last := r.Iteration() - 1
	switch r.Kind() {
	case Preround:
		if timely && len(s.own) > 0 {
			s.say(r, s.set(), out)
		}
	case Hardlock:
		s.notified(last, out)
		s.lock = s.committed(last, 4)
		s.hard = s.lock != nil
	case Softlock:
		s.supported(r, 5)
		if !s.hard && last >= 0 {
			s.lock = s.committed(last, 3)
		}
	case Propose:
		s.supported(r, 4)
		s.toss(r, out)
		set := s.valid[4]
		if ref := s.committed(last, 2); ref != nil {
			set = s.sets[*ref]
		}
		if timely {
			s.say(r, set, out)
		}
	case Wait1:
		s.supported(r, 3)
	case Wait2:
		s.supported(r, 2)
	case Commit:
		if ref := s.choose(r); ref != nil && timely {
			s.name(r, *ref, out)
		}
	case Notify:
		ref := s.result
		if ref == nil {
			ref = s.committed(r.Iteration(), 5)
		}
		if ref != nil && timely {
			s.name(r, *ref, out)
		}
	}
}

// supported fixes which proposals the preround supports at a grade, in the round in which
// the last of them have come.
func (s *Session) supported(r Round, g grade) {
	if r.Iteration() == 0 {
		s.valid[g] = s.rounds[Preround].proposals(g.closes(Preround), s.p.threshold())
	}
}

// toss reads the coin off the lowest ticket of the preround.
func (s *Session) toss(r Round, out *Output) {
	if r.Iteration() > 0 {
		return
	}
	if v := s.rounds[Preround].sorted(r.slot() - 1); len(v) > 0 {
		side := v[0].ticket[31]&1 == 1
		out.Coin = &side
	}
}

// committed returns the known set for which a threshold committed in an iteration, by
// what has a grade: nil if there is none. With less than a third of the weight hostile,
// there are no two.
func (s *Session) committed(iteration int, g grade) *types.Hash32 {
	return s.backed(Commit, iteration, g)
}

func (s *Session) backed(kind Round, iteration int, g grade) *types.Hash32 {
	if iteration < 0 {
		return nil
	}
	r := kind.In(iteration)
	for _, ref := range s.rounds[r].sets(g.closes(r), s.p.threshold()) {
		if _, known := s.sets[ref]; known {
			return &ref
		}
	}
	return nil
}

// notified ends the session one iteration after it has a result, or with the last one.
func (s *Session) notified(iteration int, out *Output) {
	if iteration < 0 {
		return
	}
	if s.result != nil {
		s.ended = true
	} else if s.result = s.backed(Notify, iteration, 5); s.result != nil {
		out.Result = append([]types.ProposalID{}, s.sets[*s.result]...)
	}
	s.ended = s.ended || iteration+1 == s.p.Iterations
}

// choose returns which set our smeshers commit to, nil if to none. The leader is who has
// the lowest ticket of those whose proposal can be: its set is chosen or none. If one
// honest smesher chooses it at grade 2, it is the leader for all at grade 1, so that no two
// choose different sets. (To go on to the next leader would give that up.)
func (s *Session) choose(r Round) *types.Hash32 {
	iteration := r.Iteration()
	var leader *cast
	for _, c := range s.rounds[Propose.In(iteration)].casts(Propose.In(iteration)) {
		if !subset(c.first.Set, s.valid[2]) {
			continue
		}
		s.sets[c.says] = c.first.Set
		if leader == nil {
			leader = &c
		}
	}
	switch {
	case s.hard:
		return s.lock
	case leader == nil || !leader.sure || !subset(leader.first.Set, s.valid[3]):
		return nil
	case s.lock != nil && *s.lock != leader.says:
		return nil
	case !subset(s.valid[5], leader.first.Set) && !s.wasCommitted(iteration-1, leader.says):
		return nil
	}
	return &leader.says
}

// wasCommitted tells whether a threshold committed to a set in an iteration, as far as
// anybody can know.
func (s *Session) wasCommitted(iteration int, ref types.Hash32) bool {
	if iteration < 0 {
		return false
	}
	r := Commit.In(iteration)
	return slices.Contains(s.rounds[r].sets(grade(1).closes(r), s.p.threshold()), ref)
}

func subset(a, of []types.ProposalID) bool {
	for _, id := range a {
		if _, ok := slices.BinarySearchFunc(of, id, compareIDs); !ok {
			return false
		}
	}
	return true
}

// say has those of us who have seats in a round list a set, and name has them name one.
func (s *Session) say(r Round, set []types.ProposalID, out *Output) {
	s.sign(Message{Round: r, Set: set}, out)
}

func (s *Session) name(r Round, ref types.Hash32, out *Output) {
	s.sign(Message{Round: r, Ref: ref}, out)
}

func (s *Session) sign(say Message, out *Output) {
	for _, own := range s.own {
		m, ok := say, false
		m.Layer, m.Smesher = s.by.Layer, own.NodeID()
		m.Proof, ok = s.seats[place{m.Smesher, m.Round}]
		if !ok || eligibility.Seats(s.p.committee(m.Round), own.Weight, s.by.Total, m.Proof) == 0 {
			continue
		}
		m.Signature = own.Sign(signing.Hare, SignedBytes(m.Layer, m.Round, m.Says()))
		out.Signed = append(out.Signed, &m)
	}
}
