package delivery

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tweedle/services/poet"
)

// Metrics counts what delivery does. A nil *Metrics counts nothing.
type Metrics struct {
	gateways        *prometheus.GaugeVec
	pending, oldest prometheus.Gauge
	events          *prometheus.CounterVec
	delivered       prometheus.Gauge
}

// NewMetrics registers the metrics of delivery.
func NewMetrics(r prometheus.Registerer) *Metrics {
	with := promauto.With(r)
	m := &Metrics{
		gateways: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "poet_gateways", Help: "Gateways by state: live ones have a slot, candidates are live without one."}, []string{"state"}),
		pending: with.NewGauge(prometheus.GaugeOpts{Name: "poet_proofs_undelivered", Help: "Proofs that wait for delivery."}),
		oldest:  with.NewGauge(prometheus.GaugeOpts{Name: "poet_proof_undelivered_age_seconds", Help: "How long the oldest undelivered proof has waited."}),
		events: with.NewCounterVec(prometheus.CounterOpts{
			Name: "poet_delivery_events_total", Help: "Events of delivery by kind."}, []string{"event"}),
		delivered: with.NewGauge(prometheus.GaugeOpts{
			Name: "poet_last_delivery_timestamp_seconds", Help: "When the last proof was delivered; 0: none since the start."}),
	}
	for _, k := range kinds() {
		m.events.WithLabelValues(string(k)) // an absent series cannot raise an alert
	}
	return m
}

func (m *Metrics) count(e poet.Event) {
	if m != nil {
		m.events.WithLabelValues(string(e.Kind)).Inc()
		if e.Kind == ProofDelivered {
			m.delivered.SetToCurrentTime()
		}
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
