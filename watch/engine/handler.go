package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// maxPoints is how many points of a series one answer has at most.
const maxPoints = 11_000

// Alert is one alert that fires.
type Alert struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Since       time.Time         `json:"since"`
	Silenced    bool              `json:"silenced"`
	Inhibited   bool              `json:"inhibited"` // another that fires says why
	Silence     *Silence          `json:"silence,omitempty"`
	Ended       bool              `json:"-"` // it does not fire any more
}

// Firing lists the alerts that fire.
func (e *Engine) Firing(ctx context.Context) []Alert {
	return slices.DeleteFunc(e.Told(ctx), func(a Alert) bool { return a.Ended })
}

// Told lists the alerts that fire, and those that ended lately: some last for less than it
// takes to look again.
func (e *Engine) Told(ctx context.Context) []Alert {
	var out []Alert
	it := e.deliver.alerts.GetPending()
	defer it.Close()
	now := time.Now()
	for a := range it.Next() {
		one := Alert{
			Ended: a.Data.ResolvedAt(now),
			Name:  a.Data.Name(), Labels: plain(a.Data.Labels), Annotations: plain(a.Data.Annotations), Since: a.Data.StartsAt,
			Silence: e.deliver.silenceOf(ctx, a.Data.Labels),
		}
		one.Silenced = one.Silence != nil
		if inhibitor := e.deliver.inhibitor.Load(); inhibitor != nil {
			one.Inhibited = inhibitor.Mutes(ctx, a.Data.Labels)
		}
		out = append(out, one)
	}
	return out
}

func plain(set model.LabelSet) map[string]string {
	out := make(map[string]string, len(set))
	for name, value := range set {
		out[string(name)] = string(value)
	}
	return out
}

func (e *Engine) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v2/", func(w http.ResponseWriter, r *http.Request) {
		if e.deliver.dispatcher.Load() == nil { // it would panic
			http.Error(w, "the watch is starting: try again", http.StatusServiceUnavailable)
			return
		}
		e.deliver.serve(w, r)
	})
	mux.HandleFunc("GET /api/v1/query", e.instant)
	mux.HandleFunc("POST /api/v1/query", e.instant)
	mux.HandleFunc("GET /api/v1/query_range", e.series)
	mux.HandleFunc("POST /api/v1/query_range", e.series)
	return mux
}

// instant answers a query as Prometheus does.
func (e *Engine) instant(w http.ResponseWriter, r *http.Request) {
	at, err := timeOf(r.FormValue("time"), time.Now())
	if err != nil {
		fail(w, err)
		return
	}
	q, err := e.query.NewInstantQuery(r.Context(), e.db, nil, r.FormValue("query"), at)
	answer(w, r, q, err)
}

// series answers a query over a span as Prometheus does.
func (e *Engine) series(w http.ResponseWriter, r *http.Request) {
	start, err1 := timeOf(r.FormValue("start"), time.Time{})
	end, err2 := timeOf(r.FormValue("end"), time.Now())
	step, err3 := stepOf(r.FormValue("step"))
	if err := errors.Join(err1, err2, err3); err != nil {
		fail(w, err)
		return
	}
	if end.Before(start) || end.Sub(start)/step > maxPoints {
		fail(w, fmt.Errorf("more than %d points: choose a larger step", maxPoints))
		return
	}
	q, err := e.query.NewRangeQuery(r.Context(), e.db, nil, r.FormValue("query"), start, end, step)
	answer(w, r, q, err)
}

func answer(w http.ResponseWriter, r *http.Request, q promql.Query, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	defer q.Close()
	result := q.Exec(r.Context())
	if result.Err != nil {
		fail(w, result.Err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{
		"resultType": resultType(result.Value), "result": result.Value,
	}}) // the reader has gone; nobody is left to tell
}

func resultType(v parser.Value) parser.ValueType { return v.Type() }

func fail(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": "bad_data", "error": err.Error()})
}

func timeOf(text string, none time.Time) (time.Time, error) {
	if text == "" {
		if none.IsZero() {
			return none, errors.New("a time is missing: give start")
		}
		return none, nil
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.UnixMilli(int64(seconds * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, fmt.Errorf("%q is no time: give seconds since 1970 or RFC 3339", text)
	}
	return t, nil
}

func stepOf(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds > 0 {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	d, err := model.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no step: give seconds or a duration", text)
	}
	return time.Duration(d), nil
}
