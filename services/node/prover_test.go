package node

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"tweedle/edges/preset"
	"tweedle/protocol/core"
	"tweedle/values/types"
)

// A space of mainnet's labels is filled by as many workers as there are processors, in the
// process of a node that follows its network: layers are applied in time, and the node's loop
// does not wait for the labels.
func TestFillingASpaceDelaysNoLayer(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: make nightly NIGHTLY=filling measures what a node waits for")
	}
	const layers = types.Layer(5)
	a := grown(t, "local", 3, 0, 5)
	a.live(t)
	n := a.nodes[0]
	until(t, func() bool { return n.snapshot.Load().Synced })

	cfg := Config{
		Network: preset.Network{Name: "filling", Preset: "testnet", Genesis: time.Now().Truncate(time.Second)},
		Dir:     filepath.Join(t.TempDir(), "filling"), Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, Smeshing: true, Coinbase: types.Address{20: 1, 23: 9},
		Poets: []string{"http://127.0.0.1:1"}, PostWorkers: runtime.GOMAXPROCS(0), Log: bubbleLog("filling"),
	}
	filling, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- filling.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		filling.Close()
	}()
	until(t, func() bool { return filling.Status().Smesher.Progress > 0 })

	began, filled := time.Now(), filling.Status().Smesher.Progress
	var turns, late []time.Duration
	tip := n.snapshot.Load().Tip.Layer
	first := n.schedule.LayerAt(n.now()) + 1
	for end := n.schedule.LayerStart(first + layers); time.Now().Before(end); time.Sleep(time.Millisecond) {
		at := time.Now()
		time.Sleep(time.Millisecond)
		look(n.driver, func(*core.Machine) bool { return true })
		turns = append(turns, time.Since(at)-time.Millisecond)
		if now := n.snapshot.Load().Tip.Layer; now > tip {
			tip = now
			late = append(late, time.Since(n.schedule.LayerStart(tip)).Round(time.Millisecond))
		}
	}
	const labels = 4 << 16
	rate := (filling.Status().Smesher.Progress - filled) * labels / time.Since(began).Seconds()
	slices.Sort(turns)
	t.Logf("%d workers fill %.0f labels a second; a turn of the loop waits p50 %v, p99 %v, longest %v; layers were applied %v after their start; layer %d of %d",
		cfg.PostWorkers, rate, turns[len(turns)/2], turns[len(turns)*99/100], turns[len(turns)-1], late, tip, first+layers-1)
	if rate <= 0 {
		t.Error("nothing was filled")
	}
	if tip+2 < first+layers {
		t.Errorf("the newest layer applied is %d, the clock shows %d", tip, first+layers-1)
	}
	// Where the workers do not yield it is over 10 ms: half of what a kernel takes.
	if turns[len(turns)/2] > 5*time.Millisecond {
		t.Error("the loop waits for the labels")
	}
}
