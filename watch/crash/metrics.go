package crash

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what a supervisor counts. The program's name is a label of the
// target, not of the series.
type metrics struct {
	crashes *prometheus.CounterVec
	starts  prometheus.Counter
	up      prometheus.Gauge
	waiting prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	with := promauto.With(reg)
	m := &metrics{
		crashes: with.NewCounterVec(prometheus.CounterOpts{Name: "tweedle_supervisor_crashes_total", Help: "Deaths of the supervised program, by reason."}, []string{"reason"}),
		starts:  with.NewCounter(prometheus.CounterOpts{Name: "tweedle_supervisor_starts_total", Help: "Starts of the supervised program."}),
		up:      with.NewGauge(prometheus.GaugeOpts{Name: "tweedle_supervisor_healthy", Help: "1 while the supervised program runs and has done so for a while."}),
		waiting: with.NewGauge(prometheus.GaugeOpts{Name: "tweedle_supervisor_events_untold", Help: "Deaths that nobody has taken yet."}),
	}
	for _, r := range Reasons() {
		m.crashes.WithLabelValues(string(r)) // an absent series cannot raise an alert
	}
	return m
}
