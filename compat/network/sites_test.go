//go:build linux

package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The epochs of the preset local.
const (
	layerTime  = 2 * time.Second
	epochTime  = 10 * layerTime
	roundEnds  = layerTime // after an epoch's start
	firstBlock = 20        // layer
)

// sites are two network namespaces with a link between them, which live as long
// as the test.
type sites struct {
	names   [2]string
	hosts   [2]string // IP addresses
	network string    // file
	genesis time.Time
	wallets []string // addresses
	dir     string
}

// newSites makes the namespaces, or skips the test where that is not allowed.
func newSites(t *testing.T) *sites {
	t.Helper()
	s := &sites{dir: t.TempDir(), hosts: [2]string{"10.98.7.1", "10.98.7.2"}}
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("SKIPPED: sites are network namespaces, and there is no program ip: install iproute2")
	}
	for i := range s.names {
		s.names[i] = fmt.Sprintf("judge-%d-%d", os.Getpid(), i)
		if out, err := exec.Command(ip, "netns", "add", s.names[i]).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: sites are network namespaces, which only root may make: %v: %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command(ip, "netns", "del", s.names[i]).Run() }) // takes the link with it
	}
	s.ip(t, "link", "add", "wire", "netns", s.names[0], "type", "veth", "peer", "name", "wire", "netns", s.names[1])
	for i, name := range s.names {
		s.ip(t, "-n", name, "address", "add", s.hosts[i]+"/24", "dev", "wire")
		s.ip(t, "-n", name, "link", "set", "lo", "up")
	}
	s.link(t, "up")
	return s
}

func (s *sites) ip(t *testing.T, args ...string) {
	t.Helper()
	if r := execute(t, nil, "ip", args...); r.exit != 0 {
		t.Fatalf("ip %s: %s", strings.Join(args, " "), r.err)
	}
}

// link connects or parts the two.
func (s *sites) link(t *testing.T, state string) {
	t.Helper()
	for _, name := range s.names {
		s.ip(t, "-n", name, "link", "set", "wire", state)
	}
}

// at runs the program in a site until the test ends.
func (s *sites) at(t *testing.T, site int, args ...string) *service {
	t.Helper()
	p := launch(t, exec.Command("ip", append([]string{"netns", "exec", s.names[site], programs.tweedle}, args...)...))
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		if err := p.stop(); err != nil {
			t.Errorf("%s ended with %v\n%s", args[0], err, &p.stderr)
		}
	})
	return p
}

// node starts a node in a site; it knows the others that have started.
func (s *sites) node(t *testing.T, site int, dir, coinbase string, bootnodes []string) *service {
	t.Helper()
	args := []string{"node", "--dir", dir, "--network", s.network, "--listen", "/ip4/" + s.hosts[site] + "/udp/0/quic-v1",
		"--grpc-listen", "127.0.0.1:0", "--rest-listen", "", "--metrics-listen", "127.0.0.1:0", "--smeshing", "--coinbase", coinbase}
	for i := range s.hosts {
		args = append(args, "--poet", s.poet((site+i)%2))
	}
	for _, b := range bootnodes {
		args = append(args, "--bootnode", b)
	}
	return s.at(t, site, args...)
}

func (s *sites) poet(site int) string { return "http://" + s.hosts[site] + ":8080" }

// p2pAddress waits for a node and returns where peers reach it.
func p2pAddress(t *testing.T, dir string) string {
	t.Helper()
	var e struct{ P2P string }
	for deadline := time.Now().Add(time.Minute); tryJSON(filepath.Join(dir, "endpoints.json"), &e) != nil; time.Sleep(poll / 5) {
		if time.Now().After(deadline) {
			t.Fatalf("no node in %s", dir)
		}
	}
	return e.P2P
}

// hasLine waits until a service has written a line with all the words.
func hasLine(t *testing.T, p *service, patience time.Duration, words ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(poll / 5) {
		for line := range strings.Lines(p.stderr.String()) {
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v no line has %q:\n%s", patience, words, &p.stderr)
		}
	}
}

var appliedLine = regexp.MustCompile(`msg="layer applied".* layer=(\d+) block=(\w+) .*state=(\w+) signatures=(\d+)`)

// layers returns what a node's log says of the layers that it applied.
func layers(p *service) map[int]string {
	out := make(map[int]string)
	for _, m := range appliedLine.FindAllStringSubmatch(p.stderr.String(), -1) {
		l, _ := strconv.Atoi(m[1]) // digits
		out[l] = m[2] + " " + m[3]
	}
	return out
}

// One identity runs in two sites, with another coinbase in each, and the link
// between them is down while the ATXs are published: each half of the honest
// nodes sees another one of its two ATXs first.
func TestOneIdentityInTwoSites(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: two sites take three minutes for each of five seeds; set TWEEDLE_NIGHTLY=1")
	}
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { oneIdentityInTwoSites(t, seed) })
	}
}

func oneIdentityInTwoSites(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := newSites(t)
	const honest = 4
	for i := range honest + 2 {
		out := must(t, "wallet", "new", "--json", "--key", filepath.Join(s.dir, fmt.Sprintf("wallet-%d.key", i)))
		var w struct{ Address string }
		if err := json.Unmarshal([]byte(out), &w); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		s.wallets = append(s.wallets, w.Address)
	}
	s.genesis = time.Now().Add(40 * time.Second).Truncate(time.Second).UTC()
	s.network = filepath.Join(s.dir, "network.json")
	text := fmt.Sprintf(`{"name":"sites","preset":"local","genesis_time":%q,"extra_data":"%d"}`, s.genesis.Format(time.RFC3339), seed)
	if err := os.WriteFile(s.network, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	twins := s.twins(t)
	for i := range s.names {
		s.at(t, i, "poet", "--dir", filepath.Join(s.dir, fmt.Sprintf("poet-%d", i)), "--network", s.network, "--max-leaves-per-second", strconv.Itoa(leavesPerSecond),
			"--rpclisten", s.hosts[i]+":50002", "--restlisten", s.hosts[i]+":8080", "--adminlisten", "127.0.0.1:50001", "--rate-limit", "0")
	}
	var bootnodes []string
	nodes := make([]*service, honest)
	split := 1 + rng.IntN(honest-1) // so many in the first site
	for i := range nodes {
		site, dir := 0, filepath.Join(s.dir, fmt.Sprintf("honest-%d", i))
		if i >= split {
			site = 1
		}
		nodes[i] = s.node(t, site, dir, s.wallets[i], bootnodes)
		bootnodes = append(bootnodes, p2pAddress(t, dir))
	}
	var copies [2]*service
	for i, dir := range twins {
		copies[i] = s.node(t, i, dir, s.wallets[honest+i], bootnodes)
	}
	if late := time.Until(s.genesis.Add(-time.Second)); late < 0 {
		t.Fatalf("SKIPPED, and so failed: this machine is so busy that the nodes started %v after genesis", -late)
	}

	// Down before the round ends, up when both copies have published.
	early := time.Duration(rng.IntN(1500)) * time.Millisecond
	time.Sleep(time.Until(s.genesis.Add(epochTime + roundEnds - early - 200*time.Millisecond)))
	s.link(t, "down")
	down := time.Now()
	for _, c := range copies {
		hasLine(t, c, epochTime/2, "published ATX", "epoch=1")
	}
	time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
	s.link(t, "up")
	parted := time.Since(down)

	// It is named everywhere, and the honest ones go on as one.
	for _, n := range nodes {
		hasLine(t, n, 2*epochTime, "smesher is malicious and loses its weight")
	}
	for _, c := range copies {
		hasLine(t, c, 2*epochTime, "our own identity", "somewhere else")
	}
	named := time.Since(down)
	const epochs = 4
	last := firstBlock + epochs*10 - 1
	time.Sleep(time.Until(s.genesis.Add(time.Duration(last+3) * layerTime)))
	want := layers(nodes[0])
	empty := 0
	for l := firstBlock; l <= last; l++ {
		if want[l] == "" {
			empty++
		}
		for i, n := range nodes[1:] {
			if got := layers(n)[l]; got != want[l] {
				t.Errorf("layer %d: node %d has %q, node 0 has %q", l, i+1, got, want[l])
			}
		}
	}
	if empty > 0 {
		t.Errorf("%d of %d layers were not applied", empty, epochs*10)
	}

	// Three of the four honest are two thirds only if it weighs nothing.
	for _, p := range append(copies[:], nodes[honest-1]) {
		_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	}
	stopped := time.Now()
	hasLine(t, nodes[0], epochTime, "layer applied", fmt.Sprintf("layer=%d", int(time.Since(s.genesis)/layerTime)+3), "signatures=3")
	t.Logf("seed %d: %d honest nodes beside one copy, %d beside the other; parted for %v, from %v before the round's end; named by all %v after it began; "+
		"%d of %d layers are empty, all alike; three honest nodes go on alone after %v", seed, split, honest-split, parted.Round(time.Millisecond), early,
		named.Round(time.Second), empty, epochs*10, time.Since(stopped).Round(time.Second))
}

// twins makes one node with its space, and a copy of all of it but the key of
// its host.
func (s *sites) twins(t *testing.T) (dirs [2]string) {
	t.Helper()
	for i := range dirs {
		dirs[i] = filepath.Join(s.dir, fmt.Sprintf("twin-%d", i))
	}
	n := launch(t, exec.Command("ip", "netns", "exec", s.names[0], programs.tweedle, "node", "--dir", dirs[0], "--network", s.network,
		"--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--grpc-listen", "", "--rest-listen", "", "--metrics-listen", "", "--smeshing",
		"--coinbase", s.wallets[len(s.wallets)-2], "--poet", "http://127.0.0.1:1"))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(poll / 5) {
		if files, _ := filepath.Glob(filepath.Join(dirs[0], "post", "*.json")); len(files) > 0 && strings.Contains(n.stderr.String(), "space") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it makes no space:\n%s", &n.stderr)
		}
	}
	time.Sleep(time.Second)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.CopyFS(dirs[1], os.DirFS(dirs[0])), os.Chmod(filepath.Join(dirs[1], "identity.key"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		for _, name := range []string{"peers.json", "endpoints.json"} {
			_ = os.Remove(filepath.Join(dir, name)) // it may not be there
		}
	}
	if err := os.Remove(filepath.Join(dirs[1], "p2p.key")); err != nil {
		t.Fatal(err)
	}
	return dirs
}
