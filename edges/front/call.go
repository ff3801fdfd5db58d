package front

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// Flow control and buffers of a gRPC connection, in bytes: fixed, since grpc
// would let a client grow them to 16 MiB.
const (
	streamWindow     = 64 << 10
	connectionWindow = 128 << 10
	buffer           = 16 << 10
)

// Server returns a gRPC server behind the guard; interceptors of options come
// after the guard's.
func (g *Guard) Server(options ...grpc.ServerOption) *grpc.Server {
	l := g.limits
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.InTapHandle(g.tap), grpc.StatsHandler(oversized{g}), grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream), grpc.ForceServerCodecV2(codec{}),
		grpc.MaxConcurrentStreams(l.Streams), grpc.MaxHeaderListSize(unpacked * uint32(l.Header)),
		grpc.MaxRecvMsgSize(l.Message), grpc.MaxSendMsgSize(l.Reply),
		grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(connectionWindow),
		grpc.ReadBufferSize(buffer), grpc.WriteBufferSize(buffer),
		grpc.ConnectionTimeout(l.Handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: l.Idle, MaxConnectionAge: l.Age, MaxConnectionAgeGrace: ageGrace, Time: pingAfter, Timeout: pingTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: l.Ping, PermitWithoutStream: true}),
	}, options...)...)
}

// Times of every gRPC connection.
const (
	pingAfter   = time.Minute
	pingTimeout = 20 * time.Second
	ageGrace    = 10 * time.Minute
)

// forwarded is the header in which a proxy tells for whom it asks.
const forwarded = "x-forwarded-for"

// who returns who a request counts for: the peer, or, behind proxies that are
// believed, the last address that none of them has. A free peer that asks for
// others is a proxy that nobody named: it counts as one client.
func (g *Guard) who(ip netip.Addr, headers []string) client {
	if !within(g.options.Proxies, ip) {
		c := clientOf(ip)
		c.free = (!ip.IsValid() || within(g.options.Free, ip)) && len(headers) == 0
		return c
	}
	chain := strings.Split(strings.Join(headers, ","), ",")
	for i := len(chain) - 1; i >= 0; i-- {
		told, err := netip.ParseAddr(strings.TrimSpace(chain[i]))
		if err != nil {
			break // what stands before it cannot be believed
		}
		ip = told
		if !within(g.options.Proxies, told) {
			break
		}
	}
	return clientOf(ip)
}

// call is one call on its way through the guard.
type call struct {
	from    client
	start   time.Time
	waiting *time.Timer // ends a gRPC call whose request does not come
}

type callKey struct{}

func callOf(ctx context.Context) (*call, *conn) {
	c, _ := ctx.Value(callKey{}).(*call)
	if p, found := peer.FromContext(ctx); found {
		if r, ours := p.Addr.(remote); ours {
			return c, r.conn
		}
	}
	return c, nil
}

// From returns the address that a call counts for; false if it has no share of
// its own.
func From(ctx context.Context) (netip.Prefix, bool) {
	c, _ := callOf(ctx)
	if c == nil || c.from.free {
		return netip.Prefix{}, false
	}
	return c.from.narrow, true
}

// tap sees every call when its headers are there: single calls, streams,
// reflection, health, and those that nobody serves. grpc reads the request of
// a single call before any interceptor runs, so this is the only place that
// can end a call whose request does not come.
func (g *Guard) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	var ip netip.Addr
	_, c := callOf(ctx)
	if c != nil {
		ip = c.ip
	}
	who := g.who(ip, info.Header.Get(forwarded))
	leave, err := g.enter(who)
	if err != nil {
		return ctx, err
	}
	if c != nil && size(info) > g.limits.Header {
		leave()
		c.largeHeaders()
		return ctx, status.Error(codes.ResourceExhausted, "the headers of the request are too large")
	}
	ctx, cancel := context.WithCancel(ctx)
	waiting := time.AfterFunc(g.limits.Read, func() {
		g.Refuse(limitRead, who.String())
		cancel()
	})
	context.AfterFunc(ctx, func() { // grpc ends the context with the call
		waiting.Stop()
		leave()
	})
	return context.WithValue(ctx, callKey{}, &call{from: who, start: time.Now(), waiting: waiting}), nil
}

// size is that of a call's headers as HTTP/2 counts it (RFC 9113, 6.5.2).
func size(info *tap.Info) (n int) {
	const each = 32
	n = len(":path") + len(info.FullMethodName) + each
	for name, values := range info.Header {
		for _, v := range values {
			n += len(name) + len(v) + each
		}
	}
	return n
}

// oversized counts requests that are too large: grpc refuses those of a single call before any interceptor runs.
type oversized struct{ *Guard }

// HandleRPC implements stats.Handler.
func (o oversized) HandleRPC(ctx context.Context, s stats.RPCStats) {
	end, over := s.(*stats.End)
	if !over || end.Error == nil {
		return
	}
	// grpc has texts only. A handler's own error that has this one was met by somebody whom it asked.
	if st := status.Convert(end.Error); st.Code() == codes.ResourceExhausted && strings.HasPrefix(st.Message(), "grpc: ") && strings.Contains(st.Message(), "larger than max") {
		who := "unknown"
		if c, _ := callOf(ctx); c != nil {
			who = c.from.String()
		}
		o.Refuse(limitMessage, who)
	}
}

// TagRPC implements stats.Handler.
func (oversized) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (oversized) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (oversized) HandleConn(context.Context, stats.ConnStats) {}

func (g *Guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (out any, err error) {
	if c, _ := callOf(ctx); c != nil {
		c.waiting.Stop()
	}
	defer g.watch("unary", info.FullMethod, &err)()
	ctx, cancel := context.WithTimeout(ctx, g.limits.Call)
	defer cancel()
	if out, err = handle(ctx, req); err != nil {
		return nil, err
	}
	return g.reply(ctx, out)
}

func (g *Guard) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	kind := "server_stream"
	if info.IsClientStream {
		kind = "bidi_stream"
	}
	defer g.watch(kind, info.FullMethod, &err)()
	return handle(srv, &stream{ServerStream: s, guard: g})
}

// stream bounds the wait for each request of a stream, and its replies.
type stream struct {
	grpc.ServerStream
	guard *Guard
}

// RecvMsg waits for a request as long as one may take.
func (s *stream) RecvMsg(m any) error {
	if c, _ := callOf(s.Context()); c != nil {
		c.waiting.Reset(s.guard.limits.Read)
		defer c.waiting.Stop()
	}
	return s.ServerStream.RecvMsg(m)
}

// SendMsg sends a reply, which counts until it is sent.
func (s *stream) SendMsg(m any) error {
	out, err := s.guard.reply(s.Context(), m)
	if err != nil {
		return err
	}
	return s.ServerStream.SendMsg(out)
}

// watch counts a call, and turns a panic in it into an error.
func (g *Guard) watch(kind, method string, err *error) (end func()) {
	done := g.options.Metrics.begin(kind, method, time.Now())
	return func() {
		p := recover()
		aborted := p == http.ErrAbortHandler // by us, since a REST client does not take its answer
		if p != nil && !aborted {
			*err = g.rescue(method, p)
		}
		done(*err)
		if aborted {
			panic(p)
		}
	}
}

// rescue reports a bug in one call, which must not end the whole server.
func (g *Guard) rescue(method string, p any) error {
	g.options.Metrics.panicked()
	g.options.Log.Error("a request met a bug: please report it", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return status.Error(codes.Internal, "internal error")
}
