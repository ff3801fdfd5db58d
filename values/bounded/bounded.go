// Package bounded has a map of at most so many entries.
//
// It promises that of too many the oldest go, and that what it answers does not depend
// on the order of a map. It leaves locks to its users.
package bounded

// Map is a map of at most a limit of entries.
type Map[K comparable, V any] struct {
	limit int
	of    map[K]V
	order []K // by arrival; those that were taken out may still be in it
}

// New returns an empty map.
func New[K comparable, V any](limit int) Map[K, V] {
	return Map[K, V]{limit: limit, of: make(map[K]V)}
}

// Len returns the number of entries.
func (m *Map[K, V]) Len() int { return len(m.of) }

// Get returns the value of a key, if there is one.
func (m *Map[K, V]) Get(k K) (V, bool) { v, ok := m.of[k]; return v, ok }

// Put sets the value of a key.
func (m *Map[K, V]) Put(k K, v V) {
	if _, ok := m.of[k]; !ok {
		m.order = append(m.order, k)
	}
	m.of[k] = v
	for len(m.of) > m.limit || len(m.order) > 2*m.limit {
		// One that was taken out and came again is in the order twice: it goes
		// early, which is no worse than going at all.
		delete(m.of, m.order[0])
		m.order = m.order[1:]
	}
}

// Remove takes a key out.
func (m *Map[K, V]) Remove(k K) { delete(m.of, k) }

// Clear takes all out.
func (m *Map[K, V]) Clear() { clear(m.of); m.order = nil }
