package sim

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"tweedle/values/types"
)

// A whole network of many nodes for one epoch, on one goroutine: four layers of 50 proposals each, the ATXs for the next
// epoch, and its beacon. What comes before (ATXs, the first beacon) is played too, and its time told apart.
// At most 200 nodes smesh, the others follow: one that smeshes has a slot in each epoch, and 200 have 50 in each of
// four layers.
func BenchmarkAnEpochOfManyNodes(b *testing.B) {
	for _, nodes := range []int{50, 100, 200, 500, 1000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			for range b.N {
				manyNodes(b, nodes, min(nodes, 200))
			}
		})
	}
}

// scaleCommittee is how many seats a round of Hare has in networks of many nodes.
const scaleCommittee = 50

func manyNodes(b *testing.B, nodes, smeshers int) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	began := processor()
	w := newWorld(Options{
		Seed: 1, Nodes: nodes, Epochs: 1, BeaconRounds: 2, Hostile: []string{}, Strangers: []string{}, Poets: []string{}, Clients: []string{},
		Faults: &Faults{Latency: 50 * time.Millisecond}, grain: 25 * time.Millisecond,
	})
	w.cfg.Eligibility.LayerSize, w.cfg.Hare.Committee = 50, scaleCommittee
	for _, n := range w.nodes[smeshers:] {
		n.smeshers = nil
	}
	first := w.first() + types.FirstEpochWithBallots
	w.play(w.cfg.Schedule.EpochStart(first))
	before, steps, messages := processor()-began, w.result.Steps, w.result.Messages
	began = processor()
	w.play(w.cfg.Schedule.EpochStart(first + 1))
	epoch := processor() - began
	w.play(w.cfg.Schedule.EpochStart(first + 1).Add(2 * w.cfg.Schedule.LayerDuration)) // the last layer is decided
	proposals := 0
	for l := w.cfg.Schedule.First(first); l < w.cfg.Schedule.First(first+1); l++ {
		if d, ok := w.decided[l]; ok {
			block, _ := w.nodes[0].store.Block(d.Block)
			proposals += len(block.Rewards)
		} else {
			b.Errorf("layer %d is empty", l)
		}
	}
	for _, n := range w.nodes {
		if tip := n.store.tip().decision.Layer; tip < w.cfg.Schedule.First(first+1)-1 {
			b.Fatalf("%s is at layer %d", n.peer, tip)
		}
	}
	for _, v := range w.result.Violations {
		b.Error(v)
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	b.ReportMetric(before.Seconds(), "s/before")
	b.ReportMetric(epoch.Seconds(), "s/epoch")
	b.ReportMetric(float64(w.result.Steps-steps), "steps")
	b.ReportMetric(float64(w.result.Messages-messages), "messages")
	b.ReportMetric(float64(proposals)/4, "proposals/layer")
	b.ReportMetric(float64(memory.Sys>>20), "MiB")
	b.ReportMetric(0, "ns/op")
}
