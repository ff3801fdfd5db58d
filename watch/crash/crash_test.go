package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// dieVariable makes the test binary a program that dies in one of its ways.
const dieVariable = "CRASH_TEST_DIE"

func TestMain(m *testing.M) {
	if how := os.Getenv(dieVariable); how != "" {
		die(how)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// die is what the supervised programs of the tests do.
func die(how string) {
	how, quiet := strings.CutSuffix(how, "-unreported")
	if path := os.Getenv(CrashFileVariable); !quiet && path != "" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			panic(err)
		}
		if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
			panic(err)
		}
	}
	fmt.Println("a line of the log; token=abcdef123456")
	switch how {
	case "panic":
		done := make(chan struct{})
		go func() { defer close(done); inner(nil) }()
		<-done
		time.Sleep(time.Minute)
	case "segfault":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		time.Sleep(time.Minute)
	case "overflow":
		debug.SetMaxStack(1 << 20)
		fmt.Println(overflow(1))
	case "map":
		concurrentWrites()
	case "exit":
		os.Exit(1)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	case "memory":
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = byte(i)
			}
			all = append(all, b)
			_ = all
		}
	case "wait":
		time.Sleep(time.Hour)
	case "second": // dies once
		path := filepath.Join(os.Getenv("CRASH_TEST_DIR"), "died")
		if _, err := os.Stat(path); err == nil {
			time.Sleep(time.Hour)
		}
		_ = os.WriteFile(path, nil, 0o600)
		inner(nil)
	}
}

//go:noinline
func inner(m map[string]int) { m["password=hunter22"] = 1 }

func overflow(n int) int { return n + overflow(n+1) }

func concurrentWrites() {
	m := map[int]int{}
	for range 8 {
		go func() {
			for i := 0; ; i++ {
				m[i%7] = i
			}
		}()
	}
	time.Sleep(time.Minute)
}

// taker is a sink that remembers.
type taker struct {
	mu     sync.Mutex
	fail   bool
	alerts []Alert
	times  []time.Time
}

func (t *taker) Take(_ context.Context, alerts []Alert) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fail {
		return errors.New("not now")
	}
	for _, a := range alerts {
		if !a.Renewed {
			t.alerts, t.times = append(t.alerts, a), append(t.times, time.Now())
		}
	}
	return nil
}

func (t *taker) all() []Alert {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Alert(nil), t.alerts...)
}

func (t *taker) setFail(yes bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fail = yes
}

func supervisor(t *testing.T, how string, change func(*Config)) *Supervisor {
	t.Helper()
	t.Setenv(dieVariable, how)
	cfg := Config{Name: "node-1", Network: "net", Command: []string{os.Args[0], "--admin-token", "s3cret-of-flag"}, Dir: t.TempDir(), Once: true}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each way to die is told with its reason and what the program said, whether the
// runtime could write its report or not.
func TestEachDeathIsTold(t *testing.T) {
	for _, c := range []struct {
		how     string
		reason  Reason
		message string
		stack   string // a function of it
	}{
		{"panic", Panic, "assignment to entry in nil map", "crash.inner"},
		{"panic-unreported", Panic, "assignment to entry in nil map", "crash.inner"},
		{"segfault", Fatal, "SIGSEGV", "goroutine"},
		{"overflow", Fatal, "stack overflow", "crash.overflow"},
		{"map", Fatal, "concurrent map writes", "crash.concurrentWrites"},
		{"exit", Exit, "exit status 1", ""},
		{"kill", Signal, "killed from outside: killed", ""},
	} {
		t.Run(c.how, func(t *testing.T) {
			to := &taker{}
			s := supervisor(t, c.how, func(cfg *Config) {
				cfg.Tell = []Sink{to}
				cfg.Status = func(context.Context) (string, *uint32) { return "", nil }
			})
			if err := s.Run(t.Context()); !errors.Is(err, ErrEnded) {
				t.Fatalf("Run returned %v", err)
			}
			events, err := s.events.list()
			if err != nil || len(events) != 1 {
				t.Fatalf("%d events, %v", len(events), err)
			}
			e := events[0]
			if e.Reason != c.reason || !strings.Contains(e.Message, c.message) || !strings.Contains(e.Stack, c.stack) || e.Told == nil {
				t.Errorf("reason %s, message %q, told %v, stack:\n%.400s", e.Reason, e.Message, e.Told, e.Stack)
			}
			if c.stack != "" && e.Hash == "" {
				t.Error("no hash")
			}
			alerts := to.all()
			if len(alerts) != 1 {
				t.Fatalf("%d alerts", len(alerts))
			}
			b, _ := json.Marshal([]any{alerts, e})
			for _, secret := range []string{"abcdef123456", "s3cret-of-flag"} {
				if strings.Contains(string(b), secret) {
					t.Errorf("%s is told: %s", secret, b)
				}
			}
			if alerts[0].Labels["name"] != "node-1" || alerts[0].Labels["net"] != "net" || alerts[0].Annotations["version"] == "" {
				t.Errorf("alert %v", alerts[0])
			}
			if got := strings.Join(e.Log, "\n"); !strings.Contains(got, "a line of the log") || strings.Contains(got, "goroutine ") {
				t.Errorf("log %q", got)
			}
		})
	}
}

// The same fault has the same hash in two processes, another one has another.
func TestHashNamesTheFault(t *testing.T) {
	hash := func(how string) string {
		s := supervisor(t, how, nil)
		if err := s.Run(t.Context()); !errors.Is(err, ErrEnded) {
			t.Fatal(err)
		}
		events, _ := s.events.list()
		return events[0].Hash
	}
	a, b, other := hash("panic"), hash("panic"), hash("overflow")
	if a != b || a == other || a == "" {
		t.Errorf("hashes %q, %q, %q", a, b, other)
	}
}

// What nobody took is told by the next supervisor, and the file is there before the
// program is started again.
func TestUntoldDeathsOutliveTheSupervisor(t *testing.T) {
	to := &taker{fail: true}
	dir := t.TempDir()
	change := func(cfg *Config) { cfg.Tell, cfg.Dir = []Sink{to}, dir }
	s := supervisor(t, "panic", change)
	if err := s.Run(t.Context()); !errors.Is(err, ErrEnded) {
		t.Fatal(err)
	}
	if len(to.all()) != 0 {
		t.Fatal("a failing sink took something")
	}
	to.setFail(false)
	s = supervisor(t, "wait", change)
	if n := s.untold(); n != 1 {
		t.Fatalf("%d events wait", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := to.all(); len(got) != 1 || got[0].Labels["reason"] != "panic" || s.untold() != 0 {
		t.Errorf("alerts %v, %d wait", got, s.untold())
	}
}

// A program that dies is started again, and its alert ends once it is healthy.
func TestDeathIsResolvedWhenTheProgramIsBack(t *testing.T) {
	to := &taker{}
	dir := t.TempDir()
	t.Setenv("CRASH_TEST_DIR", dir)
	s := supervisor(t, "second", func(cfg *Config) {
		cfg.Once, cfg.Healthy, cfg.Dir, cfg.Tell = false, 200*time.Millisecond, dir, []Sink{to}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	waitFor(t, func() bool { return len(to.all()) == 2 })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	got := to.all()
	if !got[0].EndsAt.After(to.times[0]) || got[1].EndsAt.After(to.times[1]) || got[0].Labels["crash"] != got[1].Labels["crash"] {
		t.Errorf("alerts %v", got)
	}
	if events, _ := s.events.list(); len(events) != 1 || events[0].BackTold == nil {
		t.Errorf("events %v", events)
	}
}

// A loop is one alert that says so, after the alerts of the first deaths.
func TestLoopIsOneAlert(t *testing.T) {
	to := &taker{}
	s := supervisor(t, "exit", func(cfg *Config) { cfg.Once, cfg.Tell = false, []Sink{to} })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	waitFor(t, func() bool { // five deaths: 0.5 + 1 + 2 + 4 s of waiting
		events, _ := s.events.list()
		return len(events) == 5
	})
	cancel()
	<-ended
	count := map[string]int{}
	for _, a := range to.all() {
		count[a.Labels["alertname"]]++
	}
	if count["NodeCrashed"] != loopCrashes-1 || count["NodeCrashLooping"] != 1 {
		t.Errorf("alerts %v", count)
	}
}

// The program does not outlive a supervisor that is killed, and ends in order with
// one that is asked to end.
func TestProgramEndsWithItsSupervisor(t *testing.T) {
	s := supervisor(t, "wait", func(cfg *Config) { cfg.Once = false })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if events, _ := s.events.list(); len(events) != 0 {
		t.Errorf("a wanted end is told: %v", events[0])
	}
}

// Both sinks send what their readers expect, and an answer that is no success is a
// failure.
func TestSinks(t *testing.T) {
	var bodies []string
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&b)
		bodies = append(bodies, r.URL.Path+" "+r.Header.Get("Authorization")+" "+string(b))
		w.WriteHeader(status)
	}))
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := Alert{Labels: map[string]string{"alertname": "NodeCrashed"}, StartsAt: time.Now(), EndsAt: time.Now().Add(time.Hour)}
	am := Alertmanager{URL: server.URL, TokenFile: token, Client: server.Client()}
	if err := am.Take(t.Context(), []Alert{a}); err != nil {
		t.Fatal(err)
	}
	hook := Webhook{URL: server.URL + "/hook", Client: server.Client()}
	if err := hook.Take(t.Context(), []Alert{a}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(bodies[0], "/api/v2/alerts Bearer open sesame [{") || !strings.Contains(bodies[1], `"status":"firing"`) {
		t.Errorf("sent %q", bodies)
	}
	status = http.StatusInternalServerError
	if err := hook.Take(t.Context(), []Alert{a}); err == nil {
		t.Error("a failure was taken for success")
	}
}

func TestSecretsAreStripped(t *testing.T) {
	text := `--token=aaaaaa Bearer bbbbbbb https://user:cccccc@host/ password: dddddd https://hooks.slack.com/services/eeeeee
https://api.telegram.org/bot1234567:ffffffffffffffffffffffffff/send https://discord.com/api/webhooks/1/gggggg "api_key":"hhhhhh" iiiiii
-----BEGIN PRIVATE KEY-----
jjjjjj
-----END PRIVATE KEY-----
an ordinary line of height 42`
	got := strip(text, []string{"iiiiii"})
	for _, c := range "abcdefghij" {
		if strings.Contains(got, strings.Repeat(string(c), 6)) {
			t.Errorf("secret %c stays: %s", c, got)
		}
	}
	if !strings.Contains(got, "an ordinary line of height 42") {
		t.Errorf("too much is gone: %s", got)
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if what() {
			return
		}
	}
	t.Fatal("it did not happen")
}
