package sim

import (
	"time"

	"tweedle/protocol/core"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// twoATXs publishes two ATXs for one proof, the coinbase ground so that both
// look good, one to each half of its peers, and its own core has only one.
type twoATXs struct {
	honesty
	halves map[types.Hash32]bool
}

func (*twoATXs) provable() bool { return true }

func (s *twoATXs) publishes(n *node, a *types.ATX) bool {
	second := *a
	for grind := byte(1); ; grind++ { // an id below the first one's
		second.Coinbase[22] = grind
		if id, old := second.ID(), a.ID(); string(id[:]) < string(old[:]) || grind == 255 {
			break
		}
	}
	n.seal(&second)
	for i, o := range n.links {
		raw := codec.Encode(a)
		if i%2 == 0 {
			raw = codec.Encode(&second)
		}
		n.push(o, core.TopicATX, raw)
	}
	n.acted = true
	n.last, n.made[a.PublishEpoch] = a.ID(), a.ID()
	n.step(core.Heard{From: core.Self, Message: core.Own(a)})
	return true
}

func (s *twoATXs) passes(_, _ *node, t core.Topic, _ []byte, own bool) (time.Duration, bool) {
	return 0, t != core.TopicATX || !own
}

// withheldATX makes its ATX and publishes it an epoch later, when the layers it
// would have counted in are decided.
type withheldATX struct{ honesty }

func (*withheldATX) publishes(n *node, a *types.ATX) bool {
	n.acted = true
	n.last, n.made[a.PublishEpoch] = a.ID(), a.ID()
	n.w.after(n.w.cfg.Schedule.EpochDuration()*5/4, func() { n.step(core.Heard{From: core.Self, Message: core.Own(a)}) })
	return true
}

// lateATX publishes its ATX at the cut, when some nodes still count it and
// others do not.
type lateATX struct{ honesty }

func (*lateATX) publishes(n *node, a *types.ATX) bool {
	s := n.w.cfg.Schedule
	n.acted = true
	n.last, n.made[a.PublishEpoch] = a.ID(), a.ID()
	n.w.at(s.EpochStart(a.PublishEpoch+1).Add(-s.EpochDuration()/20-n.w.faults.Latency), func() {
		n.step(core.Heard{From: core.Self, Message: core.Own(a)})
	})
	return true
}

// wrongLabel has a few labels that do not pass in its proof of space: some
// nodes look at them, most do not.
type wrongLabel struct{ honesty }

func (*wrongLabel) provable() bool { return true }

func (*wrongLabel) publishes(n *node, a *types.ATX) bool {
	a.NIPosts[0].Posts[0].Post.Indices = []byte{byte(n.w.rng.IntN(labels)), byte(n.w.rng.IntN(labels)), byte(n.w.rng.IntN(labels))}
	n.seal(a)
	n.acted = true
	n.last, n.made[a.PublishEpoch] = a.ID(), a.ID()
	for _, o := range n.links {
		n.push(o, core.TopicATX, codec.Encode(a))
	}
	n.step(core.Heard{From: core.Self, Message: core.Own(a)})
	return true
}
