package types

import "tweedle/values/codec"

// Limits of a PoET proof on the wire (reference/poet.md 1.5).
const (
	MaxPoetLeaves = 150
	MaxPoetNodes  = 5400
	// MaxPoetRoundID is in characters; round ids are decimal epoch numbers.
	MaxPoetRoundID = 32
)

// PoetProof is a proof of sequential work: what the verifier of package posw
// checks against a statement. Its encoding is the reference's.
type PoetProof struct {
	Root   Hash32
	Leaves []Hash32 // the proven labels, ascending index
	Nodes  []Hash32 // the siblings, depth first
	// NumLeaves is the work done, in leaves.
	NumLeaves uint64
}

// EncodeTo appends the canonical encoding. The root and every element carry a
// length prefix, as the reference's byte slices do.
func (p *PoetProof) EncodeTo(e *codec.Encoder) {
	e.ByteSlice(p.Root[:])
	encodePrefixed(e, p.Leaves)
	encodePrefixed(e, p.Nodes)
	e.Compact(p.NumLeaves)
}

// DecodeFrom reads the canonical encoding.
func (p *PoetProof) DecodeFrom(d *codec.Decoder) {
	decodeHash(d, &p.Root)
	p.Leaves = decodePrefixed(d, MaxPoetLeaves)
	p.Nodes = decodePrefixed(d, MaxPoetNodes)
	p.NumLeaves = d.Compact()
}

// Ref returns the proof's content address, which is also the challenge of the
// PoSTs that follow it.
func (p *PoetProof) Ref() PoetProofRef { return PoetProofRef(Sum(codec.Encode(p))) }

// PoetProofMessage is a proof with what it proves and who made it: what
// gateways receive, nodes gossip, store and serve. The PoET's name is not
// authenticated; the work is.
type PoetProofMessage struct {
	Proof     PoetProof
	PoetID    NodeID
	RoundID   string
	Statement Hash32 // root of the round's membership tree
}

// EncodeTo appends the canonical encoding.
func (m *PoetProofMessage) EncodeTo(e *codec.Encoder) {
	m.Proof.EncodeTo(e)
	e.Raw(m.PoetID[:])
	e.String(m.RoundID)
	e.Raw(m.Statement[:])
}

// DecodeFrom reads the canonical encoding.
func (m *PoetProofMessage) DecodeFrom(d *codec.Decoder) {
	m.Proof.DecodeFrom(d)
	d.Raw(m.PoetID[:])
	m.RoundID = d.String(MaxPoetRoundID)
	d.Raw(m.Statement[:])
}

func decodeHash(d *codec.Decoder, h *Hash32) {
	if n := d.Count(len(h)); n != len(h) {
		d.Fail(codec.ErrRange)
		return
	}
	d.Raw(h[:])
}

func encodePrefixed(e *codec.Encoder, hs []Hash32) {
	e.Compact(uint64(len(hs)))
	for i := range hs {
		e.ByteSlice(hs[i][:])
	}
}

func decodePrefixed(d *codec.Decoder, limit int) []Hash32 {
	n := d.Count(limit)
	var hs []Hash32
	for range n {
		var h Hash32
		decodeHash(d, &h)
		if d.Err() != nil {
			return nil
		}
		hs = append(hs, h)
	}
	return hs
}
