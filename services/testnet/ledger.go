package testnet

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"tweedle/base/telemetry"
	"tweedle/values/types"
)

// ledger remembers what each node reported of each layer and of its ATXs, and
// judges a run by it. It is plain data with one owner.
type ledger struct {
	schedule types.Schedule
	first    types.Layer            // nothing before it is kept
	told     types.Layer            // the first layer that was not told yet
	newest   types.Layer            // that any node reported
	nodes    []string               // position = bit in a set
	reported map[string]types.Layer // by node: it has reported all layers before this one
	layers   map[types.Layer][]outcome
	atxs     map[string]map[types.Epoch]bool // by node: publish epochs seen
	proofs   map[string]bool                 // "PoET/round" of finished rounds
}

// maxTrackedLayers bounds the ledger: the oldest layers are forgotten, and a
// node that lags by more is no longer compared.
const maxTrackedLayers = 1 << 19

// outcome is what some of the nodes say a layer ended with.
type outcome struct {
	block, root  string
	txs, ballots int
	nodes        uint64 // set
}

func newLedger(s types.Schedule, first types.Layer) *ledger {
	return &ledger{
		schedule: s, first: first, told: first,
		reported: make(map[string]types.Layer),
		layers:   make(map[types.Layer][]outcome),
		atxs:     make(map[string]map[types.Epoch]bool),
		proofs:   make(map[string]bool),
	}
}

// bit returns the set that holds a node alone.
func (l *ledger) bit(node string) uint64 {
	i := slices.Index(l.nodes, node)
	if i < 0 {
		i = len(l.nodes)
		if i >= MaxNodes {
			panic("testnet: more nodes than the plan allows")
		}
		l.nodes = append(l.nodes, node)
	}
	return 1 << i
}

// next returns the first layer that a node has not reported.
func (l *ledger) next(node string) types.Layer {
	bit, n := l.bit(node), max(l.first, l.reported[node])
	for l.has(n, bit) {
		n++
	}
	l.reported[node] = n
	return n
}

func (l *ledger) has(n types.Layer, bit uint64) bool {
	for _, o := range l.layers[n] {
		if o.nodes&bit != 0 {
			return true
		}
	}
	return false
}

// lookBack is how many layers that a node has reported it is asked about
// again: it may have gone back.
const lookBack = 16

// ask returns the first layer that a node is to be asked about.
func (l *ledger) ask(node string) types.Layer {
	return max(l.first, l.next(node)-min(lookBack, l.next(node)))
}

// report takes in what a node says of a layer; its newest word counts, since a
// node may go back behind a layer that it had applied. It tells whether the node
// said something else before.
func (l *ledger) report(node string, s telemetry.LayerStatus) (changed bool) {
	n, bit := types.Layer(s.Layer), l.bit(node)
	if n < l.first {
		return false
	}
	l.newest = max(l.newest, n)
	same := func(o outcome) bool { return o.block == s.Block && o.root == s.StateRoot }
	if l.has(n, bit) && !slices.ContainsFunc(l.layers[n], func(o outcome) bool { return same(o) && o.nodes&bit != 0 }) {
		changed = true
		l.withdraw(n, bit)
	}
	for i, o := range l.layers[n] {
		if same(o) {
			l.layers[n][i].nodes |= bit
			// Nodes may have seen different ballots; the most is nearest to all.
			l.layers[n][i].ballots = max(o.ballots, s.Ballots)
			return changed
		}
	}
	l.layers[n] = append(l.layers[n], outcome{s.Block, s.StateRoot, s.Txs, s.Ballots, bit})
	for len(l.layers) > maxTrackedLayers {
		delete(l.layers, l.first)
		l.first++
	}
	return changed
}

// withdraw takes back what a node said of a layer.
func (l *ledger) withdraw(n types.Layer, bit uint64) {
	for i := range l.layers[n] {
		l.layers[n][i].nodes &^= bit
	}
	l.layers[n] = slices.DeleteFunc(l.layers[n], func(o outcome) bool { return o.nodes == 0 })
	if len(l.layers[n]) == 0 {
		delete(l.layers, n)
	}
}

// forget takes back what a node said of the layers from one to another. It is
// asked again.
func (l *ledger) forget(node string, from, to types.Layer) {
	for n := from; n <= to; n++ {
		l.withdraw(n, l.bit(node))
	}
	l.reported[node] = min(l.reported[node], from)
}

// standstill tells that no layers are applied, or nothing.
func (l *ledger) standstill(now types.Layer) string {
	newest := max(l.newest, l.first-1)
	if newest+stallLayers >= now {
		return ""
	}
	return fmt.Sprintf("the network stands still: the newest applied layer is %d, the clock is at %d, %d layers are missing", newest, now, now-newest-1)
}

// atx takes in that a node published an ATX in an epoch.
func (l *ledger) atx(node string, published types.Epoch) {
	if l.atxs[node] == nil {
		l.atxs[node] = make(map[types.Epoch]bool)
	}
	l.atxs[node][published] = true
}

// best returns the outcome that most nodes report; ties go to the first told.
func (l *ledger) best(n types.Layer) (outcome, bool) {
	all := l.layers[n]
	if len(all) == 0 {
		return outcome{}, false
	}
	return slices.MaxFunc(all, func(a, b outcome) int {
		return bits.OnesCount64(a.nodes) - bits.OnesCount64(b.nodes)
	}), true
}

// Lines of layers wait for the slower nodes, but not for ever.
const maxLayersBehind = 2

// tell returns the lines of the layers that can be told now: all running nodes
// have reported them, or one is already maxLayersBehind further.
func (l *ledger) tell(running []string) []Layer {
	var want uint64
	for _, n := range running {
		want |= l.bit(n)
	}
	var out []Layer
	for ; ; l.told++ {
		o, ok := l.best(l.told)
		further := l.told+maxLayersBehind <= l.newest
		if !further && (!ok || !l.complete(l.told, want)) {
			return out
		}
		if !ok {
			continue // nobody has it: the network stood still then
		}
		out = append(out, Layer{
			Layer: uint32(l.told), Epoch: uint32(l.schedule.EpochOf(l.told)),
			Block: o.block, Txs: o.txs, Ballots: o.ballots, StateRoot: o.root,
			Agree: bits.OnesCount64(o.nodes), Nodes: max(len(running), bits.OnesCount64(o.nodes)),
			Outcomes: len(l.layers[l.told]),
		})
	}
}

func (l *ledger) complete(n types.Layer, want uint64) bool {
	var have uint64
	for _, o := range l.layers[n] {
		have |= o.nodes
	}
	return have&want == want
}

// epochs returns the full epochs with ballots, of those that are over when
// layer now runs.
func (l *ledger) epochs(now types.Layer) []types.Epoch {
	var out []types.Epoch
	for e := l.firstFullEpoch(); l.schedule.First(e+1) <= now; e++ {
		if l.hadBallots(e) {
			out = append(out, e)
		}
	}
	return out
}

func (l *ledger) firstFullEpoch() types.Epoch {
	e := l.schedule.EpochOf(l.first)
	if l.schedule.First(e) < l.first {
		e++
	}
	return e
}

func (l *ledger) hadBallots(e types.Epoch) bool {
	for n := l.schedule.First(e); n < l.schedule.First(e+1); n++ {
		for _, o := range l.layers[n] {
			if o.ballots > 0 || o.block != "" {
				return true
			}
		}
	}
	return false
}

// Summary is the last event of a run.
type Summary struct {
	OK      bool     `json:"ok"`
	Reasons []string `json:"reasons"` // why it is not ok
	// Epochs is how many full epochs with ballots were judged, and Layers how
	// many layers they have; all further numbers are about them.
	Epochs              int `json:"epochs"`
	Layers              int `json:"layers"`
	EmptyLayers         int `json:"empty_layers"`
	TransactionsApplied int `json:"transactions_applied"`
	ATXs                int `json:"atxs"`        // that the smeshers published for these epochs
	PoetProofs          int `json:"poet_proofs"` // rounds finished during the run
	// StateRoots is the number of distinct roots at LastCommonLayer, the
	// newest layer that every node applied. One is what should be.
	StateRoots      int    `json:"state_roots"`
	LastCommonLayer uint32 `json:"last_common_layer"`
	StateRoot       string `json:"state_root,omitempty"` // if it is one

	failed bool // Up returns an error that says all of it
}

func (Summary) kind() string { return "summary" }
func (s Summary) text() string {
	out := "ok"
	if !s.OK {
		out = "NOT ok: " + strings.Join(s.Reasons, "; ")
	}
	if s.Epochs == 0 {
		return out + "\n    it ended before a full epoch with ballots was over: nothing was judged"
	}
	return fmt.Sprintf("%s\n    %s, %s (%d empty), %s applied,\n    %s, %s, %s at layer %d",
		out, count(s.Epochs, "epoch"), count(s.Layers, "layer"), s.EmptyLayers, count(s.TransactionsApplied, "transaction"),
		count(s.ATXs, "ATX"), count(s.PoetProofs, "PoET proof"), count(s.StateRoots, "state root"), s.LastCommonLayer)
}

// Limits of the verdict.
const (
	// maxEmptyPercent of the judged layers may have no block.
	maxEmptyPercent = 10
	// joinEpochs is how many epochs a node that was added has no ATX for: it
	// registers in the one it joins or the next, and publishes one later.
	joinEpochs = 3
	// maxNamedLayers is how many layers a reason names.
	maxNamedLayers = 3
)

// judge checks the epochs for all nodes of the plan.
func (l *ledger) judge(epochs []types.Epoch, nodes []member) Summary {
	s := Summary{Epochs: len(epochs), PoetProofs: len(l.proofs)}
	var diverged, unknown []types.Layer
	missed := make(map[string][]types.Epoch)
	for _, e := range epochs {
		for n := l.schedule.First(e); n < l.schedule.First(e+1); n++ {
			s.Layers++
			o, ok := l.best(n)
			switch {
			case !ok:
				unknown = append(unknown, n)
			case len(l.layers[n]) > 1:
				diverged = append(diverged, n)
			}
			if o.block == "" {
				s.EmptyLayers++
			}
			s.TransactionsApplied += o.txs
		}
		for _, m := range nodes {
			// An ATX counts in the epoch after the one it was published in.
			if l.atxs[m.Name][e-1] {
				s.ATXs++
			} else if e >= l.due(m) {
				missed[m.Name] = append(missed[m.Name], e)
			}
		}
	}
	for _, m := range nodes {
		if es := missed[m.Name]; len(es) > 0 {
			s.reason("%s published no ATX for %s", m.Name, epochList(es))
		}
	}
	if len(unknown) > 0 {
		s.reason("no node applied %s", layerList(unknown))
	}
	if len(diverged) > 0 {
		s.reason("nodes disagree about %s", layerList(diverged))
	}
	if s.EmptyLayers*100 > s.Layers*maxEmptyPercent {
		s.reason("%d of %d layers are empty, more than %d %%", s.EmptyLayers, s.Layers, maxEmptyPercent)
	}
	if len(epochs) > 0 {
		l.judgeProgress(&s, epochs, nodes)
	}
	s.OK = len(s.Reasons) == 0
	return s
}

// due returns the first epoch that a member must have an ATX for.
func (l *ledger) due(m member) types.Epoch {
	if m.Joined == 0 {
		return 0
	}
	return l.schedule.EpochOf(types.Layer(m.Joined)) + joinEpochs
}

// judgeProgress checks that every node has every layer, and finds the roots at
// the last common one.
func (l *ledger) judgeProgress(s *Summary, epochs []types.Epoch, nodes []member) {
	last := l.schedule.First(epochs[len(epochs)-1]+1) - 1
	common := last
	for _, m := range nodes {
		bit := l.bit(m.Name)
		var missing []types.Layer
		for _, e := range epochs {
			for n := l.schedule.First(e); n < l.schedule.First(e+1); n++ {
				if uint32(n) >= m.Joined && !l.has(n, bit) {
					missing = append(missing, n)
				}
			}
		}
		if len(missing) > 0 {
			s.reason("%s did not apply %s", m.Name, layerList(missing))
			common = min(common, missing[0]-1)
		}
	}
	if common < l.first {
		return
	}
	s.LastCommonLayer = uint32(common)
	roots := make(map[string]bool)
	// A layer without a block leaves the state as it is, and tells no root.
	for n := common; n >= l.first && len(roots) == 0; n-- {
		for _, o := range l.layers[n] {
			if o.root != "" {
				roots[o.root], s.StateRoot = true, o.root
			}
		}
	}
	if s.StateRoots = len(roots); s.StateRoots != 1 {
		s.StateRoot = ""
		s.reason("%d different state roots at layer %d", s.StateRoots, common)
	}
}

func (s *Summary) reason(format string, args ...any) {
	s.OK = false
	s.Reasons = append(s.Reasons, fmt.Sprintf(format, args...))
}

// layerList names a few layers.
// epochList names epochs, in order, as ranges.
func epochList(es []types.Epoch) string {
	var ranges []string
	for i := 0; i < len(es); {
		last := i
		for last+1 < len(es) && es[last+1] == es[last]+1 {
			last++
		}
		if last == i {
			ranges = append(ranges, es[i].String())
		} else {
			ranges = append(ranges, es[i].String()+"-"+es[last].String())
		}
		i = last + 1
	}
	if len(es) == 1 {
		return "epoch " + ranges[0]
	}
	return "epochs " + strings.Join(ranges, ", ")
}

func layerList(ls []types.Layer) string {
	var names []string
	for _, n := range ls[:min(len(ls), maxNamedLayers)] {
		names = append(names, n.String())
	}
	out := "layer " + strings.Join(names, ", ")
	if more := len(ls) - maxNamedLayers; more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}
