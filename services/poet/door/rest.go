package door

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"tweedle/edges/api/gen/poetpb"
)

func newPrefixLimiter(l Limits) *limiter[netip.Prefix] {
	return newLimiter[netip.Prefix](l.PerAddress, l.AddressBurst)
}

// rest is the REST form of the public calls: what a gateway process in front
// of the gRPC server would answer, without the way over the network.
func (p *public) rest() (http.Handler, error) {
	gateway := runtime.NewServeMux()
	ctx := context.Background() // carries nothing: the service is in this process
	if err := poetpb.RegisterPoetServiceHandlerServer(ctx, gateway, &guarded{p: p}); err != nil {
		return nil, err
	}
	// Registered later, it comes first: the same reply, with caching.
	err := gateway.HandlePath(http.MethodGet, "/v1/proofs/{round_id}",
		func(w http.ResponseWriter, r *http.Request, params map[string]string) {
			_, m := runtime.MarshalerForRequest(gateway, r)
			_, err := p.guard.unary(r.Context(), nil, &grpc.UnaryServerInfo{FullMethod: poetpb.PoetService_Proof_FullMethodName},
				func(context.Context, any) (any, error) {
					p.serveProof(gateway, m, w, r, params["round_id"])
					return nil, nil
				})
			if err != nil {
				runtime.HTTPError(r.Context(), gateway, m, w, r, err)
			}
		})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", gateway)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { write(w, "text/plain", []byte("ok\n")) })
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		write(w, "application/json", poetpb.OpenAPI)
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		b, _ := json.Marshal(map[string]string{"version": p.cfg.Version}) // a string always encodes
		write(w, "application/json", b)
	})
	return p.bounded(mux), nil
}

func write(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body) // the client has gone: nothing to do
}

// bounded reads the whole body, within its limit, before anything looks at it,
// and puts the client's address where gRPC has it.
func (p *public) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(p.cfg.Limits.MaxBody)))
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			refuse(w, http.StatusRequestEntityTooLarge, codes.ResourceExhausted, "the request is too large")
			return
		case err != nil:
			refuse(w, http.StatusBadRequest, codes.InvalidArgument, "the request cannot be read")
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			r = r.WithContext(peer.NewContext(r.Context(), &peer.Peer{Addr: net.TCPAddrFromAddrPort(addr)}))
		}
		next.ServeHTTP(w, r)
	})
}

// refuse answers in the form of the gateway's errors.
func refuse(w http.ResponseWriter, code int, c codes.Code, why string) {
	b, _ := json.Marshal(map[string]any{"code": c, "message": why, "details": []any{}}) // plain values always encode
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // the client has gone: nothing to do
}

// guarded is the service as the REST form calls it: behind the same guard as
// over gRPC, which an interceptor provides there.
type guarded struct {
	poetpb.UnimplementedPoetServiceServer
	p *public
}

func through[Q, R any](g *guard, ctx context.Context, method string, in Q, handle func(context.Context, Q) (R, error)) (R, error) {
	out, err := g.unary(ctx, in, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
		return handle(ctx, in)
	})
	if err != nil {
		var none R
		return none, err
	}
	return out.(R), nil
}

// PowParams implements poetpb.PoetServiceServer.
func (s *guarded) PowParams(ctx context.Context, in *poetpb.PowParamsRequest) (*poetpb.PowParamsResponse, error) {
	return through(s.p.guard, ctx, poetpb.PoetService_PowParams_FullMethodName, in, s.p.PowParams)
}

// Submit implements poetpb.PoetServiceServer.
func (s *guarded) Submit(ctx context.Context, in *poetpb.SubmitRequest) (*poetpb.SubmitResponse, error) {
	return through(s.p.guard, ctx, poetpb.PoetService_Submit_FullMethodName, in, s.p.Submit)
}

// Info implements poetpb.PoetServiceServer.
func (s *guarded) Info(ctx context.Context, in *poetpb.InfoRequest) (*poetpb.InfoResponse, error) {
	return through(s.p.guard, ctx, poetpb.PoetService_Info_FullMethodName, in, s.p.Info)
}

// Member implements poetpb.PoetServiceServer.
func (s *guarded) Member(ctx context.Context, in *poetpb.MemberRequest) (*poetpb.MemberResponse, error) {
	return through(s.p.guard, ctx, poetpb.PoetService_Member_FullMethodName, in, s.p.Member)
}

// Proof implements poetpb.PoetServiceServer; serveProof answers before it.
func (s *guarded) Proof(ctx context.Context, in *poetpb.ProofRequest) (*poetpb.ProofResponse, error) {
	return through(s.p.guard, ctx, poetpb.PoetService_Proof_FullMethodName, in, s.p.Proof)
}

// Times of the REST listener.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 2 * time.Minute // a proof with a million members over a thin line
	idleTimeout       = 2 * time.Minute
)
