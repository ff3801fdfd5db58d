package front

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testLimits leave room; tests take it away.
func testLimits() Limits {
	return Limits{
		Connections: 100, AddressConnections: 100, Calls: 1000, AddressCalls: 1000, Replies: 64 << 20, AddressReplies: 64 << 20,
		Rate: 1e6, Burst: 1e6, Streams: 100, Header: 8 << 10, Message: 64 << 10, Body: 64 << 10, Reply: 16 << 20, Speed: 1 << 30,
		Handshake: 5 * time.Second, Read: 20 * time.Second, Call: 20 * time.Second, Send: 20 * time.Second,
		Idle: time.Minute, Ping: time.Second,
	}
}

// service answers what a test wants, over gRPC as test.Test/Call and
// test.Test/Follow (a server stream), over REST at /.
type service struct {
	call   func(ctx context.Context, in []byte) (any, error)
	follow func(in []byte, send func([]byte) error) error
	get    http.HandlerFunc
}

func (s *service) desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(_ any, ctx context.Context, read func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			var in wrapperspb.BytesValue
			if err := read(&in); err != nil {
				return nil, err
			}
			return intercept(ctx, &in, &grpc.UnaryServerInfo{FullMethod: "/test.Test/Call"}, func(ctx context.Context, _ any) (any, error) {
				return s.call(ctx, in.Value)
			})
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Follow", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			var in wrapperspb.BytesValue
			if err := stream.RecvMsg(&in); err != nil {
				return err
			}
			return s.follow(in.Value, func(b []byte) error { return stream.SendMsg(wrapperspb.Bytes(b)) })
		}}},
	}
}

// door is a running guard with both listeners on loopback, where this machine
// is a client like any other unless the test says otherwise.
type door struct {
	t          testing.TB
	guard      *Guard
	grpc, rest string
	log        *lines
	stop       func()
}

func open(t testing.TB, l Limits, s *service, adjust ...func(*Options)) *door {
	t.Helper()
	var on [2]net.Listener
	for i := range on {
		var err error
		if on[i], err = Listen("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	return openOn(t, on[0], on[1], l, s, adjust...)
}

// openOn is open on two listeners, for gRPC and for REST.
func openOn(t testing.TB, g, w net.Listener, l Limits, s *service, adjust ...func(*Options)) *door {
	t.Helper()
	d := &door{t: t, log: &lines{}}
	o := Options{
		Free: []netip.Prefix{}, Log: textLog(d.log), Metrics: NewMetrics("test", prometheus.NewRegistry()),
	}
	for _, a := range adjust {
		a(&o)
	}
	d.guard = New(l, o)
	server := d.guard.Server()
	server.RegisterService(s.desc(), nil)
	healthpb.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	d.grpc, d.rest = g.Addr().String(), "http://"+w.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- d.guard.Serve(ctx, server, g) }()
	get := s.get
	if get == nil {
		get = http.NotFound
	}
	go func() { ended <- d.guard.ServeHTTP(ctx, d.guard.HTTP(get), w) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		d.empty()
	})
	t.Cleanup(d.stop)
	return d
}

// empty checks that nothing is held any more, once what is ending has ended.
func (d *door) empty() {
	d.t.Helper()
	for name, s := range map[string]*shares{"connections": d.guard.connections, "calls": d.guard.calls, "replies": d.guard.replies, "shared replies": d.guard.shared} {
		d.until(name+" are given back", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.all == 0 && len(s.holds) == 0
		})
	}
}

// until waits for what the other end of a socket does in its own time.
func (d *door) until(what string, done func() bool) {
	d.t.Helper()
	for range 2000 {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	d.t.Fatalf("it never happens that %s", what)
}

func (d *door) held(s *shares) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// dial connects, from an address of this machine if one is given.
func (d *door) dial(from ...string) *grpc.ClientConn {
	d.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+d.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<28)),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10), grpc.WithContextDialer(dialer(from...)))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func dialer(from ...string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		var nd net.Dialer
		if len(from) > 0 {
			nd.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from[0])}
		}
		return nd.DialContext(ctx, "tcp", addr)
	}
}

func (d *door) web(from ...string) *http.Client {
	t := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return dialer(from...)(ctx, addr) }}
	d.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

// get asks over REST.
func (d *door) get(c *http.Client, header ...string) (int, string) {
	d.t.Helper()
	r, err := http.NewRequest(http.MethodGet, d.rest+"/", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

const (
	callMethod   = "/test.Test/Call"
	followMethod = "/test.Test/Follow"
)

// ask makes a call and returns the size of its answer.
func ask(ctx context.Context, c *grpc.ClientConn) (int, error) {
	var out wrapperspb.BytesValue
	err := c.Invoke(ctx, callMethod, wrapperspb.Bytes([]byte("x")), &out)
	return len(out.Value), err
}

// refused returns how often a limit refused somebody.
func (d *door) refused(limit string) float64 {
	var m dto.Metric
	if err := d.guard.options.Metrics.limited.WithLabelValues(limit).Write(&m); err != nil {
		d.t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func wantCode(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	if st := status.Convert(err); st.Code() != code || !strings.Contains(st.Message(), text) {
		t.Errorf("got %v, want %v with %q", err, code, text)
	}
}

// lines keeps a log.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), text)
}

func short(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
