package core

import (
	"maps"
	"slices"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/hare"
	"tweedle/protocol/malfeasance"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// agreement is that on the proposals of a layer.
type agreement struct {
	session *hare.Session
	draw    hare.Draw
	own     []Identity
	el      *activation.Electorate
	wake    time.Time
	result  []types.ProposalID // nil while there is none
	ended   bool
	decided bool
	built   types.BlockID                       // by us, of the result; empty when that is certified
	checks  map[types.NodeID]int                // messages of a smesher whose seats are being checked
	seals   map[types.NodeID]types.VRFSignature // of ours, for their seats among those who certify
}

// agreements are those of the open layers, and the messages whose seats are checked. Those
// that come while a check runs wait, and are checked together when it has ended: a round has
// hundreds, which come at once.
type agreements struct {
	of      map[types.Layer]*agreement
	closed  types.Layer // up to here there were some, or we were not here for them from the start
	wake    time.Time   // nothing is due before; zero if that is not known
	waiting []seatCheck
	running []seatCheck
}

// seatCheck is a message whose seats are to be checked.
type seatCheck struct {
	*parked
	SeatProof
}

// maxSeatChecks is how many messages have their seats checked together: 0.2 ms for each.
const maxSeatChecks = 64

// SeatProof is a proof of a hare message's seats.
type SeatProof struct {
	Message *hare.Message
	Params  hare.Params
	Draw    hare.Draw
	Weight  uint64
}

// Seats returns how many the proof is for, or why it is not valid.
func (p SeatProof) Seats(c Crypto) (uint32, error) {
	return p.Message.Seats(p.Params, p.Draw, p.Weight, c.VerifyVRF)
}

// CheckSeats checks proofs of seats. A machine has one under way.
type CheckSeats struct{ Proofs []SeatProof }

// Do implements Work.
func (w CheckSeats) Do(c Crypto) Input {
	out := Seated{Seats: make([]uint32, len(w.Proofs)), Errs: make([]error, len(w.Proofs))}
	for i, p := range w.Proofs {
		out.Seats[i], out.Errs[i] = p.Seats(c)
	}
	return out
}

// DrawSeats computes the random values of ours for rounds of a layer: 0.1 ms for each.
type DrawSeats struct {
	Draw   hare.Draw
	Rounds []hare.Round
	By     []Identity
}

// Do implements Work.
func (w DrawSeats) Do(Crypto) Input {
	out := SeatsDrawn{Layer: w.Draw.Layer}
	for _, r := range w.Rounds {
		for _, id := range w.By {
			out.Seats = append(out.Seats, hare.Seat{Smesher: id.NodeID(), Round: r, Proof: id.VRF(w.Draw.Input(r))})
		}
	}
	return out
}

// SeatsDrawn is the end of DrawSeats.
type SeatsDrawn struct {
	Layer types.Layer
	Seats []hare.Seat
}

// Seated is the end of CheckSeats, in the order of its proofs.
type Seated struct {
	Seats []uint32
	Errs  []error // nil: the proof is valid
}

func (Seated) input()     {}
func (SeatsDrawn) input() {}

// kept is how many layers have their proposals and their agreement here: those of which
// it may go on, the running one, and the next, as others' clocks may be ahead.
func (m *Machine) kept() types.Layer {
	return types.Layer(m.cfg.Hare.Bound()/m.cfg.Schedule.LayerDuration) + 3
}

// agreement returns that of a layer, and opens it when the layer begins, or for who is
// ahead; nil if we take no part in it.
func (m *Machine) agreement(l types.Layer) *agreement {
	if a := m.agree.of[l]; a != nil {
		return a
	}
	if l <= m.agree.closed || l < m.cfg.Schedule.FirstBallotLayer() || l > m.cfg.Schedule.LayerAt(m.now.Add(m.rules.Skew())) {
		return nil
	}
	epoch := m.cfg.Schedule.EpochOf(l)
	el := m.current(epoch)
	beacon, known := m.Beacon(epoch)
	if el == nil || el.Total() == 0 || !known { // nobody could agree, and the next layers would wait for that
		return nil
	}
	a := &agreement{el: el, draw: hare.Draw{Layer: l, Beacon: beacon, Total: el.Total()}, checks: make(map[types.NodeID]int), seals: make(map[types.NodeID]types.VRFSignature)}
	var own []hare.Member
	height := ^uint64(0)
	for _, s := range m.selves { // also while we are not synced: we may be when it is time to speak
		if atx, ok := el.Of(s.NodeID()); ok {
			own = append(own, hare.Member{Identity: s.Identity, Weight: atx.Weight})
			a.own = append(a.own, s.Identity)
			height = min(height, atx.Height())
		}
	}
	a.session = hare.NewSession(m.cfg.Hare, a.draw, m.cfg.Schedule.LayerStart(l), own, func() []types.ProposalID {
		return hare.Initial(m.candidates(l, beacon), beacon, height)
	})
	if m.agree.of[l], m.agree.wake = a, (time.Time{}); len(a.own) > 0 {
		m.out.Work = append(m.out.Work, DrawSeats{a.draw, []hare.Round{hare.Certify}, a.own})
	}
	return a
}

// candidates are the valid proposals of a layer, which have its beacon.
func (m *Machine) candidates(l types.Layer, beacon types.Beacon) (out []hare.Candidate) {
	for id, p := range m.inLayer(l).valid {
		out = append(out, hare.Candidate{
			ID: id, ATX: p.share.ATX, Beacon: beacon, Base: p.share.BaseHeight, Malicious: m.registry.Convicted(p.smesher),
		})
	}
	return out
}

// agreeOn goes on with the agreements. A layer is decided after those before it: what it
// builds on is known then.
func (m *Machine) agreeOn() {
	m.agreement(m.layer)
	if m.now.Before(m.agree.wake) {
		return
	}
	m.agree.wake = m.cfg.Schedule.LayerStart(m.layer + 1)
	layers := slices.Sorted(maps.Keys(m.agree.of))
	for _, l := range layers {
		a := m.agree.of[l]
		if !a.ended && !m.now.Before(a.wake) {
			m.stepAgreement(l, a)
		}
		if !a.ended && a.wake.Before(m.agree.wake) {
			m.agree.wake = a.wake
		}
	}
	for _, l := range layers {
		a := m.agree.of[l]
		switch {
		case a.decided:
			continue
		case a.result == nil && !a.ended && m.told(l):
			continue
		case a.result == nil && !a.ended:
			return
		case a.result != nil:
			if !m.decide(hare.Result{Layer: l, Proposals: a.result}) {
				return
			}
		default:
			m.event(Silent{l, "its smeshers did not agree on its proposals"})
			m.chain.doubt(l)
		}
		a.decided = true
	}
}

// told tells whether a layer came to something without us: by a certificate.
func (m *Machine) told(l types.Layer) bool { return m.tortoise != nil && !m.tortoise.Opine(l).Abstain }

// stepAgreement does what is due in the session of a layer.
func (m *Machine) stepAgreement(l types.Layer, a *agreement) {
	out := a.session.Step(m.now)
	if out.Result != nil {
		a.result = out.Result
	}
	if out.Coin != nil {
		m.coin(l, *out.Coin)
	}
	a.ended, a.wake = out.Ended, out.Wake
	if len(out.Draw) > 0 {
		m.out.Work = append(m.out.Work, DrawSeats{a.draw, out.Draw, a.own})
	}
	for _, msg := range out.Signed {
		if !slices.ContainsFunc(m.active(l), func(s *self) bool { return s.NodeID() == msg.Smesher }) {
			continue // since the layer began it was shown to run elsewhere, or we are not synced any more
		}
		m.out.Signs = append(m.out.Signs, Sign{By: msg.Smesher, Message: Own(msg), Slots: []Slot{hareSlot(msg)}})
	}
}

// hareSlot is the guard's place of a hare message: its layer and round.
func hareSlot(m *hare.Message) Slot {
	return Slot{signing.Hare, HarePlace(m.Layer, m.Round), types.Sum(hare.SignedBytes(m.Layer, m.Round, m.Says()))}
}

// HarePlace is the guard's place of a round of a layer.
func HarePlace(l types.Layer, r hare.Round) uint64 { return uint64(l)<<8 | uint64(r) }

// forgetAgreements drops those that are over.
func (m *Machine) forgetAgreements() {
	for _, l := range slices.Sorted(maps.Keys(m.agree.of)) {
		a := m.agree.of[l]
		if l+m.kept() <= m.layer+1 {
			if a.result != nil && !a.decided {
				m.event(Silent{l, "what the layers before it came to is not all here"})
			}
			delete(m.agree.of, l)
			m.agree.wake = time.Time{} // it may have held up the next
			m.agree.closed = max(m.agree.closed, l)
		}
	}
}

var errNoAgreement = early("hare message is of a layer that is not open here")

// judgeHare counts a hare message, when the proof of its seats was checked.
func (m *Machine) judgeHare(p *parked, msg *hareMessage) judgement {
	a := m.agreement(msg.m.Layer)
	if a == nil {
		return ignored(errNoAgreement)
	}
	atx, ok := a.el.Of(msg.m.Smesher)
	if !ok {
		return ignored(early("hare message is from somebody without weight here"))
	}
	if !p.proved {
		if a.session.Knows(msg.m) {
			return ignored(early(hare.ErrHeard.Error()))
		}
		proof := SeatProof{msg.m, m.cfg.Hare, a.draw, atx.Weight}
		if p.from == Self { // its proof is as we made it
			p.seats, _ = msg.m.Seats(proof.Params, proof.Draw, proof.Weight, func(types.NodeID, []byte, types.VRFSignature) bool { return true })
		} else if m.seating() >= MaxProving || !m.atWork.add(p, a.checks[atx.Smesher]) {
			return ignored(errBusy)
		} else {
			a.checks[atx.Smesher]++ // the proof is not signed: there may be many of one message
			m.agree.waiting = append(m.agree.waiting, seatCheck{p, proof})
			m.checkSeats()
			return judgement{later: true}
		}
	}
	twice, err := a.session.Hear(m.now, msg.m, p.seats)
	if err != nil {
		return ignored(early(err.Error()))
	}
	if twice != nil {
		m.convict(malfeasance.FromHare(*twice))
	}
	return accepted()
}

// drawn takes the seats of ours.
func (m *Machine) drawn(in SeatsDrawn) {
	if a := m.agree.of[in.Layer]; a != nil {
		for _, seat := range in.Seats {
			if seat.Round == hare.Certify {
				a.seals[seat.Smesher] = seat.Proof
			} else {
				a.session.Seat(seat)
			}
		}
	}
}

// seating is how many hare messages have their seats checked.
func (m *Machine) seating() int { return len(m.agree.waiting) + len(m.agree.running) }

// checkSeats begins with those that wait, unless a check is under way.
func (m *Machine) checkSeats() {
	q := &m.agree
	if len(q.running) > 0 || len(q.waiting) == 0 {
		return
	}
	n := min(len(q.waiting), maxSeatChecks)
	q.running, q.waiting = q.waiting[:n:n], q.waiting[n:]
	work := CheckSeats{make([]SeatProof, n)}
	for i, c := range q.running {
		work.Proofs[i] = c.SeatProof
	}
	m.out.Work = append(m.out.Work, work)
}

// seated goes on with the hare messages of a check.
func (m *Machine) seated(in Seated) {
	checked := m.agree.running
	m.agree.running = nil
	for i, c := range checked {
		m.atWork.done([]*parked{c.parked})
		if a := m.agree.of[c.Message.Layer]; a != nil {
			if a.checks[c.Message.Smesher]--; a.checks[c.Message.Smesher] == 0 {
				delete(a.checks, c.Message.Smesher)
			}
		}
		if in.Errs[i] != nil { // with another electorate or beacon it may be right: nobody is to blame
			m.verdict(c.parked, ignored(early(in.Errs[i].Error())))
			continue
		}
		c.proved, c.seats = true, in.Seats[i]
		m.take(c.parked)
	}
	m.checkSeats()
}

type hareMessage struct {
	m   *hare.Message
	raw []byte
}

func (m *hareMessage) size() int { return len(m.raw) }

func checkHare(c Crypto, raw []byte) (Message, error) {
	var h hare.Message
	if codec.Decode(raw, &h) != nil {
		return nil, refuse(ErrMalformed)
	}
	// The network's own limit of iterations is looked at with the agreement.
	if err := h.Validate(hare.Params{Iterations: hare.MaxIterations}, c); err != nil {
		return nil, refuse(err)
	}
	return &hareMessage{&h, raw}, nil
}
