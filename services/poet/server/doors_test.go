package server

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tweedle/base/telemetry"
	"tweedle/edges/api/doortest"
	"tweedle/edges/front"
	"tweedle/services/poet/delivery"
	"tweedle/services/poet/door"
	"tweedle/services/poet/rounds"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

// onLoopback runs a PoET with all its listeners, whose round is open for an hour.
func onLoopback(t *testing.T, adjust ...func(*Config)) (e telemetry.Endpoints, profile string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, front.TokenFile), []byte(doortest.TokenFile), 0o600); err != nil {
		t.Fatal(err)
	}
	const any = "127.0.0.1:0"
	up := make(chan telemetry.Endpoints, 1)
	var mu sync.Mutex
	schedule := types.PoetSchedule{Genesis: time.Now(), EpochDuration: 2 * time.Hour, PhaseShift: time.Hour, CycleGap: time.Minute}
	cfg := Config{
		Poet:     rounds.Config{Dir: dir, Schedule: schedule, Work: work.Config{LeavesPerSecond: 500, MaxLeavesPerSecond: 500}, BallastBytes: 1 << 16},
		Delivery: delivery.DefaultConfig(), Limits: door.DefaultLimits(),
		Log:  slog.New(slog.DiscardHandler),
		GRPC: any, REST: any, Admin: any, Metrics: any, Profile: any,
		Announce: func(e telemetry.Endpoints) (func(), error) { up <- e; return func() {}, nil },
		Listen: func(addr string) (net.Listener, error) { // the last one that is opened is the profiler's
			l, err := front.Listen(addr)
			if err == nil {
				mu.Lock()
				profile = l.Addr().String()
				mu.Unlock()
			}
			return l, err
		},
	}
	for _, a := range adjust {
		a(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case e = <-up:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return e, profile
}

// Every listener of a PoET serves what is on its list, to whom it is for, and nothing else.
func TestEachListenerOfAPoETServesItsListOnly(t *testing.T) {
	e, profile := onLoopback(t)
	for _, d := range []doortest.Door{
		{Name: "gRPC", Address: e.GRPC, Services: []string{
			"rpc.api.v1.PoetService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}},
		{Name: "REST", Address: e.REST, HTTP: true, Paths: []string{
			"GET /v1/info", "GET /v1/pow_params", "POST /v1/submit", "GET /v1/proofs/x", "GET /v1/rounds/x/members/x", "GET /healthz", "GET /openapi.json", "GET /version"}},
		{Name: "metrics", Address: e.Metrics, HTTP: true, Paths: []string{"GET /metrics", "GET /metrics/list"}},
		{Name: "profiler", Address: profile, HTTP: true, Paths: []string{"GET /debug/pprof/", "GET /debug/pprof/heap"}},
		{Name: "admin", Address: e.Admin, Token: true, Services: []string{"tweedle.poet.v1.AdminService", "rpc.api.v1.ConfigurationService"}},
	} {
		t.Run(d.Name, func(t *testing.T) {
			if calls := doortest.Walk(t, d); calls < 300 {
				t.Errorf("only %d calls", calls)
			}
		})
	}
}
