package p2p

import (
	"time"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
)

// hostMetrics has no label that a peer can choose the values of.
type hostMetrics struct {
	refused      *prometheus.CounterVec   // direction, reason
	limited      *prometheus.CounterVec   // limit
	gossipIn     *prometheus.CounterVec   // topic, verdict
	gossipOut    *prometheus.CounterVec   // topic: one for each peer that a message was queued for
	gossipDrop   prometheus.Counter       // outbound, the peer's queue was full
	gossipBytes  *prometheus.CounterVec   // topic, payloads that entered validation
	handlerTime  *prometheus.HistogramVec // topic
	requestTime  *prometheus.HistogramVec // protocol, result: as the asking side
	servedTime   *prometheus.HistogramVec // protocol, result: as the answering side
	dials        *prometheus.CounterVec   // result
	bytes        *prometheus.CounterVec   // direction, all streams
	bytesIn, out prometheus.Counter       // the two of bytes
}

// seconds from 1 ms to about 30 s.
func latencyBuckets() []float64 { return prometheus.ExponentialBuckets(0.001, 2, 16) }

func newHostMetrics() *hostMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tweedle", Subsystem: "p2p", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "tweedle", Subsystem: "p2p", Name: name, Help: help, Buckets: latencyBuckets()}, labels)
	}
	m := &hostMetrics{
		refused:     counter("refused_connections_total", "Connections closed before or at the hello.", "direction", "reason"),
		limited:     counter("limited_total", "Times that a limit of what a peer does with its connections, or of what is remembered of peers, was met.", "limit"),
		gossipIn:    counter("gossip_received_total", "Gossip messages received, by what became of them.", "topic", "verdict"),
		gossipOut:   counter("gossip_sent_total", "Gossip messages queued for a peer.", "topic"),
		gossipBytes: counter("gossip_received_bytes_total", "Payload bytes of new gossip messages.", "topic"),
		handlerTime: histogram("gossip_handler_seconds", "Time a gossip handler took.", "topic"),
		requestTime: histogram("request_seconds", "Time of requests made.", "protocol", "result"),
		servedTime:  histogram("served_seconds", "Time of requests served.", "protocol", "result"),
		dials:       counter("dials_total", "Dials by the redial loop.", "result"),
		bytes:       counter("bytes_total", "Bytes on all streams.", "direction"),
		gossipDrop: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tweedle", Subsystem: "p2p", Name: "gossip_dropped_total",
			Help: "Outbound gossip dropped because a peer's queue was full."}),
	}
	for _, limit := range []string{limitMemory, limitStreams, limitConns, limitBook, limitBookAddress, limitBookSource, limitCopies} {
		m.limited.WithLabelValues(limit)
	}
	m.bytesIn, m.out = m.bytes.WithLabelValues("in"), m.bytes.WithLabelValues("out")
	return m
}

// meet counts that a limit was met.
func (m *hostMetrics) meet(limit string) { m.limited.WithLabelValues(limit).Inc() }

// collectors returns all metrics, with the gauges that read the host's state when they are scraped.
func (h *Host) collectors() []prometheus.Collector {
	m := h.metrics
	gauge := func(name, help, label, value string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "tweedle", Subsystem: "p2p", Name: name, Help: help,
			ConstLabels: prometheus.Labels{label: value}}, read)
	}
	cs := []prometheus.Collector{
		m.refused, m.limited, m.gossipIn, m.gossipOut, m.gossipDrop, m.gossipBytes, m.handlerTime, m.requestTime, m.servedTime, m.dials, m.bytes,
		gauge("peers", "Connected peers.", "direction", "in", func() float64 { in, _ := h.countPeers(); return float64(in) }),
		gauge("peers", "Connected peers.", "direction", "out", func() float64 { _, out := h.countPeers(); return float64(out) }),
		gauge("known_addresses", "Peers in the address book.", "kind", "all", func() float64 { return float64(h.book.len()) }),
		gauge("sessions", "Connections that passed the hello.", "kind", "now", h.readTable(func(t *sessionTable) int { return len(t.sessions) })),
		gauge("sessions", "Connections that passed the hello.", "kind", "limit", h.readTable(func(t *sessionTable) int { return t.limit })),
		gauge("half_open", "Connections in their handshake or at the hello.", "kind", "now", func() float64 { return float64(h.halfOpen.count()) }),
		gauge("half_open", "Connections in their handshake or at the hello.", "kind", "limit", func() float64 { return float64(h.cfg.MaxHalfOpen) }),
	}
	for _, reason := range []string{LeftRoom, LeftShare, LeftPeer, LeftSilent, LeftUs} {
		cs = append(cs, prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "tweedle", Subsystem: "p2p", Name: "sessions_ended_total",
			Help: "Sessions that ended, by why.", ConstLabels: prometheus.Labels{"reason": reason}},
			h.readTable(func(t *sessionTable) int { return int(t.ended[reason]) })))
	}
	return cs
}

func (h *Host) readTable(read func(*sessionTable) int) func() float64 {
	return func() (n float64) {
		h.sessions.look(func(t *sessionTable) { n = float64(read(t)) })
		return n
	}
}

// bandwidth counts bytes for libp2p. It keeps nothing per peer.
type bandwidth struct{ in, out prometheus.Counter }

func (b bandwidth) LogSentMessage(n int64)                                { b.out.Add(float64(n)) }
func (b bandwidth) LogRecvMessage(n int64)                                { b.in.Add(float64(n)) }
func (b bandwidth) LogSentMessageStream(int64, protocol.ID, peer.ID)      {}
func (b bandwidth) LogRecvMessageStream(int64, protocol.ID, peer.ID)      {}
func (b bandwidth) GetBandwidthForPeer(peer.ID) (s metrics.Stats)         { return s }
func (b bandwidth) GetBandwidthForProtocol(protocol.ID) (s metrics.Stats) { return s }
func (b bandwidth) GetBandwidthTotals() (s metrics.Stats)                 { return s }
func (b bandwidth) GetBandwidthByPeer() map[peer.ID]metrics.Stats         { return nil }
func (b bandwidth) GetBandwidthByProtocol() map[protocol.ID]metrics.Stats { return nil }
func (b bandwidth) Reset()                                                {}
func (b bandwidth) TrimIdle(time.Time)                                    {}
