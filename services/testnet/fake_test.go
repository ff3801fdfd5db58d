package testnet

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/front"
	"tweedle/edges/preset"
)

// The launcher is tested with real processes: this test binary, re-executed.
// What is fake about them is the protocol, which has no part in these tests:
// the end-to-end test runs the real programs.
const (
	fakeEnv     = "TWEEDLE_TEST_FAKE"      // set: be a process of the testnet
	launcherEnv = "TWEEDLE_TEST_LAUNCHER"  // a directory: be an `up` in it
	brokenEnv   = "TWEEDLE_TEST_BROKEN"    // name of a process that fails at start
	stubbornEnv = "TWEEDLE_TEST_STUBBORN"  // set: ignore SIGTERM
	fakeToken   = "0123456789abcdef012345" // of every fake PoET's admin API
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(fakeEnv) != "":
		if err := runFake(os.Args[1], os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "fake:", err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv(launcherEnv) != "":
		runLauncher(os.Getenv(launcherEnv))
	}
	goleak.VerifyTestMain(m)
}

// runLauncher is `up` in a process of its own, so that it can be killed.
func runLauncher(dir string) {
	o := fakeOptions(dir)
	o.View = NewJSONView(os.Stdout)
	_, err := Up(context.Background(), o)
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// fakeOptions are those of a small testnet of fake processes.
func fakeOptions(dir string, environ ...string) Options {
	return Options{
		Dir: dir, Nodes: 2, Poets: 1, Gateways: 2, TxRate: 0, noWatch: true,
		environ: append([]string{fakeEnv + "=1", launcherEnv + "="}, environ...),
	}
}

// fake has the flags and the answers of a node or a PoET.
type fake struct {
	name    string
	dir     string
	network preset.Network
	started time.Time

	poetadminpb.UnimplementedAdminServiceServer
	mu       sync.Mutex
	gateways []string
}

func runFake(kind string, args []string) error {
	flags := flag.NewFlagSet(kind, flag.ContinueOnError)
	str := map[string]*string{}
	for _, n := range []string{
		"dir", "network", "listen", "grpc-listen", "rest-listen", "metrics-listen", "coinbase",
		"restlisten", "rpclisten", "adminlisten", "max-leaves-per-second", "broadcast-acks",
	} {
		str[n] = flags.String(n, "", "")
	}
	flags.Bool("smeshing", false, "")
	flags.Func("bootnode", "", func(string) error { return nil })
	flags.Func("poet", "", func(string) error { return nil })
	if err := flags.Parse(args); err != nil {
		return err
	}
	f := &fake{name: filepath.Base(*str["dir"]), dir: *str["dir"], started: time.Now()}
	var err error
	if f.network, err = preset.Load(*str["network"]); err != nil {
		return err
	}
	if os.Getenv(brokenEnv) == f.name {
		return fmt.Errorf("no space left on device: free some space")
	}
	fmt.Println("arguments", strings.Join(args, " "))
	if os.Getenv(stubbornEnv) != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	if kind == "poet" {
		return f.serve(*str["rpclisten"], *str["restlisten"], *str["adminlisten"], *str["metrics-listen"], "")
	}
	return f.serve(*str["grpc-listen"], *str["rest-listen"], "", *str["metrics-listen"], *str["listen"])
}

func (f *fake) serve(grpcAddr, rest, admin, metrics, p2p string) error {
	e := telemetry.Endpoints{PID: os.Getpid()}
	for _, part := range []struct {
		addr string
		out  *string
	}{{grpcAddr, &e.GRPC}, {rest, &e.REST}} {
		lis, err := net.Listen("tcp", part.addr)
		if err != nil {
			return err
		}
		*part.out = lis.Addr().String()
	}
	if p2p != "" {
		conn, err := net.ListenPacket("udp", udpAddress(p2p))
		if err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
		e.P2P = "/ip4/127.0.0.1/udp/" + port + "/quic-v1/p2p/" + f.name
	}
	if admin != "" {
		lis, err := net.Listen("tcp", admin)
		if err != nil {
			return err
		}
		e.Admin = lis.Addr().String()
		if err := os.WriteFile(filepath.Join(f.dir, front.TokenFile), []byte(fakeToken+"\n"), 0o600); err != nil {
			return err
		}
		srv := grpc.NewServer()
		poetadminpb.RegisterAdminServiceServer(srv, f)
		go srv.Serve(lis)
	}
	lis, err := net.Listen("tcp", metrics)
	if err != nil {
		return err
	}
	e.Metrics = lis.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("/status", f.status)
	mux.HandleFunc("/layers", f.layers)
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) {
		go panic("the session table is full")
	})
	go http.Serve(lis, mux)
	b, _ := json.Marshal(e)
	if err := os.WriteFile(filepath.Join(f.dir, telemetry.EndpointsFile), b, 0o600); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	if os.Getenv(stubbornEnv) == "" {
		signal.Notify(end, syscall.SIGTERM)
	}
	<-end
	fmt.Println("ended in order")
	return nil
}

// The fake chain has a layer of its own, counted from the process's start.
func (f *fake) applied() uint32 {
	if os.Getenv(fakeEnv) == "" {
		return 0
	}
	return 40
}

func (f *fake) status(w http.ResponseWriter, _ *http.Request) {
	atx := uint32(3)
	json.NewEncoder(w).Encode(telemetry.NodeStatus{
		AppliedLayer: f.applied(), StateRoot: fakeRoot(f.applied()), Peers: 2, ATXEpoch: &atx,
		Smesher: telemetry.SmesherStep{Step: "waiting", Detail: "for a PoET's proof"},
	})
}

func (f *fake) layers(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.Atoi(r.URL.Query().Get("from"))
	out := []telemetry.LayerStatus{}
	for n := uint32(from); n <= f.applied(); n++ {
		out = append(out, telemetry.LayerStatus{Layer: n, Block: fmt.Sprintf("b%d", n), StateRoot: fakeRoot(n), Txs: 3, Ballots: 2})
	}
	json.NewEncoder(w).Encode(out)
}

func fakeRoot(layer uint32) string { return fmt.Sprintf("root%d", layer) }

func (f *fake) check(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+fakeToken {
		return status.Error(codes.Unauthenticated, "wrong token")
	}
	return nil
}

func (f *fake) SetGateways(ctx context.Context, r *poetadminpb.SetGatewaysRequest) (*poetadminpb.ListGatewaysResponse, error) {
	if err := f.check(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.gateways = r.Addresses
	f.mu.Unlock()
	return f.ListGateways(ctx, nil)
}

func (f *fake) ListGateways(ctx context.Context, _ *poetadminpb.ListGatewaysRequest) (*poetadminpb.ListGatewaysResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &poetadminpb.ListGatewaysResponse{}
	for _, g := range f.gateways {
		out.Gateways = append(out.Gateways, &poetadminpb.Gateway{Address: g, State: "live"})
	}
	return out, f.check(ctx)
}

func (f *fake) ListProofs(ctx context.Context, _ *poetadminpb.ListProofsRequest) (*poetadminpb.ListProofsResponse, error) {
	return &poetadminpb.ListProofsResponse{}, f.check(ctx)
}

func (f *fake) ListRounds(ctx context.Context, _ *poetadminpb.ListRoundsRequest) (*poetadminpb.ListRoundsResponse, error) {
	return &poetadminpb.ListRoundsResponse{Rounds: []*poetadminpb.Round{
		{Id: "2", State: "finished", Members: 3, Leaves: 1000},
		{Id: "3", State: "executing", Members: 3},
		{Id: "4", State: "open"},
	}}, f.check(ctx)
}
