package door

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"tweedle/edges/api/doortest"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/services/poet/delivery"
	"tweedle/services/poet/rounds"
	"tweedle/services/poet/work"
)

// fuzzPublic is the public API on a real service whose round is open for long.
func fuzzPublic(f *testing.F) (*rig, *public) {
	f.Helper()
	schedule := testSchedule()
	schedule.PhaseShift, schedule.EpochDuration = time.Hour, 2*time.Hour
	s, err := rounds.Open(rounds.Config{Dir: f.TempDir(), Schedule: schedule, Work: work.Config{LeavesPerSecond: 500}, BallastBytes: 1 << 16, PowDifficulty: 40})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	cfg := Config{Limits: DefaultLimits(), Schedule: schedule}
	cfg.Limits.PerKey, cfg.Limits.Rate = 0, 0
	return &rig{service: s}, newPublic(s, cfg)
}

// Whatever comes over REST: no panic, an answer that a client understands, and
// nothing stored, since nobody guesses forty bits of work.
func FuzzREST(f *testing.F) {
	r, p := fuzzPublic(f)
	rest, err := p.rest()
	if err != nil {
		f.Fatal(err)
	}
	h := p.guard.HTTP(rest).Handler // it makes a panic a 500
	f.Add("POST", "/v1/submit", []byte(`{"challenge":"AAAA","pubkey":"AAAA","deadline":"2020-01-01T00:00:00Z"}`), "")
	f.Add("POST", "/v1/submit", []byte(`{"nonce":"18446744073709551615","powParams":{"difficulty":4294967295}}`), "")
	f.Add("GET", "/v1/proofs/0", []byte(nil), `"x", W/"y", *`)
	f.Add("GET", "/v1/rounds/0/members/00", []byte(nil), "")
	f.Add("GET", "/v1/info?x=%", []byte(nil), "")
	f.Add("PATCH", "/v1/%2e%2e//submit", []byte("{"), "")
	f.Fuzz(func(t *testing.T, method, path string, body []byte, tag string) {
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		req, err := http.NewRequest(method, "http://poet"+path, bytes.NewReader(body))
		if err != nil {
			t.Skip("not a request")
		}
		req.Header["If-None-Match"] = []string{tag}
		req.RemoteAddr = "192.0.2.1:5"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code == http.StatusOK && req.URL.Path == "/v1/submit" {
			t.Fatalf("%q was taken", body)
		}
		if w.Code >= 500 && w.Code != http.StatusNotImplemented {
			t.Fatalf("%s %q %q: %d %s", method, path, body, w.Code, w.Body)
		}
		if w.Code >= 400 && strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
			var e struct{ Message string }
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Message == "" {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
		if r.open() != 0 {
			t.Fatal("something was stored")
		}
	})
}

// Whatever comes over gRPC: no panic, a status that is not our fault, one line.
func FuzzSubmit(f *testing.F) {
	r, p := fuzzPublic(f)
	good, err := proto.Marshal(&poetpb.SubmitRequest{
		Nonce: 7, PowParams: &poetpb.PowParams{Difficulty: 40, Challenge: r.service.PowParams().Challenge}, Prefix: []byte("p"),
		Challenge: make([]byte, 32), Pubkey: make([]byte, 32), Signature: make([]byte, 64),
		Certificate: &poetpb.SubmitRequest_Certificate{Data: make([]byte, 40), Signature: make([]byte, 64)}, CertificatePubkeyHint: make([]byte, 4),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var in poetpb.SubmitRequest
		if proto.Unmarshal(raw, &in) != nil {
			t.Skip("gRPC refuses it already")
		}
		out, err := p.Submit(t.Context(), &in)
		switch code := status.Code(err); {
		case err == nil:
			t.Fatalf("taken: %v", out)
		case code != codes.InvalidArgument && code != codes.Unauthenticated && code != codes.FailedPrecondition:
			t.Fatalf("%v", err)
		case strings.Contains(status.Convert(err).Message(), "\n"):
			t.Fatalf("more than one line: %v", err)
		}
	})
}

// Whatever comes over gRPC to any other method, the operator's too: no panic, a status that
// is not our fault, one line.
func FuzzCalls(f *testing.F) {
	r, p := fuzzPublic(f)
	courier, err := delivery.Open(r.service.Book(), emptyShelf{}, delivery.DefaultConfig(), nil, delivery.Options{})
	if err != nil {
		f.Fatal(err)
	}
	a := &admin{backend: r.service, outbox: courier, log: slog.New(slog.DiscardHandler)}
	services := []doortest.Service{
		{Desc: &poetpb.PoetService_ServiceDesc, Impl: p}, {Desc: &poetadminpb.AdminService_ServiceDesc, Impl: a}, {Desc: &poetpb.ConfigurationService_ServiceDesc, Impl: a},
	}
	methods := doortest.Methods(services)
	for i := range methods {
		f.Add(uint8(i), []byte(nil))
	}
	add := func(method string, m proto.Message) {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(slices.Index(methods, method)), raw)
	}
	add(poetpb.PoetService_Proof_FullMethodName, &poetpb.ProofRequest{RoundId: "18446744073709551615"})
	add(poetpb.PoetService_Member_FullMethodName, &poetpb.MemberRequest{RoundId: "0", Pubkey: strings.Repeat("0", 64)})
	add(poetadminpb.AdminService_SetGateways_FullMethodName, &poetadminpb.SetGatewaysRequest{Addresses: []string{"h:1", "[::1]:2", "h:1"}})
	add(poetadminpb.AdminService_Rebroadcast_FullMethodName, &poetadminpb.RebroadcastRequest{RoundId: "0"})
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		method := methods[int(which)%len(methods)]
		if method == poetadminpb.AdminService_Backup_FullMethodName && len(raw) > 0 {
			t.Skip("it has no request, and copies a database")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := doortest.Call(ctx, services, method, raw); doortest.Blame(err) != "" {
			t.Fatalf("%s: %s", method, doortest.Blame(err))
		}
	})
}
