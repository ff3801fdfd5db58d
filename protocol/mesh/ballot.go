package mesh

import (
	"errors"
	"fmt"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/eligibility"
	"tweedle/values/types"
)

// Rules are the constants of a network that ballots are checked against.
type Rules struct {
	Schedule       types.Schedule
	Eligibility    eligibility.Params
	TxsPerProposal int // for each slot that the proposal uses
}

// Skew is how far another node's clock may be ahead of ours.
func (r Rules) Skew() time.Duration { return r.Schedule.LayerDuration / 4 }

// BallotView answers what is known.
type BallotView interface {
	// ATX returns a valid ATX, nil if it is not known.
	ATX(types.ATXID) (*activation.Info, error)
	// Ballot returns a valid ballot, nil if it is not known.
	Ballot(types.BallotID) *types.Ballot
	// Beacon returns the randomness of an epoch, once it is known.
	Beacon(types.Epoch) (types.Beacon, bool)
	// Electorate returns the electorate of a declared set; an *Unknown error
	// tells what is missing to know it.
	Electorate(types.Epoch, types.Hash32) (*activation.Electorate, error)
	// Plausible tells whether an electorate holds enough of what is known.
	Plausible(*activation.Electorate) bool
}

// Unknown says that a message refers to things that are not known yet.
type Unknown struct {
	ATXs      []types.ATXID
	Ballots   []types.BallotID
	ActiveSet []types.Hash32
}

func (u *Unknown) Error() string {
	return fmt.Sprintf("refers to %d ATXs, %d ballots and %d active sets that are not known", len(u.ATXs), len(u.Ballots), len(u.ActiveSet))
}

// Reasons why nothing is said about a proposal.
var (
	ErrNotNow    error = &types.Early{Reason: "proposal is not of this layer"}
	ErrBeacon    error = &types.Early{Reason: "ballot has another beacon"}
	ErrNoBeacon  error = &types.Early{Reason: "the epoch's beacon is not known here"}
	ErrActiveSet error = &types.Early{Reason: "ballot's active set is less than two thirds of what is known here"}
)

// Reasons why a proposal is wrong whatever one knows.
var (
	ErrBallotATX  = errors.New("ballot's ATX is not its smesher's, or not of its epoch")
	ErrReference  = errors.New("ballot's reference is of another smesher, ATX or epoch")
	ErrNotMember  = errors.New("ballot's active set does not have its own ATX")
	ErrSlots      = errors.New("ballot claims another number of slots than its weight gives")
	ErrTooManyTxs = errors.New("proposal has more transactions than its slots allow")
)

// Valid is a proposal or ballot that keeps the rules if the proofs of its claim are valid.
type Valid struct {
	Share      Share
	Electorate types.Hash32 // that its reference declares
	Claim      eligibility.Claim
}

// ValidateProposal checks a proposal, whose signatures were checked, at a time
// (reference/protocol.md A5, A6), cheap rules first. The error is an *Unknown
// if something is missing, a *types.Early if nobody is to blame, else a refusal. The
// proofs of its slots are left to the caller.
func ValidateProposal(r Rules, v BallotView, now time.Time, p *types.Proposal) (Valid, error) {
	b := &p.Ballot
	if b.Layer != r.Schedule.LayerAt(now) && b.Layer != r.Schedule.LayerAt(now.Add(r.Skew())) {
		return Valid{}, ErrNotNow
	}
	if len(p.Txs) > r.TxsPerProposal*len(b.Eligibilities) {
		return Valid{}, ErrTooManyTxs
	}
	return ValidateBallot(r, v, b)
}

// ValidateBallot checks a ballot of any time, but the proofs of its slots and its votes. While the epoch's
// beacon is not known, what the ballot declares is left to the caller (Claim.Beacon).
func ValidateBallot(r Rules, v BallotView, b *types.Ballot) (Valid, error) {
	atx, err := v.ATX(b.ATX)
	epoch := r.Schedule.EpochOf(b.Layer)
	switch {
	case err != nil:
		return Valid{}, err
	case atx == nil:
		return Valid{}, &Unknown{ATXs: []types.ATXID{b.ATX}}
	case atx.Smesher != b.Smesher || atx.PublishEpoch+1 != epoch:
		return Valid{}, ErrBallotATX
	}
	data := b.EpochData
	if data == nil {
		ref := v.Ballot(b.Reference)
		if ref == nil {
			return Valid{}, &Unknown{Ballots: []types.BallotID{b.Reference}}
		}
		if ref.EpochData == nil || ref.Smesher != b.Smesher || ref.ATX != b.ATX || r.Schedule.EpochOf(ref.Layer) != epoch {
			return Valid{}, ErrReference
		}
		data = ref.EpochData
	}
	if b.EpochData != nil {
		if err := epochData(r, v, epoch, atx, data); err != nil {
			return Valid{}, err
		}
	}
	claim := eligibility.Claim{
		Smesher: b.Smesher, Layer: b.Layer, Beacon: data.Beacon, VRFNonce: atx.VRFNonce,
		Slots: data.Eligibilities, Proofs: b.Eligibilities,
	}
	if err := claim.Check(r.Eligibility); err != nil {
		return Valid{}, err
	}
	share := Share{ATX: b.ATX, Weight: atx.Weight, BaseHeight: atx.BaseHeight, Slots: data.Eligibilities, Proofs: len(b.Eligibilities)}
	return Valid{share, data.ActiveSet, claim}, nil
}

// epochData checks what a reference ballot declares.
func epochData(r Rules, v BallotView, epoch types.Epoch, atx *activation.Info, data *types.EpochData) error {
	if beacon, known := v.Beacon(epoch); known && beacon != data.Beacon {
		return ErrBeacon
	}
	el, err := v.Electorate(epoch, data.ActiveSet)
	if err != nil {
		return err
	}
	if _, ok := el.Weight(atx.ID, atx.Smesher); !ok {
		return ErrNotMember
	}
	if eligibility.Slots(r.Eligibility, atx.Weight, el.Total()) != data.Eligibilities {
		return ErrSlots
	}
	if !v.Plausible(el) {
		return ErrActiveSet
	}
	return nil
}
