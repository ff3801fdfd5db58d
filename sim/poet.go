package sim

import (
	"slices"

	"tweedle/protocol/core"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// round is one round of the network's PoET.
type round struct {
	challenges map[*node]types.PoetChallenge
	places     map[*node]uint64
	members    [][32]byte
	msg        *types.PoetProofMessage
}

// poet is the PoET of the network. Its rounds are by the epoch of the ATXs that
// they serve.
type poet struct{ rounds map[types.Epoch]*round }

// open takes the challenges of all smeshers that run.
func (p *poet) open(w *world, e types.Epoch) {
	if p.rounds == nil {
		p.rounds = make(map[types.Epoch]*round)
	}
	r := &round{challenges: make(map[*node]types.PoetChallenge), places: make(map[*node]uint64)}
	for _, n := range w.nodes {
		if n.key == nil || n.twin != nil || !n.up {
			continue
		}
		c := types.PoetChallenge{PublishEpoch: e, PositioningATX: w.cfg.Activation.Golden, PreviousATX: n.last}
		if id, ok := n.m.Highest(e); ok {
			c.PositioningATX = id
		}
		if n.last.IsZero() {
			c.InitialPost = &types.PostProof{Nonce: uint32(n.i)}
		}
		r.challenges[n], r.places[n] = c, uint64(len(r.members))
		r.members = append(r.members, c.Hash())
	}
	p.rounds[e] = r
}

// deliver gives the proof of a round to two nodes, which pass it on.
func (p *poet) deliver(w *world, e types.Epoch) {
	r := p.rounds[e]
	if r == nil || len(r.members) == 0 {
		return
	}
	statement := types.Hash32(merkle.Root(r.members))
	leaves := 10 * w.cfg.Activation.TickSize
	r.msg = &types.PoetProofMessage{
		Proof: types.PoetProof{Root: poetRoot(statement, leaves), NumLeaves: leaves}, PoetID: types.NodeID{1}, RoundID: e.String(), Statement: statement,
	}
	honest := slices.DeleteFunc(w.honest(), func(n *node) bool { return !n.up })
	for range min(2, len(honest)) {
		if n := honest[w.rng.IntN(len(honest))]; n.up {
			m, err := core.Check(n.crypto, core.TopicPoet, codec.Encode(r.msg))
			if err != nil {
				panic(err)
			}
			n.step(core.Heard{From: core.Self, Message: m})
		}
	}
}

// atx makes a node's ATX from a round, nil if it was not in it.
func (p *poet) atx(n *node, e types.Epoch) *types.ATX {
	r := p.rounds[e]
	if r == nil || r.msg == nil {
		return nil
	}
	c, ok := r.challenges[n]
	if !ok || n.made[e] != (types.ATXID{}) {
		return nil
	}
	post := types.NIPost{NumMembers: uint64(len(r.members)), PoetProof: r.msg.Proof.Ref()}
	for _, h := range merkle.Proof(r.members, r.places[n]) {
		post.Membership = append(post.Membership, h)
	}
	post.Posts = []types.SubPost{{MembershipLeafIndex: r.places[n], NumUnits: n.units, Post: types.PostProof{Nonce: 1}}}
	a := &types.ATX{
		PublishEpoch: e, PositioningATX: c.PositioningATX, Coinbase: types.Address{20: 1, 23: byte(n.i)}, VRFNonce: uint64(n.i),
		SmesherID: n.key.NodeID(), NIPosts: []types.NIPost{post},
	}
	if c.InitialPost != nil {
		a.Initial = &types.InitialATX{CommitmentATX: n.w.cfg.Activation.Golden, Post: *c.InitialPost}
	} else {
		a.PreviousATXs = []types.ATXID{c.PreviousATX}
	}
	n.seal(a)
	return a
}

// seal signs an ATX.
func (n *node) seal(a *types.ATX) {
	id := a.ID()
	a.Signature = n.key.Sign(signing.ATX, id[:])
}
