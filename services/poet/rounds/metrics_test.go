package rounds

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The reference's dashboards find their series, and ours tell of the disk.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		registry := prometheus.NewRegistry()
		cfg.Metrics = registry
		s := start(t, cfg)
		s.register(1)
		<-s.proofs
		s.register(2)
		time.Sleep(time.Until(cfg.Schedule.Start(1)) + 1500*time.Millisecond)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		s.close()
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += "{" + l.GetName() + "=" + l.GetValue() + "}"
				}
				got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		for name, least := range map[string]float64{
			"poet_round_leaves_total{id=0}":                  1000,
			"poet_round_members_total{id=0}":                 1,
			"poet_round_batch_write_latency_seconds":         1,
			"poet_registration_with_pow_total{result=valid}": 1,
			"poet_rounds{state=open}":                        1,
			"poet_round_leaves_per_second{id=1}":             500,
			"poet_disk_free_bytes":                           1,
			"poet_disk_round_bytes":                          1,
			"poet_disk_rounds_fit":                           3,
			"poet_disk_ballast":                              1,
			"poet_events_total{kind=round_proved}":           1,
		} {
			if got[name] < least {
				t.Errorf("%s is %v, at least %v is expected; there are %v", name, got[name], least, got)
			}
		}
	})
}
