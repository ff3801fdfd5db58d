package drill

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"
)

//go:embed timeline.html
var pageText string

var page = template.Must(template.New("timeline").Funcs(template.FuncMap{
	"seconds": func(v float64) string { return fmt.Sprintf("%.1f", v) },
	"join":    func(v []string) string { return strings.Join(v, "; ") },
}).Parse(pageText))

// HTML is the timeline as a page that needs nothing from elsewhere: the chart is drawn
// here, and there is no script.
func (tl *Timeline) HTML() []byte {
	var b bytes.Buffer
	ok, failed, skipped := tl.count()
	err := page.Execute(&b, struct {
		*Timeline
		Title                string
		Held, Failed, Unmade int
		Chart                template.HTML
		Date                 string
	}{tl, strings.Join(append([]string{tl.Drill}, tl.Flags...), " with "), ok, failed, skipped,
		template.HTML(tl.chart()), //nolint:gosec // chart escapes what it did not make itself
		tl.Began.UTC().Format(time.DateTime)})
	if err != nil {
		panic("drill: " + err.Error()) // our own template fits our own types
	}
	return b.Bytes()
}

// The chart's measures, in units of its own.
const (
	chartWidth = 1000
	chartLeft  = 150 // names
	rowHeight  = 14
	panel      = 70 // height of a curve
	gap        = 26 // between panels, with a title
)

// drawing is an SVG that grows downwards.
type drawing struct {
	strings.Builder
	seconds float64 // that the width shows
	y       float64
}

func (d *drawing) x(at float64) float64 {
	return chartLeft + (chartWidth-chartLeft)*min(max(at/max(d.seconds, 1), 0), 1)
}

func (d *drawing) text(x, y float64, class, anchor, text string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, template.HTMLEscapeString(text))
}

func (d *drawing) title(text string) {
	d.y += gap
	d.text(0, d.y-8, "title", "start", text)
}

// bar is a row's part between two moments.
func (d *drawing) bar(from, to float64, class, about string) {
	fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" class="%s"><title>%s</title></rect>`,
		d.x(from), d.y+2, max(d.x(to)-d.x(from), 2), rowHeight-4, class, template.HTMLEscapeString(about))
}

func (d *drawing) row(name string) { d.text(chartLeft-8, d.y+rowHeight-3, "name", "end", name) }

// curve draws values by time as steps, up to a highest one.
func (d *drawing) curve(class string, high float64, at func(yield func(at, v float64) bool)) {
	var points []string
	last := -1.0
	for t, v := range at {
		y := d.y + panel - panel*min(v/max(high, 1), 1)
		if last >= 0 {
			points = append(points, fmt.Sprintf("%.1f,%.1f", d.x(t), last))
		}
		points = append(points, fmt.Sprintf("%.1f,%.1f", d.x(t), y))
		last = y
	}
	fmt.Fprintf(d, `<polyline points="%s" class="curve %s"/>`, strings.Join(points, " "), class)
}

func (d *drawing) frame(high string) {
	fmt.Fprintf(d, `<rect x="%d" y="%.1f" width="%d" height="%d" class="frame"/>`, chartLeft, d.y, chartWidth-chartLeft, panel)
	d.text(chartLeft-8, d.y+10, "name", "end", high)
	d.text(chartLeft-8, d.y+panel, "name", "end", "0")
}

// chart draws processes, layers, ATXs, proofs, gateways and alerts over time, and the
// steps across them.
func (tl *Timeline) chart() string {
	d := &drawing{seconds: tl.Seconds, y: 30}
	tl.drawProcesses(d)
	tl.drawLayers(d)
	tl.drawATXs(d)
	tl.drawPoets(d)
	tl.drawAlerts(d)
	d.y += gap
	var out drawing
	out.seconds = tl.Seconds
	fmt.Fprintf(&out, `<svg viewBox="0 0 %d %.0f" role="img" aria-label="what happened over %.0f seconds">`, chartWidth+20, d.y+20, tl.Seconds)
	for _, e := range tl.Entries {
		if e.Kind == KindStep {
			number, _, _ := strings.Cut(e.Text, " ")
			fmt.Fprintf(&out, `<line x1="%.1f" x2="%.1f" y1="16" y2="%.0f" class="step"><title>%s</title></line>`,
				out.x(e.At), out.x(e.At), d.y, template.HTMLEscapeString(e.Text))
			out.text(out.x(e.At)+3, 12, "name", "start", number)
		}
	}
	for t := 0.0; t <= tl.Seconds; t += 30 {
		out.text(out.x(t), d.y+14, "name", "middle", fmt.Sprintf("%.0f s", t))
	}
	return out.String() + d.String() + "</svg>"
}

func (tl *Timeline) drawProcesses(d *drawing) {
	names := map[string]bool{}
	for _, s := range tl.Samples {
		for name := range s.Up {
			names[name] = true
		}
	}
	d.title("Processes (dashed: down)")
	for _, name := range sorted(names) {
		d.row(name)
		for i, s := range tl.Samples {
			first := i == 0 || tl.Samples[i-1].Up[name] != s.Up[name]
			if !first {
				continue
			}
			to := tl.Seconds
			for _, later := range tl.Samples[i:] {
				if later.Up[name] != s.Up[name] {
					to = later.At
					break
				}
			}
			class, state := "up", "runs"
			if !s.Up[name] {
				class, state = "down", "down"
			}
			d.bar(s.At, to, class, fmt.Sprintf("%s %s, %.0f to %.0f s", name, state, s.At, to))
		}
		d.y += rowHeight
	}
}

func (tl *Timeline) drawLayers(d *drawing) {
	d.title("Layers: the clock's (dashed), and the newest that is applied")
	high := 0.0
	for _, s := range tl.Samples {
		high = max(high, float64(s.Layer))
	}
	d.frame(fmt.Sprint(high))
	d.curve("dashed", high, func(yield func(at, v float64) bool) {
		for _, s := range tl.Samples {
			if !yield(s.At, float64(s.Layer)) {
				return
			}
		}
	})
	d.curve("main", high, func(yield func(at, v float64) bool) {
		for _, s := range tl.Samples {
			if !yield(s.At, float64(s.Applied)) {
				return
			}
		}
	})
	d.y += panel
}

func (tl *Timeline) drawATXs(d *drawing) {
	d.title("ATXs that count in each epoch")
	d.row("epoch, ATXs")
	for i, e := range tl.ATXs {
		to := tl.Seconds
		if i+1 < len(tl.ATXs) {
			to = tl.ATXs[i+1].At
		}
		class := "up"
		switch {
		case e.ATXs == 0 && i < 2: // nobody can have one yet
			class = "frame"
		case e.ATXs == 0:
			class = "down"
		}
		d.bar(e.At, to-0.5, class, fmt.Sprintf("epoch %d: %d ATXs", e.Epoch, e.ATXs))
		d.text((d.x(e.At)+d.x(to))/2, d.y+rowHeight+10, "name", "middle", fmt.Sprintf("%d: %d", e.Epoch, e.ATXs))
	}
	d.y += rowHeight + 12
}

func (tl *Timeline) drawPoets(d *drawing) {
	names := map[string]bool{}
	most := 1
	for _, s := range tl.Samples {
		for name := range s.Slots {
			names[name] = true
			most = max(most, s.Slots[name], s.Undelivered[name])
		}
	}
	for _, name := range sorted(names) {
		d.title(name + ": live gateways with a slot (dashed), and proofs that wait for one")
		d.frame(fmt.Sprint(most))
		d.curve("dashed", float64(most), func(yield func(at, v float64) bool) {
			for _, s := range tl.Samples {
				if !yield(s.At, float64(s.Slots[name])) {
					return
				}
			}
		})
		d.curve("main", float64(most), func(yield func(at, v float64) bool) {
			for _, s := range tl.Samples {
				if !yield(s.At, float64(s.Undelivered[name])) {
					return
				}
			}
		})
		d.y += panel
	}
}

// span is an alert from its first message to its end.
type span struct {
	name     string
	from, to float64
	text     string
}

// spans pairs what fired with what resolved.
func (tl *Timeline) spans() (out []span) {
	for _, e := range tl.Entries {
		of := e.Name
		if e.Process != "" {
			of += " " + e.Process
		}
		switch e.Kind {
		case KindAlert:
			out = append(out, span{of, e.At, tl.Seconds, e.Text})
		case KindResolved:
			for i := range out {
				if out[i].name == of && out[i].to == tl.Seconds {
					out[i].to = e.At
					break
				}
			}
		}
	}
	return out
}

func (tl *Timeline) drawAlerts(d *drawing) {
	d.title("Alerts")
	names := map[string]bool{}
	spans := tl.spans()
	for _, s := range spans {
		names[s.name] = true
	}
	ordered := sorted(names)
	slices.SortStableFunc(ordered, func(a, b string) int { return int(firstOf(spans, a) - firstOf(spans, b)) })
	for _, name := range ordered {
		d.row(strings.TrimPrefix(name, "Poet"))
		for _, s := range spans {
			if s.name == name {
				d.bar(s.from, s.to, "alert", fmt.Sprintf("%s (%.0f to %.0f s)", s.text, s.from, s.to))
			}
		}
		d.y += rowHeight
	}
}

func firstOf(spans []span, name string) float64 {
	for _, s := range spans {
		if s.name == name {
			return s.from
		}
	}
	return 0
}

func sorted(set map[string]bool) (out []string) {
	for name := range set {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
