package telemetry

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// A metric is listed with its type and labels before it has a series, and no more
// once it is taken away.
func TestMetricsAreListed(t *testing.T) {
	r := NewRegistry()
	with := promauto.With(r)
	with.NewCounterVec(prometheus.CounterOpts{Name: "a_total", Help: "a {b}, \"c\""}, []string{"x", "a"})
	with.NewHistogramVec(prometheus.HistogramOpts{Name: "b_seconds", Help: "b"}, []string{"x"})
	with.NewGaugeVec(prometheus.GaugeOpts{Name: "c", Help: "c"}, []string{"x"})
	with.NewGaugeFunc(prometheus.GaugeOpts{Name: "d", Help: "d", ConstLabels: prometheus.Labels{"kind": "all"}}, func() float64 { return 1 })
	with.NewCounterFunc(prometheus.CounterOpts{Name: "e_total", Help: "e"}, func() float64 { return 1 })
	gone := with.NewCounter(prometheus.CounterOpts{Name: "f_total", Help: "f"})
	r.Unregister(gone)
	var got []string
	for _, m := range r.Metrics() {
		got = append(got, m.Name+" "+m.Type+" "+m.Help)
		if m.Name == "a_total" && !slices.Equal(m.Labels, []string{"a", "x"}) || m.Name == "d" && !slices.Equal(m.Labels, []string{"kind"}) {
			t.Errorf("labels of %s: %q", m.Name, m.Labels)
		}
	}
	want := []string{`a_total counter a {b}, \"c\"`, "b_seconds histogram b", "c gauge c", "d gauge d", "e_total counter e"}
	if !slices.Equal(got, want) {
		t.Errorf("listed %q", got)
	}
}

// What a network does not have is not shown as zero.
func TestProcessIsDescribed(t *testing.T) {
	r := NewRegistry()
	DescribeProcess(r, "v1", Times{Genesis: time.Unix(100, 0), Epoch: 20 * time.Second})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		values[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	if _, there := values["tweedle_network_layer_seconds"]; there || values["tweedle_network_epoch_seconds"] != 20 ||
		values["tweedle_network_genesis_timestamp_seconds"] != 100 || values["tweedle_build_info"] != 1 {
		t.Errorf("shown %v", values)
	}
}
