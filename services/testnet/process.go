package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"tweedle/base/telemetry"
	"tweedle/base/words"
)

// State is what a process does, as the launcher sees it.
type State string

// The states. A process that ended although nobody asked for it has crashed.
const (
	Running State = "running"
	Stopped State = "stopped"
	Crashed State = "crashed"
)

// Record is what D/NAME/process.json tells about a process.
type Record struct {
	Name    string     `json:"name"`
	Kind    Kind       `json:"kind"`
	State   State      `json:"state"`
	Paused  bool       `json:"paused,omitempty"`
	PID     int        `json:"pid"`
	Started time.Time  `json:"started"`
	Ended   *time.Time `json:"ended,omitempty"`
	Exit    string     `json:"exit,omitempty"` // how it ended last
	// Endpoints are the newest known; a restart takes the same addresses.
	Endpoints telemetry.Endpoints `json:"endpoints"`
}

// Times that the launcher gives its processes.
const (
	startTimeout = 60 * time.Second // until the listeners are open
	stopGrace    = 8 * time.Second  // from SIGTERM to SIGKILL
	startPoll    = 50 * time.Millisecond
)

// process is one member of the testnet, running or not.
type process struct {
	member
	dir   directory
	emit  *emitter
	grace time.Duration // from SIGTERM to SIGKILL
	// supervised: it is started again when it has crashed.
	supervised bool

	op sync.Mutex // held for the whole of a start or an orderly stop

	mu       sync.Mutex // guards all following fields
	rec      Record
	child    *child // the newest run; nil before the first
	expected bool   // to run: it was started, and not stopped in order
}

// child is one run of a process.
type child struct {
	proc     *os.Process
	done     chan struct{} // closed once the process is gone and recorded
	wanted   bool          // that it ends; guarded by process.mu
	watched  bool          // proc runs the program, and tells the watch of its death
	program  *os.Process   // then this is the program, once it listens; guarded by process.mu
	logStart int64         // where the log of this run begins
}

// record returns a copy of what is known.
func (p *process) record() Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec
}

// start runs the command and returns once its listeners are open. The process
// ends with this one, however this one ends.
func (p *process) start(ctx context.Context, s *spawner, cmd *exec.Cmd, watched bool) error {
	c, err := p.spawn(s, cmd, watched)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return fmt.Errorf("%s ended while it started (%s): %s", p.Name, p.record().Exit, p.lastWords(c))
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				p.kill(false) //nolint:errcheck // it may have ended just now
				return fmt.Errorf("%s opened no listeners within %v: see %s", p.Name, startTimeout, p.dir.path(p.Name, logFile))
			}
			return ctx.Err()
		case <-tick.C:
		}
		if e, ok := p.announced(c); ok {
			return p.listening(c, e)
		}
	}
}

// listening records the addresses of a run that is still alive.
func (p *process) listening(c *child, e telemetry.Endpoints) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rec.State != Running {
		return fmt.Errorf("%s ended while it started (%s)", p.Name, p.rec.Exit)
	}
	if c.watched {
		program, err := os.FindProcess(e.PID)
		if err != nil {
			return fmt.Errorf("%s ended while it started: %w", p.Name, err)
		}
		c.program = program
	}
	p.rec.Endpoints, p.rec.PID = e, e.PID
	return p.saveLocked()
}

// spawn starts the command, with its output in the log.
func (p *process) spawn(s *spawner, cmd *exec.Cmd, watched bool) (*child, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rec.State == Running {
		return nil, fmt.Errorf("%s runs already", p.Name)
	}
	if err := os.MkdirAll(p.dir.path(p.Name), 0o700); err != nil {
		return nil, p.dir.explain(err)
	}
	if err := os.Remove(p.dir.path(p.Name, telemetry.EndpointsFile)); err != nil && !os.IsNotExist(err) {
		return nil, p.dir.explain(err)
	}
	log, err := os.OpenFile(p.dir.path(p.Name, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, p.dir.explain(err)
	}
	defer log.Close() // the child has its own
	logStart, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.start(cmd); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", p.Name, err)
	}
	c := &child{proc: cmd.Process, done: make(chan struct{}), logStart: logStart, watched: watched}
	p.child = c
	p.rec.State, p.rec.Paused, p.rec.PID = Running, false, cmd.Process.Pid
	p.rec.Started, p.rec.Ended, p.rec.Exit = time.Now().UTC(), nil, ""
	go p.wait(c, cmd)
	if err := p.saveLocked(); err != nil {
		c.wanted = true
		return nil, errors.Join(err, c.proc.Kill())
	}
	return c, nil
}

// wait records the end of a run; the child's end is its own.
func (p *process) wait(c *child, cmd *exec.Cmd) {
	cmd.Wait() //nolint:errcheck // the state below tells it
	exit := cmd.ProcessState.String()
	now := time.Now().UTC()

	p.mu.Lock()
	p.rec.State, p.rec.Paused, p.rec.Ended, p.rec.Exit = Crashed, false, &now, exit
	if c.wanted {
		p.rec.State = Stopped
	}
	err := p.saveLocked()
	rec := p.rec
	p.mu.Unlock()

	if err != nil {
		p.emit.event(Note{Name: p.Name, Text: words.Of(err)})
	}
	if rec.State == Crashed {
		p.emit.event(Crash{Name: p.Name, PID: rec.PID, Exit: exit, Supervised: p.supervised, Log: p.report(c)})
	} else {
		p.emit.event(processEvent(rec))
	}
	close(c.done)
}

// saveLocked writes the record; p.mu is held.
func (p *process) saveLocked() error { return p.dir.save(p.rec, p.Name, recordFile) }

var errNotRunning = errors.New("does not run")

// signal sends a signal to the run, if there is one. want: its end is meant.
func (p *process) signal(sig syscall.Signal, want bool) (*child, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rec.State != Running {
		return nil, fmt.Errorf("%s %w", p.Name, errNotRunning)
	}
	c := p.child
	c.wanted = c.wanted || want
	to := c.proc
	if c.program != nil && sig != syscall.SIGTERM {
		to = c.program // an order to end goes through who would tell of a death
	}
	if err := to.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return c, nil
}

// kill ends the run by SIGKILL and waits until it is recorded, as a crash unless
// it is wanted. One that does not run is as it should be, as with all of these.
func (p *process) kill(wanted bool) error {
	c, err := p.signal(syscall.SIGKILL, wanted)
	if errors.Is(err, errNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	<-c.done // SIGKILL cannot be refused
	return nil
}

// pause stops the run's clock (SIGSTOP), or lets it go on (SIGCONT).
func (p *process) pause(on bool) error {
	sig := syscall.SIGCONT
	if on {
		sig = syscall.SIGSTOP
	}
	if _, err := p.signal(sig, false); err != nil {
		return err
	}
	p.mu.Lock()
	if p.rec.State != Running {
		p.mu.Unlock()
		return nil // it ended meanwhile, which is recorded
	}
	p.rec.Paused = on
	err, rec := p.saveLocked(), p.rec
	p.mu.Unlock()
	p.emit.event(processEvent(rec))
	return err
}

// stop ends the run in order, and by force when it takes longer than its
// grace. It returns when nothing runs and the end was told.
func (p *process) stop() {
	c, err := p.signal(syscall.SIGTERM, true)
	if err != nil {
		p.mu.Lock()
		c = p.child
		p.mu.Unlock()
		if c != nil {
			<-c.done // it has ended by itself, maybe just now
		}
		return
	}
	p.signal(syscall.SIGCONT, true) //nolint:errcheck // a paused process would not see SIGTERM
	select {
	case <-c.done:
	case <-time.After(p.grace):
		p.emit.event(Note{Name: p.Name, Text: fmt.Sprintf("did not end within %v: killed", p.grace)})
		p.kill(true) //nolint:errcheck // it may have ended just now
		<-c.done
	}
}
