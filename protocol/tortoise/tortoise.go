// Package tortoise says of each layer which block is valid, from the votes that
// every ballot casts about all layers before it (reference/protocol.md A6, A10;
// docs/decisions/0011-tortoise.md).
//
// It promises: the same answers on every machine that was told the same, in
// whatever order within a layer; exact weights; a layer that is verified stays
// as it is; whoever has less than a third of the weight neither verifies
// anything against the others nor keeps them apart; all that it holds is bounded
// by Params; a machine that Rebuild makes from what is stored says and does the
// same as the one that lived; what ballots say never panics.
//
// It leaves to the caller: that ballots and blocks keep their own rules, and
// that a ballot is stored only after Ballot took it; to tell the total of an
// epoch before its ballots; to give ballots of smeshers that are proved
// malicious no weight; to apply and revert what the answers say.
package tortoise

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"tweedle/values/types"
)

// Weight is in parts of what the ballots of one layer weigh together: each
// epoch spreads One for each of its layers over its ATXs. So epochs of all
// weights count alike, a sum of many layers fits, and it needs no floats.
type Weight int64

// One is the weight of all ballots that a layer has on average.
const One Weight = 1 << 24

// local is the margin that an opinion beyond Hdist needs to stand without the
// coin: what may reach some nodes and not yet others.
const local = One / 3

// Params are the constants of a network, and the limits of what is held.
type Params struct {
	LayersPerEpoch uint32
	Hdist          types.Layer // Hare is believed about so many layers
	Zdist          types.Layer // after so many a layer without Hare's result counts as empty
	Window         types.Layer // layers before the verified frontier that ballots may still differ about
	BadBeaconDelay types.Layer // ballots with another beacon count so many layers later

	MaxExceptions int         // votes of a ballot
	MaxLayers     types.Layer // in memory; an older one is final, verified or not
	MaxBallots    int         // of a layer
	MaxBlocks     int         // of a layer, at most types.MaxVotes
	MaxOpinions   int         // different opinions, one for each layer of each history that ballots name
}

// opinionShare is the part of the free places for opinions that one ballot may
// take: those who differ about an old layer are refused before those who agree.
const opinionShare = 64

// ahead is how many layers after the last that was closed are taken: the running
// one, and the next, as others' clocks may be ahead.
const ahead = 2

// Check returns why a network cannot run with these constants, nil if it can.
func (p Params) Check() error {
	switch {
	case p.LayersPerEpoch == 0 || p.LayersPerEpoch > 1<<20:
		return errors.New("layers per epoch out of range")
	case p.Zdist < 1 || p.Hdist < p.Zdist:
		return errors.New("Zdist must be at least one layer and at most Hdist")
	case p.BadBeaconDelay < p.Hdist:
		return errors.New("ballots with another beacon must wait for Hdist at least, so that none of them counts while Hare is believed")
	case p.MaxLayers <= p.Hdist+p.Window || p.MaxLayers > 1<<20:
		return errors.New("MaxLayers must be more than Hdist and Window together")
	case p.MaxExceptions < 1 || p.MaxExceptions > types.MaxVotes || p.MaxBallots < 1 || p.MaxBlocks < 1 || p.MaxBlocks+2 > types.MaxVotes || p.MaxOpinions < opinionShare:
		return errors.New("limit out of range")
	}
	return nil
}

// Ballot is what counts of a ballot that keeps its own rules.
type Ballot struct {
	ID      types.BallotID
	Layer   types.Layer
	Smesher types.NodeID
	Opinion types.Hash32 // of all layers before Layer
	Votes   types.Votes

	Weight    uint64 // of the ATX in its epoch, zero if the smesher is proved malicious
	Height    uint64 // of the ATX, in ticks: the ballot says nothing about higher blocks
	Slots     uint32 // of the smesher in the epoch
	Proofs    int    // of them in this ballot
	BadBeacon bool   // its epoch's beacon is another one here
	// BaseLayer is that of the base, 0 if the base is not at hand.
	BaseLayer types.Layer
}

// ballot is one that was taken.
type ballot struct {
	id        types.BallotID
	layer     types.Layer
	smesher   types.NodeID
	tip       *opinion
	weight    Weight
	height    uint64
	badBeacon bool
	counted   bool
}

// candidate is a choice that a layer may come to.
type candidate struct {
	Choice
	support, against Weight // of counted ballots that are as high
}

// slot has what is known of a layer.
type slot struct {
	candidates []candidate     // the empty one, then blocks, ascending by height and id
	hare       []types.BlockID // results; two make none
	coin       coin
	ballots    []*ballot  // ascending by id
	opinions   []*opinion // those of ballots that end with this layer
	weight     Weight     // of the counted ballots
	choice     Choice     // ours
	hash       types.Hash32
	news       bool // something is to be told
}

type coin int8

const (
	noCoin coin = iota
	tails
	heads
)

// Machine is the tortoise of one node.
type Machine struct {
	p        Params
	first    types.Layer // of slots; what is before is final
	last     types.Layer // that Tally closed
	verified types.Layer
	slots    []*slot
	ballots  map[types.BallotID]*ballot
	opinions map[types.Hash32]*opinion
	root     *opinion // ours of all layers before first
	other    *opinion // stands for all others of these layers
	epochs   map[types.Epoch]uint64
}

// New returns a machine whose first layer follows one with an opinion: zero at
// the network's beginning. It panics if p.Check has an objection.
func New(p Params, before types.Layer, hash types.Hash32) *Machine {
	if err := p.Check(); err != nil {
		panic("tortoise: " + err.Error())
	}
	m := &Machine{
		p: p, first: before + 1, last: before, verified: before,
		ballots: make(map[types.BallotID]*ballot), opinions: make(map[types.Hash32]*opinion),
		epochs: make(map[types.Epoch]uint64),
	}
	m.setRoot(before, hash)
	m.open()
	return m
}

// open makes the slots of the layers that are taken.
func (m *Machine) open() {
	for m.first+types.Layer(len(m.slots)) <= m.last+ahead {
		m.slots = append(m.slots, &slot{candidates: []candidate{{}}, choice: Choice{Abstain: true}})
	}
}

// slot returns a layer's, nil for layers that are not in memory.
func (m *Machine) slot(l types.Layer) *slot {
	if l < m.first || l >= m.first+types.Layer(len(m.slots)) {
		return nil
	}
	return m.slots[l-m.first]
}

// Epoch tells the weight of all ATXs that count in an epoch. The first word
// stands, as what was counted depends on it; it returns whether this was it.
func (m *Machine) Epoch(e types.Epoch, total uint64) bool {
	if _, known := m.epochs[e]; known || total == 0 || e < m.epochOf(m.first) || e > m.epochOf(m.last+ahead) {
		return false
	}
	m.epochs[e] = total
	return true
}

// Weighed tells whether the weight of an epoch was told.
func (m *Machine) Weighed(e types.Epoch) bool { _, known := m.epochs[e]; return known }

func (m *Machine) epochOf(l types.Layer) types.Epoch {
	return types.Epoch(uint32(l) / m.p.LayersPerEpoch)
}

// weigh returns a ballot's weight: its part of the slots of an ATX that is a
// part of an epoch, each rounded down.
func (m *Machine) weigh(b *Ballot, total uint64) Weight {
	part := mulDiv(min(b.Weight, total), uint64(m.p.LayersPerEpoch)*uint64(One), total)
	return Weight(mulDiv(part, uint64(min(max(b.Proofs, 0), int(b.Slots))), max(uint64(b.Slots), 1)))
}

// mulDiv returns a*b/d, which must fit: a or b is at most d.
func mulDiv(a, b, d uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	q, _ := bits.Div64(hi, lo, d)
	return q
}

// ErrManyBlocks says that a layer has as many blocks as may be held.
var ErrManyBlocks = errors.New("layer has too many blocks")

// Block tells of a block whose body is at hand.
func (m *Machine) Block(l types.Layer, id types.BlockID, height uint64) error {
	s := m.slot(l)
	if s == nil || id == types.EmptyBlock || s.find(id) != nil {
		return nil
	}
	if len(s.candidates) > m.p.MaxBlocks && !slices.Contains(s.hare, id) {
		return ErrManyBlocks
	}
	x := candidate{Choice: Choice{Block: id, Height: height}}
	if l > m.verified {
		x.against = m.castAbove(l, height) // nobody could support it yet
	}
	at, _ := slices.BinarySearchFunc(s.candidates[1:], x, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.Height, b.Height), bytes.Compare(a.Block[:], b.Block[:]))
	})
	s.candidates = slices.Insert(s.candidates, at+1, x)
	return nil
}

func (s *slot) find(id types.BlockID) *candidate {
	for i := range s.candidates {
		if s.candidates[i].Block == id {
			return &s.candidates[i]
		}
	}
	return nil
}

// Hare tells a layer's result, EmptyBlock for no block. Two that differ, as two
// certificates can, are as good as none. It returns whether that is news.
func (m *Machine) Hare(l types.Layer, block types.BlockID) bool {
	s := m.slot(l)
	if s == nil || len(s.hare) == 2 || slices.Contains(s.hare, block) {
		return false
	}
	s.hare = append(s.hare, block)
	return true
}

// Overrule takes a result back that was told, for another one that is told next.
func (m *Machine) Overrule(l types.Layer, block types.BlockID) {
	if s := m.slot(l); s != nil {
		s.hare = slices.DeleteFunc(s.hare, func(h types.BlockID) bool { return h == block })
	}
}

// Results returns what was told by Hare of a layer: two make none.
func (m *Machine) Results(l types.Layer) []types.BlockID {
	if s := m.slot(l); s != nil {
		return slices.Clone(s.hare)
	}
	return nil
}

// Coin tells a layer's weak coin. The first word stands; it returns whether this was it.
func (m *Machine) Coin(l types.Layer, up bool) bool {
	s := m.slot(l)
	if s == nil || s.coin != noCoin {
		return false
	}
	s.coin = tails
	if up {
		s.coin = heads
	}
	return true
}

// Malicious takes the weight of a smesher's ballots.
func (m *Machine) Malicious(smesher types.NodeID) {
	for _, s := range m.slots {
		for _, b := range s.ballots {
			if b.smesher == smesher {
				m.count(b, false)
				b.weight = 0
			}
		}
	}
}

// State is what is said of a layer.
type State struct {
	Layer types.Layer
	// Choice is the valid block: all others of the layer are not valid. It is an
	// opinion until the layer is verified; what hangs on it can be undone then.
	Choice   Choice
	Opinion  types.Hash32 // of all layers up to this one: the mesh hash
	Verified bool
	// Aged says that a layer became final because it was too old to be held, and
	// not because enough weight agrees about it.
	Aged bool
}

// Layer returns what is said of a layer that was closed and is in memory.
func (m *Machine) Layer(l types.Layer) (State, bool) {
	s := m.slot(l)
	if s == nil || l > m.last {
		return State{}, false
	}
	return State{Layer: l, Choice: s.choice, Opinion: s.hash, Verified: l <= m.verified}, true
}

// Opinion returns what we say of all layers that were closed.
func (m *Machine) Opinion() types.Hash32 { return m.hashBefore(m.last + 1) }

// Has tells whether a ballot was taken and is in memory.
func (m *Machine) Has(id types.BallotID) bool { return m.ballots[id] != nil }

// Of returns the ballot of a smesher that was taken in a layer, false if there is none.
func (m *Machine) Of(l types.Layer, smesher types.NodeID) (types.BallotID, bool) {
	s := m.slot(l)
	if s == nil {
		return types.BallotID{}, false
	}
	i := slices.IndexFunc(s.ballots, func(b *ballot) bool { return b.smesher == smesher })
	if i < 0 {
		return types.BallotID{}, false
	}
	return s.ballots[i].id, true
}

// Opine returns our choice in a layer: while Hare is believed by what is known now, also of a layer that is not closed;
// by weight as it was when the last layer was closed.
func (m *Machine) Opine(l types.Layer) Choice {
	s := m.slot(l)
	switch {
	case s == nil:
		return Choice{Abstain: true}
	case l <= m.verified || !m.trusted(l):
		return s.choice
	}
	return m.opine(l)
}

// Verified returns the newest layer that is final, with all before it.
func (m *Machine) Verified() types.Layer { return m.verified }

// Last returns the newest layer that was closed.
func (m *Machine) Last() types.Layer { return m.last }

// First returns the oldest layer in memory.
func (m *Machine) First() types.Layer { return m.first }

// Full tells whether the oldest layer that is not verified is so old that
// weight is believed about it and not Hare.
func (m *Machine) Full() bool { return m.verified < m.last && !m.trusted(m.verified+1) }

// trusted tells whether Hare is believed about a layer in ballots of the layer
// after the last.
func (m *Machine) trusted(l types.Layer) bool { return l+m.p.Hdist > m.last }

// Len returns how many layers, ballots, blocks and opinions are held.
func (m *Machine) Len() (layers, ballots, blocks, opinions int) {
	for _, s := range m.slots {
		blocks += len(s.candidates) - 1
		opinions += len(s.opinions)
	}
	return len(m.slots), len(m.ballots), blocks, opinions
}

func (m *Machine) String() string {
	return fmt.Sprintf("layers %d to %d, verified to %d, full %t", m.first, m.last, m.verified, m.Full())
}
