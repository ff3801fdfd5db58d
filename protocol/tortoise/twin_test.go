package tortoise

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"math/big"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// twin is the tortoise by definition: it keeps every ballot with all that it
// says about all layers since the beginning, and counts all of them anew for
// each question.
type twin struct {
	p                     Params
	first, last, verified types.Layer
	totals                map[types.Epoch]uint64
	blocks                map[types.Layer][]Choice
	hare                  map[types.Layer][]types.BlockID
	coins                 map[types.Layer]bool
	ballots               []*said
	mine                  map[types.Layer]Choice
}

type said struct {
	Ballot
	says map[types.Layer]Choice

	// The answer of agrees does not change while first stays.
	looked types.Layer
	agrees bool
}

func newTwin(p Params) *twin {
	return &twin{
		p: p, first: 1, totals: map[types.Epoch]uint64{}, blocks: map[types.Layer][]Choice{}, hare: map[types.Layer][]types.BlockID{},
		coins: map[types.Layer]bool{}, mine: map[types.Layer]Choice{},
	}
}

func (w *twin) ballot(id types.BallotID) *said {
	for _, b := range w.ballots {
		if b.ID == id {
			return b
		}
	}
	return nil
}

// read says what a ballot says about every layer, false if that is not what it
// declares. What is before the window it may leave to its opinion.
func (w *twin) read(b *Ballot) (map[types.Layer]Choice, bool) {
	says, ok := w.decode(b, 1)
	if ok = ok && hashOf(says, b.Layer-1) == b.Opinion; ok {
		return says, true
	}
	says, ok = w.decode(b, w.first)
	return says, ok && hashOf(says, b.Layer-1) == b.Opinion
}

// decode applies a ballot's votes to its base, from a layer on; false if they are no
// proper difference.
func (w *twin) decode(b *Ballot, from types.Layer) (map[types.Layer]Choice, bool) {
	says := map[types.Layer]Choice{}
	own := types.Layer(1)
	if base := w.ballot(b.Votes.Base); base != nil {
		own = base.Layer
		for l, c := range base.says {
			says[l] = c
		}
	} else if b.Votes.Base != (types.BallotID{}) {
		return nil, false
	}
	for l := own; l < b.Layer; l++ {
		says[l] = Choice{}
	}
	for l := types.Layer(1); l < from; l++ {
		says[l] = w.mine[l]
	}
	own = max(own, from)
	before := map[types.Layer]Choice{}
	for l, c := range says {
		before[l] = c
	}
	for _, v := range b.Votes.Against {
		if v.Layer < from {
			continue
		}
		said := before[v.Layer]
		if v.Layer >= own || said.Abstain && choose(v) != (Choice{}) || !said.Abstain && (said != choose(v) || said == Choice{}) {
			return nil, false
		}
		says[v.Layer] = Choice{}
	}
	for _, v := range b.Votes.Support {
		if v.Layer < from {
			continue
		}
		if v.Layer < own && (before[v.Layer] == choose(v) || before[v.Layer].Abstain && says[v.Layer] == Choice{} || before[v.Layer].Block != types.EmptyBlock && says[v.Layer] != (Choice{})) {
			return nil, false
		}
		if !slices.Contains(w.blocks[v.Layer], choose(v)) {
			return nil, false
		}
		says[v.Layer] = choose(v)
	}
	for _, l := range b.Votes.Abstain {
		if l < from {
			continue
		}
		if l < own && before[l].Abstain {
			return nil, false
		}
		says[l] = Choice{Abstain: true}
	}
	return says, w.p.Form(b) == nil
}

func hashOf(says map[types.Layer]Choice, last types.Layer) (h types.Hash32) {
	for l := types.Layer(1); l <= last; l++ {
		h = says[l].After(h)
	}
	return h
}

func (w *twin) weight(b *said) *big.Int {
	n := func(v uint64) *big.Int { return new(big.Int).SetUint64(v) }
	total := w.totals[types.Epoch(uint32(b.Layer)/w.p.LayersPerEpoch)]
	part := new(big.Int).Mul(n(min(b.Weight, total)), n(uint64(w.p.LayersPerEpoch)*uint64(One)))
	part.Div(part, n(total))
	part.Mul(part, n(uint64(min(b.Proofs, int(b.Slots)))))
	return part.Div(part, n(uint64(b.Slots)))
}

func (w *twin) agrees(b *said) bool {
	if b.looked != w.first {
		b.looked, b.agrees = w.first, hashOf(b.says, min(w.first, b.Layer)-1) == hashOf(w.mine, min(w.first, b.Layer)-1)
	}
	return b.agrees
}

// sum adds the weights of the ballots that count and that a question picks.
func (w *twin) sum(pick func(b *said) bool) Weight {
	total := new(big.Int)
	for _, b := range w.ballots {
		due := b.Layer
		if b.BadBeacon {
			due += w.p.BadBeaconDelay
		}
		if due <= w.last && w.agrees(b) && pick(b) {
			total.Add(total, w.weight(b))
		}
	}
	return Weight(total.Int64())
}

func (w *twin) support(l types.Layer, c Choice) Weight {
	return w.sum(func(b *said) bool { return b.Layer > l && b.Height >= c.Height && b.says[l] == c })
}

func (w *twin) against(l types.Layer, c Choice) Weight {
	return w.sum(func(b *said) bool {
		return b.Layer > l && b.Height >= c.Height && b.says[l] != c && !b.says[l].Abstain
	})
}

func (w *twin) known(l types.Layer) []Choice {
	list := slices.Clone(w.blocks[l])
	slices.SortFunc(list, func(a, b Choice) int {
		return cmp.Or(cmp.Compare(a.Height, b.Height), bytes.Compare(a.Block[:], b.Block[:]))
	})
	return list
}

func (w *twin) opine(l types.Layer) Choice {
	if w.last+1-l <= w.p.Hdist { // distance of the next ballots
		if len(w.hare[l]) == 1 {
			for _, c := range w.blocks[l] {
				if c.Block == w.hare[l][0] {
					return c
				}
			}
			return Choice{}
		}
		return Choice{Abstain: w.last-l < w.p.Zdist}
	}
	for _, c := range w.known(l) {
		if w.support(l, c)-w.against(l, c) > One/3 {
			return c
		}
	}
	for _, c := range w.known(l) {
		if w.support(l, c)-w.against(l, c) >= -One/3 {
			if w.support(l, c)+w.against(l, c) < One*Weight(w.last-l)/2 { // votes are missing: what Hare said stands
				if len(w.hare[l]) == 1 {
					for _, c := range w.blocks[l] {
						if c.Block == w.hare[l][0] {
							return c
						}
					}
				}
				return Choice{}
			}
			switch up, known := w.coins[w.last]; {
			case !known:
				return Choice{Abstain: true}
			case up:
				return c
			}
			return Choice{}
		}
	}
	return Choice{}
}

func (w *twin) tally() {
	w.last++
	for l := w.verified + 1; l <= w.last; l++ {
		w.mine[l] = w.opine(l)
	}
	for l := w.verified + 1; l < w.last; l++ {
		expected := One * Weight(w.last-l)
		all := max(expected, w.sum(func(b *said) bool { return b.Layer > l }))
		found := false
		for _, c := range append(w.known(l), Choice{}) {
			if w.last+1-l <= w.p.Hdist && c != w.mine[l] {
				continue
			}
			missing := all - w.support(l, c)
			if w.support(l, c)-missing > expected/3+One/3 {
				w.mine[l], w.verified, found = c, l, true
				break
			}
		}
		if !found {
			break
		}
	}
	if w.first+w.p.MaxLayers <= w.last {
		w.verified = max(w.verified, w.first)
		w.first++
	}
	if w.verified >= w.p.Window {
		w.first = max(w.first, w.verified-w.p.Window+1)
	}
}

// stored is what a node has on its disk when the machine is at this point.
func (w *twin) stored(t *rapid.T) Stored {
	rs := []Record{{Layer: w.first - 1, Before: w.first - 1, Closed: true, Final: true, Opinion: hashOf(w.mine, w.first-1)}}
	for l := w.first; l <= w.last+ahead; l++ {
		r := Record{Layer: l, Before: w.first - 1, Total: w.totals[types.Epoch(uint32(l)/w.p.LayersPerEpoch)], Blocks: w.known(l), Hare: w.hare[l], Closed: l <= w.last}
		if up, ok := w.coins[l]; ok {
			r.Coin = &up
		}
		if r.Final = l <= w.verified; r.Final {
			r.Choice, r.Opinion = w.mine[l], hashOf(w.mine, l)
		}
		var same Record
		if err := codec.Decode(codec.Encode(&r), &same); err != nil || !reflect.DeepEqual(same, r) {
			t.Fatalf("record %+v comes back as %+v, %v", r, same, err)
		}
		rs = append(rs, same)
	}
	s, err := FromRecords(w.p, rs)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range w.ballots {
		if b.Layer >= w.first {
			s.Ballots = append(s.Ballots, b.Ballot)
		}
	}
	slices.Reverse(s.Ballots)
	return s
}

// mesh is a random network around one machine, its twin, and from some moment on
// others that were rebuilt.
type mesh struct {
	t        *rapid.T
	w        *twin
	machines []*Machine
	ids      int
	waiting  []wait
}

type wait struct {
	until types.Layer
	give  func() bool // false: it is not taken yet, and comes again
}

func (n *mesh) draw(from, to int, what string) int {
	return rapid.IntRange(from, to).Draw(n.t, what)
}

func (n *mesh) id() (id [20]byte) {
	n.ids++
	h := types.Sum([]byte{byte(n.ids), byte(n.ids >> 8)})
	return [20]byte(h[:20])
}

// block makes a block of a layer, which comes now or later.
func (n *mesh) block(l types.Layer) Choice {
	c := Choice{Block: types.BlockID(n.id()), Height: uint64(n.draw(1, 3, "height"))}
	n.later(l+types.Layer(max(0, n.draw(-4, 3, "block is late by"))), func() bool {
		for _, m := range n.machines {
			if err := m.Block(l, c.Block, c.Height); err != nil {
				n.t.Fatalf("block: %v", err)
			}
		}
		if l >= n.w.first {
			n.w.blocks[l] = append(n.w.blocks[l], c)
		}
		return true
	})
	return c
}

func (n *mesh) later(l types.Layer, give func() bool) {
	if l > n.w.last+1 || !give() {
		n.waiting = append(n.waiting, wait{l, give})
	}
}

// lie makes the votes of somebody who says anything about anything.
func (n *mesh) lie(b *Ballot) {
	says, own := map[types.Layer]Choice{}, types.Layer(1)
	if len(n.w.ballots) > 0 && n.draw(0, 9, "has base") > 0 {
		base := n.w.ballots[max(0, len(n.w.ballots)-1-n.draw(0, 11, "base"))]
		if base.Layer < b.Layer {
			b.Votes.Base, own = base.ID, base.Layer
			for l, c := range base.says {
				says[l] = c
			}
		}
	}
	pick := func(l types.Layer) Choice {
		i := n.draw(-2, len(n.w.blocks[l])-1, "choice")
		switch i {
		case -2:
			return Choice{}
		case -1:
			return Choice{Abstain: true}
		}
		return n.w.blocks[l][i]
	}
	var exceptions []types.Layer
	for range n.draw(0, 2, "exceptions") {
		exceptions = append(exceptions, types.Layer(max(1, int(own)-n.draw(1, 4, "exception"))))
	}
	for l := types.Layer(1); l < b.Layer; l++ {
		if l < own && !slices.Contains(exceptions, l) {
			continue
		}
		was, c := says[l], pick(l)
		switch {
		case l < own && c == was:
			continue
		case l < own && was.Abstain && c == Choice{}:
			b.Votes.Against = append(b.Votes.Against, types.Vote{Layer: l})
		case l < own && was.Block != types.EmptyBlock && !c.Abstain:
			b.Votes.Against = append(b.Votes.Against, types.Vote{Block: was.Block, Layer: l, Height: was.Height})
		}
		switch {
		case c.Abstain:
			b.Votes.Abstain = append(b.Votes.Abstain, l)
		case c.Block != types.EmptyBlock:
			b.Votes.Support = append(b.Votes.Support, types.Vote{Block: c.Block, Layer: l, Height: c.Height})
		}
		says[l] = c
	}
	b.Opinion = hashOf(says, b.Layer-1)
}

// ballot makes a ballot of a smesher and gives it to all, now or later.
func (n *mesh) ballot(smesher int, l types.Layer) {
	b := &Ballot{
		ID: types.BallotID(n.id()), Layer: l, Smesher: types.NodeID{byte(smesher)}, Weight: uint64(10 + 7*smesher),
		Height: uint64(n.draw(0, 9, "tall")), Slots: 3, Proofs: n.draw(1, 3, "proofs"), BadBeacon: n.draw(0, 5, "beacon") == 5,
	}
	b.Height = min(b.Height+1, 3)
	if n.draw(0, 2, "lies") > 0 {
		n.lie(b)
	} else {
		v, h, err := n.machines[0].Votes()
		if err != nil {
			return
		}
		b.Votes, b.Opinion = v, h
	}
	if n.draw(0, 14, "garbled") == 14 {
		b.Opinion[0]++
	}
	n.later(l+types.Layer(max(0, n.draw(-5, 4, "late by"))), func() bool { return n.give(b) })
}

// give lets all take a ballot and judges whether they were right.
func (n *mesh) give(b *Ballot) bool {
	if base := n.w.ballot(b.Votes.Base); base != nil {
		b.BaseLayer = base.Layer
	}
	err := n.machines[0].Ballot(b)
	for i, m := range n.machines[1:] {
		if other := m.Ballot(b); (err == nil) != (other == nil) {
			n.t.Fatalf("ballot of layer %d: lived %v, rebuilt %d %v", b.Layer, err, i, other)
		}
	}
	says, ok := n.w.read(b)
	var unknown *Unknown
	var early *types.Early
	switch {
	case err == nil:
		s := &said{Ballot: *b, says: says}
		switch foreign := n.machines[0].ballots[b.ID].tip.foreign; {
		case ok && foreign == n.w.agrees(s):
			n.t.Fatalf("ballot of layer %d is foreign %v: %+v", b.Layer, foreign, b.Votes)
		case !ok && !foreign:
			n.t.Fatalf("took a wrong ballot of layer %d: %+v", b.Layer, b.Votes)
		case !ok: // what it says about final layers is not known, but that it is not what we say
			s = &said{Ballot: *b}
			s.says, _ = n.w.decode(b, n.w.first)
			s.says[1] = Choice{Block: types.BlockID{0xff}}
		}
		n.w.ballots = append(n.w.ballots, s)
	case errors.As(err, &unknown):
		if base := n.w.ballot(unknown.Base); base != nil && base.Layer >= n.w.first {
			n.t.Fatalf("a base that is there is not known: %v", err)
		}
		return unknown.Base != types.BallotID{} || b.Layer+9 < n.w.last
	case !errors.As(err, &early):
		if ok {
			n.t.Fatalf("a good ballot of layer %d is refused: %v: %+v", b.Layer, err, b.Votes)
		}
	}
	return true
}

// compare looks at everything that is said.
func (n *mesh) compare() {
	w := n.w
	for i, m := range n.machines {
		if m.first != w.first || m.last != w.last || m.verified != w.verified {
			n.t.Fatalf("machine %d: %v; by definition %d to %d, verified to %d", i, m, w.first, w.last, w.verified)
		}
		for l := m.first; l <= m.last; l++ {
			got, _ := m.Layer(l)
			if got.Choice != w.mine[l] || got.Opinion != hashOf(w.mine, l) {
				n.t.Fatalf("machine %d: layer %d of %v: %+v; by definition %+v", i, l, m, got, w.mine[l])
			}
			if l <= m.verified {
				continue
			}
			for _, x := range m.slot(l).candidates {
				if s, a := w.support(l, x.Choice), w.against(l, x.Choice); s != x.support || a != x.against {
					n.t.Fatalf("machine %d: layer %d of %v: %d for %v and %d against; by definition %d and %d", i, l, m, x.support, x.Choice, x.against, s, a)
				}
			}
		}
	}
}

// layer lets one layer pass.
func (n *mesh) layer(smeshers int) {
	w, l := n.w, n.w.last+1
	for e := types.Epoch(0); e <= types.Epoch(uint32(l+ahead)/w.p.LayersPerEpoch); e++ {
		if w.totals[e] == 0 {
			w.totals[e] = uint64(smeshers * 24)
		}
		for _, m := range n.machines {
			m.Epoch(e, w.totals[e])
		}
	}
	waiting := n.waiting
	n.waiting = nil
	for _, x := range waiting {
		n.later(x.until, x.give)
	}
	for range n.draw(0, 2, "blocks") {
		c := n.block(l)
		if n.draw(0, 3, "hare") > 0 {
			at := l + types.Layer(max(0, n.draw(-4, 4, "hare is late by")))
			n.later(at, func() bool { n.result(l, c.Block); return true })
		}
	}
	if n.draw(0, 9, "hare says empty") == 9 {
		n.result(l, types.EmptyBlock)
	}
	for s := range smeshers {
		if n.draw(0, 5, "away") > 0 {
			n.ballot(s, l)
		}
	}
	if n.draw(0, 14, "malicious") == 14 {
		evil := types.NodeID{byte(n.draw(0, smeshers-1, "who"))}
		for _, m := range n.machines {
			m.Malicious(evil)
		}
		for _, b := range w.ballots {
			if b.Smesher == evil {
				b.Weight = 0
			}
		}
	}
	if c := n.draw(0, 2, "coin"); c > 0 {
		w.coins[l] = c == 2
		for _, m := range n.machines {
			m.Coin(l, c == 2)
		}
	}
	for _, m := range n.machines {
		m.Tally()
	}
	w.tally()
	n.compare()
}

func (n *mesh) result(l types.Layer, id types.BlockID) {
	if l >= n.w.first && len(n.w.hare[l]) < 2 && !slices.Contains(n.w.hare[l], id) {
		n.w.hare[l] = append(n.w.hare[l], id)
	}
	for _, m := range n.machines {
		m.Hare(l, id)
	}
}

// A tortoise says what the definition says, on random meshes with late and
// missing blocks, ballots and results, liars, and smeshers found malicious; and
// so does one that is rebuilt at any moment.
func TestATortoiseEqualsItsSlowTwin(t *testing.T) {
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		t.Fatal(err)
	}
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		p := Params{LayersPerEpoch: 3, MaxExceptions: 40, MaxBallots: 40, MaxBlocks: 8, MaxOpinions: 1 << 20}
		n := &mesh{t: t}
		p.Zdist = types.Layer(n.draw(1, 2, "zdist"))
		p.Hdist = p.Zdist + types.Layer(n.draw(0, 2, "hdist"))
		p.Window = types.Layer(n.draw(0, 4, "window"))
		p.BadBeaconDelay = p.Hdist + types.Layer(n.draw(0, 2, "delay"))
		p.MaxLayers = p.Hdist + p.Window + 1 + types.Layer(n.draw(0, 8, "max layers"))
		n.w, n.machines = newTwin(p), []*Machine{New(p, 0, types.Hash32{})}
		smeshers := n.draw(1, 5, "smeshers")
		for range n.draw(3, 12, "layers") {
			n.layer(smeshers)
			if n.draw(0, 5, "rebuild") == 5 {
				m, err := Rebuild(p, n.w.stored(t))
				if err != nil {
					t.Fatalf("rebuild: %v", err)
				}
				n.machines = append(n.machines[:1], m)
			}
			if m := n.machines[0]; m.Full() {
				seen["full"]++
			} else {
				seen["verifying"]++
			}
		}
		m := n.machines[0]
		seen["verified"] += int(m.verified)
		seen["evicted"] += int(m.first - 1)
		seen["meshes"]++
		for _, b := range m.ballots {
			seen["ballots"]++
			if b.tip.foreign {
				seen["foreign"]++
			}
		}
	})
	t.Logf("seen: %v", seen)
	for _, what := range []string{"full", "verifying", "verified", "evicted", "foreign"} {
		if !t.Failed() && seen[what] < 100 {
			t.Errorf("only %d %s: the meshes are too tame", seen[what], what)
		}
	}
}
