package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tweedle/base/telemetry"
	"tweedle/edges/preset"
	"tweedle/values/types"
)

// besieged marks the process that stands in a network of its own.
const besieged = "TWEEDLE_TEST_BESIEGED"

// inOwnNetwork runs the test again in a network namespace of its own, and reports whether this is that run.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(besieged) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout=55m")
	cmd.Env = append(os.Environ(), besieged+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, os.ErrPermission):
		t.Skip("SKIPPED: only root may make a network namespace")
	case err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// ip runs the program of this name, once for each line of arguments.
func ip(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
}

// siegeNetwork is a network whose programs are attacked while its layers are applied.
type siegeNetwork struct {
	file  string
	of    preset.Network
	clock types.Schedule
}

// newSiegeNetwork makes one that begins in a moment, of preset local: the first block comes in 40 s. A quick
// one has it in 8 s.
func newSiegeNetwork(t testing.TB, quick bool) *siegeNetwork {
	t.Helper()
	n := &siegeNetwork{file: filepath.Join(t.TempDir(), preset.File),
		of: preset.Network{Name: "besieged", Preset: "local", Genesis: preset.After(time.Now().Add(3 * time.Second))}}
	if quick {
		// Phases of the beacon and rounds that a busy machine is in time for: without a beacon an epoch has no block.
		n.of.Rules = preset.Rules{"beacon_rounds": "2", "beacon_phase": "400ms", "layers_per_epoch": "4", "scrypt_n": "2",
			"poet_phase_shift": "2s", "poet_cycle_gap": "1500ms", "poet_grace": "1s"}
	}
	p, err := n.of.Params()
	if err != nil {
		t.Fatal(err)
	}
	n.clock = n.of.Schedule(p)
	content, err := n.of.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// poet starts the network's PoET.
func (n *siegeNetwork) poet(t testing.TB, public string) *sieged {
	t.Helper()
	return besiege(t, "poet", "poet", "--network", n.file, "-r", public, "-w", public, "--metrics-listen", public,
		"--adminlisten=127.0.0.1:0", "--max-leaves-per-second=2000")
}

// node starts a smesher that listens for peers at an address, and knows the others.
func (n *siegeNetwork) node(t testing.TB, name, address, public string, poet *sieged, others ...*sieged) *sieged {
	t.Helper()
	args := []string{"node", "--network", n.file, "--listen", "/ip4/" + address + "/udp/0/quic-v1", "--nat=false",
		"--grpc-listen", public, "--rest-listen", public, "--metrics-listen", public, "--admin-listen=127.0.0.1:0",
		"--smeshing", "--coinbase", types.DeriveAddress(types.Address{}, []byte("nobody")).Bech32("stest"), "--poet", "http://" + poet.e.REST}
	for _, o := range others {
		args = append(args, "--bootnode", o.e.P2P)
	}
	return besiege(t, name, args...)
}

// layer returns the one of now.
func (n *siegeNetwork) layer() int { return int(n.clock.LayerAt(time.Now())) }

// awaitBlock waits until a node has applied a layer with a block. Who is late for a PoET round has another
// chance in the next epoch.
func (n *siegeNetwork) awaitBlock(t *testing.T, node *sieged) {
	t.Helper()
	for until := time.Now().Add(3 * time.Minute); len(node.applied()) == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("no layer is applied before the attack:\n%s", &node.said)
		}
	}
}

// look is what a network does over a while, and what its processes get of the machine.
type look struct {
	n         *siegeNetwork
	name      string
	from      int
	at        time.Time
	of        []*sieged // the first is the node whose layers are judged
	ran, wait []time.Duration
}

// begin looks at a node and others from now on.
func (n *siegeNetwork) begin(t *testing.T, name string, of ...*sieged) *look {
	t.Helper()
	l := &look{n: n, name: name, from: n.layer(), at: time.Now(), of: of}
	for _, p := range of {
		ran, wait := p.scheduled(t)
		l.ran, l.wait = append(l.ran, ran), append(l.wait, wait)
	}
	return l
}

const (
	// maxLate is how many layers after its own a layer may be applied while the network is attacked.
	maxLate = 1
	// maxWait is how long a node's threads may stand in line for a processor, in seconds of each second: where they
	// wait for more, the machine loses layers, and not the node.
	maxWait = 0.5
)

// end tells what each process had of a processor, and how long its threads waited for one. Then it checks that the node
// went on applying layers, all but the last two, which have their time. How late they are, and how many have no
// block, is judged on a machine that has time.
func (l *look) end(t *testing.T) {
	t.Helper()
	to, took, node, clock := l.n.layer(), time.Since(l.at).Seconds(), l.of[0], l.n.clock
	waited := 0.0 // the longest: a layer without a block is the fault of whoever had no time
	for i, p := range l.of {
		ran, wait := p.scheduled(t)
		share := (wait - l.wait[i]).Seconds() / took
		waited = max(waited, share)
		t.Logf("%s: %s had %.2f of a processor, and its threads waited for one for %.2f s in each second", l.name, p.name, (ran-l.ran[i]).Seconds()/took, share)
	}
	at := node.applied()
	empty, late, worst, count := 0, 0, time.Duration(0), 0
	for i := l.from; i <= to-2; i++ {
		count++
		when, ok := at[i]
		if !ok {
			empty++
			continue
		}
		after := when.Sub(clock.LayerStart(types.Layer(i)))
		if worst = max(worst, after); after > (maxLate+1)*clock.LayerDuration {
			late++
		}
	}
	t.Logf("%s: %s: of %d layers of %v, from %d to %d, %d have no block, and %d were applied more than %d layer after their own; the last came %v after its start",
		l.name, node.name, count, clock.LayerDuration, l.from, to-2, empty, late, maxLate, worst)
	if count == 0 || empty == count {
		t.Errorf("%s applied none of %d layers", node.name, count)
	}
	switch {
	case late == 0 && empty*10 <= count:
	case waited > maxWait:
		t.Logf("%s: NOT JUDGED: the machine had no time for %s, or for one that it needs", l.name, node.name)
	default:
		t.Errorf("%s applied %d of %d layers late, and %d not at all; it says:\n%s", node.name, late, count, empty,
			strings.Join(tellsOfLayers.FindAllString(node.said.String(), -1), "\n"))
	}
}

// scheduled returns how long the threads of a process have run, and have waited for a processor.
func (p *sieged) scheduled(t *testing.T) (ran, waited time.Duration) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("%s has no threads: %v", p.name, err)
	}
	for _, thread := range threads {
		b, _ := os.ReadFile(thread) // it may have ended
		var on, in int64            // nanoseconds
		if _, err := fmt.Sscan(string(b), &on, &in); err == nil {
			ran, waited = ran+time.Duration(on), waited+time.Duration(in)
		}
	}
	return ran, waited
}

// sieged is a program under attack.
type sieged struct {
	name, dir string
	e         telemetry.Endpoints
	cmd       *exec.Cmd
	said      text
}

// text can be read while it is written.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *text) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *text) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// besiege starts a program, and waits for its listeners.
func besiege(t testing.TB, name string, args ...string) *sieged {
	t.Helper()
	p := &sieged{name: name, dir: filepath.Join(t.TempDir(), name)}
	p.cmd = exec.Command("tweedle", append(args, "--dir", p.dir)...)
	p.cmd.Stderr = &p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(os.Interrupt)
		if err := <-ended; err != nil || strings.Contains(p.said.String(), "panic") {
			t.Errorf("%s ended with %v:\n%s", name, err, &p.said)
		}
	})
	for until := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var err error
		if p.e, err = readEndpoints(p.dir); err == nil && p.e.Admin != "" {
			return p
		}
		select {
		case err := <-ended:
			ended <- nil
			t.Fatalf("%s ended with %v:\n%s", name, err, &p.said)
		default:
		}
		if time.Now().After(until) {
			t.Fatalf("%s does not start: %v", name, err)
		}
	}
}

// tellsOfLayers are lines of a node's log that tell why a layer has no block.
var tellsOfLayers = regexp.MustCompile(`(?m)^.*(msg="(published ATX|layer applied|sync|we do not|PoET proof)|level=(WARN|ERROR)).*$`)

var layerApplied = regexp.MustCompile(`time=(\S+) .*msg="layer applied".* layer=(\d+)`)

// applied returns when a node applied its layers, as its log tells.
func (p *sieged) applied() map[int]time.Time {
	at := make(map[int]time.Time)
	for _, m := range layerApplied.FindAllStringSubmatch(p.said.String(), -1) {
		l, _ := strconv.Atoi(m[2]) // digits
		at[l], _ = time.Parse(time.RFC3339, m[1])
	}
	return at
}

// resident returns a line of the process's memory, as VmRSS or, the most it had, VmHWM, in MiB.
func (p *sieged) resident(t *testing.T, line string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), line+":")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n >> 10
}

// peak returns the most that the process had in memory, in MiB.
func (p *sieged) peak(t *testing.T) int { t.Helper(); return p.resident(t, "VmHWM") }

func (p *sieged) goroutines(t *testing.T) int { t.Helper(); return p.metric(t, "go_goroutines") }

// metric returns a metric, named with its labels as it is written, as a whole number.
func (p *sieged) metric(t *testing.T, name string) int {
	t.Helper()
	all, err := page(siegeWeb(), "http://"+p.e.Metrics+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return metricOf(t, all, name)
}

// metricOf returns a metric of a page.
func metricOf(t *testing.T, all, name string) int {
	t.Helper()
	_, rest, found := strings.Cut(all, "\n"+name+" ")
	if !found {
		t.Fatalf("there is no metric %s", name)
	}
	f, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(f)
}
