// Package config reads the one file that tells the watch everything.
//
// It promises: each mistake is named with its line and what to write instead, all
// of them at once; a secret is never part of an error; what Notify returns is a
// whole Alertmanager configuration, which a real Alertmanager takes as it is. It
// leaves to the caller: whether the addresses answer.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is what the file says.
type Config struct {
	Listen      string        // address of the page and the API
	Data        string        // folder for samples, silences, the token
	Network     string        // label net of everything that is scraped
	Scrape      time.Duration // between two scrapes
	Evaluate    time.Duration // between two evaluations of the rules
	Keep        time.Duration // how long samples stay
	Host        bool          // watch this machine too
	Targets     []Target
	TargetsFile string   // more targets, in the form of Prometheus's file_sd
	Rules       []string // rule files besides the built-in ones
	Notifiers   []Notifier
	Heartbeat   Heartbeat
}

// Target is a program to watch.
type Target struct {
	Name, Job, Address string
	Admin, TokenFile   string // of a PoET's admin API, for the page; empty: the page shows less and changes nothing
}

// Jobs lists the kinds of targets.
func Jobs() []string { return []string{"node", "poet", "supervisor", "host", "watch"} }

// Heartbeat is a URL that is asked as long as the watch works.
type Heartbeat struct {
	URL   string
	Every time.Duration
}

// Default is what holds where the file says nothing.
func Default() Config {
	return Config{
		Listen: "127.0.0.1:9096", Data: "watch-data", Network: "tweedle", Scrape: 5 * time.Second, Evaluate: 5 * time.Second,
		Keep: 15 * 24 * time.Hour, Host: true, Heartbeat: Heartbeat{Every: time.Minute},
	}
}

// Load reads a file.
func Load(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	c, err := Parse(string(b))
	if err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	dir := filepath.Dir(path)
	paths := append([]*string{&c.Data, &c.TargetsFile}, pointers(c.Rules)...)
	for i := range c.Targets {
		paths = append(paths, &c.Targets[i].TokenFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return c, nil
}

func pointers(s []string) (out []*string) {
	for i := range s {
		out = append(out, &s[i])
	}
	return out
}

// Parse reads the text of a file.
func Parse(text string) (Config, error) {
	c := Default()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return c, err // it names the line
	}
	if len(doc.Content) == 0 {
		return c, errors.New("the file is empty: name at least one target")
	}
	r := &reader{}
	r.mapping(doc.Content[0], "the file", map[string]field{
		"listen":   func(n *yaml.Node) { c.Listen = r.address(n) },
		"data":     func(n *yaml.Node) { c.Data = r.text(n) },
		"network":  func(n *yaml.Node) { c.Network = r.text(n) },
		"scrape":   func(n *yaml.Node) { c.Scrape = r.duration(n, time.Second, time.Minute) },
		"evaluate": func(n *yaml.Node) { c.Evaluate = r.duration(n, time.Second, time.Minute) },
		"keep":     func(n *yaml.Node) { c.Keep = r.duration(n, 6*time.Hour, 3*365*24*time.Hour) },
		"host":     func(n *yaml.Node) { c.Host = r.yes(n) },
		"targets": func(n *yaml.Node) {
			r.list(n, "targets", func(n *yaml.Node) { c.Targets = append(c.Targets, r.target(n)) })
		},
		"targets_file": func(n *yaml.Node) { c.TargetsFile = r.text(n) },
		"rules":        func(n *yaml.Node) { r.list(n, "rules", func(n *yaml.Node) { c.Rules = append(c.Rules, r.text(n)) }) },
		"notify": func(n *yaml.Node) {
			r.list(n, "notify", func(n *yaml.Node) { c.Notifiers = append(c.Notifiers, r.notifier(n)) })
		},
		"heartbeat": func(n *yaml.Node) {
			r.mapping(n, "heartbeat", map[string]field{
				"url":   func(n *yaml.Node) { c.Heartbeat.URL = r.url(n) },
				"every": func(n *yaml.Node) { c.Heartbeat.Every = r.duration(n, time.Second, time.Hour) },
			})
		},
	})
	seen := map[string]bool{}
	for _, t := range c.Targets {
		if seen[t.Job+" "+t.Name] {
			r.errs = append(r.errs, fmt.Errorf("two targets of job %s are called %q: give each its name", t.Job, t.Name))
		}
		seen[t.Job+" "+t.Name] = true
	}
	return c, errors.Join(r.errs...)
}

// field takes the value of a key.
type field func(*yaml.Node)

// reader reads nodes and collects what is wrong with them.
type reader struct{ errs []error }

func (r *reader) fault(n *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("line %d: %w", n.Line, fmt.Errorf(format, args...)))
}

func (r *reader) mapping(n *yaml.Node, where string, fields map[string]field) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, "%s must have keys and values, as in \"key: value\"", where)
		return
	}
	var known []string
	for k := range fields {
		known = append(known, k)
	}
	slices.Sort(known)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f := fields[key.Value]
		switch {
		case f == nil:
			r.fault(key, "%s has no key %q: %s", where, key.Value, hint(key.Value, known))
		case seen[key.Value]:
			r.fault(key, "key %q is there twice: take one away", key.Value)
		default:
			f(value)
		}
		seen[key.Value] = true
	}
}

// hint names the key that was meant, or all.
func hint(word string, known []string) string {
	const maxTypos = 2
	for _, k := range known {
		if distance(word, k) <= maxTypos {
			return fmt.Sprintf("write %q", k)
		}
	}
	return "the keys are " + strings.Join(known, ", ")
}

// distance is how many letters differ (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost = 1 + min(last, row[j], row[j+1])
			}
			last, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

func (r *reader) list(n *yaml.Node, where string, each field) {
	if n.Kind != yaml.SequenceNode {
		r.fault(n, "%s must be a list: begin each of its entries with \"- \"", where)
		return
	}
	for _, e := range n.Content {
		each(e)
	}
}

func (r *reader) text(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		r.fault(n, "a text is needed here")
	}
	return n.Value
}

func (r *reader) yes(n *yaml.Node) bool {
	b, err := strconv.ParseBool(n.Value)
	if err != nil {
		r.fault(n, "%q is neither true nor false", n.Value)
	}
	return b
}

func (r *reader) duration(n *yaml.Node, least, most time.Duration) time.Duration {
	text := n.Value
	days, isDays := strings.CutSuffix(text, "d")
	d, err := time.ParseDuration(text)
	if count, cerr := strconv.Atoi(days); isDays && cerr == nil {
		d, err = time.Duration(count)*24*time.Hour, nil
	}
	if err != nil {
		r.fault(n, "%q is no duration: write for example 5s, 10m, 2h or 15d", text)
	} else if d < least || d > most {
		r.fault(n, "%s is out of range: write %s to %s", text, least, most)
	}
	return d
}

func (r *reader) address(n *yaml.Node) string {
	if _, port, err := net.SplitHostPort(n.Value); err != nil || port == "" {
		r.fault(n, "%q is no address: write host:port, for example 127.0.0.1:9095", n.Value)
	}
	return n.Value
}

// admin reads the address of an admin listener.
func (r *reader) admin(n *yaml.Node) string {
	if strings.HasPrefix(n.Value, "unix:") {
		return n.Value
	}
	return r.address(n)
}

// url reads a URL. It can be a secret: an error does not show it.
func (r *reader) url(n *yaml.Node) string {
	u, err := url.Parse(n.Value)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		r.fault(n, "this is no URL: write one that begins with http:// or https://")
	}
	return n.Value
}

func (r *reader) target(n *yaml.Node) Target {
	var t Target
	r.mapping(n, "a target", map[string]field{
		"name":    func(n *yaml.Node) { t.Name = r.text(n) },
		"job":     func(n *yaml.Node) { t.Job = r.choice(n, "job", Jobs()) },
		"address": func(n *yaml.Node) { t.Address = r.address(n) },

		"admin":            func(n *yaml.Node) { t.Admin = r.admin(n) },
		"admin_token_file": func(n *yaml.Node) { t.TokenFile = r.text(n) },
	})
	if (t.Admin == "") != (t.TokenFile == "") || t.Admin != "" && t.Job != "poet" {
		r.fault(n, "admin and admin_token_file belong together, and to a target of job poet")
	}
	if t.Name == "" || t.Job == "" || t.Address == "" {
		r.fault(n, "a target needs name, job and address, as in {name: node-1, job: node, address: 127.0.0.1:9095}")
	}
	return t
}

func (r *reader) choice(n *yaml.Node, what string, known []string) string {
	if !slices.Contains(known, n.Value) {
		r.fault(n, "%s %q is not known: %s", what, n.Value, strings.Replace(hint(n.Value, known), "the keys are", "use one of", 1))
	}
	return n.Value
}
