package rounds

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tweedle/services/poet"
)

// metrics are what the server counts. The names without "tweedle" are the
// reference's (reference/poet.md 3).
type metrics struct {
	membersTotal *prometheus.CounterVec
	batchLatency prometheus.Histogram
	withCert     *prometheus.CounterVec
	withPow      *prometheus.CounterVec

	rounds       *prometheus.GaugeVec
	paused       prometheus.Gauge
	diskFree     prometheus.Gauge
	diskNeeded   prometheus.Gauge
	roundsFit    prometheus.Gauge
	ballast      prometheus.Gauge
	journalBytes prometheus.Gauge
	events       *prometheus.CounterVec
	lastProof    prometheus.Gauge
}

// newMetrics makes the metrics and registers them, if there is a registry.
func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return with.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		membersTotal: counters("poet_round_members_total", "members registered in a round", "id"),
		batchLatency: with.NewHistogram(prometheus.HistogramOpts{
			Name: "poet_round_batch_write_latency_seconds", Help: "time to store a batch of registrations durably",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		withCert:     counters("poet_registration_with_cert_total", "registrations that came with a certificate", "result"),
		withPow:      counters("poet_registration_with_pow_total", "registrations that came with a proof of work", "result"),
		rounds:       with.NewGaugeVec(prometheus.GaugeOpts{Name: "poet_rounds", Help: "rounds in a state, of those without a stored proof"}, []string{"state"}),
		paused:       gauge("poet_journals_paused", "journals that the disk does not take"),
		diskFree:     gauge("poet_disk_free_bytes", "bytes that can be written to the disk of the data directory"),
		diskNeeded:   gauge("poet_disk_round_bytes", "bytes that one round needs"),
		roundsFit:    gauge("poet_disk_rounds_fit", "rounds that fit on the disk"),
		ballast:      gauge("poet_disk_ballast", "1 while the ballast file is in place"),
		journalBytes: gauge("poet_journal_bytes", "bytes of all journals"),
		events:       counters("poet_events_total", "events by kind", "kind"),
		lastProof:    gauge("poet_last_proof_timestamp_seconds", "when the last proof was stored; 0: none since the start"),
	}
	for _, k := range poet.EventKinds() {
		m.events.WithLabelValues(string(k)) // an absent series cannot raise an alert
	}
	return m
}

func (m *metrics) count(e poet.Event) {
	m.events.WithLabelValues(string(e.Kind)).Inc()
	if e.Kind == poet.EventProved {
		m.lastProof.SetToCurrentTime()
	}
}

func (m *metrics) joined(round uint32, members uint64) {
	m.membersTotal.WithLabelValues(poet.RoundID(round)).Add(float64(members))
}

// forget removes the series of the round that closed long before one that has
// closed now; dashboards read those of the last rounds after their end.
func (m *metrics) forget(closed uint32) {
	if closed >= poet.KeptSeries {
		m.membersTotal.DeleteLabelValues(poet.RoundID(closed - poet.KeptSeries))
	}
}

// show sets the gauges from the disk budget and the rounds that are not proved. Each
// state is set, and none taken away: a scrape in between must see a figure.
func (m *metrics) show(st poet.StorageStatus, rounds []poet.RoundStatus) {
	m.diskFree.Set(float64(st.Free))
	m.diskNeeded.Set(float64(st.Needed))
	m.roundsFit.Set(float64(st.Fit))
	m.journalBytes.Set(float64(st.Journals))
	m.ballast.Set(0)
	if st.Ballast {
		m.ballast.Set(1)
	}
	var paused int
	states := map[poet.RoundState]int{poet.StateOpen: 0, poet.StateClosed: 0, poet.StateExecuting: 0, poet.StateProving: 0}
	for _, r := range rounds {
		states[r.State]++
		if r.JournalPaused {
			paused++
		}
	}
	for state, n := range states {
		m.rounds.WithLabelValues(state.String()).Set(float64(n))
	}
	m.paused.Set(float64(paused))
}

func result(err error) string {
	if err != nil {
		return "invalid"
	}
	return "valid"
}
