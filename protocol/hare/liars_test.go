package hare

import (
	"math/rand/v2"
	"slices"
	"time"

	"tweedle/protocol/eligibility"
	"tweedle/values/types"
)

// liars speak with one mind, hear what honest nodes say at once, and choose when each
// node hears them.
type liars struct {
	*world
	honest []*node
	sets   [][]types.ProposalID // two that can be proposed
	casts  map[Round][]*heard   // of leaders, honest or not
	a, b   []*node              // halves of the honest nodes, others in each round
}

// lies has a strategy for each kind of lie. tell is called for each liar and each round in
// which somebody speaks, when it begins. In so many iterations from the first, a liar has
// the lowest ticket of all leaders.
var lies = []struct {
	name  string
	leads int
	tell  func(l *liars, k key, r Round)
}{
	{"says nothing", 0, func(*liars, key, Round) {}},
	{"says two things at once", 0, func(l *liars, k key, r Round) { l.both(k, r, 0, false) }},
	{"says two things at the last moment", 0, func(l *liars, k key, r Round) { l.both(k, r, 0, true) }},
	{"is late by some rounds", 0, func(l *liars, k key, r Round) {
		one, _ := l.two(k, r)
		l.at(one, l.honest, r.slot()+l.rng.IntN(6), l.rng.IntN(2) == 0)
	}},
	{"speaks to a half at the last moment", 0, func(l *liars, k key, r Round) {
		one, two := l.two(k, r)
		if l.rng.IntN(2) == 0 {
			one = two
		}
		l.at(one, l.a, r.slot(), true)
	}},
	{"flips its votes", 0, func(l *liars, k key, r Round) {
		one, two := l.two(k, r)
		if r.Iteration()%2 == 1 {
			one, two = two, one
		}
		l.at(one, l.honest, r.slot(), false)
		if r.names() {
			l.at(two, l.honest[:1], r.slot()+2, true)
		}
	}},
	{"shows stale votes when they move locks", 1, func(l *liars, k key, r Round) {
		late := 0
		if r.names() {
			late = 1 + l.rng.IntN(5)
		}
		l.both(k, r, late, true)
	}},
	{"withholds what begins an iteration", 0, func(l *liars, k key, r Round) {
		one, _ := l.two(k, r)
		l.at(one, l.a[:1+l.rng.IntN(len(l.a))], r.slot()+l.rng.IntN(2), r.lists())
	}},
	{"leads so late that a half is not sure", 1, func(l *liars, k key, r Round) { l.split(k, r, 1, false, 0) }},
	{"leads later still", 1, func(l *liars, k key, r Round) { l.split(k, r, 1, false, 1) }},
	{"leads with what only a half has", 1, func(l *liars, k key, r Round) { l.split(k, r, 3, true, 0) }},
	{"leads with what only a half has in time", 1, func(l *liars, k key, r Round) { l.split(k, r, 2, true, 0) }},
	{"locks a half and leads the other away", 2, (*liars).locks},
	{"anything at any time", 0, func(l *liars, k key, r Round) {
		one, two := l.two(k, r)
		for _, m := range []*heard{one, two} {
			for _, n := range l.honest {
				if l.rng.IntN(2) == 0 {
					l.at(m, []*node{n}, r.slot()+l.rng.IntN(1+l.rng.IntN(7)), l.rng.IntN(2) == 0)
				}
			}
		}
	}},
}

// two returns two messages that contradict each other, each of which might be honest.
func (l *liars) two(k key, r Round) (one, two *heard) {
	if r.lists() {
		sets := [][]types.ProposalID{l.many(), l.few()}
		if r == Preround {
			sets[1] = some(l.rng, l.few())
		}
		one, two = l.message(k, r, sets[0], types.Hash32{}), l.message(k, r, sets[1], types.Hash32{})
		l.keep(r, one)
		l.keep(r, two)
		return one, two
	}
	refs := l.led(r)
	return l.message(k, r, nil, refs[0]), l.message(k, r, nil, refs[1])
}

// keep remembers what a leader proposes.
func (l *liars) keep(r Round, m *heard) {
	if m != nil && r.Kind() == Propose {
		l.casts[r] = append(l.casts[r], m)
	}
}

// led returns the names of the first two sets that were proposed in a round's iteration,
// by ticket.
func (l *liars) led(r Round) [2]types.Hash32 {
	casts := l.casts[Propose.In(r.Iteration())]
	byTicket(casts)
	var refs []types.Hash32
	for _, c := range casts {
		if !slices.Contains(refs, c.Says()) {
			refs = append(refs, c.Says())
		}
	}
	return [2]types.Hash32(append(refs, SetRef(l.sets[0]), SetRef(l.sets[1]))[:2])
}

// at has nodes hear a message when a slot starts there, or in its last moment.
func (l *liars) at(m *heard, to []*node, slot int, last bool) {
	for _, n := range to {
		at := n.starts(slot).Add(time.Millisecond)
		if last {
			at = n.starts(slot + 1).Add(-1)
		}
		l.tell(n, m, at)
	}
}

// both says two things, one to each half.
func (l *liars) both(k key, r Round, late int, last bool) {
	one, two := l.two(k, r)
	l.at(one, l.a, r.slot()+late, last)
	l.at(two, l.b, r.slot()+late, last)
}

// few is what all honest nodes began with, many what any did.
func (l *liars) few() []types.ProposalID  { return l.sets[0] }
func (l *liars) many() []types.ProposalID { return l.sets[1] }

// split has liars support in the preround, some slots late, what only some honest nodes
// have, and lead with the set that the next leader, who is honest, does not propose. One
// half is to commit to the one, the other half to the other.
func (l *liars) split(k key, r Round, late int, half bool, latePropose int) {
	switch {
	case r == Preround && half:
		l.at(l.message(k, r, l.many(), types.Hash32{}), l.a, late, true)
	case r == Preround:
		l.at(l.message(k, r, l.many(), types.Hash32{}), l.honest, late, false)
	case r.Kind() == Propose && half:
		l.propose(k, r, l.many(), l.honest, 0, false)
	case r.Kind() == Propose:
		l.propose(k, r, l.few(), l.a, latePropose, true)
	default:
		l.both(k, r, 0, true)
	}
}

// locks has one half commit to a set and shows its own votes for it so late that the one
// half is locked hard and the other softly, which it then leads to another set.
func (l *liars) locks(k key, r Round) {
	switch r {
	case Commit:
		one, _ := l.two(k, r)
		l.at(one, l.a, r.slot()+1, true)
	case Notify:
	case Propose.In(1):
		l.propose(k, r, l.many(), l.honest, 0, false)
	case Commit.In(1), Notify.In(1):
		l.at(l.message(k, r, nil, SetRef(l.few())), l.a, r.slot(), true)
		l.at(l.message(k, r, nil, SetRef(l.many())), l.b, r.slot(), true)
	default:
		l.split(k, r, 1, false, 0)
	}
}

func (l *liars) propose(k key, r Round, set []types.ProposalID, to []*node, late int, last bool) {
	m := l.message(k, r, set, types.Hash32{})
	l.keep(r, m)
	l.at(m, to, r.slot()+late, last)
}

// lie has the liars of a world do as they do: with a third of the weight less a unit, or
// with a share of it.
func (w *world) lie(strategy int, few, many []types.ProposalID) {
	l := &liars{world: w, honest: slices.Clone(w.nodes), casts: make(map[Round][]*heard)}
	l.sets = [][]types.ProposalID{few, many}
	w.spoken = func(m *heard) { l.keep(m.Round, m) }
	for slot := range w.p.Slots() {
		r := roundAt(slot)
		if !r.lists() && !r.names() {
			continue
		}
		// They speak when the last honest one has.
		w.put(event{at: genesis.Add(time.Duration(slot)*round + w.wet.skew + 1), do: func() {
			if !slices.ContainsFunc(l.honest, func(n *node) bool { return !n.ended }) {
				return
			}
			if half := len(l.honest) / 2; lies[strategy].leads == 0 {
				w.rng.Shuffle(len(l.honest), func(i, j int) { l.honest[i], l.honest[j] = l.honest[j], l.honest[i] })
				half = 1 + w.rng.IntN(len(l.honest)-1)
				l.a, l.b = l.honest[:half], l.honest[half:]
			} else {
				l.a, l.b = l.honest[:half], l.honest[half:]
			}
			for _, k := range w.liars {
				lies[strategy].tell(l, k, r)
			}
		}})
	}
}

// layer builds the world of a seed: honest nodes of different weight, and liars with just
// under a share of the weight. Most proposals came in time everywhere; one did in every other
// honest node, and others by chance.
func layer(seed uint64, p Params, wet weather, strategy int, share float64) *world {
	w := newWorld(seed, p, wet)
	honest, hostile := 4+w.rng.IntN(4), 1+w.rng.IntN(3)
	few, many := proposals(3+w.rng.IntN(6)), []types.ProposalID(nil)
	many = append(many, few...)
	for range 1 + w.rng.IntN(3) {
		many = append(many, types.ProposalID{100 + byte(len(many))})
	}
	var weights []uint64
	var total uint64
	for range honest {
		weights = append(weights, 1000+w.rng.Uint64N(1000))
		total += weights[len(weights)-1]
	}
	all := uint64(float64(total)*share/(1-share)) - 1
	for i := range hostile {
		weight := all / uint64(hostile)
		if i == 0 {
			weight += all % uint64(hostile)
		}
		weights = append(weights, weight)
	}
	keys := w.lots(seed, weights, honest, lies[strategy].leads)
	for i, k := range keys {
		if w.member(k, weights[i]); i >= honest {
			w.liars = append(w.liars, k)
			continue
		}
		set := slices.Clone(few)
		for j, id := range many[len(few):] {
			if j == 0 && i%2 == 0 || j > 0 && w.rng.IntN(2) == 0 {
				set = append(set, id)
			}
		}
		w.node(k, set)
	}
	w.lie(strategy, few, many)
	return w
}

// lots draws keys until a liar has the lowest ticket in so many iterations, and an honest
// leader the next one.
func (w *world) lots(seed uint64, weights []uint64, honest, leads int) []key {
	for try := 0; ; try++ {
		var keys []key
		for i := range weights {
			keys = append(keys, keyOf(seed, try<<8|i))
		}
		if w.lead(keys, weights, honest, leads) {
			return keys
		}
	}
}

func (w *world) lead(keys []key, weights []uint64, honest, leads int) bool {
	var total uint64
	for _, x := range weights {
		total += x
	}
	for i := range leads {
		var casts []*heard
		for j, k := range keys {
			r := Propose.In(i)
			m := &Message{Smesher: k.NodeID(), Proof: k.VRF(eligibility.CommitteeMessage(w.draw.Beacon, w.draw.Layer, uint32(r)))}
			if seats := eligibility.Seats(w.p.Leaders, weights[j], total, m.Proof); seats > 0 {
				casts = append(casts, &heard{m, seats})
			}
		}
		liar := func(h *heard) bool { return slices.Index(keys, key(h.Smesher)) >= honest }
		if byTicket(casts); len(casts) < 2 || !liar(casts[0]) || liar(casts[1]) {
			return false
		}
	}
	return true
}

// pick draws the strategy of a seed.
func pick(seed uint64) int { return rand.New(rand.NewPCG(seed, 1)).IntN(len(lies)) }
