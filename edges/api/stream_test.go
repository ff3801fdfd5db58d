package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/edges/front"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// subscribed waits until n streams have subscribed.
func (s *served) subscribed(t testing.TB, n int) {
	t.Helper()
	for range 2000 {
		s.events.mu.Lock()
		have := len(s.events.subscribers)
		s.events.mu.Unlock()
		if have == n {
			return
		}
		time.Sleep(5 * time.Millisecond) // a stream has no sign of being open before its first message
	}
	t.Fatalf("there are not %d subscribers", n)
}

func TestStreamsTellWhatHappens(t *testing.T) {
	s := serve(t)
	ctx := deadline(t)
	layers := check[grpc.ServerStreamingClient[spacemesh.LayerStreamResponse]](t)(s.mesh.LayerStream(ctx, &spacemesh.LayerStreamRequest{}))
	state := check[grpc.ServerStreamingClient[spacemesh.StatusStreamResponse]](t)(s.node.StatusStream(ctx, &spacemesh.StatusStreamRequest{}))
	data := check[grpc.ServerStreamingClient[spacemesh.AccountDataStreamResponse]](t)(s.state.AccountDataStream(ctx, &spacemesh.AccountDataStreamRequest{
		Filter: &spacemesh.AccountDataFilter{AccountId: s.accountID(0), AccountDataFlags: 7},
	}))
	coinbase := &spacemesh.AccountId{Address: s.atx.Coinbase.Bech32("stest")}
	meshData := check[grpc.ServerStreamingClient[spacemesh.AccountMeshDataStreamResponse]](t)(s.mesh.AccountMeshDataStream(ctx, &spacemesh.AccountMeshDataStreamRequest{
		Filter: &spacemesh.AccountMeshDataFilter{AccountId: coinbase, AccountMeshDataFlags: 3},
	}))
	global := check[grpc.ServerStreamingClient[spacemesh.GlobalStateStreamResponse]](t)(s.state.GlobalStateStream(ctx, &spacemesh.GlobalStateStreamRequest{GlobalStateDataFlags: 15}))
	spawn := vm.Spawn(s.signer(0), 0, 1)
	id := spawn.ID()
	txState := check[grpc.ServerStreamingClient[spacemesh.TransactionsStateStreamResponse]](t)(s.tx.TransactionsStateStream(ctx, &spacemesh.TransactionsStateStreamRequest{
		TransactionId: []*spacemesh.TransactionId{{Id: id[:]}}, IncludeTransactions: true,
	}))
	s.subscribed(t, 6)
	// What the streams say before anything happens.
	if r := check[*spacemesh.StatusStreamResponse](t)(state.Recv()); r.Status.VerifiedLayer.Number != 19 {
		t.Errorf("status %v", r)
	}
	if r := check[*spacemesh.TransactionsStateStreamResponse](t)(txState.Recv()); r.TransactionState.State != spacemesh.TransactionState_TRANSACTION_STATE_UNSPECIFIED || r.Transaction != nil {
		t.Errorf("unknown transaction: %v", r)
	}

	s.mustSubmit(t, spawn)
	if r := check[*spacemesh.TransactionsStateStreamResponse](t)(txState.Recv()); r.TransactionState.State != spacemesh.TransactionState_TRANSACTION_STATE_MEMPOOL || !bytes.Equal(r.Transaction.Raw, spawn) {
		t.Errorf("waiting transaction: %v", r)
	}
	result := s.apply(20)
	if r := check[*spacemesh.TransactionsStateStreamResponse](t)(txState.Recv()); r.TransactionState.State != spacemesh.TransactionState_TRANSACTION_STATE_PROCESSED {
		t.Errorf("applied transaction: %v", r)
	}
	if r := check[*spacemesh.LayerStreamResponse](t)(layers.Recv()); r.Layer.Number.Number != 20 || !bytes.Equal(r.Layer.Blocks[0].Transactions[0].Raw, spawn) {
		t.Errorf("layer %v", r)
	}
	if r := check[*spacemesh.StatusStreamResponse](t)(state.Recv()); r.Status.VerifiedLayer.Number != 20 {
		t.Errorf("status %v", r)
	}
	if r := check[*spacemesh.AccountDataStreamResponse](t)(data.Recv()); !bytes.Equal(r.Datum.GetReceipt().GetId().GetId(), id[:]) {
		t.Errorf("receipt %v", r)
	}
	if r := check[*spacemesh.AccountDataStreamResponse](t)(data.Recv()); r.Datum.GetAccountWrapper().GetStateCurrent().GetCounter() != 1 {
		t.Errorf("account %v", r)
	}
	seen := map[string]int{}
	for last := false; !last; {
		switch d := check[*spacemesh.GlobalStateStreamResponse](t)(global.Recv()).Datum; {
		case d.GetReceipt() != nil:
			seen["receipt"]++
		case d.GetReward() != nil:
			if d.GetReward().Coinbase.Address != coinbase.Address || !bytes.Equal(d.GetReward().Smesher.Id, s.atx.SmesherID[:]) || d.GetReward().Total.Value <= d.GetReward().LayerReward.Value {
				t.Errorf("reward %v", d)
			}
			seen["reward"]++
		case d.GetAccountWrapper() != nil:
			seen["account"]++
		default:
			root := result.Outcome.State.Root()
			last = bytes.Equal(d.GetGlobalState().RootHash, root[:])
		}
	}
	if fmt.Sprint(seen) != "map[account:2 receipt:1 reward:1]" {
		t.Errorf("the state stream told %v", seen)
	}
	atx := &types.ATX{PublishEpoch: 2, Coinbase: s.atx.Coinbase, SmesherID: types.NodeID{8}}
	s.activate(atx)
	if r := check[*spacemesh.AccountMeshDataStreamResponse](t)(meshData.Recv()); r.Datum.GetActivation().GetNumUnits() != 4 || r.Datum.GetActivation().GetLayer().GetNumber() != 20 {
		t.Errorf("activation %v", r)
	}
	s.mustSubmit(t, vm.Spend(s.signer(0), s.atx.Coinbase, 1, 1, 1))
	if r := check[*spacemesh.AccountMeshDataStreamResponse](t)(meshData.Recv()); r.Datum.GetMeshTransaction().GetTransaction().GetPrincipal().GetAddress() != s.bech32(0) {
		t.Errorf("transaction %v", r)
	}
	epoch := check[grpc.ServerStreamingClient[spacemesh.EpochStreamResponse]](t)(s.mesh.EpochStream(ctx, &spacemesh.EpochStreamRequest{Epoch: 3}))
	atxID := atx.ID()
	if r := check[*spacemesh.EpochStreamResponse](t)(epoch.Recv()); !bytes.Equal(r.Id.Id, atxID[:]) {
		t.Errorf("ATX of epoch 3: %v", r)
	}
	if _, err := epoch.Recv(); err != io.EOF {
		t.Errorf("after the last ATX: %v", err)
	}
}

// The same over REST, one line a message.
func TestAStreamIsToldOverREST(t *testing.T) {
	s := serve(t)
	id := s.atx.ID()
	for _, path := range []string{"/v1/mesh/epochstream", "/spacemesh.v1.MeshService/EpochStream"} {
		code, line := s.post(t, path, `{"epoch":2}`)
		got, _ := line["result"].(map[string]any)
		if atx, _ := got["id"].(map[string]any); code != http.StatusOK || atx["id"] != base64.StdEncoding.EncodeToString(id[:]) {
			t.Errorf("%s: HTTP %d %v", path, code, line)
		}
	}
}

func TestResultsArePastThenToCome(t *testing.T) {
	s := serve(t)
	spawn, spend, failing := history(t, s)
	read := func(req *spacemesh.TransactionResultsRequest) []string {
		stream := check[grpc.ServerStreamingClient[spacemesh.TransactionResult]](t)(s.tx.StreamResults(deadline(t), req))
		var got []string
		for {
			r, err := stream.Recv()
			if err == io.EOF {
				return got
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%x in %d: %v", r.Tx.Id[:4], r.Layer, r.Status))
		}
	}
	line := func(tx types.Transaction, layer int, st string) string {
		id := tx.ID()
		return fmt.Sprintf("%x in %d: %s", id[:4], layer, st)
	}
	all := []string{line(spawn, 20, "SUCCESS"), line(spend, 22, "SUCCESS"), line(failing, 22, "FAILURE")}
	id := failing.ID()
	for name, tc := range map[string]struct {
		req  *spacemesh.TransactionResultsRequest
		want []string
	}{
		"all":              {&spacemesh.TransactionResultsRequest{}, all},
		"from a layer":     {&spacemesh.TransactionResultsRequest{Start: 21}, all[1:]},
		"to a layer":       {&spacemesh.TransactionResultsRequest{End: 21}, all[:1]},
		"one":              {&spacemesh.TransactionResultsRequest{Id: id[:]}, all[2:]},
		"one, elsewhere":   {&spacemesh.TransactionResultsRequest{Id: id[:], End: 21}, nil},
		"unknown":          {&spacemesh.TransactionResultsRequest{Id: make([]byte, 32)}, nil},
		"an account":       {&spacemesh.TransactionResultsRequest{Address: s.bech32(1)}, all[1:2]},
		"both of a failed": {&spacemesh.TransactionResultsRequest{Address: s.bech32(2)}, all[2:]},
	} {
		if got := read(tc.req); fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
	for _, tc := range []struct {
		req    *spacemesh.TransactionResultsRequest
		reason string
	}{
		{&spacemesh.TransactionResultsRequest{Start: 3, End: 2}, "start 3 is after end 2"},
		{&spacemesh.TransactionResultsRequest{Id: []byte{1}}, "1 bytes, not 32"},
		{&spacemesh.TransactionResultsRequest{Address: "x"}, "address"},
	} {
		_, err := check[grpc.ServerStreamingClient[spacemesh.TransactionResult]](t)(s.tx.StreamResults(deadline(t), tc.req)).Recv()
		wantStatus(t, err, codes.InvalidArgument, tc.reason)
	}

	watch := check[grpc.ServerStreamingClient[spacemesh.TransactionResult]](t)(s.tx.StreamResults(deadline(t), &spacemesh.TransactionResultsRequest{Watch: true, Start: 21, Address: s.bech32(0)}))
	for range 2 {
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	next := vm.Spend(s.signer(0), s.address(3), 7, 3, 1)
	s.mustSubmit(t, next)
	s.apply(23)
	r := check[*spacemesh.TransactionResult](t)(watch.Recv())
	if !bytes.Equal(r.Tx.Raw, next) || r.Layer != 23 || len(r.TouchedAddresses) != 2 || r.TouchedAddresses[1] != s.bech32(3) || r.Fee == 0 || len(r.Block) != 20 {
		t.Errorf("watched %v", r)
	}
}

// The past is as long as the network is old: to read it for one client has an end,
// also where nothing of it is sent, and also where the client stays to watch.
func TestReadingThePastHasAnEnd(t *testing.T) {
	s := serve(t, func(c *Config) { c.Limits = DefaultLimits(); c.Limits.Past = time.Nanosecond })
	history(t, s)
	for _, req := range []*spacemesh.TransactionResultsRequest{{}, {Watch: true}, {Address: s.bech32(7)}} {
		_, err := check[grpc.ServerStreamingClient[spacemesh.TransactionResult]](t)(s.tx.StreamResults(deadline(t), req)).Recv()
		wantStatus(t, err, codes.DeadlineExceeded, "from layer")
	}
}

func TestASlowReaderIsDroppedAndHoldsNobodyUp(t *testing.T) {
	s := serve(t)
	slow := check[grpc.ServerStreamingClient[spacemesh.LayerStreamResponse]](t)(s.mesh.LayerStream(deadline(t), &spacemesh.LayerStreamRequest{}))
	s.subscribed(t, 1)
	s.apply(20)
	applied := Applied{s.apply(21)}
	// A stream takes some events into its buffers; nobody reads them.
	for range 100 * MaxBacklog {
		s.events.Publish(applied)
		s.events.mu.Lock()
		dropped := len(s.events.subscribers) == 0
		s.events.mu.Unlock()
		if dropped {
			break
		}
	}
	s.subscribed(t, 0)
	for {
		if _, err := slow.Recv(); err != nil {
			wantStatus(t, err, codes.ResourceExhausted, "subscribe again")
			return
		}
	}
}

func TestStreamsAreCounted(t *testing.T) {
	e := NewEvents()
	for range MaxSubscribers {
		if _, err := e.subscribe(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := e.subscribe()
	wantStatus(t, err, codes.ResourceExhausted, "too many streams")
	e.close()
	_, err = e.subscribe()
	wantStatus(t, err, codes.Unavailable, "stopping")
	e.close()
	e.Publish(Accepted{}) // nobody is left
}

// One address cannot have all streams; the proofs that it sends are limited,
// and so are those that are being checked at a time.
func TestOneAddressHasItsShareOfStreamsAndProofs(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := serve(t, func(c *Config) {
		c.Front.Metrics = front.NewMetrics("api", registry)
		c.Limits = DefaultLimits()
		c.Limits.AddressCalls, c.Limits.PublishRate, c.Limits.PublishBurst = 5, 1e-9, 3
	})
	for range 5 {
		check[grpc.ServerStreamingClient[spacemesh.LayerStreamResponse]](t)(s.mesh.LayerStream(deadline(t), &spacemesh.LayerStreamRequest{}))
	}
	s.subscribed(t, 5)
	_, err := check[grpc.ServerStreamingClient[spacemesh.LayerStreamResponse]](t)(s.mesh.LayerStream(deadline(t), &spacemesh.LayerStreamRequest{})).Recv()
	wantStatus(t, err, codes.ResourceExhausted, "of this address")
	other := func() *grpc.ClientConn {
		conn := check[*grpc.ClientConn](t)(grpc.NewClient(s.cfg.GRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
				return d.DialContext(ctx, "tcp", addr)
			})))
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}()
	check[grpc.ServerStreamingClient[spacemesh.LayerStreamResponse]](t)(spacemesh.NewMeshServiceClient(other).LayerStream(deadline(t), &spacemesh.LayerStreamRequest{}))
	s.subscribed(t, 6)
	gateway := gatewaypb.NewGatewayServiceClient(other)
	for i := range 4 {
		_, err := gateway.PublishPoet(deadline(t), &gatewaypb.PublishPoetRequest{Data: []byte{1}})
		want := codes.InvalidArgument
		if i == 3 {
			want = codes.ResourceExhausted
		}
		wantStatus(t, err, want, "proof")
	}
	limited := map[string]float64{}
	for _, f := range check[[]*dto.MetricFamily](t)(registry.Gather()) {
		for _, m := range f.GetMetric() {
			if f.GetName() == "api_requests_limited_total" {
				limited[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if fmt.Sprint(limited) != "map[address-calls:1 publish-rate:1]" {
		t.Errorf("counted %v", limited)
	}
}

// slowGateway takes its time for each proof and counts how many it has.
type slowGateway struct {
	Gateway
	now, most atomic.Int32
}

func (g *slowGateway) PublishPoet(context.Context, []byte) (Published, error) {
	n := g.now.Add(1)
	defer g.now.Add(-1)
	for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
	}
	time.Sleep(time.Second) // in a bubble
	return Published{}, nil
}

func TestFewProofsAreCheckedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &slowGateway{}
		s := gatewayService{backend: &backend{Config: Config{Gateway: g}, publishing: make(chan struct{}, 2)}}
		var wait sync.WaitGroup
		late := atomic.Int32{}
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		for range 10 {
			wait.Go(func() {
				if _, err := s.PublishPoet(ctx, &gatewaypb.PublishPoetRequest{Data: []byte{1}}); status.Code(err) == codes.DeadlineExceeded {
					late.Add(1)
				}
			})
		}
		wait.Wait()
		if g.most.Load() != 2 || late.Load() != 2 {
			t.Errorf("%d at a time, %d had no turn", g.most.Load(), late.Load())
		}
	})
}

func TestTheEndOfTheNodeEndsItsStreams(t *testing.T) {
	s := serve(t)
	stream := check[grpc.ServerStreamingClient[spacemesh.LayerStreamResponse]](t)(s.mesh.LayerStream(deadline(t), &spacemesh.LayerStreamRequest{}))
	s.subscribed(t, 1)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	_, err := stream.Recv()
	wantStatus(t, err, codes.Unavailable, "node is stopping")
}

func TestRunEndsEvenIfItNeverBegan(t *testing.T) {
	l := newLedger(t)
	cfg := Config{Store: l.db.Public(), Node: l, VM: l.params, Schedule: l.schedule, GRPC: bufconn.Listen(1 << 16), REST: check[net.Listener](t)(front.Listen("127.0.0.1:0"))}
	s := check[*Server](t)(New(cfg))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", cfg.REST.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

// The server works on a listener in memory too, as simulations have.
func TestTheServerWorksInMemory(t *testing.T) {
	l := newLedger(t)
	listener := bufconn.Listen(1 << 16)
	s := check[*Server](t)(New(Config{Store: l.db.Public(), Node: l, VM: l.params, Schedule: l.schedule, GRPC: listener}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn := check[*grpc.ClientConn](t)(grpc.NewClient("passthrough:node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })))
	r, err := spacemesh.NewMeshServiceClient(conn).CurrentLayer(deadline(t), &spacemesh.CurrentLayerRequest{})
	if err != nil || r.Layernum.Number != nowLayer {
		t.Errorf("layer %v, %v", r, err)
	}
	_ = conn.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRequestsOfAnAddressAreLimited(t *testing.T) {
	s := serve(t, func(c *Config) { c.Limits = DefaultLimits(); c.Limits.Rate, c.Limits.Burst = 1e-6, 3 })
	for range 3 {
		if _, err := s.node.Status(deadline(t), &spacemesh.StatusRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.node.Status(deadline(t), &spacemesh.StatusRequest{})
	wantStatus(t, err, codes.ResourceExhausted, "send fewer a second")
	_, err = check[grpc.ServerStreamingClient[spacemesh.LayerStreamResponse]](t)(s.mesh.LayerStream(deadline(t), &spacemesh.LayerStreamRequest{})).Recv()
	wantStatus(t, err, codes.ResourceExhausted, "send fewer a second")
	// The same address, the same budget.
	if code, body := s.post(t, "/v1/node/status", "{}"); code != http.StatusTooManyRequests || !strings.Contains(fmt.Sprint(body["message"]), "fewer") {
		t.Errorf("HTTP %d %v", code, body)
	}
}

// readUntilClosed returns once the server has closed the connection.
func readUntilClosed(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Fatal("the connection is still open")
	}
}

func TestConnectionsOverTheLimitAreClosedAtOnce(t *testing.T) {
	s := serve(t, func(c *Config) {
		c.Limits = DefaultLimits()
		c.Limits.Connections, c.Limits.AddressConnections = 8, 4
		c.Limits.Handshake = time.Minute
	})
	dial := func() net.Conn { return check[net.Conn](t)(net.Dial("tcp", s.cfg.REST.Addr().String())) }
	var held []net.Conn
	for range 4 {
		held = append(held, dial())
	}
	over := dial()
	readUntilClosed(t, over)
	_ = over.Close()
	for _, c := range held {
		_ = c.Close()
	}
	// Once they are gone there is room again.
	for i := 0; ; i++ {
		resp, err := s.http.Post("http://"+s.cfg.REST.Addr().String()+"/v1/node/status", "application/json", strings.NewReader("{}"))
		if err == nil {
			_ = resp.Body.Close()
			break
		}
		if i == 1000 {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // the server notices a closed connection in its own time
	}
}

func TestClientsThatSayNothingAreCutOff(t *testing.T) {
	s := serve(t, func(c *Config) { c.Limits = DefaultLimits(); c.Limits.Handshake = 50 * time.Millisecond })
	for _, l := range []net.Listener{s.cfg.GRPC, s.cfg.REST} {
		c := check[net.Conn](t)(net.Dial("tcp", l.Addr().String()))
		if _, err := c.Write([]byte("P")); err != nil {
			t.Fatal(err)
		}
		readUntilClosed(t, c)
		_ = c.Close()
	}
}

func TestAnAnswerHasItsTime(t *testing.T) {
	s := serve(t, func(c *Config) {
		c.Limits = DefaultLimits()
		c.Limits.Call = 20 * time.Millisecond
		c.Node = stuck{c.Node}
	})
	wantStatus(t, s.submit(t, vm.Spawn(s.signer(0), 0, 1)), codes.DeadlineExceeded, "no answer in time")
	code, body := s.post(t, "/v1/transaction/submittransaction", `{"transaction":"AAAA"}`)
	if code != http.StatusGatewayTimeout || body["code"] != float64(codes.DeadlineExceeded) {
		t.Errorf("HTTP %d %v", code, body)
	}
}

// stuck is a node whose loop does not answer.
type stuck struct{ Node }

func (stuck) SubmitTransaction(ctx context.Context, _ types.Transaction) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestPagesGoAcrossSections(t *testing.T) {
	for offset := range uint32(9) {
		for limit := range uint32(9) {
			var got []string
			list := func(name string, n int) section {
				return section{
					func() (int, error) { return n, nil },
					func(offset, limit int) error {
						for i := offset; i < offset+limit; i++ {
							got = append(got, fmt.Sprint(name, i))
						}
						return nil
					},
				}
			}
			total, err := paged([]section{list("a", 3), list("b", 0), list("c", 4)}, offset, limit)
			all := []string{"a0", "a1", "a2", "c0", "c1", "c2", "c3"}
			want := all[min(offset, 7):]
			if limit > 0 {
				want = want[:min(int(limit), len(want))]
			}
			if err != nil || total != 7 || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("offset %d, limit %d: %v of %d, want %v (%v)", offset, limit, got, total, want, err)
			}
		}
	}
}

func TestAStatusPassesThrough(t *testing.T) {
	b := &backend{}
	if err := b.fail(status.Error(codes.NotFound, "x")); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	if b.fail(nil) != nil {
		t.Error("nothing is an error")
	}
}
