package front

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/status"
)

// Metrics counts calls under the names that the ecosystem's middleware uses
// (reference/poet.md 3), and refusals by limit. A nil *Metrics counts nothing.
type Metrics struct {
	started  *prometheus.CounterVec
	handled  *prometheus.CounterVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	limited  *prometheus.CounterVec
	panics   prometheus.Counter
}

// NewMetrics registers the metrics; those of our own begin with prefix.
func NewMetrics(prefix string, r prometheus.Registerer) *Metrics {
	call := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		started:  counter("grpc_server_started_total", "Calls started.", call...),
		handled:  counter("grpc_server_handled_total", "Calls finished, by status code.", append(call, "grpc_code")...),
		received: counter("grpc_server_msg_received_total", "Messages received.", call...),
		sent:     counter("grpc_server_msg_sent_total", "Messages sent.", call...),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "How long calls took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, call),
		limited: counter(prefix+"_requests_limited_total", "Connections, requests and replies that a limit refused.", "limit"),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "_request_panics_total", Help: "Requests that met a bug of the server."}),
	}
	r.MustRegister(m.started, m.handled, m.received, m.sent, m.seconds, m.limited, m.panics)
	return m
}

func (m *Metrics) begin(kind, method string, start time.Time) (end func(error)) {
	if m == nil {
		return func(error) {}
	}
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	labels := []string{kind, service, name}
	m.started.WithLabelValues(labels...).Inc()
	m.received.WithLabelValues(labels...).Inc()
	return func(err error) {
		m.seconds.WithLabelValues(labels...).Observe(time.Since(start).Seconds())
		m.handled.WithLabelValues(append(labels, status.Code(err).String())...).Inc()
		if err == nil {
			m.sent.WithLabelValues(labels...).Inc()
		}
	}
}

func (m *Metrics) refuse(limit string) {
	if m != nil {
		m.limited.WithLabelValues(limit).Inc()
	}
}

func (m *Metrics) panicked() {
	if m != nil {
		m.panics.Inc()
	}
}
