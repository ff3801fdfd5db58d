package hare

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"tweedle/protocol/eligibility"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// key is an identity whose random values are hashes and whose signatures nobody checks.
type key types.NodeID

func (k key) NodeID() types.NodeID                          { return types.NodeID(k) }
func (key) Sign(signing.Domain, []byte) (s types.Signature) { return s }
func (k key) VRF(msg []byte) (v types.VRFSignature) {
	sum := types.Sum(k[:], msg)
	copy(v[:], sum[:])
	return v
}

func keyOf(seed uint64, n int) (k key) {
	binary.BigEndian.PutUint64(k[:], seed)
	binary.BigEndian.PutUint64(k[8:], uint64(n))
	return k
}

const round = time.Second

var genesis = time.Unix(1_000_000, 0)

// heard is a message with what its seats are.
type heard struct {
	*Message
	seats uint32
}

// node is an honest smesher, or one of two twins.
type node struct {
	w      *world
	n      int
	key    key
	s      *Session
	skew   time.Duration // its clock is ahead
	set    []types.ProposalID
	has    map[*Message]bool
	result []types.ProposalID
	at     int // slot in which it had the result
	ended  bool
	coin   int // 1 or 2, 0 before
	proved map[types.NodeID]bool
	half   int // of twins, 1 or 2
}

// local is what its clock shows.
func (n *node) local() time.Time { return n.w.now.Add(n.skew) }

// starts returns when a slot starts there.
func (n *node) starts(slot int) time.Time { return genesis.Add(time.Duration(slot)*round - n.skew) }

type event struct {
	at  time.Time
	seq int
	to  *node
	m   *heard // nil: a wake
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if !e[i].at.Equal(e[j].at) {
		return e[i].at.Before(e[j].at)
	}
	return e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// weather is what a network does to messages.
type weather struct {
	name  string
	hop   time.Duration // at most, from one to another
	skew  time.Duration // at most, each way
	loss  float64       // at most, of each hop
	gone  bool          // what is lost is not sent again
	twice float64       // comes twice
}

// world is a layer of a network in virtual time, of one seed.
type world struct {
	rng    *rand.Rand
	p      Params
	draw   Draw
	weight map[types.NodeID]uint64
	nodes  []*node
	liars  []key
	told   map[types.NodeID]map[Round]map[types.Hash32]bool // what liars said to anybody
	now    time.Time
	queue  events
	seq    int
	wet    weather
	digest types.Hash32
	// between says when what one honest node sends reaches another one, false if never.
	between func(from, to *node, m *heard) (time.Time, bool)
	spoken  func(*heard) // what honest nodes say first
}

func newWorld(seed uint64, p Params, wet weather) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 0x68617265)), p: p, wet: wet, now: genesis.Add(-round),
		draw:   Draw{Layer: 7, Beacon: types.Beacon{byte(seed), byte(seed >> 8), byte(seed >> 16)}},
		weight: make(map[types.NodeID]uint64), told: make(map[types.NodeID]map[Round]map[types.Hash32]bool),
		spoken: func(*heard) {},
	}
	w.wet.loss *= w.rng.Float64()
	w.between = func(_, _ *node, _ *heard) (time.Time, bool) {
		at := w.now.Add(1 + time.Duration(w.rng.Int64N(int64(w.wet.hop))))
		for w.rng.Float64() < w.wet.loss {
			if at = at.Add(w.wet.hop); w.wet.gone {
				return at, false
			}
		}
		return at, true
	}
	return w
}

func (w *world) member(k key, weight uint64) {
	if w.weight[k.NodeID()] == 0 {
		w.weight[k.NodeID()] = weight
		w.draw.Total += weight
	}
}

func (w *world) node(k key, set []types.ProposalID) *node {
	n := &node{w: w, n: len(w.nodes), key: k, has: make(map[*Message]bool), set: set, proved: make(map[types.NodeID]bool), at: never}
	if w.wet.skew > 0 {
		n.skew = time.Duration(w.rng.Int64N(int64(2*w.wet.skew))) - w.wet.skew
	}
	w.nodes = append(w.nodes, n)
	return n
}

func (w *world) put(e event) {
	w.seq++
	e.seq = w.seq
	heap.Push(&w.queue, e)
}

// seatsOf draws the seats of a message.
func (w *world) seatsOf(m *Message) uint32 {
	return eligibility.Seats(w.p.committee(m.Round), w.weight[m.Smesher], w.draw.Total, m.Proof)
}

// message makes one of a liar, nil if it has no seat.
func (w *world) message(k key, r Round, set []types.ProposalID, ref types.Hash32) *heard {
	m := &Message{Layer: w.draw.Layer, Round: r, Smesher: k.NodeID(), Set: set, Ref: ref}
	m.Proof = k.VRF(w.draw.Input(r))
	if seats := w.seatsOf(m); seats > 0 {
		return &heard{m, seats}
	}
	return nil
}

// run goes on until all have ended and nothing is under way.
func (w *world) run() {
	for _, n := range w.nodes {
		n.s = NewSession(w.p, w.draw, genesis, []Member{{n.key, w.weight[n.key.NodeID()]}}, func() []types.ProposalID { return n.set })
		w.put(event{at: w.now, to: n})
	}
	for len(w.queue) > 0 {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		switch {
		case e.do != nil:
			e.do()
		case e.m == nil:
			w.step(e.to)
		case !e.to.has[e.m.Message]:
			e.to.hear(e.m)
		}
	}
}

func (w *world) note(parts ...[]byte) {
	w.digest = types.Sum(append(parts, w.digest[:])...)
}

func (w *world) step(n *node) {
	out := n.s.Step(n.local())
	if out.Result != nil {
		n.result, n.at = out.Result, n.s.slotAt(n.local())
		ref := SetRef(out.Result)
		w.note([]byte{byte(n.n), byte(n.at)}, ref[:])
	}
	if out.Coin != nil {
		if n.coin = 1; *out.Coin {
			n.coin = 2
		}
	}
	for _, r := range out.Draw {
		n.s.Seat(Seat{n.key.NodeID(), r, n.key.VRF(w.draw.Input(r))})
	}
	for _, m := range out.Signed {
		h := &heard{m, w.seatsOf(m)}
		w.spoken(h)
		n.hear(h)
	}
	if n.ended = out.Ended; !n.ended {
		w.put(event{at: out.Wake.Add(-n.skew), to: n})
	}
}

// hear has a node look at a message, and pass it on as gossip does.
func (n *node) hear(m *heard) {
	n.has[m.Message] = true
	twice, err := n.s.Hear(n.local(), m.Message, m.seats)
	n.w.note([]byte{byte(n.n), byte(m.Round)}, m.Smesher[:16], binary.BigEndian.AppendUint64(nil, uint64(n.w.now.UnixNano())))
	if twice != nil {
		n.proved[twice.A.Smesher] = true
	}
	if err != nil {
		return
	}
	for _, to := range n.w.nodes {
		if to == n || to.has[m.Message] {
			continue
		}
		for times := 1; times > 0; times-- {
			at, ok := n.w.between(n, to, m)
			if ok {
				n.w.put(event{at: at, to: to, m: m})
			}
			if n.w.wet.twice > 0 && n.w.rng.Float64() < n.w.wet.twice {
				times++
			}
		}
	}
}

// tell has liars' message reach a node at a time.
func (w *world) tell(to *node, m *heard, at time.Time) {
	if m == nil {
		return
	}
	if at.Before(w.now) {
		at = w.now
	}
	w.tells(m)
	w.put(event{at: at, to: to, m: m})
}

// tells remembers what a liar said to somebody.
func (w *world) tells(m *heard) {
	said := w.told[m.Smesher]
	if said == nil {
		said = make(map[Round]map[types.Hash32]bool)
		w.told[m.Smesher] = said
	}
	if said[m.Round] == nil {
		said[m.Round] = make(map[types.Hash32]bool)
	}
	said[m.Round][m.Says()] = true
}

// verdict is what came of a world.
type verdict struct {
	disagree bool   // two honest nodes have different results
	wrong    string // a result that no honest node may have, or a proof that is missing or wrong
	slots    int    // in which the last had its result, never if one has none
	coins    bool   // all honest nodes have one coin
}

// judge looks at the honest nodes.
func (w *world) judge(honest []*node) (v verdict) {
	v.coins = true
	common, any := map[types.ProposalID]int{}, map[types.ProposalID]bool{}
	for _, n := range honest {
		for _, id := range n.set {
			common[id]++
			any[id] = true
		}
	}
	for i, n := range honest {
		v.slots = max(v.slots, n.at)
		v.coins = v.coins && n.coin == honest[0].coin
		for _, o := range honest[:i] {
			v.disagree = v.disagree || n.result != nil && o.result != nil && !slices.Equal(n.result, o.result)
		}
		for id, by := range common {
			if n.result != nil && by == len(honest) && !slices.Contains(n.result, id) {
				v.wrong = "a proposal that all honest nodes had in time is not in a result"
			}
		}
		for _, id := range n.result {
			if !any[id] {
				v.wrong = "a result has a proposal that no honest node began with"
			}
		}
		for id := range n.proved {
			if !slices.ContainsFunc(w.liars, func(k key) bool { return k.NodeID() == id }) {
				v.wrong = "an honest node is proved to have said two things"
			}
		}
	}
	for id, rounds := range w.told {
		twice := false
		for _, said := range rounds {
			twice = twice || len(said) > 1
		}
		for _, n := range honest {
			if twice && !n.proved[id] {
				v.wrong = "a node has no proof against who said two things"
			}
		}
	}
	return v
}

func proposals(n int) (out []types.ProposalID) {
	for i := range n {
		out = append(out, types.ProposalID{byte(i + 1)})
	}
	return out
}

// some returns a random part of a set, ascending.
func some(rng *rand.Rand, set []types.ProposalID) []types.ProposalID {
	out := []types.ProposalID{}
	for _, id := range set {
		if rng.IntN(2) == 0 {
			out = append(out, id)
		}
	}
	return out
}

func byTicket(list []*heard) {
	slices.SortFunc(list, func(a, b *heard) int {
		x, y := ticket(a.Proof, a.seats), ticket(b.Proof, b.seats)
		return bytes.Compare(x[:], y[:])
	})
}
