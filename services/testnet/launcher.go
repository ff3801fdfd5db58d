package testnet

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// launcher owns the processes of a running testnet.
type launcher struct {
	dir     *lockedDir
	opts    Options
	emit    *emitter
	spawner *spawner
	load    *load
	cancel  context.CancelCauseFunc // ends run
	seen    atomic.Pointer[Status]  // newest that the observer made

	mu        sync.Mutex // guards all following fields
	plan      *plan
	processes map[string]*process
	watch     *process // nil: nobody watches

	watchExe string     // written before anything else runs
	telling  sync.Mutex // one at a time writes what is watched
}

func newLauncher(d *lockedDir, p *plan, o Options, emit *emitter) *launcher {
	l := &launcher{
		dir: d, plan: p, opts: o, emit: emit,
		spawner: newSpawner(), processes: make(map[string]*process),
	}
	for _, m := range p.Members {
		l.processes[m.Name] = l.newProcess(m)
	}
	l.load = newLoad(l)
	return l
}

// newProcess returns a process that does not run; addresses of its last run
// are known again.
func (l *launcher) newProcess(m member) *process {
	p := &process{member: m, dir: l.dir.directory, emit: l.emit, grace: cmp.Or(l.opts.grace, stopGrace), supervised: l.opts.Supervise}
	if err := l.dir.load(&p.rec, m.Name, recordFile); err != nil {
		// Without a record it gets new addresses, that is all.
		p.rec = Record{}
	}
	if l.plan.BasePort != 0 {
		p.fix(l.plan.BasePort)
	}
	p.rec.Name, p.rec.Kind, p.rec.State, p.rec.Paused, p.rec.PID = m.Name, m.Kind, Stopped, false, 0
	return p
}

// process finds a process by its name.
func (l *launcher) process(name string) (*process, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.plan.choose([]string{name}, l.watch != nil); err != nil {
		return nil, err
	}
	if name == watchName {
		return l.watch, nil
	}
	return l.processes[name], nil
}

// Names are those of the processes of the testnet in dir, running or not.
func Names(dir string) ([]string, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	p, err := d.readPlan()
	if err != nil {
		return nil, err
	}
	return p.choose(nil, d.hasWatch())
}

// choose checks process names; none means all.
func (p *plan) choose(names []string, watched bool) ([]string, error) {
	all := append(p.names(Node), p.names(Poet)...)
	if watched {
		all = append(all, watchName)
	}
	if len(names) == 0 {
		return all, nil
	}
	for _, n := range names {
		if !slices.Contains(all, n) {
			return nil, fmt.Errorf("no process %q: there are %s", n, strings.Join(all, ", "))
		}
	}
	return names, nil
}

// of returns the processes of a kind, in order.
func (l *launcher) of(k Kind) []*process {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*process
	for _, n := range l.plan.names(k) {
		out = append(out, l.processes[n])
	}
	return out
}

// members returns the plan of the processes of a kind.
func (l *launcher) members(k Kind) []member {
	var out []member
	for _, p := range l.of(k) {
		out = append(out, p.member)
	}
	return out
}

// all returns all processes, nodes first.
func (l *launcher) all() []*process {
	out := append(l.of(Node), l.of(Poet)...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch != nil {
		out = append(out, l.watch)
	}
	return out
}

// records returns what is known of all processes, nodes first.
func (l *launcher) records() []Record {
	var out []Record
	for _, p := range l.all() {
		out = append(out, p.record())
	}
	return out
}

// status returns the status without its processes.
func (l *launcher) status(now time.Time) *Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return newStatus(l.plan, true, now)
}

// started returns the first event.
func (l *launcher) started(resumed bool) Started {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.plan.network
	var page *string
	if l.watch != nil {
		url := "http://" + l.watch.record().Endpoints.Metrics
		page = &url
	}
	return Started{
		Page: page, Dir: string(l.dir.directory), Network: n.Name, GenesisID: n.ID().String(), Genesis: n.Genesis,
		Preset: l.plan.Preset, Nodes: len(l.plan.names(Node)), Poets: len(l.plan.names(Poet)),
		Gateways: l.plan.Gateways, Resumed: resumed,
	}
}

// startAll starts the PoETs, then the nodes, and tells the PoETs their gateways. obs shows progress meanwhile.
func (l *launcher) startAll(ctx context.Context, obs *observer) error {
	stop := obs.show(ctx)
	defer stop()
	if err := l.startEach(ctx, l.of(Poet)); err != nil {
		return err
	}
	nodes := l.of(Node)
	// The first node is everybody's way in.
	if err := l.startEach(ctx, nodes[:1]); err != nil {
		return err
	}
	if err := l.startEach(ctx, nodes[1:]); err != nil {
		return err
	}
	for _, p := range l.of(Poet) {
		if err := l.setGateways(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// startEach starts processes side by side, and waits for all of them.
func (l *launcher) startEach(ctx context.Context, ps []*process) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range ps {
		g.Go(func() error { return l.start(ctx, p, fresh) })
	}
	return g.Wait()
}

// addressRule says what happens when a process's last address is taken.
type addressRule int

const (
	fresh   addressRule = iota // it gets another one, if its ports are not fixed: the whole testnet is starting
	same                       // that is an error: others know it by that address
	another                    // it gets another one in any case
)

// start starts one process with the addresses it had before.
func (l *launcher) start(ctx context.Context, p *process, rule addressRule) error {
	p.op.Lock()
	defer p.op.Unlock()
	return l.startLocked(ctx, p, rule)
}

// startLocked is start for who holds p.op.
func (l *launcher) startLocked(ctx context.Context, p *process, rule addressRule) error {
	if err := l.startQuiet(ctx, p, rule); err != nil {
		return err
	}
	l.emit.event(processEvent(p.record()))
	l.tellWatch()
	return nil
}

// startQuiet is startLocked without a word of it.
func (l *launcher) startQuiet(ctx context.Context, p *process, rule addressRule) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	taken := taken(p.record().Endpoints)
	if len(taken) > 0 && (rule == same || rule == fresh && l.plan.BasePort != 0) {
		return fmt.Errorf("address %s of %s is in use by another program: end it, then run `tweedle testnet restart %s` again", taken[0], p.Name, p.Name)
	}
	cmd, err := l.command(p, len(taken) > 0 || rule == another)
	if err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), l.opts.environ...)
	p.expect(true)
	return p.start(ctx, l.spawner, cmd, cmd.Path != l.opts.Executable && p.Kind != Watch)
}

// command returns what starts a process.
func (l *launcher) command(p *process, anyAddress bool) (*exec.Cmd, error) {
	if p.Kind == Watch {
		return l.watchCommand(p, anyAddress)
	}
	args, err := l.arguments(p, anyAddress)
	if err != nil {
		return nil, err
	}
	return l.watched(p, append(args, l.opts.Arguments[p.Name]...)), nil
}

// udpAddress returns host:port of a multiaddress /ip4/HOST/udp/PORT/...
func udpAddress(multiaddr string) string {
	part := strings.Split(multiaddr, "/")
	if len(part) < 5 || part[3] != "udp" {
		return ""
	}
	return net.JoinHostPort(part[2], part[4])
}

// maxBootnodes is how many other nodes a node is told of: one would leave it
// alone if that one is down.
const maxBootnodes = 3

// poetAcks is how many gateways must acknowledge a proof, if there are so many.
const poetAcks = 2

// Loopback with a port of the system's choice.
const (
	anyTCP = "127.0.0.1:0"
	anyP2P = "/ip4/127.0.0.1/udp/0/quic-v1"
)

// arguments returns the command line of a process. Addresses are those of its
// last run, or any.
func (l *launcher) arguments(p *process, anyAddress bool) ([]string, error) {
	e := p.record().Endpoints
	addr := func(last string) string {
		if last == "" || anyAddress {
			return anyTCP
		}
		return last
	}
	args := []string{string(p.Kind), "--dir", l.dir.path(p.Name), "--network", l.dir.path(networkFile)}
	if p.Kind == Poet {
		return append(args,
			"--rpclisten", addr(e.GRPC), "--restlisten", addr(e.REST), "--adminlisten", addr(e.Admin),
			"--metrics-listen", addr(e.Metrics),
			"--max-leaves-per-second", fmt.Sprint(l.plan.MaxLeavesPerSecond),
			"--broadcast-acks", fmt.Sprint(min(poetAcks, l.plan.Gateways))), nil
	}
	coinbase, err := l.dir.wallet(p.Name, l.plan.network)
	if err != nil {
		return nil, err
	}
	listen := anyP2P
	if e.P2P != "" && !anyAddress {
		listen, _, _ = strings.Cut(e.P2P, "/p2p/")
	}
	args = append(args,
		"--listen", listen, "--grpc-listen", addr(e.GRPC), "--rest-listen", addr(e.REST),
		"--metrics-listen", addr(e.Metrics),
		"--coinbase", coinbase.address, "--smeshing")
	boot := 0
	for _, other := range l.of(Node) {
		r := other.record()
		if other != p && r.State == Running && strings.Contains(r.Endpoints.P2P, "/p2p/") && boot < maxBootnodes {
			args = append(args, "--bootnode", r.Endpoints.P2P)
			boot++
		}
	}
	for _, poet := range l.of(Poet) {
		if rest := poet.record().Endpoints.REST; rest != "" {
			args = append(args, "--poet", "http://"+rest)
		}
	}
	return args, nil
}

// stopAll ends all processes in order: nodes, which need the PoETs, first, and
// the watch, which is told of the others, last.
func (l *launcher) stopAll() {
	all := l.all()
	for _, k := range []Kind{Node, Poet, Watch} {
		var wg sync.WaitGroup
		for _, p := range all {
			if p.Kind == k {
				wg.Go(p.stop)
			}
		}
		wg.Wait()
	}
}

// The commands that other shells send; each returns what to tell them.

// kill is a crash to a supervisor, as it would be from another hand.
func (l *launcher) kill(_ context.Context, p *process) error { return p.kill(!l.opts.Supervise) }

func (l *launcher) pause(_ context.Context, p *process) error  { return p.pause(true) }
func (l *launcher) resume(_ context.Context, p *process) error { return p.pause(false) }

func (l *launcher) down(_ context.Context, p *process) error {
	p.expect(false)
	l.tellWatch()
	p.stop()
	return nil
}

// restart ends a process in order, if it runs, and starts it again.
func (l *launcher) restart(ctx context.Context, p *process) error { return l.again(ctx, p, same) }

// move is restart under other addresses, which nobody is told.
func (l *launcher) move(ctx context.Context, p *process) error { return l.again(ctx, p, another) }

func (l *launcher) again(ctx context.Context, p *process, rule addressRule) error {
	p.op.Lock()
	defer p.op.Unlock()
	p.stop()
	return l.startLocked(ctx, p, rule)
}

// add plans and starts one more process.
func (l *launcher) add(ctx context.Context, k Kind) (string, error) {
	l.mu.Lock()
	before := slices.Clone(l.plan.Members)
	m, err := l.plan.add(k, uint32(l.plan.network.schedule().LayerAt(time.Now())))
	if err == nil {
		// If we stop after this, the next `up` starts the new process too.
		if err = l.dir.save(l.plan, planFile); err != nil {
			l.plan.Members = before
		}
	}
	if err != nil {
		l.mu.Unlock()
		return "", err
	}
	p := l.newProcess(m)
	l.processes[m.Name] = p
	l.mu.Unlock()
	if err := l.start(ctx, p, fresh); err != nil {
		return "", err
	}
	if k == Poet {
		err = l.setGateways(ctx, p)
	}
	return m.Name, err
}

// keepsUp is how many layers behind the furthest node a node may be to be
// asked about accounts.
const keepsUp = 2

// upToDate returns the API addresses of the nodes that run and keep up.
func (l *launcher) upToDate() []string {
	s := l.seen.Load()
	if s == nil {
		return nil
	}
	var newest uint32
	for _, n := range s.Nodes {
		if n.AppliedLayer != nil {
			newest = max(newest, *n.AppliedLayer)
		}
	}
	var out []string
	for _, n := range s.Nodes {
		if n.AppliedLayer != nil && *n.AppliedLayer+keepsUp >= newest && n.GRPC != "" {
			out = append(out, n.GRPC)
		}
	}
	return out
}
