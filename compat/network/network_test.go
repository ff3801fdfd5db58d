//go:build linux

package network

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// One network of five nodes and two PoETs is read, used, and broken, in the
// order in which its life goes.
func TestTheNetwork(t *testing.T) {
	t.Parallel()
	n := up(t, "--nodes", "5", "--poets", "2")
	n.waitUp(t)
	t.Run("WhileItLives", func(t *testing.T) {
		t.Run("OurProofsConvinceTheReference", func(t *testing.T) { t.Parallel(); ourProofsConvinceTheReference(t, n) })
		t.Run("AnotherNetworkIsRefused", func(t *testing.T) { t.Parallel(); anotherNetworkIsRefused(t, n) })
		t.Run("AKilledNodeComesBack", func(t *testing.T) { t.Parallel(); aKilledNodeComesBack(t, n) })
		t.Run("ForItsUsers", func(t *testing.T) {
			t.Parallel()
			alice, bob := newWallet(t, "alice"), newWallet(t, "bob")
			if t.Run("Grpcurl", func(t *testing.T) { readWithGrpcurl(t, n, alice, bob) }) {
				t.Run("BadInputOfTheNode", func(t *testing.T) { badInputOfTheNode(t, n, alice, bob) })
			}
		})
	})
	if t.Failed() {
		t.FailNow() // what comes now takes minutes, and needs a network that is well
	}
	t.Run("AllPoetsGoneForTwoEpochs", func(t *testing.T) { allPoetsGone(t, n) })
	sum := n.end(t)
	if sum.StateRoots != 1 || sum.Layers == 0 {
		t.Errorf("the summary has %d state roots in %d layers", sum.StateRoots, sum.Layers)
	}
	for _, reason := range sum.Reasons {
		if strings.Contains(reason, "disagree") || strings.Contains(reason, "did not apply") || strings.Contains(reason, "crashed") {
			t.Error(reason)
		}
	}
}

// Constants of the testnet's epochs, read from its nodes and PoETs.
type timing struct {
	epoch int // layers
	shift int // layers from an epoch's start to the start of a PoET round
	first int // layer that can have ballots
}

func readTiming(t *testing.T, s status) timing {
	t.Helper()
	addr := s.Nodes[0].GRPC
	info := ask[struct{ EpochSize, EffectiveGenesis int }](t, addr, "spacemesh.v1.NodeService/NodeInfo", "")
	layer := ask[struct {
		Duration struct {
			Value int64 `json:",string"`
		}
	}](t, addr, "spacemesh.v1.MeshService/LayerDuration", "")
	var poetInfo struct{ PhaseShift string }
	getJSON(t, "http://"+s.Poets[0].REST+"/v1/info", &poetInfo)
	shift, err := time.ParseDuration(poetInfo.PhaseShift)
	if err != nil || layer.Duration.Value == 0 || info.EpochSize == 0 {
		t.Fatalf("%v, %+v, %+v, %+v", err, info, layer, poetInfo)
	}
	return timing{info.EpochSize, int(shift / (time.Duration(layer.Duration.Value) * time.Second)), info.EffectiveGenesis + 1}
}

// A node is killed with SIGKILL: the others go on, and after its restart it has
// their state.
func aKilledNodeComesBack(t *testing.T, n *testnet) {
	const victim = "node-3"
	at := readTiming(t, n.status(t))
	s := n.until(t, at.first+at.epoch, "the first block is applied everywhere", func(s status) bool {
		_, common := s.applied()
		return common >= at.first
	})
	pid, before := s.node(victim).PID, *s.node(victim).Applied
	n.do(t, "kill", victim)
	if !isGone(pid) {
		t.Fatalf("%s (pid %d) lives after kill", victim, pid)
	}
	const missed = 4 // layers
	s = n.until(t, before+missed+at.epoch, "the others go on", func(s status) bool {
		others := slices.DeleteFunc(slices.Clone(s.Nodes), func(n node) bool { return n.Name == victim })
		_, common := status{Nodes: others}.applied()
		return common >= before+missed
	})
	if v := s.node(victim); v.State != "stopped" || v.Applied != nil {
		t.Fatalf("a killed node is %+v", v)
	}
	n.do(t, "restart", victim)
	away, _ := s.applied()
	s = n.until(t, s.Layer+at.epoch, "all nodes have the same state", func(s status) bool { return s.agree(away + 1) })
	if v := s.node(victim); v.State != "running" || v.PID == pid {
		t.Errorf("after the restart: %+v", v)
	}
	n.compareHistories(t, s, at.first)
	t.Logf("killed at layer %d, restarted at %d, the same state as all others at layer %d", before, away, *s.node(victim).Applied)
}

// compareHistories checks that all nodes tell the same of every layer that all
// have applied, and returns it.
func (n *testnet) compareHistories(t *testing.T, s status, from int) history {
	t.Helper()
	_, common := s.applied()
	want := n.history(t, s.Nodes[0].GRPC, from, common)
	if len(want) != common-from+1 {
		t.Fatalf("%s tells of %d layers from %d to %d", s.Nodes[0].Name, len(want), from, common)
	}
	for _, other := range s.Nodes[1:] {
		if got := n.history(t, other.GRPC, from, common); !maps.Equal(got, want) {
			t.Errorf("%s and %s disagree:\n%v\n%v", s.Nodes[0].Name, other.Name, want, got)
		}
	}
	return want
}

// All PoETs are gone for two whole epochs.
//
// The least that the protocol needs: ballots of epoch k+2 need an ATX published
// in k+1, which needs the proof of a round that started in k, a phase shift
// after the epoch's start. A PoET that is back in the first part of epoch k,
// while smeshers register for that round, brings blocks back with the first
// layer of k+2: one and a half to two epochs after it. Back later, it is the
// next epoch's round, and up to two and a half epochs. So they are started with
// an epoch's begin, and blocks must be there in the second epoch after.
func allPoetsGone(t *testing.T, n *testnet) {
	at := readTiming(t, n.status(t))
	genesis := n.genesisID()
	// With this epoch's ATXs published, its successor has its ballots, and no
	// later epoch until the PoETs are back.
	last := n.until(t, n.status(t).Layer+2*at.epoch, "all ATXs of the epoch are published", func(s status) bool {
		return !slices.ContainsFunc(s.Nodes, func(n node) bool { return n.ATXEpoch == nil || *n.ATXEpoch != s.Epoch })
	})
	n.do(t, "kill", "poet-1", "poet-2")
	s := n.status(t)
	for _, p := range s.Poets {
		if p.State != "stopped" || !isGone(p.PID) {
			t.Fatalf("a killed PoET is %+v", p)
		}
	}
	killed := s.Epoch
	if killed != last.Epoch {
		t.Logf("the kill took until epoch %d: this machine is busy", killed)
	}
	back := killed + 3 // killed+1 and killed+2 are the whole epochs
	s = n.until(t, back*at.epoch, "two whole epochs without PoETs", func(s status) bool { return s.Epoch >= back })
	stood, _ := s.applied()
	root := *s.Nodes[0].Root
	if !s.agree(0) {
		t.Errorf("the nodes stand at different states: %+v", s.Nodes)
	}
	if stood >= (killed+2)*at.epoch {
		t.Fatalf("layer %d is applied, though nobody can have an ATX for its epoch", stood)
	}
	restarted := s.Layer
	n.do(t, "restart", "poet-1", "poet-2")
	s = n.status(t)
	// Smeshers need a moment before the round starts.
	const moment = 2 // layers
	from := s.Epoch
	if s.Layer-from*at.epoch > at.shift-moment {
		from++
		t.Logf("the PoETs were up only at layer %d, the round started %d layers into the epoch: this machine is busy, the next round counts", s.Layer, at.shift)
	}
	s = n.until(t, (from+3)*at.epoch, "all nodes apply blocks again", func(s status) bool { return s.agree((from + 2) * at.epoch) })
	if *s.Nodes[0].Root == root {
		t.Error("blocks come, and the state stands still")
	}
	told := n.compareHistories(t, s, at.first)
	resumed := 0
	for layer, what := range told {
		if layer > stood && strings.Contains(what, "block") && (resumed == 0 || layer < resumed) {
			resumed = layer
		}
	}
	if resumed < (from+2)*at.epoch || resumed >= (from+3)*at.epoch {
		t.Errorf("the first block after the PoETs are back is of layer %d, not of epoch %d", resumed, from+2)
	}
	for _, node := range s.Nodes {
		if got := genesisOf(t, node.GRPC); got != genesis {
			t.Errorf("%s is of network %s now, it was %s", node.Name, got, genesis)
		}
	}
	t.Logf("PoETs gone from epoch %d until layer %d (epoch %d); blocks to layer %d, again from %d: %.1f epochs after the restart",
		killed, restarted, back, stood, resumed, float64(resumed-restarted)/float64(at.epoch))
}

// genesisOf asks a node for the id of its network, in hexadecimal.
func genesisOf(t *testing.T, addr string) string {
	t.Helper()
	return hex.EncodeToString(ask[struct{ GenesisID []byte }](t, addr, "spacemesh.v1.MeshService/GenesisID", "").GenesisID)
}

// A node of a network that differs in one byte of its extra data, and has the
// same name, meets a node of the testnet.
func anotherNetworkIsRefused(t *testing.T, n *testnet) {
	const host = "node-1"
	var network map[string]any
	readJSON(t, filepath.Join(n.dir, "network.json"), &network)
	network["extra_data"] = network["extra_data"].(string) + "00"
	dir := t.TempDir()
	file := filepath.Join(dir, "network.json")
	b, _ := json.Marshal(network) // it was JSON before
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var endpoints struct{ P2P, GRPC string }
	readJSON(t, filepath.Join(n.dir, host, "endpoints.json"), &endpoints)
	stranger := launch(t, exec.Command(programs.tweedle, "node", "--dir", dir, "--network", file, "--bootnode", endpoints.P2P,
		"--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--grpc-listen", "127.0.0.1:0", "--rest-listen", "", "--metrics-listen", ""))
	t.Cleanup(func() {
		if err := stranger.stop(); err != nil {
			t.Errorf("the stranger ended with %v", err)
		}
	})
	ours := n.genesisID()
	theirs := ""
	refusal := func(log string) bool {
		return slices.ContainsFunc(strings.Split(log, "\n"), func(line string) bool {
			return strings.Contains(line, "refused") && strings.Contains(line, ours) && strings.Contains(line, theirs)
		})
	}
	const patience = time.Minute
	for deadline := time.Now().Add(patience); ; time.Sleep(poll) {
		log, err := os.ReadFile(filepath.Join(n.dir, host, "log"))
		if err != nil {
			t.Fatal(err)
		}
		if theirs == "" && tryJSON(filepath.Join(dir, "endpoints.json"), &endpoints) == nil {
			theirs = genesisOf(t, endpoints.GRPC)
		}
		if theirs != "" && refusal(string(log)) && refusal(stranger.stderr.String()) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not refused by %s on both sides after %v:\n%s\n%s", theirs, ours, patience, log, &stranger.stderr)
		}
	}
	if theirs == ours {
		t.Fatal("the stranger is of the same network")
	}
	if peers := ask[nodeStatus](t, endpoints.GRPC, "spacemesh.v1.NodeService/Status", "").Status.ConnectedPeers; peers != 0 {
		t.Errorf("the stranger has %d peers", peers)
	}
}

type nodeStatus struct {
	Status struct {
		ConnectedPeers uint64 `json:",string"`
		IsSynced       bool
		SyncedLayer    struct{ Number int }
		TopLayer       struct{ Number int }
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	if err := tryJSON(path, v); err != nil {
		t.Fatal(err)
	}
}

func tryJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// getJSON reads what an HTTP server must answer.
func getJSON(t *testing.T, url string, v any) {
	t.Helper()
	if code, body := fetch(t, http.MethodGet, url, nil); code != http.StatusOK {
		t.Fatalf("%s answers %d: %s", url, code, body)
	} else if err := json.Unmarshal(body, v); err != nil {
		t.Fatalf("%s: %v: %s", url, err, body)
	}
}

// Ten runs in a row.
func TestTenRunsInARow(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: ten runs of four epochs take half an hour; set TWEEDLE_NIGHTLY=1")
	}
	for i := range 10 {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			n := up(t, "--nodes", "5", "--poets", "2", "--epochs", "4")
			<-n.done
			<-n.read
			var sum event
			if err := json.Unmarshal(n.last, &sum); err != nil || n.err != nil || sum.OK == nil || !*sum.OK || sum.StateRoots != 1 {
				t.Fatalf("%v, %v: %s", err, n.err, n.last)
			}
			n.checkNothingIsLeft(t)
			t.Logf("%s", n.last)
		})
	}
}
