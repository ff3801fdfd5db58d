package node

import (
	"maps"
	"testing"

	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/values/types"
)

// What happens is counted, and what the node is can be read at once.
func TestEventsAreCounted(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.Smeshing, cfg.Coinbase, cfg.Poets = true, stillNetworkCoinbase(), []string{"http://127.0.0.1:1"}
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	n.count(core.Undone{From: 9, To: 4})
	n.count(core.Disputed{})
	epoch := n.epoch()
	var entry activation.Entry
	entry.PublishEpoch = epoch
	proof := &types.PoetProofMessage{PoetID: types.NodeID{1}}
	if err := n.db.AddPoetProof(proof); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []types.PoetProofRef{proof.Proof.Ref(), proof.Proof.Ref(), {1}} {
		n.count(core.Activated{Entry: entry, Proof: ref})
	}
	me := n.identities[0].NodeID()
	for _, signers := range [][]types.NodeID{{me}, nil} {
		n.count(core.Decided{Proposals: 3, Signers: signers})
	}
	for _, signatures := range []int{4, 0} { // the second is said by the one after it
		n.count(core.Applied{WriteLayer: core.WriteLayer{Certificate: &types.Certificate{Signatures: make([]types.CertifySignature, signatures)}}})
	}
	n.count(core.Eligible{Smesher: me, Epoch: epoch, Slots: 7})
	n.count(core.Proposed{Smesher: me, Slots: 2})
	n.count(core.Proposed{Smesher: me, Slots: 1})
	if got := n.countATXs(epoch); got != 3 {
		t.Errorf("%d ATXs are counted", got)
	}
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values, poets := map[string]float64{}, map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "tweedle_node_poet_atxs" {
				poets[m.GetLabel()[1].GetValue()] = m.GetGauge().GetValue()
			}
		}
		m := f.GetMetric()[0]
		values[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	if want := map[string]float64{types.NodeID{1}.Short(): 2, "unknown": 1}; !maps.Equal(poets, want) {
		t.Errorf("ATXs by PoET are %v, not %v", poets, want)
	}
	for name, want := range map[string]float64{
		"tweedle_node_undone_layers_total": 5, "tweedle_node_disputes_total": 1, "tweedle_node_atxs_published": 3,
		"tweedle_node_decided_layers_total": 2, "tweedle_node_counted_proposals_total": 6, "tweedle_node_signed_layers_total": 1,
		"tweedle_node_certified_layers_total": 1, "tweedle_node_eligibilities_assigned_total": 7, "tweedle_node_eligibilities_used_total": 3, "tweedle_node_certificate_signatures": 4,
	} {
		if values[name] != want {
			t.Errorf("%s is %v, not %v", name, values[name], want)
		}
	}
}
