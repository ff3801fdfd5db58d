package sim

import (
	"fmt"
	"time"

	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// strategy is how a hostile node differs from an honest one: it runs an honest
// core, and changes what comes out of it. Each lie has a file of its own.
type strategy interface {
	name() string
	// provable tells that all honest nodes must know of it in the end.
	provable() bool
	// signs handles a message that binds the node; false leaves it to the guard.
	signs(n *node, s core.Sign) bool
	// passes tells whether a message goes to a peer, and how much later.
	passes(n, to *node, t core.Topic, raw []byte, own bool) (time.Duration, bool)
	// serves answers a request; false leaves it to the store, no bytes are silence.
	serves(n, asker *node, a syncer.Ask) (raw []byte, delay time.Duration, handled bool)
	// publishes handles the node's ATX; false leaves it to honesty.
	publishes(n *node, a *types.ATX) bool
	// layer is called once in each layer.
	layer(n *node, l types.Layer)
}

// honesty is what a strategy does where it says nothing else.
type honesty struct{ called string }

func (h honesty) name() string                   { return h.called }
func (honesty) provable() bool                   { return false }
func (honesty) signs(*node, core.Sign) bool      { return false }
func (honesty) publishes(*node, *types.ATX) bool { return false }
func (honesty) layer(*node, types.Layer)         {}
func (honesty) passes(_, _ *node, _ core.Topic, _ []byte, _ bool) (time.Duration, bool) {
	return 0, true
}
func (honesty) serves(_, _ *node, _ syncer.Ask) ([]byte, time.Duration, bool) { return nil, 0, false }

// names of the strategies: of smeshers, and of peers without weight.
type names struct{ smeshers, strangers []string }

func strategyNames() names {
	return names{
		smeshers: []string{
			"two-atxs", "withheld-atx", "late-atx", "ground-coinbase", "wrong-label", "two-proposals", "edge-proposal", "split-votes", "withheld-votes", "silent", "twins",
			"beacon-withheld", "beacon-late", "beacon-split", "beacon-two-faces", "beacon-ground", "split-hare", "edge-hare", "late-hare", "flipped-ballots", "hidden-ballots", "two-ballots",
		},
		strangers: []string{"unknown-references", "made-up-ids", "lying-peer", "empty-peer", "stale-certificates", "junk-transactions", "cheap-poets", "mute-peer"},
	}
}

func newStrategy(name string) strategy {
	h := honesty{name}
	switch name {
	case "two-atxs":
		return &twoATXs{honesty: h}
	case "withheld-atx":
		return &withheldATX{honesty: h}
	case "late-atx":
		return &lateATX{honesty: h}
	case "ground-coinbase":
		return &groundCoinbase{honesty: h}
	case "wrong-label":
		return &wrongLabel{honesty: h}
	case "two-proposals":
		return &twoProposals{honesty: h}
	case "edge-proposal":
		return &edgeProposal{honesty: h}
	case "split-votes":
		return &splitVotes{honesty: h}
	case "withheld-votes":
		return &withheldVotes{honesty: h}
	case "silent":
		return &silent{honesty: h}
	case "twins":
		return &twins{honesty: h}
	case "beacon-withheld":
		return &beaconWithheld{honesty: h}
	case "beacon-late":
		return &beaconLate{honesty: h}
	case "beacon-split":
		return &beaconSplit{honesty: h}
	case "beacon-two-faces":
		return &beaconTwoFaces{honesty: h}
	case "beacon-ground":
		return &beaconGround{honesty: h}
	case "split-hare":
		return &splitHare{honesty: h}
	case "edge-hare":
		return &edgeHare{honesty: h}
	case "late-hare":
		return &lateHare{honesty: h}
	case "flipped-ballots":
		return &flippedBallots{honesty: h}
	case "hidden-ballots":
		return &hiddenBallots{honesty: h}
	case "two-ballots":
		return &twoBallots{honesty: h}
	case "unknown-references":
		return &unknownReferences{honesty: h}
	case "made-up-ids":
		return &madeUpIDs{honesty: h}
	case "lying-peer":
		return &lyingPeer{honesty: h}
	case "empty-peer":
		return &emptyPeer{honesty: h}
	case "stale-certificates":
		return &staleCertificates{honesty: h}
	case "junk-transactions":
		return &junkTransactions{honesty: h}
	case "cheap-poets":
		return &cheapPoets{honesty: h}
	case "mute-peer":
		return &mutePeer{honesty: h}
	}
	panic(fmt.Sprintf("sim: no strategy %q", name))
}

// half tells to which of two halves a peer belongs in a layer.
func half(o *node, l types.Layer) bool { return types.Sum([]byte{byte(o.i), byte(l)})[0]&1 == 0 }

// push gives a message to a peer as if it were gossip.
func (n *node) push(o *node, t core.Topic, raw []byte) {
	if n.reaches(o) {
		n.deliver(o, n.w.message(t, raw), n.w.latency())
	}
}

// propose signs a proposal and its ballot, and shows it to all peers.
func (n *node) propose(p *types.Proposal) {
	signProposal(n.key, p)
	raw := codec.Encode(p)
	for _, o := range n.links {
		n.push(o, core.TopicProposal, raw)
	}
}

func signProposal(key core.Identity, p *types.Proposal) {
	p.Ballot.Signature = key.Sign(signing.Ballot, p.Ballot.SignedBytes())
	p.Signature = key.Sign(signing.Proposal, p.SignedBytes())
}
