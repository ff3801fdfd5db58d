package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the program under test, and a program that dies.
const (
	asWatch = "WATCH_TEST_MAIN"
	asDying = "WATCH_TEST_DIE"
)

func TestMain(m *testing.M) {
	if os.Getenv(asWatch) != "" && len(os.Args) > 1 {
		os.Exit(run(os.Args[1:]))
	}
	if os.Getenv(asDying) != "" {
		die()
	}
	os.Exit(m.Run())
}

// byDay is in `make test`. Then tests that wait for clocks run side by side; at night each
// has the machine for itself, as what they claim about times asks for.
func byDay() bool { return os.Getenv("TWEEDLE_NIGHTLY") == "" }

func sideBySide(t *testing.T) {
	if byDay() {
		t.Parallel()
	}
}

// die panics as soon as the file appears, once.
func die() {
	for path := os.Getenv(asDying); ; time.Sleep(20 * time.Millisecond) {
		if os.Remove(path) == nil {
			panic("the nodes are out of sessions")
		}
	}
}

// hook is a webhook that remembers alerts, and when they came.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	alerts []hookAlert
	refuse bool
}

type hookAlert struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	came        time.Time
}

func newHook(t *testing.T) *hook {
	h := &hook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Alerts []hookAlert `json:"alerts"`
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.refuse {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		if json.NewDecoder(r.Body).Decode(&body) == nil {
			for _, a := range body.Alerts {
				a.came = time.Now()
				h.alerts = append(h.alerts, a)
			}
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// find waits for an alert.
func (h *hook) find(t *testing.T, atMost time.Duration, what string, match func(hookAlert) bool) hookAlert {
	t.Helper()
	for end := time.Now().Add(atMost); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		h.mu.Lock()
		for _, a := range h.alerts {
			if match(a) {
				h.mu.Unlock()
				return a
			}
		}
		h.mu.Unlock()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Fatalf("no alert: %s; there are %v", what, h.alerts)
	return hookAlert{}
}

// start runs this binary as tweedle-watch until the test ends.
func start(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), asWatch+"=1"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("%s did not end", args[0])
		}
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%v:\n%s", args, b)
		}
	})
	return cmd
}

// watch starts a watch and returns its address and folder.
func watch(t *testing.T, dir, more string) (cmd *exec.Cmd, url string) {
	t.Helper()
	path := filepath.Join(dir, "watch.yml")
	text := "listen: 127.0.0.1:0\ndata: data\nnetwork: t\nscrape: 1s\nevaluate: 1s\n" + more
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	announce := filepath.Join(dir, "url")
	cmd = start(t, nil, "serve", "--config", path, "--announce", announce)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(announce); err == nil && len(b) > 0 {
			url = strings.TrimSpace(string(b))
			if resp, err := http.Get(url + "/api/v2/status"); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return cmd, url
				}
			}
		}
	}
	t.Fatal("the watch did not start")
	return nil, ""
}

// tellLimit is what a busy machine takes; a quiet one takes less than a second.
const tellLimit = 15 * time.Second

// Five programs crash at once: five alerts reach the webhook in time, each with name, version, reason and stack, and each is resolved when its program
// is back.
func TestCrashesReachTheWebhook(t *testing.T) {
	sideBySide(t)
	dir, to := t.TempDir(), newHook(t)
	_, url := watch(t, dir, "host: false\nnotify:\n- {kind: webhook, url: "+to.URL+"}\n")
	const programs = 5
	for i := range programs {
		name := fmt.Sprintf("node-%d", i+1)
		start(t, []string{asDying + "=" + filepath.Join(dir, name+".die")}, "run", "--name", name, "--network", "t", "--dir", filepath.Join(dir, name),
			"--watch", url, "--token-file", filepath.Join(dir, "data", "token"), "--healthy", "300ms", "--", os.Args[0])
	}
	time.Sleep(500 * time.Millisecond) // they run
	at := time.Now()
	for i := range programs {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("node-%d.die", i+1)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range programs {
		name := fmt.Sprintf("node-%d", i+1)
		a := to.find(t, 30*time.Second, name, func(a hookAlert) bool { return a.Labels["name"] == name && a.Status == "firing" })
		if a.Labels["alertname"] != "NodeCrashed" || a.Labels["reason"] != "panic" || a.Annotations["version"] == "" ||
			!strings.Contains(a.Annotations["stack"], "tweedle-watch.die") || !strings.Contains(a.Annotations["summary"], "out of sessions") {
			t.Errorf("alert %v", a)
		}
		t.Logf("%s was told after %s", name, a.came.Sub(at).Round(time.Millisecond))
		if took := a.came.Sub(at); took > tellLimit {
			t.Errorf("%s was told after %s", name, took)
		}
		to.find(t, 40*time.Second, name+" resolved", func(a hookAlert) bool { return a.Labels["name"] == name && a.Status == "resolved" })
		// The page still has what the supervisor told.
		if text := report(t, url, a.Annotations["event"]); !strings.Contains(text, name+" died at ") || !strings.Contains(text, "out of sessions") || !strings.Contains(text, "tweedle-watch.die") {
			t.Errorf("the report of %s is\n%s", name, text)
		}
	}
}

// report waits for the page's report of a death.
func report(t *testing.T, url, id string) string {
	t.Helper()
	for end := time.Now().Add(tellLimit); ; time.Sleep(100 * time.Millisecond) {
		resp, err := http.Get(url + "/crash/" + id)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK || time.Now().After(end) {
			return string(b)
		}
	}
}

// An alert that was told is told to be over, though another one explains it by then.
// One that was not told has no end either.
func TestTheEndOfWhatWasToldIsToldThoughAnotherAlertExplainsIt(t *testing.T) {
	sideBySide(t)
	dir, to := t.TempDir(), newHook(t)
	_, url := watch(t, dir, "host: false\nnotify:\n- {kind: webhook, url: "+to.URL+"}\n")
	token, err := os.ReadFile(filepath.Join(dir, "data", "token"))
	if err != nil {
		t.Fatal(err)
	}
	post := func(name, node string, end time.Time) {
		t.Helper()
		b, err := json.Marshal([]any{map[string]any{"labels": map[string]string{"alertname": name, "net": "t", "name": node, "severity": "page"}, "endsAt": end.UTC()}})
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest(http.MethodPost, url+"/api/v2/alerts", strings.NewReader(string(b)))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d", name, resp.StatusCode)
		}
	}
	told := func(status, name, node string) {
		t.Helper()
		for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			for _, a := range to.since(0) {
				if a.Status == status && a.Labels["alertname"] == name && a.Labels["name"] == node {
					return
				}
			}
		}
		t.Fatalf("it is not told that %s of %q is %s: %v", name, node, status, to.since(0))
	}
	later := time.Now().Add(time.Hour)
	post("LayerStalled", "node-1", later)
	told("firing", "LayerStalled", "node-1")
	post("NetworkStalled", "", later)
	told("firing", "NetworkStalled", "")
	post("SyncStuck", "node-2", later) // explained from the beginning
	post("LayerStalled", "node-1", time.Now())
	told("resolved", "LayerStalled", "node-1")
	post("SyncStuck", "node-2", time.Now())
	post("NetworkStalled", "", time.Now())
	told("resolved", "NetworkStalled", "")
	for _, a := range to.since(0) {
		if a.Labels["alertname"] == "SyncStuck" {
			t.Errorf("what another alert explained all the time was told: %v", a)
		}
	}
}

// What changes something needs the token; a silence holds. A watch that is killed keeps both its
// silences and what it has told. Debian's amtool and promtool can talk to it.
func TestSilencesAndWhatWasToldOutliveAKill(t *testing.T) {
	sideBySide(t)
	dir, to := t.TempDir(), newHook(t)
	more := "host: false\nnotify:\n- {kind: webhook, url: " + to.URL + "}\n"
	cmd, url := watch(t, dir, more)
	post := func(what, header string, body any) int {
		t.Helper()
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest(http.MethodPost, url+"/api/v2/"+what, strings.NewReader(string(b)))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", header)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	now := time.Now().UTC()
	silence := map[string]any{"matchers": []any{map[string]any{"name": "alertname", "value": "Silenced", "isRegex": false}},
		"startsAt": now, "endsAt": now.Add(time.Hour), "createdBy": "test", "comment": "c"}
	alerts := func(names ...string) (all []any) {
		for _, name := range names {
			all = append(all, map[string]any{"labels": map[string]string{"alertname": name, "net": "t", "severity": "page"}, "endsAt": now.Add(time.Hour)})
		}
		return all
	}
	for what, body := range map[string]any{"silences": silence, "alerts": alerts("Forged")} {
		for _, header := range []string{"", "Bearer wrong"} {
			if got := post(what, header, body); got != http.StatusUnauthorized {
				t.Errorf("%s with the token %q: %d", what, header, got)
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "data", "token"))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(b))
	if got := post("silences", "Bearer "+token, silence); got != http.StatusOK {
		t.Errorf("the right token: %d", got)
	}
	tool := func(want, name string, args ...string) bool {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Logf("NOT CHECKED: %s is not installed (Debian: prometheus, prometheus-alertmanager)", name)
			return false
		}
		out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s %v: %v: %s", name, args, err, out)
		}
		return true
	}
	withToken := strings.Replace(url, "http://", "http://me:"+token+"@", 1)
	byTool := tool("", "amtool", "--alertmanager.url", withToken, "silence", "add", "--comment", "c", "alertname=ByTool")
	tool("ByTool", "amtool", "--alertmanager.url", url, "silence", "query")
	tool(`"1"`, "promtool", "query", "instant", "-o", "json", url, "vector(1)")

	told := func(name string) (n int) {
		to.mu.Lock()
		defer to.mu.Unlock()
		for _, a := range to.alerts {
			if a.Labels["alertname"] == name {
				n++
			}
		}
		return n
	}
	is := func(name string) func(hookAlert) bool {
		return func(a hookAlert) bool { return a.Labels["alertname"] == name }
	}
	post("alerts", "Bearer "+token, alerts("Silenced", "ByTool", "Loud"))
	first := to.find(t, tellLimit, "what is not silenced", is("Loud"))
	// What was told is written every 15 s, a silence before it is acknowledged.
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if st, err := os.Stat(filepath.Join(dir, "data", "sent")); err == nil && st.ModTime().After(first.came) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("what was told is not written")
		}
	}
	tool("Loud", "amtool", "--alertmanager.url", url, "alert", "query")
	silence["matchers"] = []any{map[string]any{"name": "alertname", "value": "AtLast", "isRegex": false}}
	if got := post("silences", "Bearer "+token, silence); got != http.StatusOK {
		t.Errorf("the right token: %d", got)
	}
	_ = cmd.Process.Kill()
	_, _ = cmd.Process.Wait()
	_, url = watch(t, dir, more)
	post("alerts", "Bearer "+token, alerts("Silenced", "ByTool", "AtLast", "Loud")) // as those who raise alerts do again and again
	time.Sleep(time.Second)
	post("alerts", "Bearer "+token, alerts("Louder"))
	to.find(t, tellLimit, "what came last", is("Louder"))
	// The page shows the same.
	shown := map[string]string{}
	for end := time.Now().Add(tellLimit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		shown = alertsOfThePage(t, url)
		if _, last := shown["Louder"]; last {
			break
		}
	}
	for name, want := range map[string]string{"Silenced": "test", "AtLast": "test", "Loud": "", "Louder": ""} {
		if by, ok := shown[name]; !ok || by != want {
			t.Errorf("the page shows %v: %s is to be silenced by %q", shown, name, want)
		}
	}
	for name, want := range map[string]int{"Silenced": 0, "AtLast": 0, "Loud": 1, "Forged": 0} {
		if got := told(name); got != want {
			t.Errorf("%s was told %d times, not %d", name, got, want)
		}
	}
	if byTool && told("ByTool") != 0 {
		t.Error("what amtool silenced was told")
	}
}

// alertsOfThePage returns who silenced each alert that the page shows.
func alertsOfThePage(t *testing.T, url string) map[string]string {
	t.Helper()
	resp, err := http.Get(url + "/model")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var model struct {
		Alerts []struct {
			Name    string
			Silence struct{ By string }
		}
	}
	if resp.StatusCode == http.StatusOK { // else it has not looked yet
		if err := json.NewDecoder(resp.Body).Decode(&model); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string]string{}
	for _, a := range model.Alerts {
		out[a.Name] = a.Silence.By
	}
	return out
}

// A notifier that fails is shown by an alert; a wrong new configuration is told and
// changes nothing; the heartbeat comes while the rules work.
func TestFaultsOfTheWatchAreVisible(t *testing.T) {
	sideBySide(t)
	dir, to, broken := t.TempDir(), newHook(t), newHook(t)
	broken.refuse = true
	beats := make(chan struct{}, 1)
	heart := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case beats <- struct{}{}:
		default:
		}
	}))
	defer heart.Close()
	more := "host: false\nheartbeat: {url: " + heart.URL + ", every: 1s}\nnotify:\n- {kind: webhook, url: " + to.URL + "}\n- {kind: webhook, url: " + broken.URL + "}\n- {kind: webhook, url: \"http://127.0.0.1:1\"}\n"
	cmd, url := watch(t, dir, more)
	select {
	case <-beats:
	case <-time.After(30 * time.Second):
		t.Error("no heartbeat")
	}
	wrong := "rules: [own.yml]\n" + more
	if err := os.WriteFile(filepath.Join(dir, "own.yml"), []byte("groups:\n- name: a\n  rules:\n  - alert: A\n    expr: 1 +\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "watch.yml")
	if err := os.WriteFile(path, []byte("listen: 127.0.0.1:0\ndata: data\nnetwork: t\nscrape: 1s\nevaluate: 1s\n"+wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGHUP)
	to.find(t, 60*time.Second, "ConfigReloadFailed", func(a hookAlert) bool { return a.Labels["alertname"] == "ConfigReloadFailed" })
	for receiver, what := range map[string]string{"webhook-2": "refuses", "webhook-3": "cannot be reached"} {
		to.find(t, 90*time.Second, "AlertDeliveryFailing of who "+what, func(a hookAlert) bool {
			return a.Labels["alertname"] == "AlertDeliveryFailing" && a.Labels["receiver_name"] == receiver
		})
	}
	log, err := os.ReadFile(cmd.Stderr.(*os.File).Name())
	if err != nil || !regexp.MustCompile(`the old one stays.*own\.yml.*\b5:`).Match(log) {
		t.Errorf("the log does not say which rule is wrong, and where: %v: %s", err, log)
	}
	resp, err := http.Get(url + "/api/v1/query?query=up")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); !strings.Contains(string(text), `"name":"watch"`) {
		t.Errorf("query: %s", text)
	}
}

// The configuration that the watch makes is one that amtool takes, and the rules are
// those that promtool takes, with their unit tests.
func TestDebiansToolsTakeTheFiles(t *testing.T) {
	sideBySide(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "watch.yml")
	text := `notify:
- {kind: webhook, url: "http://127.0.0.1:1/hook"}
- {kind: slack, url: "https://hooks.slack.com/services/a", severity: page}
- {kind: discord, url: "https://discord.com/api/webhooks/1/a"}
- {kind: telegram, token: "1:a", chat: -100}
- {kind: email, to: a@example.com, from: b@example.com, server: "example.com:25", user: u, password: p, tls: "false"}
- {kind: pagerduty, key: k}
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	made := exec.CommandContext(ctx, os.Args[0], "export", "alertmanager", "--config", config)
	made.Env = append(os.Environ(), asWatch+"=1")
	out, err := made.Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "alertmanager.yml")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"amtool", "check-config", path}, {"promtool", "check", "rules"}, {"promtool", "test", "rules"}} {
		tool, err := exec.LookPath(c[0])
		if err != nil {
			t.Logf("NOT CHECKED: %s is not installed (Debian: prometheus, prometheus-alertmanager)", c[0])
			continue
		}
		if c[0] == "promtool" {
			files, _ := filepath.Glob(map[string]string{"check": "../../rules/*.yml", "test": "../../rules/testdata/*.yml"}[c[1]])
			c = append(c, files...)
		}
		if out, err := exec.CommandContext(ctx, tool, c[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", c, err, out)
		}
	}
}

// systemd tells of a supervisor that it saw killed, and not of one that ended by
// itself; the next supervisor tells that the program is back.
func TestSystemdTellsOfAKilledSupervisor(t *testing.T) {
	dir, to := t.TempDir(), newHook(t)
	say := func(result, code, status string) {
		cmd := exec.Command(os.Args[0], "died", "--name", "node-1", "--dir", dir, "--webhook", to.URL)
		cmd.Env = append(os.Environ(), asWatch+"=1", "SERVICE_RESULT="+result, "EXIT_CODE="+code, "EXIT_STATUS="+status)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	say("success", "exited", "0")
	say("exit-code", "exited", "137")
	say("oom-kill", "killed", "KILL")
	a := to.find(t, time.Second, "the death", func(a hookAlert) bool { return true })
	if a.Labels["reason"] != "oom" || a.Labels["name"] != "node-1" || a.Annotations["oom_kills"] != "1" || len(to.alerts) != 1 {
		t.Errorf("told: %v", to.alerts)
	}
	start(t, []string{asDying + "=" + filepath.Join(dir, "die")}, "run", "--name", "node-1", "--dir", dir, "--webhook", to.URL, "--healthy", "300ms", "--", os.Args[0])
	to.find(t, tellLimit, "that it is back", func(a hookAlert) bool { return a.Status == "resolved" && a.Labels["reason"] == "oom" })
}

// The units are what systemd understands.
func TestSystemdTakesTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("NOT CHECKED: systemd-analyze is not installed")
	}
	units, err := filepath.Glob("../../systemd/*.service")
	if err != nil || len(units) != 3 {
		t.Fatalf("units: %v, %v", units, err)
	}
	dir := t.TempDir()
	for _, name := range []string{"tweedle", "tweedle-watch"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.Base(unit))
		text := strings.ReplaceAll(string(b), "/usr/local/bin", dir)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, unit := range units {
		out, err := exec.Command(analyze, "verify", filepath.Join(dir, filepath.Base(unit))).CombinedOutput()
		if err != nil || strings.Contains(string(out), dir) {
			t.Errorf("%s: %v: %s", unit, err, out)
		}
	}
}

// maxResident is what the watch may keep in memory for twenty nodes, in KiB.
const maxResident = 150 << 10

// The watch of twenty nodes stays small, and 10,000 series more on one of them neither
// end it nor keep it from telling that one of them is gone.
func TestTheWatchOfTwentyNodesStaysSmall(t *testing.T) {
	sideBySide(t)
	const nodes, seriesOfNode, seriesMore = 20, 600, 10_000
	var more atomic.Int64 // of the first node
	dir, to := t.TempDir(), newHook(t)
	var list strings.Builder
	var exporters []*httptest.Server
	for i := range nodes {
		e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n := seriesOfNode
			if i == 0 {
				n += int(more.Load())
			}
			for k := range n {
				fmt.Fprintf(w, "tweedle_test_series{number=\"%d\",of=\"a label of some length\"} %d\n", k, time.Now().UnixNano()%1000)
			}
		}))
		t.Cleanup(e.Close)
		exporters = append(exporters, e)
		fmt.Fprintf(&list, "- {name: node-%d, job: node, address: %q}\n", i+1, strings.TrimPrefix(e.URL, "http://"))
	}
	rule := filepath.Join(dir, "gone.yml")
	if err := os.WriteFile(rule, []byte("groups: [{name: g, rules: [{alert: Gone, expr: 'up == 0', labels: {severity: page}}]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, _ := watch(t, dir, "rules: [gone.yml]\nnotify:\n- {kind: webhook, url: "+to.URL+"}\ntargets:\n"+list.String())
	time.Sleep(10 * time.Second) // ten scrapes of 12,000 series
	t.Logf("with %d nodes of %d series: %d MiB", nodes, seriesOfNode, resident(t, cmd.Process.Pid)>>10)
	if kib := resident(t, cmd.Process.Pid); kib > maxResident {
		t.Errorf("the watch of %d nodes has %d KiB in memory, more than %d", nodes, kib, maxResident)
	}
	more.Store(seriesMore)
	time.Sleep(5 * time.Second)
	t.Logf("with %d series more: %d MiB", seriesMore, resident(t, cmd.Process.Pid)>>10)
	exporters[nodes-1].CloseClientConnections()
	exporters[nodes-1].Close()
	to.find(t, 30*time.Second, "node-20 is gone", func(a hookAlert) bool { return a.Labels["alertname"] == "Gone" && a.Labels["name"] == "node-20" })
}

// resident is what a process has in memory, in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("NOT CHECKED: no /proc here: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib
		}
	}
	t.Fatalf("no VmRSS in %s", b)
	return 0
}
