package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// inbox remembers what was sent to the servers of a test, by their names.
type inbox struct {
	mu   sync.Mutex
	said map[string]string
}

func (b *inbox) add(name, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said[name] += text
}

func (b *inbox) get(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said[name]
}

// web is a server that answers every request in the same way; it refuses the first
// of each, as services do now and then.
func (b *inbox) web(t *testing.T, name string, status int, answer string) string {
	var once sync.Once
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refused := false
		once.Do(func() { refused = true })
		if refused {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		body, _ := io.ReadAll(r.Body)
		b.add(name, r.URL.Path+" "+string(body))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// mail is a mail server that takes everything.
func (b *inbox) mail(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { b.talk(c) })
		}
	})
	return l.Addr().String()
}

func (b *inbox) talk(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	say := func(line string) { fmt.Fprintf(c, "%s\r\n", line) }
	say("220 here")
	body := false
	for lines := bufio.NewScanner(c); lines.Scan(); {
		line := lines.Text()
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch {
		case body && line == ".":
			body = false
			say("250 taken")
		case body:
			b.add("email", line+"\n")
		case verb == "DATA":
			body = true
			say("354 go on")
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			b.add("email", line+"\n")
			say("250 ok")
		}
	}
}

// A crash reaches people in every way that there is, though each service refuses the
// first time; and no secret is in what the watch logs or shows.
func TestEveryKindOfNotifierTells(t *testing.T) {
	dir, to := t.TempDir(), &inbox{said: map[string]string{}}
	chat := to.web(t, "telegram", http.StatusOK, `{"ok":true,"result":{"message_id":1,"date":1,"chat":{"id":-100,"type":"group"}}}`)
	more := "host: false\nnotify:\n" +
		"- {kind: webhook, url: " + to.web(t, "webhook", http.StatusOK, "") + "/hook/secret1}\n" +
		"- {kind: slack, url: " + to.web(t, "slack", http.StatusOK, "ok") + "/services/secret2, channel: ops}\n" +
		"- {kind: discord, url: " + to.web(t, "discord", http.StatusNoContent, "") + "/api/webhooks/1/secret3}\n" +
		"- {kind: telegram, token: \"4:secret4\", chat: -100, api: " + chat + "}\n" +
		"- {kind: pagerduty, key: secret5, api: " + to.web(t, "pagerduty", http.StatusAccepted, `{"status":"success"}`) + "/v2/enqueue}\n" +
		"- {kind: email, to: ops@example.com, from: watch@example.com, server: \"" + to.mail(t) + "\", tls: \"false\"}\n"
	_, url := watch(t, dir, more)
	token, err := os.ReadFile(filepath.Join(dir, "data", "token"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	body := fmt.Sprintf(`[{"labels":{"alertname":"NodeCrashed","severity":"page","net":"t","name":"node-7","crash":"1","reason":"panic"},
		"annotations":{"summary":"node-7 is out of sessions","stack":"goroutine 1 [running]"},"startsAt":%q,"endsAt":%q}]`,
		now.Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339))
	req, _ := http.NewRequest(http.MethodPost, url+"/api/v2/alerts", strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the alert is not taken: %s", resp.Status)
	}
	for name, want := range map[string][]string{
		"webhook": {"/hook/secret1", "node-7", "goroutine 1"}, "slack": {"/services/secret2", "node-7 is out of sessions", "goroutine 1"},
		"discord": {"/secret3", "node-7 is out of sessions", "goroutine 1"}, "telegram": {"/bot4:secret4/sendMessage", "node-7 is out of sessions", "-100"},
		"pagerduty": {"secret5", "node-7"}, "email": {"ops@example.com", "node-7"},
	} {
		missing := want
		for end := time.Now().Add(90 * time.Second); len(missing) > 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			said := to.get(name)
			missing = nil
			for _, w := range want {
				if !strings.Contains(said, w) {
					missing = append(missing, w)
				}
			}
		}
		if len(missing) > 0 {
			t.Errorf("%s was not told %q, but: %.2000s", name, missing, to.get(name))
		}
	}
	shown := ""
	for _, path := range []string{"/", "/model", "/alerts", "/api/v2/status", "/metrics"} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		shown += string(text)
	}
	logs, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "*", "log*"))
	for _, path := range logs {
		text, _ := os.ReadFile(path)
		shown += string(text)
	}
	if len(logs) == 0 {
		t.Error("the log of the watch was not found")
	}
	for _, secret := range []string{"secret1", "secret2", "secret3", "secret4", "secret5", strings.TrimSpace(string(token))} {
		if i := strings.Index(shown, secret); i >= 0 {
			t.Errorf("a secret is shown: %q", shown[max(0, i-200):min(len(shown), i+20)])
		}
	}
}
