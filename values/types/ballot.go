package types

import (
	"tweedle/values/codec"
)

// Limits of ballots, proposals and blocks.
const (
	MaxVotes                 = 5000 // exceptions of each kind in one ballot
	MaxEligibilities         = 500  // of one smesher in one layer
	MaxActiveSet             = 8_000_000
	MaxProposalTxs           = 5000
	MaxBlockTxs              = 100_000
	MaxBlockRewards          = 20_000
	MaxCertificateSignatures = 4096
)

// EpochData is declared by a smesher's first ballot of an epoch; its other
// ballots refer to that one.
type EpochData struct {
	ActiveSet     Hash32 // hash of the sorted list of ATX ids
	Beacon        Beacon
	Eligibilities uint32 // slots of the smesher in the epoch
}

// Vote is an opinion about one block. Height is in ticks.
type Vote struct {
	Block  BlockID
	Layer  Layer
	Height uint64
}

// EncodeTo appends the canonical encoding.
func (v *Vote) EncodeTo(e *codec.Encoder) {
	e.Raw(v.Block[:])
	e.Compact(uint64(v.Layer))
	e.Compact(v.Height)
}

// DecodeFrom reads the canonical encoding.
func (v *Vote) DecodeFrom(d *codec.Decoder) {
	d.Raw(v.Block[:])
	v.Layer = Layer(d.Compact32())
	v.Height = d.Compact()
}

// Votes are the difference of a ballot's opinion from its base ballot's.
type Votes struct {
	Base    BallotID
	Support []Vote
	Against []Vote
	Abstain []Layer
}

// EncodeTo appends the canonical encoding.
func (v *Votes) EncodeTo(e *codec.Encoder) {
	e.Raw(v.Base[:])
	codec.EncodeList(e, v.Support)
	codec.EncodeList(e, v.Against)
	e.Compact(uint64(len(v.Abstain)))
	for _, l := range v.Abstain {
		e.Compact(uint64(l))
	}
}

// DecodeFrom reads the canonical encoding.
func (v *Votes) DecodeFrom(d *codec.Decoder) {
	d.Raw(v.Base[:])
	v.Support = codec.DecodeList[Vote](d, MaxVotes)
	v.Against = codec.DecodeList[Vote](d, MaxVotes)
	for range d.Count(MaxVotes) {
		l := Layer(d.Compact32())
		if d.Err() != nil {
			return
		}
		v.Abstain = append(v.Abstain, l)
	}
}

// Eligibility proves one slot: J is the slot's number, Proof the VRF over it.
type Eligibility struct {
	J     uint32
	Proof VRFSignature
}

// EncodeTo appends the canonical encoding.
func (v *Eligibility) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(v.J))
	e.Raw(v.Proof[:])
}

// DecodeFrom reads the canonical encoding.
func (v *Eligibility) DecodeFrom(d *codec.Decoder) {
	v.J = d.Compact32()
	d.Raw(v.Proof[:])
}

// Ballot is a smesher's vote in a layer.
type Ballot struct {
	Layer   Layer
	ATX     ATXID
	Opinion Hash32
	// Exactly one of the two is set: EpochData in a reference ballot,
	// Reference in the others.
	EpochData *EpochData
	Reference BallotID

	Smesher       NodeID
	Signature     Signature // over SignedBytes
	Votes         Votes     // also bound by Opinion
	Eligibilities []Eligibility
}

// encodeInner appends what comes before the smesher.
func (b *Ballot) encodeInner(e *codec.Encoder) {
	e.Compact(uint64(b.Layer))
	e.Raw(b.ATX[:])
	e.Raw(b.Opinion[:])
	e.Option(b.EpochData != nil)
	if b.EpochData != nil {
		e.Raw(b.EpochData.ActiveSet[:])
		e.Raw(b.EpochData.Beacon[:])
		e.Compact(uint64(b.EpochData.Eligibilities))
	} else {
		e.Raw(b.Reference[:])
	}
}

// innerHash is what the id and the signature cover: all but the signature.
// The published ballot leaves the eligibilities out (reference/protocol.md
// A6); there, whoever passes a ballot on can take some away, and with them a
// part of its weight.
func (b *Ballot) innerHash() Hash32 {
	e := codec.NewEncoder(512)
	b.encodeInner(e)
	e.Raw(b.Smesher[:])
	b.encodeOuter(e)
	return Sum(e.Bytes())
}

// encodeOuter appends what comes after the signature.
func (b *Ballot) encodeOuter(e *codec.Encoder) {
	b.Votes.EncodeTo(e)
	codec.EncodeList(e, b.Eligibilities)
}

// ID returns the ballot's name.
func (b *Ballot) ID() BallotID {
	h := b.innerHash()
	return BallotID(h[:len(BallotID{})])
}

// SignedBytes returns the message of the ballot's signature: layer and hash,
// so that two ballots for one layer are a short proof of malfeasance.
func (b *Ballot) SignedBytes() []byte { return LayerAndHash(b.Layer, b.innerHash()) }

// SignedHash is the part of SignedBytes that is not the layer.
func (b *Ballot) SignedHash() Hash32 { return b.innerHash() }

// LayerAndHash returns the signed bytes of a ballot or proposal with a content
// of this hash.
func LayerAndHash(l Layer, h Hash32) []byte {
	e := codec.NewEncoder(40)
	e.Compact(uint64(l))
	e.Raw(h[:])
	return e.Bytes()
}

// EncodeTo appends the canonical encoding.
func (b *Ballot) EncodeTo(e *codec.Encoder) {
	b.encodeInner(e)
	e.Raw(b.Smesher[:])
	e.Raw(b.Signature[:])
	b.encodeOuter(e)
}

// DecodeFrom reads the canonical encoding.
func (b *Ballot) DecodeFrom(d *codec.Decoder) {
	b.Layer = Layer(d.Compact32())
	d.Raw(b.ATX[:])
	d.Raw(b.Opinion[:])
	if d.Option() {
		b.EpochData = &EpochData{}
		d.Raw(b.EpochData.ActiveSet[:])
		d.Raw(b.EpochData.Beacon[:])
		b.EpochData.Eligibilities = d.Compact32()
	} else {
		d.Raw(b.Reference[:])
	}
	d.Raw(b.Smesher[:])
	d.Raw(b.Signature[:])
	b.Votes.DecodeFrom(d)
	b.Eligibilities = codec.DecodeList[Eligibility](d, MaxEligibilities)
}

// Proposal is a ballot with the transactions that its smesher offers for the
// layer's block. Only the ballot outlives the layer.
type Proposal struct {
	Ballot    Ballot
	Txs       []TransactionID
	MeshHash  Hash32 // the smesher's mesh up to the layer before
	Signature Signature
}

// SignedHash is the part of SignedBytes that is not the layer.
func (p *Proposal) SignedHash() Hash32 { return p.innerHash() }

func (p *Proposal) innerHash() Hash32 {
	e := codec.NewEncoder(64 + 32*len(p.Txs))
	id := p.Ballot.ID()
	e.Raw(id[:])
	encodeIDs(e, p.Txs)
	e.Raw(p.MeshHash[:])
	return Sum(e.Bytes())
}

// ID returns the proposal's name.
func (p *Proposal) ID() ProposalID {
	h := p.innerHash()
	return ProposalID(h[:len(ProposalID{})])
}

// SignedBytes returns the message of the proposal's signature.
func (p *Proposal) SignedBytes() []byte { return LayerAndHash(p.Ballot.Layer, p.innerHash()) }

// EncodeTo appends the canonical encoding.
func (p *Proposal) EncodeTo(e *codec.Encoder) {
	p.Ballot.EncodeTo(e)
	encodeIDs(e, p.Txs)
	e.Raw(p.MeshHash[:])
	e.Raw(p.Signature[:])
}

// DecodeFrom reads the canonical encoding.
func (p *Proposal) DecodeFrom(d *codec.Decoder) {
	p.Ballot.DecodeFrom(d)
	p.Txs = decodeIDs[TransactionID](d, MaxProposalTxs)
	d.Raw(p.MeshHash[:])
	d.Raw(p.Signature[:])
}

// Reward is the share of one ATX in a block's subsidy and fees: Num/Den of a
// weight unit, relative to the block's other rewards.
type Reward struct {
	ATX ATXID
	Num uint64
	Den uint64
}

// EncodeTo appends the canonical encoding.
func (r *Reward) EncodeTo(e *codec.Encoder) {
	e.Raw(r.ATX[:])
	e.Compact(r.Num)
	e.Compact(r.Den)
}

// DecodeFrom reads the canonical encoding.
func (r *Reward) DecodeFrom(d *codec.Decoder) {
	d.Raw(r.ATX[:])
	r.Num = d.Compact()
	r.Den = d.Compact()
}

// Block is the content of a layer, the same for everybody who builds it from
// the same proposals.
type Block struct {
	Layer      Layer
	TickHeight uint64
	Rewards    []Reward // ascending ATX id
	Txs        []TransactionID
}

// EncodeTo appends the canonical encoding.
func (b *Block) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(b.Layer))
	e.Compact(b.TickHeight)
	codec.EncodeList(e, b.Rewards)
	encodeIDs(e, b.Txs)
}

// DecodeFrom reads the canonical encoding.
func (b *Block) DecodeFrom(d *codec.Decoder) {
	b.Layer = Layer(d.Compact32())
	b.TickHeight = d.Compact()
	b.Rewards = codec.DecodeList[Reward](d, MaxBlockRewards)
	b.Txs = decodeIDs[TransactionID](d, MaxBlockTxs)
}

// ID returns the block's name.
func (b *Block) ID() BlockID {
	h := Sum(codec.Encode(b))
	return BlockID(h[:len(BlockID{})])
}

// Decision is what a committee signs about a layer: the block, the state before
// and after it, and by whose weight and which beacon the committee is drawn, so
// that a certificate shows on its own who may sign it. The state before says
// which history the layer extends, so that "a layer is missing here" and "we
// disagree" are told apart without executing anything.
type Decision struct {
	Layer      Layer
	Electorate Hash32 // hash of the active set whose weights count
	Beacon     Beacon // of the epoch
	Parent     Hash32 // root of the state that the block is executed on
	Block      BlockID
	StateRoot  Hash32 // after the block
}

// EncodeTo appends the canonical encoding: also the bytes that are signed.
func (c *Decision) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(c.Layer))
	e.Raw(c.Electorate[:])
	e.Raw(c.Beacon[:])
	e.Raw(c.Parent[:])
	e.Raw(c.Block[:])
	e.Raw(c.StateRoot[:])
}

// DecodeFrom reads the canonical encoding.
func (c *Decision) DecodeFrom(d *codec.Decoder) {
	c.Layer = Layer(d.Compact32())
	d.Raw(c.Electorate[:])
	d.Raw(c.Beacon[:])
	d.Raw(c.Parent[:])
	d.Raw(c.Block[:])
	d.Raw(c.StateRoot[:])
}

// CertifySignature is one smesher's signature under a decision, with the proof of
// its seats in the committee. The proof is not signed: there is one random value.
type CertifySignature struct {
	ATX       ATXID // the signer's, targeting the layer's epoch
	Smesher   NodeID
	Proof     VRFSignature
	Signature Signature
}

// EncodeTo appends the canonical encoding.
func (s *CertifySignature) EncodeTo(e *codec.Encoder) {
	e.Raw(s.ATX[:])
	e.Raw(s.Smesher[:])
	e.Raw(s.Proof[:])
	e.Raw(s.Signature[:])
}

// DecodeFrom reads the canonical encoding.
func (s *CertifySignature) DecodeFrom(d *codec.Decoder) {
	d.Raw(s.ATX[:])
	d.Raw(s.Smesher[:])
	d.Raw(s.Proof[:])
	d.Raw(s.Signature[:])
}

// CertifyMessage carries one signature under a decision.
type CertifyMessage struct {
	Decision Decision
	By       CertifySignature
}

// EncodeTo appends the canonical encoding.
func (m *CertifyMessage) EncodeTo(e *codec.Encoder) {
	m.Decision.EncodeTo(e)
	m.By.EncodeTo(e)
}

// DecodeFrom reads the canonical encoding.
func (m *CertifyMessage) DecodeFrom(d *codec.Decoder) {
	m.Decision.DecodeFrom(d)
	m.By.DecodeFrom(d)
}

// Certificate is a decision with enough signatures to be applied.
type Certificate struct {
	Decision   Decision
	Signatures []CertifySignature // ascending smesher
}

// EncodeTo appends the canonical encoding.
func (c *Certificate) EncodeTo(e *codec.Encoder) {
	c.Decision.EncodeTo(e)
	codec.EncodeList(e, c.Signatures)
}

// DecodeFrom reads the canonical encoding.
func (c *Certificate) DecodeFrom(d *codec.Decoder) {
	c.Decision.DecodeFrom(d)
	c.Signatures = codec.DecodeList[CertifySignature](d, MaxCertificateSignatures)
}

// ActiveSet is the list of ATXs that count in an epoch, in ascending order.
type ActiveSet []ATXID

// EncodeTo appends the canonical encoding.
func (s ActiveSet) EncodeTo(e *codec.Encoder) { encodeIDs(e, s) }

// DecodeFrom reads the canonical encoding.
func (s *ActiveSet) DecodeFrom(d *codec.Decoder) { *s = decodeIDs[ATXID](d, MaxActiveSet) }

// Hash returns the name under which ballots declare the set.
func (s ActiveSet) Hash() Hash32 { return Sum(codec.Encode(s)) }
