package delivery

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/services/poet"
)

// Metrics counts what delivery does. A nil *Metrics counts nothing.
type Metrics struct {
	gateways        *prometheus.GaugeVec
	pending, oldest prometheus.Gauge
	events          *prometheus.CounterVec
}

// NewMetrics registers the metrics of delivery.
func NewMetrics(r prometheus.Registerer) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &Metrics{
		gateways: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "poet_gateways", Help: "Gateways by state: live ones have a slot, candidates are live without one."}, []string{"state"}),
		pending: gauge("poet_proofs_undelivered", "Proofs that wait for delivery."),
		oldest:  gauge("poet_proof_undelivered_age_seconds", "How long the oldest undelivered proof has waited."),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "poet_delivery_events_total", Help: "Events of delivery by kind."}, []string{"event"}),
	}
	for _, k := range kinds() {
		m.events.WithLabelValues(string(k)) // an absent series cannot raise an alert
	}
	r.MustRegister(m.gateways, m.pending, m.oldest, m.events)
	return m
}

func (m *Metrics) count(e poet.Event) {
	if m != nil {
		m.events.WithLabelValues(string(e.Kind)).Inc()
	}
}

func (m *Metrics) set(machine *Machine, date time.Time) {
	if m == nil {
		return
	}
	states := map[State]int{Live: 0, Suspect: 0, Dead: 0, Candidate: 0}
	for _, g := range machine.Gateways() {
		states[g.State]++
	}
	for state, n := range states {
		m.gateways.WithLabelValues(string(state)).Set(float64(n))
	}
	var oldest time.Duration
	for _, it := range machine.proofs {
		if it.waits(date) {
			oldest = max(oldest, date.Sub(it.Added))
		}
	}
	m.pending.Set(float64(machine.waiting(date)))
	m.oldest.Set(oldest.Seconds())
}
