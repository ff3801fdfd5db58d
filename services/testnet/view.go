package testnet

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// NewJSONView prints one event a line.
func NewJSONView(w io.Writer) View { return jsonView{w} }

type jsonView struct{ w io.Writer }

func (v jsonView) Event(at time.Time, e Event) {
	b, err := encode(at, e)
	if err != nil {
		panic("testnet: " + err.Error()) // our own types can be encoded
	}
	v.w.Write(append(b, '\n')) //nolint:errcheck // nobody reads any more
}

func (jsonView) Status(*Status) {}

// NewPlainView prints lines for people, and for files and pipes.
func NewPlainView(w io.Writer) View { return &plainView{w: w} }

type plainView struct {
	w    io.Writer
	said time.Time // when the countdown was last printed
}

// countdown is how often the time to genesis is printed.
const countdown = 5 * time.Second

func (v *plainView) Event(at time.Time, e Event) {
	if line := plainLine(at, e); line != "" {
		io.WriteString(v.w, line+"\n") //nolint:errcheck // nobody reads any more
	}
}

func (v *plainView) Status(s *Status) {
	now := time.Now()
	if s.Started || now.Sub(v.said) < countdown {
		return
	}
	v.said = now
	fmt.Fprintf(v.w, "%s  %s%s\n", clock(now), s.clock(now), initText(s)) //nolint:errcheck // nobody reads any more
}

// plainLine returns what a person wants to read of an event; empty: nothing.
func plainLine(at time.Time, e Event) string {
	switch e := e.(type) {
	case Smesher:
		if e.Step != stepInitializing && e.Error == "" {
			return "" // every epoch has the same steps
		}
	case Summary:
		if e.failed {
			return ""
		}
	case PoetRound:
		if e.Error == "" && (e.Members == 0 || e.State != roundExecuting && e.State != roundFinished) {
			return ""
		}
	}
	return stamp(at, e.text())
}

// stamp puts the time before a text, and drops what could steer a terminal: a
// log may hold what a stranger sent.
func stamp(at time.Time, text string) string {
	clean := func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}
	return clock(at) + "  " + strings.Map(clean, text)
}

// initText returns how far PoST initialization is, if it goes on.
func initText(s *Status) string {
	var parts []string
	for _, n := range s.Nodes {
		if n.Smesher != nil && n.Smesher.Step == stepInitializing {
			parts = append(parts, fmt.Sprintf("%s %.0f %%", n.Name, 100*n.Smesher.Progress))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "; PoST: " + strings.Join(parts, ", ")
}

// Text returns the status as a table, without line ends.
func (s *Status) Text(now time.Time) []string {
	lines := []string{fmt.Sprintf("network %s: %s", s.Network, s.clock(now))}
	if !s.Running {
		lines[0] = fmt.Sprintf("network %s is not running; genesis was %s", s.Network, date(s.Genesis))
	}
	if s.Watch != nil {
		lines = append(lines, fmt.Sprintf("alerts that fire: %s; see %s", number(s.Alerts), *s.Watch))
	}
	lines = append(lines, "", fmt.Sprintf("%-8s %-8s %7s %8s %-11s %5s %4s  %s",
		"node", "state", "pid", "applied", "state root", "peers", "ATX", "smesher"))
	for _, n := range s.Nodes {
		step := n.Error
		if n.Smesher != nil {
			step = stepText(*n.Smesher)
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%-8s %-8s %7d %8s %-11s %5s %4s  %s", n.Name, stateText(n.State, n.Paused), n.PID,
			number(n.AppliedLayer), short(n.StateRoot), number(n.Peers), number(n.ATXEpoch), step), " "))
	}
	lines = append(lines, "", fmt.Sprintf("%-8s %-8s %7s %6s %10s %12s  %s",
		"PoET", "state", "pid", "open", "executing", "undelivered", "gateways"))
	for _, p := range s.Poets {
		gateways := gatewaysText(p.Gateways)
		switch {
		case p.Error != "":
			gateways = p.Error
		case p.Gateways == nil:
			gateways = "-"
		}
		lines = append(lines, fmt.Sprintf("%-8s %-8s %7d %6s %10s %12s  %s", p.Name, stateText(p.State, p.Paused), p.PID,
			number(p.Round), number(p.Executing), number(p.Undelivered), gateways))
	}
	return lines
}

func stateText(s State, paused bool) string {
	if paused {
		return "paused"
	}
	return string(s)
}

// number writes what may be unknown.
func number[T any](v *T) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprint(*v)
}

func short(s *string) string {
	if s == nil || *s == "" {
		return "-"
	}
	return fmt.Sprintf("%.10s", *s)
}
