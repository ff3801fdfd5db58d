package engine

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
)

// targetSets are targets by job, as the scraper takes them.
type targetSets = map[string][]*targetgroup.Group

func newScraper(cfg Config, to storage.Appendable) (*scrape.Manager, error) {
	var text strings.Builder
	timeout := min(cfg.Scrape, maxScrapeTimeout)
	fmt.Fprintf(&text, "global: {scrape_interval: %s, scrape_timeout: %s, evaluation_interval: %s}\nscrape_configs:\n",
		model.Duration(cfg.Scrape), model.Duration(timeout), model.Duration(cfg.Evaluate))
	for _, job := range cfg.Jobs {
		fmt.Fprintf(&text, "- {job_name: %q, sample_limit: %d, body_size_limit: %dB, honor_timestamps: false}\n", job, maxSamplesPerScrape, maxBodyBytes)
	}
	parsed, err := config.Load(text.String(), cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("scrape configuration: %w", err)
	}
	opts := &scrape.Options{DiscoveryReloadInterval: model.Duration(reloadInterval), DiscoveryReloadOnStartup: true}
	m, err := scrape.NewManager(opts, cfg.Log, nil, to, nil, cfg.Registry)
	if err != nil {
		return nil, err
	}
	return m, m.ApplyConfig(parsed)
}

// groupTargets sorts targets by job. Each is a group of its own, for its labels.
func groupTargets(targets []Target) targetSets {
	sets := targetSets{}
	for _, t := range targets {
		extra := model.LabelSet{}
		for name, value := range t.Labels {
			extra[model.LabelName(name)] = model.LabelValue(value)
		}
		sets[t.Job] = append(sets[t.Job], &targetgroup.Group{
			Source: t.Job + "/" + t.Address, Labels: extra,
			Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(t.Address)}},
		})
	}
	return sets
}

// ruleFiles gives the rule manager files that are not on a disk.
type ruleFiles struct {
	mu    sync.Mutex // guards files
	files map[string]string
}

func (r *ruleFiles) set(files map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files = maps.Clone(files)
}

func (r *ruleFiles) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.files))
}

// Load implements rules.GroupLoader.
func (r *ruleFiles) Load(name string, ignoreUnknown bool, names model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	r.mu.Lock()
	text := r.files[name]
	r.mu.Unlock()
	return rulefmt.Parse([]byte(text), ignoreUnknown, names, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
}

// Parse implements rules.GroupLoader.
func (r *ruleFiles) Parse(query string) (parser.Expr, error) {
	return parser.NewParser(parser.Options{}).ParseExpr(query)
}

// CheckRules returns what is wrong with rule files, each fault with its file and
// line.
func CheckRules(files map[string]string) error {
	var r ruleFiles
	r.set(files)
	var all []error
	for _, name := range r.names() {
		_, errs := r.Load(name, false, model.LegacyValidation)
		for _, err := range errs {
			all = append(all, fmt.Errorf("rule file %s: %w", name, err))
		}
	}
	return errors.Join(all...)
}

// Expr is one expression with what it asks for.
type Expr struct {
	Where   string // file and alert
	Text    string
	Metrics []string // names of the metrics, sorted
}

// Expressions lists the expressions of rule files.
func Expressions(files map[string]string) ([]Expr, error) {
	var r ruleFiles
	r.set(files)
	var out []Expr
	for _, name := range r.names() {
		groups, errs := r.Load(name, false, model.LegacyValidation)
		if len(errs) > 0 {
			return nil, fmt.Errorf("rule file %s: %w", name, errors.Join(errs...))
		}
		for _, g := range groups.Groups {
			for _, rule := range g.Rules {
				metrics, err := Metrics(rule.Expr)
				if err != nil {
					return nil, err
				}
				for _, text := range rule.Annotations {
					for _, q := range annotated.FindAllStringSubmatch(text, -1) {
						more, err := Metrics(strings.NewReplacer(`\"`, `"`, `%q`, `""`).Replace(q[1]))
						if err != nil {
							return nil, err
						}
						metrics = append(metrics, more...)
					}
				}
				slices.Sort(metrics)
				out = append(out, Expr{Where: name + ": " + cmp.Or(rule.Alert, rule.Record), Text: rule.Expr, Metrics: slices.Compact(metrics)})
			}
		}
	}
	return out, nil
}

// annotated finds what an annotation asks for: query (printf "EXPRESSION" ...).
var annotated = regexp.MustCompile(`query \(printf "((?:[^"\\]|\\.)*)"`)

// Metrics lists the names of the metrics that an expression asks for.
func Metrics(expr string) ([]string, error) {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return nil, fmt.Errorf("expression %s: %w", expr, err)
	}
	names := map[string]bool{}
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			name := v.Name
			for _, m := range v.LabelMatchers {
				if m.Name == model.MetricNameLabel {
					name = m.Value
				}
			}
			names[name] = true
		}
		return nil
	})
	return slices.Sorted(maps.Keys(names)), nil
}
