package tortoise

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"tweedle/values/types"
)

// Choice is an opinion about one layer: nothing yet, no block, or one block.
type Choice struct {
	Abstain bool
	Block   types.BlockID // EmptyBlock: none is valid
	Height  uint64        // of the block, in ticks
}

// After returns the opinion that a choice makes of the one about all layers
// before.
func (c Choice) After(prev types.Hash32) types.Hash32 {
	switch {
	case c.Abstain:
		return types.Sum(prev[:], []byte{0})
	case c.Block == types.EmptyBlock:
		return types.Sum(prev[:])
	}
	return types.Sum(prev[:], c.Block[:], binary.LittleEndian.AppendUint64(nil, c.Height))
}

func choose(v types.Vote) Choice { return Choice{Block: v.Block, Height: v.Height} }

// opinion is what ballots say about all layers up to one. Opinions are a tree:
// those who agree share one, and only what ballots differ about takes place.
type opinion struct {
	prev   *opinion // nil at the root
	layer  types.Layer
	choice Choice
	hash   types.Hash32
	// foreign says that it differs from ours in layers that are final: ballots
	// with it do not count.
	foreign bool
}

// at returns the part of an opinion up to a layer, not before the root's.
func (o *opinion) at(l types.Layer) *opinion {
	for o.layer > l {
		o = o.prev
	}
	return o
}

func (m *Machine) setRoot(before types.Layer, hash types.Hash32) {
	m.root = m.opinions[hash]
	if m.root == nil || m.root.layer != before {
		m.root = &opinion{layer: before, hash: hash}
	}
	m.root.prev = nil
	// No real one has this hash, nor one that stood for others before.
	m.other = &opinion{layer: before, hash: types.Sum([]byte("another one"), binary.LittleEndian.AppendUint32(nil, uint32(before))), foreign: true}
}

// Unknown says what is needed before a ballot can be read.
type Unknown struct {
	Base   types.BallotID // zero if it is at hand
	Blocks []types.BlockID
}

func (u *Unknown) Error() string {
	return fmt.Sprintf("ballot's votes refer to base %s and %d blocks that are not known", u.Base, len(u.Blocks))
}

// Reasons why nothing is said about a ballot.
var (
	ErrKnown error = &types.Early{Reason: "ballot is known"}
	ErrLayer error = &types.Early{Reason: "ballot is of a layer that is final or has not begun"}
	ErrEpoch error = &types.Early{Reason: "the weight of the ballot's epoch is not known yet"}
	ErrFull  error = &types.Early{Reason: "ballot needs too much of the room for opinions"}
)

// Reasons why a ballot is wrong, whatever one knows.
var (
	ErrTooMany   = errors.New("ballot has more votes than it may")
	ErrOrder     = errors.New("ballot's votes are not in strictly ascending order of layers")
	ErrFuture    = errors.New("ballot votes about layers that are not before it")
	ErrTwice     = errors.New("ballot votes twice about a layer")
	ErrBase      = errors.New("ballot's base is not older than the ballot")
	ErrBlock     = errors.New("ballot votes for a block as of another layer or height")
	ErrException = errors.New("ballot's exceptions do not change what its base says")
	ErrOpinion   = errors.New("ballot's votes are not the opinion that it declares")
)

// Form applies the rules for a ballot's votes that need no knowledge.
func (p Params) Form(b *Ballot) error {
	v := &b.Votes
	layer := func(v types.Vote) types.Layer { return v.Layer }
	self := func(l types.Layer) types.Layer { return l }
	switch {
	case len(v.Support)+len(v.Against)+len(v.Abstain) > p.MaxExceptions:
		return ErrTooMany
	case !ascending(v.Support, layer) || !ascending(v.Against, layer) || !ascending(v.Abstain, self):
		return ErrOrder
	case newest(v.Support, layer) >= b.Layer || newest(v.Against, layer) >= b.Layer || newest(v.Abstain, self) >= b.Layer:
		return ErrFuture
	}
	for _, l := range v.Abstain {
		if voteIn(v.Support, l) != nil || voteIn(v.Against, l) != nil {
			return ErrTwice
		}
	}
	for _, s := range v.Support {
		if s.Block == types.EmptyBlock {
			return ErrBlock
		}
	}
	return nil
}

func ascending[T any](list []T, layer func(T) types.Layer) bool {
	for i := 1; i < len(list); i++ {
		if layer(list[i-1]) >= layer(list[i]) {
			return false
		}
	}
	return true
}

func newest[T any](list []T, layer func(T) types.Layer) types.Layer {
	if len(list) == 0 {
		return 0
	}
	return layer(list[len(list)-1])
}

func voteIn(list []types.Vote, l types.Layer) *types.Vote {
	at, ok := slices.BinarySearchFunc(list, l, func(v types.Vote, l types.Layer) int { return cmp.Compare(v.Layer, l) })
	if !ok {
		return nil
	}
	return &list[at]
}

// Ballot takes a ballot, whose own rules the caller has checked, and counts it
// when it is due. The error is an *Unknown if something has to come first, an
// *types.Early if nobody is to blame, else a refusal.
func (m *Machine) Ballot(b *Ballot) error {
	s := m.slot(b.Layer)
	total, weighed := m.epochs[m.epochOf(b.Layer)]
	switch {
	case m.ballots[b.ID] != nil:
		return ErrKnown
	case s == nil:
		return ErrLayer
	case len(s.ballots) >= m.p.MaxBallots:
		return ErrFull
	case !weighed:
		return ErrEpoch
	}
	if err := m.p.Form(b); err != nil {
		return err
	}
	r, err := m.read(b)
	agrees := err == nil && r.tip() == b.Opinion
	if !agrees && b.Votes.Base != (types.BallotID{}) && m.ballots[b.Votes.Base] == nil && (b.BaseLayer == 0 || b.BaseLayer >= m.first) {
		// Older than what is in memory, as then the ballot says all itself; else missing.
		if unknown := new(Unknown); !errors.As(err, &unknown) {
			return &Unknown{Base: b.Votes.Base}
		}
	}
	switch {
	case err != nil:
		return err
	case !agrees && r.sure:
		return ErrOpinion
	case !agrees: // about what is final here: it does not count, and others may be written against it
		r.start = m.other
	}
	chain := r.chain()
	fresh := 0
	for _, o := range chain {
		if m.opinions[o.hash] == nil {
			fresh++
		}
	}
	if fresh*opinionShare > m.p.MaxOpinions-len(m.opinions) {
		return ErrFull
	}
	m.insert(b, m.share(r.start, chain), m.weigh(b, total))
	return nil
}

// insert keeps a ballot with its opinion.
func (m *Machine) insert(b *Ballot, tip *opinion, w Weight) {
	kept := &ballot{id: b.ID, layer: b.Layer, smesher: b.Smesher, tip: tip, weight: w, height: b.Height, badBeacon: b.BadBeacon}
	s := m.slot(b.Layer)
	at, _ := slices.BinarySearchFunc(s.ballots, b.ID, func(k *ballot, id types.BallotID) int { return bytes.Compare(k.id[:], id[:]) })
	s.ballots = slices.Insert(s.ballots, at, kept)
	m.ballots[b.ID] = kept
	m.count(kept, m.due(kept))
}

// reading is what a ballot says: what it takes over from its base, and its
// choices in the layers after that.
type reading struct {
	start   *opinion
	sure    bool // that it is all what the ballot says, also about layers that are not in memory
	choices []Choice
}

// chain returns the opinions that follow where a reading starts.
func (r reading) chain() (chain []*opinion) {
	o := r.start
	for _, c := range r.choices {
		o = &opinion{prev: o, layer: o.layer + 1, choice: c, hash: c.After(o.hash), foreign: o.foreign}
		chain = append(chain, o)
	}
	return chain
}

// tip returns the hash of the whole.
func (r reading) tip() types.Hash32 {
	h := r.start.hash
	for _, c := range r.choices {
		h = c.After(h)
	}
	return h
}

// share puts what is new of a row into the tree, and returns its end as the tree
// has it.
func (m *Machine) share(tip *opinion, chain []*opinion) *opinion {
	for _, o := range chain {
		have := m.opinions[o.hash]
		if have == nil {
			have = o
			have.prev = tip
			m.opinions[o.hash] = o
			s := m.slot(o.layer)
			s.opinions = append(s.opinions, o)
		}
		tip = have
	}
	return tip
}

// read applies a ballot's votes to its base. Before the base's layer they are
// exceptions; from there on the ballot says all itself. If the base is older
// than what is in memory, or there is none, it says all itself. If that or the base
// differs from us about what is not in memory, it is read as if it did not.
func (m *Machine) read(b *Ballot) (reading, error) {
	base := m.ballots[b.Votes.Base]
	own := m.first // the first layer in which the ballot says all itself
	if base != nil {
		if own = base.layer; own >= b.Layer {
			return reading{}, ErrBase
		}
	}
	if err := m.refers(b); err != nil {
		return reading{}, err
	}
	low := own
	if base != nil {
		for _, l := range exceptions(&b.Votes, own) {
			low = min(low, l)
		}
	}
	r := reading{start: m.root, sure: base == nil && b.Votes.Base == (types.BallotID{}) && m.first == 1}
	if low < m.first || base != nil && base.tip.foreign {
		low = m.first
	} else if base != nil {
		r.start, r.sure = base.tip.at(low-1), true
	}
	changed := make([]Choice, own-low)
	if base != nil {
		for o := base.tip; o.layer >= low; o = o.prev {
			changed[o.layer-low] = o.choice
		}
	}
	for l := low; l < b.Layer; l++ {
		var said *Choice
		if l < own {
			said = &changed[l-low]
		}
		c, err := b.choice(l, said)
		if err != nil {
			return reading{}, err
		}
		r.choices = append(r.choices, c)
	}
	return r, nil
}

// refers checks what a ballot says about blocks against those at hand.
func (m *Machine) refers(b *Ballot) error {
	var unknown Unknown
	for _, v := range b.Votes.Support {
		s := m.slot(v.Layer)
		if s == nil {
			continue // final
		}
		switch x := s.find(v.Block); {
		case x == nil:
			unknown.Blocks = append(unknown.Blocks, v.Block)
		case x.Height != v.Height:
			return ErrBlock
		}
	}
	if len(unknown.Blocks) > 0 {
		return &unknown
	}
	return nil
}

// exceptions returns the layers before one that votes are about.
func exceptions(v *types.Votes, before types.Layer) (layers []types.Layer) {
	if len(v.Support) > 0 {
		layers = append(layers, v.Support[0].Layer)
	}
	if len(v.Against) > 0 {
		layers = append(layers, v.Against[0].Layer)
	}
	if len(v.Abstain) > 0 {
		layers = append(layers, v.Abstain[0])
	}
	return slices.DeleteFunc(layers, func(l types.Layer) bool { return l >= before })
}

// choice returns what a ballot says about a layer. said is what its base says,
// nil where the ballot says all itself.
func (b *Ballot) choice(l types.Layer, said *Choice) (Choice, error) {
	support, against := voteIn(b.Votes.Support, l), voteIn(b.Votes.Against, l)
	_, abstains := slices.BinarySearch(b.Votes.Abstain, l)
	switch {
	case said == nil && against != nil:
		return Choice{}, ErrException // not to support is enough
	case said == nil && support == nil:
		return Choice{Abstain: abstains}, nil
	case said == nil:
		return choose(*support), nil
	case !abstains && support == nil && against == nil:
		return *said, nil
	case said.Abstain && support != nil && against == nil:
		return choose(*support), nil
	case said.Abstain && support == nil && against != nil && *against == silence(l):
		return Choice{}, nil
	case said.Abstain:
		return Choice{}, ErrException
	case abstains:
		return Choice{Abstain: true}, nil
	case (against != nil) != (said.Block != types.EmptyBlock) || against != nil && choose(*against) != *said,
		support != nil && choose(*support) == *said:
		return Choice{}, ErrException
	case support != nil:
		return choose(*support), nil
	}
	return Choice{}, nil
}

// silence is the vote against what a base said that abstained, of those who say that a
// layer has no block.
func silence(l types.Layer) types.Vote { return types.Vote{Layer: l} }

// ErrNoBase says that no ballot in memory is near enough to our opinion.
var ErrNoBase = errors.New("our votes fit no ballot: too many exceptions")

// maxBases is how many ballots are tried as a base.
const maxBases = 1024

// Votes returns the votes of a ballot of ours for the layer after the last, and
// the opinion that they make: the difference from the newest ballot that they
// can be written against.
func (m *Machine) Votes() (types.Votes, types.Hash32, error) {
	opinion := m.Opinion()
	tried := 0
	for l := m.last; l >= m.first && tried < maxBases; l-- {
		for _, b := range m.slot(l).ballots {
			if b.weight == 0 || b.tip.foreign {
				continue
			}
			if tried++; tried > maxBases {
				break
			}
			if v, ok := m.against(b); ok {
				return v, opinion, nil
			}
		}
	}
	v := types.Votes{}
	if m.states(&v, m.first); len(v.Support)+len(v.Abstain) <= m.p.MaxExceptions {
		return v, opinion, nil
	}
	return types.Votes{}, types.Hash32{}, ErrNoBase
}

// against returns our votes as the difference from a base, false if it is too far from
// ours.
func (m *Machine) against(base *ballot) (types.Votes, bool) {
	v := types.Votes{Base: base.id}
	room := m.p.MaxExceptions
	for o := base.tip; o.layer >= m.first; o = o.prev {
		s := m.slot(o.layer)
		if o.hash == s.hash {
			break
		}
		ours, theirs := s.choice, o.choice
		switch {
		case ours == theirs:
			continue
		case ours.Abstain:
			v.Abstain = append(v.Abstain, o.layer)
			room--
			continue
		case theirs.Abstain && ours.Block == types.EmptyBlock:
			v.Against = append(v.Against, silence(o.layer))
			room--
			continue
		}
		if theirs.Block != types.EmptyBlock {
			v.Against = append(v.Against, types.Vote{Block: theirs.Block, Layer: o.layer, Height: theirs.Height})
			room--
		}
		if ours.Block != types.EmptyBlock {
			v.Support = append(v.Support, types.Vote{Block: ours.Block, Layer: o.layer, Height: ours.Height})
			room--
		}
		if room < 0 {
			return v, false
		}
	}
	slices.Reverse(v.Support)
	slices.Reverse(v.Against)
	slices.Reverse(v.Abstain)
	m.states(&v, base.layer)
	return v, len(v.Support)+len(v.Against)+len(v.Abstain) <= m.p.MaxExceptions
}

// states adds what we say about all layers from one on.
func (m *Machine) states(v *types.Votes, from types.Layer) {
	for l := from; l <= m.last; l++ {
		switch c := m.slot(l).choice; {
		case c.Abstain:
			v.Abstain = append(v.Abstain, l)
		case c.Block != types.EmptyBlock:
			v.Support = append(v.Support, types.Vote{Block: c.Block, Layer: l, Height: c.Height})
		}
	}
}
