package rounds

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/base/durable"
	"tweedle/services/poet"
)

// locked is a disk whose journals are another user's.
type locked struct{ durable.OS }

func (l locked) Open(name string) (durable.File, error) {
	if filepath.Ext(name) == ".journal" {
		if _, err := os.Stat(name); err == nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EACCES}
		}
	}
	return l.OS.Open(name)
}

// A worker that cannot go on ends the server, which says why on one line. The round
// goes on from its journal once that can be read.
func TestWorkerErrorEndsTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		cfg.Schedule.EpochDuration, cfg.Schedule.PhaseShift = 5*time.Minute, time.Minute
		s := start(t, cfg)
		s.register(1)
		time.Sleep(time.Minute + 10*time.Second)
		s.close()

		cfg.FS = locked{}
		s = start(t, cfg)
		begin := time.Now()
		err := <-s.ended
		if !errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "\n") {
			t.Errorf("the server ended with %v", err)
		}
		if took := time.Since(begin); took > 2*time.Minute {
			t.Errorf("it took %s", took)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}

		cfg.FS = nil
		s = start(t, cfg)
		time.Sleep(time.Second)
		if s.count(poet.EventResumed) != 1 || s.count(poet.EventDamage) != 0 {
			t.Error("the round does not go on")
		}
		s.close()
	})
}
