package node

import (
	"math"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/base/durable"
	"tweedle/base/telemetry"
	"tweedle/protocol/core"
	"tweedle/values/types"
)

// checkpointEvery is every how many layers nodes show the root of their state, so
// that an observer finds the roots of the same layer.
const checkpointEvery = 10

// metrics are what a node counts. What it is, is read when it is asked for.
type metrics struct {
	disputes  prometheus.Counter
	undone    prometheus.Counter
	silent    prometheus.Counter
	decided   prometheus.Counter
	proposals prometheus.Counter
	certified prometheus.Counter
	signers   prometheus.Gauge
	malicious prometheus.Counter
	proofs    prometheus.Counter
	proofTime prometheus.Gauge

	atxs  *telemetry.Shares             // of PoETs, by publish epoch
	poets map[types.PoetProofRef]string // whose the last proofs are; the loop's own

	mu       sync.Mutex  // guards the following
	unsynced types.Layer // since when it is not synced, if it is not
}

// newMetrics makes and registers all metrics of the node itself.
func (n *Node) newMetrics() {
	telemetry.DescribeProcess(n.registry, n.cfg.Version, telemetry.Times{
		Genesis: n.schedule.Genesis, Layer: n.params.LayerDuration, Epoch: n.schedule.EpochDuration(),
	})
	counter := func(name, help string, labels prometheus.Labels) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "tweedle_node_" + name, Help: help, ConstLabels: labels})
		n.registry.MustRegister(c)
		return c
	}
	n.metrics.disputes = counter("disputes_total", "Certified decisions that do not fit our history.", nil)
	n.metrics.undone = counter("undone_layers_total", "Applied layers that were taken back.", nil)
	n.metrics.silent = counter("silent_layers_total", "Layers in which the node was to take part and did not.", nil)
	n.metrics.decided = counter("decided_layers_total", "Layers that this node decided by what it heard in time.", nil)
	n.metrics.proposals = counter("counted_proposals_total", "Proposals that counted in those layers.", nil)
	for _, i := range n.identities {
		labels := n.smeshers.Labels(i.NodeID())
		i.signed = counter("signed_layers_total", "Layers whose decision the own smesher signed.", labels)
		i.assigned = counter("eligibilities_assigned_total", "Slots of the own smesher, of all epochs since the start, each counted when it is known.", labels)
		i.used = counter("eligibilities_used_total", "Slots for which the own smesher has proposed.", labels)
	}
	n.smeshers.Register(n.registry, n.now)
	n.metrics.certified = counter("certified_layers_total", "Layers whose certificate is here.", nil)
	n.metrics.malicious = counter("malicious_smeshers_total", "Smeshers that were proved malicious.", nil)
	n.metrics.proofs = counter("poet_proofs_total", "PoET proofs that were stored.", nil)
	n.metrics.proofTime = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tweedle_node_poet_proof_timestamp_seconds", Help: "When the last PoET proof was stored; 0: none since the start."})
	n.metrics.signers = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tweedle_node_certificate_signatures", Help: "Signatures of the newest certificate of an applied layer."})
	n.registry.MustRegister(n.metrics.proofTime, n.metrics.signers, checkpoint{n})
	n.metrics.unsynced, n.metrics.poets = n.schedule.LayerAt(n.now()), map[types.PoetProofRef]string{}
	n.metrics.atxs = &telemetry.Shares{Desc: prometheus.NewDesc("tweedle_node_poet_atxs", "ATXs known that are published in this epoch or the one before, by the beginning of the id of the "+
		"PoET whose proof they refer to; before-start: those that were known when the node started.", []string{"poet", "epoch"}, nil),
		Most: 32, Periods: 4, Now: func() uint32 { return uint32(n.epoch()) }}
	n.registry.MustRegister(n.metrics.atxs)
	for e := max(n.epoch(), 1) - 1; e <= n.epoch(); e++ {
		if ids, err := n.db.EpochATXs(e); err == nil && len(ids) > 0 { // the store tells its faults itself
			n.metrics.atxs.Add(uint32(e), "before-start", len(ids)) // which proofs they refer to is not read again
		}
	}
	n.gauges()
}

// gauges shows the node's place in numbers.
func (n *Node) gauges() {
	gauge := func(name, help string, value func() float64) {
		n.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tweedle_node_" + name, Help: help}, value))
	}
	number := func(name, help string, of func(*core.Snapshot) int) {
		gauge(name, help, func() float64 { return float64(of(n.snapshot.Load())) })
	}
	yes := func(name, help string, of func(*core.Snapshot) bool) {
		number(name, help, func(s *core.Snapshot) int {
			if of(s) {
				return 1
			}
			return 0
		})
	}
	gauge("disk_free_bytes", "Bytes that can be written to the disk of the data directory.", func() float64 {
		free, err := (durable.OS{}).Free(n.cfg.Dir)
		if err != nil {
			return math.NaN() // not known; what is written there says why
		}
		return float64(free)
	})
	gauge("layer", "Layer by the clock.", func() float64 { return float64(n.schedule.LayerAt(n.now())) })
	gauge("epoch", "Epoch by the clock.", func() float64 { return float64(n.epoch()) })
	gauge("epoch_elapsed_ratio", "How much of the epoch has passed, from 0 to 1.", func() float64 {
		now := n.now()
		return now.Sub(n.schedule.EpochStart(n.schedule.EpochAt(now))).Seconds() / n.schedule.EpochDuration().Seconds()
	})
	gauge("first_layer", "The first layer that can have a block.", func() float64 { return float64(n.schedule.FirstBallotLayer()) })
	number("applied_layer", "Newest applied layer.", func(s *core.Snapshot) int { return int(s.Tip.Layer) })
	yes("synced", "1 while the node takes part.", func(s *core.Snapshot) bool { return s.Synced })
	number("unsynced_layers", "For how many layers the node has not taken part; 0 while it does.", func(s *core.Snapshot) int {
		if s.Synced {
			return 0
		}
		n.metrics.mu.Lock()
		defer n.metrics.mu.Unlock()
		return int(n.schedule.LayerAt(n.now()) - n.metrics.unsynced)
	})
	yes("disputed", "1 while others certified what does not fit our history.", func(s *core.Snapshot) bool { return s.Dispute.Layer != 0 })
	number("messages_parked", "Messages that wait for what they refer to.", func(s *core.Snapshot) int { return s.Parked })
	number("objects_wanted", "Objects that are asked for.", func(s *core.Snapshot) int { return s.Wanted })
	gauge("peers_clock_ahead_seconds", "How far the clocks of most peers are ahead of ours, 0 while that is not far.", func() float64 {
		return n.snapshot.Load().Clock.Seconds()
	})
	number("transactions_waiting", "Transactions in the pool.", func(s *core.Snapshot) int { return s.Waiting })
	gauge("atxs_published", "ATXs known that are published in this epoch.", func() float64 { return float64(n.countATXs(n.epoch())) })
	gauge("atxs_published_before", "ATXs known that were published in the epoch before.", func() float64 { return float64(n.countATXs(n.epoch() - 1)) })
}

func (n *Node) countATXs(e types.Epoch) int { return n.metrics.atxs.Count(uint32(e)) }

// poetOf names the PoET of a proof, which is read once while few are in use.
func (n *Node) poetOf(ref types.PoetProofRef) string {
	const inUse = 64
	known := n.metrics.poets
	if known[ref] == "" {
		if len(known) >= inUse {
			clear(known)
		}
		known[ref] = "unknown" // the store tells its faults itself
		if m, err := n.db.PoetProof(ref); err == nil {
			known[ref] = m.PoetID.Short()
		}
	}
	return known[ref]
}

// count counts what happened.
func (n *Node) count(e core.Event) {
	m := &n.metrics
	switch e := e.(type) {
	case core.Activated:
		m.atxs.Add(uint32(e.Entry.PublishEpoch), n.poetOf(e.Proof), 1)
	case core.PoetStored:
		m.proofs.Inc()
		m.proofTime.Set(float64(n.now().UnixMilli()) / 1000)
	case core.Undone:
		m.undone.Add(float64(e.From - e.To))
	case core.Disputed:
		m.disputes.Inc()
	case core.Caught:
		m.malicious.Inc()
	case core.Synced:
		m.mu.Lock()
		m.unsynced = n.schedule.LayerAt(n.now())
		m.mu.Unlock()
	case core.Silent:
		m.silent.Inc()
	case core.Eligible:
		n.identity(e.Smesher).assigned.Add(float64(e.Slots))
	case core.Proposed:
		n.identity(e.Smesher).used.Add(float64(e.Slots))
	case core.Decided:
		m.decided.Inc()
		m.proposals.Add(float64(e.Proposals))
		for _, id := range e.Signers {
			n.identity(id).signed.Inc()
		}
	case core.Applied:
		m.countCertificate(e.Certificate)
	case core.Certified:
		m.countCertificate(e.Certificate)
	}
}

func (m *metrics) countCertificate(c *types.Certificate) {
	if signers := len(c.Signatures); signers > 0 { // else it is still to come, or the next one says it too
		m.certified.Inc()
		m.signers.Set(float64(signers))
	}
}

// checkpoint shows the state's root after the newest layer that was applied and
// that checkpointEvery divides. It is one series at a time.
type checkpoint struct{ n *Node }

var stateDesc = prometheus.NewDesc("tweedle_node_state_info",
	"1, with the root of the state after a layer, every few layers: who shows the same layer must show the same root.", []string{"layer", "root"}, nil)

// Describe implements prometheus.Collector.
func (c checkpoint) Describe(to chan<- *prometheus.Desc) { to <- stateDesc }

// Collect implements prometheus.Collector.
func (c checkpoint) Collect(to chan<- prometheus.Metric) {
	layer := c.n.snapshot.Load().Tip.Layer / checkpointEvery * checkpointEvery
	last, err := c.n.db.LayerBefore(layer + 1)
	if err != nil {
		return // there is none yet
	}
	to <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, 1, strconv.Itoa(int(layer)), last.StateRoot.String()[:16])
}
