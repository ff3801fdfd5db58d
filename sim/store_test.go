package sim

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"tweedle/edges/store"
	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// A node's writes go to SQLite and to the simulator's memory alike, through a
// run with layers, malfeasance and transactions: both answer the machine and
// the peers the same, and a machine that is built from either is the same.
func TestTheDiskAnswersAsTheMemory(t *testing.T) {
	db, err := store.Open(t.TempDir(), types.GenesisID{1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w := newWorld(Options{Seed: 4, Nodes: 6, Epochs: 2, Hostile: []string{"two-atxs"}, Strangers: []string{"junk-transactions"}, Faults: calm()})
	n := w.nodes[3]
	state, err := vm.Genesis(w.cfg.VM)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Apply(store.LayerResult{Layer: w.cfg.VM.EffectiveGenesis, Outcome: vm.Outcome{State: state, Changed: entriesOf(state)}}); err != nil {
		t.Fatal(err)
	}
	n.mirror = func(writes []core.Write) {
		if err := db.Commit(writes); err != nil {
			t.Fatalf("%v: %v", writes, err)
		}
	}
	w.play(w.end())
	disk := store.Core{Reader: db.Loop()}
	same := func(what string, a, b any) {
		t.Helper()
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: memory %v, disk %v", what, a, b)
		}
	}
	one := func(v any, err error) any {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	last := n.store.tip().decision.Layer
	if last < 12 || len(n.store.evil) != 1 {
		t.Fatalf("the run has %d layers and %d malicious smeshers: it shows too little", last, len(n.store.evil))
	}
	same("tip", one(n.store.Tip()), one(disk.Tip()))
	evil, err := disk.Malicious()
	if err != nil || len(evil) != len(n.store.evil) {
		t.Errorf("malicious: memory %v, disk %v, %v", n.store.evil, evil, err)
	}
	same("malicious ids", one(n.store.MaliciousIDs()), one(disk.MaliciousIDs()))
	for l := types.Layer(0); l <= last+1; l++ {
		same("before", one(n.store.Before(l)), one(disk.Before(l)))
		same("decisions", one(n.store.Decisions(l, 3)), one(disk.Decisions(l, 3)))
		same("ballots", ids(one(n.store.LayerBallots(l)).([]*types.Ballot)), ids(one(disk.LayerBallots(l)).([]*types.Ballot)))
		same("transactions", len(one(n.store.LayerTransactions(l)).([]types.Transaction)), len(one(disk.LayerTransactions(l)).([]types.Transaction)))
	}
	for _, l := range n.store.layers {
		restored, err := vm.Restore(one(disk.Accounts(l.decision.Layer)).([]vm.Entry))
		if err != nil || restored.Root() != l.decision.StateRoot {
			t.Errorf("accounts after layer %d do not have its state root: %v", l.decision.Layer, err)
		}
	}
	for e := range types.Epoch(6) {
		same("epoch", one(n.store.EpochATXs(e)), one(disk.EpochATXs(e)))
		same("records", len(one(n.store.EpochEntries(e)).([]activation.Entry)), len(one(disk.EpochEntries(e)).([]activation.Entry)))
	}
	same("ballots", one(n.store.BallotIDs(last-3, 9)), one(disk.BallotIDs(last-3, 9)))
	same("opinions", one(n.store.Opinions()), one(disk.Opinions()))
	names := objects(n.store)
	if len(names) < 60 {
		t.Errorf("only %d objects are compared", len(names))
	}
	for _, name := range names {
		body := one(n.store.Object(name)).([]byte)
		got, err := disk.Object(name)
		if len(body) == 0 || err != nil || !bytes.Equal(got, body) {
			t.Errorf("%v: memory has %d bytes, disk %d, %v", name, len(body), len(got), err)
		}
	}
	cfg := w.cfg
	cfg.Crypto, cfg.Identities = n.crypto, n.identities()
	a, err := core.New(cfg, n.now(), n.store)
	if err != nil {
		t.Fatal(err)
	}
	b, err := core.New(cfg, n.now(), disk)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*core.Machine{"memory": a, "disk": b} {
		if x, y := m.Snapshot(), n.m.Snapshot(); x.Verified < 12 || x.Verified != y.Verified || x.Opinion != y.Opinion {
			t.Errorf("a machine from %s says %s of layers, verified to %d; the one that lived %s, %d", name, x.Opinion.Short(), x.Verified, y.Opinion.Short(), y.Verified)
		}
	}
	if x, y := a.Snapshot(), b.Snapshot(); x.Tip != y.Tip || x.State.Root() != y.State.Root() {
		t.Errorf("a machine from memory has layer %d, one from disk %d", x.Tip.Layer, y.Tip.Layer)
	}
}

func ids(bs []*types.Ballot) (out []types.BallotID) {
	for _, b := range bs {
		out = append(out, b.ID())
	}
	slices.SortFunc(out, func(a, b types.BallotID) int { return bytes.Compare(a[:], b[:]) })
	return out
}

// objects names all that a memory has.
func objects(s *memory) (out []syncer.Name) {
	for id := range s.atxs {
		out = append(out, syncer.Name{Kind: syncer.ATX, ID: id})
	}
	for ref := range s.poets {
		out = append(out, syncer.Name{Kind: syncer.PoetProof, ID: ref})
	}
	for id := range s.proofs {
		out = append(out, syncer.Name{Kind: syncer.Malfeasance, ID: id})
	}
	for h := range s.sets {
		out = append(out, syncer.Name{Kind: syncer.ActiveSet, ID: h})
	}
	for id := range s.ballots {
		out = append(out, syncer.Name20(syncer.Ballot, id))
	}
	for id := range s.blocks {
		out = append(out, syncer.Name20(syncer.Block, id))
	}
	for id := range s.txs {
		out = append(out, syncer.Name{Kind: syncer.Transaction, ID: id})
	}
	return out
}
