package core

import (
	"time"

	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// Snapshot is what readers see of a machine: a value that does not change.
type Snapshot struct {
	Layer       types.Layer    // by the clock
	Tip         types.Decision // newest applied
	State       vm.State       // after it
	Verified    types.Layer    // all up to it are final by the weight of votes; zero while we do not vote
	Opinion     types.Hash32   // our votes about all layers that are over; zero while we do not vote
	Synced      bool
	Reason      string // why, or why not
	Dispute     Dispute
	Beacon      types.Beacon // of the running epoch
	BeaconKnown bool
	Clock       time.Duration // how far the clocks of most peers are ahead of ours; 0: not far
	Waiting     int           // transactions in the pool
	Parked      int           // messages that wait for what they refer to
	ParkedBytes int
	Wanted      int // objects that are asked for
}

// Snapshot returns what readers may see after the last Step.
func (m *Machine) Snapshot() *Snapshot { return m.snapshot }

func (m *Machine) publish() {
	tip := m.history.Tip()
	value, known := m.Beacon(m.cfg.Schedule.EpochOf(m.layer))
	s := Snapshot{
		Layer: m.layer, Tip: tip.Decision, State: tip.State, Synced: m.synced, Reason: m.reason,
		Dispute: m.dispute, Beacon: value, BeaconKnown: known, Clock: m.clock, Waiting: m.pool.Len(), Parked: m.intake.all.count, ParkedBytes: m.intake.all.bytes, Wanted: m.sync.Wants(),
	}
	if m.tortoise != nil {
		s.Verified, s.Opinion = min(m.tortoise.Verified(), m.chain.from-1), m.tortoise.Opinion()
	}
	if m.snapshot == nil || *m.snapshot != s {
		next := s
		m.snapshot = &next
	}
}

// Projected returns the nonce and the balance, in smidges, that an account would
// have if all its waiting transactions were executed. It only reads.
func (m *Machine) Projected(a types.Address) (nextNonce, balance uint64) { return m.pool.Projected(a) }
