package front

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/rs/cors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// restIdle is how long a REST connection may wait for its next request.
const restIdle = 2 * time.Minute

// HTTP returns an HTTP server of h behind the guard. h gets the whole body at
// once, and a context with the deadline of a call.
func (g *Guard) HTTP(h http.Handler) *http.Server {
	l := g.limits
	if len(g.options.Origins) > 0 {
		// Outermost, so that a page may read a refusal; but what a browser asks
		// before it asks is counted too.
		rules := cors.New(cors.Options{AllowedOrigins: g.options.Origins, ExposedHeaders: []string{"ETag"}, OptionsPassthrough: true})
		h = rules.Handler(g.bounded(preflight(h)))
	} else {
		h = g.bounded(h)
	}
	return &http.Server{
		Handler: h, MaxHeaderBytes: l.Header, ErrorLog: slog.NewLogLogger(g.options.Log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: l.Handshake, ReadTimeout: l.Read, WriteTimeout: l.Read + l.Call + l.Send, IdleTimeout: min(l.Idle, restIdle),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return peer.NewContext(ctx, &peer.Peer{Addr: c.RemoteAddr()})
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if c, ours := c.(*conn); ours {
				c.state(s)
			}
		},
	}
}

// preflight answers what a browser asks before it asks; the headers are there.
func preflight(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Mux returns a mux for the JSON form of services, which counts its calls.
func (g *Guard) Mux(options ...runtime.ServeMuxOption) *runtime.ServeMux {
	return runtime.NewServeMux(append([]runtime.ServeMuxOption{
		runtime.WithForwardResponseOption(func(ctx context.Context, _ http.ResponseWriter, _ proto.Message) error {
			method, _ := runtime.RPCMethod(ctx)
			g.Count(ctx, method, nil)
			return nil
		}),
		runtime.WithErrorHandler(func(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			if method, known := runtime.RPCMethod(ctx); known {
				g.Count(ctx, method, err)
			}
			runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
		}),
	}, options...)...)
}

// Count counts the end of a call that came over REST.
func (g *Guard) Count(ctx context.Context, method string, err error) {
	start := time.Now()
	if c, _ := callOf(ctx); c != nil {
		start = c.start
	}
	g.options.Metrics.begin("unary", method, start)(err)
}

func (g *Guard) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ip netip.Addr
		if _, c := callOf(r.Context()); c != nil {
			ip = c.ip
			c.reached()
		}
		out := &response{ResponseWriter: w, guard: g, open: r.Context(), from: g.who(ip, r.Header.Values(forwarded))}
		leave, err := g.enter(out.from)
		if err != nil {
			refuse(w, http.StatusTooManyRequests, err)
			return
		}
		defer leave()
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				out.fail(g.rescue(r.URL.Path, p))
			}
		}()
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(g.limits.Body)))
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			g.Refuse(limitBody, out.from.String())
			refuse(w, http.StatusRequestEntityTooLarge, status.Error(codes.ResourceExhausted, "request is too large"))
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			g.Refuse(limitRead, out.from.String())
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, status.Error(codes.InvalidArgument, "request cannot be read"))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), callKey{}, &call{from: out.from, start: time.Now()}), g.limits.Call)
		defer cancel()
		next.ServeHTTP(out, r.WithContext(ctx))
	})
}

// response counts the bytes of a REST answer while its client takes them, and
// gives it the time for that.
type response struct {
	http.ResponseWriter
	guard *Guard
	from  client
	open  context.Context // of the request, without the time that an answer has
	begun bool            // the header is on its way
}

// Unwrap lets an http.ResponseController through.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader begins the answer.
func (w *response) WriteHeader(code int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(code)
}

// Write sends a part of the answer. That the client has gone, or has too much
// under way, is no error: the handler could do nothing about it, and the
// gateway would log it for every client that wants it to.
func (w *response) Write(b []byte) (int, error) {
	w.write(b, nil)
	return len(b), nil
}

func (w *response) write(b []byte, s *Shared) {
	give, err := w.guard.hold(w.from, s, len(b))
	if err != nil {
		w.fail(err)
		return
	}
	defer give()
	w.begun = true
	// A writer without deadlines is a recorder in a test.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.guard.limits.sending(len(b))))
	_, err = w.ResponseWriter.Write(b)
	w.late(err)
}

// late counts a client that did not take what it asked for in time.
func (w *response) late(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.guard.Refuse(limitSend, w.from.String())
	}
}

// FlushError sends what was written so far.
func (w *response) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.late(err)
	return err
}

// Fail answers a REST request with an error, in the gateway's form.
func Fail(w http.ResponseWriter, err error) {
	refuse(w, runtime.HTTPStatusFromCode(status.Code(err)), err)
}

// fail is Fail. Where the answer has begun it breaks the connection instead, so
// that half an answer does not look like a whole one.
func (w *response) fail(err error) {
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	w.begun = true
	Fail(w.ResponseWriter, err)
}

// WriteShared writes a shared reply, whose bytes count once for all.
func WriteShared(w http.ResponseWriter, s *Shared) {
	if r, ours := w.(*response); ours {
		r.write(s.data, s)
		return
	}
	_, _ = w.Write(s.data) // the client has gone
}

// refuse answers in the form that the gateway's errors have.
func refuse(w http.ResponseWriter, code int, err error) {
	st := status.Convert(err)
	b, _ := json.Marshal(map[string]any{"code": st.Code(), "message": st.Message(), "details": []any{}}) // plain values always encode
	h := w.Header()
	h.Del("Content-Length")
	h.Del("Cache-Control")
	h.Del("ETag")
	h.Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // the client has gone
}
