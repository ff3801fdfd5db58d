package sim

import (
	"encoding/binary"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"tweedle/protocol/core"
	"tweedle/protocol/eligibility"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// inStep tells whether a core is in Step.
func inStep() bool { return strings.Contains(string(debug.Stack()), "core.(*Machine).Step(") }

// watched counts the random functions that are computed or verified in Step, and those that are not.
type watched struct{ in, out int }

func (s *watched) see() {
	if inStep() {
		s.in++
	} else {
		s.out++
	}
}

type watchedCrypto struct {
	core.Crypto
	seen *watched
}

func (c watchedCrypto) VerifyVRF(id types.NodeID, msg []byte, sig types.VRFSignature) bool {
	c.seen.see()
	return c.Crypto.VerifyVRF(id, msg, sig)
}

type watchedKey struct {
	core.Identity
	seen, seats *watched
}

func (k watchedKey) VRF(msg []byte) types.VRFSignature {
	switch msg[0] {
	case 2 << 2: // one that draws Hare's committees
		k.seats.see()
	case 3 << 2: // a slot; the few of the beacon are computed in Step
		k.seen.see()
	}
	return k.Identity.VRF(msg)
}

// A smesher can have a million slots in an epoch, and a ballot five hundred: at 0.1 ms each
// they must not hold up what a core does, and what it proposes must not wait for them.
func TestNoSlotIsComputedOrVerifiedInAStep(t *testing.T) {
	w := lab(t, 5)
	var verified, computed, drawn watched
	for _, n := range w.nodes {
		n.crypto, n.key = watchedCrypto{n.crypto, &verified}, watchedKey{n.key, &computed, &drawn}
	}
	from := w.cfg.Schedule.First(4)
	w.run(from, -time.Millisecond)
	before := computed.out
	w.run(from, 3*time.Second)
	if verified.in > 0 || computed.in > 0 || drawn.in > 0 {
		t.Errorf("in Step %d slots and %d seats were computed and %d verified", computed.in, drawn.in, verified.in)
	}
	if drawn.out == 0 {
		t.Error("nobody has a seat")
	}
	if verified.out == 0 || before == 0 || computed.out > before {
		t.Errorf("%d were verified, %d computed before the epoch, %d later", verified.out, before, computed.out-before)
	}
}

// Who has weight can sign any number of ballots whose proofs are wrong. One of them is
// verified; the second convicts it, and those of others have their turn.
func TestOneBallotOfASmesherIsVerifiedInALayer(t *testing.T) {
	w := lab(t, 5)
	var cheat, n *node
	var ref *types.Ballot
	l := w.cfg.Schedule.First(3) + 2
	for ; ref == nil; l++ {
		w.run(l, 2*time.Second)
		n = w.nodes[0]
		busy := make(map[types.NodeID]bool)
		for _, b := range n.store.ballots {
			busy[b.Smesher] = busy[b.Smesher] || b.Layer == l
		}
		for _, s := range w.nodes[1:] {
			for _, b := range n.store.ballots {
				if !busy[s.key.NodeID()] && b.Smesher == s.key.NodeID() && b.EpochData != nil && w.cfg.Schedule.EpochOf(b.Layer) == w.cfg.Schedule.EpochOf(l) {
					cheat, ref = s, b
				}
			}
		}
		if ref != nil {
			break
		}
	}
	variant := func(i int) []byte {
		var proof types.VRFSignature
		place := uint64(l) % uint64(w.cfg.Schedule.LayersPerEpoch)
		binary.LittleEndian.PutUint64(proof[:], place+uint64(w.cfg.Schedule.LayersPerEpoch)*uint64(i))
		p := &types.Proposal{Ballot: types.Ballot{
			Layer: l, ATX: ref.ATX, Smesher: ref.Smesher, Reference: ref.ID(), Eligibilities: []types.Eligibility{{Proof: proof}},
		}}
		signProposal(cheat.key, p)
		return codec.Encode(p)
	}
	first := n.hearRaw(t, "n04", core.TopicProposal, variant(0))
	if len(first.Work) != 1 || len(first.Verdicts) != 0 {
		t.Fatalf("the first: %d checks, %+v", len(first.Work), first.Verdicts)
	}
	for i := range core.MaxProving {
		out := n.hearRaw(t, "n04", core.TopicProposal, variant(1+i))
		if len(out.Work) != 0 || len(out.Verdicts) != 1 || out.Verdicts[0].Class != core.Ignore {
			t.Fatalf("one more: %d checks, %+v", len(out.Work), out.Verdicts)
		}
		if caught := len(out.Writes) == 1; caught != (i == 0) {
			t.Fatalf("after %d ballots it wrote %v", 2+i, out.Writes)
		}
	}
	end := n.give(t, first.Work[0].Do(n.crypto))
	if len(end.Verdicts) != 1 || end.Verdicts[0].Class != core.Reject || end.Verdicts[0].Err != eligibility.ErrProof {
		t.Errorf("a wrong proof ends with %+v", end.Verdicts)
	}
}
