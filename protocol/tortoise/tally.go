package tortoise

import (
	"slices"

	"tweedle/values/types"
)

// due tells whether a ballot counts by now.
func (m *Machine) due(b *ballot) bool {
	if b.badBeacon {
		return b.layer+m.p.BadBeaconDelay <= m.last
	}
	return b.layer <= m.last
}

// count lets a ballot count, or not any more, in all layers that are not final.
func (m *Machine) count(b *ballot, on bool) {
	if on == b.counted || on && b.tip.foreign {
		return
	}
	w := b.weight
	if !on {
		w = -w
	}
	b.counted = on
	m.slot(b.layer).weight += w
	for o := b.tip; o.layer > m.verified; o = o.prev {
		m.slot(o.layer).add(o.choice, b.height, w)
	}
}

// add counts a choice for what it names and against all else that is not higher
// than the ballot.
func (s *slot) add(c Choice, height uint64, w Weight) {
	if c.Abstain {
		return
	}
	for i := range s.candidates {
		switch x := &s.candidates[i]; {
		case x.Height > height:
		case x.Block == c.Block:
			x.support += w
		default:
			x.against += w
		}
	}
}

// castAbove returns the weight of all counted ballots that say something about a
// layer and are as high as a block.
func (m *Machine) castAbove(l types.Layer, height uint64) (sum Weight) {
	silent := make(map[*opinion]bool)
	for _, o := range m.slot(l).opinions {
		if o.choice.Abstain {
			silent[o] = true
		}
	}
	for k := l + 1; m.slot(k) != nil; k++ {
		for _, b := range m.slot(k).ballots {
			if b.counted && b.height >= height && !silent[b.tip] {
				sum += b.weight
			}
		}
		for _, o := range m.slot(k).opinions {
			if silent[o.prev] {
				silent[o] = true
			}
		}
	}
	return sum
}

// Tally closes the layer after the last and returns, oldest first, what is said
// anew: of the layers whose choice is another one, and of those that became
// final. The caller calls it once for each layer, when the layer is over.
func (m *Machine) Tally() []State {
	m.last++
	m.open()
	for _, b := range m.slot(m.last).ballots {
		m.count(b, m.due(b))
	}
	if late := m.slot(m.last - m.p.BadBeaconDelay); m.last >= m.p.BadBeaconDelay && late != nil {
		for _, b := range late.ballots {
			m.count(b, m.due(b))
		}
	}
	m.think(false)
	m.verify()
	first, aged := m.first, m.first+m.p.MaxLayers <= m.last && m.first > m.verified
	if aged {
		m.verified = m.first
		m.slots[0].news = true
	}
	if m.first+m.p.MaxLayers <= m.last {
		first++
	}
	if m.verified >= m.p.Window {
		first = max(first, m.verified-m.p.Window+1)
	}
	var out []State
	for l := m.first; l <= m.last; l++ {
		if s := m.slot(l); s.news {
			state, _ := m.Layer(l)
			state.Aged = aged && l == m.first
			out = append(out, state)
			s.news = false
		}
	}
	m.evict(first)
	return out
}

// think makes up our mind about all layers that are not final. changed says that
// the layer before them is another one than it was.
func (m *Machine) think(changed bool) {
	prev := m.hashBefore(m.verified + 1)
	for l := m.verified + 1; l <= m.last; l++ {
		s := m.slot(l)
		if c := m.opine(l); c != s.choice || s.hash == (types.Hash32{}) {
			s.choice, s.news, changed = c, true, true
		}
		if changed {
			s.hash = s.choice.After(prev)
		}
		prev = s.hash
	}
}

func (m *Machine) hashBefore(l types.Layer) types.Hash32 {
	if l == m.first {
		return m.root.hash
	}
	return m.slot(l - 1).hash
}

// opine returns what we say about a layer that is not final: what Hare says,
// while it is believed, else what the weight says.
func (m *Machine) opine(l types.Layer) Choice {
	s := m.slot(l)
	if !m.trusted(l) {
		return s.byWeight(m.slot(m.last).coin, One*Weight(m.last-l)/2)
	}
	if c, known := s.byHare(); known {
		return c
	}
	return Choice{Abstain: l+m.p.Zdist > m.last}
}

// byHare returns Hare's result.
func (s *slot) byHare() (Choice, bool) {
	if len(s.hare) != 1 {
		return Choice{}, false
	}
	if x := s.find(s.hare[0]); x != nil {
		return x.Choice, true
	}
	return Choice{}, true // without its body a block cannot be supported
}

// byWeight returns the lowest block that more weight supports than is against it; if
// none is clear of doubt, the coin decides about the lowest that is in doubt. If less than
// enough has voted about that, votes are missing here, and Hare is believed still: else who
// is new, or a network in which few voted for a while, would toss for what all know.
func (s *slot) byWeight(c coin, enough Weight) Choice {
	var doubt *candidate
	for i := range s.candidates[1:] {
		x := &s.candidates[i+1]
		switch margin := x.support - x.against; {
		case margin > local:
			return x.Choice
		case margin >= -local && doubt == nil:
			doubt = x
		}
	}
	switch {
	case doubt == nil:
		return Choice{}
	case doubt.support+doubt.against < enough:
		c, _ := s.byHare()
		return c
	case c == tails:
		return Choice{}
	case c == heads:
		return doubt.Choice
	}
	return Choice{Abstain: true}
}

// verify moves the frontier over all layers about which enough weight agrees.
func (m *Machine) verify() {
	var cast Weight // by ballots after a layer
	for l := m.verified + 2; l <= m.last; l++ {
		cast += m.slot(l).weight
	}
	changed := false
	for l := m.verified + 1; l < m.last; l++ {
		c, ok := m.decided(l, cast)
		if !ok {
			break
		}
		s := m.slot(l)
		changed = changed || c != s.choice
		s.choice, s.hash, s.news = c, c.After(m.hashBefore(l)), true
		m.verified = l
		cast -= m.slot(l + 1).weight
	}
	if changed {
		m.think(true)
	}
}

// decided returns the choice that is above the global threshold: its support,
// less all that is against it, silent or missing, is more than a third of what
// is expected and the local threshold. While Hare is believed that must be our
// own choice.
func (m *Machine) decided(l types.Layer, cast Weight) (Choice, bool) {
	expected := One * Weight(m.last-l)
	need := max(expected, cast) + expected/3 + local
	s := m.slot(l)
	for i := range s.candidates {
		x := &s.candidates[i]
		if 2*x.support > need && (!m.trusted(l) || x.Choice == s.choice) {
			return x.Choice, true
		}
	}
	return Choice{}, false
}

// evict forgets all layers before one. Ballots that differ from us about them
// do not count any more.
func (m *Machine) evict(first types.Layer) {
	if first <= m.first {
		return
	}
	gone := m.slots[:first-m.first]
	for _, s := range gone {
		for _, b := range s.ballots {
			delete(m.ballots, b.id)
		}
	}
	s := m.slot(first - 1)
	m.setRoot(first-1, s.hash)
	strange := false
	for _, o := range s.opinions {
		strange = strange || o != m.root
	}
	for _, s := range gone {
		for _, o := range s.opinions {
			delete(m.opinions, o.hash)
		}
	}
	m.slots = slices.Clone(m.slots[len(gone):])
	m.first = first
	if strange {
		m.estrange()
	}
	for e := range m.epochs {
		if e < m.epochOf(first) {
			delete(m.epochs, e)
		}
	}
}

// estrange finds the opinions that begin otherwise than ours, and takes their
// ballots out of the count.
func (m *Machine) estrange() {
	for _, b := range m.slots[0].ballots {
		if b.tip != m.root {
			b.tip = m.other
		}
	}
	for _, o := range m.slots[0].opinions {
		if o.prev != m.root {
			o.prev = m.other
		}
	}
	for _, s := range m.slots {
		for _, o := range s.opinions {
			o.foreign = o.prev.foreign
		}
	}
	for _, s := range m.slots {
		for _, b := range s.ballots {
			if b.tip.foreign {
				m.count(b, false)
			}
		}
	}
}
