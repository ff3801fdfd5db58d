package sim

import (
	"fmt"
	"time"

	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// stranger signs for identities that nobody has heard of.
func (n *node) stranger(name string) core.Identity { return n.w.key(fmt.Sprint(n.peer, " ", name)) }

// unknownReferences sends messages that refer to things that are not there,
// without end, and never answers what they are.
type unknownReferences struct {
	honesty
	sent int
}

func (s *unknownReferences) layer(n *node, l types.Layer) {
	if l >= n.w.calm {
		return
	}
	for i := range 8 {
		s.sent++
		key := n.stranger(fmt.Sprint(s.sent))
		p := &types.Proposal{Ballot: types.Ballot{Layer: l, ATX: types.ATXID(types.Sum([]byte(n.peer), []byte{byte(i), byte(s.sent), byte(l)})), Smesher: key.NodeID()}}
		signProposal(key, p)
		m := core.Seal(key, types.ATXID{}, types.Decision{Layer: max(l, n.w.cfg.Schedule.FirstBallotLayer()), Electorate: types.Sum([]byte{byte(i)}, []byte(n.peer))})
		proposal, decision := codec.Encode(p), codec.Encode(m)
		for _, o := range n.links {
			n.push(o, core.TopicProposal, proposal)
			n.push(o, core.TopicDecision, decision)
		}
	}
}

func (*unknownReferences) serves(_, _ *node, a syncer.Ask) ([]byte, time.Duration, bool) {
	return nil, 0, a.Objects != nil
}

// madeUpIDs lists ATXs that do not exist in every epoch it is asked for.
type madeUpIDs struct{ honesty }

func (*madeUpIDs) serves(n, _ *node, a syncer.Ask) ([]byte, time.Duration, bool) {
	if a.Epochs == nil {
		return nil, 0, false
	}
	out := core.EpochsAnswer{}
	for e := a.Epochs.From; e <= a.Epochs.To && len(out.ATXs) < 4; e++ {
		var ids []types.ATXID
		for i := range 300 {
			ids = append(ids, types.ATXID(types.Sum([]byte(n.peer), []byte{byte(e), byte(i), byte(i >> 8), byte(n.w.rng.IntN(256))})))
		}
		out.ATXs = append(out.ATXs, ids)
	}
	return codec.Encode(&out), 0, true
}

// lyingPeer answers every question with something that is well formed and
// wrong: certificates that nobody signed, other objects than were asked for.
type lyingPeer struct{ honesty }

func (*lyingPeer) serves(n, _ *node, a syncer.Ask) ([]byte, time.Duration, bool) {
	switch n.w.rng.IntN(3) {
	case 0:
		return []byte{1, 2, 3}, 0, true
	case 1:
		return nil, 0, false
	}
	if a.Layers == nil {
		return nil, 0, false
	}
	key := n.stranger("liar")
	c := types.Certificate{Decision: types.Decision{Layer: a.Layers.From + 1, Electorate: types.Hash32{1}, Parent: n.store.tip().decision.StateRoot, StateRoot: types.Hash32{9}}}
	c.Signatures = []types.CertifySignature{core.Seal(key, types.ATXID{}, c.Decision).By}
	return codec.Encode(&core.LayersAnswer{Certs: []types.Certificate{c}}), 0, true
}

// emptyPeer answers as if the network had just begun.
type emptyPeer struct {
	honesty
	empty *memory
}

func (s *emptyPeer) serves(n, _ *node, a syncer.Ask) ([]byte, time.Duration, bool) {
	n.acted = true
	if s.empty == nil {
		s.empty = newMemory(n.w.cfg.VM, n.w.sums)
	}
	raw, err := core.Serve(s.empty.library(), codec.Encode(core.RequestOf(a)))
	return raw, 0, err == nil
}

// staleCertificates answers with the oldest certificates, over and over.
type staleCertificates struct{ honesty }

func (*staleCertificates) serves(n, _ *node, a syncer.Ask) ([]byte, time.Duration, bool) {
	if a.Layers == nil {
		return nil, 0, false
	}
	n.acted = true
	certs, _ := n.store.Certificates(a.Layers.From, 1)
	var out core.LayersAnswer
	out.Certs = certs
	return codec.Encode(&out), 0, true
}

// junkTransactions floods with transactions that nobody can pay for.
type junkTransactions struct {
	honesty
	sent uint64
}

func (s *junkTransactions) layer(n *node, l types.Layer) {
	if l >= n.w.calm {
		return
	}
	for range 20 {
		s.sent++
		key, err := signing.NewSigner(signing.SeedFrom(fmt.Sprint(n.peer, s.sent)), n.w.cfg.Activation.Network)
		if err != nil {
			panic(err)
		}
		tx := vm.Spawn(key, 0, s.sent)
		for _, o := range n.links {
			n.push(o, core.TopicTx, tx)
		}
	}
}

// cheapPoets floods with PoET proofs of little work that no ATX refers to.
type cheapPoets struct {
	honesty
	sent byte
}

func (s *cheapPoets) layer(n *node, l types.Layer) {
	if l >= n.w.calm {
		return
	}
	for range 10 {
		s.sent++
		m := &types.PoetProofMessage{Statement: types.Sum([]byte(n.peer), []byte{s.sent, byte(l)}), PoetID: types.NodeID{1}, RoundID: "1"}
		m.Proof.NumLeaves = n.w.cfg.Activation.TickSize
		m.Proof.Root = poetRoot(m.Statement, m.Proof.NumLeaves)
		raw := codec.Encode(m)
		for _, o := range n.links {
			n.push(o, core.TopicPoet, raw)
		}
	}
}

// mutePeer passes nothing on and answers nothing.
type mutePeer struct{ honesty }

func (*mutePeer) passes(_, _ *node, _ core.Topic, _ []byte, _ bool) (time.Duration, bool) {
	return 0, false
}
func (*mutePeer) serves(_, _ *node, _ syncer.Ask) ([]byte, time.Duration, bool) { return nil, 0, true }
