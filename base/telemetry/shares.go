package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Shares counts things by whose they are, in the newest periods, and shows this period and the one before
// as a metric with the labels of the description: whose, and "this" or "before". Strangers may choose the names:
// Most are shown, and the rest as "others". It keeps Periods of them.
type Shares struct {
	Desc    *prometheus.Desc
	Most    int
	Periods int
	Now     func() uint32 // the period of now

	mu sync.Mutex
	of map[uint32]map[string]int
}

// Add counts n more of a period.
func (s *Shares) Add(period uint32, name string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[uint32]map[string]int{}
	}
	if s.of[period] == nil {
		s.of[period] = map[string]int{}
		if len(s.of) > s.Periods {
			delete(s.of, slices.Min(slices.Collect(maps.Keys(s.of))))
		}
	}
	if of := s.of[period]; of != nil {
		of[name] += n
	}
}

// Count returns how many there are of a period.
func (s *Shares) Count(period uint32) (all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.of[period] {
		all += n
	}
	return all
}

// Describe implements prometheus.Collector.
func (s *Shares) Describe(to chan<- *prometheus.Desc) { to <- s.Desc }

// Collect implements prometheus.Collector.
func (s *Shares) Collect(to chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for back, when := range []string{"this", "before"} {
		for name, n := range most(s.of[s.Now()-uint32(back)], s.Most) {
			to <- prometheus.MustNewConstMetric(s.Desc, prometheus.GaugeValue, float64(n), name, when)
		}
	}
}

// most returns the n-1 largest counts by their names, and the rest as "others", if there are more than n.
func most(counts map[string]int, n int) map[string]int {
	if len(counts) <= n {
		return counts
	}
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) })
	out := map[string]int{}
	for i, name := range names {
		if i >= n-1 {
			name = "others"
		}
		out[name] += counts[names[i]]
	}
	return out
}
