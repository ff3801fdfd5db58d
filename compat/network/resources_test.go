//go:build linux

package network

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What a whole local testnet takes of a machine, by kind of process and number of nodes: memory,
// processor, and what its disk gets. It prints rows for docs/performance.md, and fails when a
// process takes more than anybody should have to give it. One size alone:
//
//	TWEEDLE_NIGHTLY=1 go test -v -count=1 -run 'TestResourcesOfATestnet/5_nodes' ./network
func TestResourcesOfATestnet(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: testnets of 3, 5, 10 and 20 nodes take twenty minutes; set TWEEDLE_NIGHTLY=1")
	}
	cmd := exec.Command("go", "build", "-o", programs.dir, "./cmd/tweedle-watch")
	cmd.Dir = "../../watch"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the watch: %v\n%s", err, out)
	}
	defer os.Remove(filepath.Join(programs.dir, "tweedle-watch")) // other tests have none
	for _, nodes := range []int{3, 5, 10, 20} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) { resources(t, nodes) })
	}
}

// Times of one measurement.
const (
	measured  = 3 * time.Minute
	lookEvery = 5 * time.Second
)

// What a process of each kind may take at most: memory in MiB, and written to its folder in MiB an hour.
var mostOf = map[string]struct{ memory, disk float64 }{
	"node": {256, 500}, "poet": {128, 200}, "watch": {300, 500}, "supervisor": {64, 1}, "launcher": {128, 1},
}

// kinds are those of a testnet's processes.
var kinds = []string{"node", "poet", "watch", "supervisor", "launcher"}

// usage is what processes have taken.
type usage struct {
	count   int
	memory  float64 // MiB, shared pages divided among those that share them
	cpu     float64 // seconds
	written float64 // MiB that they gave to the disk
	disk    float64 // MiB that their folders take
}

func (u usage) add(v usage) usage {
	return usage{u.count + v.count, u.memory + v.memory, u.cpu + v.cpu, u.written + v.written, u.disk + v.disk}
}

const poetsMeasured = 2

func resources(t *testing.T, nodes int) {
	before := load(t)
	n := up(t, "--nodes", strconv.Itoa(nodes), "--poets", strconv.Itoa(poetsMeasured))
	at := readTiming(t, n.waitUp(t))
	n.until(t, at.first+patience*at.epoch, "all nodes apply blocks", func(s status) bool {
		_, common := s.applied()
		return common > at.first
	})
	began, first, pids := time.Now(), n.take(t), n.pidsNow()
	memory := map[string][]float64{}
	for time.Since(began) < measured {
		time.Sleep(lookEvery)
		for k, u := range n.take(t) {
			memory[k] = append(memory[k], u.memory)
		}
		n.mustRun(t)
	}
	last, hours := n.take(t), time.Since(began).Hours()
	if now := n.pidsNow(); !slices.Equal(now, pids) {
		t.Fatalf("processes came or went: %v, then %v", pids, now)
	}
	s := n.status(t)
	newest, common := s.applied()
	t.Logf("%s, %d processors; load before %s, at the end %s; layer %d, applied by all %d", processor(), runtime.NumCPU(), before, load(t), s.Layer, common)
	var sum, sumMost usage
	row := func(kind string, u usage, most float64) {
		t.Logf("| %d | %d %s | %.0f (%.0f) | %.2f | %.0f | %.0f |", nodes, u.count, kind, u.memory, most, u.cpu/hours/3600, u.written/hours, u.disk/hours)
	}
	t.Log("| nodes | processes | memory, MiB: median (most) | processors in use | MiB written to the disk an hour | MiB that folders grow an hour |")
	t.Log("|---|---|---|---|---|---|")
	for _, k := range kinds {
		u := usage{last[k].count, median(memory[k]), last[k].cpu - first[k].cpu, last[k].written - first[k].written, last[k].disk - first[k].disk}
		most := slices.Max(memory[k])
		row(k, u, most)
		sum, sumMost = sum.add(u), sumMost.add(usage{memory: most})
		want := map[string]int{"node": nodes, "poet": poetsMeasured, "watch": 1, "supervisor": nodes + poetsMeasured, "launcher": 1}[k]
		if u.count != want {
			t.Errorf("%d processes of kind %s, not %d", u.count, k, want)
		}
		if each := most / float64(u.count); each > mostOf[k].memory || each < 1 {
			t.Errorf("a %s takes %.0f MiB, at most %.0f are for it", k, each, mostOf[k].memory)
		}
		if each := u.disk / hours / float64(u.count); each > mostOf[k].disk {
			t.Errorf("the folder of a %s grows by %.0f MiB an hour, at most %.0f are for it", k, each, mostOf[k].disk)
		}
		if u.cpu < 0 || u.cpu/hours/3600 > float64(runtime.NumCPU())+0.1 || k == "node" && u.cpu == 0 {
			t.Errorf("%s took %.1f s of processor in %v", k, u.cpu, measured)
		}
	}
	row("all", sum, sumMost.memory)
	if s.Layer-newest > 2*at.epoch {
		t.Errorf("layer %d, and the newest that is applied is %d: these are the figures of a network that stands still", s.Layer, newest)
	}
}

// pidsNow lists the testnet's processes.
func (n *testnet) pidsNow() (all []int) {
	for pid := range running() {
		all = append(all, pid)
	}
	slices.Sort(all)
	return all
}

// kindOf names the kind of a process by its command line.
func kindOf(command string) string {
	words := strings.Fields(command)
	if len(words) < 2 {
		return ""
	}
	switch filepath.Base(words[0]) + " " + words[1] {
	case "tweedle node":
		return "node"
	case "tweedle poet":
		return "poet"
	case "tweedle testnet":
		return "launcher"
	case "tweedle-watch serve":
		return "watch"
	case "tweedle-watch run":
		return "supervisor"
	}
	return ""
}

// take reads what the processes have taken until now.
func (n *testnet) take(t *testing.T) map[string]usage {
	t.Helper()
	out := map[string]usage{}
	for pid, command := range running() {
		kind := kindOf(command)
		if kind == "" {
			t.Fatalf("what is %q?", command)
		}
		u := usage{count: 1}
		proc := func(file string) string {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			return string(b)
		}
		u.memory = field(t, proc("smaps_rollup"), "Pss:") / 1024
		u.written = field(t, proc("io"), "write_bytes:") / (1 << 20)
		stat := proc("stat")
		ticks := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // the name may have blanks
		const user, system, perSecond = 11, 12, 100                        // proc(5): the 14th and 15th of all
		for _, i := range []int{user, system} {
			v, err := strconv.ParseFloat(ticks[i], 64)
			if err != nil {
				t.Fatal(err)
			}
			u.cpu += v / perSecond
		}
		out[kind] = out[kind].add(u)
	}
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		kind, _, _ := strings.Cut(e.Name(), "-") // node-1, poet-2, watch, and what is the launcher's
		if kind != "node" && kind != "poet" && kind != "watch" {
			kind = "launcher"
		}
		out[kind] = out[kind].add(usage{disk: taken(filepath.Join(n.dir, e.Name())) / (1 << 20)})
	}
	return out
}

// field reads the number after a word of a file of /proc.
func field(t *testing.T, text, word string) float64 {
	t.Helper()
	_, after, ok := strings.Cut(text, word)
	words := strings.Fields(after)
	if !ok || len(words) == 0 {
		t.Fatalf("no %s in %q", word, text)
	}
	v, err := strconv.ParseFloat(words[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// taken returns the bytes that a folder takes of its disk. What goes meanwhile counts nothing.
func taken(path string) (total float64) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				total += float64(st.Blocks) * 512
			}
		}
		return nil
	})
	return total
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// load is the machine's: the mean of a minute.
func load(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))[0]
}

// processor names the machine's.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // it is only shown
	var words []string
	for _, key := range []string{"model name", "cpu family", "model\t", "cpu MHz"} {
		if _, after, ok := bytes.Cut(b, []byte(key)); ok {
			value, _, _ := bytes.Cut(after, []byte("\n"))
			words = append(words, strings.TrimSpace(key)+" "+strings.TrimLeft(string(value), "\t :"))
		}
	}
	return strings.Join(words, ", ")
}
