package core

import (
	"slices"
	"time"

	"tweedle/protocol/beacon"
	"tweedle/protocol/syncer"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Limits of what waits for something that it refers to.
const (
	MaxParked             = 16_384
	MaxParkedBytes        = 64 << 20
	MaxParkedPerPeer      = 2_048
	MaxParkedBytesPerPeer = 8 << 20
)

// nameSize is about what one name that a message waits for takes, in bytes: a set
// may name 16,384 ATXs that nobody knows, to each of a thousand messages.
const nameSize = 64

// Limits of what waits for the end of work on an ATX or a ballot. The same one may
// come with as many signatures as its smesher likes.
const (
	MaxAtWork      = 4096
	MaxAtWorkBytes = 64 << 20
	maxSame        = 32 // messages for one piece of work
)

// stateOf names the state after a decision as something that can be missing.
// It is never asked for: it comes when the layers before are applied.
func stateOf(root types.Hash32) syncer.Name { return syncer.Name{Kind: kindState, ID: root} }

const kindState syncer.Kind = 255

// parked is a message that refers to something unknown.
type parked struct {
	from    Peer
	token   uint64
	msg     Message
	until   time.Time
	missing []syncer.Name
	size    int // of the message, and of what is missing when it was parked
	gone    bool
	proved  bool // the proofs of its ballot's slots, or of a hare message's seats, are valid
	seats   uint32
}

// intake holds the messages that wait, by what they wait for.
type intake struct {
	by    map[syncer.Name][]*parked
	order []*parked // by arrival; those that left may still be in it
	first time.Time // nobody's time is over before
	peers map[Peer]*account
	all   account
	ready []*parked
	hand  map[syncer.Name]int // objects that wait here themselves
}

type account struct{ count, bytes int }

func newIntake() intake {
	return intake{by: make(map[syncer.Name][]*parked), peers: make(map[Peer]*account), hand: make(map[syncer.Name]int)}
}

// park holds a message until what it misses is here, or a time; false if its
// peer, or all together, have too much waiting.
func (q *intake) park(p *parked) bool {
	size := p.msg.size() + nameSize*len(p.missing)
	a := q.peers[p.from]
	if a == nil {
		a = &account{}
	}
	if q.all.count >= MaxParked || q.all.bytes+size > MaxParkedBytes || a.count >= MaxParkedPerPeer || a.bytes+size > MaxParkedBytesPerPeer {
		return false
	}
	p.gone, p.size = false, size
	q.peers[p.from] = a
	a.count++
	a.bytes += size
	q.all.count++
	q.all.bytes += size
	q.order = append(q.order, p)
	if q.first.IsZero() || p.until.Before(q.first) {
		q.first = p.until
	}
	if n, ok := nameOf(p.msg); ok {
		q.hand[n]++
	}
	for _, n := range p.missing {
		q.by[n] = append(q.by[n], p)
	}
	return true
}

func (q *intake) leave(p *parked) {
	p.gone = true
	a := q.peers[p.from]
	a.count--
	a.bytes -= p.size
	if a.count == 0 {
		delete(q.peers, p.from)
	}
	q.all.count--
	q.all.bytes -= p.size
	if n, ok := nameOf(p.msg); ok {
		if q.hand[n]--; q.hand[n] == 0 {
			delete(q.hand, n)
		}
	}
}

// arrived makes the messages ready that waited for nothing else. They have their place until they are judged.
func (q *intake) arrived(n syncer.Name) {
	waiting := q.by[n]
	delete(q.by, n)
	for _, p := range waiting {
		p.missing = slices.DeleteFunc(p.missing, func(o syncer.Name) bool { return o == n })
		if !p.gone && len(p.missing) == 0 {
			q.ready = append(q.ready, p)
		}
	}
}

// lost returns the messages that waited for something that nobody has.
func (q *intake) lost(n syncer.Name) []*parked {
	var out []*parked
	for _, p := range q.by[n] {
		if !p.gone {
			q.leave(p)
			out = append(out, p)
		}
	}
	delete(q.by, n)
	return out
}

// expire returns the messages whose time is over. It looks through all only when
// that may be so, or when most have left.
func (q *intake) expire(now time.Time) []*parked {
	if (q.first.IsZero() || now.Before(q.first)) && len(q.order) <= 2*q.all.count+64 {
		return nil
	}
	var out []*parked
	q.order = slices.DeleteFunc(q.order, func(p *parked) bool {
		if !p.gone && !now.Before(p.until) { // at that moment too: we are woken for it
			q.leave(p)
			out = append(out, p)
		}
		return p.gone
	})
	q.first = time.Time{}
	for _, p := range q.order {
		if q.first.IsZero() || p.until.Before(q.first) {
			q.first = p.until
		}
	}
	for _, p := range out {
		for _, n := range p.missing {
			q.by[n] = slices.DeleteFunc(q.by[n], func(o *parked) bool { return o.gone })
			if len(q.by[n]) == 0 {
				delete(q.by, n)
			}
		}
	}
	return out
}

// work is the messages that wait for the end of work.
type work account

// add tells whether there is room for one more of so many that wait for the same.
func (w *work) add(p *parked, same int) bool {
	if same >= maxSame || w.count >= MaxAtWork || w.bytes+p.msg.size() > MaxAtWorkBytes {
		return false
	}
	w.count++
	w.bytes += p.msg.size()
	return true
}

// done takes out those whose work has ended.
func (w *work) done(waited []*parked) {
	for _, p := range waited {
		w.count--
		w.bytes -= p.msg.size()
	}
}

// judgement is what became of a message.
type judgement struct {
	class   Class
	err     error
	missing []syncer.Name // not decided: these are to come first
	later   bool          // not decided: work has begun, the verdict follows
}

func accepted() judgement                { return judgement{class: Accept} }
func ignored(err error) judgement        { return judgement{class: Ignore, err: err} }
func rejected(err error) judgement       { return judgement{class: Reject, err: err} }
func missing(n ...syncer.Name) judgement { return judgement{missing: n} }

// parkTime is how long a message waits for what it refers to.
func (m *Machine) parkTime(p *parked) time.Duration {
	switch msg := p.msg.(type) {
	case *proposalMessage:
		return m.cfg.Hare.Delay
	case *atxMessage:
		if p.token == 0 { // asked for: it may stand at the end of a long row that is being verified
			return 4 * m.cfg.Schedule.EpochDuration()
		}
	case *certMessage:
		if msg.asked {
			return 4 * m.cfg.Schedule.EpochDuration()
		}
		return 8 * m.cfg.Schedule.LayerDuration
	case *decisionMessage:
		return m.cfg.Schedule.LayerDuration
	}
	return 4 * syncer.Config{Layer: m.cfg.Schedule.LayerDuration}.Timeout()
}

// heard takes a message to its judgement.
func (m *Machine) heard(in Heard) { m.take(&parked{from: in.From, token: in.Token, msg: in.Message}) }

// take judges a message, parks it, or ends it with its verdict.
func (m *Machine) take(p *parked) {
	j := m.judge(p)
	switch {
	case j.later:
	case len(j.missing) > 0:
		m.park(p, j.missing)
	default:
		m.verdict(p, j)
	}
}

func (m *Machine) park(p *parked, names []syncer.Name) {
	if p.until.IsZero() {
		p.until = m.now.Add(m.parkTime(p))
	}
	p.missing = slices.Clone(names)
	if !m.intake.park(p) {
		m.verdict(p, ignored(errBusy))
		return
	}
	for _, n := range names {
		switch {
		case m.handled(n):
		case n.Kind == kindState:
			m.sync.Urge()
		case !m.sync.Want(n, p.from, p.until):
			for _, q := range m.intake.lost(n) {
				m.giveUp(q, errBusy.Error())
			}
		}
	}
}

func (m *Machine) giveUp(p *parked, why string) { m.verdict(p, ignored(&types.Early{Reason: why})) }

// verdict ends a message. What we heard from ourselves and accept goes out.
func (m *Machine) verdict(p *parked, j judgement) {
	if j.class == Accept && (p.from == Self || p.token == 0 && m.passesOn(p.msg)) {
		m.gossip(p.msg)
	}
	if j.class == Accept && p.from != Self {
		m.ownSeen(p.msg)
	}
	if c, ok := p.msg.(*certMessage); ok {
		m.certEnded(p.from, c, j)
		m.breakRow(c, j)
	} else if n, ok := nameOf(p.msg); ok && j.class != Accept {
		m.notTaken(n, j)
	}
	if p.token == 0 {
		if j.class == Reject && p.from != Self {
			m.sync.Waste(m.now, p.from, "what it gave is not valid: "+j.err.Error())
		}
		return
	}
	v := Verdict{Token: p.token, From: p.from, Class: j.class, Err: j.err}
	if j.err != nil {
		v.Reason = j.err.Error()
	}
	m.out.Verdicts = append(m.out.Verdicts, v)
}

// passesOn tells whether gossip gets what a peer answered. A proof of malfeasance
// that we had to ask for is one that gossip did not bring, as when those whom its
// smesher talks to are few: each node would find it by a chance of its own, layers
// apart. Who is not synced finds those that all know.
func (m *Machine) passesOn(msg Message) bool {
	_, proof := msg.(*malfeasanceMessage)
	return proof && m.synced
}

// ownSeen tells of a message of one of our identities that came from elsewhere.
func (m *Machine) ownSeen(msg Message) {
	switch msg := msg.(type) {
	case *atxMessage:
		if m.own(msg.atx.SmesherID) != nil {
			m.event(OwnSeen{msg.atx.SmesherID, Slot{signing.ATX, uint64(msg.atx.PublishEpoch), types.Hash32(msg.id)}})
		}
	case *proposalMessage:
		if b := &msg.p.Ballot; m.own(b.Smesher) != nil {
			m.event(OwnSeen{b.Smesher, Slot{signing.Ballot, uint64(b.Layer), types.Sum(b.SignedBytes())}})
		}
	case *hareMessage:
		if m.own(msg.m.Smesher) != nil {
			m.event(OwnSeen{msg.m.Smesher, hareSlot(msg.m)})
		}
	case *beaconMessage:
		if msg.msg.Kind != beacon.Propose && m.own(msg.msg.Smesher) != nil {
			m.event(OwnSeen{msg.msg.Smesher, beaconSlot(msg.msg)})
		}
	case *decisionMessage:
		if m.own(msg.m.By.Smesher) != nil {
			m.event(OwnSeen{msg.m.By.Smesher, certifySlot(&msg.m.Decision)})
		}
	}
}

// notTaken ends what waits for an object that we had and did not take.
func (m *Machine) notTaken(n syncer.Name, j judgement) {
	switch {
	case j.err == errKnown:
		m.arrived(n)
		return
	case j.err == errBusy && m.intake.wantedBy(n):
		m.sync.Want(n, Self, m.now.Add(m.cfg.Schedule.LayerDuration)) // once more, when there is room
		return
	case j.class == Reject, j.err == errTooMany:
		m.refuse(n)
	}
	if m.handled(n) {
		return // another copy of it waits
	}
	for _, q := range m.intake.lost(n) {
		m.verdict(q, ignored(errLostLink))
	}
	m.sync.Have(n)
}

func (m *Machine) gossip(msg Message) {
	switch msg := msg.(type) {
	case *atxMessage:
		m.send(TopicATX, msg.raw)
	case *proposalMessage:
		m.send(TopicProposal, msg.raw)
	case *hareMessage:
		m.send(TopicHare, msg.raw)
	case *decisionMessage:
		m.send(TopicDecision, msg.raw)
	case *txMessage:
		m.send(TopicTx, msg.tx.Raw)
	case *poetMessage:
		m.send(TopicPoet, msg.raw)
	case *malfeasanceMessage:
		m.send(TopicMalfeasance, msg.raw)
	case *beaconMessage:
		m.send(TopicBeacon, msg.raw)
	}
}

// arrived tells everybody who waits for an object that it is here.
func (m *Machine) arrived(n syncer.Name) {
	m.sync.Have(n)
	m.intake.arrived(n)
	m.chain.arrived(n)
}

// maxSettled is how many messages that waited are judged in one Step: all that a peer has waiting may wait for the same
// thing, and each takes some 0.1 to 0.3 ms.
const maxSettled = 64

// settle judges what became ready, until nothing more does or it is enough for one Step. Each round ends
// messages or begins to wait for something else, so it ends.
func (m *Machine) settle() {
	for ; len(m.intake.ready) > 0 && m.judged < maxSettled && m.read.err == nil; m.judged++ {
		p := m.intake.ready[0]
		m.intake.ready = m.intake.ready[1:]
		if !p.gone {
			m.intake.leave(p)
			m.take(p)
		}
	}
	if len(m.intake.ready) > 0 {
		m.wakeAt(m.now.Add(time.Millisecond))
	}
}

// judge applies the rules of a message's kind.
func (m *Machine) judge(p *parked) judgement {
	switch msg := p.msg.(type) {
	case *atxMessage:
		return m.judgeATX(p, msg)
	case *poetMessage:
		return m.judgePoet(p.from, msg)
	case *proposalMessage:
		return m.judgeProposal(p, msg)
	case *hareMessage:
		return m.judgeHare(p, msg)
	case *decisionMessage:
		return m.judgeDecision(p.from, msg)
	case *txMessage:
		return m.judgeTx(p, msg)
	case *malfeasanceMessage:
		return m.judgeMalfeasance(p.from, msg)
	case *beaconMessage:
		return m.judgeBeacon(msg)
	case *setMessage:
		return m.judgeSet(msg)
	case *ballotMessage:
		return m.judgeBallot(p, msg)
	case *blockMessage:
		return m.judgeBlock(msg)
	case *certMessage:
		return m.judgeCert(msg)
	}
	panic("core: a message of no kind")
}

func early(reason string) error { return &types.Early{Reason: reason} }

var errBusy error = &types.Early{Reason: "too much waits already for what it refers to"}
