package core

import (
	"bytes"
	"errors"
	"slices"

	"tweedle/protocol/activation"
	"tweedle/protocol/eligibility"
	"tweedle/protocol/hare"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/mesh"
	"tweedle/protocol/syncer"
	"tweedle/protocol/txpool"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// layerProposals has the proposals of an open layer.
type layerProposals struct {
	by    map[types.NodeID]*proposalMessage // the first of each smesher, valid or not
	valid map[types.ProposalID]proposal
}

// proposal is a valid proposal as deciding needs it.
type proposal struct {
	id         types.ProposalID
	smesher    types.NodeID
	share      mesh.Share
	electorate types.Hash32
	txs        []types.TransactionID
}

// forgetLayers drops the proposals of layers that are decided long since.
func (m *Machine) forgetLayers() {
	for l := range m.proposals {
		if l+m.kept() <= m.layer+1 {
			delete(m.proposals, l)
		}
	}
	if m.layer%types.Layer(m.cfg.Schedule.LayersPerEpoch) == 0 {
		m.ballots.Clear()
	}
}

func (m *Machine) inLayer(l types.Layer) *layerProposals {
	p := m.proposals[l]
	if p == nil {
		p = &layerProposals{make(map[types.NodeID]*proposalMessage), make(map[types.ProposalID]proposal)}
		m.proposals[l] = p
	}
	return p
}

// first returns the first applied decision of an epoch, zero if there is none.
func (m *Machine) first(e types.Epoch) types.Decision {
	if d, ok := m.firsts[e]; ok {
		return d
	}
	var d types.Decision
	if got := m.read.decisions(m.cfg.Schedule.First(e), 1); len(got) > 0 && m.cfg.Schedule.EpochOf(got[0].Layer) == e {
		d = got[0]
	}
	if len(m.firsts) > 4*maxElectorates {
		clear(m.firsts)
	}
	m.firsts[e] = d
	return d
}

// Ballot implements mesh.BallotView.
func (m *Machine) Ballot(id types.BallotID) *types.Ballot {
	if b, ok := m.ballots.Get(id); ok {
		return b
	}
	return m.read.ballot(id)
}

func unknownSet(h types.Hash32) error { return &mesh.Unknown{ActiveSet: []types.Hash32{h}} }

// verdictOf turns the error of a rule into a judgement.
func (m *Machine) verdictOf(err error) judgement {
	var unknown *mesh.Unknown
	var miss *activation.Missing
	var soon *types.Early
	switch {
	case errors.As(err, &unknown):
		var names []syncer.Name
		for _, id := range unknown.ATXs {
			m.want(id)
			names = append(names, syncer.Name{Kind: syncer.ATX, ID: id})
		}
		for _, id := range unknown.Ballots {
			names = append(names, syncer.Name20(syncer.Ballot, id))
		}
		for _, h := range unknown.ActiveSet {
			names = append(names, syncer.Name{Kind: syncer.ActiveSet, ID: h})
		}
		return missing(names...)
	case errors.As(err, &miss):
		var names []syncer.Name
		for _, id := range miss.ATXs {
			m.want(id)
			names = append(names, syncer.Name{Kind: syncer.ATX, ID: id})
		}
		return missing(names...)
	case errors.As(err, &soon):
		return ignored(err)
	}
	return rejected(err)
}

var (
	errOld   = early("its layer is final, and nothing refers to it")
	errEvil  = early("its smesher is proved malicious")
	errTaken = early("a proposal of its smesher is taken already")
)

// judgeProposal checks a proposal and lets it count in its layer.
func (m *Machine) judgeProposal(q *parked, msg *proposalMessage) judgement {
	p, b := msg.p, &msg.p.Ballot
	if m.registry.Convicted(b.Smesher) {
		return ignored(errEvil)
	}
	valid, err := mesh.ValidateProposal(m.rules, m, m.now, p)
	if err != nil {
		return m.verdictOf(err)
	}
	open := m.inLayer(b.Layer)
	if _, known := open.valid[msg.id]; known {
		return ignored(errKnown)
	}
	if before := open.by[b.Smesher]; before == nil {
		open.by[b.Smesher] = msg
	} else if before.id != msg.id {
		m.convict(twoProposals(before.p, p))
		return ignored(errTaken)
	}
	if !q.proved { // of one proposal for each smesher and layer
		return m.checkSlots(q, msg.ballot, valid.Claim)
	}
	if err := m.heed(b, valid.Claim.Beacon); err != nil {
		return ignored(err)
	}
	if names := m.txsMissing(p.Txs, maxMissing); len(names) > 0 {
		return missing(names...)
	}
	j, _ := m.count(msg.ballot, b, valid.Share.Slots)
	if j.err != nil {
		return j
	}
	open.valid[msg.id] = proposal{msg.id, b.Smesher, valid.Share, valid.Electorate, p.Txs}
	m.write(WriteBallot{msg.ballot, b})
	if q.from == Self {
		m.event(Proposed{b.Smesher, b.Layer, len(b.Eligibilities)})
	}
	if el, err := m.Electorate(m.cfg.Schedule.EpochOf(b.Layer), valid.Electorate); err == nil {
		m.keepSet(el)
	}
	if len(j.missing) > 0 {
		m.countLater(q.from, msg.ballot, b, j.missing)
	}
	return accepted()
}

// twoProposals is the proof that a smesher proposed twice in a layer.
func twoProposals(a, b *types.Proposal) *malfeasance.Proof {
	if a.Ballot.ID() != b.Ballot.ID() {
		return twoBallots(&a.Ballot, &b.Ballot)
	}
	return malfeasance.FromHashes(malfeasance.TwoProposals, a.Ballot.Smesher, a.Ballot.Layer,
		malfeasance.Signed{Hash: a.SignedHash(), Signature: a.Signature},
		malfeasance.Signed{Hash: b.SignedHash(), Signature: b.Signature})
}

func twoBallots(a, b *types.Ballot) *malfeasance.Proof {
	return malfeasance.FromHashes(malfeasance.TwoBallots, a.Smesher, a.Layer,
		malfeasance.Signed{Hash: a.SignedHash(), Signature: a.Signature}, malfeasance.Signed{Hash: b.SignedHash(), Signature: b.Signature})
}

// judgeBallot checks a ballot that was asked for, as another one refers to it.
func (m *Machine) judgeBallot(q *parked, msg *ballotMessage) judgement {
	if m.tortoise != nil && msg.b.Layer < m.tortoise.First() && !m.intake.wantedBy(syncer.Name20(syncer.Ballot, msg.id)) {
		m.stocked.Put(msg.id, struct{}{}) // it is not asked for again
		return ignored(errOld)
	}
	valid, err := mesh.ValidateBallot(m.rules, m, msg.b)
	switch {
	case err != nil:
		return m.verdictOf(err)
	case !q.proved:
		return m.checkSlots(q, msg.id, valid.Claim)
	}
	if err := m.heed(msg.b, valid.Claim.Beacon); err != nil {
		return ignored(err)
	}
	if j, ok := m.count(msg.id, msg.b, valid.Share.Slots); !ok {
		return j
	}
	m.ballots.Put(msg.id, msg.b)
	m.write(WriteBallot{msg.id, msg.b})
	m.arrived(syncer.Name20(syncer.Ballot, msg.id))
	return accepted()
}

// maxFetchedBallots bounds the ballots that were asked for.
const maxFetchedBallots = 4096

// current returns the electorate by which this node decides in an epoch: the
// one that the history has decided, else what the clock has fixed here.
func (m *Machine) current(epoch types.Epoch) *activation.Electorate {
	if d := m.first(epoch); d.Layer != 0 {
		if el, err := m.Electorate(epoch, d.Electorate); err == nil {
			return el
		}
	}
	return m.registry.Own(epoch, m.now)
}

// propose publishes the proposal of one of us for a layer, if it has a slot in it.
func (m *Machine) propose(s *self, layer types.Layer) {
	epoch := m.cfg.Schedule.EpochOf(layer)
	el := m.current(epoch)
	if el == nil || layer <= s.proposed {
		return
	}
	atx, ok := el.Of(s.NodeID())
	if !ok {
		return
	}
	b := m.ballot(s, layer, el, atx)
	if b == nil || m.read.err != nil {
		return
	}
	s.proposed = layer
	id := b.ID()
	p := &types.Proposal{Ballot: *b, MeshHash: m.history.Tip().State.Root()}
	limit := min(m.cfg.TxsPerProposal*len(b.Eligibilities), types.MaxProposalTxs)
	for _, tx := range m.pool.Select(types.Sum([]byte("proposal"), id[:]), limit) {
		p.Txs = append(p.Txs, tx.ID)
	}
	p.Signature = s.Sign(signing.Proposal, p.SignedBytes())
	m.out.Signs = append(m.out.Signs, Sign{By: atx.Smesher, Message: Own(p), Slots: []Slot{
		{signing.Ballot, uint64(layer), types.Sum(b.SignedBytes())}, {signing.Proposal, uint64(layer), types.Sum(p.SignedBytes())},
	}})
}

// declare returns what our ballots of an epoch declare, false while its beacon is not known.
func (m *Machine) declare(el *activation.Electorate, atx *activation.Entry) (types.EpochData, bool) {
	value, known := m.Beacon(el.Epoch)
	return types.EpochData{
		ActiveSet: el.ID, Beacon: value, Eligibilities: eligibility.Slots(m.cfg.Eligibility, atx.Weight, el.Total()),
	}, known
}

// ballot returns the signed ballot of one of us for a layer, nil if none of its slots is in
// it, or which they are is not computed yet.
func (m *Machine) ballot(me *self, layer types.Layer, el *activation.Electorate, atx *activation.Entry) *types.Ballot {
	first := m.cfg.Schedule.First(el.Epoch)
	ref := get(&m.read, func() (*types.Ballot, error) {
		return m.read.r.ReferenceBallot(me.NodeID(), first, first+types.Layer(m.cfg.Schedule.LayersPerEpoch)-1)
	})
	b := &types.Ballot{Layer: layer, ATX: atx.ID, Smesher: me.NodeID()}
	var data types.EpochData
	if ref != nil && ref.ATX == atx.ID {
		data, b.Reference = *ref.EpochData, ref.ID()
	} else {
		var known bool
		if data, known = m.declare(el, atx); !known {
			return nil
		}
		b.EpochData = &data
	}
	if b.Eligibilities = m.slotsIn(me, layer, data, atx.VRFNonce); len(b.Eligibilities) == 0 {
		return nil
	}
	var ok bool
	if b.Votes, b.Opinion, ok = m.votes(layer); !ok {
		return nil
	}
	b.Signature = me.Sign(signing.Ballot, b.SignedBytes())
	return b
}

// decide builds the block of a layer whose proposals are agreed on, executes it,
// and signs what came out. False if what the layers before it came to is not all here yet.
func (m *Machine) decide(r hare.Result) bool {
	if r.Layer <= m.history.Tip().Decision.Layer {
		return true
	}
	counted, all := m.counted(r)
	if !all {
		m.event(Silent{r.Layer, "a proposal that was agreed on did not come"})
		return true
	}
	if len(counted) == 0 {
		m.event(Empty{r.Layer})
		m.agreed(r.Layer, types.EmptyBlock, 0)
		return true
	}
	parent, ok := m.parent(r.Layer)
	if !ok {
		return false
	}
	el := m.electorateOf(r.Layer, parent, counted)
	if el == nil || m.read.err != nil {
		return true
	}
	block, content := m.build(r.Layer, counted)
	out, err := m.history.Try(parent.StateRoot, content)
	if err != nil {
		return true
	}
	block.Txs, content.Txs = effective(out, content.Txs)
	beacon, _ := m.Beacon(el.Epoch) // by which they agreed
	d := types.Decision{Layer: r.Layer, Electorate: el.ID, Beacon: beacon, Parent: parent.StateRoot, Block: block.ID(), StateRoot: out.State.Root()}
	out.Results = slices.DeleteFunc(out.Results, func(r vm.Result) bool { return r.Status == vm.Ineffective })
	m.keep(&mesh.Draft{Decision: d, Block: block, Txs: content.Txs, Outcome: out})
	m.write(WriteBlock{block})
	m.agree.of[r.Layer].built = d.Block
	m.agreed(r.Layer, d.Block, block.TickHeight)
	decided := Decided{Decision: d, Proposals: len(counted)}
	for _, s := range m.active(r.Layer) {
		atx, ok := el.Of(s.NodeID())
		if !ok {
			continue
		}
		msg := seal(s, atx.ID, d, m.agree.of[r.Layer].seals[atx.Smesher])
		if _, err := m.cfg.Hare.CertifySeats(&msg.By, el); err != nil {
			continue
		}
		decided.Signers = append(decided.Signers, atx.Smesher)
		m.out.Signs = append(m.out.Signs, Sign{By: atx.Smesher, Message: Own(msg), Slots: []Slot{certifySlot(&d)}})
	}
	m.event(decided)
	return true
}

// certifySlot is the guard's place of a signature under a decision: its layer.
func certifySlot(d *types.Decision) Slot {
	return Slot{signing.Certify, uint64(d.Layer), types.Sum(codec.Encode(d))}
}

// Seal signs a decision and proves the signer's seats: 0.1 ms.
func Seal(id Identity, atx types.ATXID, d types.Decision) *types.CertifyMessage {
	return seal(id, atx, d, id.VRF(hare.CertifyInput(&d)))
}

func seal(id Identity, atx types.ATXID, d types.Decision, proof types.VRFSignature) *types.CertifyMessage {
	return &types.CertifyMessage{Decision: d, By: types.CertifySignature{
		ATX: atx, Smesher: id.NodeID(), Proof: proof, Signature: id.Sign(signing.Certify, codec.Encode(&d)),
	}}
}

// parent returns the decision that a layer builds on, false if that is not all here.
func (m *Machine) parent(l types.Layer) (types.Decision, bool) {
	if m.tortoise == nil {
		return m.history.Tip().Decision, true
	}
	on, after, whole := m.course(l)
	if len(after) > 0 {
		on = after[len(after)-1].Decision
	}
	return on, whole
}

// counted returns the agreed proposals in the order of their ids, false if one did not come
// here.
func (m *Machine) counted(r hare.Result) (out []proposal, all bool) {
	for _, id := range r.Proposals {
		p, ok := m.inLayer(r.Layer).valid[id]
		if !ok {
			return nil, false
		}
		out = append(out, p)
	}
	return out, true
}

// electorateOf returns by whose weight a layer is decided: as the history has
// decided for the epoch, else the set that most weight among the proposals
// declares; of equals, the one with the lowest hash.
func (m *Machine) electorateOf(layer types.Layer, parent types.Decision, ps []proposal) *activation.Electorate {
	epoch := m.cfg.Schedule.EpochOf(layer)
	chosen := parent.Electorate
	if m.cfg.Schedule.EpochOf(parent.Layer) != epoch {
		weights := make(map[types.Hash32]uint64)
		for _, p := range ps {
			weights[p.electorate] += p.share.Weight
		}
		chosen = types.Hash32{}
		for h, w := range weights {
			if best := weights[chosen]; w > best || w == best && bytes.Compare(h[:], chosen[:]) < 0 {
				chosen = h
			}
		}
	}
	el, err := m.Electorate(epoch, chosen)
	if err != nil || !m.registry.Plausible(el) {
		return nil
	}
	m.keepSet(el)
	return el
}

// build makes the block of a layer from its proposals.
func (m *Machine) build(layer types.Layer, ps []proposal) (*types.Block, vm.Block) {
	var shares []mesh.Share
	var txs []vm.Tx
	var seed []byte
	for _, p := range ps {
		shares = append(shares, p.share)
		seed = append(seed, p.id[:]...)
		for _, id := range p.txs {
			if tx, ok := m.tx(id); ok {
				txs = append(txs, tx)
			}
		}
	}
	content := vm.Block{Layer: layer}
	var ids []types.TransactionID
	for _, tx := range txpool.Order(types.Sum(seed), txs) {
		ids = append(ids, tx.ID)
		content.Txs = append(content.Txs, tx)
	}
	block := mesh.BuildBlock(layer, shares, ids)
	content.Txs = content.Txs[:len(block.Txs)]
	content.Rewards, _ = m.rewards(block, len(block.Rewards))
	return block, content
}

// rewards returns whom a block pays, and which of their ATXs are missing, of those at most so many.
func (m *Machine) rewards(b *types.Block, limit int) (shares []vm.Share, names []syncer.Name) {
	for _, r := range b.Rewards {
		e := m.read.entry(r.ATX)
		if e == nil {
			m.want(r.ATX)
			if names = append(names, syncer.Name{Kind: syncer.ATX, ID: r.ATX}); len(names) >= limit {
				break
			}
			continue
		}
		shares = append(shares, vm.Share{ATX: r.ATX, Coinbase: e.Coinbase, Num: r.Num, Den: r.Den})
	}
	return shares, names
}

// effective returns the transactions that did something. Only they are part of
// the block: the state that is signed with it says on top of what.
func effective(out vm.Outcome, txs []vm.Tx) (ids []types.TransactionID, did []vm.Tx) {
	for i, r := range out.Results {
		if r.Status != vm.Ineffective {
			ids = append(ids, r.ID)
			did = append(did, txs[i])
		}
	}
	return ids, did
}
