package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tweedle/services/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a view that keeps what it is told.
type recorder struct {
	lines    []string
	progress []Progress
}

func (r *recorder) Entry(_ time.Time, e Entry, _ testnet.Event) {
	r.lines = append(r.lines, fmt.Sprintf("%.1f %s %s", e.At, e.Kind, e.Text))
}
func (r *recorder) Progress(p Progress) { r.progress = append(r.progress, p) }
func (r *recorder) End(*Timeline)       {}

// playIn plays steps in virtual time, on a stage without a network.
func playIn(t *testing.T, steps func(began time.Time) []Step, always ...Check) (tl *Timeline, r *recorder, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r = &recorder{}
		tl = newTimeline("unit", Flags{}, r)
		err = play(t.Context(), newStage(t.TempDir(), Flags{}, tl), tl, steps(time.Now()), always)
		tl.finish()
	})
	return tl, r, err
}

// from holds from a moment on.
func from(began time.Time, after time.Duration) func(*Stage) (bool, string) {
	return func(*Stage) (bool, string) {
		return time.Since(began) >= after, fmt.Sprintf("after %v", after)
	}
}

// to holds until a moment.
func to(began time.Time, end time.Duration) func(*Stage) (bool, string) {
	return func(*Stage) (bool, string) { return time.Since(began) < end, fmt.Sprintf("to %v", end) }
}

func TestADrillIsOKIfEveryCheckHolds(t *testing.T) {
	tl, r, err := playIn(t, func(began time.Time) []Step {
		return []Step{
			{Title: "first", Lasts: 10 * time.Second, Checks: []Check{
				{Name: "soon", Within: 5 * time.Second, Look: from(began, 3*time.Second)},
				{Name: "kept", Look: to(began, 4*time.Second)},
			}},
			{Title: "second", Lasts: 20 * time.Second, At: func(context.Context, *Stage) (time.Time, error) { return began.Add(30 * time.Second), nil },
				Do:     func(ctx context.Context, _ *Stage) error { sleep(ctx, 2*time.Second); return nil },
				Checks: []Check{{Name: "then", Then: true, Within: 5 * time.Second, Look: from(began, 0)}}},
		}
	}, Check{Name: "always", Look: func(*Stage) (bool, string) { return true, "fine" }})
	if err != nil || !tl.OK || len(tl.Reasons) != 0 || len(tl.Checks) != 4 {
		t.Fatalf("%v: %+v\n%s", err, tl, strings.Join(r.lines, "\n"))
	}
	for name, want := range map[string]Result{
		"soon": {Step: 1, Took: 3, Within: 5, At: 3}, "kept": {Step: 1, Took: 3, At: 3},
		"then": {Step: 2, Took: 2, Within: 5, At: 32}, "always": {Step: 2, Took: 2, At: 32},
	} {
		for _, c := range tl.Checks {
			if c.Name == name && (!c.OK || c.Step != want.Step || c.Took < want.Took || c.Took > want.Took+0.5 || c.Within != want.Within || c.At < want.At) {
				t.Errorf("%s: %+v, want %+v", name, c, want)
			}
		}
	}
	if p := r.progress[0]; p.Step != 1 || p.Of != 2 || p.Left != 30*time.Second {
		t.Errorf("the first progress is %+v", p)
	}
	for i := 1; i < len(r.progress); i++ {
		if r.progress[i].Left > r.progress[i-1].Left {
			t.Fatalf("the time left grows from %+v to %+v", r.progress[i-1], r.progress[i])
		}
	}
}

// Each way in which a check can fail ends the drill at its step, and is its reason.
func TestADrillEndsAtTheFirstStepThatFails(t *testing.T) {
	never := func(*Stage) (bool, string) { return false, "never" }
	for name, c := range map[string]func(began time.Time) Check{
		"late": func(time.Time) Check { return Check{Name: "x", Within: 2 * time.Second, Look: never} },
		"a moment too late": func(b time.Time) Check {
			return Check{Name: "x", Within: 2 * time.Second, Look: from(b, 2100*time.Millisecond)}
		},
		"not kept": func(b time.Time) Check { return Check{Name: "x", Look: to(b, time.Second)} },
		"not kept for once": func(time.Time) Check {
			return Check{Name: "x", Look: func() func(*Stage) (bool, string) {
				n := 0
				return func(*Stage) (bool, string) { n++; return n != 3, "once" }
			}()}
		},
		"then, and not before": func(time.Time) Check { return Check{Name: "x", Then: true, Within: time.Second, Look: never} },
	} {
		t.Run(name, func(t *testing.T) {
			after := false
			tl, _, err := playIn(t, func(began time.Time) []Step {
				return []Step{
					{Title: "first", Checks: []Check{c(began), {Name: "other", Within: 10 * time.Second, Look: from(began, 3*time.Second)}}},
					{Title: "second", Do: func(context.Context, *Stage) error { after = true; return nil }},
				}
			})
			if err != nil || tl.OK || after || len(tl.Reasons) != 1 || !strings.HasPrefix(tl.Reasons[0], "x: ") {
				t.Errorf("%v: ok %v, the second step came: %v, reasons %v", err, tl.OK, after, tl.Reasons)
			}
		})
	}
}

// What must hold always is looked at in every step but the first, and its figure is the
// last one.
func TestWhatMustHoldAlwaysEndsTheDrill(t *testing.T) {
	looked := 0
	steps := func(began time.Time) []Step {
		return []Step{
			{Title: "first", Checks: []Check{{Name: "a", Within: 9 * time.Second, Look: from(began, 5*time.Second)}}},
			{Title: "second", Checks: []Check{{Name: "b", Within: 9 * time.Second, Look: from(began, 10*time.Second)}}},
			{Title: "third", Checks: []Check{{Name: "c", Within: 9 * time.Second, Look: from(began, 15*time.Second)}}},
		}
	}
	tl, _, _ := playIn(t, steps, Check{Name: "always", Look: func(*Stage) (bool, string) { looked++; return looked < 30, fmt.Sprint(looked) }})
	if n := len(tl.Reasons); tl.OK || n != 1 || tl.Reasons[0] != "always: 30" || tl.Checks[len(tl.Checks)-1].Step != 3 {
		t.Errorf("%+v", tl.Checks)
	}
}

func TestAStepThatCannotBeDoneIsTheReason(t *testing.T) {
	_, _, err := playIn(t, func(time.Time) []Step {
		return []Step{{Title: "x", Do: func(context.Context, *Stage) error { return errors.New("no such process") }}}
	})
	if err == nil || err.Error() != "no such process" {
		t.Error(err)
	}
}

// A check that cannot be made is no success: without any other the drill is not ok.
func TestACheckThatIsNotMadeSaysSo(t *testing.T) {
	skipped := Check{Name: "disk", Within: time.Second, Skip: func(*Stage) string { return "not root" }, Look: func(*Stage) (bool, string) { return true, "" }}
	tl, r, _ := playIn(t, func(time.Time) []Step { return []Step{{Title: "x", Checks: []Check{skipped}}} })
	if tl.OK || !strings.Contains(strings.Join(r.lines, "\n"), "NOT CHECKED  disk: not root") || tl.Reasons[0] != "nothing was checked" {
		t.Errorf("%+v %v", tl, r.lines)
	}
	if ok, failed, unmade := tl.count(); ok != 0 || failed != 0 || unmade != 1 {
		t.Errorf("%d, %d, %d", ok, failed, unmade)
	}
	if v := tl.verdict(); !strings.Contains(v, "1 were NOT MADE here") {
		t.Error(v)
	}
}

func TestAnInterruptedDrillEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline("unit", Flags{}, nobody{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		err := play(ctx, newStage(t.TempDir(), Flags{}, tl), tl, []Step{{Title: "x", At: func(context.Context, *Stage) (time.Time, error) { return began.Add(time.Hour), nil }}}, nil)
		if err == nil || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestDrillsAreWellFormed(t *testing.T) {
	for _, s := range Scripts() {
		if found, err := Find(s.Name); err != nil || found.Name != s.Name || s.Proves == "" {
			t.Errorf("%s: %v, proves %q", s.Name, err, s.Proves)
		}
		variants := []Flags{{}}
		if s.Variants {
			variants = append(variants, Flags{Pull: true}, Flags{Recycle: true}, Flags{Pull: true, Recycle: true})
		}
		for _, f := range variants {
			if o := s.Network(f); o.Nodes == 0 || o.Poets == 0 || o.Preset == "" {
				t.Errorf("%s %v: %+v", s.Name, f, o)
			}
			for i, step := range s.Steps(f) {
				if step.Title == "" || step.Lasts <= 0 || len(step.Checks) == 0 {
					t.Errorf("%s %v: step %d has no title, no time or no check", s.Name, f, i+1)
				}
				names := map[string]bool{}
				for _, c := range step.Checks {
					if c.Name == "" || c.Look == nil || names[c.Name] || c.Then && c.Within == 0 {
						t.Errorf("%s %v, step %d: check %q has no name or look, or stands twice", s.Name, f, i+1, c.Name)
					}
					names[c.Name] = true
				}
			}
		}
	}
	if _, err := Find("moon"); err == nil || !strings.Contains(err.Error(), "tweedledee") {
		t.Error(err)
	}
}

func TestADrillNeedsAFolderOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := place(dir); err != nil {
		t.Error(err)
	}
	if _, err := Run(t.Context(), Script{Name: "plain"}, Options{Flags: Flags{Pull: true}, Dir: dir}); err == nil || !strings.Contains(err.Error(), "has no variants") {
		t.Error(err)
	}
	if _, _, err := place(".."); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Error(err)
	}
}

// send is what Alertmanager sends.
func send(t *testing.T, url, status string, alerts ...map[string]string) {
	t.Helper()
	var body struct {
		Alerts []map[string]any `json:"alerts"`
	}
	for _, labels := range alerts {
		body.Alerts = append(body.Alerts, map[string]any{"status": status, "labels": labels, "annotations": map[string]string{"summary": "it broke", "why": "because"}})
	}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(url, "application/json", bytes.NewReader(b))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", err, res)
	}
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

func TestAlertsAreCountedOnceAndEnd(t *testing.T) {
	var told []string
	a := &alerts{tell: func(a Alert) { told = append(told, a.text()) }}
	h, err := a.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	one := map[string]string{"alertname": "NodeCrashed", "name": "node-1", "crash": "a"}
	two := map[string]string{"alertname": "NodeCrashed", "name": "node-1", "crash": "b"}
	cpu := map[string]string{"alertname": "CPUHigh", "name": "host"}
	send(t, h.url, "firing", one, cpu)
	send(t, h.url, "firing", one, two) // the group again
	if _, n := a.first("NodeCrashed"); n != 1 || len(a.list()) != 3 {
		t.Errorf("%d processes, %v", n, a.list())
	}
	if got := a.firing(); len(got) != 2 || got[0] != "NodeCrashed node-1" {
		t.Errorf("firing: %v", got)
	}
	send(t, h.url, "resolved", one)
	send(t, h.url, "resolved", one, two)
	if got := a.firing(); len(got) != 0 { // the machine's does not count
		t.Errorf("firing: %v", got)
	}
	send(t, h.url, "firing", one)
	if got := a.firing(); len(got) != 1 {
		t.Errorf("firing again: %v", got)
	}
	if want := "NodeCrashed of node-1: it broke: because"; told[0] != want || !strings.Contains(strings.Join(told, "\n"), "NodeCrashed of node-1 is over") {
		t.Errorf("told %q", told)
	}
	res, err := http.Post(h.url, "application/json", strings.NewReader("{"))
	if err != nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("%v %v", err, res)
	}
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}
