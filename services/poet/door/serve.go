package door

import (
	"context"
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

// Admin is the admin API, ready to be served.
type Admin struct {
	server *grpc.Server
	guard  *front.Guard
}

// NewAdmin prepares the admin API. tokenFile is made if it is missing.
func NewAdmin(tokenFile string, b Backend, o Outbox, cfg Config) (*Admin, error) {
	guard := front.New(adminLimits(cfg.Limits.Limits), front.Options{Log: cfg.Front.Log, Metrics: cfg.Front.Metrics})
	tokens, err := front.OpenTokens(tokenFile, guard.Log())
	if err != nil {
		return nil, err
	}
	s := guard.Server(tokens.Only(adminMethods())...)
	a := &admin{backend: b, outbox: o, log: guard.Log()}
	poetadminpb.RegisterAdminServiceServer(s, a)
	poetpb.RegisterConfigurationServiceServer(s, a)
	return &Admin{server: s, guard: guard}, nil
}

// adminLimits are those of a listener that only this machine reaches, which
// has no addresses to tell its clients apart.
func adminLimits(l front.Limits) front.Limits {
	l.Connections, l.Calls = 64, 256
	l.Message = 64 << 10 // a long list of gateways
	return l
}

// Serve answers until ctx ends, and closes the listener. It can be called
// once.
func (a *Admin) Serve(ctx context.Context, l net.Listener) error {
	return a.guard.Serve(ctx, a.server, l)
}
