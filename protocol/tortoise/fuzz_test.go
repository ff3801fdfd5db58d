package tortoise

import (
	"bytes"
	"testing"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// Whatever votes a ballot has, reading them neither panics nor lets a ballot in
// whose opinion they are not.
func FuzzVotes(f *testing.F) {
	X := block(1, 'X')
	for _, v := range []types.Votes{
		{}, {Support: []types.Vote{X}}, {Base: types.BallotID{1, 2}, Against: []types.Vote{X}}, {Base: types.BallotID{1, 2}, Abstain: []types.Layer{1, 3}},
	} {
		f.Add(codec.Encode(&v), uint32(4))
	}
	f.Fuzz(func(t *testing.T, text []byte, layer uint32) {
		var v types.Votes
		if codec.Decode(text, &v) != nil {
			return
		}
		m := opened(small(), 4)
		if err := m.Block(1, X.Block, X.Height); err != nil {
			t.Fatal(err)
		}
		if err := m.Ballot(with(2, 1, types.Votes{Support: []types.Vote{X}}, choose(X))); err != nil {
			t.Fatal(err)
		}
		b := with(types.Layer(layer), 9, v)
		b.Opinion[0]++
		if err := m.Ballot(b); err == nil {
			t.Fatalf("took votes %+v as an opinion that nobody has", v)
		}
	})
}

// Whatever happens in whatever order, nothing panics, the limits hold, and the
// frontier does not go back.
func FuzzMachine(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"))
	f.Add([]byte("4e4e4e4e7777ttttvvvvtvtvtvtvtvhbhbtvtvtvcctt"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		p := small()
		m := New(p, 0, types.Hash32{})
		verified := types.Layer(0)
		for i, s := range steps {
			l := m.last + types.Layer(s>>4)%5
			l -= min(l, 2)
			switch s % 8 {
			case 0, 1:
				m.Tally()
			case 2:
				m.Epoch(types.Epoch(l/10), uint64(s))
			case 3:
				_ = m.Block(l, types.BlockID{s}, uint64(s)<<56)
			case 4:
				m.Hare(l, types.BlockID{s&^7 + 3})
			case 5:
				m.Coin(l, s > 99)
			case 6:
				m.Malicious(types.NodeID{s >> 6})
			case 7:
				v, h, err := m.Votes()
				if err != nil {
					continue
				}
				b := &Ballot{
					ID: types.BallotID{byte(i), byte(i >> 8)}, Layer: m.last + 1, Smesher: types.NodeID{s >> 6}, Opinion: h, Votes: v,
					Weight: ^uint64(0) >> (s >> 3), Height: uint64(s) << 56, Slots: uint32(s) << 24, Proofs: int(s), BadBeacon: s > 200,
				}
				if err := m.Ballot(b); err != nil && err != ErrEpoch && err != ErrFull {
					t.Fatalf("our own ballot: %v: %+v", err, v)
				}
			}
			layers, ballots, _, opinions := m.Len()
			if m.verified < verified || layers > int(p.MaxLayers)+ahead+1 || ballots > layers*p.MaxBallots || opinions > p.MaxOpinions {
				t.Fatalf("%v: %d layers, %d ballots, %d opinions; verified %d before", m, layers, ballots, opinions, verified)
			}
			verified = m.verified
		}
	})
}

// A record has one encoding.
func FuzzRecord(f *testing.F) {
	up := true
	r := Record{Layer: 9, Before: 4, Total: 7, Blocks: []Choice{{Block: types.BlockID{1}, Height: 3}}, Hare: []types.BlockID{{1}}, Coin: &up, Closed: true, Final: true}
	f.Add(codec.Encode(&r))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r Record
		if codec.Decode(text, &r) == nil && !bytes.Equal(codec.Encode(&r), text) {
			t.Fatalf("%+v has another encoding too", r)
		}
	})
}
