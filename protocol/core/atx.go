package core

import (
	"errors"
	"slices"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/syncer"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// MaxVerifying is how many ATXs may be in work.
const MaxVerifying = 2048

// verifying is an ATX whose proofs of space are being checked.
type verifying struct {
	claim   *activation.Claim
	waiting []*parked
}

// ATX implements activation.View and mesh.BallotView.
func (m *Machine) ATX(id types.ATXID) (*activation.Info, error) {
	if e := m.read.entry(id); e != nil {
		return &e.Info, m.read.err
	}
	return nil, m.read.err
}

// Poet implements activation.View.
func (m *Machine) Poet(ref types.PoetProofRef) (*activation.Poet, error) {
	p := m.read.poet(ref)
	if p == nil {
		return nil, m.read.err
	}
	return &activation.Poet{Statement: p.Statement, NumLeaves: p.Proof.NumLeaves}, nil
}

// Highest returns the highest ATX that a new one can be positioned on.
func (m *Machine) Highest(before types.Epoch) (types.ATXID, bool) { return m.registry.Highest(before) }

var (
	errKnown    = early("it is known")
	errTooMany  = early("its smesher has two ATXs in this epoch already")
	errLostLink = early("what it refers to could not be had")
)

// judgeATX checks all rules of an ATX but its proofs of space, and has those
// checked.
func (m *Machine) judgeATX(p *parked, msg *atxMessage) judgement {
	if m.read.entry(msg.id) != nil {
		return ignored(errKnown)
	}
	if v := m.verifying[msg.id]; v != nil {
		if !m.atWork.add(p, len(v.waiting)) {
			return ignored(errBusy)
		}
		v.waiting = append(v.waiting, p)
		return judgement{later: true}
	}
	claim, err := activation.Derive(m.cfg.Activation, msg.atx, msg.id, m.epoch(), m)
	var miss *activation.Missing
	switch {
	case errors.As(err, &miss):
		var names []syncer.Name
		for _, ref := range miss.Poets {
			names = append(names, syncer.Name{Kind: syncer.PoetProof, ID: ref})
		}
		for _, id := range miss.ATXs {
			m.want(id)
			names = append(names, syncer.Name{Kind: syncer.ATX, ID: id})
		}
		return missing(names...)
	case errors.Is(err, activation.ErrFuture):
		return ignored(err)
	case err != nil:
		return rejected(err)
	}
	if _, wanted := m.wanted.Get(msg.id); m.read.published(msg.atx.SmesherID) && !wanted && m.registry.Full(msg.atx.PublishEpoch, msg.atx.SmesherID) {
		return ignored(errTooMany)
	}
	if len(m.verifying) >= MaxVerifying || !m.atWork.add(p, 0) {
		return ignored(errBusy)
	}
	m.verifying[msg.id] = &verifying{claim, []*parked{p}}
	m.out.Work = append(m.out.Work, CheckSpace{claim})
	return judgement{later: true}
}

// maxWanted bounds the ATXs that are remembered as referred to.
const maxWanted = 65_536

// want notes that another ATX, or a set, refers to an ATX: it is taken even if
// its smesher has too many.
func (m *Machine) want(id types.ATXID) { m.wanted.Put(id, struct{}{}) }

// verified ends the check of an ATX's proofs of space.
func (m *Machine) verified(in Verified) {
	v := m.verifying[in.ATX]
	if v == nil {
		return
	}
	delete(m.verifying, in.ATX)
	m.atWork.done(v.waiting)
	j := judgement{class: in.Class}
	if in.Class != Accept {
		j.err = early(in.Why)
	}
	switch {
	case in.Class == Accept:
		m.addATX(v.claim)
	case in.WrongLabel:
		// Others drew other labels and take it, and may build on it: so do we,
		// and its smesher's weight goes. Whoever passed it on is not to blame.
		m.addATX(v.claim)
		j.class = Ignore
		m.convict(&malfeasance.Proof{
			Kind: malfeasance.InvalidPost, Smesher: v.claim.Info.Smesher, ATX: v.claim.ATX, Ordinal: in.Ordinal,
		})
	}
	for _, p := range v.waiting {
		m.verdict(p, j)
	}
}

// addATX makes a valid ATX part of the registry.
func (m *Machine) addATX(c *activation.Claim) {
	entry := activation.Entry{Info: *c.Info, Received: m.now}
	other := m.registry.Add(entry)
	m.write(WriteATX{c.ATX, entry})
	m.wanted.Remove(entry.ID)
	m.poets.referred(c.ATX.NIPosts[0].PoetProof)
	m.asked.referred(c.ATX.NIPosts[0].PoetProof)
	m.event(Activated{entry, c.ATX.NIPosts[0].PoetProof})
	if other != nil {
		if before := m.read.atx(other.ID); before != nil {
			m.convict(malfeasance.FromATXs(before, c.ATX))
		}
	}
	if a, ok := m.accused.Get(entry.Smesher); ok && !m.registry.Convicted(entry.Smesher) {
		m.accused.Remove(entry.Smesher)
		m.convicted(a.proof, a.at)
	}
	m.recheck(entry.PublishEpoch + 1)
	m.arrived(syncer.Name{Kind: syncer.ATX, ID: entry.ID})
}

// judgeMalfeasance takes a proof's effect.
func (m *Machine) judgeMalfeasance(from Peer, msg *malfeasanceMessage) judgement {
	if m.registry.Convicted(msg.proof.Smesher) {
		return ignored(errKnown)
	}
	err := msg.proof.CheckSpace(space{m})
	var unknown *malfeasance.Unknown
	switch {
	case errors.As(err, &unknown):
		m.want(unknown.ATX)
		return missing(syncer.Name{Kind: syncer.ATX, ID: unknown.ATX})
	case err != nil:
		return rejected(err)
	}
	if id := msg.proof.Smesher; m.own(id) == nil && !m.read.published(id) {
		m.accused.Put(id, accused{msg.proof, m.now})
		return ignored(errNobody)
	}
	m.convicted(msg.proof, m.now)
	m.arrived(syncer.Name{Kind: syncer.Malfeasance, ID: msg.proof.Smesher})
	return accepted()
}

// maxAccused bounds the proofs against those who have no ATX here. Everybody can
// make any number of them, with a key for each: they are not stored, and wait for
// the ATX.
const maxAccused = 1024

var errNobody = early("its smesher has no ATX here")

// accused is such a proof, and when it came.
type accused struct {
	proof *malfeasance.Proof
	at    time.Time
}

func (m *Machine) accuses(id types.NodeID) bool {
	_, waits := m.accused.Get(id)
	return waits
}

// space answers package malfeasance.
type space struct{ m *Machine }

func (s space) Commitment(id types.ATXID) (types.ATXID, bool) {
	e := s.m.read.entry(id)
	if e == nil {
		return types.ATXID{}, false
	}
	return e.CommitmentATX, true
}

func (s space) Wrong(a *types.ATX, commitment types.ATXID, ordinal uint32) bool {
	return s.m.cfg.Crypto.WrongLabel(a, commitment, ordinal)
}

// convict tells everybody what a smesher did.
func (m *Machine) convict(p *malfeasance.Proof) {
	if m.registry.Convicted(p.Smesher) {
		return
	}
	m.convicted(p, m.now)
	m.send(TopicMalfeasance, codec.Encode(p))
}

func (m *Machine) convicted(p *malfeasance.Proof, at time.Time) {
	m.registry.Convict(p.Smesher, at)
	if m.beacons.run != nil {
		m.beacons.run.Convict(p.Smesher)
	}
	if m.tortoise != nil {
		m.tortoise.Malicious(p.Smesher)
	}
	m.write(WriteMalfeasance{p, at})
	m.event(Caught{p, m.own(p.Smesher) != nil})
}

// judgeSet keeps an active set until something is decided by it.
func (m *Machine) judgeSet(msg *setMessage) judgement {
	hash := msg.set.Hash()
	m.sets.Put(hash, msg.set) // who needs one that went for it asks again
	m.arrived(syncer.Name{Kind: syncer.ActiveSet, ID: hash})
	return accepted()
}

// MaxSets is how many active sets are held that nothing was decided by yet.
const MaxSets = 32

// maxElectorates is how many electorates are kept ready.
const maxElectorates = 32

// Electorate implements mesh.BallotView.
func (m *Machine) Electorate(epoch types.Epoch, hash types.Hash32) (*activation.Electorate, error) {
	if el := m.electorates[hash]; el != nil && el.Epoch == epoch {
		return el, nil
	}
	if own := m.registry.Own(epoch, m.now); own != nil && own.ID == hash {
		return own, nil
	}
	set, ok := m.sets.Get(hash)
	if !ok {
		if set = m.read.activeSet(hash); set == nil {
			return nil, unknownSet(hash)
		}
	}
	el, err := m.registry.Electorate(epoch, set, m)
	if err != nil {
		return nil, err
	}
	if len(m.electorates) >= maxElectorates {
		oldest := el.Epoch
		for _, k := range m.electorates {
			oldest = min(oldest, k.Epoch)
		}
		for h, k := range m.electorates {
			if k.Epoch == oldest {
				delete(m.electorates, h)
			}
		}
	}
	m.electorates[hash] = el
	return el, nil
}

// Plausible implements mesh.BallotView.
func (m *Machine) Plausible(el *activation.Electorate) bool { return m.registry.Plausible(el) }

// keepSet stores the set of an electorate that something was decided by.
func (m *Machine) keepSet(el *activation.Electorate) {
	if _, loose := m.sets.Get(el.ID); loose || m.read.activeSet(el.ID) == nil {
		m.sets.Remove(el.ID)
		m.write(WriteActiveSet{el.Set()})
	}
}

// poetCost is what an unreferred PoET proof takes.
type poetCost struct {
	leaves uint64
	size   int
	epoch  types.Epoch // in which it came
}

// Limits of PoET proofs that no ATX refers to. Everybody can make them; of too
// many those with the least work go, so to push out a real one takes as much
// work as the real one.
const (
	MaxUnreferredPoets     = 1024
	MaxUnreferredPoetBytes = 64 << 20
	unreferredEpochs       = 3 // for how many epochs they are kept

	// The same of those that an ATX refers to which is not judged yet: everybody can
	// sign one for each. A long row of ATXs has one for each epoch.
	MaxAskedPoets     = 16_384
	MaxAskedPoetBytes = 512 << 20
)

type poetBudget struct {
	count, size int // limits
	proofs      map[types.PoetProofRef]poetCost
	bytes       int
	drop        []types.PoetProofRef
}

func newPoetBudget(count, size int) poetBudget {
	return poetBudget{count: count, size: size, proofs: make(map[types.PoetProofRef]poetCost)}
}

func (b *poetBudget) referred(ref types.PoetProofRef) {
	b.bytes -= b.proofs[ref].size
	delete(b.proofs, ref)
}

// add tells whether there is room for a proof, and which others go for it.
func (b *poetBudget) add(ref types.PoetProofRef, c poetCost) (gone []types.PoetProofRef, ok bool) {
	b.proofs[ref] = c
	b.bytes += c.size
	for len(b.proofs) > b.count || b.bytes > b.size {
		least, first := ref, true
		for r, k := range b.proofs {
			l := b.proofs[least]
			if first || k.leaves < l.leaves || k.leaves == l.leaves && slices.Compare(r[:], least[:]) > 0 {
				least, first = r, false
			}
		}
		b.referred(least)
		if least == ref {
			return gone, false
		}
		gone = append(gone, least)
	}
	return gone, true
}

// forget drops the proofs whose time is over.
func (b *poetBudget) forget(now types.Epoch) {
	for ref, c := range b.proofs {
		if c.epoch+unreferredEpochs < now {
			b.referred(ref)
			b.drop = append(b.drop, ref)
		}
	}
	slices.SortFunc(b.drop, func(x, y types.PoetProofRef) int { return slices.Compare(x[:], y[:]) })
}

// dropPoets has the proofs dropped whose time is over.
func (m *Machine) dropPoets() {
	for _, b := range []*poetBudget{&m.poets, &m.asked} {
		b.forget(m.epoch())
		for _, ref := range b.drop {
			m.write(DropPoet{ref})
		}
		b.drop = nil
	}
}

// maxLeavesPerSecond is more than any machine computes.
const maxLeavesPerSecond = 200_000

// Reasons why a PoET proof is not taken.
var (
	ErrPoetFuture    = errors.New("PoET proof claims more work than there was time for")
	ErrPoetStatement = errors.New("PoET proof is known, and of another statement")
	errPoetName      = early("PoET proof is known under another name")
	errPoetBudget    = early("too many PoET proofs that no ATX refers to, and this one has the least work")
)

// judgePoet takes a PoET proof whose work was checked.
func (m *Machine) judgePoet(from Peer, msg *poetMessage) judgement {
	leaves := msg.msg.Proof.NumLeaves
	// A round began after the network did, give or take an epoch.
	age := m.now.Sub(m.cfg.Schedule.Genesis) + m.cfg.Schedule.EpochDuration()
	if leaves > uint64(max(age.Seconds(), 1))*maxLeavesPerSecond {
		return rejected(ErrPoetFuture)
	}
	if known := m.read.poet(msg.ref); known != nil {
		switch {
		case known.Statement != msg.msg.Statement:
			return rejected(ErrPoetStatement)
		case from == Self:
			return accepted() // a gateway acknowledges what it has
		case known.PoetID != msg.msg.PoetID || known.RoundID != msg.msg.RoundID:
			return ignored(errPoetName) // there is no end of names
		}
		return accepted()
	}
	budget := &m.poets
	if m.intake.wantedBy(syncer.Name{Kind: syncer.PoetProof, ID: msg.ref}) {
		budget = &m.asked
	}
	gone, ok := budget.add(msg.ref, poetCost{leaves, len(msg.raw), m.epoch()})
	if !ok {
		return ignored(errPoetBudget)
	}
	for _, ref := range gone {
		m.write(DropPoet{ref})
	}
	m.write(WritePoet{msg.msg})
	m.event(PoetStored{msg.ref, msg.msg})
	m.arrived(syncer.Name{Kind: syncer.PoetProof, ID: msg.ref})
	return accepted()
}

// wantedBy tells whether a message waits for an object.
func (q *intake) wantedBy(n syncer.Name) bool { return len(q.by[n]) > 0 }
