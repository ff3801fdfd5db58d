package testnet

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"regexp"
	"strings"
	"time"

	"tweedle/base/words"
)

// What is read of a log, and shown when a process crashed.
const (
	maxLogTail   = 256 << 10 // bytes
	maxLogSearch = 64 << 20  // bytes, where lines are chosen
	maxReport    = 8 << 20   // bytes: a crash report lists every goroutine
	reportLines  = 20
	followPoll   = 200 * time.Millisecond
)

// tail returns the last n lines from offset start on, within the last limit
// bytes, and where the log ends.
func tail(path string, start, limit int64, n int) (lines []string, end int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	from := max(start, st.Size()-limit)
	b, err := io.ReadAll(io.NewSectionReader(f, from, st.Size()-from))
	if err != nil {
		return nil, 0, err
	}
	if from > start {
		// The first line is cut.
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(all) == 1 && all[0] == "" {
		all = nil
	}
	return all[max(0, len(all)-n):], st.Size(), nil
}

// report returns what the log says about the end of a run: from the Go
// runtime's crash report, if there is one, else the last lines.
func (p *process) report(c *child) []string {
	lines, _, err := tail(p.dir.path(p.Name, logFile), c.logStart, maxReport, maxReport)
	if err != nil {
		return []string{words.Of(err)}
	}
	for i, line := range lines {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			return lines[i:min(i+reportLines, len(lines))]
		}
	}
	return lines[max(0, len(lines)-reportLines):]
}

// lastWords returns the line of a run that most likely tells why it ended.
func (p *process) lastWords(c *child) string {
	lines := p.report(c)
	if len(lines) == 0 {
		return "it printed nothing"
	}
	if strings.HasPrefix(lines[0], "panic:") || strings.HasPrefix(lines[0], "fatal error:") {
		return lines[0]
	}
	return lines[len(lines)-1]
}

// LogOptions say which lines of the logs are wanted. A line without time and level, as
// those of a crash report, is told with the one before it; a crash is worse than all.
type LogOptions struct {
	Lines  int            // the last ones of each log; 0 with Since: all of them
	Since  time.Time      // zero: from any time
	Level  slog.Leveler   // this one and worse; nil: all
	Grep   *regexp.Regexp // nil: all
	Follow bool           // go on until ctx ends
}

// filter chooses lines of one log, which it is given in order.
type filter struct {
	LogOptions
	since, level bool // what the last line with a time and level says of those without
}

// stamped finds time and level of a line that a process of ours wrote.
var stamped = regexp.MustCompile(`^time=(\S+) level=(\S+) `)

func (f *filter) choose(lines []string) (wanted []string) {
	for _, line := range lines {
		if m := stamped.FindStringSubmatch(line); m != nil {
			at, err1 := time.Parse(time.RFC3339, m[1])
			var level slog.Level
			err2 := level.UnmarshalText([]byte(m[2]))
			f.since, f.level = err1 != nil || !at.Before(f.Since), err2 != nil || f.Level == nil || level >= f.Level.Level()
		} else if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			f.level = true
		}
		if f.since && f.level && (f.Grep == nil || f.Grep.MatchString(line)) {
			wanted = append(wanted, line)
		}
	}
	return wanted
}

// chooses tells whether some lines may be left out.
func (o LogOptions) chooses() bool {
	return !o.Since.IsZero() || o.Level != nil || o.Grep != nil
}

// Logs writes lines of the processes' logs, of all of them if names is
// empty; with several, each line begins with its process. What is older than
// the last 64 MiB of a log is not looked through.
func Logs(ctx context.Context, dir string, names []string, o LogOptions, w io.Writer) error {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	p, err := d.loadPlan()
	if err != nil {
		return err
	}
	if names, err = p.choose(names, d.hasWatch()); err != nil {
		return err
	}
	ends, filters := make([]int64, len(names)), make([]filter, len(names))
	limit, lines := int64(maxLogTail), o.Lines
	if o.chooses() {
		limit, lines = maxLogSearch, math.MaxInt
	}
	for i, name := range names {
		// What comes first belongs to a line that is not known, or to none.
		filters[i] = filter{o, o.Since.IsZero(), o.Level == nil}
		out, end, err := tail(d.path(name, logFile), 0, limit, lines)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		ends[i] = end
		out = filters[i].choose(out)
		if o.Lines > 0 || o.Since.IsZero() {
			out = out[max(0, len(out)-o.Lines):]
		}
		if err := writeLines(w, name, len(names), out); err != nil {
			return err
		}
	}
	for o.Follow {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPoll):
		}
		for i, name := range names {
			out, end, err := grown(d.path(name, logFile), ends[i])
			if err != nil && !os.IsNotExist(err) {
				return err
			}
			ends[i] = end
			if err := writeLines(w, name, len(names), filters[i].choose(out)); err != nil {
				return err
			}
		}
	}
	return nil
}

// grown returns the whole lines that a log has gained since offset start.
func grown(path string, start int64) (lines []string, end int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, start, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, start, err
	}
	if st.Size() < start {
		start = 0 // a new testnet has begun here
	}
	b, err := io.ReadAll(io.NewSectionReader(f, start, min(st.Size()-start, maxLogTail)))
	if err != nil {
		return nil, start, err
	}
	whole := bytes.LastIndexByte(b, '\n') + 1
	if whole == 0 && len(b) == maxLogTail {
		whole = len(b) // a line longer than we read at once
	}
	if whole == 0 {
		return nil, start, nil
	}
	return strings.Split(strings.TrimSuffix(string(b[:whole]), "\n"), "\n"), start + int64(whole), nil
}

func writeLines(w io.Writer, name string, sources int, lines []string) error {
	var b strings.Builder
	for _, line := range lines {
		if sources > 1 {
			fmt.Fprintf(&b, "%-8s ", name)
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
