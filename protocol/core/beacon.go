package core

import (
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/beacon"
	"tweedle/protocol/mesh"
	"tweedle/values/types"
)

// beacons finds the beacon of the next epoch, and learns that of the running one if it
// was not found here. Who restarted, or was not synced when the epoch began, hears the rest of the
// protocol and takes part in that again; nothing of it is stored but what was found.
type beacons struct {
	known    map[types.Epoch]*types.Beacon // as stored; nil if it is not
	run      *beacon.Machine               // nil: not here
	by       *activation.Electorate        // of run
	target   types.Epoch                   // of run
	start    time.Time                     // of run
	learn    *beacon.Ballots               // nil: nothing was declared yet
	of       types.Epoch                   // of learn
	smeshers int                           // that learn may hear
}

// maxBeacons is how many are kept ready.
const maxBeacons = 32

// Beacon implements mesh.BallotView. That of the first epoch with ballots nobody could find:
// there was no ATX before.
func (m *Machine) Beacon(e types.Epoch) (types.Beacon, bool) {
	if e <= m.cfg.Schedule.EpochOf(m.cfg.Schedule.FirstBallotLayer()) {
		return beacon.Fallback(m.cfg.Activation.Golden, e), true
	}
	v, looked := m.beacons.known[e]
	if !looked {
		v = get(&m.read, func() (*types.Beacon, error) { return m.read.r.Beacon(e) })
		if len(m.beacons.known) >= maxBeacons {
			clear(m.beacons.known)
		}
		m.beacons.known[e] = v
	}
	if v == nil {
		return types.Beacon{}, false
	}
	return *v, true
}

// fix stores the beacon of an epoch: from then on this node has no other.
func (m *Machine) fix(e types.Epoch, v types.Beacon) {
	if _, known := m.Beacon(e); known || m.read.err != nil {
		return
	}
	m.beacons.known[e] = &v
	m.write(WriteBeacon{e, v})
	m.event(BeaconKnown{e, v})
	m.slots.of = 0 // our slots can be computed now
}

// beginBeacon starts the protocol for the next epoch when one begins, or in a later layer if this node
// was not there or not synced then: the electorate by whose weight it is found is known when it is.
func (m *Machine) beginBeacon() {
	b, e := &m.beacons, m.cfg.Schedule.EpochOf(m.layer)
	if b.run != nil && b.target <= e {
		b.run = nil
	}
	if b.of != e {
		b.learn = nil
	}
	if _, known := m.Beacon(e + 1); known || !m.synced {
		return
	}
	el := m.registry.Own(e, m.now)
	if el == nil || b.run != nil && b.by == el {
		return
	}
	b.by = el // after a restart it may have been that of the few whose ATXs were here
	b.target, b.start = e+1, m.cfg.Schedule.EpochStart(e)
	timely := b.start.Add(-2 * activation.Cut(m.cfg.Schedule))
	members := make([]beacon.Member, 0, len(el.Members))
	for _, a := range el.Members {
		members = append(members, beacon.Member{
			Smesher: a.Smesher, Weight: a.Weight, Units: a.Effective, Nonce: a.VRFNonce, Early: a.Received.Before(timely),
		})
	}
	var ids []beacon.Identity
	for _, s := range m.selves {
		ids = append(ids, s)
	}
	joined := time.Duration(0)
	if m.layer != m.cfg.Schedule.First(e) {
		joined = m.now.Sub(b.start)
	}
	b.run = beacon.New(m.cfg.Beacon, b.target, members, ids, joined)
	for _, a := range el.Members {
		if m.registry.Convicted(a.Smesher) {
			b.run.Convict(a.Smesher)
		}
	}
}

// stepBeacon says what is due, and fixes the beacon at the end. One that nobody proposed
// is the fall-back. In a phase each of ours computes one random value, 0.1 ms, in the Step.
func (m *Machine) stepBeacon() {
	b := &m.beacons
	if b.run == nil || b.run.Done() {
		return
	}
	for _, msg := range b.run.Step(m.now.Sub(b.start)) {
		s := Sign{By: msg.Smesher, Message: Own(msg)}
		if msg.Kind != beacon.Propose {
			s.Slots = []Slot{beaconSlot(msg)}
		}
		m.out.Signs = append(m.out.Signs, s)
	}
	if !b.run.Done() {
		return
	}
	switch yes, found := b.run.Result(); {
	case !found || b.by != m.registry.Own(b.target-1, m.now): // two thirds of a few are nothing
		m.event(BeaconFailed{b.target})
	case len(yes) == 0:
		m.fix(b.target, beacon.Fallback(m.cfg.Activation.Golden, b.target))
	default:
		m.fix(b.target, beacon.Of(yes))
	}
}

// BeaconPlace is the first place of the guard for the beacon of an epoch: each round has one for a vote
// and one for a coin.
func BeaconPlace(target types.Epoch) uint64 {
	return uint64(target) * 2 * (beacon.MaxRounds + 1)
}

func beaconSlot(m *beacon.Message) Slot {
	place := BeaconPlace(m.Target) + 2*uint64(m.Round) + uint64(m.Kind-beacon.Vote)
	return Slot{m.Domain(), place, types.Sum(m.SignedBytes())}
}

// beaconDue is when the protocol has something to do, zero if it has not.
func (m *Machine) beaconDue() time.Time {
	if b := &m.beacons; b.run != nil {
		if at, more := b.run.Next(); more {
			return b.start.Add(at)
		}
	}
	return time.Time{}
}

type beaconMessage struct {
	msg *beacon.Message
	raw []byte
}

func (m *beaconMessage) size() int { return len(m.raw) }

var errNoBeacon = early("this node does not take part in the beacon of that epoch")

// judgeBeacon lets a message count. Nothing that does not is anybody's proven fault: who takes
// part, and with which nonce, is not known alike everywhere.
func (m *Machine) judgeBeacon(msg *beaconMessage) judgement {
	b := &m.beacons
	if b.run == nil || b.run.Done() {
		return ignored(errNoBeacon)
	}
	if err := b.run.Hear(m.now.Sub(b.start), msg.msg); err != nil {
		return ignored(err)
	}
	return accepted()
}

// held is how many different votes are held, and of how many smeshers what their ballots declare, each with
// its limit.
func (b *beacons) held() (votes, mostVotes, voices, mostVoices int) {
	if b.run != nil {
		votes, mostVotes = b.run.Held()
	}
	if b.learn != nil {
		voices, mostVoices = b.learn.Len(), b.smeshers
	}
	return votes, mostVotes, voices, mostVoices
}

// heed learns the running epoch's beacon from a ballot that is valid but for it. It returns why the
// ballot does not count, nil if it does.
func (m *Machine) heed(b *types.Ballot, declared types.Beacon) error {
	e := m.cfg.Schedule.EpochOf(b.Layer)
	v, known := m.Beacon(e)
	if !known && e == m.epoch() && m.learnBeacon(e, b.Smesher, declared) {
		m.fix(e, declared)
		v, known = m.Beacon(e)
	}
	switch {
	case !known:
		return mesh.ErrNoBeacon
	case v != declared:
		return mesh.ErrBeacon
	}
	return nil
}

// learnBeacon tells whether what a smesher declares is the beacon of the running epoch.
func (m *Machine) learnBeacon(e types.Epoch, by types.NodeID, declared types.Beacon) bool {
	b, el := &m.beacons, m.registry.Own(e, m.now)
	if el == nil {
		return false
	}
	if b.learn == nil || b.of != e {
		b.learn, b.of, b.smeshers = beacon.NewBallots(el.Total()), e, len(el.Members)
	}
	a, ok := el.Of(by)
	return ok && b.learn.Add(by, declared, a.Weight)
}
