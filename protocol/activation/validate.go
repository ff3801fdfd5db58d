// Package activation has the rules of ATXs, and the steps by which a smesher
// comes to publish one in every epoch.
//
// It promises: validity and weight of an ATX are functions of the ATX and of
// what it refers to, the same on every machine but for which labels of its
// PoST are recomputed; the smesher's steps survive a crash at any moment and
// an epoch that was missed by all. It leaves to the caller to fetch what is
// missing, to store before it sends,
// and to do the work (initialize, register, fetch, prove) that a step asks for.
package activation

import (
	"errors"
	"fmt"
	"math/bits"

	"tweedle/proofs/post"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Params are the parts of the rules that a network sets.
type Params struct {
	Network  types.GenesisID
	Golden   types.ATXID // stands before all ATXs
	TickSize uint64      // leaves of a PoET in one tick of height
	Post     post.Params
}

// Info is what later rules need of a valid ATX.
type Info struct {
	ID            types.ATXID
	Smesher       types.NodeID
	PublishEpoch  types.Epoch
	Coinbase      types.Address
	CommitmentATX types.ATXID // what the smesher's labels are bound to
	VRFNonce      uint64
	Units         uint32 // declared
	Effective     uint32 // counted: new space counts one epoch later
	Ticks         uint64
	BaseHeight    uint64 // of the positioning ATX, in ticks
	Weight        uint64 // effective units times ticks
}

// Height returns the height in ticks.
func (i *Info) Height() uint64 { return i.BaseHeight + i.Ticks }

// Poet is what the rules need of a valid PoET proof.
type Poet struct {
	Statement types.Hash32
	NumLeaves uint64
}

// View answers what is known to be valid.
type View interface {
	ATX(types.ATXID) (*Info, error)         // nil if unknown
	Poet(types.PoetProofRef) (*Poet, error) // nil if unknown
}

// Missing says that an ATX refers to things that are not known yet. They are
// to be fetched and validated first.
type Missing struct {
	ATXs  []types.ATXID
	Poets []types.PoetProofRef
}

func (m *Missing) Error() string {
	return fmt.Sprintf("refers to %d unknown ATXs and %d unknown PoET proofs", len(m.ATXs), len(m.Poets))
}

// Reasons why an ATX is not valid. Errors of package post come wrapped.
var (
	ErrSignature   = errors.New("wrong signature")
	ErrFuture      = errors.New("published for a later epoch")
	ErrEpochZero   = errors.New("published in epoch 0, which has no ATXs")
	ErrMerged      = errors.New("merged ATXs and marriages are not part of this network")
	ErrShape       = errors.New("not exactly one proof of one identity")
	ErrInitial     = errors.New("first ATX must carry the initial proof, later ones must not")
	ErrPrevious    = errors.New("previous ATX is another smesher's or not older")
	ErrPositioning = errors.New("positioning ATX is absent or not older")
	ErrCommitment  = errors.New("commitment ATX is not older")
	ErrMembership  = errors.New("challenge is not a member of the PoET round")
	ErrTicks       = errors.New("PoET proof has less than one tick")
	ErrOverflow    = errors.New("weight or height is out of range")
	ErrInitialPost = errors.New("initial post")
)

// Validate checks an ATX against the rules of reference/protocol.md A3, in the
// order of their cost, and returns what later rules need of it. current is the
// epoch of the clock; mode says which labels of the PoST are recomputed (the
// initial PoST is always checked whole). A *Missing error means: not decided.
func Validate(p Params, a *types.ATX, current types.Epoch, v View, mode post.Mode) (*Info, error) {
	if err := form(p, a, current); err != nil {
		return nil, err
	}
	id := a.ID()
	if !signing.NewVerifier(p.Network).Verify(signing.ATX, a.SmesherID, id[:], a.Signature) {
		return nil, ErrSignature
	}
	claim, err := Derive(p, a, id, current, v)
	if err != nil {
		return nil, err
	}
	return claim.Info, claim.Verify(p, mode)
}

// Claim is an ATX whose rules hold but for its proofs of space, which take
// long to check.
type Claim struct {
	ATX  *types.ATX
	Info *Info
	prev *Info // nil if the ATX is initial
}

// Derive checks all rules but the signature and the proofs of space. A
// *Missing error means: not decided. id is the ATX's own, which callers have.
func Derive(p Params, a *types.ATX, id types.ATXID, current types.Epoch, v View) (*Claim, error) {
	if err := form(p, a, current); err != nil {
		return nil, err
	}
	refs, err := resolve(p, a, v)
	if err != nil {
		return nil, err
	}
	info, err := derive(p, a, id, refs)
	if err != nil {
		return nil, err
	}
	if err := membership(a, refs.poet); err != nil {
		return nil, err
	}
	return &Claim{a, info, refs.prev}, nil
}

// Verify checks the proofs of space. A wrong label is a *post.InvalidIndexError,
// wrapped.
func (c *Claim) Verify(p Params, mode post.Mode) error { return VerifyAll(p, []*Claim{c}, mode)[0] }

// Labels is how many labels Verify computes at most when it draws K3 of the PoST.
func (c *Claim) Labels(p Params) int {
	n := int(p.Post.K3)
	if c.newNonce() {
		n++
	}
	if c.ATX.Initial != nil {
		n += int(p.Post.K2)
	}
	return n
}

// newNonce tells whether the VRF nonce is to be checked: if the previous ATX does not vouch for it.
func (c *Claim) newNonce() bool {
	return c.prev == nil || c.ATX.VRFNonce != c.prev.VRFNonce || c.Info.Units > c.prev.Units
}

// form checks what needs nothing but the ATX.
func form(p Params, a *types.ATX, current types.Epoch) error {
	switch {
	case a.PublishEpoch > current+1:
		return ErrFuture
	case a.PublishEpoch == 0:
		return ErrEpochZero
	case a.MarriageATX != nil || len(a.Marriages) != 0:
		return ErrMerged
	case len(a.NIPosts) != 1 || len(a.NIPosts[0].Posts) != 1 || len(a.PreviousATXs) > 1:
		return ErrShape
	case a.NIPosts[0].Posts[0].MarriageIndex != 0 || a.NIPosts[0].Posts[0].PrevATXIndex != 0:
		return ErrShape
	case (a.Initial != nil) != (len(a.PreviousATXs) == 0):
		return ErrInitial
	case a.PositioningATX.IsZero():
		return ErrPositioning
	}
	return nil
}

// references are the valid things an ATX builds on; nil stands for golden, and
// for the previous ATX of an initial one.
type references struct {
	prev, positioning, commitment *Info
	poet                          *Poet
}

// resolve finds what the ATX refers to and checks that it is older.
func resolve(p Params, a *types.ATX, v View) (references, error) {
	var r references
	missing := &Missing{}
	find := func(id types.ATXID) (*Info, error) {
		if id == p.Golden {
			return nil, nil
		}
		info, err := v.ATX(id)
		if err == nil && info == nil {
			missing.ATXs = append(missing.ATXs, id)
		}
		return info, err
	}
	var err error
	if len(a.PreviousATXs) == 1 {
		if a.PreviousATXs[0] == p.Golden {
			return r, ErrPrevious
		}
		if r.prev, err = find(a.PreviousATXs[0]); err != nil {
			return r, err
		}
	}
	if r.positioning, err = find(a.PositioningATX); err != nil {
		return r, err
	}
	if a.Initial != nil {
		if r.commitment, err = find(a.Initial.CommitmentATX); err != nil {
			return r, err
		}
	}
	ref := a.NIPosts[0].PoetProof
	if r.poet, err = v.Poet(ref); err != nil {
		return r, err
	}
	if r.poet == nil {
		missing.Poets = append(missing.Poets, ref)
	}
	switch {
	case r.prev != nil && (r.prev.Smesher != a.SmesherID || r.prev.PublishEpoch >= a.PublishEpoch):
		return r, ErrPrevious
	case r.positioning != nil && r.positioning.PublishEpoch >= a.PublishEpoch:
		return r, ErrPositioning
	case r.commitment != nil && r.commitment.PublishEpoch >= a.PublishEpoch:
		return r, ErrCommitment
	case len(missing.ATXs)+len(missing.Poets) > 0:
		return r, missing
	}
	return r, nil
}

// derive computes units, height and weight.
func derive(p Params, a *types.ATX, id types.ATXID, r references) (*Info, error) {
	units := a.NIPosts[0].Posts[0].NumUnits
	info := &Info{
		ID: id, Smesher: a.SmesherID, PublishEpoch: a.PublishEpoch, Coinbase: a.Coinbase,
		VRFNonce: a.VRFNonce, Units: units, Effective: units,
		Ticks: r.poet.NumLeaves / p.TickSize,
	}
	if a.Initial != nil {
		info.CommitmentATX = a.Initial.CommitmentATX
	} else {
		info.CommitmentATX = r.prev.CommitmentATX
		info.Effective = min(units, r.prev.Units)
	}
	if r.positioning != nil {
		info.BaseHeight = r.positioning.Height()
	}
	if info.Ticks == 0 {
		return nil, ErrTicks
	}
	hi, weight := bits.Mul64(uint64(info.Effective), info.Ticks)
	_, carry := bits.Add64(info.BaseHeight, info.Ticks, 0)
	if hi != 0 || carry != 0 {
		return nil, ErrOverflow
	}
	info.Weight = weight
	return info, nil
}

// membership checks that the PoET worked on the smesher's challenge.
func membership(a *types.ATX, poet *Poet) error {
	n := &a.NIPosts[0]
	c := Challenge(a)
	nodes := make([][32]byte, len(n.Membership))
	for i := range nodes {
		nodes[i] = n.Membership[i]
	}
	if merkle.Verify(poet.Statement, c.Hash(), n.Posts[0].MembershipLeafIndex, n.NumMembers, nodes) != nil {
		return ErrMembership
	}
	return nil
}

// Challenge returns what the smesher must have registered for the ATX.
func Challenge(a *types.ATX) types.PoetChallenge {
	c := types.PoetChallenge{PublishEpoch: a.PublishEpoch, PositioningATX: a.PositioningATX}
	if a.Initial != nil {
		c.InitialPost = &a.Initial.Post
	} else {
		c.PreviousATX = a.PreviousATXs[0]
	}
	return c
}

// VerifyAll gives for each claim what Verify gives for it alone. It computes the labels of
// all side by side, which costs less; those that one kind of proof refuses go no further.
func VerifyAll(p Params, claims []*Claim, mode post.Mode) []error {
	errs := make([]error, len(claims))
	var nonces []post.VRFNonce
	var of []int // whose they are
	for i, c := range claims {
		if c.newNonce() {
			nonces, of = append(nonces, post.VRFNonce{
				Nonce: c.ATX.VRFNonce, Commitment: post.Commitment(c.ATX.SmesherID, c.Info.CommitmentATX), NumUnits: c.Info.Units,
			}), append(of, i)
		}
	}
	for k, err := range post.VerifyVRFNonces(nonces, p.Post) {
		if err != nil {
			errs[of[k]] = fmt.Errorf("vrf nonce: %w", err)
		}
	}

	// All of an initial proof before any of the other: a wrong label of it is no malfeasance.
	var checks []post.Verification
	verify := func(wrap func(error) error) {
		for k, err := range post.VerifyAll(checks, p.Post) {
			if err != nil {
				errs[of[k]] = wrap(err)
			}
		}
	}
	of = of[:0]
	for i, c := range claims {
		if errs[i] == nil && c.ATX.Initial != nil {
			checks, of = append(checks, c.check(c.ATX.Initial.Post, types.PoetProofRef{}, post.All())), append(of, i)
		}
	}
	verify(func(err error) error { return fmt.Errorf("%w: %w", ErrInitialPost, err) })
	checks, of = checks[:0], of[:0]
	for i, c := range claims {
		if n := &c.ATX.NIPosts[0]; errs[i] == nil {
			checks, of = append(checks, c.check(n.Posts[0].Post, n.PoetProof, mode)), append(of, i)
		}
	}
	verify(func(err error) error { return fmt.Errorf("post: %w", err) })
	return errs
}

func (c *Claim) check(proof types.PostProof, challenge types.PoetProofRef, mode post.Mode) post.Verification {
	return post.Verification{Proof: fromWire(proof), Mode: mode, About: post.ProofMetadata{
		NodeID: c.ATX.SmesherID, CommitmentATX: c.Info.CommitmentATX, Challenge: challenge, NumUnits: c.Info.Units,
	}}
}

func fromWire(p types.PostProof) post.Proof {
	return post.Proof{Nonce: p.Nonce, Indices: p.Indices, Pow: p.Pow}
}

// WrongLabel tells whether the label at a place of an ATX's proof of space does
// not pass: the evidence of a malfeasance proof. It computes one label. A proof
// that is malformed or has no such place is not wrong in this sense.
func WrongLabel(p Params, a *types.ATX, commitment types.ATXID, ordinal uint32) bool {
	if len(a.NIPosts) != 1 || len(a.NIPosts[0].Posts) != 1 || ordinal >= uint32(p.Post.K2) {
		return false
	}
	sub := &a.NIPosts[0].Posts[0]
	meta := post.ProofMetadata{
		NodeID: a.SmesherID, CommitmentATX: commitment, NumUnits: sub.NumUnits, Challenge: a.NIPosts[0].PoetProof,
	}
	var wrong *post.InvalidIndexError
	return errors.As(post.Verify(fromWire(sub.Post), meta, p.Post, post.One(int(ordinal))), &wrong)
}
