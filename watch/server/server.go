// Package server is the watch as a process: it reads the configuration, keeps the
// engine supplied with targets, rules and notifiers, sends the heartbeat, and
// serves page and API.
//
// It promises: a wrong new configuration changes nothing and is told by an alert;
// what changes something needs the token; Run leaves nothing behind. It leaves
// signals and flags to the caller.
package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"tweedle/watch/config"
	"tweedle/watch/engine"
	"tweedle/watch/host"
	"tweedle/watch/page"
	"tweedle/watch/rules"
)

// TokenFile is the name of the file in the data folder with the token.
const TokenFile = "token"

// Times of the server.
const (
	lookEvery     = 2 * time.Second // at the file of targets
	heartbeatTime = 10 * time.Second
	headerTime    = 5 * time.Second
	requestTime   = 40 * time.Second
	closeTime     = 2 * time.Second
	maxKeepBytes  = 4 << 30 // of samples
	maxTargets    = 1000
)

// ownName is the watch's job and name among its targets.
const ownName = "watch"

// Server is one watch.
type Server struct {
	path     string // of the configuration
	cfg      config.Config
	log      *slog.Logger
	engine   *engine.Engine
	registry *prometheus.Registry
	listener net.Listener
	token    string

	page      *page.Page
	targets   atomic.Pointer[[]page.Target]
	inventory *prometheus.GaugeVec
	valid     prometheus.Gauge
	beats     prometheus.Counter
	failures  prometheus.Counter
	reload    chan struct{}
}

// Open reads the configuration, opens the files and the listener.
func Open(path string, log *slog.Logger) (_ *Server, err error) {
	s := &Server{path: path, log: log, registry: prometheus.NewRegistry(), reload: make(chan struct{}, 1)}
	if s.cfg, err = config.Load(path); err != nil {
		return nil, err
	}
	s.metrics()
	notify, files, err := s.material(s.cfg)
	if err != nil {
		return nil, err
	}
	if s.cfg.Host {
		c, err := host.New(log)
		if err != nil {
			return nil, err
		}
		s.registry.MustRegister(c)
	}
	if s.listener, err = net.Listen("tcp", s.cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen: %w: choose another address", err)
	}
	defer func() {
		if err != nil {
			s.listener.Close()
		}
	}()
	s.engine, err = engine.Open(engine.Config{
		Dir: s.cfg.Data, Jobs: config.Jobs(), Scrape: s.cfg.Scrape, Evaluate: s.cfg.Evaluate, Keep: s.cfg.Keep, KeepSize: maxKeepBytes,
		Rules: files, Notify: notify, URL: s.URL(), Registry: s.registry, Log: log,
		Self: map[string]string{"job": ownName, "name": ownName, "net": s.cfg.Network},
	})
	if err != nil {
		return nil, err
	}
	s.token, err = readToken(filepath.Join(s.cfg.Data, TokenFile))
	if err == nil {
		s.page, err = s.newPage()
	}
	if err != nil {
		s.engine.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) metrics() {
	s.inventory = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tweedle_watch_target", Help: "1 for each program that is to be watched."}, []string{"target_job", "target_name"})
	s.valid = prometheus.NewGauge(prometheus.GaugeOpts{Name: "tweedle_watch_config_valid", Help: "1 while the configuration on disk is the one in use."})
	s.beats = prometheus.NewCounter(prometheus.CounterOpts{Name: "tweedle_watch_heartbeats_total", Help: "Heartbeats that arrived."})
	s.failures = prometheus.NewCounter(prometheus.CounterOpts{Name: "tweedle_watch_heartbeat_failures_total", Help: "Heartbeats that did not arrive."})
	s.valid.Set(1)
	s.registry.MustRegister(s.inventory, s.valid, s.beats, s.failures, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// URL is where the page is.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Alerts lists what fires.
func (s *Server) Alerts(ctx context.Context) []engine.Alert { return s.engine.Firing(ctx) }

// Reload reads the configuration again, soon.
func (s *Server) Reload() {
	select {
	case s.reload <- struct{}{}:
	default:
	}
}

// material is what an engine needs of a configuration.
func (s *Server) material(c config.Config) (notify string, files map[string]string, err error) {
	files = rules.Files()
	for _, path := range c.Rules {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", nil, fmt.Errorf("rule file: %w", err)
		}
		files[path] = string(b)
	}
	if err := engine.CheckRules(files); err != nil {
		return "", nil, err
	}
	notify, err = c.Notify()
	return notify, files, err
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	web := &http.Server{Handler: s.handler(), ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: requestTime}
	group.Go(func() error {
		if err := web.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		if web.Shutdown(last) != nil {
			return web.Close()
		}
		return nil
	})
	group.Go(func() error { return s.engine.Run(ctx) })
	group.Go(func() error { return s.supply(ctx) })
	group.Go(func() error { return s.heartbeat(ctx) })
	group.Go(func() error { return s.page.Run(ctx) })
	s.log.Info("the watch is up", "page", s.URL(), "data", s.cfg.Data, "targets", len(s.cfg.Targets), "notifiers", len(s.cfg.Notifiers))
	return group.Wait()
}

// supply keeps targets and configuration up to date.
func (s *Server) supply(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := "none"
	for {
		targets, err := s.allTargets()
		if err != nil {
			s.log.Error("the file of targets cannot be used, the old targets stay", "err", err)
		} else if now := fmt.Sprint(targets); now != last {
			if s.engine.SetTargets(ctx, s.scraped(targets)) != nil {
				return nil
			}
			s.show(targets)
			last = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.reload:
			s.valid.Set(1)
			if err := s.replace(); err != nil {
				s.valid.Set(0)
				s.log.Error("the new configuration is not used, the old one stays", "err", err)
			}
		}
	}
}

// replace takes what can be changed while the watch runs.
func (s *Server) replace() error {
	c, err := config.Load(s.path)
	if err != nil {
		return err
	}
	notify, files, err := s.material(c)
	if err != nil {
		return err
	}
	if err := s.engine.Replace(files, notify); err != nil {
		return err
	}
	s.cfg.Targets, s.cfg.TargetsFile, s.cfg.Notifiers = c.Targets, c.TargetsFile, c.Notifiers
	s.log.Info("the new configuration is used; addresses, folders and intervals change with a restart")
	return nil
}

// show publishes the inventory, for those that are not even tried.
func (s *Server) show(targets []page.Target) {
	s.targets.Store(&targets)
	s.inventory.Reset()
	for _, t := range targets {
		s.inventory.WithLabelValues(t.Job, t.Name).Set(1)
	}
}

// Labels of a PoET in the file of targets. Prometheus drops what begins with __ by itself.
const (
	adminLabel = "__admin"            // address of its admin listener
	tokenLabel = "__admin_token_file" // with the token of that
)

// allTargets lists what is to be watched: ourselves, too.
func (s *Server) allTargets() ([]page.Target, error) {
	out := []page.Target{{Job: ownName, Name: ownName, Address: s.listener.Addr().String()}}
	for _, t := range s.cfg.Targets {
		out = append(out, page.Target{Job: t.Job, Name: t.Name, Address: t.Address, Admin: t.Admin, TokenFile: t.TokenFile})
	}
	if s.cfg.TargetsFile == "" {
		return out, nil
	}
	b, err := os.ReadFile(s.cfg.TargetsFile)
	if errors.Is(err, os.ErrNotExist) {
		return out, nil // it will come
	}
	if err != nil {
		return nil, err
	}
	var groups []struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	if err := json.Unmarshal(b, &groups); err != nil {
		return nil, fmt.Errorf("%s: %w", s.cfg.TargetsFile, err)
	}
	for _, g := range groups {
		for _, address := range g.Targets {
			name, job := g.Labels["name"], g.Labels["job"]
			if name == "" || job == "" {
				return nil, fmt.Errorf("%s: target %s needs the labels name and job", s.cfg.TargetsFile, address)
			}
			out = append(out, page.Target{Job: job, Name: name, Address: address, Admin: g.Labels[adminLabel], TokenFile: g.Labels[tokenLabel]})
		}
	}
	if len(out) > maxTargets {
		return nil, fmt.Errorf("%d targets: one watch takes %d, use a real Prometheus for more", len(out), maxTargets)
	}
	return out, nil
}

// scraped are targets as the engine takes them.
func (s *Server) scraped(targets []page.Target) (out []engine.Target) {
	for _, t := range targets {
		out = append(out, engine.Target{Job: t.Job, Address: t.Address, Labels: map[string]string{"net": s.cfg.Network, "name": t.Name}})
	}
	return out
}

// heartbeat asks the URL while alerts get through the whole engine: the rule that
// always fires must fire.
func (s *Server) heartbeat(ctx context.Context) error {
	if s.cfg.Heartbeat.URL == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(s.cfg.Heartbeat.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := s.beat(ctx)
		if err == nil {
			s.beats.Inc()
		} else if ctx.Err() == nil {
			s.failures.Inc()
			s.log.Error("the heartbeat did not arrive", "err", err)
		}
	}
}

func (s *Server) beat(ctx context.Context) error {
	works := false
	for _, a := range s.engine.Firing(ctx) {
		works = works || a.Name == "Watchdog"
	}
	if !works {
		return errors.New("it was not sent: the rules do not work")
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeatTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.Heartbeat.URL, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		var withURL interface{ Unwrap() error }
		if errors.As(err, &withURL) {
			err = withURL.Unwrap() // the URL is a secret
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return errors.New(resp.Status)
	}
	return nil
}

// readToken reads the token, or makes it.
func readToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		b = []byte(rand.Text())
		err = os.WriteFile(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < 16 {
		return "", fmt.Errorf("token in %s is shorter than 16 characters: delete the file, a new one is made", path)
	}
	return token, nil
}
