package core

import (
	"tweedle/protocol/hare"
	"tweedle/protocol/mesh"
	"tweedle/protocol/syncer"
)

// Held is how much of something a machine holds, and the most that it may.
type Held struct {
	What     string
	Now, Max int
}

// Held returns all that grows by what others send, in counts and in bytes, each with
// its limit. It only reads, and takes as long as there are peers.
func (m *Machine) Held() []Held {
	q, most, names := &m.intake, account{}, 0
	for _, a := range q.peers {
		most.count, most.bytes = max(most.count, a.count), max(most.bytes, a.bytes)
	}
	for _, waiting := range q.by {
		names += len(waiting)
	}
	wants, asks := m.sync.Most()
	drafts, links := m.history.Len()
	seats, mostSeats := 0, 0
	for _, a := range m.agree.of {
		held, limit := a.session.Held()
		seats, mostSeats = seats+held, mostSeats+limit
	}
	pool := m.cfg.Pool
	var layers, ballots, blocks, opinions int
	if m.tortoise != nil {
		layers, ballots, blocks, opinions = m.tortoise.Len()
	}
	limit := m.cfg.Tortoise
	votes, mostVotes, voices, mostVoices := m.beacons.held()
	return []Held{
		{"parked messages", q.all.count, MaxParked},
		{"bytes of parked messages", q.all.bytes, MaxParkedBytes},
		{"parked messages of one peer", most.count, MaxParkedPerPeer},
		{"bytes of parked messages of one peer", most.bytes, MaxParkedBytesPerPeer},
		{"places in the order of parked messages", len(q.order), 2*MaxParked + 64},
		{"names that parked messages wait for", names, MaxParkedBytes / nameSize},
		{"messages of ATXs and ballots that are checked", m.atWork.count, MaxAtWork},
		{"bytes of ATXs and ballots that are checked", m.atWork.bytes, MaxAtWorkBytes},
		{"ATXs that are checked", len(m.verifying), MaxVerifying},
		{"ballots that are checked", len(m.slots.proving), MaxProving},
		{"objects that are wanted", m.sync.Wants(), syncer.MaxWants},
		{"objects that one peer named", wants, syncer.MaxWantsPerPeer},
		{"open asks for objects to one peer", asks, syncer.MaxAsksPerPeer},
		{"ATXs that others refer to", m.wanted.Len(), maxWanted},
		{"ATXs that were refused", m.refused.Len(), maxRefused},
		{"proofs against smeshers without an ATX", m.accused.Len(), maxAccused},
		{"PoET proofs that no ATX refers to", len(m.poets.proofs), MaxUnreferredPoets},
		{"bytes of PoET proofs that no ATX refers to", m.poets.bytes, MaxUnreferredPoetBytes},
		{"PoET proofs of ATXs that are not judged", len(m.asked.proofs), MaxAskedPoets},
		{"bytes of PoET proofs of ATXs that are not judged", m.asked.bytes, MaxAskedPoetBytes},
		{"active sets that nothing was decided by", m.sets.Len(), MaxSets},
		{"electorates", len(m.electorates), maxElectorates},
		{"ballots that were fetched", m.ballots.Len(), maxFetchedBallots},
		{"ballots that are remembered as stored", m.stocked.Len(), maxStocked},
		{"layers with proposals", len(m.proposals), int(m.kept())},
		{"layers that are agreed on", len(m.agree.of), int(m.kept())},
		{"seats of hare messages", seats, mostSeats},
		{"hare messages that are checked", m.seating(), MaxProving},
		{"layers that are voted about", layers, int(limit.MaxLayers) + 2},
		{"ballots that vote", ballots, layers * limit.MaxBallots},
		{"blocks that are voted about", blocks, layers * (limit.MaxBlocks + 2)},
		{"opinions", opinions, limit.MaxOpinions},
		{"answers about the history in work", len(m.batches), MaxParked},
		{"lists of ATXs in work", len(m.lists), maxLists},
		{"different votes for a beacon", votes, mostVotes},
		{"smeshers heard about a beacon", voices, mostVoices},
		{"beacons at hand", len(m.beacons.known), maxBeacons},
		{"layers with signatures", m.certify.Len(), hare.MaxOpenLayers},
		{"final layers that the history does not follow yet", len(m.chain.final), int(limit.MaxLayers)},
		{"executed decisions", drafts, mesh.MaxDrafts},
		{"states", links, mesh.MaxHistory},
		{"waiting transactions", m.pool.Len(), pool.Transactions},
		{"bytes of waiting transactions", m.pool.Bytes(), pool.Bytes},
		{"bytes of transactions that only proposals named", m.extras.bytes, MaxExtraBytes},
	}
}
