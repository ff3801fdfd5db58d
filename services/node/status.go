package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

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

// operations serves the operator: metrics, status, layers. It has nothing that
// changes the node.
func (n *Node) operations() http.Handler {
	mux := http.NewServeMux()
	n.registry.ServeMetrics(mux)
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { n.answer(w, n.Status(), nil) })
	mux.HandleFunc("GET /smesher", func(w http.ResponseWriter, _ *http.Request) {
		if n.smesher == nil {
			http.Error(w, "this node does not smesh: start it with --smeshing", http.StatusNotFound)
			return
		}
		screen, err := n.smesher.Screen(n.now())
		n.answer(w, screen, err)
	})
	mux.HandleFunc("GET /peers", func(w http.ResponseWriter, _ *http.Request) { n.answer(w, n.Peers(), nil) })
	mux.HandleFunc("GET /layers", func(w http.ResponseWriter, r *http.Request) {
		from, err := strconv.ParseUint(r.FormValue("from"), 10, 32)
		if err != nil && r.FormValue("from") != "" {
			http.Error(w, "from is not a layer number", http.StatusBadRequest)
			return
		}
		layers, err := n.Layers(types.Layer(from))
		n.answer(w, layers, err)
	})
	return mux
}

func (n *Node) answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		n.log.Error("status", "err", err)
		http.Error(w, "cannot read the store", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the reader has gone; nobody is left to tell
}
