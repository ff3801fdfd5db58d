package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"tweedle/protocol/mesh"
	"tweedle/protocol/syncer"
	"tweedle/protocol/tortoise"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// maxChain is how many layers are applied in one Step: the states of those that are executed stay here.
const maxChain = mesh.MaxDrafts / 2

// chain is where our history may be another one than the tortoise says.
type chain struct {
	from  types.Layer                    // what is before is as it says
	due   bool                           // something is to be looked at
	final []tortoise.State               // of layers from there on that may have left the tortoise, ascending
	lacks map[syncer.Name]bool           // what has to come first
	heard map[types.Layer]types.Decision // that certificates name, from there on
}

// doubt has our history looked at from a layer on.
func (c *chain) doubt(l types.Layer) {
	c.from, c.due = min(c.from, l), true
	clear(c.lacks)
}

// settled notes what is final. It may leave the tortoise before our history follows.
func (c *chain) settled(s tortoise.State, limit types.Layer) {
	if len(c.final) < int(limit) {
		c.final = append(c.final, s)
	}
	c.doubt(s.Layer)
}

// to has our history looked at from a layer on only: it is as the tortoise says before.
func (c *chain) to(l types.Layer) {
	c.from = l
	for len(c.final) > 0 && c.final[0].Layer < l {
		c.final = c.final[1:]
	}
	maps.DeleteFunc(c.heard, func(k types.Layer, _ types.Decision) bool { return k < l })
}

// arrived notes something that may have been lacking.
func (c *chain) arrived(n syncer.Name) {
	if c.lacks[n] {
		delete(c.lacks, n)
		c.due = true
	}
}

// maxUnbuilt is how many layers a certificate may take of what was agreed on and cannot be built here.
const maxUnbuilt = 2

// choice returns the block that a layer has, EmptyBlock if none. False while that is to come: its smeshers
// may agree on it yet, or agreed on what is not here, and others certify it. Where the tortoise abstains, what is applied
// stays.
func (m *Machine) choice(l types.Layer) (types.BlockID, bool) {
	if l < m.tortoise.First() {
		if i, ok := slices.BinarySearchFunc(m.chain.final, l, func(s tortoise.State, l types.Layer) int { return cmp.Compare(s.Layer, l) }); ok {
			return m.chain.final[i].Choice.Block, true
		}
		return m.blockIn(l), true
	}
	if c := m.tortoise.Opine(l); !c.Abstain {
		return c.Block, true
	}
	if d, ok := m.applied(l); ok {
		return d.Block, true
	}
	a := m.agree.of[l]
	return types.EmptyBlock, a == nil || a.ended && a.result == nil || a.decided && l+maxUnbuilt < m.layer
}

// blockIn returns the block that is applied in a layer, EmptyBlock if none.
func (m *Machine) blockIn(l types.Layer) types.BlockID {
	d, _ := m.applied(l) // none is the empty one
	return d.Block
}

// course returns what the layers before one come to: what is applied and stays, and what is to be applied on
// it. False if something of it is not here, or is to come.
func (m *Machine) course(end types.Layer) (on types.Decision, after []*mesh.Draft, whole bool) {
	l := m.tortoise.First()
	if len(m.chain.final) > 0 {
		l = min(l, m.chain.final[0].Layer)
	}
	l = max(l, m.chain.from)
	for ; l < end; l++ {
		block, known := m.choice(l)
		if !known {
			m.chain.to(l)
			return on, nil, false
		}
		if block != m.blockIn(l) {
			break
		}
	}
	m.chain.to(min(l, end))
	before := m.before(m.chain.from)
	if before == nil {
		return on, nil, false // the reader's error ends the Step
	}
	on = *before
	if !m.history.Has(on) && !m.recall(on) {
		return on, nil, false
	}
	last := on
	for ; l < end && len(after) < maxChain; l++ {
		block, known := m.choice(l)
		if !known {
			return on, after, false
		}
		if block == types.EmptyBlock {
			continue
		}
		draft := m.draftOf(l, block, last)
		if draft == nil {
			return on, after, false
		}
		last, after = draft.Decision, append(after, draft)
	}
	return on, after, l == end
}

// draftOf executes the block of a layer on what the layers before come to, nil if something of it is not here: it is
// asked for.
func (m *Machine) draftOf(l types.Layer, id types.BlockID, on types.Decision) *mesh.Draft {
	d, known := m.namedBy(l, id, on)
	if !known {
		return nil
	}
	d.Parent = on.StateRoot
	for _, k := range m.history.Drafts(l, id) {
		if k.Decision.Parent == d.Parent && k.Decision.Electorate == d.Electorate {
			return k
		}
	}
	block := m.read.block(id)
	if block == nil {
		return nil // its votes were counted, so it was here
	}
	content, names := m.content(block)
	for _, n := range names {
		if m.chain.lacks[n] = true; !m.handled(n) {
			m.sync.Want(n, Self, m.now.Add(m.cfg.Schedule.LayerDuration))
		}
	}
	if len(names) > 0 {
		return nil
	}
	out, err := m.history.Try(d.Parent, content)
	if err != nil {
		return nil
	}
	d.StateRoot = out.State.Root()
	draft := &mesh.Draft{Decision: d, Block: block, Txs: content.Txs, Outcome: out}
	m.keep(draft)
	return draft
}

// namedBy returns the decision for a block without what it builds on and leaves. By which electorate and beacon an
// epoch is decided its first block says; of that whoever decided for it, else it is as we have them.
func (m *Machine) namedBy(l types.Layer, id types.BlockID, on types.Decision) (types.Decision, bool) {
	epoch := m.cfg.Schedule.EpochOf(l)
	d := types.Decision{Layer: l, Block: id}
	by := func(o types.Decision) (types.Decision, bool) {
		d.Electorate, d.Beacon = o.Electorate, o.Beacon
		return d, true
	}
	if m.cfg.Schedule.EpochOf(on.Layer) == epoch {
		return by(on)
	}
	if o := m.chain.heard[l]; o.Block == id {
		return by(o)
	}
	if known := m.history.Drafts(l, id); len(known) > 0 {
		return by(known[0].Decision)
	}
	for _, s := range m.certify.Support(l) {
		if s.Decision.Block == id {
			return by(s.Decision)
		}
	}
	el := m.current(epoch)
	beacon, known := m.Beacon(epoch)
	if el == nil || !known {
		return d, false
	}
	return by(types.Decision{Electorate: el.ID, Beacon: beacon})
}

// align makes our history what the tortoise says, as far as it is here. Layers that it says are empty are taken back
// with the next one that is not: only what is applied on others says so to the store.
func (m *Machine) align() {
	if m.tortoise == nil || !m.chain.due || len(m.chain.lacks) > 0 {
		return
	}
	m.chain.due = false
	on, after, _ := m.course(m.layer + 2)
	if len(after) == 0 {
		return
	}
	path := m.history.After(on, after)
	if len(path.Undone) > 0 {
		m.event(Undone{
			From: m.history.Tip().Decision.Layer, To: m.chain.from - 1,
			Fault: fmt.Sprintf("layer %d came to something else: by a certificate, or by the weight of votes", m.chain.from),
		})
	}
	m.apply(path)
	m.chain.to(after[len(after)-1].Decision.Layer + 1)
	if len(after) == maxChain { // there may be more: others come in between
		m.chain.due = true
		m.wakeAt(m.now)
	}
}

// agreed tells what a layer came to: by our own agreement, or by a certificate.
func (m *Machine) agreed(l types.Layer, block types.BlockID, height uint64) {
	if m.result(l, block, height) {
		m.chain.doubt(l)
		m.agree.wake = time.Time{} // others may wait for it
	}
}

// content returns what a block does, and what of it is not here.
func (m *Machine) content(b *types.Block) (vm.Block, []syncer.Name) {
	content := vm.Block{Layer: b.Layer}
	names := m.txsMissing(b.Txs, max(maxMissing-m.missing, 1))
	shares, more := m.rewards(b, max(maxMissing-m.missing-len(names), 1))
	if names = append(names, more...); len(names) > 0 {
		m.missing += len(names)
		return content, names
	}
	for _, id := range b.Txs {
		tx, _ := m.tx(id)
		content.Txs = append(content.Txs, tx)
	}
	content.Rewards = shares
	return content, nil
}
