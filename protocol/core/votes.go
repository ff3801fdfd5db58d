package core

import (
	"errors"
	"time"

	"tweedle/protocol/syncer"
	"tweedle/protocol/tortoise"
	"tweedle/values/types"
)

// record stores what is said of a layer.
func (m *Machine) record(l types.Layer) {
	if r, ok := m.tortoise.Record(l); ok {
		m.write(WriteOpinion{Record: r})
	}
}

// rebuildTortoise goes on where the node ended. Who was away for longer than others believe Hare begins
// anew when it is synced: the ballots of that time are not here.
func (m *Machine) rebuildTortoise() {
	rs := get(&m.read, m.read.r.Opinions)
	if len(rs) == 0 {
		return
	}
	s, err := tortoise.FromRecords(m.cfg.Tortoise, rs)
	if err != nil || m.lags(s.Last) {
		return
	}
	for l := s.Before + 1; l <= s.Last+2; l++ {
		s.Ballots = append(s.Ballots, m.stored(l)...)
	}
	if t, err := tortoise.Rebuild(m.cfg.Tortoise, s); err == nil {
		m.tortoise, m.lastSynced = t, t.Last()
	}
}

// lags tells whether so many layers passed since one that the tortoise cannot go on from it.
func (m *Machine) lags(last types.Layer) bool { return last+1+m.cfg.Tortoise.Hdist < m.layer }

// stored returns the votes of a layer's stored ballots.
func (m *Machine) stored(l types.Layer) (out []tortoise.Ballot) {
	for _, b := range get(&m.read, func() ([]*types.Ballot, error) { return m.read.r.LayerBallots(l) }) {
		id := b.ID()
		m.stocked.Put(id, struct{}{})
		data := b.EpochData
		if data == nil {
			ref := m.Ballot(b.Reference)
			if ref == nil || ref.EpochData == nil {
				continue
			}
			data = ref.EpochData
		}
		if v := m.vote(id, b, data.Eligibilities); v != nil {
			out = append(out, *v)
		}
	}
	return out
}

// vote returns what counts of a ballot whose smesher has so many slots, nil while its ATX is not known.
func (m *Machine) vote(id types.BallotID, b *types.Ballot, slots uint32) *tortoise.Ballot {
	atx, err := m.ATX(b.ATX)
	if err != nil || atx == nil {
		return nil
	}
	v := &tortoise.Ballot{
		ID: id, Layer: b.Layer, Smesher: b.Smesher, Opinion: b.Opinion, Votes: b.Votes,
		Weight: atx.Weight, Height: atx.Height(), Slots: slots, Proofs: len(b.Eligibilities),
	}
	if m.registry.Convicted(b.Smesher) {
		v.Weight = 0
	}
	return v
}

// tally closes the layers that are over. It begins when we are synced, as then what is older than
// Hare is believed is certified here.
func (m *Machine) tally() {
	begins := m.tortoise == nil
	if m.layer < m.cfg.Schedule.FirstBallotLayer() || begins && !(m.synced && m.beginTortoise()) {
		return
	}
	var since []types.Decision // applied since what the tortoise begins with
	if begins {
		since = m.read.decisions(m.tortoise.First(), int(m.layer-m.tortoise.First())+1)
	}
	for m.tortoise.Last()+1 < m.layer {
		since = m.recount(since)
		for _, s := range m.tortoise.Tally() {
			m.chain.doubt(s.Layer)
			if s.Verified {
				m.chain.settled(s, m.cfg.Tortoise.MaxLayers)
				m.settled(s)
			}
		}
		m.record(m.tortoise.Last())
	}
	m.recount(since)
	m.weigh()
	if begins && m.gaveUp { // others cannot read what the ballots of that time build on
		m.gaveUp = false
	} else if begins {
		for l := m.tortoise.First(); l <= m.layer+1; l++ {
			for _, v := range m.stored(l) {
				_ = m.tortoise.Ballot(&v) // what it waits for is not here: it is asked for with those that build on it
			}
		}
	}
}

// beginTortoise makes one whose layers are those about which Hare is believed: what is older is as in our
// history. It returns false while that is not read.
func (m *Machine) beginTortoise() bool {
	before := m.beginning()
	if m.past.read < min(before, m.history.Tip().Decision.Layer) {
		return false
	}
	opinion := m.empty(&m.past, before+1)
	m.tortoise = tortoise.New(m.cfg.Tortoise, before, opinion)
	m.write(WriteOpinion{Record: tortoise.Beginning(before, opinion), Anew: true})
	m.chain.final = nil
	m.chain.doubt(before)
	return true
}

// recount tells the results of applied layers, as far as the tortoise has come, and returns the rest.
func (m *Machine) recount(since []types.Decision) []types.Decision {
	for len(since) > 0 && since[0].Layer <= m.tortoise.Last()+1 {
		if b := m.read.block(since[0].Block); b != nil {
			m.result(since[0].Layer, since[0].Block, b.TickHeight)
		}
		since = since[1:]
	}
	return since
}

// past is our opinion of the beginning of our history: what a tortoise begins with that has no records.
type past struct {
	layer   types.Layer  // of the newest block in it
	opinion types.Hash32 // of all layers up to that
	read    types.Layer  // up to here there is no other block
}

// undo forgets what layers after one had to say.
func (p *past) undo(to types.Layer) {
	if to < p.layer {
		*p = past{}
	}
	p.read = min(p.read, to)
}

// A part of the history is read in one Step: some 100 us for each block, with the certificate that names it, so that a
// hundred thousand layers take a minute and a half, and others have nine tenths of it.
const (
	maxRecall   = syncer.MaxCertificates
	recallPause = 50 * time.Millisecond
)

// readPast reads on about the history while there is no tortoise, as far as the next one will take it over. It is done before
// a Step writes anything. What the Step before has written is committed.
func (m *Machine) readPast() {
	// Who heard of others last before that had nobody's ballots, nor ATXs, to count by.
	if m.tortoise != nil && m.lags(min(m.tortoise.Last(), m.lastSynced)) {
		m.tortoise = nil
		m.write(DropOpinions{})
	}
	p, last := &m.past, min(m.beginning(), m.history.Tip().Decision.Layer)
	if m.tortoise != nil || p.read >= last {
		return
	}
	ds := m.read.decisions(max(p.layer+1, m.cfg.Schedule.FirstBallotLayer()), maxRecall)
	for _, d := range ds {
		if d.Layer > last {
			p.read = last
			return
		}
		c := tortoise.Choice{Block: d.Block}
		if b := m.read.block(d.Block); b != nil {
			c.Height = b.TickHeight
		}
		p.opinion, p.layer = c.After(m.empty(p, d.Layer)), d.Layer
	}
	if p.read = last; len(ds) == maxRecall {
		p.read = p.layer
		m.wakeAt(m.now.Add(recallPause))
	}
}

// empty returns the opinion of all layers before one, if those without a block in what was read have none. It takes
// some 0.2 us for each of those.
func (m *Machine) empty(p *past, before types.Layer) types.Hash32 {
	h := p.opinion
	for l := max(p.layer+1, m.cfg.Schedule.FirstBallotLayer()); l < before; l++ {
		h = tortoise.Choice{}.After(h)
	}
	return h
}

// beginning returns the last layer that a tortoise takes over from our history which begins now: Hare is believed about
// those after it.
func (m *Machine) beginning() types.Layer {
	before := m.cfg.Schedule.FirstBallotLayer() - 1
	if far := m.cfg.Tortoise.Hdist + 1; m.layer > far {
		before = max(before, m.layer-far)
	}
	return before
}

// settled tells of a layer that is final. It may have left the memory already.
func (m *Machine) settled(s tortoise.State) {
	r, ok := m.tortoise.Record(s.Layer)
	if !ok {
		r = tortoise.Record{Layer: s.Layer, Before: m.tortoise.First() - 1, Closed: true, Final: true, Choice: s.Choice, Opinion: s.Opinion}
	}
	m.write(WriteOpinion{Record: r})
	m.event(Settled{s})
}

// weigh tells the weights of the epochs that ballots are of.
func (m *Machine) weigh() {
	t, s := m.tortoise, m.cfg.Schedule
	for e := s.EpochOf(t.First()); e <= s.EpochOf(m.layer+1); e++ {
		if t.Weighed(e) {
			continue
		}
		if el := m.current(e); el != nil && t.Epoch(e, el.Total()) {
			m.record(max(s.First(e), t.First()))
		}
	}
}

// result tells what Hare, or a certificate, says of a layer. It returns whether that is news.
func (m *Machine) result(l types.Layer, block types.BlockID, height uint64) bool {
	if m.tortoise == nil || block != types.EmptyBlock && m.tortoise.Block(l, block, height) != nil || !m.tortoise.Hare(l, block) {
		return false
	}
	m.record(l)
	return true
}

// coin tells the weak coin of a layer.
func (m *Machine) coin(l types.Layer, up bool) {
	if m.tortoise != nil && m.tortoise.Coin(l, up) {
		m.record(l)
	}
}

var errUncounted = early("a layer that it votes about has too many blocks here")

// count lets a ballot's votes count, which else keeps its rules. It returns false and a judgement if the
// votes are wrong, or refer to something that is not here; where we are not to say, the ballot is as good as
// any.
func (m *Machine) count(id types.BallotID, b *types.Ballot, slots uint32) (judgement, bool) {
	v := m.vote(id, b, slots)
	if v == nil {
		return missing(syncer.Name{Kind: syncer.ATX, ID: b.ATX}), false
	}
	err := m.cfg.Tortoise.Form(v)
	if err == nil && m.tortoise != nil {
		if m.twice(id, b) {
			v.Weight = 0
		}
		err = m.tortoise.Ballot(v)
	}
	if err == tortoise.ErrEpoch {
		m.weigh()
		err = m.tortoise.Ballot(v)
	}
	var unknown *tortoise.Unknown
	for errors.As(err, &unknown) {
		var names []syncer.Name
		if names, err = m.supply(v, unknown); len(names) > 0 {
			return missing(names...), false
		}
		if err == nil {
			err = m.tortoise.Ballot(v)
		}
	}
	if soon := (*types.Early)(nil); err != nil && !errors.As(err, &soon) {
		return rejected(err), false
	}
	return judgement{}, true
}

// twice tells whether the smesher of a ballot has another one in its layer, and convicts it then: gossip takes one
// proposal, but others' votes may refer to any ballot.
func (m *Machine) twice(id types.BallotID, b *types.Ballot) bool {
	other, voted := m.tortoise.Of(b.Layer, b.Smesher)
	if !voted || other == id {
		return false
	}
	if o := m.Ballot(other); o != nil {
		m.convict(twoBallots(o, b))
	}
	return true
}

// countLater has the votes of a proposal's ballot wait for what they refer to. The proposal does not: what
// nobody has would keep it out of its layer. Who passed it on is not to blame for its votes.
func (m *Machine) countLater(from Peer, id types.BallotID, b *types.Ballot, names []syncer.Name) {
	p := &parked{from: Self, msg: &ballotMessage{b, id}, proved: true, until: m.now.Add(2 * m.cfg.Schedule.LayerDuration)}
	for _, n := range names {
		if !m.handled(n) {
			m.sync.Want(n, from, p.until)
		}
	}
	m.park(p, names)
}

// maxUnknown is how many blocks that a ballot votes for are asked for at a time: it may name thousands that are nowhere.
const maxUnknown = 128

// supply gives the tortoise what it needs for a ballot, as far as it is here, and returns what is not.
func (m *Machine) supply(v *tortoise.Ballot, u *tortoise.Unknown) (names []syncer.Name, err error) {
	for _, id := range u.Blocks {
		b := m.read.block(id)
		if b == nil {
			if names = append(names, syncer.Name20(syncer.Block, id)); len(names) == maxUnknown {
				break
			}
			continue
		}
		for _, s := range v.Votes.Support {
			if s.Block == id && s.Layer != b.Layer {
				return nil, tortoise.ErrBlock
			}
		}
		if m.tortoise.Block(b.Layer, id, b.TickHeight) != nil {
			return nil, errUncounted
		}
		m.record(b.Layer)
	}
	if u.Base == (types.BallotID{}) {
		return names, nil
	}
	base := m.Ballot(u.Base)
	if base == nil || base.Layer >= m.tortoise.First() { // one that is here waits itself, or did
		return append(names, syncer.Name20(syncer.Ballot, u.Base)), nil
	}
	v.BaseLayer = base.Layer
	return names, nil
}

// votes returns those of our ballots of a layer, false if we have none.
func (m *Machine) votes(layer types.Layer) (types.Votes, types.Hash32, bool) {
	if m.tortoise == nil {
		m.tally()
	}
	if m.tortoise == nil || m.tortoise.Last()+1 != layer {
		return types.Votes{}, types.Hash32{}, false
	}
	v, opinion, err := m.tortoise.Votes()
	if err != nil {
		m.event(Silent{layer, err.Error()})
	}
	return v, opinion, err == nil
}

// unheard returns the first layer whose ballots others may have and we not, zero if we need none: we are
// behind with what is final by more than results take.
func (m *Machine) unheard() types.Layer {
	if t := m.tortoise; t != nil && t.Verified()+m.cfg.Tortoise.Zdist < t.Last() {
		return t.Verified() + 1
	}
	return 0
}

// maxStocked bounds the ballots that are remembered as stored: more than a list has. They take some 5 MB.
const maxStocked = 65_536

// voted asks a peer for those ballots of its list that are not known here. A list may be long, and of old ballots or
// of none that there are: so nothing is read for it. Those that are stored and that the tortoise could not take are
// remembered since they were written, or read when it began; an old one is seen to be old when it comes.
func (m *Machine) voted(p Peer, ids []types.BallotID) {
	until := m.now.Add(2 * m.cfg.Schedule.LayerDuration)
	for _, id := range ids {
		n := syncer.Name20(syncer.Ballot, id)
		if _, stored := m.stocked.Get(id); m.tortoise == nil || stored || m.tortoise.Has(id) || m.handled(n) {
			continue
		}
		if !m.sync.WantFrom(n, p, until) {
			return
		}
	}
}
