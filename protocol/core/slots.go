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

// self is one of our identities.
type self struct {
	Identity
	slots    map[types.Epoch]ours // of the running epoch and the next
	proposed types.Layer          // the last for which it has
}

// slots tells when ours are to be computed, and has the ballots of others whose proofs are being
// checked. None of it is computed in Step: a ballot may have 500 proofs, an epoch 2^20
// slots, each 0.1 ms.
type slots struct {
	next    time.Time   // when those of the next epoch are to be computed; zero if they were
	of      types.Epoch // which next is about
	proving map[types.BallotID][]*parked
}

// ours are the slots of one of us in an epoch; layers is nil while they are computed.
type ours struct {
	of     Assign
	layers map[types.Layer][]types.Eligibility
}

// forget drops the slots of epochs that are over.
func (s *self) forget(now types.Epoch) {
	for e := range s.slots {
		if e < now {
			delete(s.slots, e)
		}
	}
}

// slotsIn returns the slots of one of us in a layer, none while they are computed.
func (m *Machine) slotsIn(s *self, l types.Layer, data types.EpochData, nonce uint64) []types.Eligibility {
	epoch := m.cfg.Schedule.EpochOf(l)
	of := Assign{m.cfg.Eligibility, s.Identity, epoch, data.Beacon, nonce, data.Eligibilities}
	known, ok := s.slots[epoch]
	if !ok || known.of != of {
		s.slots[epoch] = ours{of: of}
		m.out.Work = append(m.out.Work, of)
		return nil
	}
	return known.layers[l]
}

// Slots returns the layers of the slots that an identity of ours has in an epoch, ascending, one
// with several several times; none while they are computed. It only reads.
func (m *Machine) Slots(id types.NodeID, e types.Epoch) (out []types.Layer) {
	if s := m.own(id); s != nil {
		for l, some := range s.slots[e].layers {
			for range some {
				out = append(out, l)
			}
		}
	}
	slices.Sort(out)
	return out
}

// prepare has our slots of the next epoch computed when the clock has fixed its
// electorate. If the history decides for another, they are computed again.
func (m *Machine) prepare() {
	epoch := m.epoch() + 1
	if m.slots.of != epoch && len(m.selves) > 0 {
		m.slots.of, m.slots.next = epoch, m.cfg.Schedule.EpochStart(epoch).Add(-activation.Cut(m.cfg.Schedule))
	}
	if m.slots.next.IsZero() || m.now.Before(m.slots.next) {
		return
	}
	m.slots.next = time.Time{}
	first := m.cfg.Schedule.First(epoch)
	for _, s := range m.active(first) {
		el := m.registry.Own(epoch, m.now)
		if el == nil {
			return
		}
		if atx, ok := el.Of(s.NodeID()); ok {
			if data, known := m.declare(el, atx); known {
				m.slotsIn(s, first, data, atx.VRFNonce)
			}
		}
	}
}

// assigned takes the slots of one of us in an epoch, and proposes if the running layer has one.
func (m *Machine) assigned(in Assigned) {
	i := slices.IndexFunc(m.selves, func(s *self) bool { k, ok := s.slots[in.Epoch]; return ok && k.of == in.Assign && k.layers == nil })
	if i < 0 {
		return
	}
	s := m.selves[i]
	s.slots[in.Epoch] = ours{in.Assign, in.Slots}
	m.event(Eligible{s.NodeID(), in.Epoch, len(m.Slots(s.NodeID(), in.Epoch))})
	if slices.Contains(m.active(m.layer), s) && m.now.Before(m.cfg.Schedule.LayerStart(m.layer).Add(m.cfg.Hare.Delay)) {
		m.propose(s, m.layer)
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
	if !begun && len(m.slots.proving) >= MaxProving || !m.atWork.add(p, len(waiting)) {
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
	m.atWork.done(waiting)
	for _, p := range waiting {
		if in.Err != nil {
			m.verdict(p, rejected(in.Err))
			continue
		}
		p.proved = true
		m.take(p)
	}
}
