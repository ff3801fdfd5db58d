package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
	"tweedle/protocol/registration"
)

// Clients of the load: connections, and calls at a time on each.
const (
	loadConns = 32
	loadCalls = 16 // as many as the server takes on a connection
)

// BenchmarkRegistrationsOverGRPC measures how many registrations a server takes
// over gRPC while a round executes at full speed and the client runs beside it,
// what that costs the round, and that none is lost: the server is killed
// afterwards and must know every registration that it acknowledged. The
// requests are signed beforehand. LOAD_SECONDS sets the time.
func BenchmarkRegistrationsOverGRPC(b *testing.B) {
	seconds, err := strconv.Atoi(cmpOr(os.Getenv("LOAD_SECONDS"), "5"))
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	path := filepath.Join(dir, "tweedle")
	if out, err := exec.Command("go", "build", "-o", path, "tweedle/cmd/tweedle").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	args := []string{"poet", "--dir", filepath.Join(dir, "poet"), "--genesis-time", time.Now().Add(9 * time.Second).UTC().Format(time.RFC3339),
		"--epoch-duration=2h", "--phase-shift=1s", "--cycle-gap=1m", "-r", "127.0.0.1:0", "-w", "127.0.0.1:0", "--adminlisten=127.0.0.1:0"}
	s := startLoaded(b, path, args)
	s.waitForWork()
	alone := s.leafRate(time.Duration(seconds) * time.Second / 3)

	requests := s.requests(6000 * seconds)
	for b.Loop() {
		var took []time.Duration
		done := make(chan struct{})
		begin := time.Now()
		go func() { took = s.register(requests, time.Duration(seconds)*time.Second); close(done) }()
		busy := s.leafRate(time.Duration(seconds) * time.Second * 9 / 10)
		<-done
		total := time.Since(begin)
		slices.Sort(took)
		b.ReportMetric(float64(len(took))/total.Seconds(), "registrations/s")
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1e3, "p99-ms")
		b.ReportMetric(alone, "leaves/s-alone")
		b.ReportMetric(busy, "leaves/s-busy")
		s.kill()
		s = startLoaded(b, path, args)
		if got := s.openMembers(); got != uint64(len(took)) {
			b.Fatalf("%d registrations were acknowledged, %d are there after a kill", len(took), got)
		}
	}
	s.kill()
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// loaded is a server process.
type loaded struct {
	b     *testing.B
	cmd   *exec.Cmd
	log   bytes.Buffer
	conns []*grpc.ClientConn
	admin poetadminpb.AdminServiceClient
}

func startLoaded(b *testing.B, path string, args []string) *loaded {
	b.Helper()
	s := &loaded{b: b, cmd: exec.Command(path, args...)}
	s.cmd.Stderr = &s.log
	dir := args[2]
	_ = os.Remove(filepath.Join(dir, telemetry.EndpointsFile)) // of the last one
	if err := s.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.kill)
	var e telemetry.Endpoints
	for wait := time.Now().Add(30 * time.Second); e.GRPC == ""; time.Sleep(5 * time.Millisecond) {
		if raw, err := os.ReadFile(filepath.Join(dir, telemetry.EndpointsFile)); err == nil {
			_ = json.Unmarshal(raw, &e) // the file appears whole
		}
		if time.Now().After(wait) {
			s.kill()
			b.Fatalf("the server does not start\n%s", &s.log)
		}
	}
	for range loadConns {
		conn, err := grpc.NewClient("passthrough:///"+e.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		s.conns = append(s.conns, conn)
	}
	conn, err := front.DialAdmin(e.Admin, filepath.Join(dir, front.TokenFile))
	if err != nil {
		b.Fatal(err)
	}
	s.conns, s.admin = append(s.conns, conn), poetadminpb.NewAdminServiceClient(conn)
	return s
}

// kill ends the process as a power cut would.
func (s *loaded) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (s *loaded) rounds() []*poetadminpb.Round {
	s.b.Helper()
	out, err := s.admin.ListRounds(context.Background(), &poetadminpb.ListRoundsRequest{})
	if err != nil {
		s.b.Fatal(err)
	}
	return out.GetRounds()
}

// waitForWork waits until a round executes: one with a member, for others are not
// executed.
func (s *loaded) waitForWork() {
	s.b.Helper()
	first := s.requests(1)[0]
	if _, err := poetpb.NewPoetServiceClient(s.conns[0]).Submit(context.Background(), first); err != nil {
		s.b.Fatal(err)
	}
	end := time.Now().Add(30 * time.Second)
	for len(s.rounds()) < 2 || s.rounds()[0].GetLeaves() == 0 {
		if time.Now().After(end) {
			s.b.Fatalf("no round executes: the rounds are %v", s.rounds())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *loaded) openMembers() uint64 {
	rounds := s.rounds()
	return rounds[len(rounds)-1].GetMembers()
}

func (s *loaded) leafRate(d time.Duration) float64 {
	first, begin := s.rounds()[0].GetLeaves(), time.Now()
	time.Sleep(d)
	return float64(s.rounds()[0].GetLeaves()-first) / time.Since(begin).Seconds()
}

// requests signs n registrations, on all cores.
func (s *loaded) requests(n int) []*poetpb.SubmitRequest {
	s.b.Helper()
	pow, err := poetpb.NewPoetServiceClient(s.conns[0]).PowParams(context.Background(), &poetpb.PowParamsRequest{})
	if err != nil {
		s.b.Fatal(err)
	}
	list := make([]*poetpb.SubmitRequest, n)
	var group sync.WaitGroup
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				seed := binary.BigEndian.AppendUint64(make([]byte, 24), uint64(i))
				key := ed25519.NewKeyFromSeed(seed)
				public := key.Public().(ed25519.PublicKey)
				nonce, _ := registration.SolvePow(registration.PowParams{
					Challenge: pow.GetPowParams().GetChallenge(), Difficulty: uint(pow.GetPowParams().GetDifficulty())}, public, seed, 1<<20)
				list[i] = &poetpb.SubmitRequest{Nonce: nonce, PowParams: pow.GetPowParams(), Challenge: seed, Pubkey: public, Signature: ed25519.Sign(key, seed)}
			}
		})
	}
	group.Wait()
	return list
}

// register sends registrations for that long and returns how long each took.
func (s *loaded) register(requests []*poetpb.SubmitRequest, d time.Duration) (took []time.Duration) {
	var mu sync.Mutex
	var group sync.WaitGroup
	var next atomic.Int64
	end := time.Now().Add(d)
	var failure atomic.Pointer[error]
	for i := range loadConns * loadCalls {
		client := poetpb.NewPoetServiceClient(s.conns[i%loadConns])
		group.Go(func() {
			var mine []time.Duration
			for time.Now().Before(end) {
				i := int(next.Add(1)) - 1
				if i >= len(requests) {
					err := fmt.Errorf("%d prepared requests are too few", len(requests))
					failure.Store(&err)
					break
				}
				begin := time.Now()
				if _, err := client.Submit(context.Background(), requests[i]); err != nil {
					failure.Store(&err)
					break
				}
				mine = append(mine, time.Since(begin))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	group.Wait()
	if err := failure.Load(); err != nil {
		s.b.Errorf("a registration failed: %v", *err)
	}
	return took
}
