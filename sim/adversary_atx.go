package sim

import (
	"time"

	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// twoATXs publishes three ATXs for one proof, the coinbase ground so that each
// looks better than the one before, one to each third of its peers: those who
// have two of them must still take what builds on the third.
type twoATXs struct{ honesty }

func (*twoATXs) provable() bool { return true }

func (s *twoATXs) publishes(n *node, a *types.ATX) bool {
	variants := []*types.ATX{a}
	for grind := byte(1); len(variants) < 3 && grind < 255; grind++ {
		next := *a
		next.Coinbase[22] = grind
		last, id := variants[len(variants)-1].ID(), next.ID()
		if string(id[:]) < string(last[:]) || grind > 200 {
			n.seal(&next)
			variants = append(variants, &next)
		}
	}
	for i, o := range n.links {
		n.push(o, core.TopicATX, codec.Encode(variants[i%len(variants)]))
	}
	n.acted = true
	n.last, n.made[a.PublishEpoch] = a.ID(), a.ID()
	n.step(core.Heard{From: core.Self, Message: core.Own(a)})
	return true
}

func (s *twoATXs) passes(_, _ *node, t core.Topic, _ []byte, own bool) (time.Duration, bool) {
	return 0, t != core.TopicATX || !own
}

// groundCoinbase grinds its coinbase, which nothing binds, for the lowest id: of equally high
// ATXs all position on its own. It gives it to half of its peers, and goes silent.
type groundCoinbase struct{ honesty }

func (*groundCoinbase) publishes(n *node, a *types.ATX) bool {
	best, lowest := *a, a.ID()
	for grind := range 512 {
		next := *a
		next.Coinbase[21], next.Coinbase[22] = byte(grind>>8), byte(grind)
		if id := next.ID(); string(id[:]) < string(lowest[:]) {
			best, lowest = next, id
		}
	}
	n.seal(&best)
	n.acted = true
	n.last, n.made[a.PublishEpoch] = lowest, lowest
	for i, o := range n.links {
		if i%2 == 0 {
			n.push(o, core.TopicATX, codec.Encode(&best))
		}
	}
	return true
}

func (*groundCoinbase) signs(*node, core.Sign) bool { return true }

func (*groundCoinbase) serves(_, _ *node, _ syncer.Ask) ([]byte, time.Duration, bool) {
	return nil, 0, true
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

// lateATX publishes its ATX at the cut, less what its check takes at most nodes,
// so that some still count it and others do not.
type lateATX struct{ honesty }

func (*lateATX) publishes(n *node, a *types.ATX) bool {
	s := n.w.cfg.Schedule
	n.acted = true
	n.last, n.made[a.PublishEpoch] = a.ID(), a.ID()
	n.w.at(s.EpochStart(a.PublishEpoch+1).Add(-s.EpochDuration()/20-n.w.faults.Latency-100*time.Millisecond), func() {
		for _, o := range n.links {
			n.push(o, core.TopicATX, codec.Encode(a))
		}
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
