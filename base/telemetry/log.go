package telemetry

import (
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/base/words"
)

// maxWaiting is how many bytes of lines wait for their reader.
const maxWaiting = 1 << 20

// Lines is a writer of log lines that never waits for who reads them: a terminal
// that was stopped, a full pipe, a disk that hangs. Lines that cannot be written
// now wait, up to 1 MiB of them; more are dropped and counted. It may be used by
// many goroutines.
//
// A goroutine writes, while there is something to write. If the reader never comes
// back it stays until the process ends.
type Lines struct {
	to io.Writer

	mu      sync.Mutex // guards all following
	waiting []byte
	spare   []byte        // of drain
	idle    chan struct{} // closed when everything was written; nil when nothing waits
	dropped uint64
	untold  uint64
	tell    func(dropped uint64)
}

// NewLines returns a writer of lines to a stream.
func NewLines(to io.Writer) *Lines { return &Lines{to: to} }

// Write takes whole lines. It returns at once and never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting)+len(p) > maxWaiting {
		l.dropped++
		l.untold++
		return len(p), nil
	}
	l.waiting = append(l.waiting, p...)
	if l.idle == nil {
		l.idle = make(chan struct{})
		go l.drain()
	}
	return len(p), nil
}

// drain writes until nothing waits.
func (l *Lines) drain() {
	for {
		l.mu.Lock()
		if len(l.waiting) == 0 {
			close(l.idle)
			l.idle = nil
			l.mu.Unlock()
			return
		}
		lines, untold, tell := l.waiting, l.untold, l.tell
		l.waiting = l.spare[:0]
		if tell != nil {
			l.untold = 0
		}
		l.mu.Unlock()
		if untold > 0 && tell != nil {
			tell(untold) // behind these lines, where the others are missing
		}
		_, _ = l.to.Write(lines) // there is nowhere to tell it
		l.mu.Lock()
		l.spare = lines
		l.mu.Unlock()
	}
}

// Flush waits until everything is written, at most for so long.
func (l *Lines) Flush(atMost time.Duration) {
	l.mu.Lock()
	idle := l.idle
	l.mu.Unlock()
	if idle == nil {
		return
	}
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

// Dropped returns how many writes were dropped.
func (l *Lines) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// NewLog returns a logger to lines, as text for people or as JSON; times are in UTC, errors in plain words. Nobody who logs
// waits for a reader. When the reader reads again, a line says how many it missed.
func NewLog(lines *Lines, json bool, level slog.Level) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: forPeople}
	var format slog.Handler = slog.NewTextHandler(lines, opts)
	if json {
		format = slog.NewJSONHandler(lines, opts)
	}
	log := slog.New(handler{format, lines})
	lines.mu.Lock()
	defer lines.mu.Unlock()
	if lines.tell == nil { // the first logger has the form that the reader expects
		lines.tell = func(dropped uint64) {
			log.Error("the log was not read for a while, lines are missing here", "lines", dropped)
		}
	}
	return log
}

// forPeople makes one form of all times, whatever zone the machine is in, and says errors in words.
func forPeople(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindTime:
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	case slog.KindAny:
		if err, ok := a.Value.Any().(error); ok && err != nil {
			a.Value = slog.StringValue(words.Of(err))
		}
	}
	return a
}

// handler keeps the lines within reach of CountDropped.
type handler struct {
	slog.Handler
	lines *Lines
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.lines}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.lines}
}

// CountDropped registers the metric tweedle_log_lines_dropped_total of a logger that
// NewLog made. Another logger has none.
func CountDropped(log *slog.Logger, to prometheus.Registerer) {
	if log == nil {
		return
	}
	h, ok := log.Handler().(handler)
	if !ok {
		return
	}
	to.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tweedle_log_lines_dropped_total",
		Help: "log lines that were dropped because nobody read the log",
	}, func() float64 { return float64(h.lines.Dropped()) }))
}
