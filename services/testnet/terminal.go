package testnet

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// NewView returns the view that fits where the output goes: lines, with a live
// block below them on a terminal that can move its cursor.
func NewView(out *os.File) View {
	if !term.IsTerminal(int(out.Fd())) || os.Getenv("TERM") == "dumb" {
		return NewPlainView(out)
	}
	return &terminalView{w: out, size: func() (int, int) { return sizeOf(out) }}
}

func sizeOf(out *os.File) (width, height int) {
	w, h, err := term.GetSize(int(out.Fd()))
	if err != nil || w < 1 || h < 1 {
		return 80, 24
	}
	return w, h
}

// Fit cuts lines to the width of a terminal; a file or pipe gets them as they are.
func Fit(out *os.File, lines []string) []string {
	if !term.IsTerminal(int(out.Fd())) {
		return lines
	}
	width, _ := sizeOf(out)
	fitting := make([]string, len(lines))
	for i, line := range lines {
		fitting[i] = cut(line, width)
	}
	return fitting
}

// terminalView keeps a block with the status below the lines of the events.
type terminalView struct {
	w     io.Writer
	size  func() (width, height int)
	block []string // as it is on the screen
}

// The control sequences in use (ECMA-48; the synchronized update is ignored by
// terminals that do not know it).
const (
	beginUpdate = "\x1b[?2026h"
	endUpdate   = "\x1b[?2026l"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

func (v *terminalView) Event(at time.Time, e Event) {
	block := v.block
	if _, last := e.(Summary); last {
		block = nil
	}
	if line := plainLine(at, e); line != "" {
		width, _ := v.size()
		var lines []string
		for _, line := range strings.Split(line, "\n") {
			lines = append(lines, wrap(line, width)...)
		}
		v.draw(lines, block)
	}
}

func (v *terminalView) Status(s *Status) {
	width, height := v.size()
	v.draw(nil, v.frame(s.Text(time.Now()), width, height))
}

// frame cuts the status to the terminal, with a line above it.
func (v *terminalView) frame(lines []string, width, height int) []string {
	out := []string{strings.Repeat("─", max(width-1, 0))}
	for _, line := range lines {
		out = append(out, cut(line, width-1))
	}
	// Half of the screen is for the events.
	if limit := max(height-height/3, 3); len(out) > limit {
		hidden := len(out) - limit + 1
		out = append(out[:limit-1], cut(fmt.Sprintf("… %d more lines: tweedle testnet status", hidden), width-1))
	}
	return out
}

// draw prints lines in the place of the block, and the new block below them,
// in one write so that nothing flickers.
func (v *terminalView) draw(lines, block []string) {
	var b strings.Builder
	b.WriteString(beginUpdate)
	// A terminal that has become narrower shows a line of the old block on several rows.
	rows, width := 0, 0
	if width, _ = v.size(); width > 0 {
		for _, line := range v.block {
			rows += max(1, (utf8.RuneCountInString(line)+width-1)/width)
		}
	}
	if rows > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", rows)
	}
	for _, line := range lines {
		b.WriteString(line + clearLine + "\n")
	}
	for _, line := range block {
		b.WriteString(line + clearLine + "\n")
	}
	b.WriteString(clearBelow + endUpdate)
	v.block = block
	io.WriteString(v.w, b.String()) //nolint:errcheck // nobody looks any more
}

// wrapIndent is where the rest of a line begins: below its text, which comes after the time.
const wrapIndent = "           "

// wrap breaks a line between words so that it fits.
func wrap(line string, width int) (lines []string) {
	if width < 3*len(wrapIndent) {
		return []string{line}
	}
	for utf8.RuneCountInString(line) > width {
		runes := []rune(line)
		at := strings.LastIndex(string(runes[:width+1]), " ")
		head := strings.TrimRight(line[:max(at, 0)], " ")
		if strings.TrimSpace(head) == "" { // one long word
			break
		}
		lines, line = append(lines, head), wrapIndent+strings.TrimLeft(line[at:], " ")
	}
	return append(lines, line)
}

// cut shortens a line to a number of characters.
func cut(line string, width int) string {
	if width < 1 {
		return ""
	}
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width-1]) + "…"
}
