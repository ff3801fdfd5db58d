package rounds

import (
	"math"
	"time"

	"tweedle/services/poet/book"
)

// Import stores registrations that another server acknowledged in a round, all or
// none of them, durably; it is for before Run. An entry's Err says that its key is
// there already with another challenge. A round that has begun meanwhile is
// executed for the time that is left.
func (s *Service) Import(round uint32, entries []*book.Entry) error {
	_, err := s.book.Register(entries, math.MaxUint64, func() (uint32, time.Time, time.Time) {
		return round, s.cfg.Schedule.End(round), s.clock.Now()
	})
	return err
}
