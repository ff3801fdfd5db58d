// Package rules holds the alert rules and what to do about each alert.
//
// It promises: the files are in the dialect of Prometheus 2.42, ask only for
// metrics that our programs, node_exporter and the watch have, and every alert has
// a page. It leaves evaluating them to an engine, ours or a real Prometheus.
package rules

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed *.yml runbooks.md
var files embed.FS

// Files returns the rule files by name.
func Files() map[string]string {
	out := map[string]string{}
	names, _ := fs.Glob(files, "*.yml") // the pattern is right
	for _, name := range names {
		b, _ := files.ReadFile(name) // it is embedded
		out[name] = string(b)
	}
	return out
}

// Runbook returns the page of an alert, as Markdown.
func Runbook(alert string) (string, bool) {
	b, _ := files.ReadFile("runbooks.md") // it is embedded
	for part := range strings.SplitSeq("\n"+string(b), "\n## ") {
		if name, _, _ := strings.Cut(part, "\n"); name == alert {
			return "## " + strings.TrimSpace(part) + "\n", true
		}
	}
	return "", false
}
