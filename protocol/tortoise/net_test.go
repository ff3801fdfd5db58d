package tortoise

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// network is some tortoises that vote for each other's ballots, layer by layer,
// with one ballot of each in every layer.
type network struct {
	t       testing.TB
	p       Params
	nodes   []*member
	layer   types.Layer
	loss    float64
	apart   bool // the sides do not hear each other
	rng     *rand.Rand
	blocks  map[types.BlockID]types.Vote
	ballots map[types.BallotID]*Ballot
	final   map[types.Layer]Choice // verified by an honest one
	flying  []flight
}

type member struct {
	*Machine
	name string
	side int
	evil lie
	want map[types.Layer]Choice       // what a scripted one votes where it lies
	show func(to *member) types.Layer // how much later its ballots come to somebody
}

// lie is how a byzantine member votes.
type lie int

const (
	honest   lie = iota
	flips        // the opposite of what it sees
	balances     // for what has least weight
	withheld     // so too, and shows its ballots late
	scripted     // as want says
)

type flight struct {
	at types.Layer
	to *member
	b  *Ballot
}

func newNetwork(t testing.TB, p Params, size int, rng *rand.Rand) *network {
	n := &network{
		t: t, p: p, rng: rng, apart: true, blocks: map[types.BlockID]types.Vote{}, ballots: map[types.BallotID]*Ballot{}, final: map[types.Layer]Choice{},
	}
	for i := range size {
		n.nodes = append(n.nodes, &member{Machine: New(p, 0, types.Hash32{}), name: string(rune('a' + i))})
	}
	return n
}

// begin opens the next layer.
func (n *network) begin() {
	n.layer++
	for _, k := range n.nodes {
		k.Epoch(k.epochOf(n.layer), uint64(len(n.nodes)))
		k.Epoch(k.epochOf(n.layer+1), uint64(len(n.nodes)))
	}
}

// block makes a block of the running layer.
func (n *network) block(name byte) types.BlockID {
	id := types.BlockID{name, byte(n.layer), byte(n.layer >> 8)}
	n.blocks[id] = types.Vote{Block: id, Layer: n.layer, Height: 1}
	return id
}

func (n *network) tell(k *member, l types.Layer, id types.BlockID) {
	if b, ok := n.blocks[id]; ok {
		if err := k.Block(b.Layer, b.Block, b.Height); err != nil {
			n.t.Fatal(err)
		}
	}
	k.Hare(l, id)
}

// vote lets everybody make a ballot for the running layer and send it.
func (n *network) vote() {
	var made []*Ballot
	for i, k := range n.nodes {
		undo := k.pretend()
		v, h, err := k.Votes()
		undo()
		if err != nil {
			n.t.Fatalf("layer %d: %s: %v", n.layer, k.name, err)
		}
		b := &Ballot{
			Layer: n.layer, Smesher: types.NodeID{byte(i)}, Opinion: h, Votes: v,
			Weight: 1, Height: 9, Slots: n.p.LayersPerEpoch, Proofs: 1,
		}
		id := types.Sum([]byte{byte(i)}, h[:], codec.Encode(&v), []byte{byte(n.layer), byte(n.layer >> 8)})
		b.ID = types.BallotID(id[:20])
		n.ballots[b.ID] = b
		made = append(made, b)
	}
	flying := n.flying
	n.flying = nil
	for _, f := range flying {
		n.send(f.at, n.nodes[f.b.Smesher[0]], f.to, f.b)
	}
	for i, b := range made {
		for _, to := range n.nodes {
			at := n.layer
			if from := n.nodes[i]; from.show != nil && to.evil == honest {
				at += from.show(to)
			}
			n.send(at, n.nodes[i], to, b)
		}
	}
}

// send delivers a ballot, or keeps it for the next layer if it is lost, too
// early, or of the other side.
func (n *network) send(at types.Layer, from, to *member, b *Ballot) {
	apart := n.apart && from.evil == honest && to.evil == honest && from.side != to.side
	if at > n.layer || apart || from != to && to.evil == honest && n.loss > 0 && n.rng.Float64() < n.loss {
		n.flying = append(n.flying, flight{at, to, b})
		return
	}
	n.take(to, b)
}

// take gives a ballot with all that it refers to, as a node asks for it.
func (n *network) take(to *member, b *Ballot) {
	for {
		err := to.Ballot(b)
		var unknown *Unknown
		var early *types.Early
		switch {
		case errors.As(err, &unknown):
			for _, id := range unknown.Blocks {
				if err := to.Block(n.blocks[id].Layer, id, n.blocks[id].Height); err != nil {
					n.t.Fatal(err)
				}
			}
			if unknown.Base != (types.BallotID{}) {
				base := n.ballots[unknown.Base]
				n.take(to, base)
				if to.Machine.ballots[base.ID] == nil {
					return // not to be had
				}
			}
			continue
		case err != nil && !errors.As(err, &early):
			n.t.Fatalf("layer %d: %s refuses a ballot of layer %d: %v", n.layer, to.name, b.Layer, err)
		}
		return
	}
}

// pretend makes a byzantine member's votes what it wants them to be, until undo.
func (k *member) pretend() (undo func()) {
	if k.evil == honest {
		return func() {}
	}
	var kept []slot
	prev := k.hashBefore(k.verified + 1)
	for l := k.verified + 1; l <= k.last; l++ {
		s := k.slot(l)
		kept = append(kept, *s)
		if c, ok := k.want[l]; ok || k.evil != scripted {
			if s.choice = c; !ok {
				s.choice = k.evil.choose(s)
			}
		}
		s.hash = s.choice.After(prev)
		prev = s.hash
	}
	return func() {
		for i := range kept {
			s := k.slot(k.verified + 1 + types.Layer(i))
			s.choice, s.hash = kept[i].choice, kept[i].hash
		}
	}
}

func (e lie) choose(s *slot) Choice {
	if e == flips {
		for _, x := range s.candidates {
			if x.Choice != s.choice {
				return x.Choice
			}
		}
		return Choice{Abstain: true}
	}
	return slices.MinFunc(s.candidates, func(a, b candidate) int { return cmp.Compare(a.support, b.support) }).Choice
}

// end closes the running layer and holds that nobody honest verifies what another
// one does not.
func (n *network) end() {
	for _, k := range n.nodes {
		before := k.verified
		for _, s := range k.Tally() {
			if s.Verified && s.Layer <= before {
				n.t.Fatalf("layer %d: %s changes layer %d below its frontier", n.layer, k.name, s.Layer)
			}
			if !s.Verified || s.Aged || k.evil != honest {
				continue
			}
			if c, known := n.final[s.Layer]; known && c != s.Choice {
				n.t.Fatalf("layer %d: %s verifies %v in layer %d, another one %v", n.layer, k.name, s.Choice, s.Layer, c)
			}
			n.final[s.Layer] = s.Choice
		}
	}
}

// one tells whether all honest members have one opinion of all layers about which
// Hare is not believed any more.
func (n *network) one() bool {
	var first *types.Hash32
	for _, k := range n.nodes {
		s, ok := k.Layer(n.layer - min(n.layer, n.p.Hdist))
		if k.evil != honest || !ok {
			continue
		}
		if first == nil {
			first = &s.Opinion
		} else if *first != s.Opinion {
			return false
		}
	}
	return true
}

func (k *member) view() string {
	line := ""
	for l := max(k.first, 1); l <= k.last; l++ {
		s, _ := k.Layer(l)
		switch {
		case s.Choice.Abstain:
			line += "?"
		case s.Choice.Block == types.EmptyBlock:
			line += "."
		default:
			line += string(s.Choice.Block[0])
		}
		if l == k.verified {
			line += "|"
		}
	}
	mode := "verifying"
	if k.Full() {
		mode = "full"
	}
	return fmt.Sprintf("%s from %d, %s", line, k.first, mode)
}
