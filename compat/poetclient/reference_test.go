package poetclient

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	api "github.com/spacemeshos/poet/release/proto/go/rpc/api/v1"
	"github.com/spacemeshos/poet/shared"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// referenceBinary builds the published server once.
var referenceBinary = sync.OnceValues(func() (string, error) {
	path, err := binary() // its folder is removed at the end
	if err != nil {
		return "", err
	}
	path = filepath.Join(filepath.Dir(path), "reference")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/spacemeshos/poet").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the published server: %w\n%s", err, out)
	}
	return path, nil
})

// freeAddress is an address that nobody listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// serveReference runs the published server on dir; stop ends it in order.
func serveReference(t *testing.T, dir string, flags ...string) (rest string, stop func()) {
	t.Helper()
	path, err := referenceBinary()
	if err != nil {
		t.Fatal(err)
	}
	rest = freeAddress(t)
	cmd := exec.Command(path, append([]string{
		"--poetdir=" + dir, "--datadir=" + filepath.Join(dir, "data"), "--dbdir=" + filepath.Join(dir, "db"), "--logdir=" + filepath.Join(dir, "logs"),
		"--rpclisten=" + freeAddress(t), "--restlisten=" + rest, "--config-rpclisten=" + freeAddress(t), "--lps=1000", "--memory=10"}, flags...)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		kill := time.AfterFunc(15*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			t.Logf("the published server ended with %v", err)
		}
	})
	t.Cleanup(stop)
	for wait := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if res, err := http.Get("http://" + rest + "/v1/info"); err == nil {
			res.Body.Close()
			return rest, stop
		}
		if time.Now().After(wait) {
			stop()
			t.Fatalf("the published server does not start\n%s", &log)
		}
	}
}

// answer is what a server says over REST, as far as a client looks.
type answer struct {
	status int
	code   float64 // of the error, if it is one
	keys   []string
}

func ask(t *testing.T, base, method, path string, body []byte) answer {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+base+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: res.StatusCode}
	var m map[string]any
	if json.Unmarshal(b, &m) == nil {
		a.code, _ = m["code"].(float64)
		for k, v := range m {
			a.keys = append(a.keys, fmt.Sprintf("%s %T", k, v))
		}
	}
	slices.Sort(a.keys)
	return a
}

// The published server and ours get the same requests, good and bad, and
// answer alike: the same statuses, the same error codes, and every JSON field
// of the published one with its type.
func TestBothServersAnswerAlike(t *testing.T) {
	t.Parallel()
	genesis := "--genesis-time=" + time.Now().UTC().Format(time.RFC3339)
	times := []string{genesis, "--epoch-duration=2h", "--phase-shift=1h", "--cycle-gap=10m", "--pow-difficulty=4"}
	theirs, _ := serveReference(t, t.TempDir(), times...)
	ours := serve(t, times...).REST
	for name, try := range requests(t, theirs, ours) {
		want := ask(t, theirs, try.method, try.path, try.theirs)
		got := ask(t, ours, try.method, try.path, try.ours)
		if got.status != want.status || got.code != want.code {
			t.Errorf("%s: ours answers %d code %v, theirs %d code %v", name, got.status, got.code, want.status, want.code)
		}
		for _, k := range want.keys {
			if !slices.Contains(got.keys, k) {
				t.Errorf("%s: our answer has %v, theirs %v", name, got.keys, want.keys)
			}
		}
		t.Logf("%s: %d", name, got.status)
	}
}

type request struct {
	method, path string
	theirs, ours []byte
}

// requests makes every request twice, since each server wants its own proof of
// work.
func requests(t *testing.T, theirs, ours string) map[string]request {
	t.Helper()
	params := func(base string) *api.PowParams {
		var out api.PowParamsResponse
		if err := (httpClient{"http://" + base}).do(t.Context(), http.MethodGet, "/v1/pow_params", nil, &out); err != nil {
			t.Fatal(err)
		}
		return out.GetPowParams()
	}
	a, b := params(theirs), params(ours)
	submit := func(s smesher, bend func(*api.SubmitRequest)) request {
		r := request{method: http.MethodPost, path: "/v1/submit"}
		for _, x := range []struct {
			to  *[]byte
			pow *api.PowParams
		}{{&r.theirs, a}, {&r.ours, b}} {
			m := proto.CloneOf(s.request(t, x.pow, nil))
			m.Deadline = nil
			bend(m)
			raw, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			*x.to = raw
		}
		return r
	}
	same := func(method, path, body string) request {
		return request{method, path, []byte(body), []byte(body)}
	}
	s := newSmesher(50)
	return map[string]request{
		"good registration":      submit(s, func(*api.SubmitRequest) {}),
		"challenge of 31 bytes":  submit(s, func(m *api.SubmitRequest) { m.Challenge = m.Challenge[:31] }),
		"challenge of 33 bytes":  submit(s, func(m *api.SubmitRequest) { m.Challenge = append(m.Challenge, 1) }),
		"no challenge":           submit(s, func(m *api.SubmitRequest) { m.Challenge = nil }),
		"short key":              submit(s, func(m *api.SubmitRequest) { m.Pubkey = m.Pubkey[:31] }),
		"wrong signature":        submit(s, func(m *api.SubmitRequest) { m.Signature[5] ^= 1 }),
		"no signature":           submit(s, func(m *api.SubmitRequest) { m.Signature = nil }),
		"another prefix":         submit(s, func(m *api.SubmitRequest) { m.Prefix = []byte("x") }),
		"wrong nonce":            submit(newSmesher(51), func(m *api.SubmitRequest) { m.Nonce = wrongNonce(m) }),
		"no parameters":          submit(newSmesher(51), func(m *api.SubmitRequest) { m.PowParams = nil }),
		"other parameters":       submit(newSmesher(51), func(m *api.SubmitRequest) { m.PowParams.Difficulty++ }),
		"hint of 3 bytes":        submit(newSmesher(51), func(m *api.SubmitRequest) { m.CertificatePubkeyHint = []byte{1, 2, 3} }),
		"no JSON":                same(http.MethodPost, "/v1/submit", "{"),
		"wrong type":             same(http.MethodPost, "/v1/submit", `{"challenge":5}`),
		"no base64":              same(http.MethodPost, "/v1/submit", `{"challenge":"!"}`),
		"unknown field":          same(http.MethodPost, "/v1/submit", `{"nothing":1}`),
		"empty body":             same(http.MethodPost, "/v1/submit", ``),
		"wrong method":           same(http.MethodGet, "/v1/submit", ``),
		"wrong method for proof": same(http.MethodPost, "/v1/proofs/1", `{}`),
		"unknown path":           same(http.MethodGet, "/v1/nothing", ``),
		"unknown round":          same(http.MethodGet, "/v1/proofs/777", ``),
		"round of letters":       same(http.MethodGet, "/v1/proofs/abc", ``),
		"info":                   same(http.MethodGet, "/v1/info", ``),
		"parameters":             same(http.MethodGet, "/v1/pow_params", ``),
	}
}

func wrongNonce(m *api.SubmitRequest) uint64 {
	// The published check wants four zero bits: one of the next few fails.
	for n := m.GetNonce() + 1; ; n++ {
		hash := shared.NewPowHasher(m.GetPowParams().GetChallenge(), m.GetPubkey(), m.GetChallenge()).Hash(n, nil)
		if !shared.CheckLeadingZeroBits(hash, uint(m.GetPowParams().GetDifficulty())) {
			return n
		}
	}
}

// A published server's key and proof are taken over and served as it served them.
func TestTakingOverFromThePublishedServer(t *testing.T) {
	t.Parallel()
	old, dir := t.TempDir(), filepath.Join(t.TempDir(), "poet")
	times := []string{"--genesis-time=" + time.Now().UTC().Format(time.RFC3339), "--epoch-duration=6s", "--phase-shift=3s", "--cycle-gap=2s", "--pow-difficulty=4"}
	rest, stop := serveReference(t, old, times...)
	c := httpClient{"http://" + rest}
	var info api.InfoResponse
	var params api.PowParamsResponse
	if err := c.do(t.Context(), http.MethodGet, "/v1/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	if err := c.do(t.Context(), http.MethodGet, "/v1/pow_params", nil, &params); err != nil {
		t.Fatal(err)
	}
	var out api.SubmitResponse
	for _, s := range []smesher{newSmesher(60), newSmesher(61), newSmesher(62)} {
		if err := c.do(t.Context(), http.MethodPost, "/v1/submit", s.request(t, params.GetPowParams(), nil), &out); err != nil {
			t.Fatal(err)
		}
	}
	var want api.ProofResponse
	for wait := time.Now().Add(30 * time.Second); c.do(t.Context(), http.MethodGet, "/v1/proofs/"+out.GetRoundId(), nil, &want) != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(wait) {
			t.Fatal("the published server makes no proof")
		}
	}
	stop()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	before := tree(t, old)
	for range 2 { // an import may be repeated
		cmd := exec.Command(path, append([]string{"poet", "import", "--from-datadir=" + filepath.Join(old, "data"), "--from-dbdir=" + filepath.Join(old, "db"),
			"--dir=" + dir, "--json"}, times[:4]...)...)
		b, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(b), fmt.Sprintf("%x", info.GetServicePubkey())) {
			t.Fatalf("import: %v\n%s", err, b)
		}
		t.Logf("%s", b)
	}
	if after := tree(t, old); !reflect.DeepEqual(before, after) {
		t.Errorf("the import changed the published server's files:\n%v\n%v", before, after)
	}
	e := serve(t, append(times, "--datadir="+dir)...)
	ours := httpClient{"http://" + e.REST}
	var got api.ProofResponse
	if err := ours.do(t.Context(), http.MethodGet, "/v1/proofs/"+out.GetRoundId(), nil, &got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(&got, &want) {
		t.Fatal("the proof is not what the published server gave")
	}
	judge(t, &got, newSmesher(60), newSmesher(61), newSmesher(62))
	var after api.InfoResponse
	if err := ours.do(t.Context(), http.MethodGet, "/v1/info", nil, &after); err != nil || !bytes.Equal(after.GetServicePubkey(), info.GetServicePubkey()) {
		t.Fatalf("our server is %x, theirs was %x (%v)", after.GetServicePubkey(), info.GetServicePubkey(), err)
	}
}

// Drop-in, as an operator does it: the published server with a file and a command
// line, stopped in the middle of a round's registration, then ours with the same.
// Ours refuses to be another server there and names one command; after it the
// identity, the proofs and all members of the open round are the same.
func TestOursTakesThePlaceOfThePublishedServer(t *testing.T) {
	t.Parallel()
	reference, err := referenceBinary()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "an operator's")
	conf, rest := filepath.Join(t.TempDir(), "poet.conf"), freeAddress(t)
	text := fmt.Sprintf("[Application Options]\ngenesis-time = %s\npoetdir = %s\nrestlisten = %s\nrpclisten = %s\nconfig-rpclisten = %s\n[Round]\nepoch-duration = 12s\nphase-shift = 5s\ncycle-gap = 3s\n"+
		"[Registration]\npow-difficulty = 4\n[Service]\nlps = 1000\nmemory = 10\n", time.Now().UTC().Format(time.RFC3339), dir, rest, freeAddress(t), freeAddress(t))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	line := []string{"--configfile=" + conf, "--debuglog"}
	c := httpClient{"http://" + rest}
	// run starts a program with the operator's line; stop ends it in order.
	run := func(program string, args ...string) (stop func()) {
		t.Helper()
		cmd := exec.Command(program, append(args, line...)...)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop = sync.OnceFunc(func() {
			_ = cmd.Process.Signal(syscall.SIGINT)
			kill := time.AfterFunc(15*time.Second, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
			_ = cmd.Wait() // the published server's status says little
		})
		t.Cleanup(stop)
		for wait := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if res, err := http.Get("http://" + rest + "/v1/info"); err == nil {
				res.Body.Close()
				return stop
			}
			if time.Now().After(wait) {
				stop()
				t.Fatalf("%s does not start: %s", program, &log)
			}
		}
	}
	register := func(from, to int) (joined map[string][]smesher) {
		t.Helper()
		joined = map[string][]smesher{}
		var params api.PowParamsResponse
		if err := c.do(t.Context(), http.MethodGet, "/v1/pow_params", nil, &params); err != nil {
			t.Fatal(err)
		}
		for i := from; i < to; i++ {
			var out api.SubmitResponse
			if err := c.do(t.Context(), http.MethodPost, "/v1/submit", newSmesher(byte(i)).request(t, params.GetPowParams(), nil), &out); err != nil {
				t.Fatal(err)
			}
			joined[out.GetRoundId()] = append(joined[out.GetRoundId()], newSmesher(byte(i)))
		}
		return joined
	}
	proof := func(round string) *api.ProofResponse {
		t.Helper()
		var p api.ProofResponse
		for wait := time.Now().Add(60 * time.Second); c.do(t.Context(), http.MethodGet, "/v1/proofs/"+round, nil, &p) != nil; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(wait) {
				t.Fatalf("there is no proof of round %s", round)
			}
		}
		return &p
	}
	info := func() *api.InfoResponse {
		t.Helper()
		var out api.InfoResponse
		if err := c.do(t.Context(), http.MethodGet, "/v1/info", nil, &out); err != nil {
			t.Fatal(err)
		}
		return &out
	}

	stop := run(reference)
	early := register(80, 84)["0"]
	if len(early) != 4 {
		t.Fatalf("%d of 4 registered in round 0", len(early))
	}
	first := proof("0") // from second 14 on; round 1 is open until second 17
	waiting := register(100, 140)
	before := info()
	stop()

	cmd := exec.Command(ours, append([]string{"poet"}, line...)...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("ours starts as another server: %s", out)
	}
	_, advice, _ := strings.Cut(string(out), "`")
	advice, _, found := strings.Cut(advice, "`")
	if !found || !strings.HasPrefix(advice, "tweedle poet import ") {
		t.Fatalf("no command is named: %s", out)
	}
	shell := exec.Command("sh", "-c", advice)
	shell.Env = append(os.Environ(), "PATH="+filepath.Dir(ours)+":"+os.Getenv("PATH"))
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", advice, err, out)
	} else {
		t.Logf("%s\n%s", advice, out)
	}
	run(ours, "poet")
	if after := info(); !bytes.Equal(after.GetServicePubkey(), before.GetServicePubkey()) {
		t.Errorf("the server is %x, and was %x", after.GetServicePubkey(), before.GetServicePubkey())
	}
	if again := proof("0"); !proto.Equal(again, first) {
		t.Error("the proof of round 0 is another one")
	}
	judge(t, proof("0"), early...)
	for round, members := range waiting { // one, or two if a round closed meanwhile
		t.Logf("round %s has %d members from the published server", round, len(members))
		judge(t, proof(round), members...)
	}
}

// tree lists the files below a folder with their sizes.
func tree(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	files := map[string]int64{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			files[path] = info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
