package page

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func toldDeath(id, name string) Alert {
	labels := map[string]string{"alertname": "NodeCrashed", "severity": "page", "name": name, "reason": "panic", "crash": id}
	said := map[string]string{
		"summary": name + " died, for the 2. time", "event": id, "time": "2026-03-01T12:00:05Z", "description": "panic: out of sessions", "status": "exit status 2", "version": "v1", "uptime": "3s", "layer": "7",
		"hash": "abcdef", "stack": "goroutine 1:\nmain.die()", "log": "a line of <b>the log</b>",
	}
	since := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
	return Alert{Name: "NodeCrashed", Labels: labels, Summary: said["summary"], Since: since, Death: DeathOf(labels, said, since)}
}

// A death is told for as long as its alert fires. The page knows it when the program is back, too:
// from the node, from the log, and as a report with all that was told.
func TestADeathIsKnownAfterItsAlertIsOver(t *testing.T) {
	node := Target{Job: "node", Name: "node-1", Address: "127.0.0.1:1"}
	p, s := newTestPage(t, node)
	show := func(alerts ...Alert) {
		p.Show(Seen{At: time.Now(), Network: "t", Every: time.Second, Targets: []Target{node}, Alerts: alerts})
	}
	show(toldDeath("node-1-a", "node-1"))
	show(toldDeath("node-1-a", "node-1"))
	ended := toldDeath("node-1-z", "node-1") // it came and went between two looks
	ended.Ended = true
	show(ended)
	if _, body := get(t, s.URL+"/model/alerts"); strings.TrimSpace(body) != "[]" {
		t.Errorf("what is over fires: %s", body)
	}
	if res, _ := get(t, s.URL+"/crash/node-1-z"); res.StatusCode != 200 {
		t.Errorf("of one that was over at once: %s", res.Status)
	}
	p.deaths.all = p.deaths.all[:1]
	show()
	_, body := get(t, s.URL+"/model/node/node-1")
	if !strings.Contains(body, `"crash":{"id":"node-1-a","at":"2026-03-01T12:00:05Z","reason":"panic","text":"panic: out of sessions","of":1}`) {
		t.Errorf("the node is %s", body)
	}
	if _, body := get(t, s.URL+"/model"); !strings.Contains(body, `"alert":"NodeCrashed","crash":"node-1-a"`) {
		t.Errorf("the log has no report: %s", body)
	}
	res, body := get(t, s.URL+"/crash/node-1-a")
	for _, want := range []string{"node-1 died at 2026-03-01 12:00:05Z", "node-1 died, for the 2. time", "panic: out of sessions", "exit status 2", "v1", "3s", "abcdef", "main.die()", "a line of <b>the log</b>", "events/node-1-a.json"} {
		if !strings.Contains(body, want) {
			t.Errorf("the report has no %q:\n%s", want, body)
		}
	}
	// It is text to a browser, whatever a program wrote into its log.
	if h := res.Header; !strings.HasPrefix(h.Get("Content-Type"), "text/plain") || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the report is sent as %v", h)
	}
	if res, _ := get(t, s.URL+"/crash/node-1-b"); res.StatusCode != 404 {
		t.Errorf("of one that nobody told: %s", res.Status)
	}
	if res, _ := get(t, s.URL+"/model/node/node-2"); res.StatusCode != 404 {
		t.Errorf("of a part that there is not: %s", res.Status)
	}
}

// A loop is one alert, whose newest death is told by the time of that death.
func TestEachDeathOfALoopIsKnown(t *testing.T) {
	var g graveyard
	for i := range 3 {
		labels := map[string]string{"alertname": "NodeCrashLooping", "name": "node-1"}
		d := DeathOf(labels, map[string]string{"event": fmt.Sprint("e", i), "reason": "exit", "time": time.Unix(int64(i), 0).UTC().Format(time.RFC3339)}, time.Unix(0, 0))
		g.bury([]Alert{{Death: d}})
	}
	if all := g.bury(nil); len(all) != 3 || all[2].At.Unix() != 2 || all[2].Reason != "exit" {
		t.Errorf("%+v", all)
	}
}

// Who has the token can tell any death: it costs no more than others.
func TestDeathsHaveTheirLimits(t *testing.T) {
	long := strings.Repeat("é\xff", 100_000)
	said := map[string]string{"event": "e", "time": long}
	for _, k := range []string{"summary", "description", "status", "version", "uptime", "layer", "hash", "stack", "log", "reason"} {
		said[k] = long
	}
	d := DeathOf(map[string]string{"name": long}, said, time.Unix(9, 0))
	if d == nil || d.At.Unix() != 9 || len(d.report()) > 2*(2*maxDetail+9*maxText)+1000 {
		t.Fatalf("a report of %d bytes, at %v", len(d.report()), d.At)
	}
	if DeathOf(nil, map[string]string{"event": long}, time.Now()) != nil || DeathOf(nil, map[string]string{}, time.Now()) != nil {
		t.Error("it is the death of an event without an id, or with one that no file can have")
	}
	var g graveyard
	var before []Death
	for i := range 3 * maxDeaths {
		all := g.bury([]Alert{{Death: &Death{ID: fmt.Sprint(i)}}, {}})
		if i == maxDeaths {
			before = all
		}
	}
	if all := g.bury(nil); len(all) != maxDeaths || all[0].ID != fmt.Sprint(2*maxDeaths) {
		t.Errorf("%d deaths are remembered, the oldest is %s", len(all), all[0].ID)
	}
	if before[0].ID != "1" {
		t.Error("what was seen before has changed")
	}
}

// What reads a day of samples is not asked with every look, and what cannot be asked is not known.
func TestSamplesOfADayAreNotReadWithEveryLook(t *testing.T) {
	asked := map[string]int{}
	fail := false
	p, _ := newTestPage(t)
	p.cfg.Query = func(_ context.Context, expr string, _ time.Time) ([]Sample, error) {
		if asked[expr]++; fail {
			return nil, errors.New("made up")
		}
		return []Sample{{Labels: map[string]string{"job": "node", "name": "node-1"}, Value: 3}}, nil
	}
	begin := time.Now()
	for i := range 60 {
		s := index(p.derived(t.Context(), begin.Add(time.Duration(i)*time.Second)))
		for name := range Expressions() {
			if v, ok := s.of(name, "node", "node-1"); !ok || v != 3 {
				t.Fatalf("look %d: %s is %v", i, name, v)
			}
		}
	}
	for name, expr := range Expressions() {
		if want := map[bool]int{true: 60, false: 3}[name == seriesCPU]; asked[expr] != want {
			t.Errorf("%s was asked %d times in a minute, not %d", name, asked[expr], want)
		}
	}
	fail = true
	if all := p.derived(t.Context(), begin.Add(time.Hour)); len(all) != 0 {
		t.Errorf("samples cannot be read, and it tells %v", all)
	}
}
