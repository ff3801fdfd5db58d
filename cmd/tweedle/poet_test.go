package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"tweedle/base/telemetry"
	"tweedle/protocol/registration"
)

// The reference's flags, as `poet --help` of v0.10.10 lists them.
func referenceFlags() []string {
	return []string{
		"genesis-time", "poetdir", "configfile", "datadir", "dbdir", "logdir", "debuglog", "jsonlog", "maxlogfiles", "maxlogfilesize",
		"config-rpclisten", "rpclisten", "restlisten", "metrics-port", "max-grpc-resp-size", "cpuprofile", "profile", "epoch-duration",
		"phase-shift", "cycle-gap", "pow-difficulty", "max-round-members", "max-submit-batch-size", "submit-flush-interval", "certifier-url",
		"certifier-pubkey", "trusted-pub-keys-dir-path", "lps", "memory", "tree-file-buffer", "disable-worker", "version",
	}
}

func TestEveryFlagOfTheReferenceIsTaken(t *testing.T) {
	fl := poetCommand().Flags()
	for _, name := range referenceFlags() {
		if fl.Lookup(name) == nil {
			t.Errorf("--%s is missing", name)
		}
	}
	for short, long := range map[string]string{"c": "configfile", "b": "datadir", "r": "rpclisten", "w": "restlisten"} {
		if f := fl.ShorthandLookup(short); f == nil || f.Name != long {
			t.Errorf("-%s is not --%s", short, long)
		}
	}
	fl.VisitAll(func(f *pflag.Flag) {
		if f.Usage == "" {
			t.Errorf("--%s has no help", f.Name)
		}
	})
}

// settled runs a poet command up to the point where the server would start.
func settled(t *testing.T, args ...string) (*poetFlags, error) {
	t.Helper()
	f := &poetFlags{}
	cmd := poetCommand()
	cmd.ResetFlags()
	f.registerTime(cmd)
	f.registerReference(cmd)
	f.registerOurs(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return nil, err
	}
	if err := settle(cmd); err != nil {
		return nil, err
	}
	if err := readINI(cmd, f); err != nil {
		return nil, err
	}
	return f, f.complete(cmd)
}

func TestTheReferencesFileIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "poet.conf")
	text := "; a comment\n[Application Options]\ngenesis-time=2023-07-14T08:00:00.000Z\nepoch-duration=336h\nphase-shift=240h\n" +
		"cycle-gap = 12h\njsonlog=true\npow-difficulty=20\nmetrics-port=2222\ndebuglog\n# more\n[Service]\nmemory=26\nlps=\"78000\"\n" +
		"datadir=/somewhere\nrpclisten=10.0.0.1:1\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TWEEDLE_POET_CYCLE_GAP", "11h")
	f, err := settled(t, "-c", path, "--rpclisten=10.0.0.2:2", "--gateway", "a:1", "--gateway", "b:2")
	if err != nil {
		t.Fatal(err)
	}
	s := f.cfg.Poet.Schedule
	switch {
	case s.EpochDuration != 336*time.Hour || s.PhaseShift != 240*time.Hour || !s.Genesis.Equal(time.Date(2023, 7, 14, 8, 0, 0, 0, time.UTC)):
		t.Errorf("schedule %+v", s)
	case s.CycleGap != 11*time.Hour:
		t.Errorf("the environment does not come before the file: gap %v", s.CycleGap)
	case f.cfg.GRPC != "10.0.0.2:2":
		t.Errorf("a flag does not come before the file: %s", f.cfg.GRPC)
	case !f.json || !f.debug || f.cfg.Poet.PowDifficulty != 20 || f.cfg.Metrics != ":2222" || f.cfg.Poet.Dir != "/somewhere":
		t.Errorf("settings %+v", f)
	case !slices.Equal(f.cfg.Gateways, []string{"a:1", "b:2"}):
		t.Errorf("gateways %v", f.cfg.Gateways)
	}
}

func TestWrongSettingsAreMistakesOfUse(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		path := filepath.Join(dir, "poet.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	genesis := "--genesis-time=2026-01-01T00:00:00Z"
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "needs --network, or --genesis-time"},
		{[]string{"--genesis-time=noon"}, "is not a time like"},
		{[]string{genesis, "--cycle-gap=1h", "--epoch-duration=1h"}, "longer than the cycle gap"},
		{[]string{genesis, "--network-id=12"}, "40 hexadecimal digits"},
		{[]string{genesis, "--certifier-pubkey=abc"}, "--certifier-pubkey"},
		{[]string{genesis, "--nonsense"}, "unknown flag"},
		{[]string{genesis, "extra"}, "unknown command"},
		{[]string{genesis, "--network=x"}, "leave it out"},
		{[]string{genesis, "--disable-worker"}, "executes its rounds itself"},
		{[]string{"--configfile=" + file("genesis-time=2026-01-01T00:00:00Z\nfoo=1\n")}, `line 2: "foo" is not a setting`},
	} {
		if got := refused(t, true, append([]string{"poet"}, c.args...)...); !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.args, got, c.want)
		}
	}
	for _, text := range []string{"epoch-duration=long\n", "[Open\n", "=5\n"} {
		refused(t, true, "poet", "--configfile="+file(text))
	}
	refused(t, false, "poet", "--configfile="+filepath.Join(dir, "missing"))
	refused(t, false, "poet", "--network="+filepath.Join(dir, "missing"))
	t.Setenv(poetKeyVar, "c2VjcmV0IGtleQ==")
	if got := refused(t, false, "poet", genesis); !strings.Contains(got, poetKeyVar) || strings.Contains(got, "c2Vj") {
		t.Errorf("a wrong key: %s", got)
	}
}

// poetServer runs the command on a data directory until stop is called.
func poetServer(t *testing.T, dir string, args ...string) (e telemetry.Endpoints, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	root := rootCommand()
	root.SetArgs(append(poetArgs(dir), args...))
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	for wait := time.Now().Add(20 * time.Second); e.REST == ""; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(dir, telemetry.EndpointsFile)); err == nil {
			_ = json.Unmarshal(b, &e) // the file appears whole
		}
		if time.Now().After(wait) {
			t.Fatalf("the server does not start: %v", stop())
		}
	}
	return e, stop
}

// poetArgs is the command of a server whose round is open for a day.
func poetArgs(dir string) []string {
	return []string{"poet", "--dir", dir, "--genesis-time=" + time.Now().UTC().Truncate(24*time.Hour).Format(time.RFC3339), "--epoch-duration=48h",
		"--phase-shift=36h", "--cycle-gap=1m", "-r", "127.0.0.1:0", "-w", "127.0.0.1:0", "--adminlisten=127.0.0.1:0", "--memory=26"}
}

// The command as people use it: it runs, announces itself, is steered by the
// admin commands, and goes away with its context.
func TestAServerIsSteeredFromTheCommandLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "poet")
	e, stop := poetServer(t, dir, "--adminlisten", "unix:"+filepath.Join(t.TempDir(), "s"))
	res, err := http.Get("http://" + e.REST + "/v1/info")
	if err != nil || res.StatusCode != http.StatusOK || e.PID != os.Getpid() {
		t.Fatalf("%v %v %+v", res, err, e)
	}
	res.Body.Close()
	if got := refused(t, false, "poet", "--dir", t.TempDir(), "--genesis-time=2026-01-01T00:00:00Z", "--ballast-bytes=65536", "-r", "127.0.0.1:0", "-w", e.REST, "--adminlisten=127.0.0.1:0"); !strings.Contains(got, "--restlisten") {
		t.Errorf("a port in use: %s", got)
	}
	if got := refused(t, false, "poet", "--dir", dir, "--genesis-time=2026-01-01T00:00:00Z", "-r", "127.0.0.1:0", "-w", "127.0.0.1:0", "--adminlisten=127.0.0.1:0"); !strings.Contains(got, dir) {
		t.Errorf("a directory in use: %s", got)
	}
	steer(t, dir)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := refused(t, false, "poet", "gateways", "list", "--dir", dir); !strings.Contains(got, "no PoET server runs") {
		t.Error(got)
	}
}

// A killed server leaves its address behind; by now nobody has it, or another
// server with another token. The operator is told that theirs does not run.
func TestAnAddressThatWasLeftBehindIsNoServer(t *testing.T) {
	other, dead := filepath.Join(t.TempDir(), "other"), filepath.Join(t.TempDir(), "dead")
	e, _ := poetServer(t, other)
	_, stop := poetServer(t, dead)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, admin := range []string{e.Admin, "127.0.0.1:1", "unix:" + filepath.Join(dead, "socket")} {
		b, err := json.Marshal(telemetry.Endpoints{Admin: admin, PID: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dead, telemetry.EndpointsFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		want := "no PoET server runs in " + dead + ", its endpoints.json is left from one that was killed: start it with `tweedle poet --dir " + dead + "`"
		if got := refused(t, false, "poet", "gateways", "list", "--dir", dead); !strings.Contains(got, want) {
			t.Errorf("%s: %s", admin, got)
		}
	}
}

// Who listens by now where a killed server did is not shown its token.
func TestATokenIsNotShownToAStranger(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "poet")
	_, stop := poetServer(t, dir)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	asked := make(chan struct{}, 1)
	go func() {
		if c, err := stranger.Accept(); err == nil {
			asked <- struct{}{}
			_ = c.Close() // it is enough that it came
		}
	}()
	b, err := json.Marshal(telemetry.Endpoints{Admin: stranger.Addr().String(), PID: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, telemetry.EndpointsFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, false, "poet", "rounds", "--dir", dir)
	select {
	case <-asked:
		t.Error("it is connected to")
	default:
	}
}

func steer(t *testing.T, dir string) {
	t.Helper()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"gateways", "set", "127.0.0.1:1", "127.0.0.1:2"}, "127.0.0.1:2"},
		{[]string{"gateways", "add", "127.0.0.1:3"}, "127.0.0.1:3"},
		{[]string{"gateways", "list"}, "LAST ERROR"},
		{[]string{"gateways", "list", "--json"}, `"source":`},
		{[]string{"gateways", "remove", "127.0.0.1:1"}, "127.0.0.1:2"},
		{[]string{"proofs", "list"}, "KEPT BY"},
		{[]string{"proofs", "list", "--json", "--undelivered"}, `"proofs":`},
		{[]string{"rounds"}, "open"},
		{[]string{"rounds", "reopen"}, "open"},
		{[]string{"reload-keys"}, "were read"},
		{[]string{"storage"}, "rounds that fit"},
		{[]string{"storage", "--json"}, `"rounds_that_fit":`},
	} {
		if got := mustTweedle(t, append(append([]string{"poet"}, c.args...), "--dir", dir)...); !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.args, got, c.want)
		}
	}
	for _, c := range []struct {
		usage bool
		args  []string
		want  string
	}{
		{false, []string{"gateways", "add", "nonsense"}, "host:port"},
		{false, []string{"gateways", "set", "a:1", "b"}, "host:port"},
		{false, []string{"gateways", "remove", "127.0.0.1:9"}, "not a gateway"},
		{false, []string{"proofs", "rebroadcast", "7"}, "proof of round 7: not found"},
		{true, []string{"proofs", "rebroadcast"}, "ROUND"},
		{true, []string{"gateways", "add"}, "ADDRESS"},
		{true, []string{"gateways", "set"}, "ADDRESS"},
	} {
		if got := refused(t, c.usage, append(append([]string{"poet"}, c.args...), "--dir", dir)...); !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.args, got, c.want)
		}
	}
	refused(t, true, "poet", "gateways", "list")
}

func TestTheBenchTellsItsFigures(t *testing.T) {
	if got := mustTweedle(t, "poet", "bench", "--seconds=0.05", "--keep=4"); !strings.Contains(got, "leaves per second of one core") {
		t.Error(got)
	}
	var f struct {
		Leaves     uint64  `json:"leaves"`
		CPUSeconds float64 `json:"cpu_seconds"`
	}
	if err := json.Unmarshal([]byte(mustTweedle(t, "poet", "bench", "--seconds=0.05", "--keep=4", "--json")), &f); err != nil || f.Leaves == 0 || f.CPUSeconds == 0 {
		t.Errorf("%+v, %v", f, err)
	}
	refused(t, true, "poet", "bench", "--seconds=-1")
	refused(t, true, "poet", "bench", "--keep=99")
}

// Every command of the PoET shows an example.
func TestEveryPoetCommandShowsAnExample(t *testing.T) {
	for _, c := range append(poetCommand().Commands(), poetGateways().Commands()...) {
		if c.Example == "" && !c.HasSubCommands() && c.Name() != "help" && c.Name() != "completion" {
			t.Errorf("%s has no example", c.CommandPath())
		}
	}
}

func FuzzINI(f *testing.F) {
	f.Add("a=b\n[x]\n; c\nd : \"e\"\nf\n")
	f.Fuzz(func(t *testing.T, text string) {
		pairs, err := parseINI(text)
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, p := range pairs {
			if p.key == "" || strings.ContainsAny(p.key, "\n=") {
				t.Fatalf("key %q", p.key)
			}
			again.WriteString(p.key + "=\"" + p.value + "\"\n")
		}
		back, err := parseINI(again.String())
		if err != nil || len(back) > len(pairs) {
			t.Fatalf("%v became %v", pairs, back)
		}
	})
}

// fetch makes one request on a connection of its own.
func fetch(t *testing.T, method, url string, body []byte) (status int, reply []byte) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	reply, err = io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, reply
}

// register registers a smesher and returns the round.
func register(t *testing.T, base string) (round string) {
	t.Helper()
	var pow struct {
		PowParams struct{ Challenge []byte }
	}
	if status, b := fetch(t, "GET", base+"/v1/pow_params", nil); status != http.StatusOK || json.Unmarshal(b, &pow) != nil {
		t.Fatalf("%d %s", status, b)
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public, challenge := key.Public().(ed25519.PublicKey), bytes.Repeat([]byte{7}, 32)
	nonce, _ := registration.SolvePow(registration.PowParams{Challenge: pow.PowParams.Challenge}, public, challenge, 1)
	text := base64.StdEncoding.EncodeToString
	body := fmt.Sprintf(`{"nonce":"%d","powParams":{"challenge":%q},"challenge":%q,"pubkey":%q,"signature":%q}`,
		nonce, text(pow.PowParams.Challenge), text(challenge), text(public), text(ed25519.Sign(key, challenge)))
	var out struct{ RoundID string }
	if status, b := fetch(t, "POST", base+"/v1/submit", []byte(body)); status != http.StatusOK || json.Unmarshal(b, &out) != nil {
		t.Fatalf("%d %s", status, b)
	}
	return out.RoundID
}

// A profile takes the place of a profile, and of nothing that is only compressed too.
func TestAProfileReplacesAProfileOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profile")
	for range 2 {
		stop, err := startProfile(path)
		if err != nil {
			t.Fatal(err)
		}
		stop()
	}
	var backup bytes.Buffer
	w := gzip.NewWriter(&backup)
	if _, err := w.Write([]byte("identity.key")); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{backup.Bytes(), backup.Bytes()[:5], []byte("x")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if stop, err := startProfile(path); err == nil {
			stop()
			t.Fatalf("%q is replaced", content)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content) {
			t.Fatalf("%q has become %q, %v", content, b, err)
		}
	}
}
