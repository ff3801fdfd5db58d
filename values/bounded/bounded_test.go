package bounded

import "testing"

// Where nothing is taken out, the order has each key once.
func TestWhatIsPutTwiceIsInTheOrderOnce(t *testing.T) {
	m := New[int, int](4)
	for i := range 100 {
		m.Put(i, i)
		m.Put(i, i+1)
		if n := min(i+1, 4); m.Len() != n || len(m.order) != n {
			t.Fatalf("%d entries, %d in order, of %d", m.Len(), len(m.order), n)
		}
	}
	if m.Clear(); m.Len() != 0 || len(m.order) != 0 {
		t.Error("something is left")
	}
}

func TestOfTooManyTheOldestAreForgotten(t *testing.T) {
	m := New[int, int](4)
	for i := range 100 {
		m.Put(i, i)
		m.Put(i, i+1) // once more is no more
		if i%3 == 0 {
			m.Remove(i)
		}
		if len(m.of) > 4 || len(m.order) > 8 {
			t.Fatalf("%d entries, %d in order", len(m.of), len(m.order))
		}
	}
	if v, ok := m.Get(98); !ok || v != 99 {
		t.Errorf("one of the newest is %d, %v", v, ok)
	}
	if _, ok := m.Get(90); ok {
		t.Error("an old one is still there")
	}
}
