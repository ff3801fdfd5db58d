package sim

import (
	"slices"
	"time"

	"tweedle/protocol/core"
	"tweedle/protocol/tortoise"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// flippedBallots votes in each ballot against what it sees in the last layers: for no block where
// there is one, for the block where it is not sure.
type flippedBallots struct{ honesty }

// flipped is about how many layers it lies.
const flipped = 4

func (*flippedBallots) signs(n *node, s core.Sign) bool {
	p, ok := core.Content(s.Message).(*types.Proposal)
	if !ok {
		return false
	}
	lie := *p
	b := &lie.Ballot
	first := n.w.cfg.Schedule.FirstBallotLayer()
	base, known := n.store.says(b.Votes.Base, first)
	says, ok := n.store.saysBallot(b, first)
	if !known || !ok {
		return false
	}
	for i := max(0, len(says)-flipped); i < len(says); i++ {
		l := first + types.Layer(i)
		switch c := says[i]; {
		case c.Block != types.EmptyBlock:
			says[i] = tortoise.Choice{}
		case n.store.at(l) < len(n.store.layers) && n.store.layers[n.store.at(l)].decision.Layer == l:
			d := n.store.layers[n.store.at(l)].decision
			says[i] = tortoise.Choice{Block: d.Block, Height: n.store.blocks[d.Block].TickHeight}
		}
	}
	b.Votes = difference(b.Votes.Base, base, says, first)
	b.Opinion = opinionOf(says)
	n.acted = n.acted || b.Opinion != p.Ballot.Opinion
	n.propose(&lie)
	return true
}

// says returns what a stored ballot says about each layer from one on; of none, nothing.
func (s *memory) says(id types.BallotID, first types.Layer) ([]tortoise.Choice, bool) {
	if id == (types.BallotID{}) {
		return nil, true
	}
	b := s.ballots[id]
	if b == nil {
		return nil, false
	}
	return s.saysBallot(b, first)
}

// saysBallot fails if a base of it is not here: its opinion is another one then.
func (s *memory) saysBallot(b *types.Ballot, first types.Layer) ([]tortoise.Choice, bool) {
	base, ok := s.says(b.Votes.Base, first)
	if !ok {
		return nil, false
	}
	says := append(slices.Clone(base), make([]tortoise.Choice, int(b.Layer-first)-len(base))...)
	for _, v := range b.Votes.Against {
		says[v.Layer-first] = tortoise.Choice{}
	}
	for _, v := range b.Votes.Support {
		says[v.Layer-first] = tortoise.Choice{Block: v.Block, Height: v.Height}
	}
	for _, l := range b.Votes.Abstain {
		says[l-first] = tortoise.Choice{Abstain: true}
	}
	return says, opinionOf(says) == b.Opinion
}

// difference writes what a ballot says against what its base says.
func difference(id types.BallotID, base, says []tortoise.Choice, first types.Layer) types.Votes {
	v := types.Votes{Base: id}
	for i, c := range says {
		l := first + types.Layer(i)
		if i < len(base) {
			if base[i] == c {
				continue
			}
			if base[i].Block != types.EmptyBlock && !c.Abstain || base[i].Abstain && c == (tortoise.Choice{}) {
				v.Against = append(v.Against, types.Vote{Block: base[i].Block, Layer: l, Height: base[i].Height})
			}
		}
		switch {
		case c.Abstain:
			v.Abstain = append(v.Abstain, l)
		case c.Block != types.EmptyBlock:
			v.Support = append(v.Support, types.Vote{Block: c.Block, Layer: l, Height: c.Height})
		}
	}
	return v
}

// twoBallots makes a second ballot in a layer, and shows it to nobody but as what its next ones build
// on.
type twoBallots struct {
	honesty
	second *types.Ballot
}

func (*twoBallots) provable() bool { return true }

func (t *twoBallots) signs(n *node, s core.Sign) bool {
	p, ok := core.Content(s.Message).(*types.Proposal)
	if !ok || p.Ballot.Layer+4 > n.w.cfg.Schedule.First(n.w.last()+1) { // at the end all are to know of it
		return false
	}
	first := n.w.cfg.Schedule.FirstBallotLayer()
	says, ok := n.store.saysBallot(&p.Ballot, first)
	if !ok || len(says) == 0 {
		return false
	}
	if t.second != nil && p.Ballot.Layer <= t.second.Layer+4 { // an older one need not be read
		base, _ := n.store.saysBallot(t.second, first)
		n.acted = true
		n.buildOn(t.second.ID(), base, p, says)
		return true
	}
	base, _ := n.store.says(p.Ballot.Votes.Base, first)
	last := len(says) - 1
	says[last] = tortoise.Choice{Abstain: !says[last].Abstain}
	second := p.Ballot
	second.Votes, second.Opinion = difference(p.Ballot.Votes.Base, base, says, first), opinionOf(says)
	second.Signature = n.key.Sign(signing.Ballot, second.SignedBytes())
	n.store.ballots[second.ID()], t.second = &second, &second
	return false
}

// buildOn writes a proposal's votes against another base, and shows it to all.
func (n *node) buildOn(id types.BallotID, base []tortoise.Choice, p *types.Proposal, says []tortoise.Choice) {
	lie := *p
	lie.Ballot.Votes = difference(id, base, says, n.w.cfg.Schedule.FirstBallotLayer())
	n.propose(&lie)
}

func opinionOf(says []tortoise.Choice) (h types.Hash32) {
	for _, c := range says {
		h = c.After(h)
	}
	return h
}

// hiddenBallots shows its proposals of odd layers to nobody, and has those of even ones build on
// them: all have to ask for them.
type hiddenBallots struct{ honesty }

func (*hiddenBallots) passes(n, _ *node, t core.Topic, raw []byte, own bool) (time.Duration, bool) {
	if t != core.TopicProposal || !own {
		return 0, true
	}
	var p types.Proposal
	if codec.Decode(raw, &p) != nil || p.Ballot.Layer%2 == 0 {
		return 0, true
	}
	return 0, false
}

func (*hiddenBallots) signs(n *node, s core.Sign) bool {
	p, ok := core.Content(s.Message).(*types.Proposal)
	if !ok || p.Ballot.Layer%2 == 1 {
		return false
	}
	first := n.w.cfg.Schedule.FirstBallotLayer()
	says, ok := n.store.saysBallot(&p.Ballot, first)
	for l := p.Ballot.Layer - 1; ok && l+8 > p.Ballot.Layer; l -= 2 {
		i := slices.IndexFunc(n.store.byLayer[l], func(b *types.Ballot) bool { return b.Smesher == p.Ballot.Smesher })
		if i < 0 {
			continue
		}
		hidden := n.store.byLayer[l][i]
		base, known := n.store.saysBallot(hidden, first)
		if !known {
			continue
		}
		n.acted = true
		n.buildOn(hidden.ID(), base, p, says)
		return true
	}
	return false
}
