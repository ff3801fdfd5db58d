package page_test

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"

	"tweedle/watch/page"
)

// What the page works out of samples, by Prometheus itself.
func TestExpressionsTellWhatTheirNamesSay(t *testing.T) {
	// A sample every 15 s for an hour. node-2 was started again twice, the second time after a
	// pause; node-3 has been there for ten minutes; node-4's disk gets emptier, node-1's fuller.
	storage := promqltest.LoadedStorage(t, `load 15s
	process_cpu_seconds_total{job="node",name="node-1"} 0+3x240
	process_cpu_seconds_total{job="node",name="node-2"} 0+3x100 0+3x60 _x20 0+3x58
	process_cpu_seconds_total{job="poet",name="poet-1"} 5+15x240
	process_cpu_seconds_total{job="watch",name="watch"} 5+15x240
	tweedle_node_disk_free_bytes{job="node",name="node-1"} 7e10-1e7x240
	tweedle_node_disk_free_bytes{job="node",name="node-2"} 7e10+0x240
	tweedle_node_disk_free_bytes{job="node",name="node-3"} _x200 7e10-1e7x40
	tweedle_node_disk_free_bytes{job="node",name="node-4"} 7e10+1e7x240
`)
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	at := time.Unix(3600, 0)
	for series, want := range map[string]map[string]float64{
		"page:cpu":      {"node-1": 0.2, "node-2": 0.2, "poet-1": 1},
		"page:restarts": {"node-1": 0, "node-2": 2, "poet-1": 0},
		"page:full":     {"node-1": (7e10 - 240e7) / (1e7 / 15)},
	} {
		q, err := engine.NewInstantQuery(t.Context(), storage, nil, page.Expressions()[series], at)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		got, err := q.Exec(t.Context()).Vector()
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]promql.Sample{}
		for _, one := range got {
			have[one.Metric.Get("name")] = one
		}
		for name, v := range want {
			if one, ok := have[name]; !ok || math.Abs(one.F-v) > v/1000 || one.Metric.Get("job") == "" {
				t.Errorf("%s of %s is %v, not %v", series, name, one, v)
			}
		}
		if len(have) != len(want) {
			t.Errorf("%s: %v", series, have)
		}
	}
}
