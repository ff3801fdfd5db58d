package telemetry

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Registry is a registry of metrics that can list them, also those that have no
// series yet.
type Registry struct {
	*prometheus.Registry

	mu         sync.Mutex // guards collectors
	collectors []prometheus.Collector
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry { return &Registry{Registry: prometheus.NewRegistry()} }

// Register implements prometheus.Registerer.
func (r *Registry) Register(c prometheus.Collector) error {
	if err := r.Registry.Register(c); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.collectors = append(r.collectors, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (r *Registry) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// Unregister implements prometheus.Registerer.
func (r *Registry) Unregister(c prometheus.Collector) bool {
	r.mu.Lock()
	r.collectors = slices.DeleteFunc(r.collectors, func(o prometheus.Collector) bool { return o == c })
	r.mu.Unlock()
	return r.Registry.Unregister(c)
}

// Metric describes one metric.
type Metric struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"` // counter, gauge, histogram
	Labels []string `json:"labels,omitempty"`
	Help   string   `json:"help"`
}

// Metrics lists all metrics by name.
func (r *Registry) Metrics() []Metric {
	r.mu.Lock()
	all := slices.Clone(r.collectors)
	r.mu.Unlock()
	found := map[string]Metric{}
	for _, c := range all {
		kinds := kindsOf(c)
		descs := make(chan *prometheus.Desc)
		go func() { defer close(descs); c.Describe(descs) }()
		for d := range descs {
			m := parseDesc(d.String())
			m.Type = cmp.Or(kinds[d.String()], kinds[""], "gauge")
			found[m.Name] = m
		}
	}
	out := make([]Metric, 0, len(found))
	for _, m := range found {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// kindsOf tells the types of a collector's metrics by their description; "" is
// that of those without a series.
func kindsOf(c prometheus.Collector) map[string]string {
	kinds := map[string]string{}
	switch c.(type) {
	case *prometheus.CounterVec:
		kinds[""] = "counter"
	case *prometheus.GaugeVec:
		kinds[""] = "gauge"
	case *prometheus.HistogramVec:
		kinds[""] = "histogram"
	}
	metrics := make(chan prometheus.Metric)
	go func() { defer close(metrics); c.Collect(metrics) }()
	for m := range metrics {
		var d dto.Metric
		if m.Write(&d) != nil {
			continue // a scrape tells it
		}
		kind := "gauge"
		switch {
		case d.Counter != nil:
			kind = "counter"
		case d.Histogram != nil:
			kind = "histogram"
		case d.Summary != nil:
			kind = "summary"
		}
		kinds[m.Desc().String()] = kind
	}
	return kinds
}

// The form of a description as text, which is all that it shows of itself.
var (
	descForm  = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*?)", (?:unit: "[^"]*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	constForm = regexp.MustCompile(`(\w+)="`)
)

func parseDesc(text string) Metric {
	part := descForm.FindStringSubmatch(text)
	if part == nil {
		return Metric{Name: text}
	}
	m := Metric{Name: part[1], Help: strings.TrimSpace(part[2])}
	for _, l := range constForm.FindAllStringSubmatch(part[3], -1) {
		m.Labels = append(m.Labels, l[1])
	}
	if part[4] != "" {
		m.Labels = append(m.Labels, strings.Split(part[4], ",")...)
	}
	slices.Sort(m.Labels)
	return m
}

// ServeMetrics answers GET /metrics, and GET /metrics/list with what there can be.
func (r *Registry) ServeMetrics(mux *http.ServeMux) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /metrics/list", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.Metrics()) // the reader has gone; nobody is left to tell
	})
}
