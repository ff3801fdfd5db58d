package door

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/proofs/posw"
	"tweedle/services/poet/rounds"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

type submitReply struct {
	RoundID  string `json:"roundId"`
	RoundEnd string `json:"roundEnd"`
	Receipt  struct {
		RoundID       string `json:"roundId"`
		Pubkey        []byte `json:"pubkey"`
		Challenge     []byte `json:"challenge"`
		Time          string `json:"time"`
		ServicePubkey []byte `json:"servicePubkey"`
		Signature     []byte `json:"signature"`
	} `json:"receipt"`
}

type proofReply struct {
	Proof struct {
		Proof struct {
			Root         []byte   `json:"root"`
			ProvenLeaves [][]byte `json:"provenLeaves"`
			ProofNodes   [][]byte `json:"proofNodes"`
		} `json:"proof"`
		Members [][]byte `json:"members"`
		Leaves  string   `json:"leaves"`
	} `json:"proof"`
	Pubkey []byte `json:"pubkey"`
}

// The way of a smesher over REST (reference/poet.md 1.7): ask for the work,
// register, poll until 404 becomes 200, verify; then what only we have: the
// receipt, the membership proof, the immutable proof.
func TestASmesherRegistersWaitsFetchesAndVerifies(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir, testSchedule(), nil)
		var info map[string]any
		if code := r.get("/v1/info", &info); code != http.StatusOK || info["phaseShift"] != "2s" || info["cycleGap"] != "2s" || info["certifier"] != nil {
			t.Fatalf("info %d %v", code, info)
		}
		var receipts []submitReply
		for i := range 3 {
			code, b, _ := r.call(http.MethodPost, "/v1/submit", encode(t, r.submission(i)))
			var s submitReply
			if err := json.Unmarshal(b, &s); err != nil || code != http.StatusOK || s.RoundID != "0" || !strings.HasSuffix(s.RoundEnd, "s") {
				t.Fatalf("submit %d %s", code, b)
			}
			receipts = append(receipts, s)
		}
		if code, b, _ := r.call(http.MethodGet, "/v1/proofs/0", nil); code != http.StatusNotFound {
			t.Fatalf("before its end the proof answers %d %s", code, b)
		}
		var p proofReply
		for deadline := time.Now().Add(10 * time.Second); r.get("/v1/proofs/0", &p) != http.StatusOK; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the proof does not come")
			}
		}
		statement := verifyReply(t, p)
		for _, s := range receipts {
			checkReceipt(t, s)
			checkMembership(t, r, s, statement)
		}
		checkSameOverGRPC(t, r, p)
		checkCaching(t, r)
	})
}

// verifyReply does what a node does, and returns the statement.
func verifyReply(t *testing.T, p proofReply) [32]byte {
	t.Helper()
	var members [][32]byte
	for _, m := range p.Proof.Members {
		members = append(members, [32]byte(m))
	}
	if len(members) != 3 {
		t.Fatalf("%d members, want 3", len(members))
	}
	proof := types.PoetProof{Root: [32]byte(p.Proof.Proof.Root)}
	for _, l := range p.Proof.Proof.ProvenLeaves {
		proof.Leaves = append(proof.Leaves, [32]byte(l))
	}
	for _, n := range p.Proof.Proof.ProofNodes {
		proof.Nodes = append(proof.Nodes, [32]byte(n))
	}
	if err := json.Unmarshal([]byte(p.Proof.Leaves), &proof.NumLeaves); err != nil {
		t.Fatal(err)
	}
	statement := merkle.Root(members)
	if err := posw.Verify(statement[:], &proof, 1); err != nil {
		t.Fatal(err)
	}
	return statement
}

func checkReceipt(t *testing.T, s submitReply) {
	t.Helper()
	var ms int64
	if err := json.Unmarshal([]byte(s.Receipt.Time), &ms); err != nil {
		t.Fatal(err)
	}
	receipt := types.PoetReceipt{
		Round: s.Receipt.RoundID, NodeID: types.NodeID(s.Receipt.Pubkey), Challenge: [32]byte(s.Receipt.Challenge),
		Time: time.UnixMilli(ms), PoetID: types.NodeID(s.Receipt.ServicePubkey), Signature: types.Signature(s.Receipt.Signature),
	}
	if !receipt.Verify() {
		t.Fatalf("the receipt does not verify: %+v", receipt)
	}
}

func checkMembership(t *testing.T, r *rig, s submitReply, statement [32]byte) {
	t.Helper()
	var m struct {
		Challenge, Root []byte
		Index, Members  string
		Path            [][]byte
	}
	if code := r.get("/v1/rounds/0/members/"+hex.EncodeToString(s.Receipt.Pubkey), &m); code != http.StatusOK {
		t.Fatalf("member answers %d", code)
	}
	var index, members uint64
	_ = json.Unmarshal([]byte(cmpOr(m.Index, "0")), &index)
	_ = json.Unmarshal([]byte(m.Members), &members)
	var path [][32]byte
	for _, n := range m.Path {
		path = append(path, [32]byte(n))
	}
	if !bytes.Equal(m.Challenge, s.Receipt.Challenge) || [32]byte(m.Root) != statement {
		t.Fatalf("member %+v", m)
	}
	if err := merkle.Verify(statement, [32]byte(m.Challenge), index, members, path); err != nil {
		t.Fatal(err)
	}
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func checkSameOverGRPC(t *testing.T, r *rig, p proofReply) {
	t.Helper()
	out, err := poetpb.NewPoetServiceClient(r.grpc).Proof(t.Context(), &poetpb.ProofRequest{RoundId: "0"})
	if err != nil {
		t.Fatal(err)
	}
	got := out.GetProof()
	if !bytes.Equal(got.GetProof().GetRoot(), p.Proof.Proof.Root) || !bytes.Equal(out.GetPubkey(), p.Pubkey) ||
		!slices.EqualFunc(got.GetMembers(), p.Proof.Members, bytes.Equal) ||
		!slices.EqualFunc(got.GetProof().GetProofNodes(), p.Proof.Proof.ProofNodes, bytes.Equal) {
		t.Fatal("gRPC and REST give different proofs")
	}
}

func checkCaching(t *testing.T, r *rig) {
	t.Helper()
	_, body, h := r.call(http.MethodGet, "/v1/proofs/0", nil)
	etag := h.Get("ETag")
	if etag == "" || !strings.Contains(h.Get("Cache-Control"), "immutable") || h.Get("Content-Type") != "application/json" {
		t.Fatalf("header of a proof: %v", h)
	}
	for _, tag := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		if code, b, _ := r.call(http.MethodGet, "/v1/proofs/0", nil, "If-None-Match", tag); code != http.StatusNotModified || len(b) != 0 {
			t.Fatalf("If-None-Match %s: %d with %d bytes", tag, code, len(b))
		}
	}
	if code, again, _ := r.call(http.MethodGet, "/v1/proofs/0", nil, "If-None-Match", `"other"`); code != http.StatusOK || !bytes.Equal(again, body) {
		t.Fatalf("another tag: %d, same body %v", code, bytes.Equal(again, body))
	}
	if _, _, h := r.call(http.MethodGet, "/v1/proofs/1", nil); h.Get("Cache-Control") != "" {
		t.Fatal("a proof that is not there yet would be cached as such")
	}
}

// Each bad input gets its status and one line, and nothing is stored.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		schedule := testSchedule()
		schedule.PhaseShift, schedule.EpochDuration = time.Hour, 2*time.Hour
		r := newRig(t, dir, schedule, func(_ *rounds.Config, c *Config) { c.Limits.PerKey = 0 })
		bend := func(change func(m map[string]any)) []byte {
			m := r.submission(0)
			change(m)
			return encode(t, m)
		}
		if code, b, _ := r.call(http.MethodPost, "/v1/submit", encode(t, r.submission(1))); code != http.StatusOK {
			t.Fatalf("a good registration answers %d %s", code, b)
		}
		for _, c := range []struct {
			name   string
			method string
			path   string
			body   []byte
			status int
			code   codes.Code
		}{
			{"no JSON", "POST", "/v1/submit", []byte("{"), 400, codes.InvalidArgument},
			{"no base64", "POST", "/v1/submit", []byte(`{"challenge":"***"}`), 400, codes.InvalidArgument},
			{"a number for a string", "POST", "/v1/submit", []byte(`{"challenge":7}`), 400, codes.InvalidArgument},
			{"empty body", "POST", "/v1/submit", nil, 400, codes.InvalidArgument},
			{"challenge of 31 bytes", "POST", "/v1/submit", bend(func(m map[string]any) { m["challenge"] = make([]byte, 31) }), 400, codes.InvalidArgument},
			{"challenge of 33 bytes", "POST", "/v1/submit", bend(func(m map[string]any) { m["challenge"] = make([]byte, 33) }), 400, codes.InvalidArgument},
			{"key of 31 bytes", "POST", "/v1/submit", bend(func(m map[string]any) { m["pubkey"] = make([]byte, 31) }), 400, codes.InvalidArgument},
			{"wrong signature", "POST", "/v1/submit", bend(func(m map[string]any) { m["signature"] = make([]byte, 64) }), 400, codes.InvalidArgument},
			{"another prefix", "POST", "/v1/submit", bend(func(m map[string]any) { m["prefix"] = []byte("other") }), 400, codes.InvalidArgument},
			{"no proof of work", "POST", "/v1/submit", bend(func(m map[string]any) { delete(m, "powParams") }), 400, codes.InvalidArgument},
			{"an empty PoW challenge", "POST", "/v1/submit", bend(func(m map[string]any) { m["powParams"] = map[string]any{"difficulty": 2} }), 400, codes.InvalidArgument},
			{"hint of 3 bytes", "POST", "/v1/submit", bend(func(m map[string]any) { m["certificatePubkeyHint"] = []byte{1, 2, 3} }), 400, codes.InvalidArgument},
			{"deadline in no year", "POST", "/v1/submit", bend(func(m map[string]any) { m["deadline"] = "yesterday" }), 400, codes.InvalidArgument},
			{"deadline before the end", "POST", "/v1/submit", bend(func(m map[string]any) { m["deadline"] = schedule.Genesis.Format(time.RFC3339) }), 400, codes.FailedPrecondition},
			{"oversized body", "POST", "/v1/submit", append([]byte(`{"prefix":"`), bytes.Repeat([]byte("A"), 1<<20)...), 413, codes.ResourceExhausted},
			{"unknown round", "GET", "/v1/proofs/999999", nil, 404, codes.NotFound},
			{"a round that is no number", "GET", "/v1/proofs/x", nil, 404, codes.NotFound},
			{"a negative round", "GET", "/v1/proofs/-1", nil, 404, codes.NotFound},
			{"a very long round", "GET", "/v1/proofs/" + strings.Repeat("9", 5000), nil, 404, codes.NotFound},
			{"member with a short key", "GET", "/v1/rounds/0/members/abcd", nil, 400, codes.InvalidArgument},
			{"member of an open round", "GET", "/v1/rounds/0/members/" + strings.Repeat("00", 32), nil, 404, codes.NotFound},
			{"wrong method, as the reference answers it", "GET", "/v1/submit", nil, 501, codes.Unimplemented},
			{"unknown path", "GET", "/v2/submit", nil, 404, codes.NotFound},
		} {
			code, b, _ := r.call(c.method, c.path, c.body)
			var e struct {
				Code    codes.Code `json:"code"`
				Message string     `json:"message"`
			}
			if err := json.Unmarshal(b, &e); err != nil || code != c.status || e.Code != c.code || e.Message == "" || strings.Contains(e.Message, "\n") {
				t.Errorf("%s: %d %s, want %d with code %d and one line", c.name, code, b, c.status, c.code)
			}
			if n := r.open(); n != 1 {
				t.Fatalf("%s: the round has %d members, want 1", c.name, n)
			}
		}
		checkConflict(t, r)
		checkOversizedOverGRPC(t, r)
	})
}

// The same registration again is fine; another challenge of the same key is
// refused.
func checkConflict(t *testing.T, r *rig) {
	t.Helper()
	if code, b, _ := r.call(http.MethodPost, "/v1/submit", encode(t, r.submission(1))); code != http.StatusOK {
		t.Fatalf("the same again: %d %s", code, b)
	}
	client := poetpb.NewPoetServiceClient(r.grpc)
	m := r.submission(1)
	key := smesherKey(1)
	challenge := bytes.Repeat([]byte{77}, 32)
	m = r.resign(m, key, challenge)
	_, err := client.Submit(t.Context(), &poetpb.SubmitRequest{
		Nonce: m["nonce"].(uint64), PowParams: &poetpb.PowParams{Challenge: r.service.PowParams().Challenge, Difficulty: uint32(r.service.PowParams().Difficulty)},
		Prefix: []byte("network"), Challenge: challenge, Pubkey: m["pubkey"].([]byte), Signature: m["signature"].([]byte),
	})
	if status.Code(err) != codes.AlreadyExists {
		t.Fatalf("another challenge of the same key: %v", err)
	}
	if n := r.open(); n != 1 {
		t.Fatalf("the round has %d members, want 1", n)
	}
}

func checkOversizedOverGRPC(t *testing.T, r *rig) {
	t.Helper()
	client := poetpb.NewPoetServiceClient(r.grpc)
	_, err := client.Submit(t.Context(), &poetpb.SubmitRequest{Prefix: make([]byte, 1<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("oversized message: %v", err)
	}
	_, err = client.Proof(t.Context(), &poetpb.ProofRequest{RoundId: strings.Repeat("9", 10000)})
	if status.Code(err) != codes.NotFound {
		t.Fatalf("very long round: %v", err)
	}
}

func TestServerDescribesItself(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir, testSchedule(), func(_ *rounds.Config, c *Config) { c.CertifierURL = "https://certifier.example" })
		var doc struct {
			Paths map[string]any `json:"paths"`
		}
		r.get("/openapi.json", &doc)
		for _, p := range []string{"/v1/pow_params", "/v1/submit", "/v1/info", "/v1/proofs/{roundId}", "/v1/rounds/{roundId}/members/{pubkey}"} {
			if doc.Paths[p] == nil {
				t.Errorf("the OpenAPI document lacks %s", p)
			}
		}
		var v struct{ Version string }
		if r.get("/version", &v); v.Version != "test" {
			t.Errorf("version %q", v.Version)
		}
		if code, b, _ := r.call(http.MethodGet, "/healthz", nil); code != http.StatusOK || string(b) != "ok\n" {
			t.Errorf("health %d %s", code, b)
		}
		h, err := healthpb.NewHealthClient(r.grpc).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("gRPC health %v %v", h, err)
		}
		info, err := poetpb.NewPoetServiceClient(r.grpc).Info(context.Background(), &poetpb.InfoRequest{})
		if err != nil || info.GetCertifier().GetUrl() != "https://certifier.example" || len(info.GetServicePubkey()) != 32 {
			t.Errorf("info %v %v", info, err)
		}
	})
}
