package sim

import (
	"testing"
	"time"

	"tweedle/edges/store"
	"tweedle/protocol/core"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// What a transaction costs a node from its door to the ledger: it is checked,
// waits, is part of a block, and is applied. The door is the API of one node and
// the gossip of another; the rest of the network is not counted. Each of the two
// writes to SQLite.
func BenchmarkFromTheDoorToTheLedger(b *testing.B) {
	const round = 1000
	w := newWorld(Options{Seed: 3, Nodes: 5, Epochs: 10_000, Hostile: []string{}, Strangers: []string{}, Faults: calm()})
	w.cfg.Pool.PerAccount = 10 * round
	api, peer := w.nodes[0], w.nodes[1]
	api.timed, peer.timed = true, true
	api.onDisk(b)
	peer.onDisk(b)
	w.run(10, time.Second)
	var check time.Duration
	applied := func(n *node) (sum int) { return len(n.store.txs) }
	nonce, before := w.nonce, applied(api)
	api.spent, peer.spent = 0, 0
	sent := 0
	layer := types.Layer(11)
	for range b.N {
		w.run(layer, 8*time.Second)
		for range round {
			raw := vm.Spend(w.rich, types.Address{23: byte(nonce), 22: byte(nonce >> 8)}, 1, nonce, 1)
			nonce++
			begin := time.Now()
			m, err := core.Check(api.crypto, core.TopicTx, raw)
			check += time.Since(begin)
			if err != nil {
				b.Fatal(err)
			}
			api.step(core.Heard{From: core.Self, Message: m})
			sent++
		}
		w.nonce = nonce
		layer++
	}
	for applied(api)-before < sent || applied(peer)-before < sent {
		layer++
		w.run(layer, time.Second)
	}
	for _, v := range w.result.Violations {
		b.Error(v)
	}
	// The sum of machine, disk and check, without what the layers of an idle network take.
	per := func(n *node) float64 { return float64(sent) / (n.spent + check).Seconds() }
	b.ReportMetric(per(api), "tx/s/core-api")
	b.ReportMetric(per(peer), "tx/s/core-peer")
	b.ReportMetric(0, "ns/op")
}

// onDisk has a node write to SQLite too, and counts the time of it.
func (n *node) onDisk(tb testing.TB) {
	db, err := store.Open(tb.TempDir(), types.GenesisID{1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	state, err := vm.Genesis(n.w.cfg.VM)
	if err != nil {
		tb.Fatal(err)
	}
	if err := db.Apply(store.LayerResult{Layer: n.w.cfg.VM.EffectiveGenesis, Outcome: vm.Outcome{State: state, Changed: entriesOf(state)}}); err != nil {
		tb.Fatal(err)
	}
	n.mirror = func(writes []core.Write) {
		begin := time.Now()
		if err := db.Commit(writes); err != nil {
			tb.Fatalf("%v: %v", writes, err)
		}
		n.spent += time.Since(begin)
	}
}
