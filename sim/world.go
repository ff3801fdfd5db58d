// Package sim plays whole networks of cores on one goroutine, in virtual time,
// against faults and adversaries that a seed draws.
//
// It promises: the same options give the same run, bit for bit, which one
// digest says; the invariants are looked at after every step; a run that breaks
// one names it, and its seed. Everything but proofs of work and space, and in
// most runs signatures, is what a node runs. It leaves to tests which seeds are
// played. docs/simulator.md tells how to read a transcript, replay a seed and
// add an adversary.
package sim

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"tweedle/edges/preset"
	"tweedle/protocol/core"
	"tweedle/protocol/tortoise"
	"tweedle/protocol/txpool"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Options are what a run is made of. The zero value of a field is drawn from
// the seed where that says so.
type Options struct {
	Seed   uint64
	Nodes  int // smeshers; 0: 5 to 20
	Epochs int // with ballots; 0: 4
	Layers int // of an epoch; 0: as preset test has them
	Age    int // epochs that passed since genesis before anybody came
	// Several of the nodes, the last ones, have two or three identities in turn.
	Several int
	Late    int // of the nodes, so many join when the others have had two epochs of ballots, or three quarters of the run

	// BeaconRounds are those of following votes about the beacon. 0: as preset test has them.
	BeaconRounds int

	// Hostile are the strategies of the smeshers that do not keep the rules, one
	// for each; together they have at most a fifth of the weight. Nil: drawn.
	Hostile []string
	// Strangers are the strategies of peers without weight. Nil: drawn.
	Strangers []string
	// Poets are the kinds of the network's PoETs beside one that is honest. Nil: drawn.
	Poets []string
	// Clients are the kinds of API clients beside one that is honest. Nil: drawn.
	Clients []string
	// Twins says who hears which of two twins, as TwinScenarios does. Nil: by the
	// hash of node and layer.
	Twins    []uint16
	Faults   *Faults // nil: drawn
	RealKeys bool    // ed25519 and ECVRF instead of hashes

	Transcript io.Writer // nil: none

	planted func(*node, core.Event) // a bug of a test's, nil: none
	unsaid  func(core.Sign) bool    // what a test keeps everybody from saying, nil: nothing
	// grain is in what steps time passes, in networks of so many nodes that none is in a cache any more when its
	// next input comes: all that a node has in one step comes together. In such a network no node fails and none is cut
	// off. 0: each input has a time of its own.
	grain time.Duration
}

// Faults are the weather of a run.
type Faults struct {
	Latency time.Duration // mean, one way; single messages take up to ten times as long
	Loss    float64       // of requests and answers
	Crashes int           // of nodes, and as many of PoETs; each comes back with what it had stored
	Splits  int           // partitions that cut off less than a third of the weight for a while
	Skew    time.Duration // most that a clock is off
}

// Result is what a run showed.
type Result struct {
	Seed       uint64
	Digest     types.Hash32
	Violations []string
	Layers     int // that honest nodes could have filled
	Empty      int // of them
	Undone     int // layers that were taken back, at all honest nodes together
	Caught     int // smeshers that all honest nodes know as malicious
	Steps      int
	Messages   int
	Virtual    time.Duration
	Hostile    []string
	Strangers  []string
	Poets      []string
	Clients    []string
	Omissions  int // how often a smesher could show that a PoET left it out
}

// world is one run.
type world struct {
	opts     Options
	faults   Faults
	rng      *rand.Rand
	now      time.Time
	start    time.Time
	queue    queue
	seq      uint64
	cfg      core.Config // but for identity and crypto
	nodes    []*node
	byPeer   map[core.Peer]*node
	sums     map[types.Hash32]uint64 // see memory.money
	poets    []*poet
	clients  []*client
	poetry   types.PoetSchedule
	grace    time.Duration // of smeshers, before a round
	rich     *signing.Signer
	nonce    uint64
	cut      func(a, b *node) bool // nil: nobody is cut off
	messages map[gossiped]*message
	digest   *blake3.Hasher
	line     []byte // of the transcript, made in the same place each time
	result   Result
	decided  map[types.Layer]types.Decision // as honest nodes applied them
	settled  map[types.Layer]tortoise.Choice
	beacons  map[types.Epoch]types.Beacon
	applying map[types.Layer]int // how many honest nodes have a layer now
	seats    map[seating]seated
	calm     types.Layer // from here on there are no faults
	more     types.Epoch // epochs after those that were planned
}

// gossiped names a message by all that it is.
type gossiped struct {
	topic core.Topic
	raw   string
}

// message is what nodes pass on: made, decoded and checked once for all of them.
type message struct {
	topic core.Topic
	raw   []byte
	m     core.Message // nil until it is checked
	err   error
	seen  []seen // of each node
}

// seen is what a node has of a message.
type seen struct {
	born  int32 // in which of its lives it had it
	comes int32 // with Options.grain, the first step in which somebody's copy comes; 0: none is under way
}

func (w *world) message(t core.Topic, raw []byte) *message {
	m := w.messages[gossiped{t, string(raw)}]
	if m == nil {
		m = &message{topic: t, raw: raw, seen: make([]seen, len(w.nodes))}
		w.messages[gossiped{t, string(raw)}] = m
	}
	return m
}

func (m *message) check(c core.Crypto) (core.Message, error) {
	if m.m == nil && m.err == nil {
		m.m, m.err = core.Check(c, m.topic, m.raw)
	}
	return m.m, m.err
}

// Run plays a network.
func Run(o Options) Result {
	w := newWorld(o)
	w.play(w.end())
	if _, found := w.beacons[w.last()]; !found && w.cfg.Schedule.First(w.last()) > w.cfg.Schedule.FirstBallotLayer() {
		w.more = 1 // too many were away when it was sought; now nobody is
		w.epoch(w.last() + 1)
		w.play(w.end())
	}
	w.final()
	w.digest.Sum(w.result.Digest[:0])
	return w.result
}

// play does what is due until a time.
func (w *world) play(until time.Time) {
	end := until.Sub(w.start)
	for len(w.queue) > 0 && w.queue[0].at <= end {
		e := w.queue.pop()
		w.now = w.start.Add(e.at)
		if e.msg != nil {
			e.to.arrives(e.from, e.msg)
		} else {
			e.do()
		}
	}
}

func newWorld(o Options) *world {
	w := &world{
		opts: o, rng: rand.New(rand.NewPCG(o.Seed, 0x7477646c)), byPeer: make(map[core.Peer]*node), sums: make(map[types.Hash32]uint64), digest: blake3.New(),
		messages: make(map[gossiped]*message), decided: make(map[types.Layer]types.Decision), settled: make(map[types.Layer]tortoise.Choice), beacons: make(map[types.Epoch]types.Beacon), applying: make(map[types.Layer]int), seats: make(map[seating]seated),
	}
	w.result.Seed = o.Seed
	w.draw()
	w.rules()
	w.people()
	w.connect()
	w.weather()
	for _, p := range w.poets {
		p.start()
	}
	for e := types.Epoch(0); e <= types.Epoch(w.opts.Epochs)+2; e++ {
		w.epoch(w.first() + e)
	}
	return w
}

// draw fills in what the options leave to the seed.
func (w *world) draw() {
	// Drawn from a generator of its own: options that are given, and the same as
	// those that are drawn, are the same run.
	rng := rand.New(rand.NewPCG(w.opts.Seed, 0x64726177))
	o := &w.opts
	if o.Nodes == 0 {
		o.Nodes = 5 + rng.IntN(16)
	}
	if o.Epochs == 0 {
		o.Epochs = 4
	}
	if o.Faults == nil {
		o.Faults = &Faults{
			Latency: time.Duration(5+rng.IntN(100)) * time.Millisecond, Loss: []float64{0, 0, 0.01, 0.1}[rng.IntN(4)],
			Crashes: rng.IntN(4), Splits: rng.IntN(2), Skew: time.Duration(rng.IntN(1000)) * time.Millisecond,
		}
	}
	// A list that was drawn is not nil, though it may be empty.
	draw := func(list *[]string, from []string, n int) {
		if *list != nil {
			return
		}
		*list = []string{}
		for range n {
			*list = append(*list, from[rng.IntN(len(from))])
		}
	}
	names := strategyNames()
	draw(&o.Hostile, names.smeshers, rng.IntN(min(o.Nodes/5, 3)+1)*min(o.Nodes/6, 1))
	draw(&o.Strangers, names.strangers, rng.IntN(4))
	draw(&o.Clients, clientKinds(), rng.IntN(3))
	draw(&o.Poets, append(poetKinds(), "honest"), rng.IntN(3))
	w.faults = *o.Faults
	w.result.Clients = o.Clients
	w.result.Hostile, w.result.Strangers, w.result.Poets = o.Hostile, o.Strangers, o.Poets
}

// rules are those of preset test: four layers of 15 seconds are an epoch.
func (w *world) rules() {
	p := preset.Test()
	if w.opts.Layers > 0 {
		p.LayersPerEpoch = uint32(w.opts.Layers)
	}
	rich, err := signing.NewSigner(signing.SeedFrom("rich"), types.GenesisID{})
	if err != nil {
		panic(err)
	}
	n := preset.Network{Name: "sim", Preset: "test", Genesis: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Accounts: []preset.Account{
		{Address: vm.WalletAddress(rich.NodeID()).Bech32("stest"), Balance: 1_000_000 * vm.Smidges},
	}}
	for i := range w.opts.Clients {
		key, err := signing.NewSigner(signing.SeedFrom(clientSeed(i)), types.GenesisID{})
		if err != nil {
			panic(err)
		}
		n.Accounts = append(n.Accounts, preset.Account{Address: vm.WalletAddress(key.NodeID()).Bech32("stest"), Balance: 1000 * vm.Smidges})
	}
	rules, err := n.VM(p)
	if err != nil {
		panic(err)
	}
	if w.rich, err = signing.NewSigner(signing.SeedFrom("rich"), n.ID()); err != nil {
		panic(err)
	}
	eligible := p.Eligibility()
	eligible.LayerSize = uint32(max(4, w.opts.Nodes/2))
	w.cfg = core.Config{
		Schedule: n.Schedule(p), Activation: n.Activation(p), Eligibility: eligible, Beacon: p.Beacon(), Tortoise: p.Tortoise(), VM: rules, Pool: txpool.DefaultLimits(),
		Hare: p.Hare(), TxsPerProposal: p.TxsPerProposal,
	}
	w.cfg.Activation.Post.K2 = labels
	if w.opts.BeaconRounds > 0 {
		w.cfg.Beacon.Rounds = w.opts.BeaconRounds
	}
	w.poetry, w.grace = n.PoetSchedule(p), p.PoetGrace
	for i, kind := range w.opts.Clients {
		key, err := signing.NewSigner(signing.SeedFrom(clientSeed(i)), n.ID())
		if err != nil {
			panic(err)
		}
		w.clients = append(w.clients, &client{w: w, name: clientSeed(i), kind: kind, key: key})
	}
	for i, kind := range append([]string{"honest"}, w.opts.Poets...) {
		w.poets = append(w.poets, newPoet(w, i, kind))
	}
	w.start = w.cfg.Schedule.EpochStart(w.first()).Add(-time.Second)
	w.now = w.start
}

// last is the last whole epoch of the run.
func (w *world) last() types.Epoch { return w.first() + types.Epoch(w.opts.Epochs) + 1 + w.more }

// end is when the run ends: the last layer had its time.
func (w *world) end() time.Time {
	return w.cfg.Schedule.EpochStart(w.last() + 1).Add(w.cfg.Schedule.LayerDuration)
}

// first is the epoch in which the run begins.
func (w *world) first() types.Epoch { return types.Epoch(w.opts.Age) }

// after has something done later.
func (w *world) after(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

func (w *world) at(t time.Time, do func()) {
	if t.Before(w.now) {
		t = w.now
	}
	w.push(event{at: t.Sub(w.start), do: do})
}

func (w *world) push(e event) {
	w.seq++
	e.seq = w.seq
	if w.opts.grain > 0 {
		if e.at = w.opts.grain * time.Duration(w.grains(e.at)); e.to != nil {
			e.of = e.to.i
		}
	}
	w.queue.push(e)
}

// grains is the step in which something comes that is due at a time.
func (w *world) grains(at time.Duration) int32 {
	return int32((at + w.opts.grain - 1) / w.opts.grain)
}

// latency draws how long a message takes: most near the mean, few much longer.
func (w *world) latency() time.Duration {
	d := w.faults.Latency/2 + time.Duration(w.rng.Int64N(int64(w.faults.Latency)+1))
	if w.rng.IntN(50) == 0 {
		d *= time.Duration(1 + w.rng.IntN(10))
	}
	return d
}

func (w *world) lost() bool { return w.faults.Loss > 0 && w.rng.Float64() < w.faults.Loss }

// people makes the nodes: smeshers first, then the strangers.
func (w *world) people() {
	for i := range w.opts.Nodes {
		n := w.add(i, w.key(fmt.Sprint("smesher ", i)))
		n.units = uint32(2 + w.rng.IntN(3))
		if i < len(w.opts.Hostile) {
			// Of at least six nodes, so many at two units are at most a fifth.
			n.units = 2
			n.bad = newStrategy(w.opts.Hostile[i])
			if w.opts.Hostile[i] == "twins" {
				w.twin(n)
			}
		}
	}
	for i := range w.opts.Several { // honest ones, and such as come late
		n := w.nodes[w.opts.Nodes-1-i]
		for j := range 1 + i%2 {
			num := w.opts.Nodes + 2*i + j
			n.smeshes(w.key(fmt.Sprint("smesher ", num)), num)
		}
	}
	for _, name := range w.opts.Strangers {
		n := w.add(len(w.nodes), nil)
		n.bad = newStrategy(name)
	}
}

func (w *world) key(name string) core.Identity {
	if w.opts.RealKeys {
		s, err := signing.NewSigner(signing.SeedFrom(name), w.cfg.Activation.Network)
		if err != nil {
			panic(err)
		}
		return s
	}
	return cheapKey(types.Sum([]byte(name)))
}

func (w *world) crypto(n *node, i int) core.Crypto {
	s := space{
		seed: binary.LittleEndian.AppendUint64(nil, w.opts.Seed<<8|uint64(i)), network: w.cfg.VM.Network,
		state: func() vm.State { return n.store.tip().state },
	}
	if w.opts.RealKeys {
		return real{signing.NewVerifier(w.cfg.Activation.Network), s}
	}
	return cheap{s}
}

func (w *world) add(i int, key core.Identity) *node {
	n := &node{w: w, i: len(w.nodes), peer: core.Peer(fmt.Sprintf("n%02d", len(w.nodes))), key: key, store: newMemory(w.cfg.VM, w.sums)}
	n.crypto = w.crypto(n, i)
	if key != nil {
		n.smeshes(nil, n.i)
	}
	n.skew = time.Duration(w.rng.Int64N(int64(2*w.faults.Skew)+1)) - w.faults.Skew
	w.nodes = append(w.nodes, n)
	w.byPeer[n.peer] = n
	boot := w.start.Add(time.Duration(w.rng.IntN(900)) * time.Millisecond)
	if i < w.opts.Nodes && i >= w.opts.Nodes-w.opts.Late {
		boot = w.cfg.Schedule.EpochStart(w.first() + types.Epoch(max(4, w.opts.Epochs*3/4))).Add(time.Second)
	}
	w.at(boot, n.boot)
	return n
}

// smeshes gives a node one more identity; nil is that of the node.
func (n *node) smeshes(key core.Identity, num int) {
	n.smeshers = append(n.smeshers, &smesher{
		n: n, key: key, num: num, made: make(map[types.Epoch]types.ATXID), receipts: make(map[registered]types.PoetReceipt),
	})
}

// twin gives a smesher's key to a second node: both are honest cores, which
// nobody told of each other.
func (w *world) twin(n *node) {
	t := w.add(n.i, n.key)
	t.bad, t.twin = newStrategy("twins"), n
}

// connect draws who is connected to whom: a ring, so that the honest are one
// network, and some more; strangers are connected to most.
func (w *world) connect() {
	link := func(a, b *node) {
		if a != b && !slices.Contains(a.links, b) {
			a.links, b.links = append(a.links, b), append(b.links, a)
		}
	}
	honest := w.honest()
	for i, n := range honest {
		link(n, honest[(i+1)%len(honest)])
		link(n, honest[(i+2)%len(honest)])
		for range 2 {
			link(n, honest[w.rng.IntN(len(honest))])
		}
	}
	for _, n := range w.nodes {
		if n.bad == nil {
			continue
		}
		for _, o := range honest {
			if w.rng.IntN(3) > 0 || n.key != nil {
				link(n, o)
			}
		}
	}
}

func (w *world) honest() (out []*node) {
	for _, n := range w.nodes {
		if n.bad == nil {
			out = append(out, n)
		}
	}
	return out
}

// weather places the crashes and partitions. The last two epochs are calm.
func (w *world) weather() {
	s := w.cfg.Schedule
	last := w.first() + types.Epoch(w.opts.Epochs)
	w.calm = s.First(last) + 1
	length := s.EpochStart(last).Sub(w.start)
	honest := w.honest()
	for range w.faults.Crashes {
		n := honest[w.rng.IntN(len(honest))]
		w.at(w.start.Add(time.Duration(w.rng.Int64N(int64(length)))), func() { n.crash(w.rng.IntN(2) == 0) })
	}
	for range w.faults.Crashes { // and of honest PoETs, one for each
		p := w.poets[w.rng.IntN(len(w.poets))]
		w.at(w.start.Add(time.Duration(w.rng.Int64N(int64(length)))), p.start)
	}
	for range w.faults.Splits {
		// Not while ATXs are published: that is the one split that honest nodes
		// cannot tell from the end of the others.
		e := w.first() + types.Epoch(1+w.rng.IntN(max(w.opts.Epochs-1, 1)))
		at := s.EpochStart(e).Add(s.EpochDuration() / 2)
		out := make(map[*node]bool)
		for _, n := range honest[:len(honest)/4] {
			out[n] = true
		}
		w.at(at, func() { w.split(out) })
		w.at(at.Add(s.EpochDuration()/4), func() { w.split(nil) })
	}
}

// split cuts nodes off from the others; nil ends it.
func (w *world) split(out map[*node]bool) {
	w.cut = nil
	if out != nil {
		w.cut = func(a, b *node) bool { return out[a] != out[b] }
	}
	for _, n := range w.nodes {
		n.meet()
	}
}

func (w *world) poet(name string) *poet {
	return w.poets[slices.IndexFunc(w.poets, func(p *poet) bool { return p.name == name })]
}

// epoch schedules what users and adversaries do in an epoch.
func (w *world) epoch(e types.Epoch) {
	s := w.cfg.Schedule
	for l := s.First(e); l < s.First(e+1); l++ {
		w.at(s.LayerStart(l).Add(s.LayerDuration/3), func() { w.layer(l) })
	}
}

// layer is what happens once a layer: a user pays, adversaries act.
func (w *world) layer(l types.Layer) {
	if l+1 >= w.cfg.Schedule.FirstBallotLayer() {
		w.pay()
		for _, c := range w.clients {
			c.layer()
		}
	}
	for _, n := range w.nodes {
		if n.bad != nil && n.up {
			n.bad.layer(n, l)
		}
	}
}

// pay sends a transaction of the rich account to some node.
func (w *world) pay() {
	tx := vm.Spawn(w.rich, 0, 1)
	if w.nonce > 0 {
		tx = vm.Spend(w.rich, types.Address{23: byte(w.nonce)}, 1+w.nonce, w.nonce, 1)
	}
	honest := w.honest()
	if n := honest[w.rng.IntN(len(honest))]; n.up {
		if m, err := w.message(core.TopicTx, tx).check(n.crypto); err == nil {
			w.nonce++
			n.step(core.Heard{From: core.Self, Message: m})
		}
	}
}

// logf adds a line to the transcript, and to the digest.
func (w *world) logf(n *node, format string, args ...any) {
	who := "-"
	if n != nil {
		who = string(n.peer)
		if n.bad != nil {
			who += "!"
		}
	}
	w.line = fmt.Appendf(w.line[:0], "%9.3f %-5s ", w.now.Sub(w.cfg.Schedule.Genesis).Seconds(), who)
	w.line = append(fmt.Appendf(w.line, format, args...), '\n')
	_, _ = w.digest.Write(w.line) // a hash never fails to write
	if w.opts.Transcript != nil {
		_, _ = w.opts.Transcript.Write(w.line) // the reader has gone; the run goes on
	}
}

// violated notes a broken invariant.
func (w *world) violated(n *node, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	w.logf(n, "VIOLATED: %s", line)
	if len(w.result.Violations) < 20 {
		who := ""
		if n != nil {
			who = string(n.peer) + ": "
		}
		w.result.Violations = append(w.result.Violations, who+line)
	}
}
