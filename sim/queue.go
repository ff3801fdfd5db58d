package sim

import "time"

// event is something due at a time: a function, or a message that arrives.
type event struct {
	at       time.Duration // since the run began
	of       int           // of those due together, the nodes' by themselves (Options.grain)
	seq      uint64        // and in the order of their making
	do       func()
	from, to *node
	msg      *message
}

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && (e.of < o.of || e.of == o.of && e.seq < o.seq)
}

// queue is a heap of events, the first due on top.
type queue []event

func (q *queue) push(e event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
	*q = h
}

func (q *queue) pop() event {
	h := *q
	first, last := h[0], h[len(h)-1]
	h[len(h)-1] = event{} // nothing of it is held
	h = h[:len(h)-1]
	*q = h
	if len(h) == 0 {
		return first
	}
	i := 0
	for {
		least := 4*i + 1
		if least >= len(h) {
			break
		}
		for c := least + 1; c < min(4*i+5, len(h)); c++ {
			if h[c].before(&h[least]) {
				least = c
			}
		}
		if !h[least].before(&last) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = last
	return first
}
