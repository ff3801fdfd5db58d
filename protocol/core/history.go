package core

import (
	"errors"
	"fmt"
	"slices"

	"tweedle/protocol/hare"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/mesh"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Dispute is a decision that was certified, or signed by peers, and does not
// fit our history: a fact that people must see.
type Dispute struct {
	Layer  types.Layer // zero: there is none
	Ours   types.Decision
	Theirs types.Decision
	Reason string
}

// VerifySignatures tells whether all signatures of a certificate, and the random values
// that seat their smeshers, are valid.
func VerifySignatures(c Crypto, cert *types.Certificate) bool {
	signed, input := codec.Encode(&cert.Decision), hare.CertifyInput(&cert.Decision)
	for _, s := range cert.Signatures {
		if !c.Verify(signing.Certify, s.Smesher, signed, s.Signature) || !c.VerifyVRF(s.Smesher, input, s.Proof) {
			return false
		}
	}
	return true
}

var (
	errTime        = early("decision of another time")
	errImplausible = early("its electorate holds less than two thirds of the weight that is known here")
	errBeacon      = early("decision names another beacon than this node knows for its epoch")
	errState       = early("executing its block gives another state than was signed")
	errBlock       = errors.New("certified block is of another layer")
	errTwice       = early("its smesher signed two decisions for the layer")
)

// signable tells whether signatures under decisions of a layer are counted now.
func (m *Machine) signable(l types.Layer) bool {
	newest := m.cfg.Schedule.LayerAt(m.now.Add(m.rules.Skew()))
	return l <= newest && l+hare.MaxOpenLayers >= newest && l >= m.cfg.Schedule.FirstBallotLayer()
}

// judgeDecision counts a signature under a decision.
func (m *Machine) judgeDecision(from Peer, msg *decisionMessage) judgement {
	d := &msg.m.Decision
	if !m.signable(d.Layer) {
		return ignored(errTime)
	}
	el, err := m.Electorate(m.cfg.Schedule.EpochOf(d.Layer), d.Electorate)
	if err != nil {
		return m.verdictOf(err)
	}
	seats, err := m.cfg.Hare.CertifySeats(&msg.m.By, el)
	switch {
	case err != nil:
		return rejected(err)
	case !m.registry.Plausible(el):
		return ignored(errImplausible)
	}
	if beacon, known := m.Beacon(el.Epoch); !known || beacon != d.Beacon {
		return ignored(errBeacon)
	}
	cert, err := m.certify.Add(msg.m, seats)
	switch {
	case errors.Is(err, hare.ErrEquivocation):
		before, _ := m.certify.Signed(d.Layer, msg.m.By.Smesher)
		m.convict(malfeasance.FromDecisions(before, msg.m))
		return ignored(errTwice)
	case err != nil:
		return ignored(&types.Early{Reason: err.Error()})
	}
	if cert != nil {
		m.take(&parked{from: from, msg: &certMessage{cert: *cert}})
	}
	return accepted()
}

// certElectorate returns the electorate of a decision, or what there is to say
// instead.
func (m *Machine) certElectorate(d *types.Decision) (el hare.Electorate, j judgement, ok bool) {
	got, err := m.Electorate(m.cfg.Schedule.EpochOf(d.Layer), d.Electorate)
	if err != nil {
		return nil, m.verdictOf(err), false
	}
	if !m.registry.Plausible(got) {
		return nil, ignored(errImplausible), false
	}
	if beacon, known := m.Beacon(got.Epoch); known && beacon != d.Beacon {
		return nil, ignored(errBeacon), false
	}
	return got, judgement{}, true
}

// judgeCert takes a certified decision to the history: what it needs is asked
// for. While we vote, it says what its layer came to, and the history follows the
// votes (align); else it is applied once it is executed.
func (m *Machine) judgeCert(msg *certMessage) judgement {
	d := &msg.cert.Decision
	applied := m.isApplied(*d)
	if applied && (msg.implied || m.history.Sealed(*d)) {
		return ignored(errKnown)
	}
	if d.Layer > m.cfg.Schedule.LayerAt(m.now.Add(m.rules.Skew())) || d.Layer < m.cfg.Schedule.FirstBallotLayer() {
		return ignored(errTime)
	}
	el, j, ok := m.certElectorate(d)
	if !ok {
		// One question for all that is missing, as the history is asked for in long rows.
		if len(j.missing) > 0 && m.history.Draft(*d) == nil && m.read.block(d.Block) == nil {
			j.missing = append(j.missing, syncer.Name20(syncer.Block, d.Block))
		}
		return j
	}
	if !msg.implied {
		if err := m.cfg.Hare.Certifies(&msg.cert, el); err != nil {
			return rejected(err)
		}
	}
	if applied {
		if a := m.agree.of[d.Layer]; a != nil {
			a.built = types.EmptyBlock
		}
		m.history.Seal(*d)
		m.write(WriteCertificate{&msg.cert})
		m.event(Certified{&msg.cert})
		return accepted()
	}
	votes := m.tortoise != nil && d.Layer >= m.tortoise.First()
	if votes && !msg.implied {
		if j, ok := m.tell(d); !ok {
			return j
		}
	}
	draft := m.history.Draft(*d)
	if draft == nil {
		if draft, j = m.execute(d, votes); draft == nil {
			if votes && len(j.missing) == 1 && j.missing[0].Kind == kindState && !msg.implied {
				return accepted() // what it says of its layer is heard
			}
			if j.err == errState && !msg.implied {
				m.disputed(*d, j.err.Error())
			}
			return j
		}
		m.keep(draft)
	}
	if msg.implied {
		return accepted()
	}
	draft.Certificate = &msg.cert
	if !votes {
		return m.adopt(draft)
	}
	if path, err := m.history.Extend(draft); err == nil {
		for _, k := range path.Drafts { // who certifies it has agreed on what it builds on
			m.agreed(k.Decision.Layer, k.Decision.Block, k.Block.TickHeight)
		}
	}
	return accepted()
}

// tell tells the votes what a certificate says of its layer, as soon as the block is here: what it builds on may be another
// thing here, and it may be ours that is wrong.
func (m *Machine) tell(d *types.Decision) (judgement, bool) {
	block := m.read.block(d.Block)
	if block == nil {
		return missing(syncer.Name20(syncer.Block, d.Block)), false
	}
	if block.Layer != d.Layer {
		return rejected(errBlock), false
	}
	if a := m.agree.of[d.Layer]; a != nil && a.built != types.EmptyBlock {
		if a.built != d.Block { // we made another block of what was agreed on, on another state: theirs counts
			m.tortoise.Overrule(d.Layer, a.built)
		}
		a.built = types.EmptyBlock
	}
	m.chain.heard[d.Layer] = *d
	before := m.tortoise.Results(d.Layer)
	m.agreed(d.Layer, d.Block, block.TickHeight)
	if !m.knownResult(d) {
		return ignored(errUncounted), false
	}
	switch c := m.tortoise.Opine(d.Layer); {
	case d.Layer <= m.tortoise.Verified() && c.Block != d.Block:
		m.disputed(*d, "another block of the layer is final by the weight of votes")
	case len(before) > 0 && !slices.Contains(before, d.Block) && d.Layer+m.cfg.Tortoise.Hdist > m.tortoise.Last():
		m.disputed(*d, "another decision is certified than the layer's smeshers agreed on here")
	}
	return judgement{}, true
}

// knownResult tells whether a decision says nothing new of its layer.
func (m *Machine) knownResult(d *types.Decision) bool {
	known := m.tortoise.Results(d.Layer)
	return len(known) == 2 || slices.Contains(known, d.Block)
}

// execute gathers what a decision needs and executes it. While we vote a state that is not in memory is not looked for:
// the history follows the votes, and goes back by itself.
func (m *Machine) execute(d *types.Decision, votes bool) (*mesh.Draft, judgement) {
	block := m.read.block(d.Block)
	if block == nil {
		return nil, missing(syncer.Name20(syncer.Block, d.Block))
	}
	if block.Layer != d.Layer {
		return nil, rejected(errBlock)
	}
	content, names := m.content(block)
	if len(names) > 0 {
		return nil, missing(names...)
	}
	draft, err := m.history.Execute(*d, block, content)
	switch {
	case errors.Is(err, mesh.ErrParent):
		if votes || !m.rewind(d.Parent, d.Layer) {
			return nil, missing(stateOf(d.Parent))
		}
		if draft, err = m.history.Execute(*d, block, content); err == nil {
			return draft, judgement{}
		}
		fallthrough
	case err != nil:
		return nil, ignored(errState)
	}
	return draft, judgement{}
}

// rewind is for decisions that build on a layer older than the history holds,
// which after a start is all but the newest: it finds the layer in the store, back
// to the beginning of the last epoch. What is older is final. It takes as long as a
// start, so it is done once a layer at most.
func (m *Machine) rewind(root types.Hash32, before types.Layer) bool {
	if m.rewound == m.layer {
		return false
	}
	oldest := m.history.Links()[0].Decision.Layer
	final := m.final()
	for d := m.before(min(oldest, before)); d != nil && d.Layer >= final && m.read.err == nil; d = m.before(d.Layer) {
		if d.StateRoot == root {
			return m.recall(*d)
		}
	}
	return false
}

// recall rebuilds the state after an applied layer that is not in memory, if that was not done in this layer.
func (m *Machine) recall(d types.Decision) bool {
	if m.rewound == m.layer {
		return false
	}
	m.rewound = m.layer
	state, err := m.stateAt(d.Layer, d.StateRoot)
	if err != nil {
		if m.read.err == nil {
			m.read.err = err
		}
		return false
	}
	m.history.Recall(mesh.Link{Decision: d, State: state})
	return true
}

// final is the first layer that may still be taken back.
func (m *Machine) final() types.Layer { return m.cfg.Schedule.First(max(m.epoch(), 1) - 1) }

// judgeBlock keeps a block that a certificate names.
func (m *Machine) judgeBlock(msg *blockMessage) judgement {
	name := syncer.Name20(syncer.Block, msg.b.ID())
	if !m.intake.wantedBy(name) {
		return ignored(errKnown)
	}
	m.read.blocks[msg.b.ID()] = msg.b // in this Step it is used or named again
	m.write(WriteBlock{msg.b})
	m.arrived(name)
	return accepted()
}

// keep remembers an executed decision, and lets those go on that build on it.
func (m *Machine) keep(d *mesh.Draft) {
	m.history.Keep(d)
	m.intake.arrived(stateOf(d.Decision.StateRoot))
}

// adopt makes a certified draft the tip, with all that it builds on.
func (m *Machine) adopt(d *mesh.Draft) judgement {
	if d.Decision.Layer <= m.history.Tip().Decision.Layer {
		m.disputed(d.Decision, "another decision is certified for the layer, or for one after it that leaves it out")
		return accepted()
	}
	path, err := m.history.Extend(d)
	switch {
	case errors.Is(err, mesh.ErrKnown):
		return ignored(errKnown)
	case err != nil:
		return missing(stateOf(d.Decision.Parent))
	}
	if len(path.Undone) > 0 {
		m.undone(path, d)
	}
	m.apply(path)
	return accepted()
}

// undone says why layers are taken back: a later layer was certified that
// leaves them out, so that more than a third of the weight signed against it.
func (m *Machine) undone(path mesh.Path, d *mesh.Draft) {
	e := Undone{
		From: m.history.Tip().Decision.Layer, To: path.Base.Decision.Layer,
		Fault: fmt.Sprintf("layer %d is certified without them", d.Decision.Layer),
	}
	for _, s := range d.Certificate.Signatures {
		for _, u := range path.Undone {
			if before, ok := m.certify.Signed(u.Decision.Layer, s.Smesher); ok && before.Decision == u.Decision {
				e.Smeshers = append(e.Smeshers, s.Smesher)
				break
			}
		}
	}
	m.event(e)
}

// apply writes a path and moves everything that stands on the state.
func (m *Machine) apply(path mesh.Path) {
	var again []vm.Tx
	tip := m.history.Tip().Decision.Layer
	if len(path.Undone) > 0 { // there may be some before, if the base was not in memory
		for _, d := range m.read.decisions(path.Base.Decision.Layer+1, int(path.Undone[0].Decision.Layer-path.Base.Decision.Layer)-1) {
			if d.Layer < path.Undone[0].Decision.Layer {
				again = append(again, m.read.layerTransactions(d.Layer)...)
			}
		}
	}
	for _, u := range path.Undone {
		again = append(again, m.txsOf(u)...)
	}
	if len(path.Undone) > 0 {
		m.forgetFirsts(path.Base.Decision.Layer, tip)
	}
	base := path.Base.Decision.Layer
	for _, d := range path.Drafts {
		epoch := m.cfg.Schedule.EpochOf(d.Decision.Layer)
		if m.first(epoch).Layer == 0 {
			m.firsts[epoch] = d.Decision
		}
		cert := d.Certificate
		if cert == nil {
			cert = &types.Certificate{Decision: d.Decision}
		}
		if el, err := m.Electorate(epoch, d.Decision.Electorate); err == nil {
			m.keepSet(el) // whoever comes later checks by it
		}
		w := WriteLayer{Base: base, Certificate: cert, Block: d.Block, Txs: d.Txs, Outcome: d.Outcome}
		m.write(w)
		m.event(Applied{w})
		base = d.Decision.Layer
	}
	m.history.Commit(path)
	m.repool(m.history.Tip().State, again, path.Drafts)
	if m.history.Tip().Decision.Layer > m.dispute.Layer+2*maxOpen {
		m.dispute = Dispute{} // all go on together since
	}
	m.intake.arrived(stateOf(m.history.Tip().Decision.StateRoot))
}

func (m *Machine) txsOf(l mesh.Link) []vm.Tx {
	if l.Txs != nil {
		return l.Txs
	}
	return m.read.layerTransactions(l.Decision.Layer)
}

// forgetFirsts forgets what was first in the epochs of layers that are undone.
func (m *Machine) forgetFirsts(base, tip types.Layer) {
	for e := m.cfg.Schedule.EpochOf(base); e <= m.cfg.Schedule.EpochOf(tip); e++ {
		if m.first(e).Layer > base {
			m.firsts[e] = types.Decision{}
		}
	}
}

// recheck looks at what an epoch was decided by when more of its weight becomes
// known. Only the running epoch and the last are looked at: what is older is
// final.
func (m *Machine) recheck(epoch types.Epoch) {
	if now := m.epoch(); epoch > now || epoch+1 < now {
		return
	}
	first := m.first(epoch)
	if first.Layer == 0 {
		return
	}
	el, err := m.Electorate(epoch, first.Electorate)
	if err != nil || m.registry.Plausible(el) {
		return
	}
	m.giveUpFrom(first.Layer, "their electorate turned out to hold less than two thirds of the epoch's weight: the network was split when it was made")
}

// giveUpFrom takes a layer and all after it out of the history.
func (m *Machine) giveUpFrom(layer types.Layer, fault string) {
	tip := m.history.Tip().Decision.Layer
	var to types.Decision
	var again []vm.Tx
	if got := m.before(layer); got != nil {
		to = *got
	} else {
		return
	}
	for _, d := range m.read.decisions(layer, int(tip-layer)+1) {
		again = append(again, m.read.layerTransactions(d.Layer)...)
	}
	m.forgetFirsts(to.Layer, tip)
	state, err := m.stateAt(to.Layer, to.StateRoot)
	if err != nil {
		if m.read.err == nil {
			m.read.err = err
		}
		return
	}
	m.write(WriteRevert{to.Layer})
	m.write(DropOpinions{})
	m.tortoise, m.gaveUp = nil, true // it counted by an electorate that was none
	m.event(Undone{From: tip, To: to.Layer, Fault: fault})
	m.history.Reset(mesh.Link{Decision: to, State: state})
	m.repool(state, again, nil)
	m.sync.Urge()
}

// before returns the newest applied layer before one.
func (m *Machine) before(layer types.Layer) *types.Decision {
	for i := len(m.history.Links()) - 1; i >= 0; i-- {
		if d := m.history.Links()[i].Decision; d.Layer < layer {
			return &d
		}
	}
	d := get(&m.read, func() (*types.Decision, error) { return m.read.r.Before(layer) })
	return d
}

// disputed notes a decision that does not fit our history.
func (m *Machine) disputed(theirs types.Decision, reason string) {
	ours, _ := m.applied(theirs.Layer)
	if m.dispute.Theirs == theirs {
		return
	}
	m.dispute = Dispute{theirs.Layer, ours, theirs, reason}
	m.event(Disputed{m.dispute})
}
