package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Times of telling.
const (
	tellEvery    = 5 * time.Second  // what nobody has taken
	tellTimeout  = 4 * time.Second  // one attempt
	lastTell     = 5 * time.Second  // when the supervisor ends
	tellAgain    = 2 * time.Minute  // an alert that is not renewed counts as over
	tellLifetime = 10 * time.Minute // after so long without us
)

// Sink takes alerts.
type Sink interface {
	Take(ctx context.Context, alerts []Alert) error
}

// Alert is what a sink takes: an alert as Alertmanager's API has it.
type Alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
	Renewed     bool              `json:"-"` // nothing has changed since it was taken
}

// tellAll tells what happens until ctx ends.
func (s *Supervisor) tellAll(ctx context.Context) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		s.tellOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
	}
}

// tellOnce tells everything that is not told, and renews what is not over.
func (s *Supervisor) tellOnce(ctx context.Context) {
	s.mu.Lock()
	now := time.Now().UTC()
	var alerts []Alert
	var events []*Event
	for _, e := range s.open {
		if s.alive && e.Back == nil {
			e.Back = &now
		}
		if a, due := s.alert(e, now); due {
			alerts, events = append(alerts, a), append(events, e)
		}
	}
	s.mu.Unlock()
	if len(alerts) == 0 || len(s.cfg.Tell) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	failed := make(chan error, len(s.cfg.Tell))
	for _, sink := range s.cfg.Tell {
		go func() { failed <- sink.Take(ctx, alerts) }()
	}
	var errs []error
	for range s.cfg.Tell {
		errs = append(errs, <-failed)
	}
	if err := errors.Join(errs...); err != nil {
		s.cfg.Log.Error("deaths could not be told, it is tried again", "waiting", len(alerts), "err", err)
		return
	}
	s.done(events, alerts, now)
}

// done notes what was taken.
func (s *Supervisor) done(events []*Event, alerts []Alert, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range events {
		changed := false
		e.renewed = now
		if e.Told == nil {
			e.Told, changed = &now, true
		}
		if !alerts[i].EndsAt.After(now) {
			e.BackTold, changed = &now, true
		}
		if changed {
			if err := s.events.put(e); err != nil {
				s.cfg.Log.Error("an event may be told twice", "event", e.ID, "err", err)
			}
		}
	}
	var open []*Event
	for _, e := range s.open {
		if e.BackTold == nil {
			open = append(open, e)
		}
	}
	s.open = open
	s.metrics.waiting.Set(float64(s.untoldLocked()))
}

func (s *Supervisor) untold() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.untoldLocked()
}

func (s *Supervisor) untoldLocked() int {
	n := 0
	for _, e := range s.open {
		if e.Told == nil {
			n++
		}
	}
	return n
}

// alert makes the alert of an event, and tells whether it is due. A loop is one
// alert, whatever the number of deaths in it, and over when the window has passed.
func (s *Supervisor) alert(e *Event, now time.Time) (Alert, bool) {
	labels := map[string]string{
		"alertname": "NodeCrashed", "name": e.Name, "severity": "page", "reason": string(e.Reason), "crash": e.ID,
	}
	over := e.Back != nil
	if e.Loop {
		labels = map[string]string{"alertname": "NodeCrashLooping", "name": e.Name, "severity": "page"}
		over = over && now.Sub(e.Time) > loopWindow
	}
	if e.Network != "" {
		labels["net"] = e.Network
	}
	a := Alert{Labels: labels, Annotations: annotations(e), StartsAt: e.Time, EndsAt: now.Add(tellLifetime)}
	if over {
		a.EndsAt = now
	}
	a.Renewed = e.Told != nil && !over
	return a, !a.Renewed || now.Sub(e.renewed) > tellAgain
}

// maxTold bounds the stack and the log in an alert: mails and chats have limits. The
// event's file has all.
const maxTold = 3000

func annotations(e *Event) map[string]string {
	a := map[string]string{
		"summary": e.String(), "description": e.Message, "version": e.Version, "uptime": e.Uptime, "status": e.Status,
		"oom_kills": fmt.Sprint(e.OOM), "runbook": "NodeCrashed", "event": e.ID,
		"reason": string(e.Reason), "time": e.Time.Format(time.RFC3339), // the alert of a loop has no reason, and the time of its first death
	}
	if e.Stack != "" {
		a["stack"], a["hash"] = cut(e.Stack), e.Hash
	}
	if len(e.Log) > 0 {
		a["log"] = cut(strings.Join(e.Log[max(0, len(e.Log)-10):], "\n"))
	}
	if e.Layer != nil {
		a["layer"] = fmt.Sprint(*e.Layer)
	}
	return a
}

func cut(text string) string {
	if len(text) > maxTold {
		return strings.ToValidUTF8(text[:maxTold], "") + "\n[...]"
	}
	return text
}

// Alertmanager is a sink: the watch, or a real Alertmanager.
type Alertmanager struct {
	URL       string // with http:// and without a path
	TokenFile string // of the watch; empty: none is needed
	Client    *http.Client
}

// Take implements Sink.
func (m Alertmanager) Take(ctx context.Context, alerts []Alert) error {
	return post(ctx, m.Client, strings.TrimSuffix(m.URL, "/")+"/api/v2/alerts", m.TokenFile, alerts)
}

// Webhook is a sink that gets what Alertmanager sends to a webhook.
type Webhook struct {
	URL    string
	Client *http.Client
}

// Take implements Sink.
func (h Webhook) Take(ctx context.Context, alerts []Alert) error {
	type told struct {
		Alert
		Status      string `json:"status"`
		Fingerprint string `json:"fingerprint"`
	}
	var all []told
	status := "resolved"
	for _, a := range alerts {
		if a.Renewed {
			continue
		}
		one := told{a, "firing", a.Labels["crash"]}
		if !a.EndsAt.After(time.Now()) {
			one.Status = "resolved"
		} else {
			status = "firing"
			one.EndsAt = time.Time{}
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil
	}
	return post(ctx, h.Client, h.URL, "", map[string]any{"version": "4", "status": status, "receiver": "supervisor", "alerts": all})
}

func post(ctx context.Context, client *http.Client, url, tokenFile string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if tokenFile != "" {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return fmt.Errorf("the watch's token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // the status says enough
		return fmt.Errorf("%s: %s %s", req.URL.Host, resp.Status, strings.TrimSpace(string(said)))
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection can be used again
	return nil
}
