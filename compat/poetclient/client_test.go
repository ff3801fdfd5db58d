// Package poetclient lets the published PoET client's code talk to our server,
// which runs as a process of its own: its generated gRPC stubs, and the
// REST/JSON sequence of the node's HTTP client (reference/poet.md 1.7). What
// the server answers is judged by the published verifier.
package poetclient

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spacemeshos/merkle-tree"
	"github.com/spacemeshos/poet/hash"
	api "github.com/spacemeshos/poet/release/proto/go/rpc/api/v1"
	"github.com/spacemeshos/poet/shared"
	"github.com/spacemeshos/poet/verifier"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// binary builds the program once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "poetclient")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tweedle")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/tweedle")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building tweedle: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

type endpoints struct{ GRPC, REST string }

// serve runs `tweedle poet` with the reference's flags until the test ends.
// Rounds: 3 s for registration, then 4 s of work.
func serve(t *testing.T, flags ...string) endpoints {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range flags { // the caller's comes last and counts
		if given, ok := strings.CutPrefix(f, "--datadir="); ok {
			dir = given
		}
	}
	args := append([]string{"poet",
		"--genesis-time=" + time.Now().UTC().Format(time.RFC3339), "--epoch-duration=6s", "--phase-shift=3s", "--cycle-gap=2s",
		"--datadir=" + dir, "--rpclisten=127.0.0.1:0", "--restlisten=127.0.0.1:0", "--config-rpclisten=127.0.0.1:0",
		"--pow-difficulty=4", "--lps=78000", "--memory=26", "--max-leaves-per-second=2000"}, flags...)
	cmd := exec.Command(path, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-exited:
			if err != nil {
				t.Errorf("the server ended with %v\n%s", err, &log)
			}
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("the server does not stop\n%s", &log)
		}
	})
	var e endpoints
	for wait := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(dir, "endpoints.json")); err == nil && json.Unmarshal(b, &e) == nil {
			return e
		}
		if time.Now().After(wait) {
			t.Fatalf("the server does not start\n%s", &log)
		}
	}
}

// smesher is a member of the round.
type smesher struct {
	key       ed25519.PrivateKey
	challenge []byte
}

func newSmesher(i byte) smesher {
	return smesher{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, ed25519.SeedSize)), bytes.Repeat([]byte{i ^ 0xaa}, 32)}
}

func (s smesher) id() []byte { return s.key.Public().(ed25519.PublicKey) }

// request is what the published client sends; with a proof of work, unless
// cert is given.
func (s smesher) request(t *testing.T, pow *api.PowParams, cert *shared.OpaqueCert) *api.SubmitRequest {
	t.Helper()
	prefix := []byte("a network's prefix")
	r := &api.SubmitRequest{
		Prefix: prefix, Challenge: s.challenge, Pubkey: s.id(),
		Signature: ed25519.Sign(s.key, slices.Concat(prefix, s.challenge)),
		Deadline:  timestamppb.New(time.Now().Add(time.Hour)),
	}
	if cert != nil {
		r.Certificate = &api.SubmitRequest_Certificate{Data: cert.Data, Signature: cert.Signature}
		return r
	}
	nonce, err := shared.FindSubmitPowNonce(t.Context(), pow.GetChallenge(), s.challenge, s.id(), uint(pow.GetDifficulty()))
	if err != nil {
		t.Fatal(err)
	}
	r.Nonce, r.PowParams = nonce, pow
	return r
}

// judge verifies a proof with the published code, from the members up.
func judge(t *testing.T, out *api.ProofResponse, members ...smesher) {
	t.Helper()
	slices.SortFunc(members, func(a, b smesher) int { return bytes.Compare(a.id(), b.id()) })
	tree, err := merkle.NewTreeBuilder().WithHashFunc(shared.HashMembershipTreeNode).Build()
	if err != nil {
		t.Fatal(err)
	}
	if got := len(out.GetProof().GetMembers()); got != len(members) {
		t.Fatalf("%d members in the proof, want %d", got, len(members))
	}
	for i, m := range out.GetProof().GetMembers() {
		if !bytes.Equal(m, members[i].challenge) {
			t.Fatalf("member %d is %x, want %x", i, m, members[i].challenge)
		}
		if err := tree.AddLeaf(m); err != nil {
			t.Fatal(err)
		}
	}
	statement := tree.Root()
	p := out.GetProof().GetProof()
	proof := shared.MerkleProof{Root: p.GetRoot(), ProvenLeaves: p.GetProvenLeaves(), ProofNodes: p.GetProofNodes()}
	err = verifier.Validate(proof, hash.GenLabelHashFunc(statement), hash.GenMerkleHashFunc(statement), out.GetProof().GetLeaves(), shared.T)
	if err != nil {
		t.Fatalf("the published verifier rejects the proof: %v", err)
	}
	proof.ProvenLeaves[7][3] ^= 1
	if verifier.Validate(proof, hash.GenLabelHashFunc(statement), hash.GenMerkleHashFunc(statement), out.GetProof().GetLeaves(), shared.T) == nil {
		t.Fatal("the judge takes anything")
	}
	t.Logf("the published verifier takes the proof of %d leaves for %d members", out.GetProof().GetLeaves(), len(members))
}

// The published gRPC stubs: register, wait, fetch, verify.
func TestThePublishedStubs(t *testing.T) {
	t.Parallel()
	e := serve(t)
	conn, err := grpc.NewClient(e.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := api.NewPoetServiceClient(conn)
	info, err := client.Info(t.Context(), &api.InfoRequest{})
	if err != nil || len(info.GetServicePubkey()) != 32 || info.GetPhaseShift().AsDuration() != 3*time.Second || info.GetCycleGap().AsDuration() != 2*time.Second {
		t.Fatalf("info %v, %v", info, err)
	}
	params, err := client.PowParams(t.Context(), &api.PowParamsRequest{})
	if err != nil || params.GetPowParams().GetDifficulty() != 4 {
		t.Fatalf("parameters %v, %v", params, err)
	}
	a, b, c := newSmesher(1), newSmesher(2), newSmesher(3)
	var round string
	for _, s := range []smesher{a, b, c, a} { // the last again: no harm
		out, err := client.Submit(t.Context(), s.request(t, params.GetPowParams(), nil))
		if err != nil {
			t.Fatal(err)
		}
		if end := out.GetRoundEnd().AsDuration(); end <= 0 || end > 8*time.Second {
			t.Fatalf("the round ends in %v", end)
		}
		round = out.GetRoundId()
	}
	changed := newSmesher(1)
	changed.challenge = bytes.Repeat([]byte{9}, 32)
	if _, err := client.Submit(t.Context(), changed.request(t, params.GetPowParams(), nil)); status.Code(err) != codes.AlreadyExists {
		t.Fatalf("another challenge of the same key: %v", err)
	}
	for wait := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		out, err := client.Proof(t.Context(), &api.ProofRequest{RoundId: round})
		if err == nil {
			if !bytes.Equal(out.GetPubkey(), info.GetServicePubkey()) {
				t.Fatal("the proof names another server")
			}
			judge(t, out, a, b, c)
			return
		}
		if status.Code(err) != codes.NotFound || time.Now().After(wait) {
			t.Fatal(err)
		}
	}
}

// errors that the node's HTTP client tells apart.
var (
	errNotFound     = errors.New("not found")
	errInvalid      = errors.New("invalid request")
	errUnauthorized = errors.New("unauthorized")
)

// httpClient does what the node's HTTP client does: protojson both ways,
// unknown fields ignored, statuses told apart as that client tells them apart.
type httpClient struct{ base string }

func (c httpClient) do(ctx context.Context, method, path string, in, out proto.Message) error {
	var body io.Reader
	if in != nil {
		b, err := protojson.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	switch res.StatusCode {
	case http.StatusOK:
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, out)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", errNotFound, data)
	case http.StatusBadRequest:
		return fmt.Errorf("%w: %s", errInvalid, data)
	case http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", errUnauthorized, data)
	default:
		return fmt.Errorf("status %d: %s", res.StatusCode, data)
	}
}

// The node's REST sequence: info, register with a certificate, poll, verify;
// and the statuses that it branches on.
func TestTheNodesRESTSequence(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	e := serve(t, "--certifier-url=http://certifier.example", "--certifier-pubkey="+base64.StdEncoding.EncodeToString(public))
	c := httpClient{"http://" + e.REST}
	var info api.InfoResponse
	if err := c.do(t.Context(), http.MethodGet, "/v1/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	if info.GetCertifier().GetUrl() != "http://certifier.example" || !bytes.Equal(info.GetCertifier().GetPubkey(), public) {
		t.Fatalf("info %v", &info)
	}
	var params api.PowParamsResponse
	if err := c.do(t.Context(), http.MethodGet, "/v1/pow_params", nil, &params); err != nil {
		t.Fatal(err)
	}
	certify := func(s smesher, expiry time.Time, key ed25519.PrivateKey) *shared.OpaqueCert {
		data, err := shared.EncodeCert(&shared.Cert{Pubkey: s.id(), Expiration: &expiry})
		if err != nil {
			t.Fatal(err)
		}
		return &shared.OpaqueCert{Data: data, Signature: ed25519.Sign(key, data)}
	}
	certified, worked, forger := newSmesher(4), newSmesher(5), newSmesher(6)
	var out api.SubmitResponse
	for name, try := range map[string]struct {
		request *api.SubmitRequest
		want    error
	}{
		"forged certificate":  {forger.request(t, nil, certify(forger, time.Now().Add(time.Hour), forger.key)), errUnauthorized},
		"expired certificate": {forger.request(t, nil, certify(forger, time.Now().Add(-time.Hour), private)), errUnauthorized},
		"another's":           {forger.request(t, nil, certify(worked, time.Now().Add(time.Hour), private)), errUnauthorized},
		"no proof of work":    {forger.request(t, &api.PowParams{}, nil), errInvalid},
		"late deadline": {func() *api.SubmitRequest {
			r := forger.request(t, params.GetPowParams(), nil)
			r.Deadline = timestamppb.Now()
			return r
		}(), errInvalid},
	} {
		if err := c.do(t.Context(), http.MethodPost, "/v1/submit", try.request, &out); !errors.Is(err, try.want) {
			t.Errorf("%s: %v, want %v", name, err, try.want)
		}
	}
	if err := c.do(t.Context(), http.MethodPost, "/v1/submit", certified.request(t, nil, certify(certified, time.Now().Add(time.Hour), private)), &out); err != nil {
		t.Fatal(err)
	}
	if err := c.do(t.Context(), http.MethodPost, "/v1/submit", worked.request(t, params.GetPowParams(), nil), &out); err != nil {
		t.Fatal(err)
	}
	var proof api.ProofResponse
	for wait := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		err := c.do(t.Context(), http.MethodGet, "/v1/proofs/"+out.GetRoundId(), nil, &proof)
		if err == nil {
			break
		}
		if !errors.Is(err, errNotFound) || time.Now().After(wait) {
			t.Fatal(err)
		}
	}
	judge(t, &proof, certified, worked)
}
