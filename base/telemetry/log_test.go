package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stalling is a stream whose reader stops now and then.
type stalling struct {
	mu   sync.Mutex
	read bytes.Buffer
	stop chan struct{} // nil while the reader reads
}

func (s *stalling) Write(p []byte) (int, error) {
	s.mu.Lock()
	stop := s.stop
	s.mu.Unlock()
	if stop != nil {
		<-stop
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read.Write(p)
}

func (s *stalling) stall() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop = make(chan struct{})
}

func (s *stalling) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.stop)
	s.stop = nil
}

func (s *stalling) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read.String()
}

// A reader that stops costs lines, and nobody's time; when it reads again it is told
// how many, and gets what follows.
func TestStalledReaderLosesLines(t *testing.T) {
	for _, json := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			to := &stalling{}
			lines := NewLines(to)
			log := NewLog(lines, json, slog.LevelInfo).With("who", "poet")
			registry := prometheus.NewRegistry()
			CountDropped(log, registry)
			log.Info("before")
			lines.Flush(time.Second)

			to.stall()
			begin := time.Now()
			const many = 20_000
			for i := range many {
				log.Info("while nobody reads", "n", i)
			}
			if took := time.Since(begin); took != 0 {
				t.Fatalf("logging took %s", took)
			}
			dropped := lines.Dropped()
			if dropped == 0 || dropped == many || len(lines.waiting) > maxWaiting {
				t.Fatalf("%d of %d lines were dropped, %d bytes wait", dropped, many, len(lines.waiting))
			}
			lines.Flush(time.Second)
			if took := time.Since(begin); took != time.Second {
				t.Fatalf("a flush to nobody took %s", took)
			}
			families, err := registry.Gather()
			if err != nil || len(families) != 1 || families[0].GetName() != "tweedle_log_lines_dropped_total" ||
				families[0].GetMetric()[0].GetCounter().GetValue() != float64(dropped) {
				t.Errorf("metrics %v, %v", families, err)
			}

			to.resume()
			synctest.Wait()
			log.Info("after")
			lines.Flush(time.Second)
			got := strings.Split(strings.TrimSpace(to.text()), "\n")
			if want := many - int(dropped) + 3; len(got) != want {
				t.Fatalf("%d lines were read, %d are expected", len(got), want)
			}
			if last := got[len(got)-2]; !strings.Contains(last, "lines are missing") || !strings.Contains(last, fmt.Sprint(dropped)) {
				t.Errorf("the reader was not told what it missed: %s", last)
			}
			if last := got[len(got)-1]; !strings.Contains(last, "after") || !strings.Contains(last, "poet") {
				t.Errorf("the last line is %s", last)
			}
		})
	}
}

// Nothing is lost, and no line is torn, while the reader reads.
func TestLinesAreWhole(t *testing.T) {
	to := &stalling{}
	lines := NewLines(to)
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 200 {
				fmt.Fprintf(lines, "%d %d.\n", g, i)
			}
		})
	}
	group.Wait()
	lines.Flush(10 * time.Second)
	seen := map[string]bool{}
	for line := range strings.Lines(to.text()) {
		seen[line] = true
	}
	if len(seen) != 1600 || lines.Dropped() != 0 || !seen["7 199.\n"] {
		t.Fatalf("%d lines, %d dropped", len(seen), lines.Dropped())
	}
}

// Times are in UTC, in both forms, also those that a line is about.
func TestTimesOfTheLogAreInUTC(t *testing.T) {
	for _, json := range []bool{false, true} {
		var out bytes.Buffer
		lines := NewLines(&out)
		west := time.FixedZone("west", -5*60*60)
		synctest.Test(t, func(t *testing.T) {
			log := NewLog(lines, json, slog.LevelInfo)
			r := slog.NewRecord(time.Date(2026, 11, 28, 4, 0, 0, 0, west), slog.LevelInfo, "x", 0)
			r.AddAttrs(slog.Time("until", time.Date(2026, 11, 28, 5, 30, 0, 0, west)))
			if err := log.Handler().Handle(t.Context(), r); err != nil {
				t.Error(err)
			}
			lines.Flush(time.Second)
		})
		for _, want := range []string{"2026-11-28T09:00:00", "2026-11-28T10:30:00", "Z"} {
			if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "-05:00") {
				t.Errorf("no %s in %s", want, out.String())
			}
		}
	}
}

func TestAnErrorIsLoggedInWords(t *testing.T) {
	for json, want := range map[bool]string{false: `err="a.example: nobody listens at 10.0.0.1:1"`, true: `"err":"a.example: nobody listens at 10.0.0.1:1"`} {
		var out bytes.Buffer
		lines := NewLines(&out)
		log := NewLog(lines, json, slog.LevelInfo).With("of", "x")
		log.Warn("not sent", "err", fmt.Errorf("a.example: %w", errors.New("dial tcp 10.0.0.1:1: connect: connection refused")))
		lines.Flush(time.Second)
		if !strings.Contains(out.String(), want) {
			t.Errorf("json %v: %s", json, &out)
		}
	}
}
