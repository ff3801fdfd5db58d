package crash

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a supervisor is told.
type Config struct {
	Name    string   // of the program, as alerts show it
	Network string   // label net of the alerts
	Command []string // program and arguments
	Dir     string   // keeps events and the last report; made if it is not there
	// Status returns the program's version and last layer, if it can be asked.
	// It must not take long; nil: they are unknown.
	Status func(context.Context) (version string, layer *uint32)
	Output io.Writer // gets what the program writes; nil: nobody
	Tell   []Sink    // each of them is told
	// Once ends the supervision with the first death, which is told all the same.
	Once     bool
	Registry prometheus.Registerer // nil: not counted
	Log      *slog.Logger          // nil: nothing is logged
	// Healthy replaces the time after which a program counts as back; 0: the default.
	Healthy time.Duration
}

// Supervisor runs one program.
type Supervisor struct {
	cfg     Config
	events  outbox
	metrics *metrics
	secrets []string
	wake    chan struct{} // the outbox has something new
	deaths  []time.Time   // within loopWindow; owned by Run's loop

	mu    sync.Mutex // guards the following and the event files
	open  []*Event   // not done
	alive bool
}

// ErrEnded is what Run wraps if the program ended by itself and is not started
// again.
var ErrEnded = errors.New("the program ended")

// Ended is that error, with the death.
type Ended struct{ Event *Event }

func (e Ended) Error() string { return fmt.Sprintf("%v: %s", ErrEnded, e.Event) }

// Unwrap returns ErrEnded.
func (e Ended) Unwrap() error { return ErrEnded }

// Code returns the exit status of the program; of one that a signal killed 128
// and the signal's number, as a shell has it.
func (e Ended) Code() int { return e.Event.code }

// New opens the event files of a supervisor.
func New(cfg Config) (*Supervisor, error) {
	if cfg.Name == "" || len(cfg.Command) == 0 {
		return nil, errors.New("a supervisor needs a name and a command")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Healthy == 0 {
		cfg.Healthy = healthy
	}
	s := &Supervisor{cfg: cfg, secrets: secretValues(os.Environ(), cfg.Command), wake: make(chan struct{}, 1)}
	var err error
	if s.events, err = openOutbox(filepath.Join(cfg.Dir, "events")); err != nil {
		return nil, fmt.Errorf("event files: %w: choose another --dir", err)
	}
	all, err := s.events.list()
	if err != nil {
		cfg.Log.Error("some events are lost", "err", err)
	}
	for _, e := range all {
		if e.BackTold == nil {
			s.open = append(s.open, e)
		}
		if time.Since(e.Time) < loopWindow {
			s.deaths = append(s.deaths, e.Time)
		}
	}
	s.metrics = newMetrics(cfg.Registry)
	s.metrics.waiting.Set(float64(s.untold()))
	return s, nil
}

// Run runs the program until ctx ends, which ends the program with SIGTERM. A
// program that dies is started again; one that ends in order is not, and Run
// returns nil. If this process is killed, the program ends too.
func (s *Supervisor) Run(ctx context.Context) error {
	telling, stop := context.WithCancel(context.WithoutCancel(ctx))
	var sender sync.WaitGroup
	sender.Go(func() { s.tellAll(telling) })
	defer sender.Wait()
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTell)
		defer cancel()
		stop()
		sender.Wait()
		s.tellOnce(last)
	}()
	for {
		e, err := s.runOnce(ctx)
		if err != nil || e == nil {
			return err
		}
		s.cfg.Log.Error("the program died", "name", s.cfg.Name, "reason", e.Reason, "status", e.Status, "message", e.Message, "event", e.ID)
		if err := s.add(e); err != nil {
			// Without its file it is told all the same, from memory.
			s.cfg.Log.Error("the event could not be written", "err", err)
		}
		if s.cfg.Once {
			return Ended{e}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait(e.Crashes)):
		}
	}
}

// add keeps an event and has it told.
func (s *Supervisor) add(e *Event) error {
	s.metrics.crashes.WithLabelValues(string(e.Reason)).Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if len(s.cfg.Tell) > 0 {
		errs = append(errs, s.supersede(e))
		s.open = append(s.open, e)
	}
	errs = append(errs, s.events.put(e), s.events.trim(len(s.cfg.Tell) == 0))
	s.metrics.waiting.Set(float64(s.untoldLocked()))
	s.poke()
	return errors.Join(errs...)
}

// supersede lets the newest death of a loop speak for those before it. mu is held.
func (s *Supervisor) supersede(e *Event) error {
	if !e.Loop {
		return nil
	}
	var errs []error
	var open []*Event
	for _, old := range s.open {
		if !old.Loop {
			open = append(open, old)
			continue
		}
		e.Told, e.renewed = old.Told, old.renewed
		old.Back, old.BackTold = &e.Time, &e.Time
		errs = append(errs, s.events.put(old))
	}
	s.open = open
	return errors.Join(errs...)
}

func (s *Supervisor) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// child is one run of the program.
type child struct {
	cmd    *exec.Cmd
	tail   *tail
	report string // file
	start  time.Time
	ooms   oomCounter
	ended  chan struct{} // closed when it is dead and not yet reaped

	mu      sync.Mutex // guards what follows
	version string
	layer   *uint32
}

// runOnce runs the program to its end. It returns nil if the end was wanted or in
// order.
func (s *Supervisor) runOnce(ctx context.Context) (*Event, error) {
	if ctx.Err() != nil {
		return nil, nil
	}
	c, err := s.start()
	if err != nil {
		return nil, err
	}
	watching, stop := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	helpers.Go(func() { s.watch(watching, c) })
	wanted := make(chan bool, 1)
	helpers.Go(func() { wanted <- endWith(ctx, c) })
	// The thread that started it stays, or the system takes its death for ours.
	_ = waitUnreaped(c.cmd.Process.Pid)
	close(c.ended)
	stop()
	helpers.Wait()
	werr := c.cmd.Wait()
	s.setAlive(false)
	if <-wanted || werr == nil {
		return nil, nil
	}
	return s.event(c), nil
}

// start starts the program.
func (s *Supervisor) start() (*child, error) {
	c := &child{tail: &tail{to: s.cfg.Output}, start: time.Now(), ended: make(chan struct{})}
	path, err := filepath.Abs(filepath.Join(s.cfg.Dir, "report"))
	if err != nil {
		return nil, err
	}
	c.report = path
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		s.cfg.Log.Error("a crash will have no report file", "err", err)
	}
	c.cmd = exec.Command(s.cfg.Command[0], s.cfg.Command[1:]...)
	c.cmd.Env = append(os.Environ(), CrashFileVariable+"="+path)
	if os.Getenv("GOTRACEBACK") == "" {
		c.cmd.Env = append(c.cmd.Env, "GOTRACEBACK=all")
	}
	c.cmd.Stdout, c.cmd.Stderr = c.tail, c.tail
	// A grandchild that keeps the output open does not keep us waiting.
	c.cmd.WaitDelay = time.Second
	// Without us nobody tells of its death. A program that is stopped would not see SIGTERM.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread; Run's goroutine keeps it
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", s.cfg.Name, err)
	}
	s.metrics.starts.Inc()
	c.ooms.look(c.cmd.Process.Pid)
	return c, nil
}

// endWith ends the program when ctx ends, and tells whether it did.
func endWith(ctx context.Context, c *child) bool {
	select {
	case <-c.ended:
		return false
	case <-ctx.Done():
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may be dead already
	select {
	case <-c.ended:
	case <-time.After(stopGrace):
		_ = c.cmd.Process.Kill()
	}
	return true
}

// watch looks after a program that runs: its memory's cgroup, what it says of
// itself, and when it counts as healthy.
func (s *Supervisor) watch(ctx context.Context, c *child) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	back := time.NewTimer(s.cfg.Healthy)
	defer back.Stop()
	looks := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.ended:
			return
		case <-back.C:
			s.setAlive(true)
			s.poke()
		case <-tick.C:
			c.ooms.look(c.cmd.Process.Pid)
			if looks++; s.cfg.Status == nil || looks%askEvery != 0 {
				continue
			}
			version, layer := s.cfg.Status(ctx)
			c.mu.Lock()
			if version != "" {
				c.version = version
			}
			if layer != nil {
				c.layer = layer
			}
			c.mu.Unlock()
		}
	}
}

func (s *Supervisor) setAlive(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive = yes
	s.metrics.up.Set(0)
	if yes {
		s.metrics.up.Set(1)
	}
}

// event says what is known of a death.
func (s *Supervisor) event(c *child) *Event {
	now := time.Now().UTC()
	e := &Event{
		ID:   s.cfg.Name + "-" + strconv.FormatInt(now.UnixNano(), 36),
		Name: s.cfg.Name, Network: s.cfg.Network, Time: now, Command: strip(strings.Join(s.cfg.Command, " "), s.secrets),
		PID: c.cmd.ProcessState.Pid(), Uptime: now.Sub(c.start).Round(time.Millisecond).String(),
		Status: c.cmd.ProcessState.String(), OOM: c.ooms.killed(), Version: c.version, Layer: c.layer,
	}
	e.code = c.cmd.ProcessState.ExitCode()
	if ws, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.code = 128 + int(ws.Signal())
	}
	if e.Version == "" {
		e.Version = builtVersion(c.cmd.Path)
	}
	text := readReport(c.report)
	r := parseReport(text)
	if r.reason == "" {
		r = parseReport(c.tail.String())
	}
	e.Reason, e.Message, e.Stack, e.Hash = r.reason, strip(r.message, s.secrets), strip(r.stack, s.secrets), r.hash
	if r.reason == "" {
		e.Reason, e.Message = wordless(c.cmd.ProcessState, e.OOM)
	}
	for _, line := range lastLines(c.tail.String()) {
		e.Log = append(e.Log, strip(line, s.secrets))
	}
	s.count(e)
	return e
}

// Died tells of a supervisor that was killed itself, as systemd saw it: result, code
// and status are $SERVICE_RESULT, $EXIT_CODE and $EXIT_STATUS. One that ended by itself
// has told what there was to tell. What nobody takes is told by the next supervisor
// with this Dir, as is that the program is back.
func Died(ctx context.Context, cfg Config, result, code, status string) error {
	if code != "killed" && code != "dumped" {
		return nil
	}
	s, err := New(cfg)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	e := &Event{
		ID: s.cfg.Name + "-" + strconv.FormatInt(now.UnixNano(), 36), Name: s.cfg.Name, Network: s.cfg.Network, Time: now,
		Reason: Signal, Status: "signal: " + status, Message: "killed with its supervisor: " + status + " (" + result + ")", Version: builtVersion(cfg.Command[0]), Uptime: "unknown",
	}
	if result == "oom-kill" {
		e.Reason, e.OOM = OOM, 1
	}
	s.count(e)
	err = s.add(e)
	s.tellOnce(ctx)
	if n := s.untold(); n > 0 && len(cfg.Tell) > 0 {
		err = errors.Join(err, fmt.Errorf("%d deaths could not be told: the next start tells them", n))
	}
	return err
}

// count adds a death to those of the last minutes.
func (s *Supervisor) count(e *Event) {
	s.deaths = append(s.deaths, e.Time)
	for len(s.deaths) > 0 && e.Time.Sub(s.deaths[0]) > loopWindow {
		s.deaths = s.deaths[1:]
	}
	e.Crashes = len(s.deaths)
	e.Loop = e.Crashes >= loopCrashes
}

// wordless names the death of a program that said nothing.
func wordless(state *os.ProcessState, ooms int) (Reason, string) {
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled() && status.Signal() == syscall.SIGKILL && ooms > 0:
		return OOM, fmt.Sprintf("killed by the system for want of memory (OOM kills of its cgroup: %d)", ooms)
	case ok && status.Signaled():
		return Signal, "killed from outside: " + status.Signal().String()
	}
	return Exit, "ended with exit status " + strconv.Itoa(state.ExitCode())
}

// builtVersion is the version that the Go linker wrote into a program.
func builtVersion(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			version += " " + s.Value
		}
	}
	if version == "" {
		version = "unknown"
	}
	return version
}

// tail passes output on and remembers its end.
type tail struct {
	to io.Writer

	mu   sync.Mutex // guards last
	last []byte
}

// Write implements io.Writer. It never fails: a program must not die because
// nobody reads.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.last = append(t.last, p...)
	if len(t.last) > 2*maxTail {
		t.last = append(t.last[:0], t.last[len(t.last)-maxTail:]...)
	}
	t.mu.Unlock()
	if t.to != nil {
		_, _ = t.to.Write(p)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}

// lastLines are the last lines of a log, before a crash report if it ends in one.
func lastLines(text string) []string {
	if at := death.FindStringIndex(text); at != nil {
		text = text[:at[0]]
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	lines = lines[max(0, len(lines)-maxLogLines):]
	if len(lines) == 1 && lines[0] == "" {
		return nil
	}
	return lines
}
