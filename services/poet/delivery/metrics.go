package delivery

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/services/poet"
)

// Metrics counts what delivery does. A nil *Metrics counts nothing.
type Metrics struct {
	gateways   *prometheus.GaugeVec
	candidates prometheus.Gauge
	pending    prometheus.Gauge
	oldest     prometheus.Gauge
	events     *prometheus.CounterVec
}

// NewMetrics registers the metrics of delivery.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		gateways: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "poet_gateways", Help: "Gateways by state; live ones have a slot."}, []string{"state"}),
		candidates: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "poet_gateway_candidates", Help: "Live gateways that may take a dead one's slot."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "poet_proofs_undelivered", Help: "Proofs that wait for delivery."}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "poet_proof_undelivered_age_seconds", Help: "How long the oldest undelivered proof has waited."}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "poet_delivery_events_total", Help: "Events of delivery by kind."}, []string{"event"}),
	}
	for _, k := range []poet.EventKind{GatewayLive, GatewaySuspect, GatewayDead, GatewayRecycled, GatewayLied, GatewaysIgnored,
		NoCandidates, BroadcastFailed, ProofAcknowledged, ProofDelivered, ProofExpired, ProofUnreadable, WriteFailed} {
		m.events.WithLabelValues(string(k)) // an absent series cannot raise an alert
	}
	r.MustRegister(m.gateways, m.candidates, m.pending, m.oldest, m.events)
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
	states := map[State]int{}
	for _, g := range machine.Gateways() {
		states[g.State]++
	}
	for _, state := range []State{Live, Suspect, Dead} {
		m.gateways.WithLabelValues(string(state)).Set(float64(states[state]))
	}
	m.candidates.Set(float64(states[Candidate]))
	var oldest time.Duration
	for _, it := range machine.proofs {
		if it.waits(date) {
			oldest = max(oldest, date.Sub(it.Added))
		}
	}
	m.pending.Set(float64(machine.waiting(date)))
	m.oldest.Set(oldest.Seconds())
}
