package testnet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tweedle/archtest/jsondoc"
	"tweedle/base/telemetry"
)

// line is an event as a script reads it.
type line struct {
	Type, Name, State string
	Layer             uint32
	Endpoints         struct{ GRPC, REST, Metrics, Admin string }
}

// summaryLine is the last line, with the names that scripts rely on.
type summaryLine struct {
	Type                string   `json:"type"`
	OK                  *bool    `json:"ok"`
	Reasons             []string `json:"reasons"`
	Epochs              int      `json:"epochs"`
	Layers              int      `json:"layers"`
	EmptyLayers         int      `json:"empty_layers"`
	TransactionsApplied int      `json:"transactions_applied"`
	ATXs                int      `json:"atxs"`
	PoetProofs          int      `json:"poet_proofs"`
	StateRoots          int      `json:"state_roots"`
}

// program builds the real program.
func program(t *testing.T) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "tweedle")
	out, err := exec.Command("go", "build", "-o", exe, "tweedle/cmd/tweedle").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return exe
}

// tweedle runs one command and returns its output and exit status.
func tweedle(t *testing.T, exe string, args ...string) (out string, exit int) {
	t.Helper()
	b, err := exec.CommandContext(t.Context(), exe, args...).CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if failed != nil {
		exit = failed.ExitCode()
	}
	return string(b), exit
}

// maxRun bounds the end-to-end run: two epochs to genesis and the first
// ballots, two judged ones, and what a slow machine needs on top.
const maxRun = 5 * time.Minute

// The real programs, from another shell as a person would: the network starts,
// one node is killed with SIGKILL and started again, and after two epochs
// everybody has the same blocks and state, and nothing is left running.
func TestTestnetLivesAndANodeThatWasKilledCatchesUp(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED by -short: the end-to-end run of the real programs")
	}
	exe, dir := program(t), t.TempDir()
	cmd := exec.Command(exe, "testnet", "up", "--dir", dir, "--nodes", "5", "--poets", "2", "--epochs", "2", "--json")
	cmd.SysProcAttr = childAttributes()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(maxRun, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer overdue.Stop()
	defer cmd.Wait()
	defer cmd.Process.Kill()

	var last []byte
	var all strings.Builder
	var addresses []string
	pids := make(map[string]int)
	killed, restarted := uint32(0), false
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for first := true; lines.Scan(); first = false {
		last = append(last[:0], lines.Bytes()...)
		all.Write(append(lines.Bytes(), '\n'))
		var e line
		if err := json.Unmarshal(last, &e); err != nil {
			t.Fatalf("%v: %s", err, last)
		}
		if first && (e.Type != "start" || !strings.Contains(string(last), `"page":null`)) {
			t.Errorf("the first line is %s", last)
		}
		switch {
		case e.Type == "process" && e.State == string(Running):
			addresses = append(addresses, e.Endpoints.GRPC, e.Endpoints.REST, e.Endpoints.Metrics, e.Endpoints.Admin)
		case e.Type == "layer" && killed == 0 && e.Layer >= 31:
			// The ATXs for both judged epochs have been published.
			killed = e.Layer
			pids = pidsOf(t, dir)
			checkStatus(t, exe, dir)
			if out, exit := tweedle(t, exe, "testnet", "kill", "node-5", "--dir", dir); exit != 0 || !isGone(pids["node-5"]) {
				t.Errorf("kill: exit %d: %s", exit, out)
			}
		case e.Type == "layer" && !restarted && e.Layer >= killed+3 && killed > 0:
			restarted = true
			if out, exit := tweedle(t, exe, "testnet", "restart", "node-5", "--dir", dir); exit != 0 {
				t.Errorf("restart: exit %d: %s", exit, out)
			}
			for name, pid := range pidsOf(t, dir) {
				pids[name] = pid
			}
		}
	}
	err = cmd.Wait()
	jsondoc.Follows(t, "testnet up", all.String())
	var s summaryLine
	if json.Unmarshal(last, &s) != nil || s.Type != "summary" || s.OK == nil {
		t.Fatalf("the last line is %s", last)
	}
	if err != nil || !*s.OK || !restarted {
		t.Errorf("%v; %s; restarted: %v; %s", err, last, restarted, stderr.String())
		showLogs(t, exe, dir)
	}
	if s.Epochs != 2 || s.Layers != 20 || s.EmptyLayers > 2 || s.ATXs != 10 || s.StateRoots != 1 || s.TransactionsApplied == 0 || s.PoetProofs < 4 {
		t.Errorf("summary: %s", last)
	}
	checkNothingIsLeft(t, pids, addresses)
}

// checkStatus checks the status as a script reads it.
func checkStatus(t *testing.T, exe, dir string) {
	t.Helper()
	out, exit := tweedle(t, exe, "testnet", "status", "--json", "--dir", dir)
	var s struct {
		Genesis      time.Time
		Layer, Epoch int
		Nodes        []struct {
			Name, State   string
			PID           int
			Applied       int    `json:"applied_layer"`
			Root          string `json:"state_root"`
			Peers         int
			ATXEpoch      int `json:"atx_epoch"`
			GRPC, Metrics string
		}
		Poets []struct {
			Name, State, REST, Admin string
			Round                    int
			Gateways                 []struct{ Addr, State string }
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || exit != 0 {
		t.Fatalf("exit %d, %v: %s", exit, err, out)
	}
	if len(s.Nodes) != 5 || len(s.Poets) != 2 || s.Layer < 31 || s.Epoch < 3 {
		t.Fatalf("status: %s", out)
	}
	for _, n := range s.Nodes {
		if n.State != string(Running) || n.PID == 0 || n.Applied < 20 || n.Root == "" || n.Peers < 1 || n.ATXEpoch < 1 || n.GRPC == "" || n.Metrics == "" {
			t.Errorf("%+v", n)
		}
	}
	for _, p := range s.Poets {
		if p.State != string(Running) || p.REST == "" || p.Admin == "" || p.Round < 2 || len(p.Gateways) != 5 {
			t.Errorf("%+v", p)
		}
	}
	var env Env
	out, exit = tweedle(t, exe, "testnet", "env", "--json", "--dir", dir)
	if err := json.Unmarshal([]byte(out), &env); err != nil || exit != 0 || env.Bootnode == "" || env.GRPC == "" || len(env.Poets) != 2 || env.Account == "" {
		t.Errorf("env: exit %d, %v: %s", exit, err, out)
	}
	var node struct{ Smesher telemetry.Smesher }
	out, exit = tweedle(t, exe, "node", "status", "--json", "--dir", filepath.Join(dir, "node-1"))
	if err := json.Unmarshal([]byte(out), &node); err != nil || exit != 0 {
		t.Errorf("node status: exit %d, %v: %s", exit, err, out)
	}
	if v := node.Smesher; v.LastATX == nil || len(v.Poets) != 2 || v.Poets[0].Trouble != "" || v.Earned.Layers == 0 || len(v.Slots) == 0 || v.Step.Step == "" {
		t.Errorf("its smesher: %s", out)
	}
}

// showLogs prints what the processes said, but for what they say of each layer.
func showLogs(t *testing.T, exe, dir string) {
	t.Helper()
	out, _ := tweedle(t, exe, "testnet", "logs", "-n", "200", "--dir", dir)
	for l := range strings.Lines(out) {
		if !strings.Contains(l, `"layer applied"`) && !strings.Contains(l, "msg=ATX") && !strings.Contains(l, "proof_acknowledged") {
			t.Log(strings.TrimSuffix(l, "\n"))
		}
	}
}

// checkNothingIsLeft checks that processes have ended and ports are free.
func checkNothingIsLeft(t *testing.T, pids map[string]int, addresses []string) {
	t.Helper()
	if len(pids) != 7 || len(addresses) < 4*7 {
		t.Errorf("pids %v, addresses %v", pids, addresses)
	}
	for name, pid := range pids {
		if !isGone(pid) {
			t.Errorf("%s (pid %d) outlived up", name, pid)
		}
	}
	for _, a := range addresses {
		if a == "" {
			continue
		}
		lis, err := net.Listen("tcp", a)
		if err != nil {
			t.Errorf("a port is still in use: %v", err)
			continue
		}
		lis.Close()
	}
}

func TestTestnetCommandsFailInOneLineWithTheirExitStatus(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED by -short: it builds the real program")
	}
	exe, dir := program(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		exit int
		want string
	}{
		{"testnet up --nodes 0.5", 2, "invalid argument"},
		{"testnet up --nodes 65", 2, "65 nodes: choose 1 to 64 with --nodes"},
		{"testnet up --plain --json", 2, "--plain and --json: choose one of them"},
		{"testnet up --preset moon", 2, "choose one of"},
		{"testnet up now", 2, "unknown command"},
		{"testnet kill", 2, "kill what? name it: tweedle testnet kill NAME..."},
		{"testnet up", 1, "holds other files (thesis.tex): choose an empty directory with --dir"},
		{"testnet status", 1, "start one with `tweedle testnet up --dir"},
		{"testnet kill node-1", 1, "start one with `tweedle testnet up --dir"},
		{"testnet logs", 1, "start one with `tweedle testnet up --dir"},
	} {
		args := append(strings.Fields(c.args), "--dir", dir)
		out, exit := tweedle(t, exe, args...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if exit != c.exit || len(lines) != 1 || !strings.Contains(lines[0], c.want) {
			t.Errorf("%s: exit %d, want %d: %s\nwant: %s", c.args, exit, c.exit, out, c.want)
		}
	}
	for _, sub := range []string{"", "up", "status", "env", "logs", "kill", "pause", "resume", "restart", "add", "down"} {
		out, exit := tweedle(t, exe, append(strings.Fields("testnet "+sub), "--help")...)
		if exit != 0 || !strings.Contains(out, "Examples:\n  tweedle testnet") {
			t.Errorf("help of %q: exit %d: %s", sub, exit, out)
		}
	}
}
