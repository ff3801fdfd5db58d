package sim

import (
	"fmt"
	"slices"

	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/values/types"
)

// happened notes an event of a node, and looks at the history that it makes.
func (n *node) happened(e core.Event) {
	w := n.w
	if w.opts.planted != nil {
		w.opts.planted(n, e)
	}
	switch e := e.(type) {
	case core.Applied:
		d := e.Certificate.Decision
		w.logf(n, "applies layer %d on %d: block %s, %d txs, state %s, %d signatures",
			d.Layer, e.Base, d.Block.Short(), len(e.Txs), d.StateRoot.Short(), len(e.Certificate.Signatures))
		if n.bad == nil {
			w.decided[d.Layer] = d
		}
		n.supply(e)
	case core.Undone:
		w.logf(n, "takes back layers %d to %d: %s", e.To+1, e.From, e.Fault)
		if n.bad == nil {
			w.result.Undone += int(e.From - e.To)
			if e.To < n.voted {
				w.violated(n, "takes back layers that are verified: up to %d", n.voted)
			}
			if e.Fault == "" {
				w.violated(n, "takes back layers and names no fault")
			}
		}
	case core.Caught:
		w.logf(n, "catches %s: %s", e.Proof.Smesher.Short(), e.Proof.Kind)
		for _, o := range w.nodes {
			if o.bad == nil && slices.ContainsFunc(o.identities(), func(id core.Identity) bool { return id.NodeID() == e.Proof.Smesher }) {
				w.violated(n, "convicts honest %s of %s", o.peer, e.Proof.Kind)
			}
		}
	case core.BeaconKnown:
		w.logf(n, "has beacon %s of epoch %d", e.Beacon, e.Epoch)
		if n.bad == nil {
			n.oneBeacon(e)
		}
	case core.BeaconFailed:
		w.logf(n, "has no beacon of epoch %d", e.Epoch)
	case core.Disputed:
		w.logf(n, "disputes layer %d: %s", e.Layer, e.Reason)
		// The writes of the Step were made before.
		taken := slices.ContainsFunc(n.store.layers, func(l layer) bool { return l.decision == e.Theirs })
		if n.bad == nil && w.decided[e.Layer] == e.Theirs && (taken || e.Layer > n.store.tip().decision.Layer) {
			w.violated(n, "disputes layer %d, to which it only has to come: %s", e.Layer, e.Reason)
		}
	case core.Synced:
		w.logf(n, "synced %v: %s", e.Yes, e.Reason)
	case core.ClockDiffers:
		w.logf(n, "clock differs %v: by %v from %d peers", e.Differs, e.Ahead, e.Peers)
	case core.Decided:
		w.logf(n, "decides layer %d: block %s of %d proposals on state %s, electorate %s, signs %v",
			e.Decision.Layer, e.Decision.Block.Short(), e.Proposals, e.Decision.Parent.Short(), e.Decision.Electorate.Short(), len(e.Signers) > 0)
	case core.Silent:
		w.logf(n, "is silent in layer %d: %s", e.Layer, e.Reason)
	case core.Settled:
		w.logf(n, "settles layer %d: block %s, opinion %s", e.Layer, e.Choice.Block.Short(), e.Opinion.Short())
		if n.bad == nil {
			n.oneFrontier(e)
		}
	case core.Empty:
		w.logf(n, "agrees that layer %d has no proposal", e.Layer)
	case core.PoetStored:
		for _, s := range n.smeshers {
			n.later(0, func() {
				s.smesh(activation.ProofStored{Ref: e.Ref, Statement: e.Message.Statement, NumLeaves: e.Message.Proof.NumLeaves})
			})
		}
	case core.Activated:
		w.logf(n, "has ATX %s of %s, epoch %d, weight %d", e.Entry.ID.Short(), e.Entry.Smesher.Short(), e.Entry.PublishEpoch, e.Entry.Weight)
	}
}

// firstWord returns what another one said of the same before, or v if nobody has.
func firstWord[K comparable, V any](before map[K]V, of K, v V) V {
	if first, ok := before[of]; ok {
		return first
	}
	before[of] = v
	return v
}

// oneBeacon fails if another honest node has another beacon for the epoch.
func (n *node) oneBeacon(e core.BeaconKnown) {
	if first := firstWord(n.w.beacons, e.Epoch, e.Beacon); first != e.Beacon {
		n.w.violated(n, "has beacon %s of epoch %d, others have %s", e.Beacon, e.Epoch, first)
	}
}

// oneFrontier fails if another honest node has settled the layer otherwise.
func (n *node) oneFrontier(e core.Settled) {
	if first := firstWord(n.w.settled, e.Layer, e.Choice); first != e.Choice {
		n.w.violated(n, "settles layer %d with block %s, others with %s", e.Layer, e.Choice.Block.Short(), first.Block.Short())
	}
}

// supply fails unless the money of a state is what was there before, and what
// was issued, and less what was burnt.
func (n *node) supply(e core.Applied) {
	now, before := n.store.tip().money, n.store.layers[n.store.at(e.Base)].money
	if n.store.tip().decision == e.Certificate.Decision && now != before+e.Outcome.Issued-e.Outcome.Burnt {
		n.w.violated(n, "layer %d: %d smidges after %d, issued %d, burnt %d", e.Certificate.Decision.Layer, now, before, e.Outcome.Issued, e.Outcome.Burnt)
	}
}

// look fails if a machine holds more than its limits.
func (n *node) look(out core.Output) {
	s := n.m.Snapshot()
	n.voted = s.Verified
	if s.Parked > core.MaxParked || s.ParkedBytes > core.MaxParkedBytes || s.Wanted > syncer.MaxWants {
		n.w.violated(n, "holds %d messages of %d bytes and wants %d objects", s.Parked, s.ParkedBytes, s.Wanted)
	}
	if n.w.result.Steps%64 == 0 {
		for _, h := range n.m.Held() {
			if h.Now > h.Max {
				n.w.violated(n, "holds %d %s, at most %d may be", h.Now, h.What, h.Max)
			}
		}
	}
	if len(n.tokens) > core.MaxParked+core.MaxVerifying {
		n.w.violated(n, "owes %d verdicts", len(n.tokens))
	}
}

// final looks at what must hold when the weather has been calm for a while.
func (w *world) final() {
	w.result.Virtual = w.now.Sub(w.start)
	last := w.cfg.Schedule.First(w.last()+1) - 1
	for _, n := range w.honest() {
		if !n.up {
			w.violated(n, "is down at the end")
			continue
		}
		tip := n.store.tip().decision
		w.logf(n, "ends at layer %d, verified to %d, state %s, synced %v: %s",
			tip.Layer, n.m.Snapshot().Verified, tip.StateRoot.Short(), n.m.Snapshot().Synced, n.m.Snapshot().Reason)
		if tip.Layer+liveness < last {
			w.violated(n, "is at layer %d of %d: %s", tip.Layer, last, n.m.Snapshot().Reason)
		}
		for k, v := range n.guard {
			if v == (types.Hash32{}) {
				w.violated(n, "guard has nothing for %v", k)
			}
		}
	}
	w.published()
	w.spent()
	w.agree()
	w.holes(last)
	w.convictions()
}

// liveness is how many layers a node may be behind at the end of a run.
const liveness = 3

// agree fails unless all honest nodes have the same layers, as far as all are.
func (w *world) agree() {
	type have struct {
		d  types.Decision
		by *node
	}
	layers := make(map[types.Layer]have)
	low := ^types.Layer(0)
	for _, n := range w.honest() {
		low = min(low, n.store.tip().decision.Layer)
	}
	for _, n := range w.honest() {
		for _, l := range n.store.layers {
			if l.decision.Layer > low {
				continue
			}
			if h, ok := layers[l.decision.Layer]; ok && h.d.StateRoot != l.decision.StateRoot {
				w.violated(n, "ends with another layer %d than %s", l.decision.Layer, h.by.peer)
				return
			}
			layers[l.decision.Layer] = have{l.decision, n}
		}
	}
}

// holes counts the layers that nobody filled.
func (w *world) holes(last types.Layer) {
	for l := w.cfg.Schedule.First(w.first() + 2); l+liveness < last; l++ {
		w.result.Layers++
		if _, ok := w.decided[l]; !ok {
			w.result.Empty++
		}
	}
}

// published fails if an honest smesher that ran all the time has no ATX in an
// epoch: one PoET of all is honest, and no other costs anybody a thing.
func (w *world) published() {
	for _, n := range w.nodes[:w.opts.Nodes-w.opts.Late] {
		for e := w.first() + 1; n.bad == nil && !n.fell && e <= w.first()+types.Epoch(w.opts.Epochs); e++ {
			if _, ok := n.store.entries[n.made[e]]; !ok {
				w.violated(n, "has no ATX in epoch %d", e)
			}
			for _, s := range n.smeshers[1:] {
				if _, ok := n.store.entries[s.made[e]]; !ok {
					w.violated(n, "has no ATX of its other identity %d in epoch %d", s.num, e)
				}
			}
		}
	}
}

// convictions fails unless what a strategy does in the open is known to all.
func (w *world) convictions() {
	for _, c := range w.nodes {
		if c.key == nil || c.bad == nil {
			continue
		}
		known, since := 0, w.now
		for _, n := range w.honest() {
			if at, ok := n.store.evil[c.key.NodeID()]; ok {
				known++
				if at = at.Add(-n.skew); at.Before(since) {
					since = at
				}
			}
		}
		if known == len(w.honest()) && c.twin == nil {
			w.result.Caught++
		}
		if known != 0 && known != len(w.honest()) && w.now.Sub(since) > 2*w.cfg.Schedule.LayerDuration {
			w.violated(c, "is malicious at %d of %d honest nodes", known, len(w.honest()))
		}
		if known == 0 && c.bad.provable() && c.acted {
			w.violated(c, "is known to nobody, though it plays %s", c.bad.name())
		}
	}
}

// String is the run in one line.
func (r Result) String() string {
	return fmt.Sprintf("seed %d: %d layers, %d empty, %d taken back, %d of %v caught, strangers %v, clients %v, PoETs %v, %d omissions shown, %d steps, %d messages, %v, digest %s",
		r.Seed, r.Layers, r.Empty, r.Undone, r.Caught, r.Hostile, r.Strangers, r.Clients, r.Poets, r.Omissions, r.Steps, r.Messages, r.Virtual, r.Digest.Short())
}
