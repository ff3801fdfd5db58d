package server

import (
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tweedle/watch/engine"
	"tweedle/watch/rules"
)

//go:embed page.html
var pageText string

func (s *Server) handler() http.Handler {
	page := template.Must(template.New("page").Parse(pageText))
	api := s.guard(s.engine.Handler())
	mux := http.NewServeMux()
	mux.Handle("/api/", api)
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
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var targets []engine.Target
		if t := s.targets.Load(); t != nil {
			targets = *t
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		_ = page.Execute(w, map[string]any{
			"Network": s.cfg.Network, "Now": time.Now().UTC().Format(time.RFC3339), "Alerts": shown(s.engine.Firing(r.Context())), "Targets": targets,
		})
	})
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
// or as the password of any user, which is what amtool can do.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead || strings.HasPrefix(r.URL.Path, "/api/v1/query")
		if !reads && !s.allowed(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="tweedle-watch"`)
			http.Error(w, "this changes something: send the token of the data folder as bearer, or as password", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) allowed(r *http.Request) bool {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, password, ok := r.BasicAuth(); ok {
		token = password
	}
	return subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) == 1
}
