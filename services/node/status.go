package node

import (
	"fmt"

	"tweedle/base/telemetry"
	"tweedle/edges/store"
	"tweedle/values/types"
)

// Status tells where the node is.
func (n *Node) Status() telemetry.NodeStatus {
	now := n.now()
	t := n.snapshot.Load()
	st := telemetry.NodeStatus{
		Network: n.cfg.Network.Name, GenesisID: n.activation.Network.String(), Version: n.cfg.Version,
		Layer: uint32(n.schedule.LayerAt(now)), Epoch: uint32(n.schedule.EpochAt(now)),
		AppliedLayer: uint32(t.Tip.Layer), StateRoot: t.Tip.StateRoot.String(), Synced: t.Synced, SyncReason: t.Reason,
		Peers: len(n.host.Peers()), Smesher: n.smesherStatus(), Mempool: t.Waiting, IdentityElsewhere: t.Elsewhere,
	}
	if t.Dispute.Layer != 0 {
		st.Dispute = fmt.Sprintf("layer %d: %s", t.Dispute.Layer, t.Dispute.Reason)
	}
	if t.Clock != 0 {
		st.ClockAhead = t.Clock.Seconds()
	}
	if n.signer != nil {
		st.NodeID = n.signer.NodeID().String()
		if last, err := n.db.LastATX(n.signer.NodeID()); err == nil {
			epoch := uint32(last.PublishEpoch)
			st.ATXEpoch = &epoch
		}
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

// Smesher tells what the smesher does and waits for; ok is false if there is none.
func (n *Node) Smesher() (screen telemetry.Smesher, ok bool, err error) {
	if n.smesher == nil {
		return screen, false, nil
	}
	screen, err = n.smesher.Screen(n.now())
	return screen, true, err
}
