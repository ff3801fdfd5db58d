package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"
)

// bytesOf is a service whose every answer has n bytes.
func bytesOf(n int) *service {
	return &service{
		call: func(context.Context, []byte) (any, error) { return wrapperspb.Bytes(make([]byte, n)), nil },
		get:  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, n)) },
	}
}

func TestAnAddressIsWhatItsOwnerGot(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7":             "192.0.2.7/32 192.0.2.7/32",
		"::ffff:192.0.2.7":      "192.0.2.7/32 192.0.2.7/32",
		"2001:db8:1:2:3::4":     "2001:db8:1:2::/64 2001:db8:1::/48",
		"2001:db8:1:2:ffff::":   "2001:db8:1:2::/64 2001:db8:1::/48",
		"2001:db8:1:ff00::1":    "2001:db8:1:ff00::/64 2001:db8:1::/48",
		"fe80::1%eth0":          "fe80::/64 fe80::/48",
		"2001:db8:2:2:ffff::42": "2001:db8:2:2::/64 2001:db8:2::/48",
	} {
		c := clientOf(netip.MustParseAddr(in))
		if got := c.narrow.String() + " " + c.wide.String(); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

// A header is believed only from proxies that were named, and of it only what
// they wrote.
func TestOnlyNamedProxiesTellForWhomTheyAsk(t *testing.T) {
	g := New(testLimits(), Options{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("127.0.0.1/32")}})
	for _, c := range []struct {
		name, peer string
		header     []string
		want       string
		free       bool
	}{
		{"a stranger", "192.0.2.7", nil, "192.0.2.7/32", false},
		{"a stranger who tells", "192.0.2.7", []string{"198.51.100.1"}, "192.0.2.7/32", false},
		{"a proxy", "10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1/32", false},
		{"a proxy on this machine", "127.0.0.1", []string{"198.51.100.1"}, "198.51.100.1/32", false},
		{"a client who tells the proxy", "10.0.0.1", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1/32", false},
		{"in two headers", "10.0.0.1", []string{"203.0.113.9", "198.51.100.1"}, "198.51.100.1/32", false},
		{"a chain of proxies", "10.0.0.1", []string{"203.0.113.9,198.51.100.1 ,10.0.0.7"}, "198.51.100.1/32", false},
		{"somebody who would be this machine", "10.0.0.1", []string{"127.0.0.2"}, "127.0.0.2/32", false},
		{"rubbish", "10.0.0.1", []string{"198.51.100.1, unknown"}, "10.0.0.1/32", false},
		{"a proxy for itself", "127.0.0.1", nil, "127.0.0.1/32", false},
		{"this machine", "127.0.0.2", nil, "127.0.0.2/32", true},
		{"a proxy on this machine that nobody named", "127.0.0.2", []string{"198.51.100.1"}, "127.0.0.2/32", false},
		{"IPv6", "10.0.0.1", []string{"2001:db8::1"}, "2001:db8::/64", false},
	} {
		if got := g.who(netip.MustParseAddr(c.peer), c.header); got.String() != c.want || got.free != c.free {
			t.Errorf("%s is %s, free %v; want %s, %v", c.name, got, got.free, c.want, c.free)
		}
	}
	if !g.who(netip.Addr{}, nil).free {
		t.Error("a unix socket has no address to be limited by")
	}
}

// Shares against a slow twin, which adds up what is held.
func TestSharesAreBounded(t *testing.T) {
	type held struct {
		c client
		n int
	}
	addresses := []string{"192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1", "2001:db8:1:1::1"}
	rapid.Check(t, func(t *rapid.T) {
		limit, each := rapid.IntRange(1, 30).Draw(t, "limit"), rapid.IntRange(0, 8).Draw(t, "each")
		s := newShares(limit, each)
		var all []held
		sum := func(of func(held) bool) (n int) {
			for _, h := range all {
				if of(h) {
					n += h.n
				}
			}
			return n
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(all) > 0 && rapid.Bool().Draw(t, "give") {
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				s.give(all[i].c, all[i].n)
				all = append(all[:i], all[i+1:]...)
				continue
			}
			h := held{clientOf(netip.MustParseAddr(rapid.SampledFrom(addresses).Draw(t, "address"))), rapid.IntRange(1, 12).Draw(t, "n")}
			h.c.free = rapid.IntRange(0, 5).Draw(t, "free") == 0
			mine := sum(func(o held) bool { return !o.c.free && o.c.narrow == h.c.narrow })
			network := sum(func(o held) bool { return !o.c.free && o.c.wide == h.c.wide })
			total := sum(func(held) bool { return true })
			fits := func(held, limit int) bool { return held == 0 || held+h.n <= limit }
			want := granted
			switch {
			case each > 0 && !h.c.free && (!fits(mine, each) || h.c.narrow.Addr().Is6() && !fits(network, 4*each)):
				want = tooManyOfAddress
			case !fits(total, limit):
				want = tooMany
			}
			if got := s.take(h.c, h.n); got != want {
				t.Fatalf("%v takes %d: %v, want %v", h.c, h.n, got, want)
			}
			if want == granted {
				all = append(all, h)
			}
		}
		for _, h := range all {
			s.give(h.c, h.n)
		}
		if s.all != 0 || len(s.holds) != 0 {
			t.Fatalf("%d and %v are left", s.all, s.holds)
		}
	})
}

func TestRatesRefillAndForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRates[int](1, 2)
		allow := func(key int) bool { return r.Allow(key, time.Now()) }
		//lint:ignore SA4000 each call takes a token
		if !allow(1) || !allow(1) || allow(1) || r.Room(1, time.Now()) || !allow(2) {
			t.Fatal("the burst is not two of each")
		}
		time.Sleep(time.Second)
		if !r.Room(1, time.Now()) || !allow(1) || allow(1) {
			t.Fatal("a second is not worth one request")
		}
		for i := range 3 * maxRates {
			allow(i + 10)
		}
		if r.keys.Len() != maxRates {
			t.Fatalf("%d keys are remembered", r.keys.Len())
		}
	})
	if r := NewRates[int](0, 0); !r.Allow(1, time.Now()) || !r.Room(1, time.Now()) {
		t.Error("no limit limits")
	}
}

// A line that was given thousands of /64s has four times the rate of one.
func TestTheRateOfANetworkIsFourAddresses(t *testing.T) {
	l := testLimits()
	l.Rate, l.Burst = 1e-9, 5
	g := New(l, Options{})
	let := func(pattern string) (n int) {
		for i := range 100 {
			if _, err := g.enter(clientOf(netip.MustParseAddr(fmt.Sprintf(pattern, i)))); err == nil {
				n++
			}
		}
		return n
	}
	if n := let("2001:db8:0:%x::1"); n != 20 {
		t.Errorf("a hundred /64s of one /48 get %d requests, want 20", n)
	}
	if n := let("2001:db8:%x::1"); n != 99 { // the first is of the network above
		t.Errorf("a hundred /48s get %d", n)
	}
}

// The rate holds for an address over gRPC, its streams, health, reflection,
// methods that nobody serves, and REST together; another address has its own.
func TestRequestsOfAnAddressAreLimited(t *testing.T) {
	l := testLimits()
	l.Rate, l.Burst = 1e-9, 5
	s := bytesOf(1)
	s.follow = func([]byte, func([]byte) error) error { return nil }
	d := open(t, l, s)
	c := d.dial("127.0.0.2")
	ctx := short(t)
	reflect := func() error {
		st, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
		if err == nil {
			_ = st.CloseSend()
			_, err = st.Recv()
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	}
	follow := func() error {
		st, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, followMethod)
		if err == nil {
			_ = st.SendMsg(wrapperspb.Bytes(nil))
			err = st.RecvMsg(&wrapperspb.BytesValue{})
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	}
	if _, err := ask(ctx, c); err != nil {
		t.Fatal(err)
	}
	if err := reflect(); err != nil {
		t.Fatal(err)
	}
	if err := follow(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.Invoke(ctx, "/no.Such/Method", wrapperspb.Bytes(nil), &wrapperspb.BytesValue{}), codes.Unimplemented, "unknown service")
	if code, _ := d.get(d.web("127.0.0.2")); code != http.StatusOK {
		t.Fatal(code)
	}
	_, err := ask(ctx, c)
	wantCode(t, err, codes.ResourceExhausted, "send fewer a second")
	wantCode(t, reflect(), codes.ResourceExhausted, "send fewer a second")
	wantCode(t, follow(), codes.ResourceExhausted, "send fewer a second")
	wantCode(t, c.Invoke(ctx, "/no.Such/Method", wrapperspb.Bytes(nil), &wrapperspb.BytesValue{}), codes.ResourceExhausted, "send fewer")
	if code, body := d.get(d.web("127.0.0.2")); code != http.StatusTooManyRequests || !strings.Contains(body, `"code":8`) {
		t.Errorf("%d %s", code, body)
	}
	if _, err := ask(ctx, d.dial("127.0.0.3")); err != nil {
		t.Errorf("another address: %v", err)
	}
	if n := d.refused(limitRate); n != 5 {
		t.Errorf("%v refusals are counted", n)
	}
	if n := d.log.count("limit=rate-limit"); n != 1 {
		t.Errorf("the log tells %d times of it in a minute", n)
	}
}

// Behind a proxy on this machine, which is the usual way to TLS, clients are
// told apart if the proxy was named. If it was not they are one client, not
// this machine, whose rate is not limited.
func TestClientsBehindAProxyAreToldApart(t *testing.T) {
	for _, named := range []bool{true, false} {
		l := testLimits()
		l.Rate, l.Burst, l.AddressConnections = 1e-9, 3, 2
		var proxies []netip.Prefix
		if named {
			proxies = Local()
		}
		d := open(t, l, bytesOf(1), func(o *Options) { o.Free, o.Proxies = nil, proxies })
		target, err := url.Parse(d.rest)
		if err != nil {
			t.Fatal(err)
		}
		proxy := &httputil.ReverseProxy{Transport: &http.Transport{}, Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] // what its client tells stays in front
			r.SetURL(target)
			// Everybody here is on loopback: the test says who is who.
			r.Out.Header["X-Forwarded-For"] = append(r.Out.Header["X-Forwarded-For"], r.In.Header.Get("From"))
		}}
		server := httptest.NewServer(proxy)
		ask := func(from string) int {
			r, err := http.NewRequest(http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("From", from)
			r.Header.Set("X-Forwarded-For", "127.0.0.1, 203.0.113.1")
			res, err := d.web().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			return res.StatusCode
		}
		got := ""
		for range 4 {
			got += fmt.Sprint(ask("198.51.100.1"), " ")
		}
		for range 4 {
			got += fmt.Sprint(ask("198.51.100.2"), " ")
		}
		want := "200 200 200 429 429 429 429 429 "
		if named {
			want = "200 200 200 429 200 200 200 429 "
		}
		if got != want {
			t.Errorf("named %v: %s, want %s", named, got, want)
		}
		// This machine itself is not limited where it is no proxy.
		for range 5 {
			if code, _ := d.get(d.web()); !named && code != http.StatusOK {
				t.Errorf("this machine gets %d", code)
			}
		}
		if n := d.refused(limitAddressConnections); n != 0 {
			t.Errorf("named %v: %v connections were refused", named, n)
		}
		server.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
		d.stop()
	}
}

func TestARefusalIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		g := New(testLimits(), Options{Log: textLog(log)})
		for range 150 {
			g.Refuse(limitRate, "somebody")
			g.Refuse(limitCalls, "somebody")
			time.Sleep(time.Second)
		}
		if a, b := log.count("limit=rate-limit"), log.count("times=60"); a != 3 || b != 4 {
			t.Errorf("told %d times, %d of a whole minute:\n%s", a, b, log.all.String())
		}
	})
}

func TestConnectionsOverTheLimitAreClosedAtOnce(t *testing.T) {
	l := testLimits()
	l.Connections, l.AddressConnections = 6, 4
	d := open(t, l, bytesOf(1))
	address := strings.TrimPrefix(d.rest, "http://")
	dial := func(from string) net.Conn {
		c, err := dialer(from)(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	open := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	var held []net.Conn
	for range 4 {
		held = append(held, dial("127.0.0.2"))
	}
	if over := dial("127.0.0.2"); open(over) || !open(held[3]) {
		t.Fatal("an address has more than its share")
	}
	for range 2 {
		held = append(held, dial("127.0.0.3"))
	}
	if over := dial("127.0.0.4"); open(over) || !open(held[5]) {
		t.Fatal("there are more connections than the limit")
	}
	if a, b := d.refused(limitAddressConnections), d.refused(limitConnections); a != 1 || b != 1 {
		t.Errorf("%v and %v refusals are counted", a, b)
	}
	if d.log.count("limit=address-connections last=127.0.0.2/32") != 1 {
		t.Errorf("the log does not name the limit: %s", d.log.all.String())
	}
	for _, c := range held {
		_ = c.Close()
	}
	d.until("there is room again", func() bool { return d.held(d.guard.connections) == 0 })
	if code, _ := d.get(d.web("127.0.0.2")); code != http.StatusOK {
		t.Error(code)
	}
}

// Calls that send headers and nothing more never reach a handler, and end.
func TestACallWithoutItsRequestEnds(t *testing.T) {
	l := testLimits()
	l.Read, l.AddressCalls = 300*time.Millisecond, 60
	s := bytesOf(1)
	s.call = func(context.Context, []byte) (any, error) { t.Error("a handler was called"); return nil, nil }
	s.follow = func([]byte, func([]byte) error) error { t.Error("a handler was called"); return nil }
	d := open(t, l, s)
	c := d.dial()
	begun := time.Now()
	var streams []grpc.ClientStream
	for range 30 {
		for _, method := range []string{callMethod, followMethod} {
			st, err := c.NewStream(short(t), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, st)
		}
	}
	for _, st := range streams {
		if err := st.RecvMsg(&wrapperspb.BytesValue{}); status.Code(err) != codes.Canceled {
			t.Fatalf("it ended with %v", err)
		}
	}
	if time.Since(begun) < l.Read {
		t.Error("they had no time for their requests")
	}
	if n := d.refused(limitRead); n != 60 || d.log.count("limit=request-time last=127.0.0.1/32") != 1 {
		t.Errorf("%v requests that do not come are counted: %s", n, d.log.all.String())
	}
	d.until("the calls are given back", func() bool { return d.held(d.guard.calls) == 0 })
}

// One address cannot have all calls, nor all together more than there are.
func TestCallsAreBounded(t *testing.T) {
	l := testLimits()
	l.AddressCalls, l.Calls = 2, 3
	block := make(chan struct{})
	s := bytesOf(1)
	s.call = func(ctx context.Context, _ []byte) (any, error) { <-block; return wrapperspb.Bytes(nil), nil }
	d := open(t, l, s)
	a, b := d.dial("127.0.0.2"), d.dial("127.0.0.3")
	ended := make(chan error, 3)
	for i, c := range []*grpc.ClientConn{a, a, b} {
		go func() { _, err := ask(short(t), c); ended <- err }()
		d.until("the call runs", func() bool { return d.held(d.guard.calls) == i+1 })
	}
	_, err := ask(short(t), a)
	wantCode(t, err, codes.ResourceExhausted, "wait for their answers")
	_, err = ask(short(t), b)
	wantCode(t, err, codes.ResourceExhausted, "try later")
	close(block)
	for range 3 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestAnAnswerHasItsTime(t *testing.T) {
	l := testLimits()
	l.Call = 30 * time.Millisecond
	s := &service{
		call: func(ctx context.Context, _ []byte) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
		get: func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			Fail(w, status.FromContextError(r.Context().Err()).Err())
		},
	}
	d := open(t, l, s)
	begun := time.Now()
	_, err := ask(short(t), d.dial())
	wantCode(t, err, codes.DeadlineExceeded, "deadline")
	if took := time.Since(begun); took > 20*time.Second { // the client's own is 30 s
		t.Errorf("it has %v", took)
	}
	if code, _ := d.get(d.web()); code != http.StatusGatewayTimeout {
		t.Error(code)
	}
}

// unread asks n times for an answer and reads none.
func unread(t *testing.T, c *grpc.ClientConn, n int) []grpc.ClientStream {
	t.Helper()
	var streams []grpc.ClientStream
	for range n {
		st, err := c.NewStream(short(t), &grpc.StreamDesc{ServerStreams: true}, callMethod)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.SendMsg(wrapperspb.Bytes([]byte("x"))); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
	}
	return streams
}

// Answers that nobody reads are bounded for an address and for all, and the
// others are answered.
func TestUnreadRepliesAreBounded(t *testing.T) {
	l := testLimits()
	const size = 1 << 20 // larger than a client's window
	l.AddressReplies, l.Replies, l.Send = 3*size+3000, 4*size+4000, 20*time.Second
	d := open(t, l, bytesOf(size))
	unread(t, d.dial("127.0.0.2"), 8)
	d.until("three wait and five are refused", func() bool {
		return d.refused(limitAddressReplies) == 5 && d.held(d.guard.replies) > 3*size
	})
	if n, err := ask(short(t), d.dial("127.0.0.3")); err != nil || n != size {
		t.Errorf("another client gets %d bytes, %v", n, err)
	}
	unread(t, d.dial("127.0.0.4"), 2)
	d.until("all together are bounded", func() bool { return d.refused(limitReplies) == 1 })
}

// A reply that is read, a small and a large one, is given back at once.
func TestARepliesBytesAreGivenBackWhenTheyAreSent(t *testing.T) {
	for _, n := range []int{0, 1, 100, 5000, 3 << 20} {
		d := open(t, testLimits(), bytesOf(n))
		c := d.dial()
		for range 10 {
			if got, err := ask(short(t), c); err != nil || got != n {
				t.Fatalf("%d bytes: %d, %v", n, got, err)
			}
		}
		if code, body := d.get(d.web()); code != http.StatusOK || len(body) != n {
			t.Fatalf("%d bytes: %d, %d", n, code, len(body))
		}
		d.until("replies are given back", func() bool { return d.held(d.guard.replies) == 0 })
		d.stop()
	}
}

// Who does not take a reply in its time loses the connection.
func TestAClientThatReadsNothingIsCutOff(t *testing.T) {
	l := testLimits()
	const size = 200 << 10 // larger than a window
	l.Send = 300 * time.Millisecond
	d := open(t, l, bytesOf(size))
	streams := unread(t, d.dial(), 3)
	d.until("the connection is closed", func() bool { return d.refused(limitSend) > 0 && d.held(d.guard.connections) == 0 })
	d.until("replies are given back", func() bool { return d.held(d.guard.replies) == 0 })
	for {
		if err := streams[0].RecvMsg(&wrapperspb.BytesValue{}); err != nil {
			wantCode(t, err, codes.Unavailable, "")
			return
		}
	}
}

// What many ask for counts once, also for an address; a single larger one passes.
func TestASharedReplyCountsOnce(t *testing.T) {
	const size = 1 << 20
	message, err := proto.Marshal(wrapperspb.Bytes(make([]byte, size)))
	if err != nil {
		t.Fatal(err)
	}
	shared := NewShared(message)
	l := testLimits()
	l.AddressReplies, l.Replies = 1, size+100
	s := &service{
		call: func(context.Context, []byte) (any, error) { return shared, nil },
		get:  func(w http.ResponseWriter, _ *http.Request) { WriteShared(w, shared) },
	}
	d := open(t, l, s)
	c := d.dial()
	unread(t, c, 50)
	d.until("fifty wait", func() bool { shared.mu.Lock(); defer shared.mu.Unlock(); return shared.users == 50 })
	if n := d.held(d.guard.replies); n != len(message) {
		t.Errorf("they count as %d bytes", n)
	}
	if n, err := ask(short(t), d.dial()); err != nil || n != size {
		t.Errorf("another client gets %d bytes, %v", n, err)
	}
	if code, body := d.get(d.web()); code != http.StatusOK || len(body) != len(message) {
		t.Errorf("over REST %d, %d bytes", code, len(body))
	}
	_ = c.Close()
	d.until("replies are given back", func() bool { return d.held(d.guard.replies) == 0 })
}

// Who asks for one shared reply after another and reads none has its share, and the
// others are answered.
func TestSharedRepliesOfAnAddressAreBounded(t *testing.T) {
	const size = 1 << 20
	var all []*Shared
	for range 8 {
		message, err := proto.Marshal(wrapperspb.Bytes(make([]byte, size)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, NewShared(message))
	}
	l := testLimits()
	l.AddressReplies, l.Replies = 3*size+3000, 4*size+4000
	var next atomic.Int64
	d := open(t, l, &service{call: func(context.Context, []byte) (any, error) { return all[next.Add(1)%8], nil }})
	hog := d.dial("127.0.0.2")
	unread(t, hog, 8)
	d.until("three wait and five are refused", func() bool { return d.refused(limitAddressReplies) == 5 })
	if n, err := ask(short(t), d.dial("127.0.0.3")); err != nil || n != size {
		t.Errorf("another client gets %d bytes, %v", n, err)
	}
	_ = hog.Close()
	d.until("replies are given back", func() bool { return d.held(d.guard.replies) == 0 && d.held(d.guard.shared) == 0 })
}

// A stream's messages count like replies: who does not read them is cut off.
func TestAStreamThatNobodyReadsEnds(t *testing.T) {
	l := testLimits()
	l.Send = 300 * time.Millisecond
	ended := make(chan error, 1)
	s := bytesOf(1)
	s.follow = func(_ []byte, send func([]byte) error) (err error) {
		defer func() { ended <- err }()
		for {
			if err := send(make([]byte, 64<<10)); err != nil {
				return err
			}
		}
	}
	d := open(t, l, s)
	st, err := d.dial().NewStream(short(t), &grpc.StreamDesc{ServerStreams: true}, followMethod)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SendMsg(wrapperspb.Bytes(nil)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the handler heard nothing of it")
	}
	if d.refused(limitSend) == 0 {
		t.Error("it is not counted")
	}
}

// A REST client that asks and does not read holds its answer for its time and
// no longer; the others are answered.
func TestARESTAnswerThatNobodyReadsEnds(t *testing.T) {
	const size = 16 << 20 // more than the kernel takes
	l := testLimits()
	l.AddressReplies = size + 100
	l.Send = 3 * time.Second
	d := open(t, l, bytesOf(size))
	hang := func() net.Conn {
		c, err := dialer("127.0.0.2")(t.Context(), strings.TrimPrefix(d.rest, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	hang()
	d.until("the answer waits", func() bool { return d.held(d.guard.replies) == size })
	if code, _ := d.get(d.web("127.0.0.2")); code != http.StatusTooManyRequests {
		t.Errorf("a second answer is held for the same address: %d", code)
	}
	if code, body := d.get(d.web("127.0.0.3")); code != http.StatusOK || len(body) != size {
		t.Errorf("another client gets %d, %d bytes", code, len(body))
	}
	d.until("the answer is given up", func() bool { return d.held(d.guard.replies) == 0 && d.held(d.guard.calls) == 0 })
}

// A client that stops reading its socket holds up only itself.
func TestASocketThatNobodyReadsIsClosed(t *testing.T) {
	l := testLimits()
	l.Send = 300 * time.Millisecond
	near, far := net.Pipe() // takes nothing before it is read
	t.Cleanup(func() { _ = far.Close() })
	c := &conn{Conn: near, guard: New(l, Options{}), grpc: true, release: func() {}, replies: map[*reply]struct{}{}}
	defer time.AfterFunc(20*time.Second, func() { _ = far.Close() }).Stop() // a write without a deadline ends too
	if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	_ = c.Close()
}

func TestClientsThatSayNothingAreCutOff(t *testing.T) {
	l := testLimits()
	l.Handshake, l.Read = 50*time.Millisecond, 300*time.Millisecond
	d := open(t, l, bytesOf(1))
	for _, c := range []struct{ address, text string }{
		{d.grpc, "P"},
		{strings.TrimPrefix(d.rest, "http://"), "P"},
		{strings.TrimPrefix(d.rest, "http://"), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n1"},
	} {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, c.text); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %q the connection is still open", c.text)
		}
	}
	if n := d.refused(limitRead); n != 1 {
		t.Errorf("%v bodies that do not come are counted", n)
	}
}

// The operator's pages have a door with fixed limits, which are counted and named as its own.
func TestTheOperatorsDoorIsLimitedAndSaysSo(t *testing.T) {
	log, registry := &lines{}, prometheus.NewRegistry()
	m := NewMetrics("test", registry)
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Operations(ctx, l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), time.Second, OperationsLimits(), textLog(log), m)
	}()
	client := &http.Client{Transport: &http.Transport{}}
	refused := 0
	for range 150 {
		r, err := http.NewRequest(http.MethodGet, "http://"+l.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", "192.0.2.1") // a proxy that nobody named is one client, on this machine too
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusTooManyRequests {
			refused++
		}
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	var counted dto.Metric
	if err := m.limited.WithLabelValues("operations-rate-limit").Write(&counted); err != nil {
		t.Fatal(err)
	}
	if n := counted.GetCounter().GetValue(); refused == 0 || n != float64(refused) || log.count("limit=operations-rate-limit last=127.0.0.1/32") != 1 {
		t.Errorf("%d are refused, %v counted: %s", refused, n, log.all.String())
	}
}

func TestARequestThatIsTooLargeIsRefused(t *testing.T) {
	d := open(t, testLimits(), bytesOf(1))
	// net/http takes 4 KiB more than it is told.
	if code, _ := d.get(d.web(), "X-Long", strings.Repeat("x", 13<<10)); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d for headers that are too large", code)
	}
	if n := d.refused(limitHeader); n != 1 || d.log.count("limit=max-header last=127.0.0.1/32") != 1 {
		t.Errorf("%v headers are counted, want 1: %s", n, d.log.all.String())
	}
	res, err := d.web().Post(d.rest, "application/json", strings.NewReader(strings.Repeat("x", 65<<10)))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Error(res.Status)
	}
	err = d.dial().Invoke(short(t), callMethod, wrapperspb.Bytes(make([]byte, 65<<10)), &wrapperspb.BytesValue{})
	wantCode(t, err, codes.ResourceExhausted, "larger than max")
	st, err := d.dial().NewStream(short(t), &grpc.StreamDesc{ServerStreams: true}, followMethod)
	if err == nil {
		_ = st.SendMsg(wrapperspb.Bytes(make([]byte, 65<<10))) // RecvMsg tells
		err = st.RecvMsg(&wrapperspb.BytesValue{})
	}
	wantCode(t, err, codes.ResourceExhausted, "larger than max")
	if a, b := d.refused(limitBody), d.refused(limitMessage); a != 1 || b != 2 {
		t.Errorf("%v bodies and %v messages are counted, want 1 and 2", a, b)
	}
	if d.log.count("limit=max-body last=127.0.0.1/32") != 1 || d.log.count("limit=max-message last=127.0.0.1/32") != 1 {
		t.Errorf("the log does not name the limits: %s", d.log.all.String())
	}
}

func TestABugCostsOneCall(t *testing.T) {
	s := &service{
		call:   func(context.Context, []byte) (any, error) { panic("a bug of Call") },
		follow: func([]byte, func([]byte) error) error { panic("a bug of Follow") },
		get:    func(http.ResponseWriter, *http.Request) { panic("a bug of GET") },
	}
	d := open(t, testLimits(), s)
	c := d.dial()
	_, err := ask(short(t), c)
	wantCode(t, err, codes.Internal, "internal error")
	st, err := c.NewStream(short(t), &grpc.StreamDesc{ServerStreams: true}, followMethod)
	if err != nil {
		t.Fatal(err)
	}
	_ = st.SendMsg(wrapperspb.Bytes(nil))
	wantCode(t, st.RecvMsg(&wrapperspb.BytesValue{}), codes.Internal, "internal error")
	if code, body := d.get(d.web()); code != http.StatusInternalServerError || !strings.Contains(body, `"code":13`) {
		t.Errorf("%d %s", code, body)
	}
	for _, bug := range []string{"Call", "Follow", "GET"} {
		if d.log.count("a bug of "+bug) != 1 || d.log.count("front_test.go") == 0 {
			t.Errorf("the log does not tell of %s and where it was", bug)
		}
	}
}

// grpc would answer in the compression of the request, whose bytes nobody
// counts, and unpack what it was sent.
func TestNoCompressionIsOffered(t *testing.T) {
	for _, name := range []string{"gzip", "deflate", "snappy", "zstd"} {
		if encoding.GetCompressor(name) != nil {
			t.Errorf("%s is", name)
		}
	}
}

func TestScriptsOfNamedPagesMayRead(t *testing.T) {
	for _, c := range []struct {
		origins []string
		page    string
		want    string
	}{
		{nil, "https://explorer.example", ""},
		{[]string{"https://explorer.example"}, "https://explorer.example", "https://explorer.example"},
		{[]string{"https://explorer.example"}, "https://other.example", ""},
		{[]string{"*"}, "https://other.example", "*"},
	} {
		d := open(t, testLimits(), bytesOf(1), func(o *Options) { o.Origins = c.origins })
		for _, method := range []string{http.MethodGet, http.MethodOptions} {
			r, err := http.NewRequest(method, d.rest+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", c.page)
			if method == http.MethodOptions {
				r.Header.Set("Access-Control-Request-Method", http.MethodPost)
				r.Header.Set("Access-Control-Request-Headers", "content-type")
			}
			res, err := d.web().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if got := res.Header.Get("Access-Control-Allow-Origin"); got != c.want {
				t.Errorf("%v: %s from %s is allowed %q, want %q", c.origins, method, c.page, got, c.want)
			}
		}
	}
}

// What a browser asks before it asks is a request like others.
func TestPreflightsAreLimited(t *testing.T) {
	l := testLimits()
	l.Rate, l.Burst = 0.001, 3
	d := open(t, l, &service{get: func(http.ResponseWriter, *http.Request) {}}, func(o *Options) { o.Origins = []string{"*"} })
	c, limited := d.web("127.0.0.2"), 0
	for range 5 {
		r, err := http.NewRequest(http.MethodOptions, d.rest+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "https://explorer.example")
		r.Header.Set("Access-Control-Request-Method", "GET")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusTooManyRequests {
			limited++
			if res.Header.Get("Access-Control-Allow-Origin") == "" {
				t.Error("the page may not read why")
			}
		}
	}
	if limited != 2 {
		t.Errorf("%d of 5 are refused", limited)
	}
}

// A REST answer of which a later part has no room breaks off, rather than to
// look whole.
func TestHalfAnAnswerDoesNotLookWhole(t *testing.T) {
	var d *door
	other := clientOf(netip.MustParseAddr("192.0.2.9"))
	d = open(t, testLimits(), &service{get: func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<10))
		give, err := d.guard.hold(other, nil, testLimits().Replies)
		if err != nil {
			t.Error(err)
			return
		}
		defer give()
		_, _ = w.Write(make([]byte, 1<<10))
	}})
	r, err := d.web().Get(d.rest + "/")
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err == nil {
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err == nil {
			t.Fatalf("status %d and %d bytes, as if that were all", r.StatusCode, len(b))
		}
	}
	d.empty()
}
