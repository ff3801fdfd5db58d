package hare

import (
	"errors"
	"slices"

	"tweedle/protocol/eligibility"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Limits of messages.
const (
	// MaxIterations keeps every round within a byte.
	MaxIterations = 36
	// MaxProposals is how many proposals a set may have: the published protocol
	// expects no more in a layer (reference/protocol.md E).
	MaxProposals = 2350
	// MaxMessageSize is the longest encoding of a message, in bytes.
	MaxMessageSize = 5 + 1 + 32 + 2 + 20*MaxProposals + 80 + 64
)

// Round is a step of the protocol in a layer: the preround, then iterations of seven
// rounds each.
type Round uint8

// The rounds of the first iteration. In Hardlock, Softlock, Wait1 and Wait2 nobody
// speaks; the first iteration has no Hardlock, as there is nothing to lock.
const (
	Preround Round = iota
	Hardlock
	Softlock
	Propose
	Wait1
	Wait2
	Commit
	Notify
)

// roundsOf an iteration.
const roundsOf = Round(Notify)

// Kind returns which of the rounds above a round is.
func (r Round) Kind() Round {
	if r == Preround {
		return r
	}
	return (r-1)%roundsOf + 1
}

// Iteration counts from 0; the preround belongs to the first.
func (r Round) Iteration() int { return max(int(r)-1, 0) / int(roundsOf) }

// In returns the round of a kind in an iteration.
func (r Round) In(iteration int) Round { return roundsOf*Round(iteration) + r }

// slot returns which of the equal parts of time after the start of the protocol the
// round has. The first iteration's Hardlock has none.
func (r Round) slot() int { return max(int(r)-1, 0) }

// roundAt is the inverse of slot.
func roundAt(slot int) Round {
	if slot == 0 {
		return Preround
	}
	return Round(slot + 1)
}

// lists tells whether messages of the round list their set, and names whether they
// name it by its hash.
func (r Round) lists() bool { return r.Kind() == Preround || r.Kind() == Propose }
func (r Round) names() bool { return r.Kind() == Commit || r.Kind() == Notify }

func (r Round) String() string {
	return [...]string{"preround", "hardlock", "softlock", "propose", "wait1", "wait2", "commit", "notify"}[r.Kind()]
}

// Message is what a smesher with seats says in a round.
type Message struct {
	Layer     types.Layer
	Round     Round
	Smesher   types.NodeID
	Set       []types.ProposalID // ascending; of Preround and Propose
	Ref       types.Hash32       // of a set (SetRef); of Commit and Notify
	Proof     types.VRFSignature // of its seats
	Signature types.Signature    // over SignedBytes
}

// SetRef is the name of a set of proposals, which is ascending.
func SetRef(set []types.ProposalID) types.Hash32 {
	b := make([]byte, 0, len(set)*len(types.ProposalID{}))
	for i := range set {
		b = append(b, set[i][:]...)
	}
	return types.Sum(b)
}

// Says returns the name of the set that the message is for.
func (m *Message) Says() types.Hash32 {
	if m.Round.lists() {
		return SetRef(m.Set)
	}
	return m.Ref
}

// SignedBytes returns what a smesher signs that is for a set in a round: short, so
// that two of them are a short proof of malfeasance. The proof of the seats is not
// signed: there is one random value for a round, however it is proved.
func SignedBytes(layer types.Layer, round Round, says types.Hash32) []byte {
	e := codec.NewEncoder(40)
	e.Compact(uint64(layer))
	e.U8(uint8(round))
	e.Raw(says[:])
	return e.Bytes()
}

// EncodeTo appends the canonical encoding.
func (m *Message) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(m.Layer))
	e.U8(uint8(m.Round))
	e.Raw(m.Smesher[:])
	if m.Round.lists() {
		e.Compact(uint64(len(m.Set)))
		for i := range m.Set {
			e.Raw(m.Set[i][:])
		}
	} else {
		e.Raw(m.Ref[:])
	}
	e.Raw(m.Proof[:])
	e.Raw(m.Signature[:])
}

// DecodeFrom reads the canonical encoding.
func (m *Message) DecodeFrom(d *codec.Decoder) {
	m.Layer = types.Layer(d.Compact32())
	m.Round = Round(d.U8())
	d.Raw(m.Smesher[:])
	switch {
	case m.Round.lists():
		n := d.Count(MaxProposals)
		if d.Remaining() < n*len(types.ProposalID{}) {
			d.Fail(codec.ErrShort)
			return
		}
		m.Set = make([]types.ProposalID, n)
		for i := range m.Set {
			d.Raw(m.Set[i][:])
		}
	case m.Round.names():
		d.Raw(m.Ref[:])
	default:
		d.Fail(codec.ErrRange)
		return
	}
	d.Raw(m.Proof[:])
	d.Raw(m.Signature[:])
}

// Verifier checks signatures (package signing).
type Verifier interface {
	Verify(d signing.Domain, id types.NodeID, msg []byte, sig types.Signature) bool
}

// Reasons why a message is not valid.
var (
	ErrRound         = errors.New("hare message is for a round that there is not")
	ErrOrder         = errors.New("hare message: proposals are not in strictly ascending order")
	ErrHareSignature = errors.New("hare message: the smesher did not sign that")
	ErrSeats         = errors.New("hare message: its smesher has no seat in the round")
	ErrProof         = errors.New("hare message: the proof of its seats is not valid")
)

// Validate applies the rules that need nothing but the message and the network's
// constants. Seats has the others.
func (m *Message) Validate(p Params, v Verifier) error {
	switch {
	case m.Round > p.last():
		return ErrRound
	case !ascending(m.Set):
		return ErrOrder
	case !v.Verify(signing.Hare, m.Smesher, SignedBytes(m.Layer, m.Round, m.Says()), m.Signature):
		return ErrHareSignature
	}
	return nil
}

func ascending(set []types.ProposalID) bool {
	for i := 1; i < len(set); i++ {
		if compareIDs(set[i-1], set[i]) >= 0 {
			return false
		}
	}
	return true
}

func compareIDs(a, b types.ProposalID) int { return slices.Compare(a[:], b[:]) }

// Draw is by what the committees of a layer are drawn.
type Draw struct {
	Layer  types.Layer
	Beacon types.Beacon
	Total  uint64 // weight of all
}

// Input is what the random value of a smesher is made over, that gives it seats in a round.
func (d Draw) Input(r Round) []byte {
	number := uint32(r)
	if r == Certify {
		number = certifyNumber
	}
	return eligibility.CommitteeMessage(d.Beacon, d.Layer, number)
}

// committee returns how many seats a round has on average.
func (p Params) committee(r Round) uint32 {
	if r.Kind() == Propose {
		return p.Leaders
	}
	return p.Committee
}

// Seats checks the proof of a message by a smesher of some weight, as verify says
// (signing.VerifyVRF), and returns how many seats it is for. What is cheap comes first.
func (m *Message) Seats(p Params, d Draw, weight uint64, verify func(types.NodeID, []byte, types.VRFSignature) bool) (uint32, error) {
	seats := eligibility.Seats(p.committee(m.Round), weight, d.Total, m.Proof)
	switch {
	case seats == 0:
		return 0, ErrSeats
	case !verify(m.Smesher, d.Input(m.Round), m.Proof):
		return 0, ErrProof
	}
	return seats, nil
}

// Candidate is a valid proposal of a layer, as the choice of a set needs it.
type Candidate struct {
	ID     types.ProposalID
	ATX    types.ATXID
	Beacon types.Beacon
	// Base is where the smesher's ATX began to work, in ticks.
	Base      uint64
	Malicious bool
}

// Initial returns the set that a smesher begins a layer with, ascending: proposals that
// have its beacon, are the only one of their ATX, come from nobody proved malicious, and
// whose ATX did not begin later than the smesher's own lowest ATX has ended (height, in
// ticks): it could not tell what came before.
func Initial(all []Candidate, beacon types.Beacon, height uint64) []types.ProposalID {
	of := make(map[types.ATXID]int)
	for _, c := range all {
		of[c.ATX]++
	}
	set := []types.ProposalID{}
	for _, c := range all {
		if c.Beacon == beacon && !c.Malicious && of[c.ATX] == 1 && c.Base < height {
			set = append(set, c.ID)
		}
	}
	slices.SortFunc(set, compareIDs)
	return set[:min(len(set), MaxProposals)]
}
