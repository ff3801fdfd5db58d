package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
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
	"tweedle/values/codec"
	"tweedle/values/types"
)

// gatewayServer is a node's gateway over real gRPC whose manner can change
// while it runs.
type gatewayServer struct {
	gatewaypb.UnimplementedGatewayServiceServer
	spacemesh.UnimplementedNodeServiceServer
	spacemesh.UnimplementedMeshServiceServer

	addr   string
	server *grpc.Server
	health *health.Server

	mu     sync.Mutex
	manner manner
	told   []string
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
	out := &gatewaypb.GatewayPeersResponse{Id: "id of " + g.addr}
	for _, a := range g.told {
		out.Peers = append(out.Peers, &gatewaypb.GatewayPeer{Address: a})
	}
	return out, nil
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
	_, known := g.kept[ref]
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
	if g.manner == lies { // it gives some proof, not the one
		other := testProof(99, time.Time{})
		return &gatewaypb.GatewayProofResponse{Data: other.Data}, nil
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

func (f *fabric) dialer() Dialer {
	return GRPC(network, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		f.mu.Lock()
		pipe, node := f.pipes[addr], f.nodes[addr]
		f.mu.Unlock()
		if node == nil || node.is() == refuses {
			return nil, errors.New("connection refused")
		}
		if node.is() == stalls {
			<-ctx.Done() // packets are dropped
			return nil, ctx.Err()
		}
		return pipe.DialContext(ctx)
	}))
}

// kill makes a gateway unreachable and cuts its connections.
func (f *fabric) kill(g *gatewayServer, m manner) {
	g.become(m)
	f.mu.Lock()
	defer f.mu.Unlock()
	g.server.Stop()
}

type rig struct {
	*Courier
	events func() []Event
}

// start runs a courier on path until the test's cleanup, or until stop.
func (f *fabric) start(path string, cfg Config, gateways []string) (r rig, stop func()) {
	f.t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		f.t.Fatal(err)
	}
	cfg.Genesis = network
	var mu sync.Mutex
	var events []Event
	c, err := Open(db, cfg, f.dialer(), gateways, Options{Observe: func(e Event) {
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
		if err := db.Close(); err != nil {
			f.t.Errorf("closing the database: %v", err)
		}
	})
	f.t.Cleanup(stop)
	return rig{c, func() []Event {
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

func dbPath(t *testing.T) string { return filepath.Join(t.TempDir(), "outbox.db") }

func mustAdd(t *testing.T, c *Courier, round int, useful time.Duration) {
	t.Helper()
	if err := c.Add(testProof(round, time.Now().Add(useful))); err != nil {
		t.Fatal(err)
	}
}

// Issue "A PoET server that never loses a proof": all gateways dead for three
// rounds, then replaced through the API: the three proofs are delivered in
// order within 10 s of the first live gateway, without a restart, and what the
// outbox keeps meanwhile does not grow.
func TestAllGatewaysDeadForThreeRoundsThenReplaced(t *testing.T) {
	for _, death := range []manner{refuses, stalls, unfit} {
		t.Run(fmt.Sprint(death), func(t *testing.T) {
			path := dbPath(t)
			synctest.Test(t, func(t *testing.T) {
				f := newFabric(t)
				var old []string
				for range 5 {
					old = append(old, f.node(death).addr)
				}
				r, _ := f.start(path, DefaultConfig(), old)
				const round = 5 * time.Minute
				for i := range 3 {
					time.Sleep(round)
					mustAdd(t, r.Courier, i, 10*round)
				}
				time.Sleep(round)
				if n := len(r.undelivered()); n != 3 {
					t.Fatalf("%d proofs wait, want 3", n)
				}
				if info, err := os.Stat(path); err != nil || info.Size() > 256<<10 {
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

// All gateways dead and candidates available: recycled and delivered within
// 30 s without anybody's help.
func TestAllGatewaysDeadAndCandidatesToldOf(t *testing.T) {
	for _, death := range []manner{refuses, stalls, deaf, unfit, lies} {
		t.Run(fmt.Sprint(death), func(t *testing.T) {
			path := dbPath(t)
			synctest.Test(t, func(t *testing.T) {
				f := newFabric(t)
				var pool []*gatewayServer
				var addrs []string
				for range 5 {
					g := f.node(honest)
					pool, addrs = append(pool, g), append(addrs, g.addr)
				}
				for range 3 {
					pool[0].told = append(pool[0].told, f.node(honest).addr)
				}
				r, _ := f.start(path, DefaultConfig(), addrs)
				time.Sleep(time.Minute)
				for _, g := range pool {
					if death == refuses || death == stalls {
						f.kill(g, death)
					} else {
						g.become(death)
					}
				}
				mustAdd(t, r.Courier, 0, time.Hour)
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if left := r.undelivered(); len(left) != 0 {
					t.Fatalf("after 30 s there wait %v\nevents %v\ngateways %+v", left, r.events(), r.Gateways())
				}
				if !slices.ContainsFunc(r.events(), func(e Event) bool { return e.Kind == GatewayRecycled }) {
					t.Fatal("delivered without a recycled slot")
				}
				p := r.Proofs()[0]
				t.Logf("delivered after %v", p.DeliveredAt.Sub(p.Added))
			})
		})
	}
}

func TestDeliveriesSurviveARestart(t *testing.T) {
	path := dbPath(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFabric(t)
		a, b := f.node(honest), f.node(deaf)
		r, stop := f.start(path, DefaultConfig(), []string{a.addr, b.addr})
		mustAdd(t, r.Courier, 0, time.Hour)
		mustAdd(t, r.Courier, 1, time.Hour)
		time.Sleep(5 * time.Second)
		before := r.Proofs()
		if len(before[0].Acks) != 1 || before[0].State != Pending {
			t.Fatalf("before the restart: %+v", before[0])
		}
		stop()
		b.become(honest)
		r, _ = f.start(path, DefaultConfig(), nil) // the pool is known without flags
		if got := r.Proofs(); len(got) != 2 || len(got[0].Acks) != 1 || got[0].Acks[0].ID != before[0].Acks[0].ID {
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
	path := dbPath(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFabric(t)
		a, b := f.node(honest), f.node(honest)
		r, _ := f.start(path, DefaultConfig(), []string{a.addr, b.addr})
		mustAdd(t, r.Courier, 0, time.Hour)
		time.Sleep(5 * time.Second)
		a.mu.Lock()
		clear(a.kept) // its disk was lost
		a.mu.Unlock()
		if err := r.Rebroadcast(testProof(0, time.Now().Add(time.Hour))); err != nil {
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
	path := dbPath(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFabric(t)
		g := f.node(honest)
		cfg := DefaultConfig()
		r, stop := f.start(path, cfg, []string{g.addr})
		time.Sleep(time.Second)
		synctest.Wait()
		if s := r.Gateways()[0].State; s != Live {
			t.Fatalf("state %s, want live", s)
		}
		stop()
		r2, err := Open(openDB(t, path), Config{
			Acks: 1, Slots: 1, Genesis: types.GenesisID{2}, ProbeEvery: time.Second, ProbeTimeout: time.Second, PushTimeout: time.Second,
			FetchTimeout: time.Second, RetryMin: time.Second, RetryMax: time.Second, DeadAfter: 1, LongBan: time.Second,
		}, f.dialer(), nil, Options{})
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

// A proof that Add has taken is on the disk, even if nothing ran yet.
func TestAddIsDurable(t *testing.T) {
	path := dbPath(t)
	db := openDB(t, path)
	c, err := Open(db, DefaultConfig(), nil, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, c, 7, time.Hour)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	saved, err := load(openDB(t, path))
	if err != nil {
		t.Fatal(err)
	}
	if len(saved.Proofs) != 1 || saved.Proofs[0].Round != "7" || string(saved.Data[saved.Proofs[0].Seq]) != string(testProof(7, time.Time{}).Data) {
		t.Fatalf("saved %+v", saved)
	}
}

// failingDB refuses every write once it is told to.
type failingDB struct {
	*bbolt.DB
	mu   sync.Mutex
	fail error
}

func (d *failingDB) Update(fn func(*bbolt.Tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	return d.DB.Update(fn)
}

func (d *failingDB) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// A full disk: Add says that it could not keep the proof, deliveries go on,
// and the same proof can be added when there is room.
func TestAFullDiskIsToldAndSurvived(t *testing.T) {
	path := dbPath(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFabric(t)
		a, b := f.node(honest), f.node(honest)
		db := &failingDB{DB: openDB(t, path)}
		cfg := DefaultConfig()
		cfg.Genesis = network
		c, err := Open(db, cfg, f.dialer(), []string{a.addr, b.addr}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		db.set(errors.New("no space left on device"))
		p := testProof(0, time.Now().Add(time.Hour))
		for range 2 {
			if c.Add(p) == nil {
				t.Fatal("Add took a proof that it could not keep")
			}
		}
		time.Sleep(10 * time.Second)
		db.set(nil)
		if err := c.Add(p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := c.Proofs(); len(got) != 1 || got[0].State != Delivered {
			t.Fatalf("proofs: %+v", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		saved, err := load(db.DB)
		if err != nil || saved.Proofs[0].State != Delivered {
			t.Fatalf("saved %+v, %v", saved, err)
		}
	})
}

// Flipped bits anywhere in what is stored are noticed, and cost at most the
// entry they are in: the proof is added again, the pool is given again.
func TestDamageInTheDatabaseIsNoticed(t *testing.T) {
	path := dbPath(t)
	db := openDB(t, path)
	db.NoSync = true // thousands of writes, none of which must last
	c, err := Open(db, DefaultConfig(), (&fabric{}).dialer(), []string{"10.0.0.1:9"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, c, 0, time.Hour)
	mustAdd(t, c, 1, time.Hour)
	flipped := 0
	for _, at := range [][]byte{bucketRecords, bucketData, nil} {
		var size int
		for bit := 0; bit == 0 || bit < 8*size; bit += 13 {
			before := damage(t, db, at, bit, &size)
			saved, err := load(db)
			if err != nil {
				t.Fatal(err)
			}
			if len(saved.Damaged) != 1 {
				t.Fatalf("bit %d of %q: damage %v", bit, at, saved.Damaged)
			}
			for _, p := range saved.Proofs {
				if string(saved.Data[p.Seq]) != string(testProof(int(p.Seq), time.Time{}).Data) {
					t.Fatalf("bit %d of %q: wrong data for round %s", bit, at, p.Round)
				}
			}
			before()
			flipped++
		}
	}
	t.Logf("%d bits flipped", flipped)
}

// damage flips a bit of the first value in a bucket, nil: of the pool.
func damage(t *testing.T, db *bbolt.DB, bucket []byte, bit int, size *int) (restore func()) {
	t.Helper()
	flip := func() {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, k := tx.Bucket(bucketRoot), keyPool
			if bucket != nil {
				b, k = b.Bucket(bucket), key(0)
			}
			v := slices.Clone(b.Get(k))
			*size = len(v)
			v[bit/8] ^= 1 << (bit % 8)
			return b.Put(k, v)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	flip()
	return flip
}
