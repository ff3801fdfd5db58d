package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/protocol/registration"
	"tweedle/services/poet/delivery"
	"tweedle/services/poet/door"
	"tweedle/services/poet/rounds"
	"tweedle/services/poet/work"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// childDir in the environment makes the test binary a server on that directory.
const (
	childDir      = "POET_TEST_DIR"
	childGenesis  = "POET_TEST_GENESIS"
	childGateways = "POET_TEST_GATEWAYS"
	// childStrangers makes rounds of an hour, and this machine a client like
	// any other.
	childStrangers = "POET_TEST_STRANGERS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// killSchedule: an epoch takes three seconds. A proof is of use for some epochs, and on a
// busy machine several lives of a server pass before one delivers it.
func killSchedule(genesis time.Time) types.PoetSchedule {
	return types.PoetSchedule{Genesis: genesis, EpochDuration: 3 * time.Second, PhaseShift: 1200 * time.Millisecond, CycleGap: 1800 * time.Millisecond}
}

// longSchedule: a round takes an hour.
func longSchedule(genesis time.Time) types.PoetSchedule {
	return types.PoetSchedule{Genesis: genesis, EpochDuration: time.Hour, PhaseShift: 10 * time.Minute, CycleGap: 10 * time.Minute}
}

func child(dir string) {
	ns, err := strconv.ParseInt(os.Getenv(childGenesis), 10, 64)
	var gateways []string
	if err == nil {
		err = json.Unmarshal([]byte(os.Getenv(childGateways)), &gateways)
	}
	if err != nil {
		panic(err) // the test that starts us is wrong
	}
	cfg := Config{
		Poet: rounds.Config{Dir: dir, Schedule: killSchedule(time.Unix(0, ns)), Work: work.Config{LeavesPerSecond: 2000, MaxLeavesPerSecond: 2000},
			BallastBytes: 1 << 16, SubmitFlush: 5 * time.Millisecond},
		Delivery: delivery.DefaultConfig(), Gateways: gateways, Limits: door.DefaultLimits(),
		GRPC: "127.0.0.1:0", REST: "127.0.0.1:0", Admin: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Announce: func(e telemetry.Endpoints) (func(), error) {
			return func() {}, json.NewEncoder(os.Stdout).Encode(e)
		},
	}
	if os.Getenv(childStrangers) != "" {
		cfg.Poet.Schedule, cfg.Free = longSchedule(time.Unix(0, ns)), []netip.Prefix{}
	}
	cfg.Delivery.Genesis = network
	if err := Run(context.Background(), cfg); err != nil {
		slog.Error("child", "err", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// victim is a running child.
type victim struct {
	cmd       *exec.Cmd
	endpoints telemetry.Endpoints
	log       *bytes.Buffer
}

func startVictim(t *testing.T, dir string, genesis time.Time, gateways []string, env ...string) victim {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(gateways)
	if err != nil {
		t.Fatal(err)
	}
	v := victim{cmd: exec.Command(self), log: &bytes.Buffer{}}
	v.cmd.Env = append(append(os.Environ(), env...), childDir+"="+dir, childGenesis+"="+strconv.FormatInt(genesis.UnixNano(), 10), childGateways+"="+string(list))
	v.cmd.Stderr = v.log
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(out).Decode(&v.endpoints); err != nil {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
		t.Fatalf("the server does not start: %v\n%s", err, v.log)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("the server took %v to start", d)
	}
	return v
}

func (v victim) kill() {
	_ = v.cmd.Process.Signal(syscall.SIGKILL)
	_ = v.cmd.Wait() // killed
}

// realNode is a node on a real listener.
func realNode(t *testing.T, id string) (addr string, g *node) {
	t.Helper()
	g = &node{id: id, kept: map[types.PoetProofRef][]byte{}}
	s := grpc.NewServer()
	gatewaypb.RegisterGatewayServiceServer(s, g)
	spacemesh.RegisterNodeServiceServer(s, g)
	spacemesh.RegisterMeshServiceServer(s, g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }() // ends with Stop
	t.Cleanup(s.Stop)
	return l.Addr().String(), g
}

func (g *node) rounds(t *testing.T) map[string]bool {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	got := map[string]bool{}
	for _, data := range g.kept {
		var m types.PoetProofMessage
		if err := codec.Decode(data, &m); err != nil {
			t.Fatal(err)
		}
		got[m.RoundID] = true
	}
	return got
}

// The server is killed over and over at random moments, also while it delivers:
// every round in which a registration was acknowledged reaches both nodes.
// TWEEDLE_NIGHTLY makes it 200 kills.
func TestKilledAtRandomMomentsItDeliversEveryProof(t *testing.T) {
	kills := 12
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		kills = 200
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir, genesis := filepath.Join(t.TempDir(), "poet"), time.Now()
	addrA, a := realNode(t, "a")
	addrB, b := realNode(t, "b")
	gateways := []string{addrA, addrB}
	joined := map[string]bool{}
	for i := range kills {
		v := startVictim(t, dir, genesis, gateways)
		end := time.Now().Add(time.Duration(rng.IntN(1200)) * time.Millisecond)
		for n := 0; time.Now().Before(end); n++ {
			if round, err := join(t, v.endpoints.GRPC, uint64(i)<<32+uint64(n), end); err == nil {
				joined[round] = true
			}
		}
		v.kill()
	}
	v := startVictim(t, dir, genesis, gateways)
	defer v.kill()
	for wait := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		missing := ""
		gotA, gotB := a.rounds(t), b.rounds(t)
		for round := range joined {
			if !gotA[round] || !gotB[round] {
				missing += " " + round
			}
		}
		if missing == "" && len(joined) > 0 {
			break
		}
		if time.Now().After(wait) {
			v.kill() // its log ends
			t.Fatalf("of rounds %v these did not reach both nodes:%s\n%s", joined, missing, v.log)
		}
	}
	t.Logf("%d kills, %d rounds delivered", kills, len(joined))
}

// join registers one more smesher and returns the round.
func join(t *testing.T, addr string, i uint64, end time.Time) (string, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithDeadline(t.Context(), end)
	defer cancel()
	client := poetpb.NewPoetServiceClient(conn)
	pow, err := client.PowParams(ctx, &poetpb.PowParamsRequest{})
	if err != nil {
		return "", err
	}
	seed := binary.BigEndian.AppendUint64(make([]byte, 24), i)
	key := ed25519.NewKeyFromSeed(seed)
	public := key.Public().(ed25519.PublicKey)
	nonce, _ := registration.SolvePow(registration.PowParams{Challenge: pow.GetPowParams().GetChallenge()}, public, seed, 1)
	out, err := client.Submit(ctx, &poetpb.SubmitRequest{Nonce: nonce, PowParams: pow.GetPowParams(), Challenge: seed, Pubkey: public, Signature: ed25519.Sign(key, seed)})
	return out.GetRoundId(), err
}
