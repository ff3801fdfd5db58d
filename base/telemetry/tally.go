package telemetry

import (
	"sync"
	"time"
)

// Tally counts what strangers can make happen as often as they like, so that the log has one line
// about it in Every, with how often it was. Keys are few and ours: none is forgotten. The zero value
// with Every set is ready.
type Tally[K comparable] struct {
	Every time.Duration

	mu sync.Mutex
	of map[K]*tally
}

type tally struct {
	told  time.Time
	count int
}

// Add counts one. It returns how many there were since the log was told, if it is to be told now,
// and else 0.
func (t *Tally[K]) Add(key K, now time.Time) (times int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.of[key]
	if one == nil {
		if t.of == nil {
			t.of = make(map[K]*tally)
		}
		one = &tally{}
		t.of[key] = one
	}
	one.count++
	if !one.told.IsZero() && now.Sub(one.told) < t.Every {
		return 0
	}
	times = one.count
	one.told, one.count = now, 0
	return times
}
