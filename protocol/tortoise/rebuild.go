package tortoise

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"tweedle/values/types"
)

// Stored is what a machine is rebuilt from.
type Stored struct {
	Before  types.Layer  // the one before the oldest that was in memory
	Opinion types.Hash32 // of all layers up to it
	Final   []Choice     // of the layers from there to the verified frontier
	Last    types.Layer  // that was closed
	Epochs  map[types.Epoch]uint64
	Layers  []StoredLayer
	Ballots []Ballot // all that were taken of the layers after Before, and maybe others, in any order
}

// StoredLayer is what is stored of a layer beside its ballots.
type StoredLayer struct {
	Layer  types.Layer
	Blocks []Choice
	Hare   []types.BlockID
	Coin   *bool
}

// Rebuild returns a machine that goes on as the one did that took what is
// stored.
func Rebuild(p Params, s Stored) (*Machine, error) {
	m := New(p, s.Before, s.Opinion)
	if s.Last < s.Before || s.Last-s.Before > p.MaxLayers || types.Layer(len(s.Final)) > s.Last-s.Before {
		return nil, fmt.Errorf("layers %d to %d with %d final ones are not what a tortoise holds", s.Before+1, s.Last, len(s.Final))
	}
	m.last = s.Last
	m.open()
	for _, c := range s.Final {
		k := m.slot(m.verified + 1)
		k.choice, k.hash = c, c.After(m.hashBefore(m.verified+1))
		m.verified++
	}
	for e, total := range s.Epochs {
		m.Epoch(e, total)
	}
	for _, l := range s.Layers {
		for _, id := range l.Hare {
			m.Hare(l.Layer, id)
		}
		if l.Coin != nil {
			m.Coin(l.Layer, *l.Coin)
		}
		for _, b := range l.Blocks {
			if err := m.Block(l.Layer, b.Block, b.Height); err != nil {
				return nil, err
			}
		}
	}
	ballots := slices.Clone(s.Ballots)
	slices.SortFunc(ballots, func(a, b Ballot) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), bytes.Compare(a.ID[:], b.ID[:]))
	})
	for i := range ballots {
		_ = m.retake(&ballots[i]) // one that cannot be read was not taken: it was stored for another reason
	}
	m.think(true)
	return m, nil
}

// retake takes a ballot that was taken before. If its votes, begun with what is
// final here, are not its opinion, then it differs about what is final: it does
// not count, and others may still be written against it.
func (m *Machine) retake(b *Ballot) error {
	total, weighed := m.epochs[m.epochOf(b.Layer)]
	if m.slot(b.Layer) == nil || !weighed {
		return ErrLayer
	}
	r, err := m.read(b)
	if err != nil {
		return err
	}
	if !r.sure && r.tip() != b.Opinion {
		r.start = m.other
	}
	m.insert(b, m.share(r.start, r.chain()), m.weigh(b, total))
	return nil
}
