package door

import (
	"context"
	"log/slog"
	"net"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
)

// ServePublic answers the public API on both listeners until ctx ends, and
// closes them.
func ServePublic(ctx context.Context, grpcListener, restListener net.Listener, b Backend, cfg Config) error {
	p := newPublic(b, cfg)
	handler, err := p.rest()
	if err != nil {
		return err
	}
	s := p.guard.Server(grpc.ChainUnaryInterceptor(p.encoded))
	poetpb.RegisterPoetServiceServer(s, p)
	healthpb.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.guard.Serve(ctx, s, grpcListener) })
	g.Go(func() error { return p.guard.ServeHTTP(ctx, p.guard.HTTP(handler), restListener) })
	return g.Wait()
}

// NewAdmin prepares the admin API. tokenFile is made if it is missing.
func NewAdmin(tokenFile string, b Backend, o Outbox, cfg Config) (*front.Admin, error) {
	return front.NewAdmin(tokenFile, adminMethods(), cfg.Limits.Limits, cfg.Front, func(s grpc.ServiceRegistrar) {
		log := cfg.Front.Log
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		a := &admin{backend: b, outbox: o, log: log}
		poetadminpb.RegisterAdminServiceServer(s, a)
		poetpb.RegisterConfigurationServiceServer(s, a)
	})
}
