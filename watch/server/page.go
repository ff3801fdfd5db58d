package server

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tweedle/watch/engine"
	"tweedle/watch/page"
	"tweedle/watch/rules"
)

// newPage wires the page to what the engine knows.
func (s *Server) newPage() (*page.Page, error) {
	return page.New(page.Config{
		Network: s.cfg.Network, Every: s.cfg.Scrape, Allowed: s.allowed, Registry: s.registry, Log: s.log,
		Targets: func() []page.Target {
			if t := s.targets.Load(); t != nil {
				return *t
			}
			return nil
		},
		Query: func(ctx context.Context, expr string, at time.Time) ([]page.Sample, error) {
			found, err := s.engine.Query(ctx, expr, at)
			out := make([]page.Sample, len(found))
			for i, f := range found {
				out[i] = page.Sample(f)
			}
			return out, err
		},
		Alerts: func(ctx context.Context) (out []page.Alert) {
			for _, a := range s.engine.Told(ctx) {
				out = append(out, page.Alert{
					Name: a.Name, Labels: a.Labels, Summary: a.Annotations["summary"], Detail: cmp.Or(a.Annotations["stack"], a.Annotations["log"]),
					Since: a.Since, Inhibited: a.Inhibited, Ended: a.Ended, Silence: (*page.Silence)(a.Silence), Death: page.DeathOf(a.Labels, a.Annotations, a.Since),
				})
			}
			return out
		},
	})
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/", s.guard(s.engine.Handler()))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /alerts", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(shown(s.engine.Firing(r.Context()))) // the reader has gone; nobody is left to tell
	})
	mux.HandleFunc("GET /runbook/{alert}", func(w http.ResponseWriter, r *http.Request) {
		text, ok := rules.Runbook(r.PathValue("alert"))
		if !ok {
			http.Error(w, "no alert has that name", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(text))
	})
	mux.Handle("/", s.page)
	return mux
}

// shown are the alerts that say something.
func shown(all []engine.Alert) []engine.Alert {
	out := slices.DeleteFunc(all, func(a engine.Alert) bool { return a.Labels["severity"] == "none" })
	slices.SortFunc(out, func(a, b engine.Alert) int {
		return strings.Compare(a.Labels["severity"]+a.Name+a.Labels["name"], b.Labels["severity"]+b.Name+b.Labels["name"])
	})
	if out == nil {
		out = []engine.Alert{}
	}
	return out
}

// guard lets everybody read, and who has the token change something: as a bearer,
// or as the password of any user, which is what amtool can do. A browser may remember a
// password: what another site's page sends is refused whatever it shows.
func (s *Server) guard(next http.Handler) http.Handler {
	own := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead || strings.HasPrefix(r.URL.Path, "/api/v1/query")
		if err := own.Check(r); err != nil && !reads {
			http.Error(w, "this request comes from another site's page", http.StatusForbidden)
			return
		}
		if !reads && !s.allowed(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="tweedle-watch"`)
			http.Error(w, "this changes something: send the token of the data folder as bearer, or as password", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
		if !reads {
			s.page.Look() // a silence is to be seen soon
		}
	})
}

func (s *Server) allowed(r *http.Request) bool {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, password, ok := r.BasicAuth(); ok {
		token = password
	}
	return subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) == 1
}
