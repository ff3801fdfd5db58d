package telemetry

import (
	"fmt"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestSharesOfTheNewestPeriods(t *testing.T) {
	now := uint32(7)
	s := &Shares{Desc: prometheus.NewDesc("shares", "", []string{"name", "period"}, nil), Most: 3, Periods: 4, Now: func() uint32 { return now }}
	for period := range uint32(9) {
		s.Add(period, "a", int(period))
	}
	for i := range 5 {
		s.Add(7, fmt.Sprint("stranger ", i), 1)
	}
	s.Add(2, "late", 1) // its period is forgotten
	for period, want := range map[uint32]int{2: 0, 4: 0, 5: 5, 6: 6, 7: 12, 8: 8} {
		if got := s.Count(period); got != want {
			t.Errorf("period %d has %d, not %d", period, got, want)
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		got[m.GetLabel()[0].GetValue()+" of "+m.GetLabel()[1].GetValue()] = m.GetGauge().GetValue()
	}
	if want := map[string]float64{"a of this": 7, "stranger 0 of this": 1, "others of this": 4, "a of before": 6}; !maps.Equal(got, want) {
		t.Errorf("shown are %v", got)
	}
}
