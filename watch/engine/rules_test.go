package engine

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	promrules "github.com/prometheus/prometheus/rules"
	"go.yaml.in/yaml/v3"

	"tweedle/watch/rules"
)

var update = flag.Bool("update", false, "write the unit tests for promtool anew")

const step = 15 * time.Second // of the tests: also a layer

// quiet is a network of three nodes and a PoET on one machine, with its watch,
// where nothing is wrong: series by name, values in promtool's notation.
func quiet(steps int) map[string]string {
	s := map[string]string{}
	n := fmt.Sprint("x", steps)
	still := func(v any) string { return fmt.Sprint(v, "+0", n) }
	put := func(job, name, series, values string) {
		metric, rest, _ := strings.Cut(series, "{")
		rest = strings.TrimSuffix(rest, "}")
		if rest != "" {
			rest = "," + rest
		}
		s[fmt.Sprintf(`%s{net="t",job="%s",name="%s",instance="%s:1"%s}`, metric, job, name, name, rest)] = values
	}
	targets := map[string]string{"node-1": "node", "node-2": "node", "node-3": "node", "poet-1": "poet", "watch": "watch", "host": "host", "super-1": "supervisor"}
	for name, job := range targets {
		put(job, name, "up", still(1))
		put("watch", "watch", fmt.Sprintf(`tweedle_watch_target{target_job="%s",target_name="%s"}`, job, name), still(1))
		if job != "node" {
			continue
		}
		for metric, v := range map[string]string{
			"tweedle_node_layer": "100+1" + n, "tweedle_node_applied_layer": "98+1" + n, "tweedle_node_first_layer": still(40),
			"tweedle_node_epoch": still(5), "tweedle_node_epoch_elapsed_ratio": still(0.9), "tweedle_node_atxs_published": still(10),
			"tweedle_node_atxs_published_before": still(10), "tweedle_node_smesher_atx_epoch": still(5), "tweedle_node_smesher_trouble": still(0),
			"tweedle_node_unsynced_layers": still(0), "tweedle_node_disputed": still(0), "tweedle_node_undone_layers_total": still(0),
			"tweedle_node_identity_elsewhere": still(0), "tweedle_node_peers_clock_ahead_seconds": still(0), `tweedle_p2p_peers{direction="in"}`: still(1), `tweedle_p2p_peers{direction="out"}`: still(1),
			`tweedle_p2p_bytes_total{direction="in"}`: "0+1000" + n, "tweedle_node_request_panics_total": still(0),
			"tweedle_node_poet_proof_timestamp_seconds": still(10), "tweedle_network_layer_seconds": still(15),
			`tweedle_node_state_info{layer="100",root="aa"}`: still(1),
		} {
			put(job, name, metric, v)
		}
	}
	for metric, v := range map[string]string{
		`poet_delivery_events_total{event="broadcast_failed"}`: still(0), `poet_delivery_events_total{event="gateway_recycled"}`: still(0),
		`poet_delivery_events_total{event="proof_unreadable"}`: still(0), `poet_events_total{kind="proof_overdue"}`: still(0),
		`poet_events_total{kind="damage_found"}`: still(0), `poet_events_total{kind="clock_jumped"}`: still(0), `poet_events_total{kind="write_failed"}`: still(0), `poet_events_total{kind="ballast_released"}`: still(0),
		"poet_proof_undelivered_age_seconds": still(2), "tweedle_network_epoch_seconds": still(300), `poet_gateways{state="live"}`: still(3),
		`poet_gateways{state="dead"}`: still(0), `poet_gateways{state="candidate"}`: still(2), "poet_last_proof_timestamp_seconds": still(9),
		"poet_proofs_undelivered": still(0), "poet_journals_paused": still(0), `poet_rounds{state="executing"}`: still(1), `poet_round_leaves_total{id="3"}`: "0+1000" + n,
		"process_start_time_seconds": still(0), "poet_disk_rounds_fit": still(10), "poet_disk_ballast": still(1), "poet_request_panics_total": still(0),
	} {
		put("poet", "poet-1", metric, v)
	}
	for metric, v := range map[string]string{
		`node_filesystem_avail_bytes{mountpoint="/",fstype="ext4"}`: still(60e9), `node_filesystem_size_bytes{mountpoint="/",fstype="ext4"}`: still(100e9),
		`node_filesystem_readonly{mountpoint="/",fstype="ext4"}`: still(0), `node_filesystem_files{mountpoint="/",fstype="ext4"}`: still(1000),
		`node_filesystem_files_free{mountpoint="/",fstype="ext4"}`: still(900), "node_memory_MemAvailable_bytes": still(8e9), "node_memory_MemTotal_bytes": still(16e9),
		"node_vmstat_oom_kill": still(0), `node_cpu_seconds_total{cpu="0",mode="idle"}`: "0+10" + n, "node_timex_offset_seconds": still(0.001),
	} {
		put("host", "host", metric, v)
	}
	for metric, v := range map[string]string{
		"tweedle_watch_config_valid": still(1), `alertmanager_notification_requests_failed_total{integration="webhook"}`: still(0),
		"prometheus_rule_evaluation_failures_total": still(0), "prometheus_tsdb_wal_writes_failed_total": still(0),
		"prometheus_tsdb_compactions_failed_total": still(0), "tweedle_watch_heartbeat_failures_total": still(0),
	} {
		put("watch", "watch", metric, v)
	}
	put("supervisor", "super-1", `tweedle_supervisor_crashes_total{reason="panic"}`, still(0))
	put("supervisor", "super-1", "tweedle_supervisor_events_untold", still(0))
	return s
}

// ruleCase changes the quiet network: each pair of set is a part of a series'
// name and its values; "-" takes the series away.
type ruleCase struct {
	alert string
	set   []string
	with  []string // alerts that fire too, because it is the same fault
	not   []string // set again: nearly the same, and the alert must not fire
	steps int      // of 15 s; 0: 40
}

func ruleCases() []ruleCase {
	return []ruleCase{
		{alert: "NodeCrashed", set: []string{"crashes_total", "0+0x10 1+0x30", "untold", "0+0x10 1+0x30"}, not: []string{"crashes_total", "0+0x10 1+0x30"}},
		{alert: "NodeCrashLooping", set: []string{"crashes_total", "0 1 2 3 4+0x36", "untold", "1+0x40"}, with: []string{"NodeCrashed"},
			not: []string{"crashes_total", "0 1 2+0x38", "untold", "1+0x40"}},
		{alert: "TargetDown", set: []string{`up{net="t",job="node",name="node-2"`, "1+0x10 0+0x30"}, not: []string{`up{net="t",job="node",name="node-2"`, "1 1 0 0 1+0x36"}},
		{alert: "TargetMissing", set: []string{`up{net="t",job="node",name="node-2"`, "-"}, not: []string{`up{net="t",job="node",name="node-2"`, "_x6 1+0x34"}},
		{alert: "DiskLow", set: []string{"avail_bytes", "4e9+0x40"}, not: []string{"avail_bytes", "6e9+0x40"}},
		{alert: "DiskWillFill", set: []string{"avail_bytes", "24e9-40e6x300"}, not: []string{"avail_bytes", "60e9-40e6x300"}, steps: 300},
		{alert: "DiskWillFill", set: []string{"avail_bytes", "24e9-20e6x400"}, not: []string{"avail_bytes", "24e9-25e6x40 23e9+0x360"}, steps: 400},
		{alert: "InodesLow", set: []string{"files_free", "40+0x80"}, not: []string{"files_free", "60+0x80"}, steps: 80},
		{alert: "MemoryLow", set: []string{"MemAvailable", "1e9+0x80"}, not: []string{"MemAvailable", "1e9+0x50 8e9+0x30"}, steps: 80},
		{alert: "OOMKilled", set: []string{"oom_kill", "0+0x10 1+0x30"}, not: []string{"oom_kill", "7+0x40"}},
		{alert: "CPUHigh", set: []string{`mode="idle"`, "0+1x200"}, not: []string{`mode="idle"`, "0+2x200"}, steps: 200},
		{alert: "ClockSkew", set: []string{"timex_offset", "0.6+0.001x80"}, not: []string{"timex_offset", "0.9-0.001x80"}, steps: 80},
		{alert: "ClockSkew", set: []string{"timex_offset", "-0.6-0.001x80"}, not: []string{"timex_offset", "-0.4-0.001x80"}, steps: 80},
		{alert: "PeersClockDiffers", set: []string{`clock_ahead_seconds{net="t",job="node",name="node-2"`, "3+0x40"}, not: []string{"clock_ahead_seconds", "3+0x3 0+0x37"}},
		{alert: "PeersClockDiffers", set: []string{`clock_ahead_seconds{net="t",job="node",name="node-2"`, "-3+0x40"}, not: []string{"clock_ahead_seconds", "0+0x36 -3+0x4"}},
		{alert: "NetworkStalled", set: []string{"applied_layer", "98+0x40"}, with: []string{"LayerStalled"}, not: []string{"applied_layer", "98+0x40", "first_layer", "140+0x40"}},
		// The chain of August 2020: its alert names each link (rules/testdata has the words).
		{alert: "NetworkStalled", set: []string{"applied_layer", "98+0x40", "atxs_published", "0+0x40", "proofs_undelivered", "2+0x40", `gateways{net="t",job="poet",name="poet-1",instance="poet-1:1",state="live"}`, "0+0x40",
			"rounds_fit", "0+0x40", `up{net="t",job="node",name="node-2"`, "0+0x40"}, with: []string{"LayerStalled", "PoetAllSlotsDead", "PoetDiskFull", "PoetDiskLow", "TargetDown"}},
		// One clock that is wrong is not the network's.
		{alert: "NetworkStalled", set: []string{"applied_layer", "98+0x40"}, with: []string{"LayerStalled"}, not: []string{`node_layer{net="t",job="node",name="node-2"`, "110+1x40"}},
		{alert: "LayerStalled", set: []string{`applied_layer{net="t",job="node",name="node-2"`, "98+0x40"}, not: []string{`applied_layer{net="t",job="node",name="node-2"`, "94+1x40"}},
		{alert: "SyncStuck", set: []string{`unsynced_layers{net="t",job="node",name="node-2"`, "0+1x40", `applied_layer{net="t",job="node",name="node-2"`, "98+0x40"}, with: []string{"LayerStalled"},
			not: []string{`unsynced_layers{net="t",job="node",name="node-2"`, "0+1x40", `applied_layer{net="t",job="node",name="node-2"`, "10+2x40"}},
		{alert: "StateRootFork", set: []string{`state_info{net="t",job="node",name="node-2"`, "-", `+tweedle_node_state_info{net="t",job="node",name="node-2",layer="100",root="bb"}`, "1+0x40"},
			not: []string{`state_info{net="t",job="node",name="node-2"`, "-", `+tweedle_node_state_info{net="t",job="node",name="node-2",layer="90",root="bb"}`, "1+0x40"}},
		{alert: "StateDisputed", set: []string{`disputed{net="t",job="node",name="node-2"`, "1+0x40"}, not: []string{"disputed", "0+0x40"}},
		{alert: "LayersUndone", set: []string{`undone_layers_total{net="t",job="node",name="node-2"`, "0+0x10 4+0x30"}, not: []string{"undone_layers_total", "4+0x40"}},
		{alert: "AtxDrop", set: []string{"atxs_published{", "6+0x40"}, not: []string{"atxs_published{", "6+0x40", "elapsed_ratio", "0.7+0x40"}},
		{alert: "AtxDrop", set: []string{"atxs_published{", "0+0x40"}, not: []string{"atxs_published", "0+0x40"}},
		{alert: "AtxDrop", set: []string{"atxs_published{", "6+0x40"}, not: []string{"atxs_published{", "6+0x40", "elapsed_ratio", "0.4+0x40",
			`elapsed_ratio{net="t",job="node",name="node-2"`, "0.9+0x40"}},
		{alert: "SmesherLate", set: []string{`smesher_atx_epoch{net="t",job="node",name="node-2"`, "4+0x40"}, not: []string{"smesher_atx_epoch", "-1+0x40"}},
		// Of a node with several identities, one.
		{alert: "SmesherLate", set: []string{`smesher_atx_epoch{net="t",job="node",name="node-2"`, "-",
			`+tweedle_node_smesher_atx_epoch{net="t",job="node",name="node-2",instance="node-2:1",identity="ab"}`, "5+0x40",
			`+tweedle_node_smesher_atx_epoch{net="t",job="node",name="node-2",instance="node-2:1",identity="cd"}`, "4+0x40"},
			not: []string{`smesher_atx_epoch{net="t",job="node",name="node-2"`, "-",
				`+tweedle_node_smesher_atx_epoch{net="t",job="node",name="node-2",instance="node-2:1",identity="ab"}`, "5+0x40",
				`+tweedle_node_smesher_atx_epoch{net="t",job="node",name="node-2",instance="node-2:1",identity="cd"}`, "-1+0x40"}},
		{alert: "SmesherTrouble", set: []string{`trouble{net="t",job="node",name="node-2"`, "1+0x40"}, not: []string{`trouble{net="t",job="node",name="node-2"`, "1+0x15 0+0x25"}},
		{alert: "IdentityTwice", set: []string{`elsewhere{net="t",job="node",name="node-2"`, "1+0x40"}, not: []string{"elsewhere", "0+0x40"}},
		{alert: "PeersLow", set: []string{`peers{net="t",job="node",name="node-2"`, "0+0x40"}, not: []string{`peers{net="t",job="node",name="node-2",instance="node-2:1",direction="in"`, "0+0x40"}},
		{alert: "SessionsDead", set: []string{`p2p_bytes_total{net="t",job="node",name="node-2"`, "5+0x40"}, not: []string{"p2p_bytes_total", "5+0x15 6+1x25"}},
		{alert: "ServerBug", set: []string{`request_panics_total{net="t",job="node",name="node-2"`, "0+0x10 1+0x30"}, not: []string{"request_panics_total", "1+0x40"}},
		{alert: "PoetBroadcastFailed", set: []string{"broadcast_failed", "0+0x10 1+0x30"}, not: []string{"broadcast_failed", "1+0x40"}},
		{alert: "PoetBroadcastFailed", set: []string{"broadcast_failed", "0+0x10 1+0x30", "epoch_seconds", "86400+0x40"}, not: []string{"broadcast_failed", "1+0x40"}},
		{alert: "PoetProofUndelivered", set: []string{"undelivered_age", "0+15x40"}, not: []string{"undelivered_age", "0+15x4 0+0x36"}},
		{alert: "PoetGatewaySlotDead", set: []string{`state="dead"`, "1+0x40"}, not: []string{`state="dead"`, "1+0x6 0+0x34"}},
		{alert: "PoetAllSlotsDead", set: []string{`state="live"`, "0+0x40"}, not: []string{`state="live"`, "0+0x40", `state="candidate"`, "0+0x40"}},
		{alert: "PoetSlotRecycled", set: []string{"gateway_recycled", "0+0x10 1+0x30"}, not: []string{"gateway_recycled", "1+0x40"}},
		{alert: "PoetRoundLate", set: []string{"proof_overdue", "0+0x10 1+0x30"}, not: []string{"proof_overdue", "1+0x40"}},
		{alert: "PoetRoundLate", set: []string{"proof_overdue", "0+0x10 1+0x30", "epoch_seconds", "86400+0x40"}, not: []string{"proof_overdue", "1+0x40"}},
		{alert: "ProofNotSeenByNodes", set: []string{"poet_last_proof_timestamp", "9+0x4 70+0x36"},
			not: []string{"poet_last_proof_timestamp", "9+0x4 70+0x36", "node_poet_proof_timestamp", "10+0x6 69+0x34"}},
		{alert: "PoetProofUnreadable", set: []string{"proof_unreadable", "0+0x10 1+0x30"}, not: []string{"proof_unreadable", "1+0x40"}},
		{alert: "PoetProofUnreadable", set: []string{"damage_found", "0+0x10 1+0x30"}, not: []string{"damage_found", "1+0x40"}},
		{alert: "PoetClockJumped", set: []string{"clock_jumped", "0+0x10 1+0x30"}, not: []string{"clock_jumped", "1+0x40"}},
		{alert: "PoetWriterStopped", set: []string{"journals_paused", "1+0x40"}, not: []string{"write_failed", "1+0x40"}},
		{alert: "PoetWriterStopped", set: []string{"write_failed", "0+0x10 1+0x30"}, not: []string{"journals_paused", "0+0x40"}},
		{alert: "PoetWriterStopped", set: []string{"write_failed", "0+0x10 1+0x30", "epoch_seconds", "86400+0x40"}, not: []string{"write_failed", "1+0x40"}},
		{alert: "PoetWorkerStopped", set: []string{"leaves_total", "9+0x40"}, not: []string{"leaves_total", "9+0x40", `state="executing"`, "0+0x40"}},
		{alert: "PoetDiskLow", set: []string{"rounds_fit", "1+0x40"}, not: []string{"rounds_fit", "2+0x40"}},
		{alert: "PoetDiskLow", set: []string{"disk_ballast", "0+0x40"}, not: []string{"disk_ballast", "1+0x40"}},
		{alert: "PoetDiskFull", set: []string{"rounds_fit", "0+0x40"}, with: []string{"PoetDiskLow"}, not: []string{"rounds_fit", "1+0x40"}},
		// The reserve was given up for a proof, and there is no room to have it again.
		{alert: "PoetDiskFull", set: []string{"disk_ballast", "1+0x10 0+0x30", "ballast_released", "0+0x10 1+0x30"}, with: []string{"PoetDiskLow"},
			not: []string{"disk_ballast", "1+0x10 0 1+0x28", "ballast_released", "0+0x10 1+0x30", "rounds_fit", "10+0x40"}},
		{alert: "PoetDiskFull", set: []string{"rounds_fit", "0+0x40"}, with: []string{"PoetDiskLow"}, not: []string{"disk_ballast", "0+0x40"}},
		{alert: "Watchdog", set: []string{}},
		{alert: "AlertDeliveryFailing", set: []string{"requests_failed_total", "0+0x10 1+0x30"}, not: []string{"requests_failed_total", "3+0x40"}},
		{alert: "RuleEvalFailing", set: []string{"rule_evaluation_failures", "0+0x10 1+0x30"}, not: []string{"rule_evaluation_failures", "3+0x40"}},
		{alert: "ConfigReloadFailed", set: []string{"config_valid", "0+0x40"}, not: []string{"config_valid", "1+0x40"}},
		{alert: "WatchStorageFailing", set: []string{"wal_writes_failed", "0+0x10 1+0x30"}, not: []string{"wal_writes_failed", "1+0x40"}},
		{alert: "HeartbeatFailing", set: []string{"heartbeat_failures", "0+1x40"}, not: []string{"heartbeat_failures", "0+0x10 1+0x30"}},
	}
}

// change applies the pairs of a case; a name that begins with + is a new series.
func change(t *testing.T, s map[string]string, set []string) {
	t.Helper()
	for i := 0; i < len(set); i += 2 {
		if name, ok := strings.CutPrefix(set[i], "+"); ok {
			s[name] = set[i+1]
			continue
		}
		found := false
		for name := range s {
			if !strings.Contains(name, set[i]) {
				continue
			}
			found = true
			if s[name] = set[i+1]; set[i+1] == "-" {
				delete(s, name)
			}
		}
		if !found {
			t.Fatalf("no series has %q", set[i])
		}
	}
}

// metricSet are names of metrics.
type metricSet map[string]bool

func (m metricSet) has(name string) bool { return m[name] }

// changes are the metrics of which a series differs, or is on one side only.
func changes(a, b map[string]string) metricSet {
	out := metricSet{}
	for _, pair := range [][2]map[string]string{{a, b}, {b, a}} {
		for series, values := range pair[0] {
			if pair[1][series] != values {
				metric, _, _ := strings.Cut(series, "{")
				out[metric] = true
			}
		}
	}
	return out
}

// fired is an alert that fired at the end, as promtool names it.
type fired struct {
	Labels      map[string]string `yaml:"exp_labels"`
	Annotations map[string]string `yaml:"exp_annotations"`
}

// simulate evaluates the rules that are asked for over the series; it returns which
// alerts fired ever, and those at the end.
func simulate(t *testing.T, series map[string]string, every time.Duration, steps int, asked func(alert string) bool) (ever map[string]time.Duration, end map[string][]fired) {
	t.Helper()
	var load strings.Builder
	fmt.Fprintf(&load, "load %ds\n", int(every.Seconds()))
	for _, name := range slices.Sorted(maps.Keys(series)) {
		fmt.Fprintf(&load, "  %s %s\n", name, series[name])
	}
	loader, err := promqltest.NewLazyLoader(load.String(), promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
	if err != nil {
		t.Fatal(err)
	}
	defer loader.Close()
	loader.SubqueryInterval = every
	var files ruleFiles
	files.set(rules.Files())
	opts := &promrules.ManagerOptions{
		Context: context.Background(), Appendable: loader.Storage(), QueryFunc: promrules.EngineQueryFunc(loader.QueryEngine(), loader.Storage()),
		NotifyFunc: func(context.Context, string, ...*promrules.Alert) {}, GroupLoader: &files, Logger: slog.New(slog.DiscardHandler),
	}
	loaded, errs := promrules.NewManager(opts).LoadGroups(every, labels.EmptyLabels(), "", nil, false, files.names()...)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	ever, end = map[string]time.Duration{}, map[string][]fired{}
	var groups []*promrules.Group
	for _, g := range loaded {
		var kept []promrules.Rule
		for _, r := range g.AlertingRules() {
			if asked(r.Name()) {
				r.SetRestored(true)
				kept = append(kept, r)
			}
		}
		if len(kept) > 0 {
			groups = append(groups, promrules.NewGroup(promrules.GroupOptions{Name: g.Name(), File: g.File(), Interval: every, Rules: kept, Opts: opts}))
		}
	}
	for i := range steps + 1 {
		at := time.Unix(0, 0).Add(time.Duration(i) * every)
		loader.WithSamplesTill(at, func(err error) {
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range groups {
				g.Eval(loader.Context(), at)
				for _, r := range g.AlertingRules() {
					if r.LastError() != nil {
						t.Fatalf("%s: %v", r.Name(), r.LastError())
					}
					for _, a := range r.ActiveAlerts() {
						if a.State != promrules.StateFiring {
							continue
						}
						if _, known := ever[r.Name()]; !known {
							ever[r.Name()] = at.Sub(time.Unix(0, 0))
						}
						if i == steps {
							end[r.Name()] = append(end[r.Name()], fired{a.Labels.Map(), a.Annotations.Map()})
						}
					}
				}
			}
		})
	}
	return ever, end
}

// Every rule fires for its fault, and no other rule with it but those that say the
// same; and it does not fire for what is nearly the fault. What asks for nothing that the
// fault changes says what it says of a quiet network, where all are evaluated: Watchdog's
// case. The cases are written as unit tests for promtool, too.
func TestEachRuleFiresForItsFaultOnly(t *testing.T) {
	tested, asks, home := map[string]bool{}, map[string][]string{}, map[string]string{}
	exprs, err := Expressions(rules.Files())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range exprs {
		file, alert, _ := strings.Cut(e.Where, ": ")
		asks[alert], home[alert] = e.Metrics, file
	}
	tests := map[string][]map[string]any{} // by rule file
	for i, c := range ruleCases() {
		tested[c.alert] = true
		if c.steps == 0 {
			c.steps = 40
		}
		t.Run(fmt.Sprintf("%d %s", i, c.alert), func(t *testing.T) {
			s := quiet(c.steps)
			change(t, s, c.set)
			changed := changes(quiet(c.steps), s)
			ever, end := simulate(t, s, step, c.steps, func(alert string) bool { return len(changed) == 0 || slices.ContainsFunc(asks[alert], changed.has) })
			if _, fires := ever[c.alert]; !fires {
				t.Errorf("it does not fire")
			}
			for name := range ever {
				if name != c.alert && name != "Watchdog" && !slices.Contains(c.with, name) {
					t.Errorf("%s fires too", name)
				}
			}
			tests[home[c.alert]] = append(tests[home[c.alert]], promtoolTest(asks, fmt.Sprintf("%s fires", c.alert), c.alert, c.steps, s, end[c.alert]))
			if c.not == nil {
				return
			}
			s = quiet(c.steps)
			change(t, s, c.not)
			ever, end = simulate(t, s, step, c.steps, func(alert string) bool { return alert == c.alert })
			if at, fires := ever[c.alert]; fires {
				t.Errorf("it fires after %s for what is not its fault: %v", at, end[c.alert])
			}
			tests[home[c.alert]] = append(tests[home[c.alert]], promtoolTest(asks, fmt.Sprintf("%s does not", c.alert), c.alert, c.steps, s, nil))
		})
	}
	for alert := range asks {
		if !tested[alert] {
			t.Errorf("%s has no test", alert)
		}
		if _, ok := rules.Runbook(alert); !ok {
			t.Errorf("%s has no runbook", alert)
		}
	}
	for file := range tests {
		promtoolFile(t, file, tests[file])
	}
}

func promtoolTest(asks map[string][]string, name, alert string, steps int, series map[string]string, want []fired) map[string]any {
	var input []map[string]string
	for _, n := range slices.Sorted(maps.Keys(series)) {
		if metric, _, _ := strings.Cut(n, "{"); !slices.Contains(asks[alert], metric) {
			continue // it would only take promtool's time
		}
		input = append(input, map[string]string{"series": n, "values": series[n]})
	}
	test := map[string]any{"eval_time": fmt.Sprintf("%ds", steps*int(step.Seconds())), "alertname": alert}
	if want != nil {
		test["exp_alerts"] = want
	}
	return map[string]any{"name": name, "interval": "15s", "input_series": input, "alert_rule_test": []any{test}}
}

// promtoolFile writes the tests, or compares them with the file that promtool runs. It evaluates
// every minute, of which each case takes a whole number: it is to say the same at the end.
func promtoolFile(t *testing.T, file string, tests []map[string]any) {
	t.Helper()
	b, err := yaml.Marshal(map[string]any{"rule_files": []string{"../" + file}, "evaluation_interval": "1m", "tests": tests})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "rules", "testdata", strings.TrimSuffix(file, ".yml")+"_test.yml")
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil || string(old) != string(b) {
		t.Errorf("%s is not what the cases say (%v): run go test ./engine -run Fault -update", path, err)
	}
}

// A quiet network raises nothing in 24 hours.
func TestQuietNetworkRaisesNothing(t *testing.T) {
	const minutes = 24 * 60
	s := quiet(minutes)
	ever, _ := simulate(t, s, time.Minute, minutes, func(string) bool { return true })
	delete(ever, "Watchdog")
	if len(ever) > 0 {
		t.Errorf("alerts in a quiet network: %v", ever)
	}
}
