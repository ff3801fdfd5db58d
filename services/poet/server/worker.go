package server

import (
	"context"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"tweedle/base/durable"
	"tweedle/base/telemetry"
	"tweedle/services/poet"
	"tweedle/services/poet/rpc"
)

// WorkerConfig is what RunWorker runs with.
type WorkerConfig struct {
	// Server is the admin listener of the registration server, host:port or
	// unix:PATH, reached through a tunnel if it is on another machine.
	Server string
	// TokenFile has the token of that server.
	TokenFile string
	// Dial is empty but on virtual networks.
	Dial []grpc.DialOption
}

// RunWorker executes the rounds of another server until ctx ends. Of cfg it
// uses the data directory, what concerns the work, the log, and the listeners
// of metrics and profile.
func RunWorker(ctx context.Context, cfg Config, from WorkerConfig) (err error) {
	if err := (durable.OS{}).Mkdir(cfg.Poet.Dir, 0o700); err != nil {
		return startError(err, cfg.Poet.Dir)
	}
	cfg.GRPC, cfg.REST, cfg.Admin = "", "", ""
	ls, err := openListeners(cfg)
	if err != nil {
		return err
	}
	defer ls.close()
	conn, err := rpc.DialAdmin(from.Server, from.TokenFile, from.Dial...)
	if err != nil {
		return err
	}
	defer conn.Close()
	registry := prometheus.NewRegistry()
	cfg.Poet.Log, cfg.Poet.Metrics = cfg.Log, registry
	worker, err := poet.OpenWorker(cfg.Poet)
	if err != nil {
		return startError(err, cfg.Poet.Dir)
	}
	defer func() { err = errors.Join(err, worker.Close()) }()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	source := rpc.NewRemoteSource(conn, func(err error) { cfg.Log.Warn("the work goes on, but no round comes or goes", "err", err) })
	g.Go(func() error { return worker.Run(ctx, source) })
	e := telemetry.Endpoints{}
	if ls.metrics != nil {
		e.Metrics = ls.metrics.Addr().String()
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
		g.Go(func() error { return serveMux(ctx, ls.metrics, mux) })
	}
	if ls.profile != nil {
		g.Go(func() error { return serveMux(ctx, ls.profile, profiler()) })
	}
	cfg.Log.Info("the PoET worker is up", "server", from.Server, "dir", cfg.Poet.Dir)
	if cfg.Announce != nil {
		withdraw, err := cfg.Announce(e)
		if err != nil {
			stop()
			return errors.Join(startError(err, cfg.Poet.Dir), g.Wait())
		}
		defer withdraw()
	}
	return g.Wait()
}
