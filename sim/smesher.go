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

// smesher is a node's way to its ATXs: activation's machine, and what package
// smeshing does around it.
type smesher struct {
	m        *activation.Smesher
	record   []byte // as saved: it survives a crash
	wake     time.Time
	receipts map[registered]types.PoetReceipt
}

// smesh feeds the machine one input and has its work done.
func (n *node) smesh(in activation.Input) {
	if !n.up || n.smesher.m == nil {
		return
	}
	s := &n.smesher
	out := s.m.Step(n.now(), in, positions{n})
	if out.Save {
		s.record = codec.Encode(s.m.Record())
	}
	if out.Dropped != "" {
		n.w.logf(n, "%s", out.Dropped)
	}
	for _, w := range out.Work {
		n.works(w)
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
			n.smesh(activation.Tick{})
		}
	})
}

// startSmeshing builds the machine from its record.
func (n *node) startSmeshing() {
	if n.key == nil || n.twin != nil {
		return
	}
	var rec activation.Record
	if n.smesher.record != nil {
		if err := codec.Decode(n.smesher.record, &rec); err != nil {
			panic(err)
		}
	}
	s := n.w.cfg.Schedule
	n.smesher.wake = time.Time{}
	n.smesher.m = activation.NewSmesher(activation.Config{
		Params: n.w.cfg.Activation, Schedule: s, Poet: n.w.poetry, NumUnits: n.units, Coinbase: types.Address{20: 1, 23: byte(n.i)},
		Grace: n.w.grace, FetchDelay: time.Duration(n.i) * 50 * time.Millisecond, Retry: s.LayerDuration / 2,
		Patience: s.LayerDuration / 5, ChooseBy: n.w.poetry.CycleGap / 2,
	}, n.key, rec)
	n.smesh(activation.Tick{})
}

// positions is what the machine asks of its node.
type positions struct{ *node }

// Highest implements activation.Positions.
func (p positions) Highest(before types.Epoch) (types.ATXID, bool) { return p.m.Highest(before) }

// Last implements activation.Positions.
func (p positions) Last() (types.ATXID, types.Epoch, bool) {
	id, ok := p.store.newest[p.key.NodeID()]
	if !ok {
		return id, 0, false
	}
	return id, p.store.entries[id].PublishEpoch, true
}

// works does work, and tells of it later.
func (n *node) works(w activation.Work) {
	tell := func(in activation.Input) { n.later(n.w.latency(), func() { n.smesh(in) }) }
	switch w.Kind {
	case activation.WorkInit:
		tell(activation.Initialized{Space: activation.Space{
			CommitmentATX: n.w.cfg.Activation.Golden, NumUnits: n.units, VRFNonce: uint64(n.i), Post: types.PostProof{Nonce: uint32(n.i)},
		}})
	case activation.WorkRegister:
		for _, p := range n.w.poets {
			n.later(n.w.latency(), func() {
				round, receipt := p.register(n.key.NodeID(), w.Of)
				if receipt != nil && receipt.Verify() {
					n.smesher.receipts[registered{p.name, w.Of}] = *receipt
				}
				n.smesh(activation.Registered{Challenge: w.Of, Registration: activation.Registration{Poet: p.name, Round: round}})
			})
		}
	case activation.WorkPlace:
		for _, r := range w.Registrations {
			n.later(n.w.latency(), func() { n.place(w, r) })
		}
	case activation.WorkFetch:
		for _, r := range w.Registrations {
			n.later(n.w.latency(), func() { n.fetch(w, r) })
		}
	case activation.WorkProve:
		tell(activation.Proved{Challenge: w.PostChallenge, Post: types.PostProof{Nonce: 1}})
	case activation.WorkPublish:
		if n.bad == nil || !n.bad.publishes(n, w.ATX) {
			n.announce(w.ATX)
		}
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

func (n *node) place(w activation.Work, r activation.Registration) {
	if members, err := n.w.poet(r.Poet).place(r.Round); err == nil {
		if i := slices.Index(members, [32]byte(w.Of)); i >= 0 {
			r.Place = &activation.Place{Statement: merkle.Root(members), Index: uint64(i), Members: uint64(len(members)), Path: path(members, i)}
			n.smesh(activation.Placed{Challenge: w.Of, Registration: r})
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
func (n *node) fetch(w activation.Work, r activation.Registration) {
	p := n.smesher.m.Record().Pending
	if p == nil || p.Challenge.Hash() != w.Of || p.Poet != nil {
		return
	}
	membership, err := n.membership(w.Of, r)
	if err == nil {
		n.smesh(activation.Fetched{Challenge: w.Of, Registration: r, Membership: *membership})
		return
	}
	n.w.logf(n, "gets nothing of %s for round %s: %v", r.Poet, r.Round, err)
	n.smesh(activation.Answered{Challenge: w.Of, Registration: r, Works: err == errNotReady})
	n.later(n.w.cfg.Schedule.LayerDuration/5, func() { n.fetch(w, r) })
}

// membership checks what a PoET gives.
func (n *node) membership(challenge types.Hash32, r activation.Registration) (*activation.Membership, error) {
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
		return nil, n.omitted(registered{r.Poet, challenge}, &msg, members)
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
func (n *node) omitted(at registered, msg *types.PoetProofMessage, members [][32]byte) error {
	receipt, ok := n.smesher.receipts[at]
	if !ok {
		return errLeftOut
	}
	o := activation.Omission{Receipt: receipt, Proof: *msg}
	for _, m := range members {
		o.Members = append(o.Members, m)
	}
	if err := o.VerifyBy(n.crypto.VerifyPoet); err != nil {
		n.w.violated(n, "was left out, and the evidence does not hold: %v", err)
		return err
	}
	n.w.result.Omissions++
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
