// Package drill breaks a testnet of real processes as a script says, and checks
// what must hold.
//
// A drill is data: a network, steps that each do one thing, and for each step the
// checks of what follows, with a bound and a figure. The engine (play) knows no
// drill; the actors are the network as the testnet shows it, the watch as its
// webhook hears it, and the faults.
//
// It promises: nothing is mocked, every process, proof, disk and alert is a real
// one; a run ends at the first step with a check that does not hold, and says ok
// only if all did; what could not be checked here is said so, and is no success of
// that check; nothing of it is left running or mounted, unless it was killed. It
// leaves to the caller where the timeline is shown.
package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tweedle/base/words"
	"tweedle/services/testnet"
)

// Flags choose a variant of a drill that has some.
type Flags struct {
	// Pull lets nodes ask the PoETs for their proofs, and Recycle lets PoETs give the
	// slots of dead gateways to others: what the network of 2020 did not have.
	Pull, Recycle bool
}

func (f Flags) names() (out []string) {
	if f.Pull {
		out = append(out, "pull")
	}
	if f.Recycle {
		out = append(out, "recycle")
	}
	return out
}

// Script is a drill.
type Script struct {
	Name   string
	Proves string // one sentence
	// Variants: Flags mean something to it.
	Variants bool
	// Network says what runs; Dir and everything about output is the engine's.
	Network func(Flags) testnet.Options
	// Disks are the processes that have a file system of their own each, of DiskSize bytes.
	Disks    []string
	DiskSize int64
	// Prepared is called when everything is laid out and nothing runs yet; nil: nothing is.
	Prepared func(ctx context.Context, s *Stage, program string) error
	// Cuts: packets are dropped, so it needs a network of its own; see Enter.
	Cuts bool
	// Steps come one after another, and Always must hold from the second one to the end.
	Steps  func(Flags) []Step
	Always func(Flags) []Check
}

// Step is one thing that happens.
type Step struct {
	Title string
	// At waits until it is known when the step begins; nil: at once.
	At func(context.Context, *Stage) (time.Time, error)
	// Do makes it happen, nil: it is only looked. An error ends the drill.
	Do func(context.Context, *Stage) error
	// Lasts is about how long it takes with its checks, for the time that is left.
	Lasts  time.Duration
	Checks []Check
}

// Check is something that must hold.
type Check struct {
	Name string // in words of one line, what holds
	// Within is how long after the step began it must hold at last. Zero: it must hold
	// from then on until all other checks of the step are decided.
	Within time.Duration
	// Then: it is looked at only when what the step does is done.
	Then bool
	// Look tells whether it holds now, with the figure that says so.
	Look func(*Stage) (holds bool, figure string)
	// Skip, if not nil, tells why it cannot be checked here, or nothing.
	Skip func(*Stage) string
}

// Scripts lists the drills in the order in which they are shown.
func Scripts() []Script {
	return []Script{tweedledee(), allPoetsDown(), poetHangs(), gatewaysHang(), partition(), crashLoop(), diskFullNode(), slowCPU(), clockJump(), equivocation()}
}

// Find returns the drill of a name.
func Find(name string) (Script, error) {
	var names []string
	for _, s := range Scripts() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Script{}, fmt.Errorf("no drill %q: there are %s", name, strings.Join(names, ", "))
}

// Options says how a drill is run.
type Options struct {
	Flags Flags
	// Dir keeps the testnet; it must be empty or missing. Empty: one for the run, which
	// is removed after a success.
	Dir string
	// Executable runs "node" and "poet"; empty: the running program.
	Executable string
	// View sees what happens; nil: nobody.
	View View
}

// Run runs a drill. The error says why it could not be run; how it went is in the
// timeline.
func Run(ctx context.Context, script Script, o Options) (*Timeline, error) {
	if !script.Variants && o.Flags != (Flags{}) {
		return nil, fmt.Errorf("drill %s has no variants: leave out --pull and --recycle", script.Name)
	}
	dir, remove, err := place(o.Dir)
	if err != nil {
		return nil, err
	}
	if o.View == nil {
		o.View = nobody{}
	}
	tl := newTimeline(script.Name, o.Flags, o.View)
	err = run(ctx, script, o, dir, tl)
	if err != nil {
		tl.reason("%s", words.Of(err))
	}
	tl.finish()
	if tl.OK {
		remove()
	} else {
		tl.note("what ran is left in " + dir)
	}
	o.View.End(tl)
	return tl, nil
}

// place returns the folder of a run.
func place(dir string) (path string, remove func(), err error) {
	if dir == "" {
		dir, err = os.MkdirTemp("", "tweedle-drill-")
		return dir, func() { os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", nil, err
	}
	if len(entries) > 0 {
		return "", nil, fmt.Errorf("%s is not empty: a drill needs a folder of its own, name another with --dir or leave it out", dir)
	}
	return dir, func() {}, nil
}

// run runs the network and plays the script on it.
func run(ctx context.Context, script Script, o Options, dir string, tl *Timeline) error {
	st := newStage(dir, o.Flags, tl)
	hook, err := st.alerts.listen()
	if err != nil {
		return err
	}
	defer hook.close()
	n := script.Network(o.Flags)
	n.Dir, n.Executable, n.View, n.AlertWebhook = dir, o.Executable, st, hook.url
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer st.unmount()
	n.Prepared = func() error {
		if err := st.mount(script.Disks, script.DiskSize); err != nil || script.Prepared == nil {
			return err
		}
		program := o.Executable
		if program == "" {
			if program, err = os.Executable(); err != nil {
				return err
			}
		}
		return script.Prepared(ctx, st, program)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := testnet.Up(ctx, n)
		stop()
		ended <- err
	}()
	played := play(ctx, st, tl, script.Steps(o.Flags), script.always(o.Flags))
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		return err // which is why the script could not go on
	}
	return played
}

func (s Script) always(f Flags) []Check {
	if s.Always == nil {
		return nil
	}
	return s.Always(f)
}

// lookEvery is the time between two looks at the checks that are open.
const lookEvery = 250 * time.Millisecond

// play plays the steps, one after another. It ends with the first step that has a
// check which does not hold.
func play(ctx context.Context, st *Stage, tl *Timeline, steps []Step, always []Check) error {
	ctx, stop := context.WithCancel(ctx)
	measured := make(chan struct{})
	go func() { defer close(measured); tl.measure(ctx) }()
	defer func() { stop(); <-measured }()
	for i, step := range steps {
		tl.progress(steps, i)
		if step.At != nil {
			at, err := step.At(ctx, st)
			if err != nil {
				return err
			}
			tl.note(fmt.Sprintf("next, in %.1f s: %s", max(0, time.Until(at).Seconds()), step.Title))
			if !sleep(ctx, time.Until(at)) {
				return interrupted(ctx)
			}
		}
		began := time.Now()
		tl.step(i, len(steps), step.Title)
		var kept []*open // what must hold from now to the end
		if i > 0 {
			kept = opened(always, began)
		}
		if err := st.perform(ctx, tl, steps, i, opened(step.Checks, began), kept); err != nil {
			return err
		}
		if tl.failed() {
			return nil
		}
	}
	return nil
}

func (s Step) do(ctx context.Context, st *Stage) error {
	if s.Do == nil {
		return nil
	}
	return s.Do(ctx, st)
}

// perform does a step, and looks at its checks until what is done is done and each is
// decided; those that are kept go on in the next step.
func (st *Stage) perform(ctx context.Context, tl *Timeline, steps []Step, i int, checks, kept []*open) error {
	done := make(chan error, 1)
	go func() { done <- steps[i].do(ctx, st) }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for busy := true; ; {
		waits := busy
		for _, c := range slices.Concat(checks, kept) {
			decided := busy && c.Then || c.look(st, tl)
			waits = waits || !decided && c.Within > 0
		}
		if !waits || tl.failed() {
			break
		}
		select {
		case <-ctx.Done():
			return interrupted(ctx)
		case err := <-done:
			if err != nil {
				return err
			}
			busy, done = false, nil
		case <-tick.C:
			tl.progress(steps, i)
		}
	}
	if i == len(steps)-1 || tl.failed() {
		checks = append(checks, kept...)
	}
	for _, c := range checks {
		c.close(tl)
	}
	return nil
}

// open is a check that is being looked at.
type open struct {
	Check
	began   time.Time
	decided bool
	figure  string // of the last look
}

func opened(checks []Check, began time.Time) (out []*open) {
	for _, c := range checks {
		out = append(out, &open{Check: c, began: began})
	}
	return out
}

// look looks once and tells whether the check is decided.
func (c *open) look(st *Stage, tl *Timeline) bool {
	if c.decided {
		return true
	}
	if c.Skip != nil {
		if why := c.Skip(st); why != "" {
			c.decide(tl, Result{Name: c.Name, Skipped: why})
			return true
		}
	}
	holds, figure := c.Look(st)
	c.figure = figure
	took := time.Since(c.began)
	switch {
	case c.Within == 0 && !holds:
		c.decide(tl, Result{Name: c.Name, Figure: figure, took: took})
	case c.Within > 0 && holds && took <= c.Within:
		c.decide(tl, Result{Name: c.Name, OK: true, Figure: figure, took: took, within: c.Within})
	case c.Within > 0 && took > c.Within:
		c.decide(tl, Result{Name: c.Name, Figure: figure, took: took, within: c.Within})
	}
	return c.decided
}

// close decides a check that had to hold all the time, and did.
func (c *open) close(tl *Timeline) {
	if !c.decided && c.Within == 0 {
		c.decide(tl, Result{Name: c.Name, OK: true, Figure: c.figure, took: time.Since(c.began)})
	}
}

func (c *open) decide(tl *Timeline, r Result) {
	c.decided = true
	tl.check(r)
}

func interrupted(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return errors.New("interrupted")
}

// sleep waits, and tells whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// left returns about how long the steps from one on take, of which it has run for a
// while.
func left(steps []Step, i int, ran time.Duration) (d time.Duration) {
	for _, s := range steps[min(i+1, len(steps)):] {
		d += s.Lasts
	}
	return d + max(0, steps[i].Lasts-ran)
}
