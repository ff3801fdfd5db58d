package core

import (
	"slices"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/eligibility"
	"tweedle/values/types"
)

// MaxProving is how many ballots may have the proofs of their slots checked at once.
const MaxProving = 1024

// slots are ours of the running epoch and the next, and the ballots of others whose
// proofs are being checked. None of it is computed in Step: a ballot may have 500 proofs,
// an epoch 2^20 slots, each 0.1 ms.
type slots struct {
	ours    map[types.Epoch]ours
	next    time.Time   // when those of the next epoch are to be computed; zero if they were
	of      types.Epoch // which next is about
	proving map[types.BallotID][]*parked
}

// ours are our slots of an epoch; layers is nil while they are computed.
type ours struct {
	of     Assign
	layers map[types.Layer][]types.Eligibility
}

func newSlots() slots {
	return slots{ours: make(map[types.Epoch]ours), proving: make(map[types.BallotID][]*parked)}
}

// forget drops the slots of epochs that are over.
func (s *slots) forget(now types.Epoch) {
	for e := range s.ours {
		if e < now {
			delete(s.ours, e)
		}
	}
}

// slotsIn returns our slots in a layer, none while they are computed.
func (m *Machine) slotsIn(l types.Layer, data types.EpochData, nonce uint64) []types.Eligibility {
	epoch := m.cfg.Schedule.EpochOf(l)
	of := Assign{m.cfg.Eligibility, m.cfg.Identity, epoch, data.Beacon, nonce, data.Eligibilities}
	known, ok := m.slots.ours[epoch]
	if !ok || known.of != of {
		m.slots.ours[epoch] = ours{of: of}
		m.out.Work = append(m.out.Work, of)
		return nil
	}
	return known.layers[l]
}

// Slots returns the layers of our slots of an epoch, ascending, one with several several times;
// none while they are computed. It only reads.
func (m *Machine) Slots(e types.Epoch) (out []types.Layer) {
	for l, some := range m.slots.ours[e].layers {
		for range some {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out
}

// prepare has our slots of the next epoch computed when the clock has fixed its
// electorate. If the history decides for another, they are computed again.
func (m *Machine) prepare() {
	epoch := m.epoch() + 1
	if m.slots.of != epoch && m.cfg.Identity != nil {
		m.slots.of, m.slots.next = epoch, m.cfg.Schedule.EpochStart(epoch).Add(-activation.Cut(m.cfg.Schedule))
	}
	if m.slots.next.IsZero() || m.now.Before(m.slots.next) {
		return
	}
	m.slots.next = time.Time{}
	if !m.takesPart(m.cfg.Schedule.First(epoch)) {
		return
	}
	el := m.registry.Own(epoch, m.now)
	if el == nil {
		return
	}
	atx, ok := el.Of(m.cfg.Identity.NodeID())
	if !ok {
		return
	}
	if data, known := m.declare(el, atx); known {
		m.slotsIn(m.cfg.Schedule.First(epoch), data, atx.VRFNonce)
	}
}

// assigned takes our slots of an epoch, and proposes if the running layer has one.
func (m *Machine) assigned(in Assigned) {
	known, ok := m.slots.ours[in.Epoch]
	if !ok || known.of != in.Assign || known.layers != nil {
		return
	}
	m.slots.ours[in.Epoch] = ours{in.Assign, in.Slots}
	m.event(Eligible{in.Epoch, len(m.Slots(in.Epoch))})
	if m.takesPart(m.layer) && m.now.Before(m.cfg.Schedule.LayerStart(m.layer).Add(m.cfg.ProposalWindow)) {
		m.propose(m.layer)
	}
}

// checkSlots has the proofs of a ballot checked: it is judged again then. Our own are
// as we computed them.
func (m *Machine) checkSlots(p *parked, id types.BallotID, c eligibility.Claim) judgement {
	if p.from == Self {
		p.proved = true
		return m.judge(p)
	}
	waiting, begun := m.slots.proving[id]
	if !begun && len(m.slots.proving) >= MaxProving {
		return ignored(errBusy)
	}
	m.slots.proving[id] = append(waiting, p)
	if !begun {
		m.out.Work = append(m.out.Work, CheckSlots{id, m.cfg.Eligibility, c})
	}
	return judgement{later: true}
}

// slotsChecked goes on with the messages that have a ballot.
func (m *Machine) slotsChecked(in SlotsChecked) {
	waiting := m.slots.proving[in.Ballot]
	delete(m.slots.proving, in.Ballot)
	for _, p := range waiting {
		if in.Err != nil {
			m.verdict(p, rejected(in.Err))
			continue
		}
		p.proved = true
		m.take(p)
	}
}
