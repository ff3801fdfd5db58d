package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tweedle/base/durable"
	"tweedle/base/telemetry"
	"tweedle/base/words"
	"tweedle/edges/front"
)

// The watch is a program of its own, and so are those that run a process and
// tell the watch when it dies: a testnet has them if tweedle-watch is there.
const (
	watchProgram = "tweedle-watch"
	watchName    = "watch" // of its process and folder

	watchConfig  = "watch.yml"
	watchTargets = "targets.json"
	watchURL     = "url"        // the watch writes it once it listens
	watchToken   = "data/token" // of its API
	crashesDir   = "crashes"    // NAME/crashes: what is known of each death
)

// findWatch returns the watch's program: beside ours, or on PATH.
func findWatch(executable string) (string, error) {
	beside := filepath.Join(filepath.Dir(executable), watchProgram)
	if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() {
		return beside, nil
	}
	return exec.LookPath(watchProgram)
}

// hasWatch tells whether a watch was ever started in the directory.
func (d directory) hasWatch() bool {
	_, err := os.Stat(d.path(watchName, recordFile))
	return err == nil
}

// startWatch starts the watch before anything that it watches, and returns what is to be told
// of it. Without it the testnet goes on, unless alerts were to be sent somewhere.
func (l *launcher) startWatch(ctx context.Context) ([]Event, error) {
	if l.opts.noWatch {
		return nil, nil
	}
	exe, err := findWatch(l.opts.Executable)
	if err == nil {
		l.watchExe = exe
		p := l.newProcess(member{Name: watchName, Kind: Watch})
		l.mu.Lock()
		l.watch = p
		l.mu.Unlock()
		p.op.Lock()
		err = l.startQuiet(ctx, p, fresh)
		p.op.Unlock()
		if err == nil {
			return []Event{processEvent(p.record())}, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		l.mu.Lock()
		l.watch = nil
		l.mu.Unlock()
	} else {
		err = fmt.Errorf("no %s beside %s or on PATH: build it with `make watch`", watchProgram, filepath.Base(l.opts.Executable))
	}
	if l.opts.AlertWebhook != "" {
		return nil, fmt.Errorf("nobody would send alerts: %w", err)
	}
	return []Event{Note{Text: "nobody watches this testnet: " + words.Of(err)}}, nil
}

// watchCommand returns the watch's command line. Its configuration is written
// at each start, with the address of its last run.
func (l *launcher) watchCommand(p *process, anyAddress bool) (*exec.Cmd, error) {
	listen := p.record().Endpoints.Metrics
	if listen == "" || anyAddress {
		listen = anyTCP
	}
	if err := os.MkdirAll(l.dir.path(p.Name), 0o700); err != nil {
		return nil, l.dir.explain(err)
	}
	text := fmt.Sprintf("# written by `tweedle testnet up`\nlisten: %q\ndata: data\nnetwork: %q\ntargets_file: %s\nscrape: 2s\nevaluate: 2s\n",
		listen, l.plan.network.Name, watchTargets)
	if l.opts.AlertWebhook != "" {
		text += fmt.Sprintf("notify:\n- {kind: webhook, url: %q}\n", l.opts.AlertWebhook)
	}
	// It may hold a secret: who has the webhook's URL can write there.
	if err := durable.WriteFile(durable.OS{}, l.dir.path(p.Name, watchConfig), []byte(text), 0o600); err != nil {
		return nil, l.dir.explain(err)
	}
	if err := os.Remove(l.dir.path(p.Name, watchURL)); err != nil && !os.IsNotExist(err) {
		return nil, l.dir.explain(err)
	}
	return exec.Command(l.watchExe, "serve", "--config", l.dir.path(p.Name, watchConfig), "--announce", l.dir.path(p.Name, watchURL)), nil
}

// watched returns the command of a process under a program that tells the watch
// when it dies. It ends with the process: who starts it again is the testnet.
func (l *launcher) watched(p *process, args []string) *exec.Cmd {
	l.mu.Lock()
	watch := l.watch
	l.mu.Unlock()
	if watch == nil {
		return exec.Command(l.opts.Executable, args...)
	}
	return exec.Command(l.watchExe, append([]string{
		"run", "--once", "--name", p.Name, "--network", l.plan.network.Name, "--dir", l.dir.path(p.Name, crashesDir),
		"--watch", "http://" + watch.record().Endpoints.Metrics, "--token-file", l.dir.path(watchName, watchToken),
		"--endpoints", l.dir.path(p.Name, telemetry.EndpointsFile), "--", l.opts.Executable}, args...)...)
}

// announced returns where a run listens, once it has said so.
func (p *process) announced(c *child) (telemetry.Endpoints, bool) {
	if p.Kind == Watch {
		b, err := os.ReadFile(p.dir.path(p.Name, watchURL))
		addr, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "http://")
		return telemetry.Endpoints{PID: c.proc.Pid, Metrics: addr}, err == nil && ok
	}
	var e telemetry.Endpoints
	// An unreadable file is one that is not complete yet. One of an older run was removed.
	err := p.dir.load(&e, p.Name, telemetry.EndpointsFile)
	return e, err == nil && e.PID != 0 && (c.watched || e.PID == c.proc.Pid)
}

// targets are what the watch reads (Prometheus's file_sd).
type targets struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// tellWatch tells the watch what is to run now: what was started, and not
// stopped in order.
func (l *launcher) tellWatch() {
	l.mu.Lock()
	watch := l.watch
	l.mu.Unlock()
	if watch == nil {
		return
	}
	l.telling.Lock()
	defer l.telling.Unlock()
	out := []targets{}
	for _, k := range []Kind{Node, Poet} {
		for _, p := range l.of(k) {
			addr := p.target()
			if addr == "" {
				continue
			}
			labels := map[string]string{"job": string(k), "name": p.Name}
			if admin := p.record().Endpoints.Admin; admin != "" { // for the page; Prometheus drops such labels
				labels["__admin"], labels["__admin_token_file"] = admin, l.dir.path(p.Name, front.TokenFile)
			}
			out = append(out, targets{[]string{addr}, labels})
		}
	}
	if err := l.dir.save(out, watchName, watchTargets); err != nil {
		l.emit.event(Note{Name: watchName, Text: "is not told of a change: " + words.Of(err)})
	}
}

// target returns the address to watch, of a process that is meant to run.
func (p *process) target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.expected {
		return ""
	}
	return p.rec.Endpoints.Metrics
}

// expect notes whether the process is meant to run.
func (p *process) expect(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = yes
}

// alerts asks the watch how many alerts fire that people are told of.
func (p *prober) alerts(ctx context.Context, e telemetry.Endpoints) answer {
	var firing []json.RawMessage
	err := p.get(ctx, "http://"+e.Metrics+"/api/v2/alerts?active=true&silenced=false&inhibited=false&filter=severity%3D~%22page%7Cwarn%22", &firing)
	if err != nil {
		return answer{err: err}
	}
	n := len(firing)
	return answer{alerts: &n}
}

// Times of --supervise.
const (
	restartLook    = 100 * time.Millisecond
	restartFirst   = 500 * time.Millisecond // from a crash to the next start
	restartLongest = time.Minute            // doubled until then
	restartForgets = time.Minute            // a run of this length was a good one
)

// restartWait returns how long a process that crashed so often in a row waits.
func restartWait(crashes int) time.Duration {
	d := restartFirst
	for i := 1; i < crashes && d < restartLongest; i++ {
		d *= 2
	}
	return min(d, restartLongest)
}

// supervise starts what has crashed again, until ctx ends.
func (l *launcher) supervise(ctx context.Context) {
	var starts sync.WaitGroup
	defer starts.Wait()
	tick := time.NewTicker(restartLook)
	defer tick.Stop()
	crashes, told := map[string]int{}, map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range l.all() {
			r := p.record()
			if r.State != Crashed || r.Ended == nil {
				continue
			}
			if !told[p.Name].Equal(*r.Ended) {
				told[p.Name] = *r.Ended
				if r.Ended.Sub(r.Started) > restartForgets {
					crashes[p.Name] = 0
				}
				crashes[p.Name]++
			}
			if time.Since(*r.Ended) < restartWait(crashes[p.Name]) || !p.op.TryLock() {
				continue
			}
			starts.Go(func() {
				defer p.op.Unlock()
				if p.record().State != Crashed {
					return // somebody was faster
				}
				if err := l.startLocked(ctx, p, same); err != nil && !errors.Is(err, context.Canceled) && ctx.Err() == nil {
					l.emit.event(Note{Name: p.Name, Text: words.Of(err)})
				}
			})
		}
	}
}

// checkWebhook refuses what is no URL, without showing it: it may be a secret.
func checkWebhook(url string) error {
	if url == "" {
		return nil
	}
	r, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil || r.URL.Host == "" || r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return errors.New("--alert-webhook is no URL: write one that begins with http:// or https://")
	}
	return nil
}
