package tortoise

import (
	"fmt"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// Record is what is stored of a layer beside its ballots.
type Record struct {
	Layer  types.Layer
	Before types.Layer // the one before the oldest in memory, when the record was made
	Total  uint64      // weight of its epoch's ATXs, 0 while it is not told
	Blocks []Choice
	Hare   []types.BlockID // at most two
	Coin   *bool
	Closed bool // by Tally
	Final  bool
	// Of a final layer:
	Choice  Choice
	Opinion types.Hash32 // of all layers up to it
}

// Beginning is the record of the layer before the first one of a new machine.
func Beginning(l types.Layer, opinion types.Hash32) Record {
	return Record{Layer: l, Before: l, Closed: true, Final: true, Opinion: opinion}
}

// Record returns what is to be stored of a layer that is in memory, and false if it is not. It is to be
// stored again when something of it was told, or the layer closed or final. Records
// of layers before its Before are not needed any more.
func (m *Machine) Record(l types.Layer) (Record, bool) {
	s := m.slot(l)
	if s == nil {
		return Record{}, false
	}
	r := Record{
		Layer: l, Before: m.first - 1, Total: m.epochs[m.epochOf(l)], Hare: s.hare, Closed: l <= m.last, Final: l <= m.verified,
	}
	for _, x := range s.candidates[1:] {
		r.Blocks = append(r.Blocks, x.Choice)
	}
	if s.coin != noCoin {
		up := s.coin == heads
		r.Coin = &up
	}
	if r.Final {
		r.Choice, r.Opinion = s.choice, s.hash
	}
	return r, true
}

// FromRecords returns what a machine is rebuilt from, but for the ballots. The records are in
// ascending order of layers.
func FromRecords(p Params, rs []Record) (s Stored, err error) {
	for _, r := range rs {
		if r.Closed {
			s.Last, s.Before = r.Layer, r.Before
		}
	}
	s.Epochs = make(map[types.Epoch]uint64)
	begun, final := false, s.Before
	for i, r := range rs {
		if i > 0 && r.Layer <= rs[i-1].Layer {
			return s, fmt.Errorf("records of layers %d and %d are not in order", rs[i-1].Layer, r.Layer)
		}
		switch {
		case r.Layer < s.Before:
			continue
		case r.Layer == s.Before:
			begun, s.Opinion = r.Final, r.Opinion
			continue
		case r.Final && r.Layer == final+1:
			final++
			s.Final = append(s.Final, r.Choice)
		}
		if r.Total > 0 {
			s.Epochs[types.Epoch(uint32(r.Layer)/p.LayersPerEpoch)] = r.Total
		}
		s.Layers = append(s.Layers, StoredLayer{Layer: r.Layer, Blocks: r.Blocks, Hare: r.Hare, Coin: r.Coin})
	}
	if !begun {
		return s, fmt.Errorf("no record of layer %d says what came before", s.Before)
	}
	return s, nil
}

// EncodeTo appends the canonical encoding.
func (r *Record) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(r.Layer))
	e.Compact(uint64(r.Before))
	e.Compact(r.Total)
	e.Compact(uint64(len(r.Blocks)))
	for _, c := range r.Blocks {
		encodeChoice(e, c)
	}
	e.Compact(uint64(len(r.Hare)))
	for _, id := range r.Hare {
		e.Raw(id[:])
	}
	e.Option(r.Coin != nil)
	if r.Coin != nil {
		e.Bool(*r.Coin)
	}
	e.Bool(r.Closed)
	e.Option(r.Final)
	if r.Final {
		encodeChoice(e, r.Choice)
		e.Raw(r.Opinion[:])
	}
}

// DecodeFrom reads the canonical encoding.
func (r *Record) DecodeFrom(d *codec.Decoder) {
	r.Layer, r.Before, r.Total = types.Layer(d.Compact32()), types.Layer(d.Compact32()), d.Compact()
	for range d.Count(types.MaxVotes) {
		if r.Blocks = append(r.Blocks, decodeChoice(d)); d.Err() != nil {
			return
		}
	}
	for range d.Count(2) {
		var id types.BlockID
		d.Raw(id[:])
		r.Hare = append(r.Hare, id)
	}
	if d.Option() {
		up := d.Bool()
		r.Coin = &up
	}
	r.Closed = d.Bool()
	if r.Final = d.Option(); r.Final {
		r.Choice = decodeChoice(d)
		d.Raw(r.Opinion[:])
	}
}

func encodeChoice(e *codec.Encoder, c Choice) {
	e.Option(!c.Abstain)
	if !c.Abstain {
		e.Raw(c.Block[:])
		e.Compact(c.Height)
	}
}

func decodeChoice(d *codec.Decoder) (c Choice) {
	if !d.Option() {
		return Choice{Abstain: true}
	}
	d.Raw(c.Block[:])
	c.Height = d.Compact()
	return c
}
