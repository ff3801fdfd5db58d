package work

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tweedle/services/poet"
)

// metrics are what a worker counts. The name of the first is the reference's
// (reference/poet.md 3).
type metrics struct {
	leavesTotal *prometheus.CounterVec
	rate        *prometheus.GaugeVec
}

// newMetrics makes the metrics and registers them, if there is a registry.
func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	return &metrics{
		leavesTotal: with.NewCounterVec(prometheus.CounterOpts{
			Name: "poet_round_leaves_total", Help: "leaves computed in a round"}, []string{"id"}),
		rate: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "poet_round_leaves_per_second", Help: "leaves per second of a round, lately"}, []string{"id"}),
	}
}

func (m *metrics) computed(round uint32, leaves uint64) {
	m.leavesTotal.WithLabelValues(poet.RoundID(round)).Add(float64(leaves))
}

// forget removes the series of a round that is over, but for the reference's
// counters of the last rounds, which dashboards read after the end.
func (m *metrics) forget(round uint32) {
	m.rate.DeleteLabelValues(poet.RoundID(round))
	if round >= poet.KeptSeries {
		m.leavesTotal.DeleteLabelValues(poet.RoundID(round - poet.KeptSeries))
	}
}
