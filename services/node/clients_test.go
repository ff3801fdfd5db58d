package node

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tweedle/edges/store"
	"tweedle/values/types"
)

// drain reads a stream to its end.
func drain[T any](s grpc.ServerStreamingClient[T], err error) error {
	for err == nil {
		_, err = s.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// scan reads all that there is over one connection, in so many calls at a time,
// until ctx ends. It returns how many calls were answered and refused.
func scan(ctx context.Context, conn *grpc.ClientConn, calls, layers int, account string) (answered, refused int64) {
	mesh, txs, state := spacemesh.NewMeshServiceClient(conn), spacemesh.NewTransactionServiceClient(conn), spacemesh.NewGlobalStateServiceClient(conn)
	var yes, no atomic.Int64
	var all sync.WaitGroup
	for k := range calls {
		all.Go(func() {
			for i := k; ctx.Err() == nil; i++ {
				err := error(nil)
				switch i % 4 {
				case 0:
					_, err = mesh.LayersQuery(ctx, &spacemesh.LayersQueryRequest{
						StartLayer: &spacemesh.LayerNumber{Number: 0}, EndLayer: &spacemesh.LayerNumber{Number: uint32(layers)}})
				case 1:
					err = drain(mesh.EpochStream(ctx, &spacemesh.EpochStreamRequest{Epoch: uint32(1 + i%4)}))
				case 2:
					err = drain(txs.StreamResults(ctx, &spacemesh.TransactionResultsRequest{Start: 0}))
				case 3: // what waits is counted in: it looks into the machine
					_, err = state.Account(ctx, &spacemesh.AccountRequest{AccountId: &spacemesh.AccountId{Address: account}})
				}
				if err == nil {
					yes.Add(1)
				} else {
					no.Add(1)
				}
			}
		})
	}
	all.Wait()
	return yes.Load(), no.Load()
}

// Clients of many addresses scan all of the past, over and over. What the loop reads
// waits for none of them, and layers are applied in time.
func TestScanningClientsDelayNoLayer(t *testing.T) {
	addresses, epochs, layers := 2, 5, 2
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		addresses, epochs, layers = 16, 60, 10
	}
	a := grown(t, "local", 3, 0, epochs)
	a.configs[0].GRPCListen = "127.0.0.1:0"
	a.live(t)
	n := a.nodes[0]
	for until := time.Now().Add(30 * time.Second); !n.snapshot.Load().Synced; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("it is not synced")
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const conns, calls = 2, 32 // of an address, all that it may have
	var all sync.WaitGroup
	var answered, refused atomic.Int64
	for i := range addresses {
		for range conns {
			from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}}
			conn, err := grpc.NewClient(n.Endpoints().GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return from.DialContext(ctx, "tcp", to) }))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			all.Go(func() {
				yes, no := scan(ctx, conn, calls, int(n.snapshot.Load().Tip.Layer), types.Address{20: 1, 23: 1}.Bech32(n.params.HRP))
				answered.Add(yes)
				refused.Add(no)
			})
		}
	}

	loop := store.Core{Reader: n.db.Loop()}
	var took []time.Duration
	first := n.schedule.LayerAt(n.now()) + 1
	for until := n.schedule.LayerStart(first + types.Layer(layers)); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		at := time.Now()
		if _, err := loop.Decisions(first-10, 10); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(at))
	}
	tip := n.snapshot.Load().Tip.Layer
	cancel()
	all.Wait()
	slices.Sort(took)
	t.Logf("%d calls at a time from %d addresses: %d answered, %d not; %d reads of the loop: p50 %v, p99 %v, longest %v; layer %d of %d", addresses*conns*calls, addresses,
		answered.Load(), refused.Load(), len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1], tip, first+types.Layer(layers)-1)
	// The median, since the clients have the same processors: where the loop shares the
	// clients' connections it is 24 ms with an eighth of them.
	if os.Getenv("TWEEDLE_NIGHTLY") != "" && took[len(took)/2] > 5*time.Millisecond {
		t.Error("the loop waits for its clients")
	}
	if answered.Load() == 0 {
		t.Error("nobody scanned anything")
	}
	if tip+3 < first+types.Layer(layers) {
		t.Errorf("the newest layer applied is %d, the clock shows %d", tip, first+types.Layer(layers)-1)
	}
}
