package hare

import (
	"bytes"
	"encoding/binary"
	"slices"

	"tweedle/values/types"
)

// never is a slot that does not come.
const never = 1 << 30

// vote is what is known of one smesher in one round.
type vote struct {
	first  *Message
	says   types.Hash32
	seats  uint32
	ticket types.Hash32
	at     int // slot in which the first came
	again  int // slot in which another came that says something else, or never
}

// votes has those of a round.
type votes struct {
	of    map[types.NodeID]*vote
	seats uint32
}

// ticket draws lots between smeshers: the lowest wins. Each seat has one, so that a
// smesher's chance is that of its seats, in how many identities it may be cut.
func ticket(v types.VRFSignature, seats uint32) (lowest types.Hash32) {
	for i := range seats {
		t := types.Sum(v[:32], binary.LittleEndian.AppendUint32(nil, i))
		if i == 0 || bytes.Compare(t[:], lowest[:]) < 0 {
			lowest = t
		}
	}
	return lowest
}

// A grade says how sure it is that others have seen the same: what one honest smesher
// has at some grade, all have at the next lower one, as long as messages take no longer
// than a slot. Grade 5 is what came in the round itself, and each slot later is one less
// (reference/protocol.md A8).
type grade int

// closes returns the last slot whose messages have a grade.
func (g grade) closes(r Round) int { return r.slot() + 5 - int(g) }

// sorted returns the votes that came until the end of a slot, in the order of their
// tickets, so that no result depends on the order of a map.
func (v *votes) sorted(until int) (out []*vote) {
	for _, x := range v.of {
		if x.at <= until {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *vote) int {
		if c := bytes.Compare(a.ticket[:], b.ticket[:]); c != 0 {
			return c
		}
		return bytes.Compare(a.first.Smesher[:], b.first.Smesher[:])
	})
	return out
}

// agreed returns what a threshold of seats is for among the votes that came until the
// end of a slot, in ascending order. Who said two things counts for everything: others
// may have heard another one of them first. At least one must have said it that did not.
func agreed[K comparable](v *votes, until int, threshold uint32, says func(*vote) []K, compare func(a, b K) int) []K {
	var twice uint32
	support := make(map[K]uint32)
	for _, x := range v.of {
		switch {
		case x.at > until:
		case x.again <= until:
			twice += x.seats
		default:
			for _, k := range says(x) {
				support[k] += x.seats
			}
		}
	}
	out := []K{}
	for k, seats := range support {
		if seats+twice >= threshold {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, compare)
	return out
}

// proposals returns those that a threshold of a preround has, ascending.
func (v *votes) proposals(until int, threshold uint32) []types.ProposalID {
	return agreed(v, until, threshold, func(x *vote) []types.ProposalID { return x.first.Set }, compareIDs)
}

// sets returns the names of those that a threshold is for, ascending.
func (v *votes) sets(until int, threshold uint32) []types.Hash32 {
	return agreed(v, until, threshold, func(x *vote) []types.Hash32 { return []types.Hash32{x.says} },
		func(a, b types.Hash32) int { return bytes.Compare(a[:], b[:]) })
}

// cast is the proposal of a leader.
type cast struct {
	*vote
	sure bool // of grade 2: all honest smeshers have it, and none has another of this leader
}

// casts returns what leaders proposed at grade 1 or 2, who has the lowest ticket first.
// What one honest smesher has at grade 2, all have at grade 1.
func (v *votes) casts(r Round) (out []cast) {
	s := r.slot()
	for _, x := range v.sorted(s + 1) {
		switch {
		case x.at <= s && x.again > s+2:
			out = append(out, cast{x, true})
		case x.again > s+1:
			out = append(out, cast{x, false})
		}
	}
	return out
}
