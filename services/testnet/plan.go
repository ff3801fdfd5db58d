package testnet

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"tweedle/edges/preset"
)

// Kind is what a process is.
type Kind string

// The kinds of processes.
const (
	Node Kind = "node"
	Poet Kind = "poet"
	// Watch is in no plan: a testnet has one if its program is there.
	Watch Kind = "watch"
)

// Defaults of a new testnet.
const (
	DefaultNodes    = 5
	DefaultPoets    = 2
	DefaultGateways = 5
	DefaultPreset   = "local"
	DefaultTxRate   = 5 // transactions per second
	// DefaultLeavesPerSecond leaves most of a core to the nodes.
	DefaultLeavesPerSecond = 2000
)

// member is one process of the plan.
type member struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	// Joined is the layer in which it was added; 0 for those of the start.
	Joined uint32 `json:"joined"`
}

// plan is what testnet.json holds: the processes, and how they are set up.
type plan struct {
	Preset string `json:"preset"`
	// Rules are what the network has otherwise than its preset.
	Rules              preset.Rules `json:"rules,omitempty"`
	Gateways           int          `json:"gateways"`
	MaxLeavesPerSecond uint64       `json:"max_leaves_per_second"`
	BasePort           int          `json:"base_port,omitempty"` // 0: ports are the system's choice
	Members            []member     `json:"members"`             // nodes, then PoETs, then those added

	network network // of network.json
}

// number returns the number in a process name of this kind; 0: none.
func (k Kind) number(name string) int {
	digits, ok := strings.CutPrefix(name, string(k)+"-")
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || k.name(n) != name {
		return 0
	}
	return n
}

func (k Kind) name(n int) string { return fmt.Sprintf("%s-%d", k, n) }

// names returns the processes of a kind, in the order of their numbers.
func (p *plan) names(k Kind) []string {
	var out []string
	for _, m := range p.Members {
		if m.Kind == k {
			out = append(out, m.Name)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return k.number(a) - k.number(b) })
	return out
}

// add plans one more process of a kind, under the next free name.
func (p *plan) add(k Kind, layer uint32) (member, error) {
	names, limit := p.names(k), map[Kind]int{Node: MaxNodes, Poet: MaxPoets}[k]
	if len(names) >= limit {
		return member{}, fmt.Errorf("there are %d processes of kind %s, the most that one testnet holds", limit, k)
	}
	next := 1
	if len(names) > 0 {
		next = k.number(names[len(names)-1]) + 1
	}
	m := member{Name: k.name(next), Kind: k, Joined: layer}
	p.Members = append(p.Members, m)
	return m, nil
}

// newPlan lays out a testnet; options that are 0 or empty have been filled.
func newPlan(o Options) *plan {
	p := &plan{Preset: o.Preset, Rules: o.Rules, Gateways: o.Gateways, MaxLeavesPerSecond: o.MaxLeavesPerSecond, BasePort: o.BasePort}
	for range o.Nodes {
		p.add(Node, 0)
	}
	for range o.Poets {
		p.add(Poet, 0)
	}
	return p
}

// withDefaults fills what the caller left open.
func (o Options) withDefaults() Options {
	if o.Nodes == 0 {
		o.Nodes = DefaultNodes
	}
	if o.Poets == 0 {
		o.Poets = DefaultPoets
	}
	if o.Gateways == 0 {
		o.Gateways = min(DefaultGateways, o.Nodes)
	}
	if o.Preset == "" {
		o.Preset = DefaultPreset
	}
	if o.MaxLeavesPerSecond == 0 {
		o.MaxLeavesPerSecond = DefaultLeavesPerSecond
	}
	return o
}

// matches tells whether the options, where set, ask for this very testnet.
func (p *plan) matches(o Options) bool {
	same := func(want, have int) bool { return want == 0 || want == have }
	return same(o.Nodes, len(p.names(Node))) && same(o.Poets, len(p.names(Poet))) &&
		same(o.Gateways, p.Gateways) && (o.Preset == "" || o.Preset == p.Preset) &&
		(len(o.Rules) == 0 || maps.Equal(o.Rules, p.Rules))
}

func (p *plan) String() string {
	otherwise := ""
	if len(p.Rules) > 0 {
		otherwise = fmt.Sprintf(" with %d rules otherwise", len(p.Rules))
	}
	return fmt.Sprintf("preset %s%s, %d nodes, %d PoETs, %d gateways",
		p.Preset, otherwise, len(p.names(Node)), len(p.names(Poet)), p.Gateways)
}

// prepare returns the plan of the testnet in the directory: the one that is
// there, or a new one, written before anything starts.
func (d *lockedDir) prepare(o Options, now time.Time) (p *plan, resumed bool, err error) {
	if d.isTestnet() && o.Fresh {
		if err := d.clear(); err != nil {
			return nil, false, err
		}
	}
	planned := d.isTestnet()
	if planned {
		p, err = d.readPlan()
	} else {
		p, err = newPlan(o.withDefaults()), d.checkForeign()
	}
	switch {
	case err != nil:
		return nil, false, err
	case !p.matches(o):
		return nil, false, fmt.Errorf("%s holds another testnet (%v): leave out the flags to continue it, start anew with --fresh, or choose another --dir", d.directory, p)
	}
	if err := d.checkSpace(len(p.Members)); err != nil {
		return nil, false, err
	}
	if planned && o.BasePort != 0 && o.BasePort != p.BasePort { // it is nothing that anybody agreed on
		p.BasePort, planned = o.BasePort, false
	}
	if !planned {
		// If we stop before this, the directory is still empty; after it, `up`
		// finds a testnet without a network.
		if err := d.save(p, planFile); err != nil {
			return nil, false, err
		}
	}
	if _, err := os.Stat(d.path(networkFile)); errors.Is(err, fs.ErrNotExist) {
		// If we stop before this is done, the next `up` is here again.
		p.network, err = d.createNetwork(p, now)
		return p, false, err
	}
	p.network, err = d.loadNetwork()
	return p, true, err
}

// readPlan reads the plan without its network.
func (d directory) readPlan() (*plan, error) {
	p := new(plan)
	if err := d.load(p, planFile); err != nil {
		return nil, err
	}
	for _, m := range p.Members {
		if m.Kind.number(m.Name) == 0 {
			return nil, fmt.Errorf("%s is damaged (process %.40q): start anew with --fresh", d.path(planFile), m.Name)
		}
	}
	return p, nil
}

// loadPlan reads the plan and its network.
func (d directory) loadPlan() (*plan, error) {
	p, err := d.readPlan()
	if err != nil {
		return nil, err
	}
	p.network, err = d.loadNetwork()
	return p, err
}
