package sim

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"tweedle/protocol/core"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// poet is a PoET of the network: who calls it gets an answer at once, and the
// calls take their time at the smesher's. What it lies about is in its kind:
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

// register takes a challenge into the round that is open. Only a PoET that will
// omit somebody signs for it here: nobody looks at the receipts of the others.
func (p *poet) register(id types.NodeID, challenge types.Hash32) (string, *types.PoetReceipt) {
	open := p.w.poetry.Open(p.w.now)
	r := p.rounds[open]
	if r == nil {
		r = &round{left: make(map[types.Hash32]bool)}
		p.rounds[open] = r
		p.w.at(p.w.poetry.End(open), func() { p.finish(open, r) })
	}
	name := strconv.Itoa(int(open))
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
func (p *poet) finish(n uint32, r *round) {
	if len(r.members) == 0 || p.kind == "hangs" || p.kind == "pretends" {
		return
	}
	msg := p.message(n, r)
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
				msg = p.message(n-1, before)
			}
		}
	}
	if r.raw == nil {
		r.raw = codec.Encode(msg)
	}
	p.deliver(n, r)
}

func (p *poet) message(n uint32, r *round) *types.PoetProofMessage {
	statement := types.Hash32(merkle.Root(r.members))
	leaves := 10 * p.w.cfg.Activation.TickSize
	return &types.PoetProofMessage{
		Proof:  types.PoetProof{Root: poetRoot(statement, leaves), NumLeaves: leaves},
		PoetID: types.NodeID(p.key.Public().(ed25519.PublicKey)), RoundID: strconv.Itoa(int(n)), Statement: statement,
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
	n, err := strconv.Atoi(name)
	if r := p.rounds[uint32(n)]; err == nil && r != nil && p.kind != "hangs" {
		return r, nil
	}
	return nil, errSilent
}
