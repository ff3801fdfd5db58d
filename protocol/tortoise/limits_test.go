package tortoise

import (
	"errors"
	"testing"

	"tweedle/values/types"
)

func small() Params {
	return Params{
		LayersPerEpoch: 10, Hdist: 3, Zdist: 1, Window: 2, BadBeaconDelay: 3,
		MaxExceptions: 10, MaxLayers: 6, MaxBallots: 2, MaxBlocks: 2, MaxOpinions: 1 << 10,
	}
}

func block(l types.Layer, name byte) types.Vote {
	return types.Vote{Block: types.BlockID{name, byte(l)}, Layer: l, Height: 2}
}

// with returns a ballot of a layer whose opinion is that of some choices, from
// the first layer on.
func with(l types.Layer, name byte, v types.Votes, says ...Choice) *Ballot {
	var h types.Hash32
	for _, c := range says {
		h = c.After(h)
	}
	return &Ballot{ID: types.BallotID{name, byte(l)}, Layer: l, Smesher: types.NodeID{name}, Opinion: h, Votes: v, Weight: 1, Height: 5, Slots: 10, Proofs: 1}
}

func opened(p Params, layers int) *Machine {
	m := New(p, 0, types.Hash32{})
	m.Epoch(0, 4)
	for range layers {
		m.Tally()
	}
	return m
}

// Of a layer there are as many blocks and ballots as Params say, and Hare's
// block beside them.
func TestALayerHoldsSoManyBlocksAndBallots(t *testing.T) {
	for limit := 1; limit <= 2; limit++ {
		p := small()
		p.MaxBlocks, p.MaxBallots = limit, limit
		m := opened(p, 0)
		for i := range 4 {
			err := m.Block(1, types.BlockID{byte(i + 1)}, 1)
			if (err != nil) != (i >= limit) {
				t.Errorf("limit %d, block %d: %v", limit, i+1, err)
			}
			err = m.Ballot(with(1, byte(i+1), types.Votes{}))
			if (err != nil) != (i >= limit) {
				t.Errorf("limit %d, ballot %d: %v", limit, i+1, err)
			}
		}
		m.Hare(1, types.BlockID{9})
		if err := m.Block(1, types.BlockID{9}, 1); err != nil {
			t.Errorf("limit %d: Hare's block: %v", limit, err)
		}
		if _, ballots, blocks, _ := m.Len(); blocks != limit+1 || ballots != limit {
			t.Errorf("limit %d: %d blocks, %d ballots", limit, blocks, ballots)
		}
	}
}

// A ballot that would take much of the room for opinions is refused, one that
// says what others say is taken.
func TestOpinionsTakeNoMoreThanTheirRoom(t *testing.T) {
	p := small()
	p.MaxOpinions, p.MaxBallots = 4*opinionShare, 1000
	p.MaxLayers, p.Zdist, p.Hdist, p.BadBeaconDelay = 60, 2, 50, 50
	m := opened(p, 2)
	taken := 0
	for i := range 500 {
		// Each begins otherwise, so it needs two places.
		b := block(1, byte(i+1))
		b.Block[5] = byte(i >> 8)
		m.slot(1).candidates = append(m.slot(1).candidates[:1], candidate{Choice: choose(b)})
		ballot := with(3, byte(i), types.Votes{Support: []types.Vote{b}}, choose(b), Choice{})
		ballot.ID[5] = byte(i >> 8)
		switch err := m.Ballot(ballot); {
		case err == nil:
			taken++
		case err != ErrFull:
			t.Fatal(err)
		}
	}
	if _, _, _, opinions := m.Len(); taken == 0 || taken == 500 || opinions > p.MaxOpinions {
		t.Errorf("%d of 500 were taken, with %d opinions of %d", taken, opinions, p.MaxOpinions)
	}
	if err := m.Ballot(with(2, 200, types.Votes{}, Choice{})); err != nil {
		t.Errorf("a ballot with one more opinion: %v", err)
	}
}

// Without any ballot nothing is verified, layers become final by age, and no
// more of them are held than may be.
func TestTheOldestLayerGoesWhenThereIsNoRoom(t *testing.T) {
	m := opened(small(), 0)
	aged := 0
	for range 40 {
		for e := range types.Epoch(6) {
			m.Epoch(e, 4)
		}
		for _, s := range m.Tally() {
			if s.Aged {
				aged++
			}
		}
		if layers, _, _, _ := m.Len(); layers > int(m.p.MaxLayers)+ahead || len(m.epochs) > 3 {
			t.Fatalf("%d layers, %d epochs: %v", layers, len(m.epochs), m)
		}
	}
	if aged != 40-int(m.p.MaxLayers) {
		t.Errorf("%d layers became final by age: %v", aged, m)
	}
}

// Each way to write votes that are not what they say is refused, with its reason.
func TestAWrongEncodingIsRefused(t *testing.T) {
	p := small()
	p.MaxExceptions, p.MaxBallots = 3, 3
	X, Y := block(1, 'X'), block(1, 'Y')
	x, none, silent := choose(X), Choice{}, Choice{Abstain: true}
	tall := X
	tall.Height++
	for _, c := range []struct {
		what string
		b    *Ballot
		want error
	}{
		{"support", with(3, 9, types.Votes{Support: []types.Vote{X}}, x, none), nil},
		{"abstain", with(3, 9, types.Votes{Abstain: []types.Layer{1, 2}}, silent, silent), nil},
		{"against what the base supports", with(3, 9, types.Votes{Base: types.BallotID{1, 2}, Against: []types.Vote{X}}, none, none), nil},
		{"another opinion", with(3, 9, types.Votes{Support: []types.Vote{X}}, none, none), ErrOpinion},
		{"too many", with(5, 9, types.Votes{Abstain: []types.Layer{1, 2, 3, 4}}, silent, silent, silent, silent), ErrTooMany},
		{"order", with(3, 9, types.Votes{Abstain: []types.Layer{2, 1}}, silent, silent), ErrOrder},
		{"two blocks of a layer", with(3, 9, types.Votes{Support: []types.Vote{X, Y}}, x, none), ErrOrder},
		{"its own layer", with(3, 9, types.Votes{Abstain: []types.Layer{3}}, none, none), ErrFuture},
		{"twice", with(3, 9, types.Votes{Support: []types.Vote{X}, Abstain: []types.Layer{1}}, x, none), ErrTwice},
		{"another height", with(3, 9, types.Votes{Support: []types.Vote{tall}}, choose(tall), none), ErrBlock},
		{"no block", with(3, 9, types.Votes{Support: []types.Vote{{Layer: 1}}}, none, none), ErrBlock},
		{"a base of its layer", with(2, 9, types.Votes{Base: types.BallotID{1, 2}}, x), ErrBase},
		{"what the base says anyway", with(3, 9, types.Votes{Base: types.BallotID{1, 2}, Support: []types.Vote{X}}, x, none), ErrException},
		{"against what the base does not support", with(3, 9, types.Votes{Base: types.BallotID{1, 2}, Against: []types.Vote{Y}}, x, none), ErrException},
		{"two blocks by exception", with(3, 9, types.Votes{Base: types.BallotID{1, 2}, Support: []types.Vote{Y}}, choose(Y), none), ErrException},
		{"a block where the base was silent", with(3, 9, types.Votes{Base: types.BallotID{2, 2}, Support: []types.Vote{X}}, x, none), nil},
		{"no block where the base was silent", with(3, 9, types.Votes{Base: types.BallotID{2, 2}, Against: []types.Vote{silence(1)}}, none, none), nil},
		{"silent as the base", with(3, 9, types.Votes{Base: types.BallotID{2, 2}, Abstain: []types.Layer{1}}, silent, none), ErrException},
		{"against a block where the base was silent", with(3, 9, types.Votes{Base: types.BallotID{2, 2}, Against: []types.Vote{X}}, none, none), ErrException},
		{"a block and none where the base was silent", with(3, 9, types.Votes{Base: types.BallotID{2, 2}, Support: []types.Vote{X}, Against: []types.Vote{silence(1)}}, x, none), ErrException},
		{"no block where the base has one", with(3, 9, types.Votes{Base: types.BallotID{1, 2}, Against: []types.Vote{silence(1)}}, none, none), ErrException},
		{"against in a layer of its own", with(3, 9, types.Votes{Against: []types.Vote{X}}, none, none), ErrException},
	} {
		m := opened(p, 4)
		for _, b := range []types.Vote{X, Y} {
			if err := m.Block(b.Layer, b.Block, b.Height); err != nil {
				t.Fatal(err)
			}
		}
		for _, base := range []*Ballot{with(2, 1, types.Votes{Support: []types.Vote{X}}, x), with(2, 2, types.Votes{Abstain: []types.Layer{1}}, silent)} {
			if err := m.Ballot(base); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Ballot(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

// A ballot waits for its base and for the blocks that it supports.
func TestABallotWaitsForWhatItRefersTo(t *testing.T) {
	m := opened(small(), 2)
	X := block(1, 'X')
	b := with(3, 9, types.Votes{Base: types.BallotID{1, 2}, Support: []types.Vote{X}}, choose(X), Choice{})
	b.Votes.Base = types.BallotID{}
	var unknown *Unknown
	if err := m.Ballot(b); !errors.As(err, &unknown) || len(unknown.Blocks) != 1 || unknown.Blocks[0] != X.Block {
		t.Errorf("without its block: %v", err)
	}
	if err := m.Block(1, X.Block, X.Height); err != nil {
		t.Fatal(err)
	}
	if err := m.Ballot(b); err != nil {
		t.Error(err)
	}
	b = with(3, 8, types.Votes{Base: types.BallotID{1, 2}}, choose(X), Choice{})
	if err := m.Ballot(b); !errors.As(err, &unknown) || unknown.Base != b.Votes.Base {
		t.Errorf("without its base: %v", err)
	}
}

// What a network must not be set to is named.
func TestConstantsThatDoNotFit(t *testing.T) {
	if err := small().Check(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Params){
		func(p *Params) { p.LayersPerEpoch = 0 }, func(p *Params) { p.Zdist = 0 }, func(p *Params) { p.Zdist = p.Hdist + 1 },
		func(p *Params) { p.BadBeaconDelay = p.Hdist - 1 }, func(p *Params) { p.MaxLayers = p.Hdist + p.Window },
		func(p *Params) { p.MaxExceptions = types.MaxVotes + 1 }, func(p *Params) { p.MaxBallots = 0 }, func(p *Params) { p.MaxOpinions = 1 },
	} {
		p := small()
		change(&p)
		if p.Check() == nil {
			t.Errorf("%+v is let pass", p)
		}
	}
}
