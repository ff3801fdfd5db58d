package sim

import (
	"time"

	"tweedle/protocol/core"
	"tweedle/protocol/hare"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// splitHare says two things in each round of Hare, at the last moment of it: one to each
// half of its peers, who can tell each other only when the round is over.
type splitHare struct{ honesty }

func (*splitHare) provable() bool { return true }

func (*splitHare) signs(n *node, s core.Sign) bool {
	m, ok := core.Content(s.Message).(*hare.Message)
	if !ok {
		return false
	}
	second := *m
	if second.Set, second.Ref = nil, hare.SetRef(nil); second.Says() == m.Says() {
		second.Set, second.Ref = []types.ProposalID{{1}}, hare.SetRef([]types.ProposalID{{1}})
	}
	second.Signature = n.key.Sign(signing.Hare, hare.SignedBytes(m.Layer, m.Round, second.Says()))
	n.acted = true
	n.atTheEdge(m.Layer, m.Round, func(o *node) *hare.Message {
		if half(o, m.Layer) {
			return &second
		}
		return m
	})
	return true
}

// edgeHare speaks in Hare to one half of its peers, at the last moment of each round.
type edgeHare struct{ honesty }

func (*edgeHare) signs(n *node, s core.Sign) bool {
	m, ok := core.Content(s.Message).(*hare.Message)
	if !ok {
		return false
	}
	n.acted = true
	n.atTheEdge(m.Layer, m.Round, func(o *node) *hare.Message {
		if half(o, m.Layer) {
			return nil
		}
		return m
	})
	return true
}

// lateHare says in each round of Hare what it should have said one round before, or two.
type lateHare struct{ honesty }

func (*lateHare) signs(n *node, s core.Sign) bool {
	m, ok := core.Content(s.Message).(*hare.Message)
	if !ok {
		return false
	}
	n.acted = true
	n.w.after(n.w.cfg.Hare.Round*time.Duration(1+n.w.rng.IntN(2)), func() {
		for _, o := range n.links {
			n.push(o, core.TopicHare, codec.Encode(m))
		}
	})
	return true
}

// atTheEdge has peers hear a message of a round a millisecond before it ends there; nil is
// none.
func (n *node) atTheEdge(l types.Layer, r hare.Round, says func(*node) *hare.Message) {
	for _, o := range n.links {
		m := says(o)
		if m == nil {
			continue
		}
		at := n.w.cfg.Schedule.LayerStart(l).Add(n.w.cfg.Hare.Ends(r) - o.skew - time.Millisecond)
		n.w.at(at, func() {
			if n.reaches(o) {
				n.deliver(o, n.w.message(core.TopicHare, codec.Encode(m)), 0)
			}
		})
	}
}
