package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"tweedle/base/words"
	"tweedle/edges/front"
)

// newMux returns the JSON form of the services. Fields that are not of the
// request are refused: a misspelt one would be ignored without notice.
func newMux(g *front.Guard) *runtime.ServeMux {
	return g.Mux(runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
		MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: true},
	}))
}

// oneValue refuses a body that is not one JSON value: the gateway reads one
// and ignores what follows it.
func oneValue(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // the guard has it in memory
		if err == nil && len(body) > 0 {
			err = json.Unmarshal(body, new(json.RawMessage))
		}
		if err != nil {
			front.Fail(w, status.Error(codes.InvalidArgument, "request is not JSON: "+words.Of(err)))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}
