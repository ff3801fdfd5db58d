package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"tweedle/edges/api"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
	"tweedle/services/poet/book/booktest"
	"tweedle/services/poet/rounds"
	"tweedle/services/poet/work"
)

// house is a running server with its public doors on loopback, where this
// machine is a client like any other.
type house struct {
	grpc, rest string
	registry   *prometheus.Registry
	// what to ask: a cheap call, a large one, and the same over REST
	method, large string
	request, heap proto.Message
	reply         func() proto.Message
	get           string
	post          string // body of the REST call; empty: GET
}

// houses are the node's door and the PoET's. Each is judged by the same tests.
func houses() map[string]func(*testing.T, func(*front.Limits)) *house {
	return map[string]func(*testing.T, func(*front.Limits)) *house{"node": nodeHouse, "PoET": poetHouse}
}

func listeners(t *testing.T, h *house) (g, w net.Listener) {
	t.Helper()
	var err error
	if g, err = front.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if w, err = front.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	h.grpc, h.rest, h.registry = g.Addr().String(), "http://"+w.Addr().String(), prometheus.NewRegistry()
	return g, w
}

func run(t *testing.T, serve func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func nodeHouse(t *testing.T, adjust func(*front.Limits)) *house {
	h := &house{
		method: spacemesh.NodeService_Echo_FullMethodName, large: spacemesh.NodeService_Echo_FullMethodName,
		request: &spacemesh.EchoRequest{Msg: &spacemesh.SimpleString{Value: "x"}},
		heap:    &spacemesh.EchoRequest{Msg: &spacemesh.SimpleString{Value: strings.Repeat("x", 300<<10)}},
		reply:   func() proto.Message { return &spacemesh.EchoResponse{} },
		get:     "/v1/node/echo", post: `{"msg":{"value":"x"}}`,
	}
	g, w := listeners(t, h)
	l := api.DefaultLimits()
	adjust(&l.Limits)
	s, err := api.New(api.Config{GRPC: g, REST: w, Limits: l, Front: front.Options{Free: []netip.Prefix{}, Metrics: front.NewMetrics("door", h.registry)}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s.Run)
	return h
}

func poetHouse(t *testing.T, adjust func(*front.Limits)) *house {
	h := &house{
		method: poetpb.PoetService_Info_FullMethodName, large: poetpb.PoetService_Proof_FullMethodName,
		request: &poetpb.InfoRequest{}, heap: &poetpb.ProofRequest{RoundId: "0"}, reply: func() proto.Message { return &poetpb.ProofResponse{} },
		get: "/v1/info",
	}
	dir := t.TempDir()
	schedule := testSchedule()
	schedule.PhaseShift, schedule.EpochDuration = time.Hour, 2*time.Hour
	cfg := rounds.Config{Dir: dir, Schedule: schedule, Work: work.Config{LeavesPerSecond: 500}, BallastBytes: 1 << 16}
	s, err := rounds.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := booktest.Prove(dir, schedule, 0, 5000, 4500); err != nil {
		t.Fatal(err)
	}
	if s, err = rounds.Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	g, w := listeners(t, h)
	l := DefaultLimits()
	adjust(&l.Limits)
	run(t, func(ctx context.Context) error {
		return ServePublic(ctx, g, w, s, Config{Limits: l, Schedule: schedule, Front: front.Options{Free: []netip.Prefix{}, Metrics: front.NewMetrics("door", h.registry)}})
	})
	return h
}

func (h *house) dial(t *testing.T, from string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+h.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			return d.DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask makes the cheap call over REST.
func (h *house) ask(t *testing.T, from string, header ...string) int {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	web := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	defer web.CloseIdleConnections()
	method := http.MethodGet
	if h.post != "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(brief(t), method, h.rest+h.get, strings.NewReader(h.post))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := web.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func brief(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// counted returns a counter of the door, or 0.
func (h *house) counted(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			fits := f.GetName() == name
			for i := 0; i+1 < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				fits = fits && found
			}
			if fits {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// eventually waits for what the other end of a socket does in its own time.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 2000 {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("it never happens that %s", what)
}

// Both doors hold what package front promises, with the services that they
// really have.
func TestBothDoorsAreGuardedAlike(t *testing.T) {
	for name, open := range houses() {
		t.Run(name, func(t *testing.T) {
			t.Run("rates", func(t *testing.T) { judgeRates(t, open) })
			t.Run("connections", func(t *testing.T) { judgeConnections(t, open) })
			t.Run("calls without a request", func(t *testing.T) { judgeEmpty(t, open) })
			t.Run("replies that nobody reads", func(t *testing.T) { judgeUnread(t, open) })
			t.Run("REST answers that nobody reads", func(t *testing.T) { judgeUnreadREST(t, open) })
			t.Run("counts", func(t *testing.T) { judgeCounts(t, open) })
		})
	}
}

// An address has one rate for calls, streams, health, reflection and REST.
func judgeRates(t *testing.T, open func(*testing.T, func(*front.Limits)) *house) {
	h := open(t, func(l *front.Limits) { l.Rate, l.Burst = 1e-9, 4 })
	c := h.dial(t, "127.0.0.2")
	reflect := func() error {
		st, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(brief(t))
		if err != nil {
			return err
		}
		_ = st.CloseSend()
		if _, err = st.Recv(); errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	watch := func() error {
		st, err := healthpb.NewHealthClient(c).Watch(brief(t), &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = st.Recv()
		}
		return err
	}
	call := func() error { return c.Invoke(brief(t), h.method, h.request, h.reply()) }
	for i, f := range []func() error{call, reflect, watch} {
		if err := f(); err != nil {
			t.Fatal(i, err)
		}
	}
	if code := h.ask(t, "127.0.0.2"); code != http.StatusOK {
		t.Fatal(code)
	}
	for i, f := range []func() error{call, reflect, watch} {
		if err := f(); status.Code(err) != codes.ResourceExhausted {
			t.Error(i, err)
		}
	}
	if code := h.ask(t, "127.0.0.2"); code != http.StatusTooManyRequests {
		t.Error(code)
	}
	if code := h.ask(t, "127.0.0.3"); code != http.StatusOK {
		t.Errorf("another address: %d", code)
	}
	// The header of somebody who is no named proxy changes nothing.
	if code := h.ask(t, "127.0.0.2", "X-Forwarded-For", "198.51.100.7"); code != http.StatusTooManyRequests {
		t.Error(code)
	}
	if n := h.counted(t, "door_requests_limited_total", "limit", "rate-limit"); n != 5 {
		t.Errorf("%v refusals are counted", n)
	}
}

func judgeConnections(t *testing.T, open func(*testing.T, func(*front.Limits)) *house) {
	h := open(t, func(l *front.Limits) { l.AddressConnections = 3 })
	for i := range 10 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
		address := h.grpc
		if i%2 == 1 {
			address = strings.TrimPrefix(h.rest, "http://")
		}
		c, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "seven of ten are refused", func() bool {
		return h.counted(t, "door_requests_limited_total", "limit", "address-connections") == 7
	})
	if code := h.ask(t, "127.0.0.3"); code != http.StatusOK {
		t.Errorf("another address: %d", code)
	}
}

func judgeEmpty(t *testing.T, open func(*testing.T, func(*front.Limits)) *house) {
	h := open(t, func(l *front.Limits) { l.Read, l.AddressCalls = 300*time.Millisecond, 8 })
	c := h.dial(t, "127.0.0.2")
	var streams []grpc.ClientStream
	for range 8 {
		st, err := c.NewStream(brief(t), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, h.method)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
	}
	eventually(t, "a ninth is refused", func() bool {
		return status.Code(c.Invoke(brief(t), h.method, h.request, h.reply())) == codes.ResourceExhausted
	})
	for _, st := range streams {
		if err := st.RecvMsg(h.reply()); status.Code(err) != codes.Canceled {
			t.Errorf("it ends with %v", err)
		}
	}
	eventually(t, "there is room again", func() bool { return c.Invoke(brief(t), h.method, h.request, h.reply()) == nil })
}

// judgeUnread: what an address does not read is bounded, cut off, and keeps
// nobody else waiting.
func judgeUnread(t *testing.T, open func(*testing.T, func(*front.Limits)) *house) {
	h := open(t, func(l *front.Limits) { l.AddressReplies, l.Send, l.Speed = 1<<20, 300*time.Millisecond, 1<<30 })
	c := h.dial(t, "127.0.0.2")
	for range 12 {
		st, err := c.NewStream(brief(t), &grpc.StreamDesc{ServerStreams: true}, h.large)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.SendMsg(h.heap); err != nil {
			t.Fatal(err)
		}
		if err := st.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.dial(t, "127.0.0.3").Invoke(brief(t), h.large, h.heap, h.reply()); err != nil {
		t.Errorf("another client: %v", err)
	}
	eventually(t, "the connection is cut", func() bool { return h.counted(t, "door_requests_limited_total", "limit", "send-time") > 0 })
	// The same address is served again on a new connection.
	eventually(t, "it is served again", func() bool {
		return h.dial(t, "127.0.0.2").Invoke(brief(t), h.large, h.heap, h.reply()) == nil
	})
}

func judgeUnreadREST(t *testing.T, open func(*testing.T, func(*front.Limits)) *house) {
	h := open(t, func(l *front.Limits) { l.Send, l.Speed, l.AddressCalls = time.Second, 1<<30, 2 })
	hang := func() net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
		c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(h.rest, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.(*net.TCPConn).SetReadBuffer(1 << 10)
		return c
	}
	large := "GET /v1/proofs/0 HTTP/1.1\r\nHost: x\r\n\r\n"
	if h.post != "" {
		body := `{"msg":{"value":"` + strings.Repeat("x", 250<<10) + `"}}`
		large = fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", h.get, len(body), body)
	}
	// Asked for again and again on one connection, and never read, the answers
	// fill what the kernel holds for it.
	c := hang()
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for range 100 {
		if _, err := io.WriteString(c, large); err != nil {
			break // the server reads no further while an answer waits, or has hung up
		}
	}
	if code := h.ask(t, "127.0.0.3"); code != http.StatusOK {
		t.Errorf("another client: %d", code)
	}
	eventually(t, "the connection is cut", func() bool {
		_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := io.WriteString(c, large)
		return err != nil && !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "i/o timeout")
	})
}

// judgeCounts: what failed is not counted as OK, whichever way it came.
func judgeCounts(t *testing.T, open func(*testing.T, func(*front.Limits)) *house) {
	h := open(t, func(*front.Limits) {})
	if code := h.ask(t, "127.0.0.2"); code != http.StatusOK {
		t.Fatal(code)
	}
	if err := h.dial(t, "127.0.0.2").Invoke(brief(t), h.method, h.request, h.reply()); err != nil {
		t.Fatal(err)
	}
	_, name, _ := strings.Cut(strings.TrimPrefix(h.method, "/"), "/")
	if n := h.counted(t, "grpc_server_handled_total", "grpc_method", name, "grpc_code", "OK"); n != 2 {
		t.Errorf("%v good calls are counted, of two", n)
	}
	bad, method, code := "/v1/proofs/7", "Proof", "NotFound"
	body := ""
	if h.post != "" {
		bad, method, code, body = h.get, "Echo", "InvalidArgument", "{}"
	}
	h.get, h.post = bad, body
	if got := h.ask(t, "127.0.0.2"); got < 400 {
		t.Fatal(got)
	}
	if n := h.counted(t, "grpc_server_handled_total", "grpc_method", method, "grpc_code", code); n != 1 {
		t.Errorf("%v bad calls are counted, of one", n)
	}
	if n := h.counted(t, "grpc_server_handled_total", "grpc_method", "Proof", "grpc_code", "OK"); n != 0 {
		t.Errorf("%v of them as good", n)
	}
}
