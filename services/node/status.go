package node

import (
	"fmt"
	"slices"

	"tweedle/base/telemetry"
	"tweedle/edges/store"
	"tweedle/values/types"
)

// Status tells where the node is.
func (n *Node) Status() telemetry.NodeStatus {
	now := n.now()
	t := n.snapshot.Load()
	own, others := n.smeshers.Status()
	st := telemetry.NodeStatus{
		Network: n.cfg.Network.Name, GenesisID: n.activation.Network.String(), Version: n.cfg.Version,
		Layer: uint32(n.schedule.LayerAt(now)), Epoch: uint32(n.schedule.EpochAt(now)),
		AppliedLayer: uint32(t.Tip.Layer), VerifiedLayer: uint32(t.Verified), StateRoot: t.Tip.StateRoot.String(), Synced: t.Synced, SyncReason: t.Reason,
		Peers: len(n.host.Peers()), Mempool: t.Waiting, NodeID: own.NodeID, ATXEpoch: own.ATXEpoch, Smesher: own.Smesher, Others: others,
		IdentityElsewhere: own.Elsewhere || slices.ContainsFunc(others, func(o telemetry.IdentityStatus) bool { return o.Elsewhere }),
	}
	if t.Dispute.Layer != 0 {
		st.Dispute = fmt.Sprintf("layer %d: %s", t.Dispute.Layer, t.Dispute.Reason)
	}
	if t.BeaconKnown {
		value := t.Beacon.String()
		st.Beacon = &value
	}
	if t.Clock != 0 {
		st.ClockAhead = t.Clock.Seconds()
	}
	return st
}

// Peers tells with whom the node is connected, and why the last ones left.
func (n *Node) Peers() telemetry.Peers { return n.host.Screen() }

// Layers tells the outcome of the layers from one on, up to the newest applied
// one; layers that have no block are empty for ever.
func (n *Node) Layers(from types.Layer) ([]telemetry.LayerStatus, error) {
	from = max(from, n.schedule.FirstBallotLayer())
	layers, err := n.db.BlockLayers(from, store.MaxPage)
	if err != nil {
		return nil, err
	}
	var out []telemetry.LayerStatus
	for _, l := range layers {
		for ; from < l.Layer; from++ {
			out = append(out, telemetry.LayerStatus{Layer: uint32(from)})
		}
		from = l.Layer + 1
		ballots, err := n.db.LayerBallots(l.Layer)
		if err != nil {
			return nil, err
		}
		out = append(out, telemetry.LayerStatus{
			Layer: uint32(l.Layer), Block: l.Block.String(), StateRoot: l.StateRoot.String(), Txs: l.Txs, Ballots: len(ballots),
		})
	}
	return out, nil
}

// Smesher tells what the smeshers do and wait for; ok is false if there is none.
func (n *Node) Smesher() (screen telemetry.Smesher, ok bool, err error) {
	return n.smeshers.Screen(n.now())
}
