package door

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
)

// rest is the REST form of the public calls: what a gateway process in front
// of the gRPC server would answer, without the way over the network.
func (p *public) rest() (http.Handler, error) {
	gateway := p.guard.Mux()
	ctx := context.Background() // carries nothing: the service is in this process
	if err := poetpb.RegisterPoetServiceHandlerServer(ctx, gateway, p); err != nil {
		return nil, err
	}
	// Registered later, it comes first: the same reply, with caching.
	err := gateway.HandlePath(http.MethodGet, "/v1/proofs/{round_id}",
		func(w http.ResponseWriter, r *http.Request, params map[string]string) {
			err := p.serveProof(w, r, params["round_id"])
			p.guard.Count(r.Context(), poetpb.PoetService_Proof_FullMethodName, err)
			if err != nil {
				_, m := runtime.MarshalerForRequest(gateway, r)
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
	return mux, nil
}

func write(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body) // the client has gone: nothing to do
}

// serveProof answers GET /v1/proofs/{round_id}: immutable, so that any cache
// on the way may keep it for ever.
func (p *public) serveProof(w http.ResponseWriter, r *http.Request, round string) error {
	e, err := p.proofs.get(r.Context(), round)
	if err != nil {
		return p.failure(err)
	}
	h := w.Header()
	h.Set("ETag", e.etag)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	if matches(r.Header.Get("If-None-Match"), e.etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(e.json.Bytes())))
	front.WriteShared(w, e.json)
	return nil
}

// matches tells whether an If-None-Match header names the tag
// (RFC 9110 13.1.2, weak comparison).
func matches(header, etag string) bool {
	if strings.TrimSpace(header) == "*" {
		return true
	}
	for tag := range strings.SplitSeq(header, ",") {
		if strings.TrimPrefix(strings.TrimSpace(tag), "W/") == etag {
			return true
		}
	}
	return false
}
