package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/api"
	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/eventrecorder"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/inhibit"
	"github.com/prometheus/alertmanager/marker"
	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/notify/discord"
	"github.com/prometheus/alertmanager/notify/email"
	"github.com/prometheus/alertmanager/notify/pagerduty"
	"github.com/prometheus/alertmanager/notify/slack"
	"github.com/prometheus/alertmanager/notify/telegram"
	"github.com/prometheus/alertmanager/notify/webhook"
	"github.com/prometheus/alertmanager/provider/mem"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
)

// Times of the delivery.
const (
	keepSent         = 5 * 24 * time.Hour // how long it is known what was sent, and ended silences stay
	snapshotEvery    = 15 * time.Second   // a crash forgets what was sent since: it is sent again
	collectEvery     = 5 * time.Minute    // ended alerts leave
	maintainEvery    = 30 * time.Second   // empty groups leave
	apiTimeout       = 20 * time.Second
	maxScrapeTimeout = 10 * time.Second
	reloadInterval   = time.Second // a new target waits no longer
)

// deliverer groups, silences, inhibits and sends alerts: Alertmanager without its
// cluster and its user interface, wired from its packages because its own wiring
// (package app) cannot be imported without the built interface.
type deliverer struct {
	log      *slog.Logger
	dir      string
	url      *url.URL
	alerts   *mem.Alerts
	silences *silence.Silences
	silencer *silence.Silencer
	sent     *nflog.Log
	groups   marker.GroupMarker
	metrics  *dispatch.DispatcherMetrics
	pipes    *notify.PipelineBuilder
	api      *api.API
	mux      *http.ServeMux

	keeping     sync.Mutex    // guards the file of silences
	stop        chan struct{} // ends maintenance
	maintenance sync.WaitGroup
	started     bool

	mu         sync.Mutex // guards the following, and the order of apply and close
	parsed     *config.Config
	text       string
	running    bool
	work       sync.WaitGroup
	dispatcher atomic.Pointer[dispatch.Dispatcher]
	inhibitor  atomic.Pointer[inhibit.Inhibitor]
}

func newDeliverer(cfg Config) (*deliverer, error) {
	d := &deliverer{log: cfg.Log, dir: cfg.Dir, groups: marker.NewGroupMarker(), stop: make(chan struct{})}
	var err error
	if d.url, err = url.Parse(cfg.URL); err != nil {
		return nil, fmt.Errorf("the page's address: %w", err)
	}
	if d.parsed, err = parseNotify(cfg.Notify); err != nil {
		return nil, err
	}
	d.text = cfg.Notify
	if _, _, err = d.integrations(d.parsed); err != nil {
		return nil, err
	}
	// A nil recorder records nothing.
	var recorder eventrecorder.Recorder
	d.sent, err = nflog.New(nflog.Options{SnapshotFile: filepath.Join(d.dir, "sent"), Retention: keepSent, Logger: cfg.Log, Metrics: cfg.Registry})
	if err != nil {
		return nil, fmt.Errorf("file %s: %w: without it everything that fires is sent again; move it away and start again", filepath.Join(d.dir, "sent"), err)
	}
	d.silences, err = silence.New(silence.Options{
		SnapshotFile: filepath.Join(d.dir, "silences"), Retention: keepSent, Logger: cfg.Log, Metrics: cfg.Registry,
		Limits: silence.Limits{MaxSilences: func() int { return maxSilences }, MaxSilenceSizeBytes: func() int { return maxSilenceBytes }},
	})
	if err != nil {
		return nil, fmt.Errorf("file %s: %w: move it away and start again, and set the silences anew", filepath.Join(d.dir, "silences"), err)
	}
	d.silencer = silence.NewSilencer(d.silences, cfg.Log, recorder)
	// Of two notifiers of one kind, which fails.
	features, err := featurecontrol.NewFlags(cfg.Log, featurecontrol.FeatureReceiverNameInMetrics)
	if err != nil {
		return nil, err
	}
	d.alerts, err = mem.NewAlerts(context.Background(), collectEvery, maxAlertsPerName, d.silencer, cfg.Log, recorder, cfg.Registry, features)
	if err != nil {
		return nil, err
	}
	d.metrics = dispatch.NewDispatcherMetrics(false, cfg.Registry, features)
	d.pipes = notify.NewPipelineBuilder(cfg.Registry, features, recorder)
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "alertmanager_http_request_duration_seconds", Help: "Histogram of latencies for HTTP requests.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"handler", "method", "code"})
	cfg.Registry.MustRegister(seconds)
	d.api, err = api.New(api.Options{
		Alerts: d.alerts, Silences: d.silences, GroupMutedFunc: d.groups.Muted, Timeout: apiTimeout, Logger: cfg.Log,
		Registry: cfg.Registry, RequestDuration: seconds, GroupFunc: d.alertGroups,
	})
	if err != nil {
		return nil, err
	}
	d.mux = d.api.Register(route.New(), "/")
	return d, nil
}

// parseNotify reads an Alertmanager configuration. It refuses notifiers that are not
// built in, because they would be silent.
func parseNotify(text string) (*config.Config, error) {
	c, err := config.Load(text)
	if err != nil {
		return nil, fmt.Errorf("notifications: %w", err)
	}
	for _, r := range c.Receivers {
		others := len(r.OpsGenieConfigs) + len(r.WechatConfigs) + len(r.VictorOpsConfigs) + len(r.PushoverConfigs) + len(r.SNSConfigs) +
			len(r.WebexConfigs) + len(r.MSTeamsConfigs) + len(r.MSTeamsV2Configs) + len(r.JiraConfigs) + len(r.IncidentioConfigs) +
			len(r.RocketchatConfigs) + len(r.MattermostConfigs)
		if others > 0 {
			return nil, fmt.Errorf("notifications: receiver %q has a kind that is not built in: use webhook, email, slack, discord, telegram or pagerduty, or run a real Alertmanager", r.Name)
		}
	}
	return c, nil
}

// integrations makes what sends, for the receivers that a route uses.
func (d *deliverer) integrations(c *config.Config) (map[string][]notify.Integration, *template.Template, error) {
	tmpl, err := template.FromGlobs(c.Templates)
	if err != nil {
		return nil, nil, fmt.Errorf("templates of notifications: %w", err)
	}
	tmpl.ExternalURL = d.url
	used := map[string]bool{}
	dispatch.NewRoute(c.Route, nil).Walk(func(r *dispatch.Route) { used[r.RouteOpts.Receiver] = true })
	out := map[string][]notify.Integration{}
	for _, r := range c.Receivers {
		if !used[r.Name] {
			continue
		}
		if out[r.Name], err = build(r, tmpl, d.log); err != nil {
			return nil, nil, fmt.Errorf("receiver %q: %w", r.Name, err)
		}
	}
	return out, tmpl, nil
}

// build makes the integrations of one receiver.
func build(r config.Receiver, tmpl *template.Template, log *slog.Logger) ([]notify.Integration, error) {
	var out []notify.Integration
	var errs []error
	add := func(kind string, i int, resolved notify.ResolvedSender, n notify.Notifier, err error) {
		errs = append(errs, err)
		if err == nil {
			out = append(out, notify.NewIntegration(n, resolved, kind, i, r.Name))
		}
	}
	for i, c := range r.WebhookConfigs {
		n, err := webhook.New(c, tmpl, log)
		add("webhook", i, c, n, err)
	}
	for i, c := range r.EmailConfigs {
		add("email", i, c, email.New(c, tmpl, log), nil)
	}
	for i, c := range r.SlackConfigs {
		n, err := slack.New(c, tmpl, log)
		add("slack", i, c, n, err)
	}
	for i, c := range r.DiscordConfigs {
		n, err := discord.New(c, tmpl, log)
		add("discord", i, c, n, err)
	}
	for i, c := range r.TelegramConfigs {
		n, err := telegram.New(c, tmpl, log)
		add("telegram", i, c, n, err)
	}
	for i, c := range r.PagerdutyConfigs {
		n, err := pagerduty.New(c, tmpl, log)
		add("pagerduty", i, c, n, err)
	}
	return out, errors.Join(errs...)
}

// start begins to keep and to send.
func (d *deliverer) start() error {
	d.started = true
	d.maintenance.Go(func() { d.sent.Maintenance(snapshotEvery, filepath.Join(d.dir, "sent"), d.stop, nil) })
	d.maintenance.Go(func() {
		d.silences.Maintenance(snapshotEvery, filepath.Join(d.dir, "silences"), d.stop, d.keepSilences)
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = true
	return d.route(d.parsed)
}

// keepSilences writes all silences durably: the file and its name are on the disk when
// it returns.
func (d *deliverer) keepSilences() (int64, error) {
	d.keeping.Lock()
	defer d.keeping.Unlock()
	if _, err := d.silences.GC(); err != nil {
		return 0, err
	}
	b, err := d.silences.MarshalBinary()
	if err != nil {
		return 0, err
	}
	path := filepath.Join(d.dir, "silences")
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = f.Write(b)
	// If we stop before the rename, the old file holds.
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path + ".new") // the disk may be full
		return 0, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return 0, err
	}
	dir, err := os.Open(d.dir)
	if err != nil {
		return 0, err
	}
	return int64(len(b)), errors.Join(dir.Sync(), dir.Close())
}

// serve is Alertmanager's API. A silence is on the disk before it is acknowledged: one that
// a restart forgets would wake people up.
func (d *deliverer) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet || !strings.HasPrefix(r.URL.Path, "/api/v2/silence") {
		d.mux.ServeHTTP(w, r)
		return
	}
	said := &reply{header: http.Header{}, status: http.StatusOK}
	d.mux.ServeHTTP(said, r)
	if said.status < http.StatusMultipleChoices {
		if _, err := d.keepSilences(); err != nil {
			d.log.Error("silences cannot be written", "err", err)
			http.Error(w, "the silence holds until the watch ends, and is not on its disk: "+err.Error(), http.StatusInternalServerError)
			return
		}
	}
	maps.Copy(w.Header(), said.header)
	w.WriteHeader(said.status)
	_, _ = w.Write(said.body.Bytes()) // the asker has gone
}

// reply is an answer that nobody has got yet.
type reply struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *reply) Header() http.Header         { return r.header }
func (r *reply) WriteHeader(status int)      { r.status = status }
func (r *reply) Write(b []byte) (int, error) { return r.body.Write(b) }

// apply takes another configuration, or refuses it and keeps the old one.
func (d *deliverer) apply(text string) error {
	parsed, err := parseNotify(text)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.running {
		return errors.New("notifications cannot be replaced: the engine does not run")
	}
	if err := d.route(parsed); err != nil {
		return err
	}
	d.parsed, d.text = parsed, text
	return nil
}

// inhibition is the place of the stage in a receiver's pipeline that leaves out what
// another alert explains.
const inhibition = 1

// tellEnds lets the end of an alert pass though another one explains it. Alertmanager
// leaves it out, and forgets it: who was told of an alert before the other came would
// never hear that it is over. Who was not told of it is not told of its end either,
// which the last stage sees to.
func tellEnds(stages notify.MultiStage) {
	mute := stages[inhibition].(*notify.MuteStage)
	stages[inhibition] = notify.StageFunc(func(ctx context.Context, log *slog.Logger, alerts ...*alert.Alert) (context.Context, []*alert.Alert, error) {
		var ended, fire []*alert.Alert
		for _, a := range alerts {
			if a.Resolved() {
				ended = append(ended, a)
			} else {
				fire = append(fire, a)
			}
		}
		ctx, told, err := mute.Exec(ctx, log, fire...)
		return ctx, append(told, ended...), err
	})
}

// route replaces inhibitor and dispatcher. The inhibitor knows all alerts before
// anything is sent. mu is held.
func (d *deliverer) route(c *config.Config) error {
	receivers, tmpl, err := d.integrations(c)
	if err != nil {
		return err
	}
	intervals := map[string][]timeinterval.TimeInterval{}
	for _, t := range c.MuteTimeIntervals {
		intervals[t.Name] = t.TimeIntervals
	}
	for _, t := range c.TimeIntervals {
		intervals[t.Name] = t.TimeIntervals
	}
	var recorder eventrecorder.Recorder
	inhibitor := inhibit.NewInhibitor(d.alerts, c.InhibitRules, d.log, recorder)
	noWait := func() time.Duration { return 0 }
	pipeline := d.pipes.New(receivers, noWait, inhibitor, d.silencer, timeinterval.NewIntervener(intervals), d.groups, d.sent, nil)
	for _, stages := range pipeline {
		tellEnds(stages.(notify.MultiStage))
	}
	timeout := func(t time.Duration) time.Duration { return max(t, notify.MinTimeout) }
	dispatcher := dispatch.NewDispatcher(d.alerts, dispatch.NewRoute(c.Route, nil), pipeline, d.groups, timeout, maintainEvery, nil, d.log, recorder, d.metrics, tmpl)

	d.halt()
	d.api.Update(c, func(ctx context.Context, set model.LabelSet) {
		d.inhibitor.Load().Mutes(ctx, set)
		d.silencer.Mutes(ctx, set)
	})
	d.work.Go(inhibitor.Run)
	inhibitor.WaitForLoading()
	d.inhibitor.Store(inhibitor)
	d.work.Go(func() { dispatcher.Run(time.Now()) })
	dispatcher.WaitForLoading()
	d.dispatcher.Store(dispatcher)
	return nil
}

// halt ends what route began. mu is held.
func (d *deliverer) halt() {
	if i := d.inhibitor.Load(); i != nil {
		i.Stop()
	}
	if w := d.dispatcher.Load(); w != nil {
		w.Stop()
	}
	d.work.Wait()
}

func (d *deliverer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = false
	d.halt()
	if d.started {
		d.started = false
		close(d.stop) // both files are written once more
		d.maintenance.Wait()
	}
	if d.alerts != nil {
		d.alerts.Close()
	}
}

func (d *deliverer) alertGroups(ctx context.Context, routes func(*dispatch.Route) bool, alerts func(*alert.Alert, time.Time) bool) (dispatch.AlertGroups, map[model.Fingerprint][]string, error) {
	w := d.dispatcher.Load()
	if w == nil {
		return nil, nil, errors.New("the watch is starting")
	}
	return w.Groups(ctx, routes, alerts)
}

// take receives alerts from the rules. It implements rules.NotifyFunc.
func (d *deliverer) take(ctx context.Context, expr string, from ...*rules.Alert) {
	now := time.Now()
	all := make([]*alert.Alert, 0, len(from))
	for _, f := range from {
		a := &alert.Alert{UpdatedAt: now, Alert: model.Alert{
			Labels: set(f.Labels), Annotations: set(f.Annotations), StartsAt: f.FiredAt, EndsAt: f.ValidUntil,
			GeneratorURL: d.url.JoinPath("/runbook/" + f.Labels.Get(labels.AlertName)).String(),
		}}
		if !f.ResolvedAt.IsZero() {
			a.EndsAt = f.ResolvedAt
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		return
	}
	if err := d.alerts.Put(ctx, all...); err != nil {
		d.log.Error("alerts were not taken", "expr", expr, "err", err)
	}
}

func set(from labels.Labels) model.LabelSet {
	to := model.LabelSet{}
	from.Range(func(l labels.Label) { to[model.LabelName(l.Name)] = model.LabelValue(l.Value) })
	return to
}
