package front

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// pipes is a listener in memory, so that a bubble can hold an HTTP server.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// follower serves one server stream over REST inside a bubble, and returns what asks for it.
func follower(t *testing.T, l Limits, log *lines, follow func(ctx context.Context, in string, send func(string) error) error) (ask func(path, body string) (net.Conn, *bufio.Reader), stop func()) {
	g := New(l, Options{Free: []netip.Prefix{}, Log: textLog(log)})
	mux := g.Mux()
	desc := &grpc.ServiceDesc{ServiceName: "test.v1.TestService", Streams: []grpc.StreamDesc{{StreamName: "Follow", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		var in wrapperspb.StringValue
		if err := s.RecvMsg(&in); err != nil {
			return err
		}
		return follow(s.Context(), in.Value, func(out string) error { return s.SendMsg(wrapperspb.String(out)) })
	}}}}
	if err := g.Streams(mux, desc, nil); err != nil {
		t.Fatal(err)
	}
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.ServeHTTP(ctx, g.HTTP(mux), p) }()
	ask = func(path, body string) (net.Conn, *bufio.Reader) {
		near, far := net.Pipe()
		p.conns <- far
		go func() {
			_, _ = io.WriteString(near, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		}()
		return near, bufio.NewReader(near)
	}
	return ask, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if g.calls.all != 0 || g.replies.all != 0 || g.connections.all != 0 {
			t.Errorf("%d calls, %d bytes and %d connections are not given back", g.calls.all, g.replies.all, g.connections.all)
		}
	}
}

// A stream over REST is one line a message, as they come, and lasts as long as its client
// reads: the times of single answers and of requests are not its own.
func TestAStreamOverRESTLastsAsLongAsItIsRead(t *testing.T) {
	for _, path := range []string{"/test.v1.TestService/Follow", "/v1/test/follow"} {
		synctest.Test(t, func(t *testing.T) {
			var left time.Duration
			begin := time.Now()
			ask, stop := follower(t, testLimits(), &lines{}, func(ctx context.Context, in string, send func(string) error) error {
				for range 3 {
					if err := send(in); err != nil {
						return err
					}
					time.Sleep(time.Hour)
				}
				<-ctx.Done()
				left = time.Since(begin)
				return ctx.Err()
			})
			conn, r := ask(path, `"x"`)
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatal(res, err)
			}
			body := bufio.NewReader(res.Body)
			for i := range 3 {
				line, err := body.ReadString('\n')
				if err != nil || line != `{"result":"x"}`+"\n" || time.Since(begin) != time.Duration(i)*time.Hour {
					t.Fatalf("%v after %v: %q", err, time.Since(begin), line)
				}
			}
			time.Sleep(10 * time.Hour)
			_ = conn.Close()
			synctest.Wait()
			if left != 12*time.Hour {
				t.Errorf("the handler heard that the client left after %v", left)
			}
			stop()
		})
	}
}

// Errors before the first line are answers, later ones the last line; what is no request is refused.
func TestHowAStreamOverRESTEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask, stop := follower(t, testLimits(), &lines{}, func(_ context.Context, in string, send func(string) error) error {
			if in == "panic" {
				panic(in)
			}
			if strings.HasPrefix(in, "late") {
				_ = send("one")
			}
			if strings.HasSuffix(in, "error") {
				return io.ErrUnexpectedEOF
			}
			return nil
		})
		for _, c := range []struct {
			body string
			code int
			want string
		}{
			{`"x"`, 200, ""}, {``, 200, ""}, {`"late"`, 200, "{\"result\":\"one\"}\n"},
			{`"error"`, 500, "unexpected EOF"}, {`"late error"`, 200, `{"error":{"code":2,"details":[],"message":"unexpected EOF"}}`},
			{`{`, 400, "request is not JSON: it ends too early"}, {`"panic"`, 500, "internal error"},
		} {
			conn, r := ask("/v1/test/follow", c.body)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(c.body, err)
			}
			all, err := io.ReadAll(res.Body)
			if res.StatusCode != c.code || !strings.Contains(string(all), c.want) || err != nil || c.want == "" && len(all) != 0 {
				t.Errorf("%s: %d %q %v", c.body, res.StatusCode, all, err)
			}
			_ = conn.Close()
		}
		synctest.Wait()
		stop()
	})
}

// A client that asks for a stream and does not read it loses its connection, is counted, and
// the handler ends.
func TestAStreamOverRESTThatNobodyReadsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		var sent int
		l := testLimits()
		ask, stop := follower(t, l, log, func(_ context.Context, _ string, send func(string) error) error {
			for {
				if err := send(strings.Repeat("x", 1000)); err != nil {
					return err
				}
				sent++
			}
		})
		conn, _ := ask("/v1/test/follow", `"x"`)
		time.Sleep(2 * l.Send)
		synctest.Wait()
		if sent > 20 || log.count("limit=send-time") != 1 {
			t.Errorf("%d messages were sent to nobody; log: %s", sent, log.all.String())
		}
		_ = conn.Close()
		stop()
	})
}
