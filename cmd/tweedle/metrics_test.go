package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tweedle/base/telemetry"
	"tweedle/edges/preset"
	"tweedle/values/types"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// docs/metrics.md says what the programs really have. "make generate" writes it.
func TestMetricsAreDocumented(t *testing.T) {
	dir := t.TempDir()
	network := preset.Network{Name: "documented", Preset: "local", Genesis: time.Now().Add(time.Hour).Truncate(time.Second)}
	b, err := network.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "network.toml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	params, err := network.Params()
	if err != nil {
		t.Fatal(err)
	}
	coinbase := types.Address{23: 1}.Bech32(params.HRP)
	node := listMetrics(t, filepath.Join(dir, "node"), "node", "--network", file, "--listen", "/ip4/127.0.0.1/udp/0/quic-v1",
		"--grpc-listen", "127.0.0.1:0", "--rest-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--smeshing", "--coinbase", coinbase,
		"--poet", "http://127.0.0.1:1", "--log-level", "error")
	poet := listMetrics(t, filepath.Join(dir, "poet"), "poet", "--genesis-time", network.Genesis.UTC().Format(time.RFC3339),
		"--epoch-duration", "20s", "--phase-shift", "10s", "--cycle-gap", "8s", "--rpclisten", "127.0.0.1:0", "--restlisten", "127.0.0.1:0",
		"--adminlisten", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
	var text bytes.Buffer
	text.WriteString(metricsHead)
	metricsTable(&text, "Node", node)
	metricsTable(&text, "PoET", poet)
	path := filepath.Join("..", "..", "docs", "metrics.md")
	if *update {
		if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	documented, have := strings.Split(string(old), "\n"), strings.Split(text.String(), "\n")
	for _, line := range documented {
		if !slices.Contains(have, line) {
			t.Errorf("docs/metrics.md has, and the programs do not: run make generate\n%s", line)
		}
	}
	for _, line := range have {
		if !slices.Contains(documented, line) {
			t.Errorf("the programs have, and docs/metrics.md does not: run make generate\n%s", line)
		}
	}
}

const metricsHead = `# Metrics

Written from the programs themselves: do not edit, run "make generate". Each program serves them at /metrics of its metrics
listener, and this list as JSON at /metrics/list. Names that begin with poet_ or grpc_ and have a counterpart in the reference
are those of the reference. What the watch adds is in docs/alerts.md.
`

func metricsTable(to *bytes.Buffer, program string, metrics []telemetry.Metric) {
	fmt.Fprintf(to, "\n## %s\n\n| name | type | unit | labels | what |\n|---|---|---|---|---|\n", program)
	for _, m := range metrics {
		fmt.Fprintf(to, "| %s | %s | %s | %s | %s |\n", m.Name, m.Type, unit(m.Name), strings.Join(m.Labels, ", "), strings.ReplaceAll(m.Help, "|", "/"))
	}
}

// unit is told by the end of a name.
func unit(name string) string {
	name = strings.TrimSuffix(name, "_total")
	for _, u := range []string{"seconds", "bytes", "ratio", "info", "per_second"} {
		if strings.HasSuffix(name, "_"+u) {
			return strings.ReplaceAll(u, "_", " ")
		}
	}
	return ""
}

// listMetrics runs a command until its metrics are listed.
func listMetrics(t *testing.T, dir string, args ...string) (list []telemetry.Metric) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := rootCommand()
	cmd.SetArgs(append(args, "--dir", dir))
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", args[0], err)
		}
	}()
	for ctx.Err() == nil {
		var e telemetry.Endpoints
		b, err := os.ReadFile(filepath.Join(dir, telemetry.EndpointsFile))
		if err != nil || json.Unmarshal(b, &e) != nil {
			select {
			case err := <-ended:
				ended <- nil
				t.Fatalf("%s: %v", args[0], err)
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + e.Metrics + "/metrics/list")
		if err != nil {
			time.Sleep(20 * time.Millisecond) // it is opening
			continue
		}
		defer resp.Body.Close()
		list = nil
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
			t.Fatal(err)
		}
		peers := slices.ContainsFunc(list, func(m telemetry.Metric) bool { return m.Name == "tweedle_p2p_peers" })
		if args[0] == "node" && !peers { // its host opens after the listener
			time.Sleep(20 * time.Millisecond)
			continue
		}
		return list
	}
	t.Fatalf("%s has no metrics", args[0])
	return nil
}
