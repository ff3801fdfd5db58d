package page

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Death is what a supervisor told of one.
type Death struct {
	ID      string // of the supervisor's event
	Name    string // of the program
	At      time.Time
	Summary string // on one line; of a loop with the number of deaths
	Reason  string // panic, fatal, oom, signal, exit
	Status  string // how it ended
	Message string
	Version string
	Uptime  string
	Layer   string // the last one that it told; empty: none
	Hash    string // of the stack: the same for the same fault
	Stack   string
	Log     string // last lines
}

// DeathOf reads the death that an alert tells, nil if it tells none. An alert may come from
// anybody who has the token: what it says is bounded.
func DeathOf(labels, annotations map[string]string, since time.Time) *Death {
	id := annotations["event"]
	if id == "" || len(id) > maxText {
		return nil
	}
	at, err := time.Parse(time.RFC3339, annotations["time"])
	if err != nil {
		at = since
	}
	word := func(s string) string { return clip(s, maxText) }
	return &Death{
		ID: id, Name: word(labels["name"]), At: at.UTC().Truncate(time.Second),
		Summary: word(annotations["summary"]),
		Reason:  word(cmp.Or(labels["reason"], annotations["reason"])), Status: word(annotations["status"]), Message: word(annotations["description"]), Version: word(annotations["version"]),
		Uptime: word(annotations["uptime"]), Layer: word(annotations["layer"]), Hash: word(annotations["hash"]),
		Stack: clip(annotations["stack"], maxDetail), Log: clip(annotations["log"], maxDetail),
	}
}

// report is all that is known of it, for people.
func (d Death) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s died at %s\n\n", d.Name, d.At.Format(time.DateTime+"Z"))
	for _, row := range [][2]string{
		{"in short", d.Summary}, {"reason", d.Reason}, {"ended with", d.Status}, {"it said", d.Message}, {"version", d.Version}, {"had run for", d.Uptime}, {"last layer", d.Layer}, {"fault", d.Hash},
	} {
		if row[1] != "" {
			fmt.Fprintf(&b, "%-12s %s\n", row[0], row[1])
		}
	}
	fmt.Fprintf(&b, "%-12s events/%s.json in the folder of its supervisor, which has all (of a testnet: %s/crashes)\n%-12s /runbook/NodeCrashed\n", "file", d.ID, d.Name, "what to do")
	for _, part := range [][2]string{{"The last lines of its log", d.Log}, {"The stack", d.Stack}} {
		fmt.Fprintf(&b, "\n%s:\n\n%s\n", part[0], cmp.Or(part[1], "nothing was told"))
	}
	return b.String()
}

// maxDeaths is how many are remembered.
const maxDeaths = 200

// graveyard remembers deaths: their alerts are over when the programs are back.
type graveyard struct {
	mu  sync.Mutex // guards all
	all []Death    // as they were told
}

// bury adds those of the alerts, and returns all.
func (g *graveyard) bury(alerts []Alert) []Death {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range alerts {
		if a.Death != nil && !slices.ContainsFunc(g.all, func(d Death) bool { return d.ID == a.Death.ID }) {
			g.all = append(g.all, *a.Death)
		}
	}
	g.all = slices.Clone(g.all[max(0, len(g.all)-maxDeaths):]) // what was returned before stays as it is
	return g.all
}

// serve shows one.
func (g *graveyard) serve(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	i := slices.IndexFunc(g.all, func(d Death) bool { return d.ID == r.PathValue("id") })
	var text string
	if i >= 0 {
		text = g.all[i].report()
	}
	g.mu.Unlock()
	if i < 0 {
		http.Error(w, "no such death was told since the watch started: the supervisor keeps its file in events/", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(text)) // the reader has gone; nobody is left to tell
}
