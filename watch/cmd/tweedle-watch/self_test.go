//go:build linux

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A watch whose disk is full has no new samples, and a rule without samples is silent: so
// it says itself that it is blind, and that it sees again.
func TestAFullDiskOfTheWatchIsTold(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED without TWEEDLE_NIGHTLY: it takes half a minute")
	}
	if os.Getenv(insideVariable) == "" {
		if err := inNamespaces(t); err != nil {
			t.Skipf("NOT CHECKED: a small disk of the watch's own, which only root may mount: %v", err)
		}
		return
	}
	dir, to := t.TempDir(), newHook(t)
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", data, "tmpfs", 0, "size=40m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(data, syscall.MNT_DETACH) })
	cmd, url := watch(t, dir, "host: false\nnotify:\n- {kind: webhook, url: "+to.URL+"}\n")
	silence := func() (status int, said string) {
		token, err := os.ReadFile(filepath.Join(data, "token"))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now().UTC()
		req, _ := http.NewRequest(http.MethodPost, url+"/api/v2/silences", strings.NewReader(fmt.Sprintf(
			`{"matchers":[{"name":"alertname","value":"A","isRegex":false}],"startsAt":%q,"endsAt":%q,"createdBy":"test","comment":"c"}`,
			now.Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339))))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	fill := filepath.Join(data, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	full := time.Now()
	if status, said := silence(); status != http.StatusInternalServerError || !strings.Contains(said, "not on its disk") {
		t.Errorf("a silence that cannot be written is acknowledged: %d %s", status, said)
	}
	is := func(status string) func(hookAlert) bool {
		return func(a hookAlert) bool { return a.Labels["alertname"] == "WatchStorageFailing" && a.Status == status }
	}
	told := to.find(t, 90*time.Second, "WatchStorageFailing", is("firing"))
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	room := time.Now()
	_ = f.Close()
	if status, said := silence(); status != http.StatusOK {
		t.Errorf("a silence when there is room again: %d %s", status, said)
	}
	over := to.find(t, 90*time.Second, "WatchStorageFailing is over", is("resolved"))
	t.Logf("told after %s, resolved after %s", told.came.Sub(full).Round(100*time.Millisecond), over.came.Sub(room).Round(100*time.Millisecond))
	if err := syscall.Kill(cmd.Process.Pid, 0); err != nil {
		t.Errorf("the watch has ended: %v", err)
	}
}

// Two watches look at each other: when one dies the other tells, and that it is back.
func TestOfTwoWatchesOneTellsThatTheOtherIsGone(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED without TWEEDLE_NIGHTLY: TargetDown takes a minute")
	}
	dirs := []string{t.TempDir(), t.TempDir()}
	hooks := []*hook{newHook(t), newHook(t)}
	text := func(i int) string {
		return fmt.Sprintf("host: false\nnotify:\n- {kind: webhook, url: %q}\n", hooks[i].URL)
	}
	cmd, first := watch(t, dirs[0], text(0))
	other := func(i int, url string) string {
		return text(i) + fmt.Sprintf("targets:\n- {name: other, job: watch, address: %q}\n", strings.TrimPrefix(url, "http://"))
	}
	second, url := watch(t, dirs[1], other(1, first))
	look := func(url string) { // the first one at the second
		path := filepath.Join(dirs[0], "watch.yml")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(b), text(0))
		if err := os.WriteFile(path, []byte(head+other(0, url)), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Signal(syscall.SIGHUP)
	}
	look(url)
	time.Sleep(5 * time.Second) // some scrapes: both see each other, and nobody is told anything
	for i, h := range hooks {
		if got := h.since(0); len(got) > 0 {
			t.Fatalf("watch %d tells %v", i, got)
		}
	}
	at := time.Now()
	_ = second.Process.Kill()
	_, _ = second.Process.Wait()
	is := func(status string) func(hookAlert) bool {
		return func(a hookAlert) bool {
			return a.Labels["alertname"] == "TargetDown" && a.Labels["name"] == "other" && a.Status == status
		}
	}
	told := hooks[0].find(t, 2*time.Minute, "TargetDown of the other watch", is("firing"))
	t.Logf("told after %s", told.came.Sub(at).Round(100*time.Millisecond))
	_, url = watch(t, dirs[1], other(1, first))
	look(url)
	hooks[0].find(t, resolve, "the other watch is back", is("resolved"))
	for i, h := range hooks {
		for _, a := range h.since(0) {
			if a.Labels["alertname"] != "TargetDown" || i == 1 {
				t.Errorf("watch %d told %v, too", i, a)
			}
		}
	}
}
