//go:build linux

package network

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// screen is what `tweedle node status --json` prints, as far as a smesher is judged by it.
type screen struct {
	Node struct {
		Layer, Epoch int
	}
	Smesher *struct {
		LastATX *int `json:"last_atx"`
		Poets   []struct{ URL, Round, Trouble string }
		Earned  struct {
			Layers  int
			Smidges uint64
			Last    int `json:"last_layer"`
		}
	}
}

// look reads the screen of a node, as JSON and in words; false while it does not answer.
func look(t *testing.T, program, dir string) (s screen, words string, answers bool) {
	t.Helper()
	r := execute(t, nil, program, "node", "status", "--dir", dir, "--json")
	if r.exit != 0 {
		return s, "", false
	}
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || s.Smesher == nil {
		t.Fatalf("%v: %s", err, r.out)
	}
	told := execute(t, nil, program, "node", "status", "--dir", dir)
	return s, told.out, told.exit == 0
}

// The README's path: a clean clone, its first command, the lines that it shows, and the line
// that joins, as they stand there. A node of one's own earns its first reward within 4 minutes
// of network time after genesis.
func TestTheREADMEsPath(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: it builds a clean clone and takes four minutes; set TWEEDLE_NIGHTLY=1")
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	clone := filepath.Join(home, "tweedle")
	if r := execute(t, nil, "git", "clone", "--quiet", "../..", clone); r.exit != 0 {
		t.Fatalf("no clone: %s", r.err)
	}
	env := append(os.Environ(), "HOME="+home, "MAKEFLAGS=", "MAKELEVEL=")
	for _, name := range []string{"GOCACHE", "GOPATH", "GOMODCACHE"} { // with another home, what is built and fetched stays where it is
		env = append(env, name+"="+strings.TrimSpace(execute(t, nil, "go", "env", name).out))
	}
	shell := func(line string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir, cmd.Env = clone, env
		return cmd
	}
	run := func(line string) string {
		t.Helper()
		var stderr bytes.Buffer
		cmd := shell(line)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s%s", line, err, out, &stderr)
		}
		return strings.TrimSpace(string(out))
	}
	run("make build") // compiling is not network time
	testnet := launch(t, shell("exec make testnet ARGS=--plain"))
	t.Cleanup(func() {
		_ = shell("bin/tweedle testnet down").Run()
		select {
		case <-testnet.done: // make ends by itself
		case <-time.After(stopTime):
		}
		if err := testnet.stop(); err != nil {
			t.Errorf("the testnet ended with %v: %s", err, &testnet.stderr)
		}
	})
	for deadline := time.Now().Add(startTime); ; time.Sleep(poll) {
		var s status
		if out, err := shell("bin/tweedle testnet status --json").Output(); err == nil && json.Unmarshal(out, &s) == nil && s.complete() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the testnet is not up after %v: %s", startTime, &testnet.stderr)
		}
	}
	// Line by line, as the README has them.
	line := func(begins string) string {
		t.Helper()
		m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(begins) + `[^#\n]*`).FindString(string(readme))
		if m == "" {
			t.Fatalf("the README has no line that begins with %s", begins)
		}
		return strings.TrimSpace(m)
	}
	account := run(line("bin/tweedle wallet new"))
	settings := line(`eval "$(bin/tweedle testnet env`)
	joins := strings.Split(run("bin/tweedle testnet env"), "\n")
	join := strings.TrimPrefix(joins[len(joins)-1], "# ")
	mine := launch(t, shell("exec "+join))
	t.Cleanup(func() {
		if err := mine.stop(); err != nil {
			t.Errorf("the node that joined ended with %v: %s", err, &mine.stderr)
		}
	})
	if got := run(settings + "\n" + line("bin/tweedle wallet balance")); !strings.HasSuffix(got, "SMH") {
		t.Errorf("the faucet has %q", got)
	}
	sent := run(settings + "\n" + strings.Replace(line("bin/tweedle wallet send"), "ADDRESS", account, 1))
	if !strings.Contains(sent, "applied in layer") {
		t.Errorf("a transaction ended with %q", sent)
	}
	if got := run(settings + "\nbin/tweedle wallet balance -k me.key --node $TWEEDLE_GRPC"); got != "10SMH" {
		t.Errorf("the wallet has %q", got)
	}
	const patience, layer = 4 * time.Minute, 2 * time.Second // of the README's network
	last, began := int(patience/layer), time.Now()
	for ; ; time.Sleep(poll) {
		s, words, answers := look(t, filepath.Join(clone, "bin/tweedle"), filepath.Join(clone, "my-node"))
		if answers && s.Smesher.Earned.Layers > 0 {
			t.Logf("the first reward, of %d smidges, is of layer %d: %v after genesis", s.Smesher.Earned.Smidges, s.Smesher.Earned.Last, time.Duration(s.Smesher.Earned.Last)*layer)
			if !strings.Contains(words, "rewards   ") || strings.Contains(words, "none yet") {
				t.Errorf("the screen does not tell of it:\n%s", words)
			}
			return
		}
		select {
		case <-mine.done:
			t.Fatalf("the node ended: %v: %s", mine.err, &mine.stderr)
		default:
		}
		if s.Node.Layer > last || time.Since(began) > 2*patience {
			t.Fatalf("no reward by layer %d:\n%s\n%s", s.Node.Layer, words, &mine.stderr)
		}
	}
}

// How the PoET between a smesher and the real one behaves.
const (
	honest = iota
	hangs
	lies
	gone
)

// A smesher whose one PoET hangs, then lies, then is gone, and at last is well again. Its screen
// says each time what is wrong and in whose words, before the epoch is lost, and what it costs
// once it is; nothing of it lasts.
func TestASmesherIsToldOfItsPoET(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: it takes eight epochs of a testnet; set TWEEDLE_NIGHTLY=1")
	}
	n := up(t, "--nodes", "3", "--poets", "1", "--max-leaves-per-second", strconv.Itoa(leavesPerSecond))
	s := n.waitUp(t)
	at := readTiming(t, s)
	real, err := url.Parse("http://" + s.Poets[0].REST)
	if err != nil {
		t.Fatal(err)
	}
	var way atomic.Int32
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := way.Load()
		switch now {
		case hangs:
			<-r.Context().Done()
			return
		case gone:
			panic(http.ErrAbortHandler) // the connection ends without a word
		}
		out, err := http.NewRequestWithContext(r.Context(), r.Method, real.String()+r.URL.RequestURI(), r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		out.Header = r.Header.Clone()
		res, err := http.DefaultClient.Do(out)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if now == lies { // what it promises it does not sign, and what it proves is of other leaves
			b = regexp.MustCompile(`"leaves":"\d+"`).ReplaceAll(b, []byte(`"leaves":"123456"`))
			b = regexp.MustCompile(`"(roundId|round_id)":"\d+"`).ReplaceAll(b, []byte(`"$1":"77"`))
		}
		for name, values := range res.Header {
			if name != "Content-Length" {
				w.Header()[name] = values
			}
		}
		w.WriteHeader(res.StatusCode)
		_, _ = w.Write(b) // the smesher has gone
	}))
	defer between.Close()
	defer between.CloseClientConnections()

	join := strings.Split(strings.TrimSpace(n.do(t, "env")), "\n")
	line := strings.ReplaceAll(strings.TrimPrefix(join[len(join)-1], "# "), real.String(), between.URL)
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Dir = t.TempDir()
	dir := filepath.Join(cmd.Dir, "my-node")
	mine := launch(t, cmd)
	t.Cleanup(func() {
		way.Store(gone)
		if err := mine.stop(); err != nil {
			t.Errorf("the smesher ended with %v: %s", err, &mine.stderr)
		}
	})
	// until waits for so many epochs until the screen says something.
	until := func(epochs int, what string, done func(screen, string) bool) (screen, string) {
		t.Helper()
		end := 0
		for ; ; time.Sleep(poll) {
			s, words, answers := look(t, programs.tweedle, dir)
			if answers && done(s, words) {
				t.Logf("layer %d of epoch %d, %s:\n%s", s.Node.Layer, s.Node.Epoch, what, words)
				return s, words
			}
			if answers && end == 0 {
				end = s.Node.Layer + epochs*at.epoch
			}
			if end > 0 && s.Node.Layer > end {
				t.Fatalf("the screen does not say within %d epochs that %s:\n%s\n%s", epochs, what, words, &mine.stderr)
			}
			n.mustRun(t)
		}
	}
	published := func(s screen, _ string) bool { return s.Smesher.LastATX != nil && *s.Smesher.LastATX >= s.Node.Epoch }
	until(patience, "an ATX is published", published)
	for _, c := range []struct {
		way   int32
		name  string
		cause *regexp.Regexp
	}{
		{hangs, "hangs", regexp.MustCompile(`it cannot be used now: .*(no answer in time|did not answer|does not answer)`)},
		{lies, "lies", regexp.MustCompile(`it cannot be used now: .*\w`)},
		{gone, "is gone", regexp.MustCompile(`it cannot be used now: .*(without an answer|cut off|nobody listens)`)},
	} {
		way.Store(c.way)
		_, words := until(patience, "the PoET "+c.name+", and why", func(s screen, words string) bool { return c.cause.MatchString(words) })
		if raw := regexp.MustCompile(`rpc error|context deadline|dial tcp|json:|invalid character|\bEOF\b`); raw.MatchString(words) {
			t.Errorf("a library's error on the screen:\n%s", words)
		}
		// It is said while something can still be done, and what it costs when that is over.
		until(patience, "the PoET "+c.name+", and what it costs", func(s screen, words string) bool {
			return regexp.MustCompile(`none for epoch \d+, so nothing is earned in epoch \d+`).MatchString(words)
		})
		way.Store(honest)
		until(patience, "after the PoET "+c.name+" it is well again", published)
	}
	if err := mine.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the smesher does not run any more: %v", err)
	}
}
