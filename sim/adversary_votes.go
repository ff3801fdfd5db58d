package sim

import (
	"time"

	"tweedle/protocol/core"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// twoProposals signs two proposals for a layer and gives one to each half.
type twoProposals struct{ honesty }

func (*twoProposals) provable() bool { return true }

func (*twoProposals) signs(n *node, s core.Sign) bool {
	p, ok := core.Content(s.Message).(*types.Proposal)
	if !ok {
		return false
	}
	second := *p
	second.MeshHash[0]++
	second.Signature = n.key.Sign(signing.Proposal, second.SignedBytes())
	n.acted = true
	for i, o := range n.links {
		raw := codec.Encode(p)
		if i%2 == 0 {
			raw = codec.Encode(&second)
		}
		n.push(o, core.TopicProposal, raw)
	}
	return true
}

// edgeProposal has its proposals arrive a moment before the end of the window at
// one half of its peers, too late to be passed on in time, and after it at the
// other half.
type edgeProposal struct{ honesty }

func (*edgeProposal) signs(n *node, s core.Sign) bool {
	p, ok := core.Content(s.Message).(*types.Proposal)
	if !ok || p.Ballot.Layer >= n.w.calm {
		return false
	}
	l := p.Ballot.Layer
	m := n.w.message(core.TopicProposal, codec.Encode(p))
	n.acted = true
	n.w.at(n.w.cfg.Schedule.LayerStart(l).Add(n.w.cfg.Hare.Delay-time.Millisecond), func() {
		for _, o := range n.links {
			delay := time.Millisecond / 2
			if half(o, l) {
				delay = n.w.faults.Latency
			}
			if n.reaches(o) {
				n.deliver(o, m, delay)
			}
		}
	})
	return true
}

// splitVotes signs one decision for one half and another for the other.
type splitVotes struct{ honesty }

func (*splitVotes) provable() bool { return true }

func (*splitVotes) signs(n *node, s core.Sign) bool {
	m, ok := core.Content(s.Message).(*types.CertifyMessage)
	if !ok {
		return false
	}
	second := *m
	second.Decision.Block[0]++
	second.By.Signature = n.key.Sign(signing.Certify, codec.Encode(&second.Decision))
	n.acted = true
	for i, o := range n.links {
		raw := codec.Encode(m)
		if i%2 == 0 {
			raw = codec.Encode(&second)
		}
		n.push(o, core.TopicDecision, raw)
	}
	return true
}

// withheldVotes signs decisions and gives the signatures away two layers later,
// when others may have gone on without the layer.
type withheldVotes struct{ honesty }

func (*withheldVotes) signs(n *node, s core.Sign) bool {
	m, ok := core.Content(s.Message).(*types.CertifyMessage)
	if !ok {
		return false
	}
	n.acted = true
	n.w.after(n.w.cfg.Schedule.LayerDuration*3/2, func() {
		for _, o := range n.links {
			n.push(o, core.TopicDecision, codec.Encode(m))
		}
	})
	return true
}

// silent takes part in nothing that it has weight for.
type silent struct{ honesty }

func (*silent) signs(*node, core.Sign) bool { return true }
