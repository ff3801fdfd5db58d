package testnet

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const someLog = `begins before any time
time=2026-11-28T09:00:00.000Z level=DEBUG msg="one" epoch=1
time=2026-11-28T09:01:00.000Z level=INFO msg="two" epoch=2
time=2026-11-28T09:02:00.000Z level=ERROR msg="three" epoch=3
panic: of three
goroutine 1:
time=2026-11-28T09:03:00.000Z level=WARN msg="four" epoch=4
time=2026-11-28T09:04:00.000Z level=INFO msg="five" epoch=5
`

// twoLogs is the folder of a testnet of which the logs are there.
func twoLogs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		planFile:     `{"preset":"local","members":[{"name":"node-1","kind":"node"},{"name":"poet-1","kind":"poet"}]}`,
		"node-1/log": someLog,
		"poet-1/log": "time=2026-11-28T09:02:30.000Z level=WARN msg=\"of the PoET\"\n",
		networkFile:  `{"name":"x","preset":"local","genesis_time":"2026-12-01T00:00:00Z","extra_data":""}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLinesOfTheLogsAreChosen(t *testing.T) {
	t.Parallel()
	dir := twoLogs(t)
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for what, c := range map[string]struct {
		names []string
		o     LogOptions
		want  []string // what each line holds, in order
	}{
		"the last ones":         {[]string{"node-1"}, LogOptions{Lines: 2}, []string{"four", "five"}},
		"all of them":           {[]string{"node-1"}, LogOptions{Lines: 100}, []string{"begins", "one", "two", "three", "panic", "goroutine", "four", "five"}},
		"with their crash":      {[]string{"node-1"}, LogOptions{Lines: 100, Level: slog.LevelError}, []string{"three", "panic", "goroutine"}},
		"that or worse":         {[]string{"node-1"}, LogOptions{Lines: 1, Level: slog.LevelWarn}, []string{"four"}},
		"since, all":            {[]string{"node-1"}, LogOptions{Since: at("2026-11-28T09:02:00Z")}, []string{"three", "panic", "goroutine", "four", "five"}},
		"since in another zone": {[]string{"node-1"}, LogOptions{Since: at("2026-11-28T04:03:00-05:00")}, []string{"four", "five"}},
		"since, some":           {[]string{"node-1"}, LogOptions{Since: at("2026-11-28T09:00:00Z"), Lines: 1}, []string{"five"}},
		"by their words":        {[]string{"node-1"}, LogOptions{Lines: 100, Grep: regexp.MustCompile(`epoch=[24]`)}, []string{"two", "four"}},
		"by all of these":       {[]string{"node-1"}, LogOptions{Since: at("2026-11-28T09:01:00Z"), Level: slog.LevelInfo, Grep: regexp.MustCompile("two|of three|five$")}, []string{"two", "of three"}},
		"of all processes":      {nil, LogOptions{Lines: 100, Level: slog.LevelWarn}, []string{"node-1   time=2026-11-28T09:02", "panic", "goroutine", "four", "poet-1   time=2026-11-28T09:02:30"}},
		"none":                  {nil, LogOptions{Lines: 0}, nil},
	} {
		var out bytes.Buffer
		if err := Logs(t.Context(), dir, c.names, c.o, &out); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if out.Len() == 0 {
			lines = nil
		}
		if len(lines) != len(c.want) {
			t.Errorf("%s: %q, want %q", what, lines, c.want)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(lines[i], want) {
				t.Errorf("%s: line %d is %q, want %q", what, i, lines[i], want)
			}
		}
	}
}

// What is added is chosen as what was there.
func TestChosenLinesAreFollowed(t *testing.T) {
	t.Parallel()
	dir := twoLogs(t)
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Logs(ctx, dir, []string{"node-1"}, LogOptions{Lines: 1, Level: slog.LevelWarn, Follow: true}, w)
		_ = w.Close()
	}()
	lines := bufio.NewScanner(r)
	next := func(want string) {
		t.Helper()
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Fatalf("%q, want %q", lines.Text(), want)
		}
	}
	next("four")
	f, err := os.OpenFile(filepath.Join(dir, "node-1/log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, text := range []string{
		"still of five, which nobody wants\n", "time=2026-11-28T09:05:00.000Z level=INFO msg=\"six\"\n",
		"time=2026-11-28T09:06:00.000Z level=ERROR msg=\"seven\"\ntime=2026-11-28T09:06:01.000Z level=INFO msg=\"eight\"\npanic: of eight\n",
	} {
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	next("seven")
	next("panic: of eight")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
