package drill

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tweedle/archtest/jsondoc"
	"tweedle/services/testnet"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixture is a short run with everything in it, and a stranger's words.
func fixture(v View) *Timeline {
	at := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	tl := newTimeline("tweedledee", Flags{Pull: true}, v)
	tl.Began = at
	yes, no := true, false
	put := func(after float64, e Entry) {
		tl.put(at.Add(time.Duration(after*float64(time.Second))), e, nil)
	}
	put(0, Entry{Kind: KindStep, Text: "1 of 2: a network lives"})
	put(3, Entry{Kind: KindCheck, Text: "ok  blocks", OK: &yes})
	put(20, Entry{Kind: KindStep, Text: "2 of 2: it breaks"})
	put(21, Entry{Kind: KindAlert, Name: "NodeCrashed", Process: "node-1", Text: `NodeCrashed of node-1: <script>alert("x")</script>`})
	put(40, Entry{Kind: KindResolved, Name: "NodeCrashed", Process: "node-1", Text: "NodeCrashed of node-1 is over"})
	put(41, Entry{Kind: KindAlert, Name: "NetworkStalled", Text: "NetworkStalled \x1b[31m"})
	put(50, Entry{Kind: KindCheck, Text: "FAILED  calm", OK: &no})
	tl.Checks = []Result{
		{Step: 1, Name: "blocks", OK: true, Figure: "7 of 7", At: 3, Took: 3, Within: 60},
		{Step: 2, Name: "calm", Figure: "1 fires", At: 50, Took: 30, Within: 30},
		{Step: 2, Name: "disk", Skipped: "no root"},
		{Step: 2, Name: "alive", OK: true, Figure: "2 processes", At: 50, Took: 30},
	}
	for i := range 60 {
		tl.Samples = append(tl.Samples, Sample{At: float64(i), Layer: uint32(i / 2), Applied: uint32(min(i, 30) / 2), Slots: map[string]int{"poet-1": 5 - i/20},
			Undelivered: map[string]int{"poet-1": i / 25}, Up: map[string]bool{"node-1": i < 21 || i > 30, "poet-1": true}})
	}
	tl.ATXs = []EpochATXs{{4, 0, 0}, {24, 1, 2}, {44, 2, 0}}
	tl.fails, tl.Reasons = true, []string{"calm: 1 fires"}
	tl.Seconds = 60
	return tl
}

// The page is whole by itself, is well-formed, shows every part, and what a stranger says
// stays text.
func TestThePageIsWholeByItself(t *testing.T) {
	page := string(fixture(nobody{}).HTML())
	for d := xml.NewDecoder(strings.NewReader(page)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the page is not well-formed: %v", err)
		}
	}
	if m := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|\bsrc=|\bhref=|url\(|@import|https?://`).FindString(page); m != "" {
		t.Errorf("the page has %q", m)
	}
	for _, want := range []string{"default-src 'none'", "&lt;script&gt;", "not ok", "calm: 1 fires", "– not made", "✓ held", "✗ failed", "node-1 down, 21 to 31 s",
		"epoch 1: 2 ATXs", "(21 to 40 s)", "(41 to 60 s)", "all the time", "a network lives"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if len(page) > 100_000 {
		t.Errorf("the page of a minute has %d bytes", len(page))
	}
}

// A minute's text and JSON are as they were; a change is looked at.
func TestTextAndJSON(t *testing.T) {
	for name, view := range map[string]func(io.Writer) View{"text": NewPlainView, "json": NewJSONView} {
		var b strings.Builder
		v := view(&b)
		tl := fixture(v)
		v.Progress(Progress{Step: 2, Of: 2, Ran: 65 * time.Second, Left: 61 * time.Second})
		v.Progress(Progress{Step: 2, Of: 2, Ran: 66 * time.Second, Left: 60 * time.Second})
		v.End(tl)
		got := regexp.MustCompile(`"type":"summary","time":"[^"]*"`).ReplaceAllString(b.String(), `"type":"summary","time":"T"`)
		path := filepath.Join("testdata", "timeline."+name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || string(want) != got {
			t.Errorf("%s (%v): run go test -update, and look at what changed:\n%s", path, err, got)
		}
		if name != "json" {
			continue
		}
		jsondoc.Follows(t, "testnet drill", b.String())
		lines := strings.Split(strings.TrimSpace(got), "\n")
		var last struct {
			Type    string
			OK      bool
			Reasons []string
			Held    int `json:"checks_held"`
			Checks  []Result
		}
		for _, line := range lines {
			if err := json.Unmarshal([]byte(line), &last); err != nil || last.Type == "" {
				t.Errorf("%v: %s", err, line)
			}
		}
		if last.Type != "summary" || last.OK || len(last.Reasons) != 1 || last.Held != 2 || len(last.Checks) != 4 {
			t.Errorf("the summary is %+v", last)
		}
	}
}

// On a terminal the progress stands below the lines, and goes at the end.
func TestTheProgressStaysBelow(t *testing.T) {
	var b strings.Builder
	v := &textView{w: &b, live: true}
	v.Progress(Progress{Step: 1, Of: 2, Title: "it lives", Ran: 5 * time.Second, Left: 90 * time.Second})
	v.Entry(time.Now(), Entry{At: 5, Kind: KindNote, Text: "x"}, nil)
	v.Entry(time.Now(), Entry{At: 5, Kind: "layer", Text: "y"}, testnet.Layer{Outcomes: 1})
	v.End(&Timeline{Drill: "d", OK: true})
	const line = "[step 1 of 2] it lives; 0:05 gone, about 1:30 left"
	if want := "\r\x1b[K" + line + "\r\x1b[K   5.0  drill     x\n" + line + "\r\x1b[K"; !strings.HasPrefix(b.String(), want) {
		t.Errorf("%q", b.String())
	}
	if strings.Count(b.String(), line) != 2 {
		t.Errorf("the progress is left there: %q", b.String())
	}
}
