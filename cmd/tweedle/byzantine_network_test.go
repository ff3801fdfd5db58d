package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tweedle/edges/preset"
	"tweedle/edges/smeshing"
	"tweedle/edges/store"
	"tweedle/services/testnet"
	"tweedle/values/types"
)

// Seven honest nodes and three byzantine ones, of 30 % of the weight, for six epochs of the preset local with layers of
// six seconds: with its two, ten nodes on two processors are late for rounds of 143 ms as soon as anything else runs.
//
// Hardly a layer is empty: an iteration of Hare comes to nothing if a liar has its lowest ticket, once in three
// times, and all eight do so once in 6,000 layers; that no honest smesher has a slot happens once in three
// millions. What is left is a machine that is late: the 10 % that an honest testnet may have, too.
// A certificate and a beacon need two thirds of all weight, so all seven, who must be in time.
func TestAThirdOfTheWeightIsByzantine(t *testing.T) {
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("SKIPPED: ten nodes for six epochs take nine minutes; set TWEEDLE_NIGHTLY=1")
	}
	// Who is convicted has no weight from the next epoch on, so they begin one after the other.
	n := byzantineNetwork{nodes: 10, poets: 2, epochs: 6, lies: map[string]string{
		"node-8": "two-sets@3,silent", "node-9": "two-proposals@5,late", "node-10": "two-decisions@7,late,withheld-beacon",
	}, empty: 10, rules: preset.Rules{"layer_duration": "6s", "proposal_window": "2s"}}
	n.play(t)
}

// The same in short, with epochs of eight seconds. On a machine with all else to do they are short, too: half of the
// layers may be empty.
func TestOneOfFiveNodesIsByzantine(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED by -short: real processes for half a minute")
	}
	n := byzantineNetwork{nodes: 5, poets: 1, epochs: 2, lies: map[string]string{"node-5": "two-sets@3,late,withheld-beacon"}, empty: 50, rules: preset.Rules{
		"beacon_rounds": "2", "beacon_phase": "400ms", "layers_per_epoch": "4", "scrypt_n": "2",
		"poet_phase_shift": "2s", "poet_cycle_gap": "1500ms", "poet_grace": "1s",
	}}
	n.play(t)
}

// byzantineNetwork is a network of real processes of which some lie.
type byzantineNetwork struct {
	nodes, poets, epochs int
	lies                 map[string]string // by the names of nodes
	rules                preset.Rules
	empty                int // layers that may be, in percent

	dir      string
	network  preset.Network
	schedule types.Schedule
}

// settles is for how many layers after the last that is judged the network runs on.
const settles = 4

func (n *byzantineNetwork) play(t *testing.T) {
	program, err := exec.LookPath(byzantine)
	if err != nil {
		t.Fatal(err)
	}
	n.dir = t.TempDir()
	options := testnet.Options{
		Dir: n.dir, Nodes: n.nodes, Poets: n.poets, Rules: n.rules, TxRate: testnet.DefaultTxRate, Executable: program,
		Arguments: make(map[string][]string),
	}
	for name, lies := range n.lies {
		options.Arguments[name] = []string{"--" + byzantineFlag, lies}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	options.Prepared = func() error {
		var p preset.Params
		if n.network, err = preset.Load(filepath.Join(n.dir, preset.File)); err == nil {
			p, err = n.network.Params()
		}
		n.schedule = n.network.Schedule(p)
		end := n.schedule.LayerStart(n.last() + 1 + settles)
		time.AfterFunc(time.Until(end), cancel)
		return err
	}
	sum, err := testnet.Up(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d nodes, epochs %d to %d; %v lie: %d of %d layers are empty at all; the testnet says: %v",
		n.nodes, types.FirstEpochWithBallots, n.schedule.EpochOf(n.last()), n.lies, sum.EmptyLayers, sum.Layers, sum.Reasons)
	n.judge(t)
}

// last is the last layer that is judged.
func (n *byzantineNetwork) last() types.Layer {
	return n.schedule.First(types.FirstEpochWithBallots+types.Epoch(n.epochs)) - 1
}

// judge reads what the nodes have stored.
func (n *byzantineNetwork) judge(t *testing.T) {
	liars := make(map[types.NodeID]string) // that must be proved to be
	for name, lies := range n.lies {
		all, err := smeshing.Identities(n.network.ID(), filepath.Join(n.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for lie, times := range n.toldBy(t, name) {
			t.Logf("%s told %s %d times", name, lie, times)
			if slices.Contains(proved, lie) {
				liars[all[0].Signer.NodeID()] = name
			}
		}
		for _, lie := range proved {
			if strings.Contains(lies, lie) && liars[all[0].Signer.NodeID()] == "" {
				t.Errorf("%s never told %s", name, lie)
			}
		}
	}
	first, want := "", map[types.Layer]string(nil)
	for i := range n.nodes {
		name := fmt.Sprint("node-", i+1)
		if n.lies[name] != "" {
			continue
		}
		layers, malicious := n.read(t, name)
		if first == "" {
			first, want = name, layers
		} else if !maps.Equal(layers, want) {
			t.Errorf("%s and %s differ:\n%v\n%v", first, name, want, layers)
		}
		for id, liar := range liars {
			if _, ok := malicious[id]; !ok {
				t.Errorf("%s does not know that %s lied", name, liar)
			}
			delete(malicious, id)
		}
		for id := range malicious {
			t.Errorf("%s convicted %s, who is honest", name, id)
		}
	}
	layers := int(n.last()-n.schedule.FirstBallotLayer()) + 1
	empty := layers - len(want)
	t.Logf("%d of %d layers are empty", empty, layers)
	if empty*100 > layers*n.empty {
		t.Errorf("%d of %d layers are empty; %s has %v", empty, layers, first, want)
	}
}

// read returns the blocks and states of the judged layers that a node has, and whom it knows to be malicious.
func (n *byzantineNetwork) read(t *testing.T, name string) (map[types.Layer]string, map[types.NodeID]time.Time) {
	db, err := store.Open(filepath.Join(n.dir, name), n.network.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	stored, err := db.BlockLayers(n.schedule.FirstBallotLayer(), store.MaxPage)
	if err != nil {
		t.Fatal(err)
	}
	layers := make(map[types.Layer]string)
	for _, l := range stored {
		if l.Layer <= n.last() {
			layers[l.Layer] = fmt.Sprintf("block %s on state %s", l.Block.Short(), l.StateRoot.Short())
		}
	}
	malicious, err := store.Core{Reader: db.Loop()}.Malicious()
	if err != nil {
		t.Fatal(err)
	}
	return layers, malicious
}

var tellsOfLies = regexp.MustCompile(`msg=lie told=(\S+)`)

// toldBy counts the lies that a node told.
func (n *byzantineNetwork) toldBy(t *testing.T, name string) map[string]int {
	log, err := os.ReadFile(filepath.Join(n.dir, name, "log"))
	if err != nil {
		t.Fatal(err)
	}
	times := make(map[string]int)
	for _, m := range tellsOfLies.FindAllStringSubmatch(string(log), -1) {
		times[m[1]]++
	}
	return times
}
