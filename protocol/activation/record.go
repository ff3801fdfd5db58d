package activation

import (
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// Limits of a smesher's record.
const (
	MaxRegistrations = 64
	MaxPoetName      = 256 // bytes of a PoET's address
)

// Space is the initialized space of a smesher with its first proof.
type Space struct {
	CommitmentATX types.ATXID
	NumUnits      uint32
	VRFNonce      uint64
	Post          types.PostProof // over the zero challenge
}

// Registration is a PoET's promise to work on the challenge.
type Registration struct {
	Poet  string // the PoET's address as configured
	Round string
	Place *Place // nil until the PoET has told it
}

// is tells whether both are of the same PoET and round.
func (r Registration) is(other Registration) bool {
	return r.Poet == other.Poet && r.Round == other.Round
}

// Place is where a challenge stands in a round's statement. Whoever knows it
// can use a proof of that statement, from whoever it comes.
type Place struct {
	Statement types.Hash32 // root of the tree of the round's members
	Index     uint64       // of our leaf
	Members   uint64
	Path      []types.Hash32 // siblings from the leaf upwards
}

// holds tells whether the place is the challenge's, as its statement says.
func (p *Place) holds(challenge types.Hash32) bool {
	path := make([][32]byte, len(p.Path))
	for i := range p.Path {
		path[i] = p.Path[i]
	}
	return merkle.Verify(p.Statement, challenge, p.Index, p.Members, path) == nil
}

// Membership is a PoET proof that covers the challenge.
type Membership struct {
	Ref        types.PoetProofRef
	NumLeaves  uint64
	LeafIndex  uint64
	NumMembers uint64
	Nodes      []types.Hash32
}

// Pending is the ATX in the making for one publish epoch. Each part is there
// once its step is done.
type Pending struct {
	Challenge     types.PoetChallenge
	Registrations []Registration
	Poet          *Membership
	Post          *types.PostProof
	ATX           *types.ATX
}

// Record is everything a smesher must remember. It is written after every
// step, so that a restart goes on where it stopped.
type Record struct {
	Space     *Space
	Last      types.ATXID // the newest ATX that was published
	LastEpoch types.Epoch
	Pending   *Pending
}

// EncodeTo appends the canonical encoding.
func (r *Record) EncodeTo(e *codec.Encoder) {
	e.Option(r.Space != nil)
	if r.Space != nil {
		e.Raw(r.Space.CommitmentATX[:])
		e.Compact(uint64(r.Space.NumUnits))
		e.Compact(r.Space.VRFNonce)
		r.Space.Post.EncodeTo(e)
	}
	e.Raw(r.Last[:])
	e.Compact(uint64(r.LastEpoch))
	e.Option(r.Pending != nil)
	if r.Pending != nil {
		r.Pending.encodeTo(e)
	}
}

func (p *Pending) encodeTo(e *codec.Encoder) {
	p.Challenge.EncodeTo(e)
	e.Compact(uint64(len(p.Registrations)))
	for _, r := range p.Registrations {
		e.String(r.Poet)
		e.String(r.Round)
		e.Option(r.Place != nil)
		if r.Place != nil {
			e.Raw(r.Place.Statement[:])
			e.Compact(r.Place.Index)
			e.Compact(r.Place.Members)
			encodePath(e, r.Place.Path)
		}
	}
	e.Option(p.Poet != nil)
	if p.Poet != nil {
		e.Raw(p.Poet.Ref[:])
		e.Compact(p.Poet.NumLeaves)
		e.Compact(p.Poet.LeafIndex)
		e.Compact(p.Poet.NumMembers)
		encodePath(e, p.Poet.Nodes)
	}
	e.Option(p.Post != nil)
	if p.Post != nil {
		p.Post.EncodeTo(e)
	}
	e.Option(p.ATX != nil)
	if p.ATX != nil {
		p.ATX.EncodeTo(e)
	}
}

// DecodeFrom reads the canonical encoding.
func (r *Record) DecodeFrom(d *codec.Decoder) {
	if d.Option() {
		r.Space = &Space{}
		d.Raw(r.Space.CommitmentATX[:])
		r.Space.NumUnits = d.Compact32()
		r.Space.VRFNonce = d.Compact()
		r.Space.Post.DecodeFrom(d)
	}
	d.Raw(r.Last[:])
	r.LastEpoch = types.Epoch(d.Compact32())
	if d.Option() {
		r.Pending = &Pending{}
		r.Pending.decodeFrom(d)
	}
}

func (p *Pending) decodeFrom(d *codec.Decoder) {
	p.Challenge.DecodeFrom(d)
	for range d.Count(MaxRegistrations) {
		r := Registration{Poet: d.String(MaxPoetName), Round: d.String(types.MaxPoetRoundID)}
		if d.Option() {
			r.Place = &Place{}
			d.Raw(r.Place.Statement[:])
			r.Place.Index = d.Compact()
			r.Place.Members = d.Compact()
			r.Place.Path = decodePath(d)
		}
		p.Registrations = append(p.Registrations, r)
	}
	if d.Option() {
		p.Poet = &Membership{}
		d.Raw(p.Poet.Ref[:])
		p.Poet.NumLeaves = d.Compact()
		p.Poet.LeafIndex = d.Compact()
		p.Poet.NumMembers = d.Compact()
		p.Poet.Nodes = decodePath(d)
	}
	if d.Option() {
		p.Post = &types.PostProof{}
		p.Post.DecodeFrom(d)
	}
	if d.Option() {
		p.ATX = &types.ATX{}
		p.ATX.DecodeFrom(d)
	}
}

func encodePath(e *codec.Encoder, path []types.Hash32) {
	e.Compact(uint64(len(path)))
	for i := range path {
		e.Raw(path[i][:])
	}
}

func decodePath(d *codec.Decoder) (path []types.Hash32) {
	for range d.Count(types.MaxMembershipNodes) {
		var h types.Hash32
		d.Raw(h[:])
		if d.Err() != nil {
			return nil
		}
		path = append(path, h)
	}
	return path
}
