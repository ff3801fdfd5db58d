package node

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/preset"
	"tweedle/edges/store"
	"tweedle/protocol/core"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// aged is a network with a past. Its nodes made the past in virtual time, by
// themselves; now it lives on, on loopback and by the clock of this machine.
type aged struct {
	network preset.Network
	configs []Config
	nodes   []*loopbackNode
	lies    atomic.Int64 // answers of liars
}

type loopbackNode struct {
	*Node
	stop func()
}

// grown has nodes live together for so many virtual epochs, and then until the
// virtual clock has reached the real one. Their network's genesis is idle epochs
// before that life.
func grown(t *testing.T, kind string, nodes, idle, epochs int) *aged {
	t.Helper()
	a := &aged{}
	for i := range nodes {
		a.configs = append(a.configs, Config{Dir: filepath.Join(t.TempDir(), strconv.Itoa(i)), Smeshing: true, Coinbase: types.Address{20: 1, 23: byte(i + 1)}})
	}
	p, err := preset.Named(kind)
	if err != nil {
		t.Fatal(err)
	}
	epoch := p.LayerDuration * time.Duration(p.LayersPerEpoch)
	begun := realNow(t)
	inBubble(t, func(t *testing.T) {
		time.Sleep(time.Until(begun.Add(-time.Duration(epochs) * epoch))) // bubbles begin in the year 2000
		b := newBubble(t, "aged")
		b.network.Preset, b.network.Genesis = kind, b.network.Genesis.Add(-time.Duration(idle)*epoch)
		a.network = b.network
		b.startPoet()
		for _, cfg := range a.configs {
			b.add(cfg.Dir)
		}
		// Within the first ten seconds of an epoch the ATXs are published by
		// which the next one has blocks, without any PoET.
		for b.until(types.Epoch(idle+epochs-1), 0); realNow(t).After(time.Now()) || time.Since(a.network.Genesis)%epoch < 10*time.Second; {
			time.Sleep(time.Second)
		}
		b.same(b.nodes[0].schedule.LayerAt(time.Now()) - 2)
		b.close()
		begun = time.Now()
	})
	time.Sleep(begun.Sub(realNow(t)))
	return a
}

// live starts the nodes on loopback.
func (a *aged) live(t *testing.T) {
	t.Helper()
	for _, cfg := range a.configs {
		if err := os.Remove(filepath.Join(cfg.Dir, "peers.json")); err != nil && !os.IsNotExist(err) { // they are of the virtual network
			t.Fatal(err)
		}
		a.nodes = append(a.nodes, a.start(t, cfg, a.addresses()))
	}
}

// realNow is the machine's clock, also in a bubble.
func realNow(t *testing.T) time.Time {
	t.Helper()
	var tv syscall.Timeval
	if err := syscall.Gettimeofday(&tv); err != nil {
		t.Fatal(err)
	}
	return time.Unix(tv.Unix())
}

func (a *aged) addresses() (out []string) {
	for _, n := range a.nodes {
		out = append(out, n.host.Addrs()...)
	}
	return out
}

// start runs a node of the network on loopback until the test ends.
func (a *aged) start(t *testing.T, cfg Config, bootnodes []string) *loopbackNode {
	t.Helper()
	cfg.Network, cfg.Listen, cfg.Bootnodes = a.network, []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, bootnodes
	cfg.Poets, cfg.PeersPerAddress = []string{"http://127.0.0.1:1"}, 64 // no PoET is left
	if cfg.Log == nil {
		cfg.Log = bubbleLog(filepath.Base(cfg.Dir))
	}
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	var stopped atomic.Bool
	out := &loopbackNode{Node: n, stop: func() {
		if stopped.CompareAndSwap(false, true) {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("node: %v", err)
			}
		}
	}}
	t.Cleanup(out.stop)
	return out
}

// caughtUp waits until nodes are synced and have what the first node of the
// network had when they started, and returns how long that took.
func (a *aged) caughtUp(t *testing.T, start time.Time, want types.Decision, nodes ...*loopbackNode) time.Duration {
	t.Helper()
	for _, n := range nodes {
		for {
			s := n.snapshot.Load()
			if got, err := n.db.BlockLayers(want.Layer, 1); s.Synced && s.Tip.Layer >= want.Layer && err == nil && len(got) == 1 && got[0].StateRoot == want.StateRoot {
				break
			}
			if time.Since(start) > time.Minute {
				t.Fatalf("after a minute it has layer %d of %d, synced %v: %s", s.Tip.Layer, want.Layer, s.Synced, s.Reason)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return time.Since(start)
}

// liars are hosts that answer as peers with a history do.
func (a *aged) liars(t *testing.T) (addresses []string) {
	t.Helper()
	truth := library{store.Core{Reader: a.nodes[0].db.Reader}, a.nodes[0].Node}
	for _, lie := range []func(context.Context, []byte) ([]byte, error){forge(t, truth), withhold(truth)} {
		key, err := p2p.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		h, err := p2p.New(p2p.Config{
			Network: p2p.NetworkID{GenesisID: a.network.ID(), Name: a.network.Name}, Key: key,
			Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, Bootnodes: a.nodes[0].host.Addrs(),
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range core.Topics() {
			h.Register(p2p.Topic{Name: topic.Name(), MaxSize: topic.MaxSize()}, func(context.Context, p2p.PeerID, []byte) p2p.Verdict { return p2p.Accept() })
		}
		limits := p2p.Limits{MaxRequest: core.MaxRequest, MaxResponse: core.MaxAnswer, Timeout: time.Minute, Workers: 100, Queue: 100}
		h.Handle(protocolAsk, limits, func(ctx context.Context, _ p2p.PeerID, raw []byte) ([]byte, error) {
			a.lies.Add(1)
			return lie(ctx, raw)
		})
		runHost(t, h)
		addresses = append(addresses, h.Addrs()...)
	}
	return addresses
}

// forge answers with a history of its own: the true one with other states, well
// signed by somebody without weight, and with ATXs that are nowhere.
func forge(t *testing.T, truth library) func(context.Context, []byte) ([]byte, error) {
	s, err := signing.NewSigner(signing.SeedFrom("forger"), truth.n.activation.Network)
	if err != nil {
		t.Fatal(err)
	}
	return func(_ context.Context, raw []byte) ([]byte, error) {
		var r core.Request
		if err := codec.Decode(raw, &r); err != nil {
			return nil, err
		}
		switch {
		case r.Layers != nil:
			raw, err := core.Serve(truth, raw)
			var out core.LayersAnswer
			if err != nil || codec.Decode(raw, &out) != nil {
				return nil, cmp.Or(err, core.ErrMalformed)
			}
			parent := types.Hash32{1}
			for i := range out.Certs {
				d := &out.Certs[i].Decision
				d.Parent, parent = parent, types.Sum(d.StateRoot[:])
				d.StateRoot = parent
				out.Certs[i].Signatures = []types.CertifySignature{core.Seal(s, types.ATXID{}, *d).By}
			}
			out.Open = nil
			return codec.Encode(&out), nil
		case r.Epochs != nil:
			var out core.EpochsAnswer
			for e := r.Epochs.From; e <= r.Epochs.To; e++ {
				var ids []types.ATXID
				for i := range 20 {
					ids = append(ids, types.ATXID(types.Sum(binary.BigEndian.AppendUint64(nil, uint64(e)<<8+uint64(i)))))
				}
				out.ATXs = append(out.ATXs, ids)
			}
			return codec.Encode(&out), nil
		}
		return codec.Encode(make(core.ObjectsAnswer, len(r.Objects))), nil
	}
}

// withhold tells the truth about what there is, and never gives it.
func withhold(truth library) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, raw []byte) ([]byte, error) {
		var r core.Request
		if err := codec.Decode(raw, &r); err != nil {
			return nil, err
		}
		if r.Objects == nil {
			return core.Serve(truth, raw)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// A network whose genesis is long ago has blocks; who comes back to it, who is
// new, and two that are new at once catch up, whether two of their five peers lie
// or not.
func TestAnOldNetworkTakesAnybodyIn(t *testing.T) {
	for _, idle := range []int{250, 5000} {
		t.Run(fmt.Sprint(idle), func(t *testing.T) {
			t.Parallel() // it mostly waits for the clock
			a := grown(t, "test", 3, idle, 5)
			a.live(t)
			first := a.nodes[0]
			if layers, err := first.db.BlockLayers(0, 1); err != nil || len(layers) != 1 || layers[0].Layer > first.schedule.First(types.Epoch(idle+4)) {
				t.Fatalf("no block in the network's first epochs: %v, %v", layers, err)
			}
			for _, peers := range []string{"honest", "two of five lie"} {
				bootnodes := a.addresses()
				if peers != "honest" {
					bootnodes = append(a.liars(t), bootnodes...)
				}
				var took []string
				begin := func() (time.Time, types.Decision) { return time.Now(), first.snapshot.Load().Tip }

				at, tip := begin()
				fresh := a.start(t, Config{Dir: filepath.Join(t.TempDir(), "fresh")}, bootnodes)
				took = append(took, fmt.Sprintf("a fresh node %v", a.caughtUp(t, at, tip, fresh).Round(time.Millisecond)))
				if peers != "honest" && a.lies.Load() == 0 {
					t.Error("nobody asked the liars")
				}

				at, tip = begin()
				b := a.start(t, Config{Dir: filepath.Join(t.TempDir(), "b")}, bootnodes)
				c := a.start(t, Config{Dir: filepath.Join(t.TempDir(), "c")}, append(b.host.Addrs(), bootnodes...))
				took = append(took, fmt.Sprintf("two at once %v", a.caughtUp(t, at, tip, b, c).Round(time.Millisecond)))

				fresh.stop()
				at, tip = begin()
				fresh = a.start(t, Config{Dir: fresh.cfg.Dir}, bootnodes)
				took = append(took, fmt.Sprintf("one restarted %v", a.caughtUp(t, at, tip, fresh).Round(time.Millisecond)))
				t.Logf("%d epochs old, layer %d, %s: %s", idle, tip.Layer, peers, strings.Join(took, ", "))
				for _, n := range []*loopbackNode{fresh, b, c} {
					n.stop()
				}
			}
			// And it lives on.
			before := first.snapshot.Load().Tip.Layer
			for until := time.Now().Add(3 * first.params.LayerDuration); first.snapshot.Load().Tip.Layer == before; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(until) {
					t.Fatalf("no block after layer %d", before)
				}
			}
		})
	}
}

// A node with an empty store joins five at layer 2,000; two of them lie.
func TestCatchUpOfALongHistory(t *testing.T) {
	epochs := 500 // of four layers
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: 2,000 layers of virtual time take minutes; TestAnOldNetworkTakesAnybodyIn is the short form; set TWEEDLE_NIGHTLY=1")
	}
	a := grown(t, "test", 3, 0, epochs)
	a.live(t)
	bootnodes := append(a.liars(t), a.addresses()...)
	for _, n := range a.nodes {
		peersOf(t, n.host, 2)
	}
	debug.FreeOSMemory()
	idle := resident(t)
	peak := make(chan int)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		most := 0
		for ctx.Err() == nil {
			most = max(most, resident(t))
			time.Sleep(20 * time.Millisecond)
		}
		peak <- most
	}()
	tip := a.nodes[0].snapshot.Load().Tip
	fresh := a.start(t, Config{Dir: filepath.Join(t.TempDir(), "fresh")}, bootnodes)
	took := a.caughtUp(t, time.Now(), tip, fresh)
	cancel()
	most := <-peak
	t.Logf("layer %d after %v; resident memory of all nodes %d MiB, before %d MiB", tip.Layer, took.Round(time.Millisecond), most>>20, idle>>20)
	if int(tip.Layer) < 4*epochs-8 || most-idle > 200<<20 {
		t.Errorf("layer %d, %d MiB more than idle", tip.Layer, (most-idle)>>20)
	}
}

// resident is this process's memory in bytes.
func resident(t *testing.T) int {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Error("SKIPPED: memory is read from /proc:", err)
		return 0
	}
	pages, _ := strconv.Atoi(strings.Fields(string(raw))[1]) // Linux has written it
	return pages * os.Getpagesize()
}
