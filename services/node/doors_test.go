package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"tweedle/edges/api/doortest"
	"tweedle/edges/front"
)

// Every listener of a node serves what is on its list, to whom it is for, and nothing else.
func TestEachListenerOfANodeServesItsListOnly(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, front.TokenFile), []byte(doortest.TokenFile), 0o600); err != nil {
		t.Fatal(err)
	}
	const any = "127.0.0.1:0"
	cfg.GRPCListen, cfg.RESTListen, cfg.MetricsListen, cfg.AdminListen = any, any, any, any
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	e := n.Endpoints()
	public := []string{"spacemesh.v1.NodeService", "spacemesh.v1.MeshService", "spacemesh.v1.TransactionService", "spacemesh.v1.GlobalStateService"}
	for _, d := range []doortest.Door{
		{Name: "gRPC", Address: e.GRPC, Services: append([]string{
			"spacemesh.v1.GatewayService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}, public...)},
		{Name: "REST", Address: e.REST, HTTP: true, Services: public},
		{Name: "operations", Address: e.Metrics, HTTP: true, Paths: []string{
			"GET /metrics", "GET /metrics/list", "GET /status", "GET /smesher", "GET /peers", "GET /layers"}},
		{Name: "admin", Address: e.Admin, Token: true, Methods: []string{
			"/spacemesh.v1.DebugService/NetworkInfo", "/spacemesh.v1.AdminService/PeerInfoStream"}},
	} {
		t.Run(d.Name, func(t *testing.T) {
			if calls := doortest.Walk(t, d); calls < 300 {
				t.Errorf("only %d calls", calls)
			}
		})
	}
}
