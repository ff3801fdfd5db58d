package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
	"tweedle/proofs/posw"
	"tweedle/protocol/registration"
	"tweedle/services/poet/book"
	"tweedle/services/poet/delivery"
	"tweedle/services/poet/door"
	"tweedle/services/poet/rounds"
	"tweedle/services/poet/work"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// internet is every listener by its address, in memory.
type internet struct {
	t *testing.T

	mu    sync.Mutex
	pipes map[string]*bufconn.Listener
}

func newInternet(t *testing.T) *internet {
	return &internet{t: t, pipes: map[string]*bufconn.Listener{}}
}

func (n *internet) listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &named{bufconn.Listen(1 << 20), address(addr)}
	n.pipes[addr] = l.Listener
	return l, nil
}

func (n *internet) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.pipes[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.DialContext(ctx)
}

func (n *internet) dialer() grpc.DialOption { return grpc.WithContextDialer(n.dial) }

type named struct {
	*bufconn.Listener
	addr address
}

func (l *named) Addr() net.Addr { return l.addr }

type address string

func (a address) Network() string { return "memory" }
func (a address) String() string  { return string(a) }

// node is a gateway that verifies what it gets as a node does.
type node struct {
	gatewaypb.UnimplementedGatewayServiceServer
	spacemesh.UnimplementedNodeServiceServer
	spacemesh.UnimplementedMeshServiceServer
	id string

	mu   sync.Mutex
	kept map[types.PoetProofRef][]byte
}

func (n *internet) node(addr string) *node {
	g := &node{id: addr, kept: map[types.PoetProofRef][]byte{}}
	s := grpc.NewServer()
	gatewaypb.RegisterGatewayServiceServer(s, g)
	spacemesh.RegisterNodeServiceServer(s, g)
	spacemesh.RegisterMeshServiceServer(s, g)
	l, _ := n.listen(addr)
	go func() { _ = s.Serve(l) }() // ends with Stop
	n.t.Cleanup(s.Stop)
	return g
}

func (g *node) GenesisID(context.Context, *spacemesh.GenesisIDRequest) (*spacemesh.GenesisIDResponse, error) {
	return &spacemesh.GenesisIDResponse{GenesisId: network[:]}, nil
}

func (g *node) Status(context.Context, *spacemesh.StatusRequest) (*spacemesh.StatusResponse, error) {
	return &spacemesh.StatusResponse{Status: &spacemesh.NodeStatus{IsSynced: true, ConnectedPeers: 2}}, nil
}

func (g *node) GatewayPeers(context.Context, *gatewaypb.GatewayPeersRequest) (*gatewaypb.GatewayPeersResponse, error) {
	return &gatewaypb.GatewayPeersResponse{Id: g.id}, nil
}

func (g *node) PublishPoet(_ context.Context, in *gatewaypb.PublishPoetRequest) (*gatewaypb.PublishPoetResponse, error) {
	var m types.PoetProofMessage
	if err := codec.Decode(in.GetData(), &m); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := posw.Verify(m.Statement[:], &m.Proof, 1); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	ref := m.Proof.Ref()
	g.kept[ref] = in.GetData()
	return &gatewaypb.PublishPoetResponse{Ref: ref[:], Validated: true, Stored: true, Peers: 2}, nil
}

func (g *node) GatewayProof(_ context.Context, in *gatewaypb.GatewayProofRequest) (*gatewaypb.GatewayProofResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	data, ok := g.kept[types.PoetProofRef(in.GetRef())]
	if !ok {
		return nil, status.Error(codes.NotFound, "not here")
	}
	return &gatewaypb.GatewayProofResponse{Data: data}, nil
}

func (g *node) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.kept)
}

var network = types.GenesisID{3}

// config is a server whose rounds close after 2 s and work for 2 s.
func (n *internet) config(dir string, genesis time.Time, gateways ...string) Config {
	cfg := Config{
		Poet: rounds.Config{
			Dir: dir, Work: work.Config{LeavesPerSecond: 500, MaxLeavesPerSecond: 500}, BallastBytes: 1 << 16,
			Schedule: types.PoetSchedule{Genesis: genesis, EpochDuration: 4 * time.Second, PhaseShift: 2 * time.Second, CycleGap: 2 * time.Second},
		},
		Delivery: delivery.DefaultConfig(), Gateways: gateways, Limits: door.DefaultLimits(),
		GRPC: "poet:1", REST: "poet:2", Admin: "poet:3", Version: "test", Log: slog.New(slog.DiscardHandler),
		Listen: n.listen, Dial: []grpc.DialOption{n.dialer()},
	}
	cfg.Delivery.Genesis = network
	return cfg
}

// start runs a server until stop.
func (n *internet) start(run func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		begin := time.Now()
		if err := <-ended; err != nil {
			n.t.Errorf("the server ended with %v", err)
		}
		if d := time.Since(begin); d > time.Second {
			n.t.Errorf("the server took %v to end", d)
		}
	})
	n.t.Cleanup(stop)
	synctest.Wait()
	return stop
}

func (n *internet) serve(cfg Config) (stop func()) {
	return n.start(func(ctx context.Context) error { return Run(ctx, cfg) })
}

func (n *internet) connect(addr string) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), n.dialer())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// register makes the i-th smesher a member of the open round.
func (n *internet) register(i byte) string {
	n.t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, ed25519.SeedSize))
	client := poetpb.NewPoetServiceClient(n.connect("poet:1"))
	pow, err := client.PowParams(n.t.Context(), &poetpb.PowParamsRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	public, challenge := key.Public().(ed25519.PublicKey), bytes.Repeat([]byte{i}, 32)
	nonce, _ := registration.SolvePow(registration.PowParams{Challenge: pow.GetPowParams().GetChallenge(), Difficulty: uint(pow.GetPowParams().GetDifficulty())}, public, challenge, 1<<20)
	out, err := client.Submit(n.t.Context(), &poetpb.SubmitRequest{
		Nonce: nonce, PowParams: pow.GetPowParams(), Challenge: challenge, Pubkey: public, Signature: ed25519.Sign(key, challenge),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return out.GetRoundId()
}

func (n *internet) admin(dir string) poetadminpb.AdminServiceClient {
	n.t.Helper()
	conn, err := front.DialAdmin("poet:3", filepath.Join(dir, front.TokenFile), n.dialer())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	return poetadminpb.NewAdminServiceClient(conn)
}

func (n *internet) deliveries(dir string) string {
	n.t.Helper()
	out, err := n.admin(dir).ListProofs(n.t.Context(), &poetadminpb.ListProofsRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	var list []string
	for _, p := range out.GetProofs() {
		list = append(list, p.GetRoundId()+" "+p.GetState())
	}
	return strings.Join(list, ", ")
}

// From a registration to two nodes that have verified the proof; rounds
// without members bother nobody.
func TestTheWayOfAProof(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newInternet(t)
		a, b := n.node("a:9"), n.node("b:9")
		cfg := n.config(dir, time.Now(), "a:9", "b:9")
		announced := make(chan telemetry.Endpoints, 1)
		withdrawn := false // read after the server has ended
		cfg.Metrics = "poet:4"
		cfg.Announce = func(e telemetry.Endpoints) (func(), error) {
			announced <- e
			return func() { withdrawn = true }, nil
		}
		stop := n.serve(cfg)
		if told := <-announced; told != (telemetry.Endpoints{GRPC: "poet:1", REST: "poet:2", Admin: "poet:3", Metrics: "poet:4"}) {
			t.Fatalf("announced %+v", told)
		}
		if round := n.register(1); round != "0" {
			t.Fatalf("registered in round %s", round)
		}
		time.Sleep(8 * time.Second) // round 1, which nobody joined, is proved too
		synctest.Wait()
		if got := n.deliveries(dir); got != "0 delivered" {
			t.Fatalf("deliveries: %s", got)
		}
		if a.count() != 1 || b.count() != 1 {
			t.Fatalf("the nodes keep %d and %d proofs", a.count(), b.count())
		}
		checkMetrics(t, n)
		stop()
		if !withdrawn {
			t.Fatal("the endpoints were not withdrawn")
		}
	})
}

func checkMetrics(t *testing.T, n *internet) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return n.dial(ctx, "poet:4") }}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Get("http://poet/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`poet_gateways{state="live"} 2`, `poet_proofs_undelivered 0`, `poet_delivery_events_total{event="proof_delivered"} 1`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Submit",grpc_service="rpc.api.v1.PoetService",grpc_type="unary"} 1`,
		`poet_round_members_total{id="0"} 1`, `poet_registration_with_pow_total`, `poet_round_batch_write_latency_seconds`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// The server stops after a proof was stored and before it was delivered: the
// next start delivers it.
func TestAStoredProofIsDeliveredAfterARestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newInternet(t)
		genesis := time.Now()
		stop := n.serve(n.config(dir, genesis))
		n.register(1)
		time.Sleep(4500 * time.Millisecond)
		synctest.Wait()
		if got := n.deliveries(dir); got != "0 pending" {
			t.Fatalf("deliveries: %s", got)
		}
		stop()
		loseDeliveries(t, dir)
		a := n.node("a:9")
		n.node("b:9")
		stop = n.serve(n.config(dir, genesis, "a:9", "b:9"))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := n.deliveries(dir); got != "0 delivered" || a.count() != 1 {
			t.Fatalf("deliveries: %s, kept %d", got, a.count())
		}
		stop()
	})
}

// Setting gateways over the admin API of a running server delivers at once.
func TestGatewaysSetThroughTheAdminAPI(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newInternet(t)
		stop := n.serve(n.config(dir, time.Now(), "dead-1:9", "dead-2:9"))
		n.register(1)
		time.Sleep(3 * time.Second)
		n.register(2)
		time.Sleep(6 * time.Second)
		if got := n.deliveries(dir); got != "0 pending, 1 pending" {
			t.Fatalf("deliveries: %s", got)
		}
		n.node("a:9")
		n.node("b:9")
		admin := n.admin(dir)
		if _, err := admin.SetGateways(t.Context(), &poetadminpb.SetGatewaysRequest{Addresses: []string{"a:9", "b:9"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := n.deliveries(dir); got != "0 delivered, 1 delivered" {
			t.Fatalf("deliveries: %s", got)
		}
		if _, err := admin.Rebroadcast(t.Context(), &poetadminpb.RebroadcastRequest{RoundId: "0"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := n.deliveries(dir); got != "0 delivered, 1 delivered" {
			t.Fatalf("deliveries: %s", got)
		}
		if _, err := admin.Rebroadcast(t.Context(), &poetadminpb.RebroadcastRequest{RoundId: "77"}); status.Code(err) != codes.NotFound {
			t.Fatalf("rebroadcast of an unknown round: %v", err)
		}
		stop()
	})
}

func TestStartErrorsSayWhatToDo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	base := Config{
		Poet:     rounds.Config{Dir: filepath.Join(t.TempDir(), "poet"), Schedule: types.PoetSchedule{Genesis: time.Now(), EpochDuration: time.Hour, PhaseShift: time.Minute, CycleGap: time.Minute}},
		Delivery: delivery.DefaultConfig(), Limits: door.DefaultLimits(), GRPC: "127.0.0.1:0", REST: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Log: slog.New(slog.DiscardHandler),
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.GRPC = l.Addr().String() }, "--rpclisten: address " + l.Addr().String() + " is in use by another process: stop it, or choose another port"},
		{func(c *Config) { c.REST = "256.0.0.1:x" }, "--restlisten: cannot listen on 256.0.0.1:x"},
		{func(c *Config) { c.Admin = "0.0.0.0:0" }, "could be reached from outside"},
		{func(c *Config) { c.Poet.Dir = filepath.Join(file, "poet") }, "not a directory"},
		{func(c *Config) { c.Gateways = []string{"nonsense"} }, "give host:port"},
		{func(c *Config) { c.Delivery.Acks = 9 }, "lower the one or raise the other"},
	} {
		cfg := base
		c.change(&cfg)
		err := Run(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want one line with %q", err, c.want)
		}
	}
}

// What cannot be used is named, and is not the data directory if it is a file
// elsewhere.
func TestAStartErrorNamesTheFile(t *testing.T) {
	for _, c := range []struct {
		path string
		err  syscall.Errno
		want string
	}{
		{"/srv/poet", syscall.EACCES, "/srv/poet cannot be used: change its owner or mode, or choose another with --dir"},
		{"/srv/poet/poet.db", syscall.EROFS, "/srv/poet/poet.db cannot be used: change its owner or mode, or choose another with --dir"},
		{"/etc/keys/a.pub", syscall.EACCES, "/etc/keys/a.pub cannot be used: change its owner or mode, or name another"},
		{"/etc/keys", syscall.ENOTDIR, "/etc/keys is not a directory: name another"},
	} {
		err := startError(fmt.Errorf("trusted keys: %w", &fs.PathError{Op: "open", Path: c.path, Err: c.err}), "/srv/poet")
		if !strings.HasPrefix(err.Error(), c.want+" (") || !errors.Is(err, c.err) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if err := startError(syscall.EACCES, "/srv/poet"); !strings.HasPrefix(err.Error(), "/srv/poet cannot be used") {
		t.Error(err)
	}
}

// A slip of the finger in --adminlisten costs no file: neither the database of
// this server nor anything else is taken for the socket of a killed process.
func TestAnAdminSocketNeverTakesThePlaceOfAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "poet")
	cfg := Config{
		Poet:     rounds.Config{Dir: dir, BallastBytes: 1 << 16, Schedule: types.PoetSchedule{Genesis: time.Now(), EpochDuration: time.Hour, PhaseShift: time.Minute, CycleGap: time.Minute}},
		Delivery: delivery.DefaultConfig(), Limits: door.DefaultLimits(), GRPC: "127.0.0.1:0", REST: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Announce = func(telemetry.Endpoints) (func(), error) { cancel(); return func() {}, nil }
	if err := Run(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Announce = nil
	for _, name := range []string{book.DatabaseName, front.TokenFile, "rounds"} {
		path := filepath.Join(dir, name)
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Admin = front.UnixPrefix + path
		err = Run(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || after.Size() < before.Size() {
			t.Errorf("%s is not what it was: %v", name, err)
		}
	}
}
