//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The very same rules and Alertmanager configuration, exported, raise the same alert
// on Debian's Prometheus and Alertmanager, at the same webhook's like: a node is killed
// and stays down.
func TestDebiansPrometheusRaisesTheSameAlerts(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: it takes two minutes: make nightly NIGHTLY=watch")
	}
	for _, program := range []string{"prometheus", "prometheus-alertmanager"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("NOT CHECKED: %s is not installed (Debian: prometheus prometheus-alertmanager)", program)
		}
	}
	n := newTestnet(t, "--nodes", "3", "--poets", "1")
	n.healthy()
	theirs, dir := newHook(t), t.TempDir()
	prometheus, alertmanager := freeAddress(t), freeAddress(t)
	config := filepath.Join(n.dir, "watch", "watch.yml")
	other := filepath.Join(dir, "watch.yml")
	if err := os.WriteFile(other, []byte(fmt.Sprintf("notify:\n- {kind: webhook, url: %q}\n", theirs.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	export := func(args ...string) []byte {
		cmd := exec.Command(os.Args[0], append([]string{"export"}, args...)...)
		cmd.Env = append(os.Environ(), asWatch+"=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	export("rules", "--dir", dir)
	text := fmt.Sprintf("global: {scrape_interval: 2s, evaluation_interval: 2s}\nrule_files: [%q]\n"+
		"alerting: {alertmanagers: [{static_configs: [{targets: [%q]}]}]}\nscrape_configs:\n", dir+"/tweedle-*.yml", alertmanager)
	for _, job := range []string{"node", "poet"} {
		// The file of the testnet has both jobs; the label says which.
		text += fmt.Sprintf("- {job_name: %s, file_sd_configs: [{files: [%q]}], relabel_configs: [{source_labels: [job], regex: %s, action: keep}, {target_label: net, replacement: t}]}\n",
			job, filepath.Join(filepath.Dir(config), "targets.json"), job)
	}
	for name, b := range map[string][]byte{"prometheus.yml": []byte(text), "alertmanager.yml": export("alertmanager", "--config", other)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	background(t, dir, "prometheus-alertmanager", "--config.file="+dir+"/alertmanager.yml", "--storage.path="+dir+"/am", "--web.listen-address="+alertmanager, "--cluster.listen-address=")
	background(t, dir, "prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/db", "--web.listen-address="+prometheus)
	scraped := 0
	for end := time.Now().Add(time.Minute); scraped != 4 && time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		var up struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if res, err := http.Get("http://" + prometheus + "/api/v1/query?query=up%3D%3D1"); err == nil {
			_ = json.NewDecoder(res.Body).Decode(&up)
			res.Body.Close()
		}
		scraped = len(up.Data.Result)
	}
	if scraped != 4 {
		t.Fatalf("Prometheus scrapes %d of 4 programs", scraped)
	}
	at := time.Now()
	n.do("kill", "node-3")
	// Ours says why at once, and then not that it does not answer, too.
	ours := n.hook.find(t, crashBound, "NodeCrashed of ours", func(a hookAlert) bool { return a.Labels["name"] == "node-3" })
	them := theirs.find(t, time.Minute+2*slack, "TargetDown of theirs", func(a hookAlert) bool {
		return a.Labels["alertname"] == "TargetDown" && a.Labels["name"] == "node-3" && a.Status == "firing"
	})
	t.Logf("ours said %s after %s, theirs %s after %s", ours.Labels["alertname"], ours.came.Sub(at).Round(10*time.Millisecond),
		them.Labels["alertname"], them.came.Sub(at).Round(100*time.Millisecond))
	var their struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	res, err := http.Get("http://" + prometheus + "/api/v1/alerts")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&their); err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, a := range their.Data.Alerts {
		said[a.Labels["alertname"]+" "+a.Labels["name"]] = a.State == "firing"
	}
	// Every alert of these programs that the rules raise in the one is raised in the
	// other, and besides it there is nothing.
	var ourRules []struct{ Labels map[string]string }
	all, err := http.Get(n.watchURL() + "/api/v2/alerts?inhibited=true")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Body.Close()
	if err := json.NewDecoder(all.Body).Decode(&ourRules); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range ourRules {
		name, job := a.Labels["alertname"], a.Labels["job"]
		if job != "node" && job != "poet" {
			continue // told by the supervisor, or of the machine, which theirs do not watch
		}
		if names = append(names, name); !said[name+" "+a.Labels["name"]] {
			t.Errorf("ours raise %s of %s, theirs do not: %v", name, a.Labels["name"], said)
		}
	}
	if !slices.Contains(names, "TargetDown") || !said["Watchdog "] {
		t.Errorf("ours raise %v, theirs %v", names, said)
	}
	n.do("restart", "node-3")
	theirs.find(t, time.Minute, "TargetDown of theirs resolved", func(a hookAlert) bool { return a.Labels["alertname"] == "TargetDown" && a.Status == "resolved" })
	n.hook.find(t, time.Minute, "NodeCrashed of ours resolved", func(a hookAlert) bool { return a.Labels["alertname"] == "NodeCrashed" && a.Status == "resolved" })
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// background runs a program until the test ends.
func background(t *testing.T, dir, name string, args ...string) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s:\n%s", name, b[max(0, len(b)-5000):])
		}
	})
}
