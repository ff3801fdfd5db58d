package sim

import (
	"errors"
	"slices"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// smesher is an identity's way to its ATXs: activation's machine, and what package
// smeshing does around it.
type smesher struct {
	n        *node
	key      core.Identity // nil: that of the node
	num      int           // no other has it
	made     map[types.Epoch]types.ATXID
	m        *activation.Smesher
	record   []byte // as saved: it survives a crash
	wake     time.Time
	receipts map[registered]types.PoetReceipt
}

func (s *smesher) identity() core.Identity {
	if s.key != nil {
		return s.key
	}
	return s.n.key
}

// identities are those of a node's smeshers.
func (n *node) identities() (out []core.Identity) {
	for _, s := range n.smeshers {
		if id := s.identity(); id != nil {
			out = append(out, id)
		}
	}
	return out
}

// smesh feeds the machine one input and has its work done.
func (s *smesher) smesh(in activation.Input) {
	n := s.n
	if !n.up || s.m == nil {
		return
	}
	out := s.m.Step(n.now(), in, positions{s})
	if out.Save {
		s.record = codec.Encode(s.m.Record())
	}
	if out.Dropped != "" {
		n.w.logf(n, "%s", out.Dropped)
	}
	for _, w := range out.Work {
		s.works(w)
	}
	at := out.Wake.Add(-n.skew)
	if out.Wake.IsZero() || at.Equal(s.wake) {
		return
	}
	s.wake = at
	life := n.born
	n.w.at(at.Add(time.Millisecond), func() {
		if n.born == life && s.wake.Equal(at) {
			s.wake = time.Time{}
			s.smesh(activation.Tick{})
		}
	})
}

// start builds the machine from its record.
func (s *smesher) start() {
	n := s.n
	if s.identity() == nil || n.twin != nil {
		return
	}
	var rec activation.Record
	if s.record != nil {
		if err := codec.Decode(s.record, &rec); err != nil {
			panic(err)
		}
	}
	times := n.w.cfg.Schedule
	s.wake = time.Time{}
	s.m = activation.NewSmesher(activation.Config{
		Params: n.w.cfg.Activation, Schedule: times, Poet: n.w.poetry, NumUnits: n.units, Coinbase: types.Address{20: 1, 23: byte(s.num)},
		Grace: n.w.grace, FetchDelay: time.Duration(s.num) * 50 * time.Millisecond, Retry: times.LayerDuration / 2,
		Patience: times.LayerDuration / 5, ChooseBy: n.w.poetry.CycleGap / 2,
	}, s.identity(), rec)
	s.smesh(activation.Tick{})
}

// positions is what the machine asks of its node.
type positions struct{ *smesher }

// Highest implements activation.Positions.
func (p positions) Highest(before types.Epoch) (types.ATXID, bool) { return p.n.m.Highest(before) }

// Last implements activation.Positions.
func (p positions) Last() (types.ATXID, types.Epoch, bool) {
	id, ok := p.n.store.newest[p.identity().NodeID()]
	if !ok {
		return id, 0, false
	}
	return id, p.n.store.entries[id].PublishEpoch, true
}

// works does work, and tells of it later.
func (s *smesher) works(w activation.Work) {
	n := s.n
	tell := func(in activation.Input) { n.later(n.w.latency(), func() { s.smesh(in) }) }
	switch w.Kind {
	case activation.WorkInit:
		tell(activation.Initialized{Space: activation.Space{
			CommitmentATX: n.w.cfg.Activation.Golden, NumUnits: n.units, VRFNonce: uint64(s.num), Post: types.PostProof{Nonce: uint32(s.num)},
		}})
	case activation.WorkRegister:
		for _, p := range n.w.poets {
			n.later(n.w.latency(), func() {
				round, receipt := p.register(s.identity().NodeID(), w.Of)
				if receipt != nil && receipt.Verify() {
					s.receipts[registered{p.name, w.Of}] = *receipt
				}
				s.smesh(activation.Registered{Challenge: w.Of, Registration: activation.Registration{Poet: p.name, Round: round}})
			})
		}
	case activation.WorkPlace:
		for _, r := range w.Registrations {
			n.later(n.w.latency(), func() { s.place(w, r) })
		}
	case activation.WorkFetch:
		for _, r := range w.Registrations {
			n.later(n.w.latency(), func() { s.fetch(w, r) })
		}
	case activation.WorkProve:
		tell(activation.Proved{Challenge: w.PostChallenge, Post: types.PostProof{Nonce: 1}})
	case activation.WorkPublish:
		if n.bad == nil || !n.bad.publishes(n, w.ATX) {
			n.announce(w.ATX)
		}
		s.made[w.ATX.PublishEpoch] = w.ATX.ID()
		tell(activation.Published{ID: w.ATX.ID()}) // a strategy may have changed it
	}
}

// later has something done, unless the node ends before.
func (n *node) later(d time.Duration, do func()) {
	life := n.born
	n.w.after(d, func() {
		if n.up && n.born == life {
			do()
		}
	})
}

func (s *smesher) place(w activation.Work, r activation.Registration) {
	if members, err := s.n.w.poet(r.Poet).place(r.Round); err == nil {
		if i := slices.Index(members, [32]byte(w.Of)); i >= 0 {
			r.Place = &activation.Place{Statement: merkle.Root(members), Index: uint64(i), Members: uint64(len(members)), Path: path(members, i)}
			s.smesh(activation.Placed{Challenge: w.Of, Registration: r})
		}
	}
}

func path(members [][32]byte, i int) (out []types.Hash32) {
	for _, h := range merkle.Proof(members, uint64(i)) {
		out = append(out, h)
	}
	return out
}

// fetch asks a PoET for a round's proof until the machine has chosen one.
func (s *smesher) fetch(w activation.Work, r activation.Registration) {
	n := s.n
	p := s.m.Record().Pending
	if p == nil || p.Challenge.Hash() != w.Of || p.Poet != nil {
		return
	}
	membership, err := s.membership(w.Of, r)
	if err == nil {
		s.smesh(activation.Fetched{Challenge: w.Of, Registration: r, Membership: *membership})
		return
	}
	n.w.logf(n, "gets nothing of %s for round %s: %v", r.Poet, r.Round, err)
	s.smesh(activation.Answered{Challenge: w.Of, Registration: r, Works: err == errNotReady})
	n.later(n.w.cfg.Schedule.LayerDuration/5, func() { s.fetch(w, r) })
}

// membership checks what a PoET gives.
func (s *smesher) membership(challenge types.Hash32, r activation.Registration) (*activation.Membership, error) {
	n := s.n
	raw, members, err := n.w.poet(r.Poet).proof(r.Round)
	if err != nil {
		return nil, err
	}
	var msg types.PoetProofMessage
	if codec.Decode(raw, &msg) != nil {
		return nil, errUnusable
	}
	msg.Statement = merkle.Root(members) // as the client does: a PoET's word for it counts nothing
	m, err := n.w.message(core.TopicPoet, codec.Encode(&msg)).check(n.crypto)
	if err != nil {
		return nil, err
	}
	i := slices.Index(members, [32]byte(challenge))
	if i < 0 {
		return nil, s.omitted(registered{r.Poet, challenge}, &msg, members)
	}
	n.step(core.Heard{From: core.Self, Message: m})
	return &activation.Membership{
		Ref: msg.Proof.Ref(), NumLeaves: msg.Proof.NumLeaves, LeafIndex: uint64(i), NumMembers: uint64(len(members)), Nodes: path(members, i),
	}, nil
}

// registered names a registration: several PoETs have the same challenge.
type registered struct {
	poet      string
	challenge types.Hash32
}

// omitted makes the evidence against a PoET that left a challenge out.
func (s *smesher) omitted(at registered, msg *types.PoetProofMessage, members [][32]byte) error {
	receipt, ok := s.receipts[at]
	if !ok {
		return errLeftOut
	}
	o := activation.Omission{Receipt: receipt, Proof: *msg}
	for _, m := range members {
		o.Members = append(o.Members, m)
	}
	if err := o.VerifyBy(s.n.crypto.VerifyPoet); err != nil {
		s.n.w.violated(s.n, "was left out, and the evidence does not hold: %v", err)
		return err
	}
	s.n.w.result.Omissions++
	return errEvidence
}

var (
	errLeftOut  = errors.New("its round leaves our challenge out")
	errEvidence = errors.New("its round leaves our challenge out, though it signed for it: there is evidence")
)

// seal signs an ATX.
func (n *node) seal(a *types.ATX) {
	id := a.ID()
	a.Signature = n.key.Sign(signing.ATX, id[:])
}
