package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/test/bufconn"

	"tweedle/edges/p2p"
	"tweedle/edges/p2p/virtual"
	"tweedle/edges/preset"
	"tweedle/edges/store"
	"tweedle/services/poet/door"
	"tweedle/services/poet/rounds"
	"tweedle/values/codec"
	"tweedle/values/types"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs a test in virtual time. Not under the race detector: its
// runtime in Go 1.26 crashes now and then when timers of a bubble are reset
// (golang/go#78156). The Makefile runs the package both ways.
func inBubble(t *testing.T, f func(t *testing.T)) {
	if raceEnabled {
		t.Skip("SKIPPED under -race: its runtime crashes with synctest, golang/go#78156; run it without")
	}
	synctest.Test(t, f)
}

// bubble is a whole network in virtual time: real nodes, libp2p, QUIC, gossip,
// SQLite, and a real PoET behind its real REST server, on simulated wires.
// Make it inside synctest.Test.
type bubble struct {
	t       *testing.T
	net     *virtual.Network
	network preset.Network
	poet    *bubblePoet
	nodes   []*bubbleNode
}

type bubbleNode struct {
	*Node
	cfg  Config
	stop context.CancelFunc
	done chan error
}

type bubblePoet struct {
	dir  string
	rest *bufconn.Listener
	stop context.CancelFunc
	done chan error
}

func newBubble(t *testing.T, name string) *bubble {
	b := &bubble{t: t, net: virtual.NewNetwork(20 * time.Millisecond)}
	b.network = preset.Network{Name: name, Preset: "test", Genesis: time.Now().Add(10 * time.Second).Truncate(time.Second)}
	b.poet = &bubblePoet{dir: t.TempDir()}
	return b
}

func bubbleLog(name string) *slog.Logger {
	if os.Getenv("TWEEDLE_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", name)
}

// startPoet runs the PoET; its data stays from one run to the next.
func (b *bubble) startPoet() {
	b.t.Helper()
	p, err := b.network.Params()
	if err != nil {
		b.t.Fatal(err)
	}
	schedule := b.network.PoetSchedule(p)
	cfg := rounds.Config{Dir: b.poet.dir, Schedule: schedule, Log: bubbleLog("poet")}
	cfg.Work.MaxLeavesPerSecond = 20
	service, err := rounds.Open(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	b.poet.rest, b.poet.stop, b.poet.done = bufconn.Listen(1<<16), cancel, make(chan error, 1)
	grpc := bufconn.Listen(1 << 16)
	rest := b.poet.rest
	go func() {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return service.Run(ctx) })
		group.Go(func() error {
			return door.ServePublic(ctx, grpc, rest, service, door.Config{Limits: door.DefaultLimits(), Schedule: schedule})
		})
		b.poet.done <- errors.Join(group.Wait(), service.Close())
	}()
}

func (b *bubble) stopPoet() {
	b.t.Helper()
	b.poet.stop()
	if err := <-b.poet.done; err != nil && err != context.Canceled {
		b.t.Errorf("PoET: %v", err)
	}
}

// transport leads every HTTP request to the PoET of the bubble.
func (b *bubble) transport() *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return b.poet.rest.DialContext(ctx) },
	}
}

// add makes node i, and runs it.
func (b *bubble) add(dir string) *bubbleNode {
	b.t.Helper()
	n := b.join(dir)
	b.start(n)
	return n
}

// join makes node i; it knows node 0.
func (b *bubble) join(dir string) *bubbleNode {
	b.t.Helper()
	i := len(b.nodes)
	n := &bubbleNode{cfg: Config{
		Network: b.network, Dir: dir, Smeshing: true, Poets: []string{"http://poet"},
		Coinbase: types.Address{20: 1, 23: byte(i + 1)}, PoetTransport: b.transport(), Log: bubbleLog(dir[len(dir)-1:]),
	}}
	var p p2p.Config
	b.net.Attach(&p, virtual.IP(i))
	n.cfg.Listen, n.cfg.Socket = p.Listen, p.Socket
	if i > 0 {
		n.cfg.Bootnodes = b.nodes[0].host.Addrs()
	}
	b.nodes = append(b.nodes, n)
	return n
}

func (b *bubble) start(n *bubbleNode) {
	b.t.Helper()
	node, err := Open(n.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.run(n, node)
}

func (b *bubble) run(n *bubbleNode, node *Node) {
	ctx, cancel := context.WithCancel(b.t.Context())
	n.Node, n.stop, n.done = node, cancel, make(chan error, 1)
	go func() { n.done <- node.Run(ctx) }()
}

func (b *bubble) stop(n *bubbleNode) {
	b.t.Helper()
	n.stop()
	if err := <-n.done; err != nil {
		b.t.Errorf("node: %v", err)
	}
}

func (b *bubble) close() {
	for _, n := range b.nodes {
		b.stop(n)
	}
	b.stopPoet()
	b.net.Close()
	synctest.Wait()
}

// until sleeps to the start of an epoch, plus a while.
func (b *bubble) until(e types.Epoch, after time.Duration) {
	time.Sleep(time.Until(b.nodes[0].schedule.EpochStart(e).Add(after)))
}

// same fails unless all nodes have applied the same blocks up to a layer. One that has just ended is
// still being agreed on.
func (b *bubble) same(at types.Layer) {
	b.t.Helper()
	want := b.nodes[0].snapshot.Load().Tip
	// Now and then nobody leads the first iteration of an agreement: the second one ends within a layer more.
	for limit := time.Now().Add(b.nodes[0].params.LayerDuration); want.Layer < at && time.Now().Before(limit); time.Sleep(time.Second) {
		want = b.nodes[0].snapshot.Load().Tip
	}
	if want.Layer < at {
		b.t.Errorf("layer %d is applied, want %d", want.Layer, at)
	}
	for i, n := range b.nodes[1:] {
		if got := n.snapshot.Load().Tip; got != want {
			b.t.Errorf("node %d has layer %d, state %s; node 0 has layer %d, state %s", i+1, got.Layer, got.StateRoot, want.Layer, want.StateRoot)
		}
	}
}

// forgot fails unless the ballots before a layer are gone, and nothing that peers
// may still need.
func (n *bubbleNode) forgot(t *testing.T, before types.Layer) {
	t.Helper()
	layers, err := n.db.BlockLayers(0, store.MaxPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		ballots, err := n.db.LayerBallots(l.Layer)
		if err != nil || (len(ballots) == 0) != (l.Layer < before) {
			t.Errorf("layer %d has %d ballots, those before %d are to go: %v", l.Layer, len(ballots), before, err)
		}
		cert, err := n.db.Certificate(l.Layer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.db.ActiveSet(cert.Decision.Electorate); err != nil {
			t.Errorf("electorate of layer %d: %v", l.Layer, err)
		}
	}
}

// receipts is how package smeshing keeps them.
type receipts []types.PoetReceipt

func (l *receipts) DecodeFrom(d *codec.Decoder) {
	for range d.Count(1 << 10) {
		var r types.PoetReceipt
		_ = d.String(1 << 10) // the PoET's address
		r.DecodeFrom(d)
		if !r.Verify() {
			d.Fail(codec.ErrShort)
		}
		*l = append(*l, r)
	}
}

func TestTwoNodesAgreeOnBlocksAndState(t *testing.T) {
	dirs := t.TempDir()
	inBubble(t, func(t *testing.T) {
		b := newBubble(t, "pair")
		b.startPoet()
		b.add(filepath.Join(dirs, "a"))
		b.add(filepath.Join(dirs, "b"))
		b.until(6, 0)
		b.same(b.nodes[0].schedule.First(6) - 2)
		for epoch := types.Epoch(1); epoch < 6; epoch++ {
			ids, err := b.nodes[1].db.EpochATXs(epoch)
			if err != nil || len(ids) != 2 {
				t.Errorf("epoch %d: %d ATXs, %v", epoch, len(ids), err)
			}
		}
		for _, n := range b.nodes {
			n.forgot(t, n.schedule.First(5-keptEpochs)) // without a restart
		}
		var kept receipts // one for each epoch whose round has closed
		if err := b.nodes[0].db.LoadStep(b.nodes[0].identities[0].NodeID(), "receipts", &kept); err != nil || len(kept) < 5 {
			t.Errorf("%d receipts of a real PoET are kept, %v", len(kept), err)
		}
		empty := 0
		layers, err := b.nodes[0].Layers(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			if l.Block == "" {
				empty++
			}
		}
		if len(layers) < 15 || empty > len(layers)/10 {
			t.Errorf("%d of %d layers are empty", empty, len(layers))
		}
		b.close()
	})
}

func TestANodeThatWasAwayCatchesUpToTheSameState(t *testing.T) {
	dirs := t.TempDir()
	inBubble(t, func(t *testing.T) {
		b := newBubble(t, "away")
		b.startPoet()
		for _, name := range []string{"a", "b", "c", "d"} {
			b.add(filepath.Join(dirs, name))
		}
		b.until(3, 0)
		away := b.nodes[3]
		b.stop(away)
		b.until(5, 20*time.Second)
		b.start(away)
		b.until(8, 0)
		b.same(b.nodes[0].schedule.First(8) - 2)
		if last, err := away.db.LastATX(away.identities[0].NodeID()); err != nil || last.PublishEpoch < 7 {
			t.Errorf("the node that was away published last in epoch %d, %v", last.PublishEpoch, err)
		}
		b.close()
	})
}

func TestTheNetworkResumesAfterEpochsWithoutAnyPoet(t *testing.T) {
	dirs := t.TempDir()
	inBubble(t, func(t *testing.T) {
		b := newBubble(t, "outage")
		b.startPoet()
		for _, name := range []string{"a", "b", "c"} {
			b.add(filepath.Join(dirs, name))
		}
		b.until(3, 0)
		b.stopPoet()
		b.until(5, 0)
		stopped := b.nodes[0].snapshot.Load().Tip.Layer
		if epoch := b.nodes[0].schedule.EpochOf(stopped); epoch > 3 {
			t.Errorf("blocks in epoch %d, whose ATXs nobody could publish", epoch)
		}
		b.startPoet()
		b.until(8, 0)
		b.same(b.nodes[0].schedule.First(8) - 2)
		if first := firstBlockAfter(t, b.nodes[0], stopped); b.nodes[0].schedule.EpochOf(first) > 7 {
			t.Errorf("the first block after the outage is in layer %d", first)
		}
		b.close()
	})
}

func firstBlockAfter(t *testing.T, n *bubbleNode, l types.Layer) types.Layer {
	t.Helper()
	layers, err := n.db.BlockLayers(l+1, 1)
	if err != nil || len(layers) == 0 {
		t.Fatalf("no block after layer %d: %v", l, err)
	}
	return layers[0].Layer
}

// Two halves of a network that do not hear of each other's ATXs each certify
// with all the weight that they know. Once they hear, what was too little goes.
func TestASplitNetworkIsOneAgainAfterItHeals(t *testing.T) {
	dirs := t.TempDir()
	inBubble(t, func(t *testing.T) {
		b := newBubble(t, "split")
		b.startPoet()
		for _, name := range []string{"a", "b", "c", "d"} {
			b.add(filepath.Join(dirs, name))
		}
		b.until(1, -time.Second) // all have met, and no ATX is published yet
		b.net.Partition([]netip.Addr{virtual.IP(0), virtual.IP(1)}, []netip.Addr{virtual.IP(2), virtual.IP(3)})
		b.until(2, 35*time.Second) // two layers
		if a, c := b.nodes[0].snapshot.Load().Tip, b.nodes[2].snapshot.Load().Tip; a.Layer < b.nodes[0].schedule.First(2) || a.StateRoot == c.StateRoot {
			t.Errorf("the halves did not go apart: layers %d and %d", a.Layer, c.Layer)
		}
		b.net.HealAll()
		b.until(5, 0)
		b.same(b.nodes[0].schedule.First(5) - 2)
		b.close()
	})
}
