package rounds

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"tweedle/base/durable"
	"tweedle/services/poet/book"
)

// importName is the file that a data directory has as long as an import into it is
// under way.
const importName = "import.unfinished"

// checkImport begins an import, or fails if one began and did not end. It comes
// before anything that a server could start on.
func (s *Service) checkImport() error {
	path := filepath.Join(s.cfg.Dir, importName)
	if s.cfg.Importing {
		err := durable.NewFile(s.cfg.FS, path, 0o600, func(io.Writer) error { return nil })
		if errors.Is(err, os.ErrExist) { // it is repeated
			return nil
		}
		return err
	}
	_, err := durable.ReadFile(s.cfg.FS, path, 1<<10)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: an import was stopped before its end, and registrations may be missing: run the same `tweedle poet import` again", s.cfg.Dir)
}

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

// Imported says durably that the import of Config.Importing is complete.
func (s *Service) Imported() error {
	// If we stop before the sync, the next start may find an import to repeat.
	if err := s.cfg.FS.Remove(filepath.Join(s.cfg.Dir, importName)); err != nil {
		return err
	}
	return s.cfg.FS.SyncDir(s.cfg.Dir)
}
