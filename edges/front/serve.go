package front

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
)

// stopGrace is what running calls get when a server stops.
const stopGrace = 500 * time.Millisecond

// Serve answers until ctx ends, lets running calls finish for half a second,
// and closes the listener. s is a server of Guard.Server, which can be served
// once on each listener.
func (g *Guard) Serve(ctx context.Context, s *grpc.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		kill := time.AfterFunc(stopGrace, s.Stop)
		defer kill.Stop()
		s.GracefulStop()
	})
	defer stop()
	if err := s.Serve(g.limited(l, true)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("gRPC listener %s: %w", l.Addr(), err)
	}
	return nil
}

// ServeHTTP is Serve for a server of Guard.HTTP.
func (g *Guard) ServeHTTP(ctx context.Context, s *http.Server, l net.Listener) error {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if s.Shutdown(grace) != nil {
			_ = s.Close() // it closes everything, and there is nobody left to tell
		}
	})
	err := s.Serve(g.limited(l, false))
	if !stop() {
		<-done
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("HTTP listener %s: %w", l.Addr(), err)
	}
	return nil
}

// OperationsLimits suit an operator's pages, like metrics, and the few who read them.
func OperationsLimits() Limits {
	return Limits{
		Connections: 128, AddressConnections: 16, Calls: 128, AddressCalls: 16, Replies: 32 << 20, AddressReplies: 16 << 20,
		Rate: 20, Burst: 100, Header: 16 << 10, Body: 16 << 10, Speed: 32 << 10,
		Handshake: 5 * time.Second, Read: 10 * time.Second, Send: 30 * time.Second, Idle: restIdle,
	}
}

// Operations serves an operator's pages until ctx ends, with the time that a call may
// take. Its limits, of which none are [OperationsLimits], are counted in m as those of a door of its own.
func Operations(ctx context.Context, l net.Listener, h http.Handler, call time.Duration, limits Limits, log *slog.Logger, m *Metrics) error {
	if limits == (Limits{}) {
		limits = OperationsLimits()
	}
	limits.Call = call
	g := New(limits, Options{Door: "operations", Log: log, Metrics: m})
	return g.ServeHTTP(ctx, g.HTTP(h), l)
}
