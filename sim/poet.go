package sim

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tweedle/protocol/core"
	service "tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/services/poet/rounds"
	"tweedle/services/poet/work"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// poet is a PoET of the network: the server's machine of rounds decides when one
// closes and what is to be proved, and what it does is done here in virtual time.
// Who calls it gets an answer at once, and the calls take their time at the
// smesher's. Members are kept and proofs are gone for without a disk, which has
// simulators of its own. What a PoET lies about is in its kind:
//
//	hangs     takes everybody, and never says a word again
//	pretends  says of every round that it still works on it
//	lies      gives proofs without work, of other members, that cannot be read,
//	          and of other rounds, one after the other
//	omits     signs for everybody, and leaves a third of them out
type poet struct {
	w      *world
	name   string
	kind   string // empty: it is honest
	key    ed25519.PrivateKey
	m      *rounds.Machine
	life   int       // how often it was started
	open   uint32    // the round that takes registrations, as stored
	timer  time.Time // when the machine is to be woken
	rounds map[uint32]*round
}

func poetKinds() []string { return []string{"hangs", "pretends", "lies", "omits"} }

// round is what a PoET works on: the ATXs of the epoch after it rest on it.
type round struct {
	members [][32]byte
	left    map[types.Hash32]bool // out, though it signed for them
	raw     []byte                // the proof's message, nil while it works
}

var (
	errSilent   = errors.New("it does not answer")
	errNotReady = errors.New("its round has no proof yet")
	errUnusable = errors.New("its answer cannot be read")
)

func newPoet(w *world, i int, kind string) *poet {
	seed := types.Sum([]byte("poet"), []byte{byte(i)})
	return &poet{w: w, name: fmt.Sprint("poet-", i), kind: kind, key: ed25519.NewKeyFromSeed(seed[:]), rounds: make(map[uint32]*round)}
}

// start builds the machine from what is stored: at first, and after a crash, when
// what was in work begins anew.
func (p *poet) start() {
	state := book.State{Open: max(p.open, p.w.poetry.Open(p.w.start))}
	for _, n := range slices.Sorted(maps.Keys(p.rounds)) {
		if len(p.rounds[n].members) > 0 {
			state.Members = append(state.Members, n)
		}
		if p.rounds[n].raw != nil {
			state.Proved = append(state.Proved, n)
		}
	}
	p.life++
	p.timer = time.Time{}
	p.m = rounds.NewMachine(p.w.poetry, state)
	p.step(nil)
}

// step feeds the machine one input and has what it says done.
func (p *poet) step(in rounds.Input) {
	for inputs := []rounds.Input{in}; len(inputs) > 0; inputs = inputs[1:] {
		out := p.m.Step(p.w.now, inputs[0])
		if out.Open != nil {
			p.open = *out.Open
		}
		for _, n := range out.Seal {
			sealed := rounds.Sealed{Round: n}
			if r := p.rounds[n]; r != nil && len(r.members) > 0 {
				sealed.Statement, sealed.Members = merkle.Root(r.members), uint64(len(r.members))
			}
			inputs = append(inputs, sealed)
		}
		for _, job := range out.Execute {
			p.at(job.End, func() { p.finish(job) })
		}
		for _, e := range out.Events {
			if e.Kind == service.EventOverdue && p.kind == "" {
				p.w.violated(nil, "%s, round %s: %s", p.name, e.Round, e.Text)
			}
		}
		if !out.Timer.Equal(p.timer) {
			p.timer = out.Timer
			p.at(out.Timer, func() { p.step(nil) })
		}
	}
}

// at has something done later, unless the PoET ends before.
func (p *poet) at(t time.Time, do func()) {
	life := p.life
	p.w.at(t, func() {
		if p.life == life {
			do()
		}
	})
}

// register takes a challenge into the round that is open. Only a PoET that will
// omit somebody signs for it here: nobody looks at the receipts of the others.
func (p *poet) register(id types.NodeID, challenge types.Hash32) (string, *types.PoetReceipt) {
	p.step(nil) // a round that ends at this moment takes nobody
	open := p.m.Open()
	r := p.rounds[open]
	if r == nil {
		r = &round{left: make(map[types.Hash32]bool)}
		p.rounds[open] = r
	}
	name := service.RoundID(open)
	if p.kind == "omits" && id[0]%3 == 0 {
		r.left[challenge] = true
	} else if !slices.Contains(r.members, [32]byte(challenge)) {
		r.members = append(r.members, challenge)
	}
	if p.kind != "omits" {
		return name, nil
	}
	receipt := &types.PoetReceipt{Round: name, NodeID: id, Challenge: challenge, Time: p.w.now}
	receipt.Sign(p.key)
	return name, receipt
}

// finish ends a round: its proof goes to two gateways, as every PoET says of
// what it has.
func (p *poet) finish(job work.Job) {
	if p.kind == "hangs" || p.kind == "pretends" {
		return
	}
	n, r := job.Round, p.rounds[job.Round]
	msg := p.message(n, job.Statement)
	if p.kind == "lies" {
		switch n % 4 {
		case 0:
			msg.Proof.Root[0]++
		case 1:
			r.members[0][0]++
		case 2:
			r.raw = []byte{1, 2, 3}
		case 3:
			if before := p.rounds[n-1]; before != nil {
				msg = p.message(n-1, merkle.Root(before.members))
			}
		}
	}
	if r.raw == nil {
		r.raw = codec.Encode(msg)
	}
	p.step(rounds.Stored{Round: n, Leaves: msg.Proof.NumLeaves})
	p.deliver(n, r)
}

func (p *poet) message(n uint32, statement types.Hash32) *types.PoetProofMessage {
	leaves := 10 * p.w.cfg.Activation.TickSize
	return &types.PoetProofMessage{
		Proof:  types.PoetProof{Root: poetRoot(statement, leaves), NumLeaves: leaves},
		PoetID: types.NodeID(p.key.Public().(ed25519.PublicKey)), RoundID: service.RoundID(n), Statement: statement,
	}
}

// deliver brings a round's proof to two gateways, which pass it on.
func (p *poet) deliver(n uint32, r *round) {
	w := p.w
	up := slices.DeleteFunc(w.honest(), func(n *node) bool { return !n.up })
	for range min(2, len(up)) {
		if g := up[w.rng.IntN(len(up))]; g.up {
			m, err := w.message(core.TopicPoet, r.raw).check(g.crypto)
			if err != nil {
				w.logf(g, "refuses what %s delivers of round %d: %v", p.name, n, err)
				continue
			}
			g.step(core.Heard{From: core.Self, Message: m})
		}
	}
}

// place is where a challenge stands in a round that runs.
func (p *poet) place(name string) ([][32]byte, error) {
	r, err := p.answers(name)
	if err != nil {
		return nil, err
	}
	return r.members, nil
}

// proof returns what a PoET gives for a round: the message of its proof, and
// the members that it covers.
func (p *poet) proof(name string) ([]byte, [][32]byte, error) {
	r, err := p.answers(name)
	switch {
	case err != nil:
		return nil, nil, err
	case r.raw == nil:
		return nil, nil, errNotReady
	}
	return r.raw, r.members, nil
}

func (p *poet) answers(name string) (*round, error) {
	n, err := service.ParseRoundID(name)
	if r := p.rounds[n]; err == nil && r != nil && p.kind != "hangs" {
		return r, nil
	}
	return nil, errSilent
}
