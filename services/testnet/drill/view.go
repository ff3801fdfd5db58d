package drill

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"tweedle/services/testnet"
)

// View is told what happens, one call at a time. It must not block for long.
type View interface {
	// Entry is told of each; of is the testnet's event, if it is one.
	Entry(at time.Time, e Entry, of testnet.Event)
	// Progress comes several times a second.
	Progress(p Progress)
	// End is told the whole, which does not change any more.
	End(tl *Timeline)
}

// Progress is how far a drill is.
type Progress struct {
	Step, Of  int
	Title     string
	Ran, Left time.Duration
}

type nobody struct{}

func (nobody) Entry(time.Time, Entry, testnet.Event) {}
func (nobody) Progress(Progress)                     {}
func (nobody) End(*Timeline)                         {}

// NewView prints lines for people, with the progress below them on a terminal.
func NewView(out *os.File) View {
	live := term.IsTerminal(int(out.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return &textView{w: out, live: live}
}

// NewPlainView prints lines for people, and for files and pipes.
func NewPlainView(w io.Writer) View { return &textView{w: w} }

type textView struct {
	w    io.Writer
	live bool
	last string // the progress on the screen
	step int    // that was told
}

// Entry prints one line. What every layer and every smesher's step says, and the last
// words of who crashed, are left to the other forms.
func (v *textView) Entry(_ time.Time, e Entry, of testnet.Event) {
	if e.Kind == "smesher" || e.Kind == "layer" && of.(testnet.Layer).Outcomes < 2 {
		return
	}
	text, _, _ := strings.Cut(e.Text, "\n") // of a crash; the rest is in its log
	v.print(fmt.Sprintf("%6.1f  %-9s %s", e.At, e.Kind, text))
}

func (v *textView) print(line string) {
	if v.live {
		line = "\r\x1b[K" + line
	}
	io.WriteString(v.w, line+"\n"+v.last) //nolint:errcheck // nobody reads any more
}

func (v *textView) Progress(p Progress) {
	text := fmt.Sprintf("[step %d of %d] %s; %s gone, about %s left", p.Step, p.Of, p.Title, clock(p.Ran), clock(p.Left))
	switch {
	case v.live && text != v.last:
		v.last = text
		io.WriteString(v.w, "\r\x1b[K"+text) //nolint:errcheck // nobody looks any more
	case !v.live && p.Step != v.step:
		v.step = p.Step
		v.print(fmt.Sprintf("%6.1f  %-9s step %d of %d, about %s left", p.Ran.Seconds(), "progress", p.Step, p.Of, clock(p.Left)))
	}
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

func (v *textView) End(tl *Timeline) {
	v.last = ""
	if v.live {
		io.WriteString(v.w, "\r\x1b[K") //nolint:errcheck // nobody looks any more
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\ndrill %s, %s:\n", strings.Join(append([]string{tl.Drill}, tl.Flags...), " with "), clock(time.Duration(tl.Seconds*float64(time.Second))))
	for _, r := range tl.Checks {
		fmt.Fprintf(&b, "  %d  %s\n", r.Step, r.text())
	}
	b.WriteString(tl.verdict())
	v.print(b.String())
}

// verdict is the end in one line.
func (tl *Timeline) verdict() string {
	ok, failed, skipped := tl.count()
	out := fmt.Sprintf("ok: %d checks held", ok)
	if !tl.OK {
		out = fmt.Sprintf("NOT ok: %d checks held, %d did not: %s", ok, failed, strings.Join(tl.Reasons, "; "))
	}
	if tl.Stood > stoodLong.Seconds() {
		out += fmt.Sprintf("; the machine stood still for %g s", tl.Stood)
	}
	if skipped > 0 {
		out += fmt.Sprintf("; %d were NOT MADE here", skipped)
	}
	return out
}

// NewJSONView prints one event a line; the last one is the summary.
func NewJSONView(w io.Writer) View { return jsonView{w, testnet.NewJSONView(w)} }

type jsonView struct {
	w   io.Writer
	net testnet.View // for its events
}

// entryLine is an Entry as a line.
type entryLine struct {
	At      float64 `json:"at_seconds"`        // seconds since the drill began
	Name    string  `json:"name,omitempty"`    // of an alert
	Process string  `json:"process,omitempty"` // that it is about; absent: the network
	Text    string  `json:"text"`
	OK      *bool   `json:"ok,omitempty"` // of a check; absent: it was not made
}

// endLine is the last line.
type endLine struct {
	OK      bool     `json:"ok"`
	Reasons []string `json:"reasons"` // why it is not ok
	Drill   string   `json:"drill"`
	Flags   []string `json:"flags"`
	Seconds float64  `json:"seconds"`               // that it took
	Stood   float64  `json:"machine_stood_seconds"` // of them, in which nothing ran
	Held    int      `json:"checks_held"`
	Failed  int      `json:"checks_failed"`
	Skipped int      `json:"checks_not_made"`
	Checks  []Result `json:"checks"`
}

func (v jsonView) Entry(at time.Time, e Entry, of testnet.Event) {
	if of != nil {
		v.net.Event(at, of)
		return
	}
	v.line(at, e.Kind, entryLine{e.At, e.Name, e.Process, e.Text, e.OK})
}

func (v jsonView) line(at time.Time, kind string, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		panic("drill: " + err.Error()) // our own types can be encoded
	}
	fmt.Fprintf(v.w, "{\"type\":%q,\"time\":%q,%s\n", kind, at.UTC().Format(time.RFC3339Nano), b[1:]) //nolint:errcheck // nobody reads any more
}

func (jsonView) Progress(Progress) {}

func (v jsonView) End(tl *Timeline) {
	ok, failed, skipped := tl.count()
	v.line(time.Now(), "summary", endLine{tl.OK, tl.Reasons, tl.Drill, tl.Flags, tl.Seconds, tl.Stood, ok, failed, skipped, tl.Checks})
}
