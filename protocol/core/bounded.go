package core

// bounded is a map of at most limit entries: of too many the oldest go. What it
// answers does not depend on the order of a map.
type bounded[K comparable, V any] struct {
	limit int
	of    map[K]V
	order []K // by arrival; those that were taken out may still be in it
}

func newBounded[K comparable, V any](limit int) bounded[K, V] {
	return bounded[K, V]{limit: limit, of: make(map[K]V)}
}

func (b *bounded[K, V]) get(k K) (V, bool) { v, ok := b.of[k]; return v, ok }

func (b *bounded[K, V]) put(k K, v V) {
	if _, ok := b.of[k]; !ok {
		b.order = append(b.order, k)
	}
	b.of[k] = v
	for len(b.of) > b.limit || len(b.order) > 2*b.limit {
		// One that was taken out and came again is in the order twice: it goes
		// early, which is no worse than going at all.
		delete(b.of, b.order[0])
		b.order = b.order[1:]
	}
}

func (b *bounded[K, V]) remove(k K) { delete(b.of, k) }

func (b *bounded[K, V]) clear() { clear(b.of); b.order = nil }
