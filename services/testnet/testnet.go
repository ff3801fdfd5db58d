// Package testnet starts a whole network on one machine: nodes and PoET
// servers as child processes on loopback, and everything that operates them.
//
// It promises: all state is files under one directory, which later commands
// read from any shell; Up is the only parent of the processes, and none of
// them outlives it, however it ends; a process that was killed stays down
// until it is restarted; the summary says ok only if every node applied the
// same blocks and state. It leaves to the caller who sees the events (View),
// and to the processes everything that is the protocol.
package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"tweedle/base/words"
	"tweedle/edges/preset"
	"tweedle/values/types"
)

// Limits of one machine.
const (
	MaxNodes = 64 // the ledger keeps a bit for each
	MaxPoets = 16
)

// Options says what Up starts. Where it is said, 0 or empty takes what the
// ended testnet in Dir has, or else the default.
type Options struct {
	Dir      string // holds everything; made if it is missing
	Nodes    int    // smeshing nodes, 1..MaxNodes; or 0
	Poets    int    // PoET servers, 1..MaxPoets; or 0
	Gateways int    // how many of the first nodes the PoETs deliver to, at most Nodes; or 0
	Preset   string // name of the network parameters; or empty
	// Rules are what the network has otherwise than its preset.
	Rules preset.Rules
	// Epochs is after how many full epochs with ballots Up ends; 0: when ctx does.
	Epochs int
	// TxRate is how many transactions are sent per second, 0..MaxTxRate.
	TxRate float64
	// MaxLeavesPerSecond is the speed limit of each PoET; or 0.
	MaxLeavesPerSecond uint64
	// BasePort fixes all ports (ports.go), MinBasePort..MaxBasePort; or 0. It may change
	// while the testnet is down.
	BasePort int
	// Fresh deletes an ended testnet in Dir instead of continuing it.
	Fresh bool
	// Executable runs "node" and "poet"; empty means the running program.
	Executable string
	// Supervise starts again what has crashed, killed or not.
	Supervise bool
	// AlertWebhook is a URL that gets alerts as Alertmanager sends them; it needs
	// the watch's program.
	AlertWebhook string
	// Arguments come last on the command lines of processes, by their names: drills.
	Arguments map[string][]string
	// Prepared is called once everything is laid out in Dir and nothing runs yet; nil:
	// nothing is. An error ends Up.
	Prepared func() error
	// View sees what happens; nil means nobody.
	View View

	environ []string      // for the processes, besides our own; tests
	grace   time.Duration // 0: stopGrace; tests
	noWatch bool          // though its program is there; tests
}

// MaxTxRate bounds Options.TxRate, in transactions per second: the load is
// there to make balances change, it is no benchmark.
const MaxTxRate = 1000

// Validate checks the options; an error is a mistake of who wrote them.
func (o Options) Validate() error {
	if o.Dir == "" {
		return errors.New("no directory: name one with --dir")
	}
	o = o.withDefaults()
	switch {
	case o.Nodes < 1 || o.Nodes > MaxNodes:
		return fmt.Errorf("%d nodes: choose 1 to %d with --nodes", o.Nodes, MaxNodes)
	case o.Poets < 1 || o.Poets > MaxPoets:
		return fmt.Errorf("%d PoETs: choose 1 to %d with --poets", o.Poets, MaxPoets)
	case o.Gateways < 1 || o.Gateways > o.Nodes:
		return fmt.Errorf("%d gateways among %d nodes: choose 1 to %d with --gateways", o.Gateways, o.Nodes, o.Nodes)
	case o.Epochs < 0:
		return fmt.Errorf("%d epochs: choose 0 (no end) or more with --epochs", o.Epochs)
	case !(o.TxRate >= 0 && o.TxRate <= MaxTxRate):
		return fmt.Errorf("%g transactions per second: choose 0 to %d with --tx-rate", o.TxRate, MaxTxRate)
	}
	if o.BasePort != 0 && (o.BasePort < MinBasePort || o.BasePort > MaxBasePort) {
		return fmt.Errorf("base port %d: choose %d to %d with --base-port", o.BasePort, MinBasePort, MaxBasePort)
	}
	return errors.Join(checkRules(o.Preset, o.Rules), checkWebhook(o.AlertWebhook))
}

// Reasons why a testnet ends before its target.
var (
	errDown = errors.New("stopped by testnet down")
)

// Up starts the testnet in o.Dir, or continues the one that is there with the
// same genesis, and blocks until ctx ends, `down` asks for it, or o.Epochs full
// epochs are over. All processes have ended when it returns. The error says
// why the testnet could not run; whether it ran well is in the summary.
func Up(ctx context.Context, o Options) (Summary, error) {
	if o.View == nil {
		o.View = nobody{}
	}
	emit := newEmitter(o.View)
	sum, err := up(ctx, o, emit)
	if err != nil {
		sum.OK, sum.failed = false, true
		sum.Reasons = append(sum.Reasons, words.Of(err))
	}
	if sum.Reasons == nil {
		sum.Reasons = []string{}
	}
	emit.event(sum)
	return sum, err
}

func up(ctx context.Context, o Options, emit *emitter) (Summary, error) {
	if err := o.Validate(); err != nil {
		return Summary{}, err
	}
	if o.Executable == "" {
		exe, err := os.Executable()
		if err != nil {
			return Summary{}, fmt.Errorf("cannot find the running program: %w", err)
		}
		o.Executable = exe
	}
	d, err := lockDir(o.Dir)
	if err != nil {
		return Summary{}, err
	}
	defer d.unlock()
	p, resumed, err := d.prepare(o, time.Now())
	if err != nil {
		return Summary{}, err
	}
	if o.Prepared != nil {
		if err := o.Prepared(); err != nil {
			return Summary{}, err
		}
	}
	l := newLauncher(d, p, o, emit)
	if err := l.checkPorts(); err != nil {
		return Summary{}, err
	}
	return l.run(ctx, resumed)
}

// run is the life of one testnet.
func (l *launcher) run(parent context.Context, resumed bool) (Summary, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	l.cancel = cancel

	spawned := make(chan struct{})
	go func() { l.spawner.run(); close(spawned) }()
	defer func() { close(l.spawner.requests); <-spawned }()
	defer l.stopAll()

	stopControl, err := l.serveControl(ctx)
	if err != nil {
		return Summary{}, err
	}
	defer stopControl()

	// The watch comes first: its page's address is in the first event.
	told, err := l.startWatch(ctx)
	l.emit.event(l.started(resumed))
	for _, e := range told {
		l.emit.event(e)
	}
	if err != nil && ctx.Err() == nil {
		return Summary{}, err
	}
	obs := newObserver(l, newLedger(l.plan.network.schedule(), l.firstLayer(time.Now(), resumed)))
	defer obs.close()
	if err := l.startAll(ctx, obs); err != nil && ctx.Err() == nil {
		return Summary{}, err
	}
	stopLoad := l.load.start(ctx)
	defer stopLoad()
	if l.opts.Supervise {
		supervising := make(chan struct{})
		go func() { l.supervise(ctx); close(supervising) }()
		defer func() { cancel(nil); <-supervising }()
	}
	obs.run(ctx)
	return obs.verdict(ctx), nil
}

// firstLayer returns the first layer whose outcome this run follows.
func (l *launcher) firstLayer(now time.Time, resumed bool) types.Layer {
	s := l.plan.network.schedule()
	if !resumed {
		return s.FirstBallotLayer()
	}
	return max(s.FirstBallotLayer(), s.LayerAt(now))
}
