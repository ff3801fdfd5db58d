package drill

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"tweedle/services/testnet"
)

// Kinds of entries of a timeline, beside those of the testnet's events.
const (
	KindStep     = "step"
	KindNote     = "drill" // what the drill says
	KindAlert    = "alert"
	KindResolved = "resolved" // of an alert
	KindCheck    = "check"
)

// Entry is something that happened.
type Entry struct {
	At   float64 `json:"at_seconds"` // seconds since the drill began
	Kind string  `json:"kind"`
	Name string  `json:"name,omitempty"` // of an alert
	// Process is what an alert is about; empty: the network.
	Process string `json:"process,omitempty"`
	Text    string `json:"text"`
	OK      *bool  `json:"ok,omitempty"` // of a check; nil of one that was not made
}

// Result is how a check went.
type Result struct {
	Step    int     `json:"step"` // from 1
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Figure  string  `json:"figure"`
	At      float64 `json:"at_seconds"`               // seconds since the drill began
	Took    float64 `json:"took_seconds"`             // seconds since its step began
	Within  float64 `json:"within_seconds,omitempty"` // seconds; absent: it had to hold all the time
	Skipped string  `json:"skipped,omitempty"`        // why it was not checked

	took, within time.Duration
}

// Sample is the network at one moment, for the chart.
type Sample struct {
	At          float64         `json:"at_seconds"`
	Layer       uint32          `json:"layer"`   // by the clock
	Applied     uint32          `json:"applied"` // the newest that any node applied
	Slots       map[string]int  `json:"slots"`   // live gateways with a slot, by PoET
	Undelivered map[string]int  `json:"undelivered"`
	Up          map[string]bool `json:"up"` // processes
}

// Bounds of what is kept.
const (
	sampleEvery = time.Second
	maxSamples  = 3600
	maxEntries  = 20_000
)

// Timeline is the record of a run. It is safe for concurrent use until it is finished.
type Timeline struct {
	Drill   string    `json:"drill"`
	Flags   []string  `json:"flags"`
	OK      bool      `json:"ok"`
	Reasons []string  `json:"reasons"` // why it is not ok
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	// Stood is the longest time for which the machine gave us no processor, in seconds:
	// what is on time on a quiet machine may have been missed then.
	Stood   float64  `json:"machine_stood_seconds"`
	Checks  []Result `json:"checks"`
	Entries []Entry  `json:"entries"`
	Samples []Sample `json:"samples"`
	// ATXs are the smeshers with an ATX that counts in an epoch, by when it began.
	ATXs []EpochATXs `json:"atxs"`

	mu     sync.Mutex // guards all above, and that the view is told one thing at a time
	view   View
	at     int // the step that runs, from 1
	stepAt time.Time
	fails  bool
}

// EpochATXs tells how many ATXs count in an epoch.
type EpochATXs struct {
	At    float64 `json:"at_seconds"` // when it began
	Epoch uint32  `json:"epoch"`
	ATXs  int     `json:"atxs"`
}

func newTimeline(name string, f Flags, v View) *Timeline {
	return &Timeline{Drill: name, Flags: append([]string{}, f.names()...), Reasons: []string{}, Began: time.Now(), view: v}
}

// since returns the seconds from the beginning to a moment.
func (tl *Timeline) since(at time.Time) float64 {
	return float64(at.Sub(tl.Began).Round(time.Millisecond)) / float64(time.Second)
}

// put adds an entry; the caller holds mu.
func (tl *Timeline) put(at time.Time, e Entry, of testnet.Event) {
	e.At, e.Text = tl.since(at), clean(e.Text)
	if len(tl.Entries) < maxEntries {
		tl.Entries = append(tl.Entries, e)
	}
	tl.view.Entry(at, e, of)
}

// clean drops what could steer a terminal or break a page: a log may hold what a stranger sent.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
}

func (tl *Timeline) note(text string) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	tl.put(time.Now(), Entry{Kind: KindNote, Text: text}, nil)
}

// event takes what the testnet tells.
func (tl *Timeline) event(at time.Time, e testnet.Event) {
	kind, text := testnet.Describe(e)
	tl.mu.Lock()
	defer tl.mu.Unlock()
	if c, ok := e.(testnet.Clock); ok {
		tl.ATXs = append(tl.ATXs, EpochATXs{tl.since(at), c.Epoch, c.ATXs})
	}
	tl.put(at, Entry{Kind: kind, Text: text}, e)
}

func (tl *Timeline) alert(a Alert) {
	kind := KindAlert
	if a.Resolved {
		kind = KindResolved
	}
	tl.mu.Lock()
	defer tl.mu.Unlock()
	tl.put(a.Came, Entry{Kind: kind, Name: a.Name, Process: a.Of, Text: a.text()}, nil)
}

func (tl *Timeline) step(i, of int, title string) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	tl.at, tl.stepAt = i+1, time.Now()
	tl.put(tl.stepAt, Entry{Kind: KindStep, Text: fmt.Sprintf("%d of %d: %s", i+1, of, title)}, nil)
}

func (tl *Timeline) check(r Result) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	now := time.Now()
	r.Figure = clean(r.Figure)
	r.Step, r.At, r.Took, r.Within = tl.at, tl.since(now), seconds(r.took), seconds(r.within)
	tl.Checks = append(tl.Checks, r)
	e := Entry{Kind: KindCheck, Text: r.text(), OK: &r.OK}
	if r.Skipped != "" {
		e.OK = nil
	} else if !r.OK {
		tl.fails = true
		tl.Reasons = append(tl.Reasons, r.Name+": "+r.Figure)
	}
	tl.put(now, e, nil)
}

func seconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Millisecond)) / float64(time.Second)
}

func (r Result) text() string {
	switch {
	case r.Skipped != "":
		return "NOT CHECKED  " + r.Name + ": " + r.Skipped
	case !r.OK && r.Within > 0:
		return fmt.Sprintf("FAILED  %s: %s after %.1f s, the bound is %g s", r.Name, r.Figure, r.Took, r.Within)
	case !r.OK:
		return fmt.Sprintf("FAILED  %s: %s after %.1f s", r.Name, r.Figure, r.Took)
	case r.Within == 0:
		return fmt.Sprintf("ok  %s: %s, all the time", r.Name, r.Figure)
	}
	return fmt.Sprintf("ok  %s: %s after %.1f s of at most %g s", r.Name, r.Figure, r.Took, r.Within)
}

func (tl *Timeline) failed() bool {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	return tl.fails
}

func (tl *Timeline) reason(format string, args ...any) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	tl.fails = true
	tl.Reasons = append(tl.Reasons, fmt.Sprintf(format, args...))
}

// sample takes a status for the chart.
func (tl *Timeline) sample(s *testnet.Status) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	now := tl.since(time.Now())
	if n := len(tl.Samples); n == maxSamples || n > 0 && now-tl.Samples[n-1].At < sampleEvery.Seconds() {
		return
	}
	out := Sample{At: now, Layer: s.Layer, Slots: map[string]int{}, Undelivered: map[string]int{}, Up: map[string]bool{}}
	for _, n := range s.Nodes {
		out.Up[n.Name] = n.State == testnet.Running && !n.Paused
		if n.AppliedLayer != nil {
			out.Applied = max(out.Applied, *n.AppliedLayer)
		}
	}
	for _, p := range s.Poets {
		out.Up[p.Name] = p.State == testnet.Running && !p.Paused
		if p.Undelivered != nil {
			out.Undelivered[p.Name] = *p.Undelivered
		}
		out.Slots[p.Name] = slotsAlive(p)
	}
	tl.Samples = append(tl.Samples, out)
}

// Times of measure.
const (
	measureEvery = 50 * time.Millisecond
	stoodLong    = time.Second // is told
)

// measure finds out for how long the machine gives us no processor, until ctx ends.
func (tl *Timeline) measure(ctx context.Context) {
	for last := time.Now(); sleep(ctx, measureEvery); last = time.Now() {
		stood := time.Since(last) - measureEvery
		tl.mu.Lock()
		tl.Stood = max(tl.Stood, seconds(stood))
		tl.mu.Unlock()
		if stood > stoodLong {
			tl.note(fmt.Sprintf("this machine stood still for %.1f s: it is too busy for a drill, and what was missed then says little", stood.Seconds()))
		}
	}
}

// progress tells the view how far it is.
func (tl *Timeline) progress(steps []Step, i int) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	p := Progress{Step: i + 1, Of: len(steps), Title: steps[i].Title, Ran: time.Since(tl.Began), Left: left(steps, i, 0)}
	if tl.at == i+1 {
		p.Left = left(steps, i, time.Since(tl.stepAt))
	}
	tl.view.Progress(p)
}

// finish judges the run.
func (tl *Timeline) finish() {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	tl.Seconds = tl.since(time.Now())
	tl.OK = !tl.fails && slices.ContainsFunc(tl.Checks, func(r Result) bool { return r.OK })
	if !tl.OK && len(tl.Reasons) == 0 {
		tl.Reasons = append(tl.Reasons, "nothing was checked")
	}
}

// count returns how many checks were made, failed, and were not made.
func (tl *Timeline) count() (ok, failed, skipped int) {
	for _, r := range tl.Checks {
		switch {
		case r.Skipped != "":
			skipped++
		case r.OK:
			ok++
		default:
			failed++
		}
	}
	return ok, failed, skipped
}
