package engine

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"

	"tweedle/watch/host"
	"tweedle/watch/rules"
)

// known lists the metrics that there are: what the documents say of our programs
// (tests hold them), what the machine shows here, and what the engine registers.
func known(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{"up": true}
	row := regexp.MustCompile(`(?m)^\| ([a-z0-9_]+) \| (counter|gauge|histogram|summary) \|`)
	for _, file := range []string{"metrics.md", "alerts.md"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "docs", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range row.FindAllStringSubmatch(string(b), -1) {
			names[m[1]] = true
			if m[2] == "histogram" {
				for _, end := range []string{"_bucket", "_sum", "_count"} {
					names[m[1]+end] = true
				}
			}
		}
	}
	registry := prometheus.NewRegistry()
	c, err := host.New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	registry.MustRegister(c)
	e, err := Open(Config{
		Dir: t.TempDir(), Jobs: []string{"node"}, Scrape: 5e9, Evaluate: 5e9, Keep: 1e15, Rules: rules.Files(),
		Notify: "route: {receiver: a}\nreceivers: [{name: a}]", URL: "http://127.0.0.1:1", Registry: registry, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	descs := make(chan *prometheus.Desc, 1000)
	go func() { defer close(descs); registry.Describe(descs) }()
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range descs {
		names[name.FindStringSubmatch(d.String())[1]] = true
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		names[f.GetName()] = true
	}
	return names
}

// optional are metrics of the machine that not every machine has.
func optional() []string { return []string{"node_vmstat_oom_kill", "node_timex_offset_seconds"} }

// A rule or a dashboard that asks for a metric that nothing has would be silent for
// ever.
func TestRulesAndDashboardsAskForWhatThereIs(t *testing.T) {
	names := known(t)
	exprs, err := Expressions(rules.Files())
	if err != nil {
		t.Fatal(err)
	}
	boards, err := filepath.Glob("../dashboards/*.json")
	if err != nil || len(boards) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	for _, path := range boards {
		for _, q := range boardQueries(t, path) {
			metrics, err := Metrics(strings.ReplaceAll(q, "$net", "n"))
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			exprs = append(exprs, Expr{Where: path, Text: q, Metrics: metrics})
		}
	}
	for _, e := range exprs {
		for _, m := range e.Metrics {
			if !names[m] && !slices.Contains(optional(), m) {
				t.Errorf("%s asks for %s, which nothing has", e.Where, m)
			}
		}
	}
	if got, err := Metrics(`rate(no_such_metric[5m]) / {__name__="another"}`); err != nil || len(got) != 2 || names[got[0]] {
		t.Errorf("metrics of an expression: %v, %v", got, err)
	}
}

// boardQueries lists the expressions of a dashboard.
func boardQueries(t *testing.T, path string) (out []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, p := range board.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("%s: panel %q asks for nothing", path, p.Title)
		}
		for _, q := range p.Targets {
			out = append(out, q.Expr)
		}
	}
	return out
}

// docs/alerts.md lists every rule with its severity.
func TestRulesAreDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "alerts.md"))
	if err != nil {
		t.Fatal(err)
	}
	var files ruleFiles
	files.set(rules.Files())
	for _, name := range files.names() {
		groups, errs := files.Load(name, false, model.LegacyValidation)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		for _, g := range groups.Groups {
			for _, r := range g.Rules {
				if !strings.Contains(string(b), "| "+r.Alert+" | "+r.Labels["severity"]+" |") {
					t.Errorf("%s is not in docs/alerts.md with severity %s", r.Alert, r.Labels["severity"])
				}
				if r.Annotations["runbook"] != r.Alert || r.Annotations["summary"] == "" {
					t.Errorf("%s needs a summary, and the runbook of its name", r.Alert)
				}
			}
		}
	}
}
