package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/services/poet"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// gatewayServer is a node's gateway over real gRPC whose manner can change
// while it runs.
type gatewayServer struct {
	gatewaypb.UnimplementedGatewayServiceServer
	spacemesh.UnimplementedNodeServiceServer
	spacemesh.UnimplementedMeshServiceServer

	addr    string
	garbage string // which answer is garbage
	server  *grpc.Server
	health  *health.Server

	mu     sync.Mutex
	manner manner
	kept   map[types.PoetProofRef][]byte
	got    []time.Time // arrivals of proofs not known before
	rounds []string    // in order of arrival
}

func (g *gatewayServer) is() manner {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.manner
}

func (g *gatewayServer) become(m manner) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.manner = m
}

func (g *gatewayServer) arrived() ([]string, []time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.rounds), slices.Clone(g.got)
}

func (g *gatewayServer) GenesisID(context.Context, *spacemesh.GenesisIDRequest) (*spacemesh.GenesisIDResponse, error) {
	if g.garbage == "genesis" {
		return &spacemesh.GenesisIDResponse{GenesisId: network[:7]}, nil
	}
	return &spacemesh.GenesisIDResponse{GenesisId: network[:]}, nil
}

func (g *gatewayServer) Status(context.Context, *spacemesh.StatusRequest) (*spacemesh.StatusResponse, error) {
	peers := uint64(3)
	if g.is() == unfit {
		peers = 0
	}
	return &spacemesh.StatusResponse{Status: &spacemesh.NodeStatus{IsSynced: true, ConnectedPeers: peers}}, nil
}

func (g *gatewayServer) GatewayPeers(context.Context, *gatewaypb.GatewayPeersRequest) (*gatewaypb.GatewayPeersResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.garbage == "name" {
		return &gatewaypb.GatewayPeersResponse{Id: strings.Repeat("x", 1<<20)}, nil
	}
	// Whom a gateway tells of is not dialled: the fabric would fail the test.
	return &gatewaypb.GatewayPeersResponse{Id: "id of " + g.addr, Peers: []*gatewaypb.GatewayPeer{{Address: "127.0.0.1:22"}, {Address: "169.254.169.254:80"}}}, nil
}

func (g *gatewayServer) PublishPoet(ctx context.Context, in *gatewaypb.PublishPoetRequest) (*gatewaypb.PublishPoetResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.manner == deaf:
		g.mu.Unlock()
		<-ctx.Done()
		g.mu.Lock()
		return nil, ctx.Err()
	case g.manner == invalid:
		return nil, status.Error(codes.InvalidArgument, "bad leaf")
	case types.GenesisID(in.GetGenesisId()) != network:
		return nil, status.Error(codes.FailedPrecondition, "another network")
	}
	var m types.PoetProofMessage
	if err := codec.Decode(in.GetData(), &m); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ref := m.Proof.Ref()
	switch g.garbage {
	case "short ref":
		return &gatewaypb.PublishPoetResponse{Ref: ref[:31], Validated: true, Stored: true, Peers: 3}, nil
	case "other ref":
		g.kept[ref] = in.GetData()
		return &gatewaypb.PublishPoetResponse{Ref: make([]byte, 32), Validated: true, Stored: true, Peers: 3}, nil
	case "nothing":
		return &gatewaypb.PublishPoetResponse{}, nil
	case "long error":
		return nil, status.Error(codes.InvalidArgument, strings.Repeat("x\n\x1b[2J\xff", 1<<12))
	}
	_, known := g.kept[ref]
	if g.garbage == "unvalidated" {
		g.kept[ref] = in.GetData() // it has it, but has not looked at it
		return &gatewaypb.PublishPoetResponse{Ref: ref[:], Stored: true, Peers: 3}, nil
	}
	if g.manner == honest && !known {
		g.kept[ref] = in.GetData()
		g.rounds, g.got = append(g.rounds, m.RoundID), append(g.got, time.Now())
	}
	return &gatewaypb.PublishPoetResponse{Ref: ref[:], Known: known, Validated: true, Stored: true, Peers: 3}, nil
}

func (g *gatewayServer) GatewayProof(_ context.Context, in *gatewaypb.GatewayProofRequest) (*gatewaypb.GatewayProofResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	data, ok := g.kept[types.PoetProofRef(in.GetRef())]
	switch g.garbage {
	case "no proof":
		return &gatewaypb.GatewayProofResponse{Data: []byte("not a proof")}, nil
	case "huge":
		return &gatewaypb.GatewayProofResponse{Data: make([]byte, 2<<20)}, nil
	}
	if g.manner == lies { // it gives some proof, not the one
		other := testProof("99")
		return &gatewaypb.GatewayProofResponse{Data: codec.Encode(&other)}, nil
	}
	if !ok {
		return nil, status.Error(codes.NotFound, "not here")
	}
	return &gatewaypb.GatewayProofResponse{Data: data}, nil
}

// fabric is a network of gateways in memory: real gRPC over pipes, so that a
// synctest bubble can hold it.
type fabric struct {
	t *testing.T

	mu    sync.Mutex
	pipes map[string]*bufconn.Listener
	nodes map[string]*gatewayServer
}

func newFabric(t *testing.T) *fabric {
	f := &fabric{t: t, pipes: map[string]*bufconn.Listener{}, nodes: map[string]*gatewayServer{}}
	t.Cleanup(func() {
		for _, n := range f.nodes {
			n.server.Stop()
		}
	})
	return f
}

func (f *fabric) node(m manner) *gatewayServer {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := &gatewayServer{addr: fmt.Sprintf("gateway-%d:9", len(f.nodes)+1), manner: m, kept: map[types.PoetProofRef][]byte{},
		server: grpc.NewServer(), health: health.NewServer()}
	gatewaypb.RegisterGatewayServiceServer(g.server, g)
	spacemesh.RegisterNodeServiceServer(g.server, g)
	spacemesh.RegisterMeshServiceServer(g.server, g)
	healthpb.RegisterHealthServer(g.server, g.health)
	l := bufconn.Listen(1 << 20)
	f.pipes[g.addr], f.nodes[g.addr] = l, g
	go func() { _ = g.server.Serve(l) }() // ends with Stop
	return g
}

func (f *fabric) dial() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		f.mu.Lock()
		pipe, node := f.pipes[addr], f.nodes[addr]
		f.mu.Unlock()
		if node == nil {
			f.t.Errorf("%s, which nobody named, is dialled", addr)
		}
		if node == nil || node.is() == refuses {
			return nil, errors.New("connection refused")
		}
		if node.is() == stalls {
			<-ctx.Done() // packets are dropped
			return nil, ctx.Err()
		}
		return pipe.DialContext(ctx)
	})}
}

// kill makes a gateway unreachable and cuts its connections.
func (f *fabric) kill(g *gatewayServer, m manner) {
	g.become(m)
	f.mu.Lock()
	defer f.mu.Unlock()
	g.server.Stop()
}

// shelf is where the proofs are in these tests.
type shelf struct {
	mu     sync.Mutex
	proofs map[string]Due
	fail   map[string]error
	told   chan struct{}
}

func newShelf() *shelf {
	return &shelf{proofs: map[string]Due{}, fail: map[string]error{}, told: make(chan struct{}, 1)}
}

func (s *shelf) Due(at time.Time) (due []Due, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, round := range slices.SortedFunc(maps.Keys(s.proofs), oldest) {
		if p := s.proofs[round]; at.Before(p.UsefulUntil) {
			due = append(due, p)
		}
	}
	return due, s.fail[""]
}

func (s *shelf) Load(round string) (types.PoetProofMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.proofs[round]; !ok {
		return types.PoetProofMessage{}, poet.ErrNotFound
	}
	return testProof(round), s.fail[round]
}

// add stores a proof and tells of it.
func (s *shelf) add(round int, useful time.Duration) {
	s.mu.Lock()
	d := Due{Round: fmt.Sprint(round), UsefulUntil: time.Now().Add(useful)}
	s.proofs[d.Round] = d
	s.mu.Unlock()
	select {
	case s.told <- struct{}{}:
	default:
	}
}

func (s *shelf) breaks(round string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[round] = err
}

type rig struct {
	*Courier
	events func() []poet.Event
}

// start runs a courier on db until the test's cleanup, or until stop.
func (f *fabric) start(db DB, s *shelf, cfg Config, gateways ...string) (r rig, stop func()) {
	f.t.Helper()
	cfg.Genesis = network
	var mu sync.Mutex
	var events []poet.Event
	c, err := Open(db, s, cfg, gateways, Options{Stored: s.told, Dial: f.dial(), Tell: func(e poet.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("Run: %v", err)
		}
	})
	f.t.Cleanup(stop)
	return rig{c, func() []poet.Event {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(events)
	}}, stop
}

func (r rig) undelivered() (rounds []string) {
	for _, p := range r.Proofs() {
		if p.State != Delivered {
			rounds = append(rounds, p.Round+" "+p.State+" "+p.LastError)
		}
	}
	return rounds
}

// All gateways dead for three rounds, then replaced through the API: the three
// proofs are delivered in order within 10 s of the first live gateway, without a
// restart, and the database does not grow meanwhile.
func TestAllGatewaysDeadForThreeRoundsThenReplaced(t *testing.T) {
	for _, death := range []manner{refuses, stalls, unfit} {
		t.Run(fmt.Sprint(death), func(t *testing.T) {
			db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
			synctest.Test(t, func(t *testing.T) {
				f, s := newFabric(t), newShelf()
				var old []string
				for range 5 {
					old = append(old, f.node(death).addr)
				}
				r, _ := f.start(db, s, DefaultConfig(), old...)
				const round = 5 * time.Minute
				for i := range 3 {
					time.Sleep(round)
					s.add(i, 10*round)
				}
				time.Sleep(round)
				if n := len(r.undelivered()); n != 3 {
					t.Fatalf("%d proofs wait, want 3", n)
				}
				if info, err := os.Stat(db.Path()); err != nil || info.Size() > 256<<10 {
					t.Fatalf("the database has %d bytes, %v", info.Size(), err)
				}
				a, b := f.node(honest), f.node(honest)
				set := time.Now()
				if err := r.SetGateways([]string{a.addr, b.addr}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if left := r.undelivered(); len(left) != 0 {
					t.Fatalf("after 10 s there wait %v\nevents %v", left, r.events())
				}
				for _, g := range []*gatewayServer{a, b} {
					rounds, at := g.arrived()
					if !slices.Equal(rounds, []string{"0", "1", "2"}) {
						t.Fatalf("%s received %v, want the rounds in order", g.addr, rounds)
					}
					t.Logf("%s had all proofs after %v", g.addr, at[2].Sub(set))
				}
			})
		})
	}
}

// All gateways with a slot dead, and others named beyond them: recycled and delivered within
// 30 s without anybody's help.
func TestAllGatewaysDeadAndOthersBeyondTheSlots(t *testing.T) {
	for _, death := range []manner{refuses, stalls, deaf, unfit, lies} {
		t.Run(fmt.Sprint(death), func(t *testing.T) {
			db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
			synctest.Test(t, func(t *testing.T) {
				f, s := newFabric(t), newShelf()
				var pool []*gatewayServer
				var addrs []string
				for range 5 {
					g := f.node(honest)
					pool, addrs = append(pool, g), append(addrs, g.addr)
				}
				for range 3 {
					addrs = append(addrs, f.node(honest).addr)
				}
				r, _ := f.start(db, s, DefaultConfig(), addrs...)
				time.Sleep(time.Minute)
				for _, g := range pool {
					if death == refuses || death == stalls {
						f.kill(g, death)
					} else {
						g.become(death)
					}
				}
				s.add(0, time.Hour)
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if left := r.undelivered(); len(left) != 0 {
					t.Fatalf("after 30 s there wait %v\nevents %v\ngateways %+v", left, r.events(), r.Gateways())
				}
				if !slices.ContainsFunc(r.events(), func(e poet.Event) bool { return e.Kind == GatewayRecycled }) {
					t.Fatal("delivered without a recycled slot")
				}
				p := r.Proofs()[0]
				t.Logf("delivered after %v", p.DeliveredAt.Sub(p.Added))
			})
		})
	}
}

// Whatever answer is garbage, it counts as nothing, what is kept of it is short,
// and the others deliver as if that gateway were not there.
func TestAGatewayThatAnswersGarbage(t *testing.T) {
	for _, what := range []string{"genesis", "name", "short ref", "other ref", "nothing", "unvalidated", "long error", "no proof", "huge"} {
		t.Run(what, func(t *testing.T) {
			db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
			synctest.Test(t, func(t *testing.T) {
				f, s := newFabric(t), newShelf()
				bad, a, b := f.node(honest), f.node(honest), f.node(honest)
				bad.garbage = what
				r, _ := f.start(db, s, DefaultConfig(), bad.addr, a.addr)
				s.add(0, time.Hour)
				time.Sleep(time.Minute)
				if n := len(r.undelivered()); n != 1 {
					t.Fatal("garbage counts as an acknowledgement")
				}
				if err := r.AddGateway(b.addr); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if left := r.undelivered(); len(left) != 0 {
					t.Fatalf("there wait %v", left)
				}
				for _, g := range r.Gateways() {
					if len(g.LastError) > 2*maxErrorText || strings.ContainsAny(g.LastError, "\n\x1b") {
						t.Errorf("%d bytes of error are kept", len(g.LastError))
					}
				}
				for _, e := range r.events() {
					if len(e.Text) > 2*maxErrorText || strings.ContainsAny(e.Text, "\n\x1b") {
						t.Errorf("an event has %d bytes", len(e.Text))
					}
				}
			})
		})
	}
}

func TestDeliveriesSurviveARestart(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
	synctest.Test(t, func(t *testing.T) {
		f, s := newFabric(t), newShelf()
		a, b := f.node(honest), f.node(deaf)
		r, stop := f.start(db, s, DefaultConfig(), a.addr, b.addr)
		s.add(0, time.Hour)
		s.add(1, time.Hour)
		time.Sleep(5 * time.Second)
		before := r.Proofs()
		if len(before[0].Keepers) != 1 || before[0].State != Pending {
			t.Fatalf("before the restart: %+v", before[0])
		}
		stop()
		b.become(honest)
		r, _ = f.start(db, s, DefaultConfig(), a.addr, b.addr)
		s.add(1, time.Hour) // a proof that is known is not found again
		if got := r.Proofs(); len(got) != 2 || len(got[0].Keepers) != 1 || got[0].Keepers[0].ID != before[0].Keepers[0].ID {
			t.Fatalf("after the restart: %+v", got)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if left := r.undelivered(); len(left) != 0 {
			t.Fatalf("there wait %v", left)
		}
		if rounds, _ := b.arrived(); !slices.Equal(rounds, []string{"0", "1"}) {
			t.Fatalf("%s received %v", b.addr, rounds)
		}
	})
}

func TestARebroadcastByHandReachesEveryGateway(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
	synctest.Test(t, func(t *testing.T) {
		f, s := newFabric(t), newShelf()
		a, b := f.node(honest), f.node(honest)
		r, _ := f.start(db, s, DefaultConfig(), a.addr, b.addr)
		s.add(0, time.Hour)
		time.Sleep(5 * time.Second)
		a.mu.Lock()
		clear(a.kept) // its disk was lost
		a.mu.Unlock()
		if err := r.Rebroadcast("0"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if left := r.undelivered(); len(left) != 0 {
			t.Fatalf("there wait %v", left)
		}
		if rounds, _ := a.arrived(); len(rounds) != 2 {
			t.Fatalf("%s received %v, want the round twice", a.addr, rounds)
		}
	})
}

func TestAGatewayOfAnotherNetworkIsNotUsed(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
	synctest.Test(t, func(t *testing.T) {
		f, s := newFabric(t), newShelf()
		g := f.node(honest)
		cfg := DefaultConfig()
		r, stop := f.start(db, s, cfg, g.addr)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.Gateways()[0].State; s != Live {
			t.Fatalf("state %s, want live", s)
		}
		stop()
		cfg.Acks, cfg.Slots, cfg.Genesis = 1, 1, types.GenesisID{2}
		r2, err := Open(db, s, cfg, []string{g.addr}, Options{Dial: f.dial()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := r2.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if g := r2.Gateways()[0]; g.State != Dead {
			t.Fatalf("a gateway of another network is %s (%s)", g.State, g.LastError)
		}
	})
}

func openDB(t *testing.T, path string) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
