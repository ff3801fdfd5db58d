package core

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"tweedle/protocol/syncer"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// maxBehind is how many layers the clock may be ahead of our tip while we take
// part: that long certificates may take.
const maxBehind = 3

// batch is what one peer answered about the history and is not ended.
type batch struct {
	left   int
	useful bool
	wrong  bool // one of them no honest peer would give
}

const kindCert syncer.Kind = 254

// nameOf names a message as something that can be missing; false for those that
// nobody refers to.
func nameOf(msg Message) (syncer.Name, bool) {
	switch msg := msg.(type) {
	case *atxMessage:
		return syncer.Name{Kind: syncer.ATX, ID: msg.id}, true
	case *poetMessage:
		return syncer.Name{Kind: syncer.PoetProof, ID: msg.ref}, true
	case *setMessage:
		return syncer.Name{Kind: syncer.ActiveSet, ID: msg.set.Hash()}, true
	case *ballotMessage:
		return syncer.Name20(syncer.Ballot, msg.id), true
	case *blockMessage:
		return syncer.Name20(syncer.Block, msg.b.ID()), true
	case *txMessage:
		return syncer.Name{Kind: syncer.Transaction, ID: msg.tx.ID}, true
	case *malfeasanceMessage:
		return syncer.Name{Kind: syncer.Malfeasance, ID: msg.proof.Smesher}, true
	case *certMessage:
		return syncer.Name{Kind: kindCert, ID: types.Sum(codec.Encode(&msg.cert.Decision))}, true
	}
	return syncer.Name{}, false
}

// answered takes what came of an ask.
func (m *Machine) answered(in Answered) {
	a, ok := m.sync.Find(in.Ask)
	if !ok {
		return
	}
	got := make([]bool, len(in.Answer.Objects))
	for i, o := range in.Answer.Objects {
		got[i] = o != nil
	}
	m.sync.Answered(m.now, in.Ask, in.Failure, got)
	if in.Failure != syncer.None {
		return
	}
	switch {
	case a.Epochs != nil:
		m.listed(a.Peer, *a.Epochs, in.Answer.Epochs)
	case a.Layers != nil:
		m.clockOf(a, in.Answer.Layers.Clock)
		m.certified(a.Peer, in.Answer.Layers.Certs)
		m.signed(a.Peer, in.Answer.Layers.Open)
		m.voted(a.Peer, in.Answer.Layers.Ballots)
	}
	for i, o := range in.Answer.Objects {
		if o != nil {
			m.sync.Have(a.Objects[i])
			m.take(&parked{from: a.Peer, msg: o})
		}
	}
}

// maxClock is by how much a clock may differ from those of most peers, however
// long layers are.
const maxClock = 5 * time.Second

// clockOf compares a peer's clock with ours, give or take half the time of its
// answer. It only names a difference: peers may say what they like.
func (m *Machine) clockOf(a syncer.Ask, shows uint64) {
	sent := a.Until.Add(-syncer.Config{Layer: m.cfg.Schedule.LayerDuration}.Timeout())
	took := m.now.Sub(sent)
	limit := min(m.rules.Skew(), maxClock)
	if took > limit {
		return // it says too little
	}
	m.sync.Told(m.now, a.Peer, time.UnixMilli(int64(min(shows, 1<<52))).Sub(sent.Add(took/2)))
	ahead, peers := m.sync.Clock(m.now.Add(-2 * maxOpen * m.cfg.Schedule.LayerDuration))
	if peers < min((m.sync.Peers()+1)/2, 8) {
		return
	}
	if m.clock != 0 {
		limit /= 2 // it must be well again before it may differ again
	}
	differs := ahead.Abs() > limit
	if was := m.clock != 0; differs != was {
		m.event(ClockDiffers{differs, ahead, peers})
	}
	if m.clock = 0; differs {
		m.clock = ahead
	}
}

// listed asks a peer for those ATXs of its list that are not known here.
func (m *Machine) listed(p Peer, asked syncer.Epochs, got EpochsAnswer) {
	until := m.now.Add(4 * m.cfg.Schedule.EpochDuration())
	for _, id := range got.Malicious {
		if n := (syncer.Name{Kind: syncer.Malfeasance, ID: id}); !m.registry.Convicted(id) && !m.handled(n) && !m.accuses(id) {
			m.sync.WantFrom(n, p, until)
		}
	}
	if len(m.lists) < maxLists { // else the next one has it, too
		m.lists = append(m.lists, list{p, asked.From, got.ATXs, until})
	}
	m.readLists()
	if rest := restOf(asked, got); rest != asked {
		m.sync.More(p, rest)
	}
}

// list is what of a peer's list of ATXs was not compared yet with those that are known here.
type list struct {
	peer  Peer
	from  types.Epoch
	atxs  [][]types.ATXID // of the epochs since
	until time.Time
}

// maxLists bounds the lists that are compared at a time, one of each peer: 1.6 MB each.
const maxLists = 8

// maxLoads is how many ATXs are read in one Step to compare lists with them, and an epoch that goes beyond: some 10 us for each.
// A list may be of a thousand epochs, and the registry holds few.
const maxLoads = 1024

// readLists asks the peers that gave lists for the ATXs that are not known here.
func (m *Machine) readLists() {
	for len(m.lists) > 0 {
		l := &m.lists[0]
		for ; len(l.atxs) > 0; l.from, l.atxs = l.from+1, l.atxs[1:] {
			if m.loads >= maxLoads {
				m.wakeAt(m.now.Add(time.Millisecond))
				return
			}
			if len(l.atxs[0]) == 0 {
				continue
			}
			if m.loads += 1 + m.registry.Load(l.from); !m.lacks(l) {
				break
			}
		}
		m.lists = m.lists[1:]
	}
}

// lacks asks for the ATXs of the first epoch of a list; false if no more may be asked for.
func (m *Machine) lacks(l *list) bool {
	for _, id := range l.atxs[0] {
		n := syncer.Name{Kind: syncer.ATX, ID: id}
		if _, refused := m.refused.Get(id); refused || m.registry.Has(l.from, id) || m.handled(n) {
			continue
		}
		if !m.sync.WantFrom(n, l.peer, l.until) {
			return false
		}
	}
	return true
}

// busy tells whether what a peer answered about the history is in work.
func (m *Machine) busy(p Peer) bool {
	return m.batches[p] != nil || slices.ContainsFunc(m.lists, func(l list) bool { return l.peer == p })
}

// restOf returns what a list did not come to; what was asked for, if it was all,
// or leads nowhere.
func restOf(asked syncer.Epochs, got EpochsAnswer) syncer.Epochs {
	rest, sum := asked, 0
	for _, ids := range got.ATXs {
		sum += len(ids)
	}
	if n := len(got.ATXs); sum == syncer.MaxIDs && len(got.ATXs[n-1]) > 0 {
		last := got.ATXs[n-1]
		from, after := asked.From+types.Epoch(n-1), last[len(last)-1]
		if from > asked.From || bytes.Compare(after[:], asked.After[:]) > 0 {
			rest.From, rest.After = from, after
		}
	}
	if n := len(got.Malicious); n == syncer.MaxMalicious && bytes.Compare(got.Malicious[n-1][:], asked.Evil[:]) > 0 {
		rest.Evil = got.Malicious[n-1]
	}
	return rest
}

// handled tells whether an object is here already, waiting or in work.
func (m *Machine) handled(n syncer.Name) bool {
	return m.intake.hand[n] > 0 || n.Kind == syncer.ATX && m.verifying[n.ID] != nil
}

// maxRefused bounds the ATXs that are remembered as not taken.
const maxRefused = 65_536

func (m *Machine) refuse(n syncer.Name) {
	if n.Kind != syncer.ATX {
		return
	}
	m.refused.Put(n.ID, struct{}{})
}

// signed counts signatures that a peer has under decisions which are not
// certified: gossip does not come twice.
func (m *Machine) signed(p Peer, open []types.Certificate) {
	for i := range open {
		d := &open[i].Decision
		if !m.signable(d.Layer) {
			continue
		}
		_, err := m.Electorate(m.cfg.Schedule.EpochOf(d.Layer), d.Electorate)
		for _, s := range open[i].Signatures {
			if before, ok := m.certify.Signed(open[i].Decision.Layer, s.Smesher); ok && before.Decision == open[i].Decision {
				continue
			}
			msg := types.CertifyMessage{Decision: open[i].Decision, By: s}
			m.take(&parked{from: p, msg: &decisionMessage{msg, codec.Encode(&msg)}})
			if err != nil {
				break // that asks for what is missing; the others come with a later answer
			}
		}
	}
}

// maxOpen is how many layers back others are told of signatures that are not enough
// yet.
const maxOpen = 8

// Open returns the decisions of the newest layers that are not certified, with their
// signatures so far. It only reads.
func (m *Machine) Open() (out []types.Certificate) {
	for l := m.layer; l+maxOpen > m.layer && l > 0; l-- {
		if m.certify.Certified(l) {
			continue
		}
		for _, s := range m.certify.Support(l) {
			if c := m.certify.Collected(s.Decision); c != nil && len(out) < syncer.MaxOpen {
				out = append(out, *c)
			}
		}
	}
	return out
}

// applied returns the decision of a layer that is part of our history: after a
// start all but the newest are in the store only.
func (m *Machine) applied(l types.Layer) (types.Decision, bool) {
	if d, ok := m.history.At(l); ok {
		return d, true
	}
	if l > m.history.Links()[0].Decision.Layer {
		return types.Decision{}, false
	}
	if got := m.read.decisions(l, 1); len(got) == 1 && got[0].Layer == l {
		return got[0], true
	}
	return types.Decision{}, false
}

// isApplied tells whether exactly this decision is part of our history.
func (m *Machine) isApplied(d types.Decision) bool {
	have, ok := m.applied(d.Layer)
	return ok && have == d
}

// certified compares a peer's part of the history with ours.
func (m *Machine) certified(p Peer, certs []types.Certificate) {
	tip := m.history.Tip().Decision
	if len(certs) > 0 && certs[len(certs)-1].Decision.Layer > m.cfg.Schedule.LayerAt(m.now.Add(m.rules.Skew())) {
		m.sync.Waste(m.now, p, "it has a layer that has not begun")
		return
	}
	if m.tortoise != nil {
		m.hear(p, certs)
		return
	}
	for len(certs) > 0 && len(certs[len(certs)-1].Signatures) == 0 {
		certs = certs[:len(certs)-1] // nothing says that it holds
	}
	if len(certs) == 0 {
		if tip.Layer < m.cfg.Schedule.FirstBallotLayer() {
			m.sync.Stands(m.now, p, syncer.Confirms)
		} else {
			m.sync.Stands(m.now, p, syncer.Behind)
		}
		return
	}
	common := -1
	for i := range certs {
		if m.isApplied(certs[i].Decision) {
			common = i
		}
	}
	newest := certs[len(certs)-1].Decision
	rest := certs[common+1:]
	switch {
	case len(rest) == 0 && newest.Layer+maxBehind >= tip.Layer:
		m.sync.Stands(m.now, p, syncer.Confirms)
	case len(rest) == 0:
		m.sync.Stands(m.now, p, syncer.Behind)
	case newest.Layer <= tip.Layer:
		if m.proved(&certs[len(certs)-1]) {
			m.disputed(newest, "a peer has another decision certified")
		}
		m.sync.Stands(m.now, p, syncer.Differs)
	default:
		// Who was away for an epoch only has to come to what builds on its tip.
		differs := rest[0].Decision.Layer <= tip.Layer || rest[0].Decision.Parent != tip.StateRoot
		if differs && rest[0].Decision.Layer < m.final() && m.proved(&rest[0]) {
			m.disputed(rest[0].Decision, "a peer has another history since before the last epoch: one of us must start anew from the network")
		}
		m.follow(p, rest, common >= 0 || m.history.Knows(rest[0].Decision.Parent))
	}
}

// hear takes from a peer's part of the history, while we vote, what its layers came to and we have not heard. Whose history
// is another one than ours has nothing newer for that: the votes say which one stands.
func (m *Machine) hear(p Peer, certs []types.Certificate) {
	news, common := -1, -1
	for i := range certs {
		switch c := &certs[i]; {
		case m.isApplied(c.Decision):
			if common = i; len(c.Signatures) > 0 && !m.history.Sealed(c.Decision) { // it was certified without us
				m.take(&parked{from: p, msg: &certMessage{cert: *c}})
			}
		case len(c.Signatures) > 0 && c.Decision.Layer >= m.tortoise.First() && !m.knownResult(&c.Decision):
			news = i
		}
	}
	switch tip := m.history.Tip().Decision.Layer; {
	case news >= 0:
		m.follow(p, certs[min(common+1, news):news+1], true)
	case len(certs) == 0 && tip >= m.cfg.Schedule.FirstBallotLayer(), len(certs) > 0 && certs[len(certs)-1].Decision.Layer+m.cfg.Tortoise.Hdist < tip:
		m.sync.Stands(m.now, p, syncer.Behind)
	default:
		m.sync.Stands(m.now, p, syncer.Confirms)
	}
}

// proved tells whether a certificate holds by what is known here. Others may be
// anybody's.
func (m *Machine) proved(c *types.Certificate) bool {
	el, _, ok := m.certElectorate(&c.Decision)
	return ok && m.cfg.Hare.Certifies(c, el) == nil
}

// follow takes certificates beyond our tip to the history.
func (m *Machine) follow(p Peer, certs []types.Certificate, linked bool) {
	if m.batches[p] != nil {
		return
	}
	if linked {
		m.sync.Stands(m.now, p, syncer.Ahead)
	} else {
		m.sync.Stands(m.now, p, syncer.Differs)
	}
	m.batches[p] = &batch{left: len(certs)}
	for i := range certs {
		m.take(&parked{from: p, msg: &certMessage{cert: certs[i], implied: len(certs[i].Signatures) == 0, asked: true}})
	}
}

// certEnded counts a certificate of a peer's answer as done.
func (m *Machine) certEnded(p Peer, c *certMessage, j judgement) {
	b := m.batches[p]
	if b == nil || !c.asked {
		return
	}
	b.left--
	b.useful = b.useful || j.class == Accept || j.err == errKnown
	b.wrong = b.wrong || j.class == Reject
	if b.left > 0 {
		return
	}
	delete(m.batches, p)
	if b.useful {
		m.sync.Urge()
		return
	}
	// What was missing has cost whoever named it and did not have it.
	if b.wrong {
		m.sync.Waste(m.now, p, "its certificates lead nowhere")
	}
	m.sync.Stands(m.now, p, syncer.Differs)
}

// breakRow ends the certificates that build on one that came to nothing: they are
// asked for again, maybe of somebody else.
func (m *Machine) breakRow(c *certMessage, j judgement) {
	root := c.cert.Decision.StateRoot
	if j.class == Accept || j.err == errKnown || m.history.Knows(root) {
		return
	}
	for _, q := range m.intake.lost(stateOf(root)) {
		m.giveUp(q, "what it builds on could not be had")
	}
}

// ask lets the syncer say what is to be asked of whom.
func (m *Machine) ask() {
	tip := m.history.Tip().Decision.Layer
	first := m.cfg.Schedule.FirstBallotLayer()
	v := syncer.View{
		Tip: max(tip-min(tip, maxBehind), first-1), Epoch: m.epoch(), Synced: m.synced, Busy: m.busy,
		Ballots: m.unheard(), From: max(min(m.cfg.Schedule.EpochOf(tip), m.epoch()), 2) - 1,
	}
	for range 4 { // what nobody has ends messages, which may ask for something else
		out := m.sync.Step(m.now, v)
		m.out.Asks = append(m.out.Asks, out.Asks...)
		m.out.Penalties = append(m.out.Penalties, out.Penalties...)
		for _, n := range out.GaveUp {
			for _, p := range m.intake.lost(n) {
				m.giveUp(p, "nobody has "+n.String())
			}
		}
		m.settle()
		if len(out.GaveUp) == 0 {
			m.wakeAt(out.Wake)
			return
		}
	}
	m.wakeAt(m.now.Add(m.cfg.Schedule.LayerDuration / 100))
}

// conclude says whether we are synced, and why.
func (m *Machine) conclude() {
	yes, reason := m.standing()
	if yes {
		m.lastSynced = m.layer
	}
	if yes != m.synced || reason != m.reason {
		changed := yes != m.synced
		m.synced, m.reason = yes, reason
		if changed {
			m.event(Synced{yes, reason})
		}
	}
}

func (m *Machine) standing() (bool, string) {
	tip, first := m.history.Tip().Decision.Layer, m.cfg.Schedule.FirstBallotLayer()
	clock := m.cfg.Schedule.LayerAt(m.now)
	window := maxBehind * m.cfg.Schedule.LayerDuration
	since := m.now.Add(-window)
	confirms, ahead := m.sync.Count(since)
	near := clock < first || tip+maxBehind >= clock
	if near || ahead > 0 || confirms == 0 {
		m.still = m.now
	}
	switch {
	case tip >= first && tip > m.cfg.Schedule.LayerAt(m.now.Add(m.rules.Skew())):
		return false, fmt.Sprintf("our newest layer %d is beyond the clock, which shows %d: the clock is wrong, or was", tip, clock)
	case m.sync.Peers() == 0 && m.cfg.Alone && (tip < first || m.now.Sub(m.started) > window):
		return true, "nobody to connect to was given"
	case m.sync.Peers() == 0:
		return false, "no peers"
	case near && confirms+ahead > 0:
		return true, "peers confirm it"
	case near:
		return false, fmt.Sprintf("no peer confirms layer %d", tip)
	case ahead > 0 || len(m.batches) > 0:
		return false, fmt.Sprintf("catching up: layer %d of %d", tip, clock)
	case confirms == 0:
		return false, fmt.Sprintf("layer %d of %d, and no peer confirms that there is nothing newer", tip, clock)
	case m.now.Sub(m.still) < window:
		return m.synced, fmt.Sprintf("layer %d of %d, and peers know of nothing newer", tip, clock)
	}
	return true, fmt.Sprintf("the network stands still since layer %d", tip)
}
