package page

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a page is told.
type Config struct {
	Network string
	Every   time.Duration // between two looks; one second at least
	Targets func() []Target
	// Query answers an expression of Prometheus at a moment.
	Query    func(ctx context.Context, expr string, at time.Time) ([]Sample, error)
	Alerts   func(context.Context) []Alert
	Allowed  func(*http.Request) bool // who showed the watch's token
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// leastEvery is the shortest time between two changes that readers are sent.
const leastEvery = time.Second

// Page is one page. Run feeds it.
type Page struct {
	cfg    Config
	look   *looker
	hub    *hub
	mux    http.Handler
	story  story // of Run's goroutine, as are the following
	atxs   map[uint32]int
	asked  map[uint32]bool // epochs of which the samples were asked
	genes  time.Time       // of the network that atxs are of
	failed bool            // told that samples cannot be read
	derive []*derived      // what is asked besides newest samples

	deaths graveyard

	kick chan struct{} // somebody changed something
	mu   sync.Mutex    // guards did
	did  []Event       // by operators, since the last look
}

// New returns a page that shows nothing yet.
func New(cfg Config) (*Page, error) {
	cfg.Every = max(cfg.Every, leastEvery)
	p := &Page{
		cfg: cfg, look: newLooker(), hub: newHub(cfg.Registry), atxs: map[uint32]int{}, asked: map[uint32]bool{}, kick: make(chan struct{}, 1),
	}
	for name, expr := range Expressions() {
		p.derive = append(p.derive, &derived{name: name, expr: expr})
	}
	var err error
	p.mux, err = p.routes()
	return p, err
}

// Run looks at the network until ctx ends.
func (p *Page) Run(ctx context.Context) error {
	defer p.look.close()
	defer p.hub.close()
	tick := time.NewTicker(p.cfg.Every)
	defer tick.Stop()
	for {
		begun := time.Now()
		seen := p.see(ctx, begun)
		if ctx.Err() != nil {
			return nil
		}
		p.Show(seen)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-p.kick:
		}
		select { // two ticks come together after a slow look
		case <-ctx.Done():
			return nil
		case <-time.After(leastEvery - time.Since(begun)):
		}
	}
}

// Show shows what was seen. Run does it; without Run one goroutine may.
func (p *Page) Show(seen Seen) {
	seen.Deaths = p.deaths.bury(seen.Alerts)
	seen.Alerts = slices.DeleteFunc(slices.Clone(seen.Alerts), func(a Alert) bool { return a.Ended })
	m := Build(seen)
	p.story.next(&m)
	for _, e := range p.done() {
		p.story.tell(e)
	}
	p.hub.publish(m.parts(p.story.log))
}

// see collects what is known now.
func (p *Page) see(ctx context.Context, now time.Time) Seen {
	s := Seen{Network: p.cfg.Network, Every: p.cfg.Every, Targets: p.cfg.Targets(), Alerts: p.cfg.Alerts(ctx)}
	var err error
	s.Series, err = p.cfg.Query(ctx, `{__name__=~"`+strings.Join(Metrics(), "|")+`"}`, now)
	if failed := err != nil && ctx.Err() == nil; failed != p.failed {
		if p.failed = failed; failed {
			p.cfg.Log.Error("the page cannot read samples", "err", err)
		}
	}
	s.Series = append(s.Series, p.derived(ctx, now)...)
	times, ok := index(s.Series).times()
	if ok {
		s.ATXs = p.published(ctx, now, times.genesis, times.epoch)
	}
	from := func(n NodeSeen) uint32 { return max(times.first, n.Status.Layer-min(n.Status.Layer, Window-1)) }
	s.Nodes, s.Poets = p.look.look(ctx, s.Targets, from)
	s.At = time.Now()
	return s
}

// derived is an expression with its last answer.
type derived struct {
	name, expr string
	at         time.Time
	answer     []Sample
}

// slow is how often an expression is asked that reads more than the newest samples.
const slow = 20 * time.Second

// derived answers the expressions.
func (p *Page) derived(ctx context.Context, now time.Time) (all []Sample) {
	for _, d := range p.derive {
		if d.name == seriesCPU || now.Sub(d.at) >= slow {
			d.at = now
			d.answer, _ = p.cfg.Query(ctx, d.expr, now) // see tells of samples that cannot be read
			for i := range d.answer {
				d.answer[i].Labels["__name__"] = d.name
			}
		}
		all = append(all, d.answer...)
	}
	return all
}

// published returns how many ATXs were published in past epochs. What samples say of an epoch
// that is over does not change.
func (p *Page) published(ctx context.Context, now, genesis time.Time, epoch float64) map[uint32]int {
	if !genesis.Equal(p.genes) {
		p.genes = genesis
		clear(p.atxs)
		clear(p.asked)
	}
	passed := now.Sub(genesis).Seconds()
	if passed < 0 {
		return nil
	}
	current := uint32(passed / epoch)
	for e := uint32(max(int(current)-shownEpochs, 0)); e+1 < current; e++ {
		end := genesis.Add(time.Duration(float64(e+2) * epoch * float64(time.Second)))
		if p.asked[e] || now.Before(end.Add(settle)) {
			continue
		}
		p.asked[e] = true
		span := min(max(epoch/4, 3*p.cfg.Every.Seconds()), epoch)
		found, err := p.cfg.Query(ctx, fmt.Sprintf("max(max_over_time(tweedle_node_atxs_published_before[%ds]))", int(span)+1), end.Add(-time.Second))
		if err == nil && len(found) == 1 {
			p.atxs[e] = int(found[0].Value)
		}
	}
	forget := func(e uint32) bool { return e+maxKnownATXs < current }
	maps.DeleteFunc(p.atxs, func(e uint32, _ int) bool { return forget(e) })
	maps.DeleteFunc(p.asked, func(e uint32, _ bool) bool { return forget(e) })
	return maps.Clone(p.atxs)
}

// maxDone bounds what operators did between two looks.
const maxDone = 50

// note logs what an operator did, and shows it soon.
func (p *Page) note(who, text string) {
	p.mu.Lock()
	if len(p.did) < maxDone {
		p.did = append(p.did, Event{At: time.Now(), Kind: "operator", State: OK, Who: who, Text: text})
	}
	p.mu.Unlock()
	p.Look()
}

func (p *Page) done() []Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	did := p.did
	p.did = nil
	return did
}

// Look makes the next look come soon.
func (p *Page) Look() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}
