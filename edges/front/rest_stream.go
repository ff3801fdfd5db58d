package front

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"tweedle/base/words"
)

// Streams adds the JSON form of a service's server streams to a mux that has its
// single calls: POST /SERVICE/METHOD, as a gateway process has them, and
// /v1/NAME/METHOD in small letters beside the single calls. The answer is one
// {"result":...} on a line for each message, and {"error":...} for an end that is
// one. A stream lasts as long as its client reads it.
func (g *Guard) Streams(mux *runtime.ServeMux, desc *grpc.ServiceDesc, srv any) error {
	short := desc.ServiceName[strings.LastIndex(desc.ServiceName, ".")+1:]
	for _, s := range desc.Streams {
		if s.ClientStreams {
			continue // it has no form in HTTP/1.1
		}
		method := "/" + desc.ServiceName + "/" + s.StreamName
		h := func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
			g.serveStream(mux, method, s.Handler, srv, w, r)
		}
		small := strings.ToLower("/v1/" + strings.TrimSuffix(short, "Service") + "/" + s.StreamName)
		if err := errors.Join(mux.HandlePath(http.MethodPost, method, h), mux.HandlePath(http.MethodPost, small, h)); err != nil {
			return err
		}
	}
	return nil
}

func (g *Guard) serveStream(mux *runtime.ServeMux, method string, handle grpc.StreamHandler, srv any, w http.ResponseWriter, r *http.Request) {
	// What bounds a single answer does not bound a stream: it ends with its request,
	// and each of its messages has the time that a reply has.
	open := r.Context()
	if out, ours := w.(*response); ours {
		open = out.open
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(open, cancel)()
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a recorder in a test has none
	in, out := runtime.MarshalerForRequest(mux, r)
	s := &restStream{ctx: ctx, w: w, body: in.NewDecoder(r.Body), out: out}
	err := func() (err error) {
		defer g.watch("server_stream", method, &err)()
		return handle(srv, s)
	}()
	switch {
	case ctx.Err() != nil: // nobody is left to tell
	case err != nil && !s.begun:
		Fail(w, err)
	case err != nil:
		st := status.Convert(err)
		_ = s.line(map[string]any{"error": map[string]any{"code": st.Code(), "message": st.Message(), "details": []any{}}})
	case !s.begun:
		s.begin()
	}
}

// restStream is a server stream whose messages are lines of an HTTP answer.
type restStream struct {
	ctx   context.Context
	w     http.ResponseWriter
	body  runtime.Decoder
	out   runtime.Marshaler
	read  bool
	begun bool
}

func (s *restStream) Context() context.Context     { return s.ctx }
func (s *restStream) SetHeader(metadata.MD) error  { return nil } // there is none in JSON
func (s *restStream) SendHeader(metadata.MD) error { return nil }
func (s *restStream) SetTrailer(metadata.MD)       {}

// RecvMsg reads the only request; without a body it is the empty one.
func (s *restStream) RecvMsg(m any) error {
	if s.read {
		return io.EOF
	}
	s.read = true
	if err := s.body.Decode(m); err != nil && !errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "request is not JSON: "+words.Of(err))
	}
	return nil
}

// SendMsg writes one line and returns when it is on its way.
func (s *restStream) SendMsg(m any) error {
	b, err := s.out.Marshal(m.(proto.Message)) // grpc's streams send nothing else
	if err != nil {
		return err
	}
	return s.line(map[string]json.RawMessage{"result": b})
}

func (s *restStream) begin() {
	s.begun = true
	s.w.Header().Set("Content-Type", "application/json")
	s.w.WriteHeader(http.StatusOK)
}

func (s *restStream) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if s.ctx.Err() != nil {
		return status.FromContextError(s.ctx.Err()).Err()
	}
	if !s.begun {
		s.begin()
	}
	_, _ = s.w.Write(append(b, '\n')) // Flush tells whether it went
	if err := http.NewResponseController(s.w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return status.Error(codes.Canceled, "the client has gone")
	}
	return nil
}
