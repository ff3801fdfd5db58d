// Package engine scrapes targets, stores what they say, evaluates rules and sends
// alerts: Prometheus's and Alertmanager's own packages in one process, behind
// functions that do not change when those packages do.
//
// It promises: no other package of the watch imports either of them; rules and
// notifications are replaced as a whole or not at all, and what was wrong is said
// with its line; silences and what was already sent outlive a restart; Run
// leaves nothing behind. It leaves to the caller: what to scrape, which rules,
// whom to tell, and who may reach Handler.
package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	"golang.org/x/sync/errgroup"
)

// Target is one address to scrape, as http://Address/metrics.
type Target struct {
	Job     string // kind of program: one of Config.Jobs
	Address string // host:port
	Labels  map[string]string
}

// Config is what an engine is told.
type Config struct {
	Dir      string        // keeps samples, silences and what was sent; made if it is not there
	Jobs     []string      // the kinds of targets
	Scrape   time.Duration // between two scrapes of a target
	Evaluate time.Duration // between two evaluations of the rules
	Keep     time.Duration // how long samples stay
	KeepSize int64         // bytes of samples on disk at most

	Rules  map[string]string // content of rule files, by name
	Notify string            // an Alertmanager configuration
	URL    string            // of our own page, for links in alerts
	Self   map[string]string // labels of what the engine tells of itself

	Registry *prometheus.Registry
	Log      *slog.Logger
}

// Limits of one engine: bounds of what a target or a query can take.
const (
	maxSamplesPerScrape = 100_000
	maxSamplesPerQuery  = 5_000_000
	maxBodyBytes        = 32 << 20
	queryTimeout        = 20 * time.Second
	maxSilences         = 1_000
	maxSilenceBytes     = 16 << 10
	maxAlertsPerName    = 2_000
)

// Engine is one running engine.
type Engine struct {
	cfg     Config
	db      *tsdb.DB
	query   *promql.Engine
	scrape  *scrape.Manager
	rules   *rules.Manager
	files   ruleFiles
	deliver *deliverer
	targets chan []Target
	stop    context.CancelFunc // of the rules' evaluations
}

// Open opens the files of an engine and checks its rules and notifications. The
// caller runs it, or closes it.
func Open(cfg Config) (_ *Engine, err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w: choose another", err)
	}
	if err := CheckRules(cfg.Rules); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, targets: make(chan []Target)}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if e.deliver, err = newDeliverer(cfg); err != nil {
		return nil, err
	}
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = cfg.Keep.Milliseconds()
	opts.MaxBytes = cfg.KeepSize
	opts.StripeSize = 1 << 10 // the default is for millions of series and takes 16 MiB
	opts.WALSegmentSize = 16 << 20
	opts.NoLockfile = false
	if e.db, err = tsdb.Open(filepath.Join(cfg.Dir, "samples"), cfg.Log, cfg.Registry, opts, nil); err != nil {
		return nil, fmt.Errorf("samples in %s: %w: if they are damaged, move that folder away and start again", cfg.Dir, err)
	}
	e.query = promql.NewEngine(promql.EngineOpts{
		Logger: cfg.Log, Reg: cfg.Registry, MaxSamples: maxSamplesPerQuery, Timeout: queryTimeout,
		EnableAtModifier: true, EnableNegativeOffset: true, Parser: parser.NewParser(parser.Options{}),
	})
	if e.scrape, err = newScraper(cfg, e.db); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	e.files.set(cfg.Rules)
	e.rules = rules.NewManager(&rules.ManagerOptions{
		Context: ctx, Appendable: e.db, Queryable: e.db, QueryFunc: rules.EngineQueryFunc(e.query, e.db), NotifyFunc: e.deliver.take,
		GroupLoader: &e.files, Logger: cfg.Log, Registerer: cfg.Registry,
		OutageTolerance: time.Hour, ForGracePeriod: time.Minute, ResendDelay: time.Minute,
	})
	return e, nil
}

// Close releases what Open took, for an engine that is not run.
func (e *Engine) Close() {
	if e.stop != nil {
		e.stop()
	}
	if e.deliver != nil {
		e.deliver.close()
	}
	if e.db != nil {
		if err := e.db.Close(); err != nil {
			e.cfg.Log.Error("closing the samples", "err", err)
		}
	}
}

// Run works until ctx ends, then closes the engine.
func (e *Engine) Run(ctx context.Context) error {
	defer e.Close()
	if err := e.deliver.start(); err != nil {
		return err
	}
	if err := e.rules.Update(e.cfg.Evaluate, e.files.names(), labels.EmptyLabels(), e.cfg.URL, nil); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	sets := make(chan targetSets)
	group.Go(func() error { return e.scrape.Run(sets) })
	group.Go(func() error { e.rules.Run(); return nil })
	group.Go(func() error { e.tellBlindness(ctx); return nil })
	group.Go(func() error {
		defer e.scrape.Stop()
		defer e.rules.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case ts := <-e.targets:
				select {
				case sets <- groupTargets(ts):
				case <-ctx.Done():
					return nil
				}
			}
		}
	})
	return group.Wait()
}

// SetTargets replaces what is scraped. It waits until the engine runs.
func (e *Engine) SetTargets(ctx context.Context, targets []Target) error {
	select {
	case e.targets <- targets:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Replace takes other rules and notifications. If one of them is not accepted, all
// the old ones stay.
func (e *Engine) Replace(ruleFiles map[string]string, notify string) error {
	if err := CheckRules(ruleFiles); err != nil {
		return err
	}
	if err := e.deliver.apply(notify); err != nil {
		return err
	}
	e.files.set(ruleFiles)
	return e.rules.Update(e.cfg.Evaluate, e.files.names(), labels.EmptyLabels(), e.cfg.URL, nil)
}

// Handler serves the API of Alertmanager (/api/v2) and the queries of Prometheus
// (/api/v1). It has no guard of its own.
func (e *Engine) Handler() http.Handler { return e.handler() }
