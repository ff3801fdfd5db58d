// Package page shows people a network: whether it is well and, if not, why, from its
// nodes and PoETs to the state.
//
// It promises: what is shown is a pure function of what was seen (Build); readers get the
// whole once and then what changed, at most once a second; who reads slowly is dropped and
// delays nobody; nothing is changed without the watch's token or from another site's page; no
// secret is part of the page. It leaves to the caller: samples and alerts (it knows no
// monitoring library), who has the token, and where it is served.
package page

import (
	"math"
	"time"

	"tweedle/base/telemetry"
)

// Target is a program that is watched.
type Target struct {
	Job, Name string
	Address   string // of its metrics listener
	Admin     string // of a PoET's admin API; empty: it is not known
	TokenFile string // with the token of that API
}

// Sample is a series at one moment.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Alert is one that fires, or did.
type Alert struct {
	Name      string
	Labels    map[string]string
	Summary   string
	Detail    string // a stack, or the last lines of a log
	Since     time.Time
	Inhibited bool // another one says why
	Silence   *Silence
	Death     *Death // that it tells
	Ended     bool   // it fires no more: only its death matters
}

// Silence is why nobody is told of an alert.
type Silence struct {
	ID      string    `json:"id"`
	By      string    `json:"by"`
	Comment string    `json:"comment"`
	Until   time.Time `json:"until"`
}

// Seen is all that is known at one moment.
type Seen struct {
	At      time.Time
	Network string
	Every   time.Duration // between two of these
	Targets []Target
	Series  []Sample
	Alerts  []Alert
	Deaths  []Death // that were told since the watch started, the oldest first
	Nodes   map[string]NodeSeen
	Poets   map[string]PoetSeen
	ATXs    map[uint32]int // published, by epoch, of epochs that are over
}

// NodeSeen is what a node said last.
type NodeSeen struct {
	At      time.Time // of its last answer; zero: there was none
	Trouble string    // why the newest question had none
	Status  telemetry.NodeStatus
	Layers  map[uint32]telemetry.LayerStatus // of the last Window layers
}

// PoetSeen is what a PoET's admin API said last.
type PoetSeen struct {
	At       time.Time
	Trouble  string
	Rounds   []Round
	Gateways []Gateway
	Slots    int
	Storage  Storage
}

// Round is one round of a PoET.
type Round struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // open, closed, executing, proving, finished
	Start    time.Time `json:"start,omitzero"`
	End      time.Time `json:"end,omitzero"`
	Members  uint64    `json:"members"`
	Leaves   uint64    `json:"leaves"`
	Expected uint64    `json:"expected"` // leaves at its end
	Trouble  string    `json:"trouble,omitempty"`
	Proof    *Proof    `json:"proof,omitempty"`
}

// Proof is a round's proof in the outbox.
type Proof struct {
	State     string    `json:"state"` // pending, delivered, expired
	Since     time.Time `json:"since,omitzero"`
	Delivered time.Time `json:"delivered,omitzero"`
	KeptBy    int       `json:"kept_by"` // gateways
	Attempts  uint32    `json:"attempts"`
	Trouble   string    `json:"trouble,omitempty"`
}

// Gateway is a node to which a PoET delivers.
type Gateway struct {
	Addr        string    `json:"addr"`
	State       string    `json:"state"` // live: it has a slot; candidate: live, without one; suspect; dead
	Source      string    `json:"source"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	Trouble     string    `json:"trouble,omitempty"`
}

// Storage is a PoET's disk.
type Storage struct {
	Free    uint64 `json:"free"`
	Needed  uint64 `json:"needed"` // for one more round
	Fit     uint64 `json:"fit"`    // rounds that fit
	Trouble string `json:"trouble,omitempty"`
}

// Window is how many layers are shown.
const Window = 100

// Metrics are the names of the series that Build reads.
func Metrics() []string {
	return []string{
		"up", "process_resident_memory_bytes", "process_start_time_seconds", "tweedle_build_info", "tweedle_network_genesis_timestamp_seconds",
		"tweedle_network_layer_seconds", "tweedle_network_epoch_seconds", "tweedle_node_first_layer", "tweedle_node_atxs_published",
		"tweedle_node_atxs_published_before", "tweedle_node_poet_atxs", "tweedle_node_smesher_atx_epoch", "poet_gateways", "poet_proofs_undelivered", "poet_proof_undelivered_age_seconds",
		"poet_disk_rounds_fit", "poet_disk_free_bytes", "poet_disk_round_bytes", "poet_rounds", "tweedle_node_disk_free_bytes",
	}
}

// What Build reads besides: answers to expressions, which have these names in place of a metric's.
const (
	seriesCPU      = "page:cpu"      // processors in use
	seriesFull     = "page:full"     // seconds until the disk is full, if it goes on so
	seriesRestarts = "page:restarts" // within restartSpan
)

// Expressions are what answers those names: nothing that nodes are asked for, only what the watch has.
func Expressions() map[string]string {
	return map[string]string{
		seriesCPU: `rate(process_cpu_seconds_total{job=~"node|poet"}[1m])`,
		// A slope of a few samples is none.
		seriesFull: `tweedle_node_disk_free_bytes / -(deriv(tweedle_node_disk_free_bytes[1h]) < 0) and tweedle_node_disk_free_bytes offset 30m`,
		// Start times move with the machine's clock; processor time begins anew only with a process.
		seriesRestarts: `resets(process_cpu_seconds_total{job=~"node|poet"}[1d])`,
	}
}

// series finds samples: by metric, then by program.
type series map[string]map[program][]Sample

type program struct{ job, name string }

func index(all []Sample) series {
	out := series{}
	for _, s := range all {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			continue // JSON has no such numbers
		}
		metric, p := s.Labels["__name__"], program{s.Labels["job"], s.Labels["name"]}
		if out[metric] == nil {
			out[metric] = map[program][]Sample{}
		}
		out[metric][p] = append(out[metric][p], s)
	}
	return out
}

// of returns the value of a program's series; more are label and value of each other
// label that it must have.
func (s series) of(metric, job, name string, more ...string) (float64, bool) {
	for _, one := range s[metric][program{job, name}] {
		fits := true
		for i := 0; i+1 < len(more); i += 2 {
			fits = fits && one.Labels[more[i]] == more[i+1]
		}
		if fits {
			return one.Value, true
		}
	}
	return 0, false
}

// times are those of the network, in seconds.
type times struct {
	genesis      time.Time
	layer, epoch float64
	first        uint32 // layer that can have a block
}

// What no network has, and no page can show.
const (
	latest      = 1 << 33 // seconds since 1970: the year 2242
	shortest    = 0.001   // layer, in seconds
	longest     = 1 << 30 // epoch, in seconds
	latestFirst = 1 << 30
)

// times returns the network's times; ok is false if nobody told them, or they cannot be.
func (s series) times() (t times, ok bool) {
	genesis, ok := s.most("tweedle_network_genesis_timestamp_seconds")
	t.layer, _ = s.most("tweedle_network_layer_seconds")
	t.epoch, _ = s.most("tweedle_network_epoch_seconds")
	first, _ := s.most("tweedle_node_first_layer")
	if !ok || genesis <= 0 || genesis > latest || t.layer < shortest || t.epoch < t.layer || t.epoch > longest || first < 0 || first > latestFirst {
		return t, false
	}
	t.genesis, t.first = time.UnixMilli(int64(genesis*1000)).UTC(), uint32(first)
	return t, true
}

// most returns the largest value of a metric, whoever has it.
func (s series) most(metric string) (most float64, ok bool) {
	for _, all := range s[metric] {
		for _, one := range all {
			if !ok || one.Value > most {
				most, ok = one.Value, true
			}
		}
	}
	return most, ok
}

// mostShown bounds what of a label a page shows.
const mostShown = 64

// mostBy returns the largest value of a metric, whoever has it, for each value of a label, where another label
// is as given.
func (s series) mostBy(metric, label, where, is string) map[string]int {
	out := map[string]int{}
	for _, all := range s[metric] {
		for _, one := range all {
			name := clip(one.Labels[label], maxText)
			if _, known := out[name]; one.Labels[where] != is || !known && len(out) >= mostShown {
				continue
			}
			out[name] = max(out[name], int(one.Value))
		}
	}
	return out
}
