package door

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Metrics counts calls under the names that the reference's middleware uses
// (reference/poet.md 3). A nil *Metrics counts nothing.
type Metrics struct {
	started  *prometheus.CounterVec
	handled  *prometheus.CounterVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	limited  prometheus.Counter
	panics   prometheus.Counter
}

// NewMetrics registers the metrics of the servers.
func NewMetrics(r prometheus.Registerer) *Metrics {
	call := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(call, labels...))
	}
	m := &Metrics{
		started:  counter("grpc_server_started_total", "Calls started."),
		handled:  counter("grpc_server_handled_total", "Calls finished, by status code.", "grpc_code"),
		received: counter("grpc_server_msg_received_total", "Messages received."),
		sent:     counter("grpc_server_msg_sent_total", "Messages sent."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "How long calls took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, call),
		limited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "poet_requests_limited_total", Help: "Requests refused by a rate limit."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "poet_request_panics_total", Help: "Requests that met a bug of the server."}),
	}
	r.MustRegister(m.started, m.handled, m.received, m.sent, m.seconds, m.limited, m.panics)
	return m
}

func (m *Metrics) begin(method string) (end func(error)) {
	if m == nil {
		return func(error) {}
	}
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	labels := []string{"unary", service, name}
	m.started.WithLabelValues(labels...).Inc()
	m.received.WithLabelValues(labels...).Inc()
	start := time.Now()
	return func(err error) {
		m.seconds.WithLabelValues(labels...).Observe(time.Since(start).Seconds())
		m.handled.WithLabelValues(append(labels, status.Code(err).String())...).Inc()
		if err == nil {
			m.sent.WithLabelValues(labels...).Inc()
		}
	}
}

// guard wraps every call of the public service, over gRPC and over REST alike:
// it counts, limits the rate of each address, gives the call a deadline, and
// keeps a bug in one call from ending a round that has run for weeks.
type guard struct {
	log       *slog.Logger
	metrics   *Metrics
	deadline  time.Duration
	addresses *limiter[netip.Prefix]
}

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (_ any, err error) {
	end := g.metrics.begin(info.FullMethod)
	defer func() { end(err) }()
	defer g.rescue(info.FullMethod, &err)
	if err := g.admit(peerAddr(ctx)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, g.deadline)
	defer cancel()
	return handle(ctx, req)
}

// rescue turns a panic into an error and tells where it came from.
func (g *guard) rescue(method string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	if g.metrics != nil {
		g.metrics.panics.Inc()
	}
	g.log.Error("a request met a bug: please report it", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	*err = status.Error(codes.Internal, "internal error")
}

func (g *guard) admit(addr net.Addr) error {
	key, limited := client(addr)
	if !limited || g.addresses.allow(key, time.Now()) {
		return nil
	}
	g.countLimited()
	return status.Error(codes.ResourceExhausted, "too many requests from this address: wait a little")
}

func (g *guard) countLimited() {
	if g.metrics != nil {
		g.metrics.limited.Inc()
	}
}

func peerAddr(ctx context.Context) net.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	return p.Addr
}
