package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
)

// Times of the gRPC listeners; the first five are the reference's
// (reference/poet.md 3).
const (
	maxConnIdle   = 2 * time.Hour
	maxConnAge    = 3 * time.Hour
	maxConnGrace  = 10 * time.Minute
	pingAfter     = time.Minute
	pingTimeout   = 3 * time.Minute
	clientPingMin = 30 * time.Second
	handshake     = 10 * time.Second
	// stopGrace is what running calls get when the server stops.
	stopGrace = 500 * time.Millisecond
	// maxStreams bounds the calls at a time on one connection.
	maxStreams = 256
)

func serverOptions(l Limits) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(l.MaxBody),
		grpc.MaxSendMsgSize(l.MaxReply),
		grpc.MaxHeaderListSize(uint32(l.MaxHeader)),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: maxConnIdle, MaxConnectionAge: maxConnAge, MaxConnectionAgeGrace: maxConnGrace,
			Time: pingAfter, Timeout: pingTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: clientPingMin, PermitWithoutStream: true}),
	}
}

// ServePublic answers the public API on both listeners until ctx ends, and
// closes them.
func ServePublic(ctx context.Context, grpcListener, restListener net.Listener, b Backend, cfg Config) error {
	p := newPublic(b, cfg)
	handler, err := p.rest()
	if err != nil {
		return err
	}
	s := grpc.NewServer(append(serverOptions(cfg.Limits), grpc.UnaryInterceptor(p.guard.unary))...)
	poetpb.RegisterPoetServiceServer(s, p)
	healthpb.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	web := &http.Server{
		Handler: handler, MaxHeaderBytes: cfg.Limits.MaxHeader,
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveGRPC(ctx, s, limitConns(grpcListener, cfg.Limits.MaxConns)) })
	g.Go(func() error { return ServeHTTP(ctx, web, limitConns(restListener, cfg.Limits.MaxConns)) })
	return g.Wait()
}

// maxAdminBody bounds an admin request, in bytes: a long list of gateways.
const maxAdminBody = 64 << 10

// Admin is the admin API, ready to be served.
type Admin struct {
	server *grpc.Server
	limits Limits
}

// NewAdmin prepares the admin API. tokenFile is made if it is missing.
func NewAdmin(tokenFile string, b Backend, o Outbox, cfg Config) (*Admin, error) {
	t, err := openTokens(tokenFile)
	if err != nil {
		return nil, err
	}
	d := &door{tokens: t, methods: adminMethods(), guard: &guard{log: cfg.logger(), metrics: cfg.Metrics, deadline: cfg.Limits.Deadline}}
	limits := cfg.Limits
	limits.MaxBody = maxAdminBody
	s := grpc.NewServer(append(serverOptions(limits), grpc.UnaryInterceptor(d.unary), grpc.StreamInterceptor(d.stream))...)
	a := &admin{backend: b, outbox: o, log: cfg.logger()}
	poetadminpb.RegisterAdminServiceServer(s, a)
	poetpb.RegisterConfigurationServiceServer(s, a)
	return &Admin{server: s, limits: cfg.Limits}, nil
}

// Serve answers until ctx ends, and closes the listener, which must be one of
// ListenAdmin. It can be called once.
func (a *Admin) Serve(ctx context.Context, l net.Listener) error {
	return serveGRPC(ctx, a.server, limitConns(l, a.limits.MaxConns))
}

func serveGRPC(ctx context.Context, s *grpc.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		kill := time.AfterFunc(stopGrace, s.Stop)
		defer kill.Stop()
		s.GracefulStop()
	})
	defer stop()
	if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("gRPC listener %s: %w", l.Addr(), err)
	}
	return nil
}

// ServeHTTP serves until ctx ends, closes the listener, and gives running
// requests half a second to finish.
func ServeHTTP(ctx context.Context, s *http.Server, l net.Listener) error {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if s.Shutdown(grace) != nil {
			_ = s.Close() // it closes everything, and there is nobody left to tell
		}
	})
	err := s.Serve(l)
	if !stop() {
		<-done
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("HTTP listener %s: %w", l.Addr(), err)
	}
	return nil
}

// UnixPrefix marks the path of a unix socket.
const UnixPrefix = "unix:"

// ListenAdmin opens the admin listener: host:port on this machine, or
// unix:PATH, whose socket only the owner can use.
func ListenAdmin(addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, UnixPrefix)
	if !ok {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, err
		}
		if ap, err := netip.ParseAddrPort(l.Addr().String()); err != nil || !ap.Addr().Unmap().IsLoopback() {
			_ = l.Close() // it was never used
			return nil, fmt.Errorf("the admin listener %s can be reached from outside: use 127.0.0.1 or %sPATH, and a tunnel", addr, UnixPrefix)
		}
		return l, nil
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close() // it only asked
		return nil, fmt.Errorf("another process listens on %s", path)
	}
	// The socket of a process that was killed is in the way of ours.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close() // it was never used
		return nil, err
	}
	return l, nil
}
