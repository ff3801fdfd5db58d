package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
)

// newMux returns the JSON form of the services. Fields that are not of the
// request are refused: a misspelt one would be ignored without notice.
func newMux() *runtime.ServeMux {
	return runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
		MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: true},
	}))
}

func newHTTP(mux http.Handler, g *guard, cfg Config) *http.Server {
	return &http.Server{
		Handler:           bounded(mux, g),
		ReadHeaderTimeout: cfg.Limits.Handshake,
		ReadTimeout:       cfg.Limits.Read,
		WriteTimeout:      cfg.Limits.Read + cfg.Limits.Request,
		IdleTimeout:       cfg.Limits.Idle,
		MaxHeaderBytes:    int(cfg.Limits.Header),
	}
}

// bounded limits the requests of an address, their bodies, and the time that
// an answer takes.
func bounded(next http.Handler, g *guard) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.allow(network(address(r.RemoteAddr)), time.Now()) {
			refuse(w, http.StatusTooManyRequests, codes.ResourceExhausted, tooMany)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.limits.Body))
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			refuse(w, http.StatusRequestEntityTooLarge, codes.InvalidArgument, "request is too large")
			return
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, codes.InvalidArgument, "request cannot be read")
			return
		}
		// The gateway reads one value and ignores what follows it.
		if err := json.Unmarshal(body, new(json.RawMessage)); len(body) > 0 && err != nil {
			refuse(w, http.StatusBadRequest, codes.InvalidArgument, "request is not JSON: "+err.Error())
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		ctx, cancel := context.WithTimeout(r.Context(), g.limits.Request)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// address is the remote address of an HTTP request.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// refuse answers in the form that the gateway's errors have.
func refuse(w http.ResponseWriter, code int, c codes.Code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": int(c), "message": message, "details": []any{}}) // the client has gone
}
