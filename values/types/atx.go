package types

import (
	"encoding/binary"

	"tweedle/values/codec"
	"tweedle/values/merkle"
)

// Limits of an ATX.
const (
	MaxPreviousATXs    = 256
	MaxNIPosts         = 4
	MaxSubPosts        = 256
	MaxMarriages       = 256
	MaxMembershipNodes = 8192 // 256 leaves of a tree of 2^32 members
	MaxPostIndices     = 800  // bytes
)

// PostProof is a proof of space-time in its wire form (reference/post.md 1.2).
type PostProof struct {
	Nonce   uint32
	Indices []byte // bit-packed label indices
	Pow     uint64 // answer to the K2 proof of work
}

// EncodeTo appends the canonical encoding.
func (p *PostProof) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(p.Nonce))
	e.ByteSlice(p.Indices)
	e.Compact(p.Pow)
}

// DecodeFrom reads the canonical encoding.
func (p *PostProof) DecodeFrom(d *codec.Decoder) {
	p.Nonce = d.Compact32()
	p.Indices = d.ByteSlice(MaxPostIndices)
	p.Pow = d.Compact()
}

// InitialATX is what only the first ATX of a smesher carries.
type InitialATX struct {
	CommitmentATX ATXID
	Post          PostProof // over the zero challenge
}

// SubPost is one identity's proof inside a NIPost. An ATX that is not merged
// has exactly one.
type SubPost struct {
	MarriageIndex       uint32
	PrevATXIndex        uint32
	MembershipLeafIndex uint64 // the place of the challenge in the PoET's tree
	Post                PostProof
	NumUnits            uint32
}

// EncodeTo appends the canonical encoding.
func (s *SubPost) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(s.MarriageIndex))
	e.Compact(uint64(s.PrevATXIndex))
	e.Compact(s.MembershipLeafIndex)
	s.Post.EncodeTo(e)
	e.Compact(uint64(s.NumUnits))
}

// DecodeFrom reads the canonical encoding.
func (s *SubPost) DecodeFrom(d *codec.Decoder) {
	s.MarriageIndex = d.Compact32()
	s.PrevATXIndex = d.Compact32()
	s.MembershipLeafIndex = d.Compact()
	s.Post.DecodeFrom(d)
	s.NumUnits = d.Compact32()
}

// NIPost proves that space was kept over the time of one PoET round.
type NIPost struct {
	// Membership holds the siblings that lead from the challenge to the
	// statement of the PoET proof; NumMembers is the size of that tree.
	Membership []Hash32
	NumMembers uint64
	PoetProof  PoetProofRef // also the challenge of the PoSTs
	Posts      []SubPost
}

// EncodeTo appends the canonical encoding.
func (n *NIPost) EncodeTo(e *codec.Encoder) {
	encodeIDs(e, n.Membership)
	e.Compact(n.NumMembers)
	e.Raw(n.PoetProof[:])
	codec.EncodeList(e, n.Posts)
}

// DecodeFrom reads the canonical encoding.
func (n *NIPost) DecodeFrom(d *codec.Decoder) {
	n.Membership = decodeIDs[Hash32](d, MaxMembershipNodes)
	n.NumMembers = d.Compact()
	d.Raw(n.PoetProof[:])
	n.Posts = codec.DecodeList[SubPost](d, MaxSubPosts)
}

// Marriage is the consent of an identity to share the fate of the smesher
// that publishes it.
type Marriage struct {
	ReferenceATX ATXID // any ATX of the marrying identity; zero for oneself
	Signature    Signature
}

// EncodeTo appends the canonical encoding.
func (m *Marriage) EncodeTo(e *codec.Encoder) {
	e.Raw(m.ReferenceATX[:])
	e.Raw(m.Signature[:])
}

// DecodeFrom reads the canonical encoding.
func (m *Marriage) DecodeFrom(d *codec.Decoder) {
	d.Raw(m.ReferenceATX[:])
	d.Raw(m.Signature[:])
}

// ATX is an activation: the proof of a smesher's space-time that gives it
// weight in the epoch after PublishEpoch.
type ATX struct {
	PublishEpoch   Epoch
	PositioningATX ATXID
	Coinbase       Address
	Initial        *InitialATX
	PreviousATXs   []ATXID
	NIPosts        []NIPost
	VRFNonce       uint64
	Marriages      []Marriage
	MarriageATX    *ATXID
	SmesherID      NodeID
	Signature      Signature // over the id
}

// TargetEpoch is the epoch in which the ATX counts.
func (a *ATX) TargetEpoch() Epoch { return a.PublishEpoch + 1 }

// EncodeTo appends the canonical encoding.
func (a *ATX) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(a.PublishEpoch))
	e.Raw(a.PositioningATX[:])
	e.Raw(a.Coinbase[:])
	e.Option(a.Initial != nil)
	if a.Initial != nil {
		e.Raw(a.Initial.CommitmentATX[:])
		a.Initial.Post.EncodeTo(e)
	}
	encodeIDs(e, a.PreviousATXs)
	codec.EncodeList(e, a.NIPosts)
	e.Compact(a.VRFNonce)
	codec.EncodeList(e, a.Marriages)
	e.Option(a.MarriageATX != nil)
	if a.MarriageATX != nil {
		e.Raw(a.MarriageATX[:])
	}
	e.Raw(a.SmesherID[:])
	e.Raw(a.Signature[:])
}

// DecodeFrom reads the canonical encoding.
func (a *ATX) DecodeFrom(d *codec.Decoder) {
	a.PublishEpoch = Epoch(d.Compact32())
	d.Raw(a.PositioningATX[:])
	d.Raw(a.Coinbase[:])
	if d.Option() {
		a.Initial = &InitialATX{}
		d.Raw(a.Initial.CommitmentATX[:])
		a.Initial.Post.DecodeFrom(d)
	}
	a.PreviousATXs = decodeIDs[ATXID](d, MaxPreviousATXs)
	a.NIPosts = codec.DecodeList[NIPost](d, MaxNIPosts)
	a.VRFNonce = d.Compact()
	a.Marriages = codec.DecodeList[Marriage](d, MaxMarriages)
	if d.Option() {
		a.MarriageATX = &ATXID{}
		d.Raw(a.MarriageATX[:])
	}
	d.Raw(a.SmesherID[:])
	d.Raw(a.Signature[:])
}

// The leaves of the tree whose root is the ATX's id, in order. A fraud proof
// names a field by its place here, so the order is part of the protocol.
const (
	atxPublishEpoch = iota
	atxPositioning
	atxCoinbase
	atxInitial
	atxPrevious
	atxNIPosts
	atxVRFNonce
	atxMarriages
	atxMarriageATX
	atxSmesher
	atxFields
)

// ID returns the Merkle root over the fields. Scalars are leaves, optional
// ones are empty leaves when absent, and lists are subtrees bound to their
// length, so that a proof can show one field without the rest. The signature
// is not part of the id.
func (a *ATX) ID() ATXID {
	f := a.fields()
	return ATXID(merkle.Root(f[:]))
}

func (a *ATX) fields() (f [atxFields][32]byte) {
	f[atxPublishEpoch] = leafUint(uint64(a.PublishEpoch))
	f[atxPositioning] = leaf(a.PositioningATX[:])
	f[atxCoinbase] = leaf(a.Coinbase[:])
	f[atxInitial] = leaf()
	if a.Initial != nil {
		f[atxInitial] = merkle.Root([][32]byte{
			leaf(a.Initial.CommitmentATX[:]), leaf(codec.Encode(&a.Initial.Post)),
		})
	}
	f[atxPrevious] = listRoot(len(a.PreviousATXs), func(i int) [32]byte { return leaf(a.PreviousATXs[i][:]) })
	f[atxNIPosts] = listRoot(len(a.NIPosts), func(i int) [32]byte { return a.NIPosts[i].root() })
	f[atxVRFNonce] = leafUint(a.VRFNonce)
	f[atxMarriages] = listRoot(len(a.Marriages), func(i int) [32]byte {
		m := &a.Marriages[i]
		return merkle.Root([][32]byte{leaf(m.ReferenceATX[:]), leaf(m.Signature[:])})
	})
	f[atxMarriageATX] = leaf()
	if a.MarriageATX != nil {
		f[atxMarriageATX] = leaf(a.MarriageATX[:])
	}
	f[atxSmesher] = leaf(a.SmesherID[:])
	return f
}

func (n *NIPost) root() [32]byte {
	var members codec.Encoder
	encodeIDs(&members, n.Membership)
	return merkle.Root([][32]byte{
		leaf(members.Bytes()),
		leafUint(n.NumMembers),
		leaf(n.PoetProof[:]),
		listRoot(len(n.Posts), func(i int) [32]byte {
			p := &n.Posts[i]
			return merkle.Root([][32]byte{
				leafUint(uint64(p.MarriageIndex)), leafUint(uint64(p.PrevATXIndex)),
				leafUint(p.MembershipLeafIndex), leaf(codec.Encode(&p.Post)), leafUint(uint64(p.NumUnits)),
			})
		}),
	})
}

// EpochProof returns the siblings that show, by the id alone, in which epoch
// the ATX was published.
func (a *ATX) EpochProof() []Hash32 {
	fields := a.fields()
	var out []Hash32
	for _, h := range merkle.Proof(fields[:], atxPublishEpoch) {
		out = append(out, h)
	}
	return out
}

// VerifyEpoch tells whether an ATX with this id was published in an epoch, by
// the siblings of EpochProof.
func (id ATXID) VerifyEpoch(e Epoch, siblings []Hash32) bool {
	nodes := make([][32]byte, len(siblings))
	for i := range siblings {
		nodes[i] = siblings[i]
	}
	return merkle.Verify(id, leafUint(uint64(e)), atxPublishEpoch, atxFields, nodes) == nil
}

// leaf hashes a field; the 0x00 keeps leaves apart from inner nodes.
func leaf(parts ...[]byte) [32]byte {
	all := [3][]byte{{0x00}} // the parts of nearly all leaves fit
	return Sum(append(all[:1], parts...)...)
}

func leafUint(v uint64) [32]byte {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	return leaf(b[:])
}

// listRoot binds a list's tree to its length.
func listRoot(n int, at func(int) [32]byte) [32]byte {
	leaves := make([][32]byte, n)
	for i := range leaves {
		leaves[i] = at(i)
	}
	root := merkle.Root(leaves)
	return leaf(binary.LittleEndian.AppendUint64(nil, uint64(n)), root[:])
}

// PoetChallenge is what a smesher registers at PoETs before its next ATX.
type PoetChallenge struct {
	PublishEpoch   Epoch
	PreviousATX    ATXID // zero before the first ATX
	PositioningATX ATXID
	InitialPost    *PostProof // only before the first ATX
}

// EncodeTo appends the canonical encoding.
func (c *PoetChallenge) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(c.PublishEpoch))
	e.Raw(c.PreviousATX[:])
	e.Raw(c.PositioningATX[:])
	e.Option(c.InitialPost != nil)
	if c.InitialPost != nil {
		c.InitialPost.EncodeTo(e)
	}
}

// DecodeFrom reads the canonical encoding.
func (c *PoetChallenge) DecodeFrom(d *codec.Decoder) {
	c.PublishEpoch = Epoch(d.Compact32())
	d.Raw(c.PreviousATX[:])
	d.Raw(c.PositioningATX[:])
	if d.Option() {
		c.InitialPost = &PostProof{}
		c.InitialPost.DecodeFrom(d)
	}
}

// Hash returns the 32 bytes that are registered: a leaf of the PoET's
// membership tree, so it is hashed with the leaf prefix
// (reference/protocol.md A3).
func (c *PoetChallenge) Hash() Hash32 { return leaf(codec.Encode(c)) }
