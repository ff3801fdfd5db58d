package node

import (
	"sync"

	"tweedle/protocol/core"
)

// spaces are the ATXs whose proofs of space wait to be checked; the machine bounds how many
// there are. Labels of several are computed at the cost of one as long as they find lanes in
// the kernel: so who has a turn to check takes of those that wait, first those that came
// first, until their labels fill the lanes, and no more, since all of them wait for the last.
type spaces struct {
	lanes  int                       // labels that the kernel computes at once
	labels func(core.CheckSpace) int // what a check computes

	mu      sync.Mutex
	waiting []core.CheckSpace
}

func (s *spaces) put(w core.CheckSpace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, w)
}

// take returns what is to be checked at once, nothing if nothing waits.
func (s *spaces) take() []core.CheckSpace {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for labels := 0; n < len(s.waiting) && labels < s.lanes; n++ {
		labels += s.labels(s.waiting[n])
	}
	some := s.waiting[:n:n]
	if s.waiting = s.waiting[n:]; len(s.waiting) == 0 {
		s.waiting = nil // what was checked is forgotten
	}
	return some
}
