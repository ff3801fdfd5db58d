package page

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"time"
)

// first is the first frame: what the watch knew when the page was asked for, as HTML, so that it
// is there before any script has run, and where none runs. The scripts begin with the same.
type first struct {
	Status Status
	Chain  []Link
	Parts  string // status and chain as JSON, for the scripts; empty: nothing was seen yet
	Age    int64  // of Parts, in milliseconds
	Style  template.CSS
}

func newFirst(parts Parts, now time.Time) first {
	f := first{Status: Status{State: Waits, Network: "Tweedle", Verdict: "Waiting for the watch"}}
	if parts["status"] == nil {
		return f
	}
	both := Parts{"status": parts["status"], "chain": parts["chain"]}
	for key, to := range map[string]any{"status": &f.Status, "chain": &f.Chain} {
		if err := json.Unmarshal(both[key], to); err != nil {
			panic("page: " + err.Error()) // it is our own
		}
	}
	f.Parts = string(encode(both))
	f.Age = max(0, now.Sub(f.Status.At).Milliseconds())
	return f
}

// Word says what the shape and the colour of a state say.
func (s State) Word() string {
	return map[State]string{OK: "well", Warn: "warning", Bad: "broken", Unknown: "unknown", Waits: "waits"}[s]
}

// index serves the page itself.
func (p *Page) index(page *template.Template, style template.CSS) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		frame := newFirst(p.hub.newest(), time.Now())
		frame.Style = style
		if err := page.Execute(&b, frame); err != nil {
			panic("page: " + err.Error()) // a buffer takes it, and the fields are there
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("Vary", "Accept-Encoding")
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			_, _ = w.Write(b.Bytes()) // the reader has gone; nobody is left to tell
			return
		}
		h.Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write(b.Bytes())
		_ = z.Close()
	}
}
