package beacon

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"time"

	"tweedle/values/signing"
	"tweedle/values/types"
)

// Member is a smesher that takes part: one with an ATX for the epoch in which the
// protocol runs, that came before it started.
type Member struct {
	Smesher types.NodeID
	Weight  uint64
	Units   uint32
	Nonce   uint64
	Early   bool // the ATX came some time before the start: it has come to everybody
}

// Identity is a smesher's key.
type Identity interface {
	NodeID() types.NodeID
	Sign(d signing.Domain, msg []byte) types.Signature
	VRF(msg []byte) types.VRFSignature
}

// Reasons why a message does not count. What is early or late, or from somebody who is no
// member here, is nobody's proven fault.
var (
	ErrEpoch  = errors.New("beacon message is for another epoch")
	ErrMember = errors.New("beacon message is from nobody who takes part, as known here")
	ErrTime   = errors.New("beacon message came outside of its time")
	ErrKnown  = errors.New("beacon message is known")
	ErrHigh   = errors.New("beacon proposal is not below the threshold")
	ErrNonce  = errors.New("beacon message is over another nonce than that of its smesher's ATX")
	ErrUnit   = errors.New("beacon coin is of a unit that its smesher does not have")
	ErrAgain  = errors.New("its smesher has said something else here before")
	ErrMany   = errors.New("there are too many different votes in its round")
	ErrWorse  = errors.New("beacon coin is not lower than one that is known")
)

// Machine finds one beacon. Everything it holds is bounded by its members: of each one proposal, and for
// the running round and the next one vote and one coin; and of votes by MaxLists.
type Machine struct {
	p       Params
	target  types.Epoch
	ids     []Identity // of this node that take part
	joined  time.Duration
	members map[types.NodeID]*member
	total   uint64
	strict  uint64 // below it a proposal is valid
	loose   uint64 // below it a proposal is known

	now    time.Duration
	next   int            // what of the schedule is done
	known  map[Value]bool // proposals that are somebody's: true if valid
	yes    []Value        // our opinion, ascending
	round  int            // whose votes are counted next; those of it and the next are heard
	leads  [2]lead        // of these two
	lists  [2]map[string][]Value
	key    []byte // of lists, made in the same place each time
	done   bool
	result []Value
	found  bool
}

type member struct {
	Member
	malicious bool
	proposed  bool
	said      [2]said // in the running round and the next
}

// MaxLists bounds the different votes of a round. Honest ones are few; the one that we cast ourselves
// has a place.
const MaxLists = 4096

// said is what a member said in a round.
type said struct {
	yes   []Value
	voted bool // yes is its vote
	twice bool // two votes
	coin  bool
	low   uint64 // its lowest coin, if there is one
}

// lead is the lowest coin of a round, and what its smesher is for.
type lead struct {
	low  uint64
	yes  []Value
	seen bool
}

// New returns the machine for the beacon of an epoch, for those of a node's identities that are
// members. Who joins later than at the start, 0, speaks after the first round that it heard
// from its beginning. The first of two members of one smesher counts.
func New(p Params, target types.Epoch, members []Member, ids []Identity, joined time.Duration) *Machine {
	m := &Machine{
		p: p, target: target, joined: joined, members: make(map[types.NodeID]*member, len(members)),
		known: make(map[Value]bool), lists: [2]map[string][]Value{make(map[string][]Value), make(map[string][]Value)},
	}
	early := 0
	for _, x := range members {
		if m.members[x.Smesher] != nil {
			continue
		}
		m.members[x.Smesher] = &member{Member: x}
		m.total += x.Weight
		if x.Early {
			early++
		}
	}
	m.strict = threshold(len(m.members))
	if m.loose = m.strict; early < len(m.members) {
		m.loose = threshold(early)
	}
	for _, id := range ids {
		if m.members[id.NodeID()] != nil {
			m.ids = append(m.ids, id)
		}
	}
	return m
}

// Convict says that a smesher is proved malicious: its votes and coins do not count any more, a
// proposal that comes from now on is not valid, and if it is ours it is silent.
func (m *Machine) Convict(s types.NodeID) {
	if x := m.members[s]; x != nil {
		x.malicious = true
	}
}

// Result returns the proposals whose hash the beacon is (Of), ascending; none if nobody proposed.
// False if more than two thirds of the weight do not say the same, as far as is known here: two
// nodes that have a result have the same one, as long as less than a third votes twice.
func (m *Machine) Result() ([]Value, bool) { return m.result, m.found }

// Done tells whether the protocol has ended.
func (m *Machine) Done() bool { return m.done }

// Next is when something is due, after the start; false when it has ended. What is heard may change it.
func (m *Machine) Next() (time.Duration, bool) {
	if m.done {
		return 0, false
	}
	step := m.next
	if step > 0 && step%2 == 0 && !m.disputed(step/2-1) {
		step++ // no coin
	}
	return m.due(step), true
}

// disputed tells whether a round needs a coin. If all votes that came are the same, the honest ones are: then
// nothing is open anywhere.
func (m *Machine) disputed(r int) bool { return r < m.p.Rounds && len(m.lists[r%2]) > 1 }

// due is when a step of the schedule is: 0 proposes; then each round has its vote and its
// coin, and after the last one comes the result.
func (m *Machine) due(step int) time.Duration {
	switch {
	case step == 0:
		return 0
	case step%2 == 1:
		return m.p.voteStart(step / 2)
	}
	return m.p.coinStart(step/2 - 1)
}

// Step does what is due by now, which is after the start, and returns what we have to say. It
// counts when it is heard, as what others say.
func (m *Machine) Step(now time.Duration) (out []*Message) {
	m.now = max(m.now, now)
	for !m.done && m.due(m.next) <= m.now {
		step := m.next
		m.next++
		late := m.due(m.next) <= m.now // its time is over: say nothing
		var say []*Message
		switch r := step / 2; {
		case step == 0:
			say = m.propose()
		case step%2 == 0:
			say = m.toss(r - 1)
		default:
			m.count(r)
			if !m.done {
				say = m.vote(r)
			}
		}
		if !late {
			out = append(out, say...)
		}
	}
	return out
}

// speaks tells whether this node heard what an opinion in a round is made from.
func (m *Machine) speaks(r int) bool { return m.joined <= 0 || r > 0 && m.joined <= m.p.voteStart(r-1) }

// own returns the members that are ours and may speak.
func (m *Machine) own() func(func(Identity, *member) bool) {
	return func(yield func(Identity, *member) bool) {
		for _, id := range m.ids {
			if x := m.members[id.NodeID()]; !x.malicious && !yield(id, x) {
				return
			}
		}
	}
}

func (m *Machine) propose() (out []*Message) {
	if !m.speaks(0) {
		return nil
	}
	for id, x := range m.own() {
		if proof := id.VRF(proposalInput(m.target, x.Nonce)); rankOf(proof) < m.strict {
			out = append(out, &Message{Kind: Propose, Target: m.target, Smesher: x.Smesher, Nonce: x.Nonce, Proof: proof})
		}
	}
	return out
}

func (m *Machine) vote(r int) (out []*Message) {
	if !m.speaks(r) {
		return nil
	}
	m.list(r, m.yes, MaxLists+1)
	for id, x := range m.own() {
		out = append(out, m.sign(id, &Message{Kind: Vote, Smesher: x.Smesher, Round: uint8(r), Yes: m.yes}))
	}
	return out
}

func (m *Machine) sign(id Identity, msg *Message) *Message {
	msg.Target = m.target
	msg.Yes = msg.Yes[:min(len(msg.Yes), MaxProposals)]
	msg.Signature = id.Sign(msg.Domain(), msg.SignedBytes())
	return msg
}

// maxTosses bounds the random values that a large smesher computes for a coin.
const maxTosses = 256

// toss shows the lowest coin of all that are ours, if none is lower, and with it what most weight is
// for as far as it has voted by now.
func (m *Machine) toss(r int) []*Message {
	if !m.speaks(r) || !m.disputed(r) {
		return nil
	}
	var best *Message
	var by Identity
	for id, x := range m.own() {
		for u := range min(x.Units, maxTosses) {
			proof := id.VRF(coinInput(m.target, x.Nonce, uint8(r), u))
			if best == nil || rankOf(proof) < rankOf(best.Proof) {
				best = &Message{Kind: Toss, Smesher: x.Smesher, Round: uint8(r), Unit: u, Nonce: x.Nonce, Proof: proof}
				by = id
			}
		}
	}
	if best == nil || m.leads[r%2].seen && m.leads[r%2].low <= rankOf(best.Proof) {
		return nil
	}
	best.Yes, _ = m.weigh(r)
	return []*Message{m.sign(by, best)}
}

// Hear takes a message that Check let pass. It is passed on if the error is nil.
func (m *Machine) Hear(now time.Duration, msg *Message) error {
	now = max(now, m.now)
	x, r := m.members[msg.Smesher], int(msg.Round)
	switch {
	case msg.Target != m.target:
		return ErrEpoch
	case x == nil:
		return ErrMember
	case msg.Kind == Propose:
		return m.hearProposal(now, x, msg)
	case r > m.p.Rounds || r < m.round || r > m.round+1:
		return ErrTime
	case msg.Kind == Toss:
		return m.hearCoin(now, x, msg)
	}
	return m.hearVote(now, &x.said[r%2], msg)
}

func (m *Machine) hearProposal(now time.Duration, x *member, msg *Message) error {
	rank := rankOf(msg.Proof)
	switch {
	case now >= m.p.coinStart(0): // until then those get it who will hear votes for it
		return ErrTime
	case msg.Nonce != x.Nonce: // else whoever grinds has as many values as there are nonces
		return ErrNonce
	case x.proposed:
		return ErrKnown
	case rank >= m.loose && rank >= m.strict:
		return ErrHigh
	}
	x.proposed = true
	v := valueOf(msg.Proof)
	m.known[v] = m.known[v] || x.Early && !x.malicious && now < m.p.voteStart(0) && rank < m.strict
	return nil
}

func (m *Machine) hearCoin(now time.Duration, x *member, msg *Message) error {
	r, rank := int(msg.Round), rankOf(msg.Proof)
	s, l := &x.said[r%2], &m.leads[r%2]
	switch {
	case msg.Nonce != x.Nonce:
		return ErrNonce
	case msg.Unit >= min(x.Units, maxTosses):
		return ErrUnit
	case r == m.p.Rounds || now < m.p.voteStart(r) || now >= m.p.tally(r):
		return ErrTime
	case l.seen && rank >= l.low, s.coin && rank >= s.low:
		return ErrWorse
	}
	s.coin, s.low = true, rank
	if !x.malicious {
		*l = lead{rank, msg.Yes, true}
	}
	return nil
}

// hearVote takes a vote, which may come a round too early, from a clock that is ahead. After the coin it is
// too late even to show that its smesher voted twice.
func (m *Machine) hearVote(now time.Duration, s *said, msg *Message) error {
	r := int(msg.Round)
	switch {
	case now >= m.p.tally(r) || now < m.p.voteStart(r-1):
		return ErrTime
	case s.voted && slices.Equal(s.yes, msg.Yes):
		return ErrKnown
	case s.twice:
		return ErrAgain
	case s.voted:
		s.twice = true // passed on, so that all who counted one of the two count neither
		return nil
	case now >= m.p.coinStart(r):
		return ErrTime
	}
	list, ok := m.list(r, msg.Yes, MaxLists)
	if !ok {
		return ErrMany
	}
	s.voted, s.yes = true, list
	return nil
}

// list keeps a vote of a round once, however many cast it, up to a limit.
func (m *Machine) list(r int, yes []Value, limit int) ([]Value, bool) {
	m.key = m.key[:0]
	for i := range yes {
		m.key = append(m.key, yes[i][:]...)
	}
	if known, ok := m.lists[r%2][string(m.key)]; ok || len(m.lists[r%2]) >= limit {
		return known, ok
	}
	m.lists[r%2][string(m.key)] = yes
	return yes, true
}

// Held is how many different votes are held, and how many there may be: of each member one for each
// of two rounds, and one of ours.
func (m *Machine) Held() (now, most int) {
	return len(m.lists[0]) + len(m.lists[1]), 2 * (min(len(m.members), MaxLists) + 1)
}

// votes calls f with all that count in a round.
func (m *Machine) votes(r int, f func(weight uint64, yes []Value)) {
	for _, x := range m.members {
		if s := x.said[r%2]; s.voted && !s.twice && !x.malicious {
			f(x.Weight, s.yes)
		}
	}
}

// weigh returns the proposals that most of the weight that voted in a round is for, and those that no
// margin of more than a third of all decides: what a third does not say, or says to some only, does
// not change who has the most where such a margin was seen. Who does not name a proposal is against
// it. One that a third votes for is known to somebody honest, and so is one.
func (m *Machine) weigh(r int) (most, open []Value) {
	pro := make(map[Value]uint64, len(m.known))
	var heard uint64
	m.votes(r, func(weight uint64, yes []Value) {
		heard += weight
		for _, v := range yes {
			pro[v] += weight
		}
	})
	for v, w := range pro {
		if w > m.total/3 {
			m.known[v] = m.known[v]
		}
	}
	for _, v := range sorted(maps.Keys(m.known)) {
		against := heard - pro[v]
		if pro[v] > against {
			most = append(most, v)
		}
		if max(pro[v], against)-min(pro[v], against) <= m.total/3 {
			open = append(open, v)
		}
	}
	return most, open
}

// count makes our opinion before a round: what is valid before the first, then what most were for in the
// one before. What that leaves open, whoever has the lowest coin decides.
func (m *Machine) count(round int) {
	if round == 0 {
		for _, v := range sorted(maps.Keys(m.known)) {
			if m.known[v] {
				m.yes = append(m.yes, v)
			}
		}
		return
	}
	most, open := m.weigh(round - 1)
	if l := m.leads[(round-1)%2]; l.seen {
		most = slices.DeleteFunc(most, func(v Value) bool { return slices.Contains(open, v) })
		for _, v := range open {
			if slices.Contains(l.yes, v) {
				most = append(most, v)
			}
		}
		most = sorted(slices.Values(most))
	}
	m.yes = most
	if round > m.p.Rounds {
		m.end()
	}
	m.round = round
	m.leads[(round-1)%2] = lead{}
	clear(m.lists[(round-1)%2])
	for _, x := range m.members {
		x.said[(round-1)%2] = said{}
	}
}

// end fixes what more than two thirds of the weight said in the last round.
func (m *Machine) end() {
	m.done = true
	weights := make(map[string]uint64)
	m.votes(m.p.Rounds, func(weight uint64, yes []Value) {
		list := string(slices.Concat(bytesOf(yes)...))
		if weights[list] += weight; weights[list] > m.total-(m.total+2)/3 {
			m.result, m.found = yes, true
		}
	})
	m.found = m.found || m.total == 0
}

func sorted(seq func(func(Value) bool)) []Value {
	return slices.SortedFunc(seq, func(a, b Value) int { return bytes.Compare(a[:], b[:]) })
}
