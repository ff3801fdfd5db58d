package drill

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Alert is what the watch sent once.
type Alert struct {
	Name     string
	Of       string // the process that it is about; empty: the network
	Resolved bool
	Came     time.Time
	Labels   map[string]string
	Notes    map[string]string // its annotations
}

func (a Alert) text() string {
	out := a.Name
	if a.Of != "" {
		out += " of " + a.Of
	}
	if a.Resolved {
		return out + " is over"
	}
	for _, note := range []string{"summary", "why"} {
		if text := a.Notes[note]; text != "" {
			out += ": " + strings.ReplaceAll(text, "\n", " ")
		}
	}
	return out
}

// machine tells whether an alert is about the machine, on which other things may run.
func (a Alert) machine() bool {
	return slices.Contains([]string{"OOMKilled", "DiskLow", "DiskWillFill", "InodesLow", "MemoryLow", "CPUHigh", "ClockSkew"}, a.Name)
}

// alerts is what the watch sent, in the order in which it came.
type alerts struct {
	tell func(Alert)

	mu  sync.Mutex
	all []Alert // guarded by mu
}

// Limits of what is taken from the watch.
const (
	maxHookBody = 4 << 20 // bytes
	maxAlerts   = 10_000
)

type hook struct {
	url    string
	server *http.Server
	served chan struct{}
}

func (h *hook) close() {
	h.server.Close()
	<-h.served
}

// listen takes alerts on loopback until the hook is closed.
func (a *alerts) listen() (*hook, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &hook{url: "http://" + lis.Addr().String() + "/", served: make(chan struct{}),
		server: &http.Server{Handler: a, ReadTimeout: 5 * time.Second}}
	go func() {
		defer close(h.served)
		h.server.Serve(lis) //nolint:errcheck // it ends with close
	}()
	return h, nil
}

// ServeHTTP takes what Alertmanager sends to a webhook.
func (a *alerts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Alerts []struct {
			Status      string            `json:"status"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"alerts"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxHookBody)).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, in := range body.Alerts {
		a.take(Alert{Name: in.Labels["alertname"], Of: in.Labels["name"], Resolved: in.Status == "resolved",
			Came: time.Now(), Labels: in.Labels, Notes: in.Annotations})
	}
}

// take keeps what is new: a group is sent whole when one of it changes.
func (a *alerts) take(in Alert) {
	a.mu.Lock()
	last := -1
	for i := range a.all {
		if a.all[i].key() == in.key() {
			last = i
		}
	}
	known := last >= 0 && a.all[last].Resolved == in.Resolved
	if !known && len(a.all) < maxAlerts {
		a.all = append(a.all, in)
	}
	a.mu.Unlock()
	if !known {
		a.tell(in)
	}
}

// key is what tells alerts apart.
func (a Alert) key() string { return fmt.Sprint(a.Labels) }

// list returns what came so far.
func (a *alerts) list() []Alert {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.all)
}

// first returns the first that fired of a name, and how many processes it fired for.
func (a *alerts) first(name string) (first Alert, of int) {
	seen := map[string]bool{}
	for _, o := range a.list() {
		if o.Name != name || o.Resolved {
			continue
		}
		if len(seen) == 0 {
			first = o
		}
		seen[o.Of] = true
	}
	return first, len(seen)
}

// firing returns the names of what is not over, but for the machine's.
func (a *alerts) firing() (names []string) {
	open := map[string]Alert{}
	for _, o := range a.list() {
		if o.Resolved {
			delete(open, o.key())
		} else if !o.machine() {
			open[o.key()] = o
		}
	}
	for _, o := range open {
		names = append(names, strings.TrimSpace(o.Name+" "+o.Of))
	}
	slices.Sort(names)
	return names
}
