package delivery

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// manner is how a simulated gateway treats us.
type manner int

const (
	honest  manner = iota
	refuses        // connection refused
	stalls         // never answers
	lies           // acknowledges and drops
	unfit          // answers, but has no peers
	invalid        // calls every proof invalid
	deaf           // healthy, but pushes and fetches hang
	manners        // how many there are
)

var network = types.GenesisID{1}

type fakeNode struct {
	id     string
	manner manner
	flaps  time.Duration // swaps honest and refuses in turns of this length
	told   []string
	kept   map[types.PoetProofRef][]byte
	got    []string // rounds, in the order of first arrival
}

func (n *fakeNode) mannerAt(now time.Time) manner {
	if n.flaps > 0 && (now.UnixNano()/int64(n.flaps))%2 == 1 {
		return refuses
	}
	return n.manner
}

// answer is what a node replies to a call, and false if it never does.
func (n *fakeNode) answer(c Call, round string, ref types.PoetProofRef, now time.Time) (Result, bool) {
	r := Result{Call: c}
	switch n.mannerAt(now) {
	case refuses:
		r.Err = errors.New("connection refused")
		return r, true
	case stalls:
		return r, false
	}
	if n.manner == deaf && c.Kind != CallCheck {
		return r, false
	}
	switch c.Kind {
	case CallCheck:
		r.Health = Health{ID: n.id, Genesis: network, Synced: true, Peers: 4, Told: n.told}
		if n.manner == unfit {
			r.Health.Peers = 0
		}
	case CallPush:
		if n.manner == invalid {
			r.Err = fmt.Errorf("%w: bad leaf", ErrRejected)
			return r, true
		}
		_, known := n.kept[ref]
		if n.manner == honest {
			n.kept[ref] = c.Data
			if !known {
				n.got = append(n.got, round)
			}
		}
		r.Ack = Ack{Ref: ref, Known: known, Validated: true, Stored: true, Peers: 4}
	case CallFetch:
		if _, ok := n.kept[c.Ref]; !ok {
			r.Err = ErrMissing
		}
	}
	return r, true
}

// world runs a Machine against simulated nodes in virtual time.
type world struct {
	t       *testing.T
	m       *Machine
	nodes   map[string]*fakeNode
	rng     *rand.Rand
	now     time.Time
	flights []flight
	events  []Event
	saved   Saved
	// faulty is how many of a hundred saves fail.
	faulty int
}

type flight struct {
	at time.Time
	r  Result
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	cfg.Genesis = network
	w := &world{t: t, nodes: map[string]*fakeNode{}, rng: rand.New(rand.NewPCG(cfg.Seed, 7)), now: time.Unix(1e9, 0), saved: Saved{Data: map[uint64][]byte{}}}
	w.m = NewMachine(cfg, Saved{}, w.now)
	return w
}

func (w *world) node(m manner) string {
	name := fmt.Sprintf("10.0.0.%d:9", len(w.nodes)+1)
	w.nodes[name] = &fakeNode{id: "id-" + name, manner: m, kept: map[types.PoetProofRef][]byte{}}
	return name
}

func testProof(round int, until time.Time) Proof {
	m := types.PoetProofMessage{RoundID: fmt.Sprint(round)}
	m.Proof.Root = types.Sum([]byte{byte(round), byte(round >> 8)})
	m.Proof.Leaves = []types.Hash32{m.Proof.Root}
	return Proof{Round: m.RoundID, Ref: m.Proof.Ref(), Data: codec.Encode(&m), UsefulUntil: until}
}

func (w *world) add(round int, useful time.Duration) {
	w.t.Helper()
	for { // as a caller does who was told that nothing was kept
		if err := w.m.AddProof(testProof(round, w.now.Add(useful)), w.now); err != nil {
			w.t.Fatal(err)
		}
		if w.save(w.m.changes()) {
			return
		}
	}
}

// save is the driver's part; it tells whether the disk took the changes.
func (w *world) save(c *Changes) bool {
	if c == nil {
		return true
	}
	if w.rng.IntN(100) < w.faulty {
		return false
	}
	w.apply(c)
	w.m.Persisted(c)
	return true
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for {
		out := w.m.Step(w.now)
		w.events = append(w.events, out.Events...)
		w.save(out.Save)
		for _, c := range out.Calls {
			w.launch(c)
		}
		next := end
		if !out.Wake.IsZero() && out.Wake.Before(next) {
			next = out.Wake
		}
		if len(w.flights) > 0 && w.flights[0].at.Before(next) {
			next = w.flights[0].at
		}
		if next.After(w.now) {
			w.now = next
		}
		var landed bool
		for len(w.flights) > 0 && !w.flights[0].at.After(w.now) {
			r := w.flights[0].r
			w.flights = w.flights[1:]
			w.m.Done(r, w.now)
			landed = true
		}
		if !landed && !w.now.Before(end) {
			return
		}
	}
}

func (w *world) launch(c Call) {
	w.t.Helper()
	for _, f := range w.flights {
		if f.r.Call.Seat == c.Seat {
			w.t.Fatalf("two calls at a time for %s", c.Addr)
		}
	}
	var round string
	ref := c.Ref
	if c.Kind == CallPush {
		it := w.m.find(c.Seq)
		round, ref = it.Round, it.Ref
	}
	r, answers := w.nodes[c.Addr].answer(c, round, ref, w.now)
	at := w.now.Add(time.Duration(w.rng.Int64N(int64(50*time.Millisecond) + 1)))
	if !answers {
		r.Err, at = errors.New("deadline exceeded"), w.now.Add(c.Timeout)
	}
	w.flights = append(w.flights, flight{at, r})
	slices.SortStableFunc(w.flights, func(a, b flight) int { return a.at.Compare(b.at) })
}

// apply keeps what a database would keep.
func (w *world) apply(c *Changes) {
	if c.Pool != nil {
		w.saved.Pool = *c.Pool
	}
	for _, r := range c.Records {
		w.saved.Proofs = slices.DeleteFunc(w.saved.Proofs, func(o Record) bool { return o.Seq == r.Seq })
		w.saved.Proofs = append(w.saved.Proofs, r)
	}
	for seq, d := range c.Data {
		w.saved.Data[seq] = d
	}
	for _, seq := range slices.Concat(c.Drop, c.Forget) {
		delete(w.saved.Data, seq)
	}
	for _, seq := range c.Forget {
		w.saved.Proofs = slices.DeleteFunc(w.saved.Proofs, func(o Record) bool { return o.Seq == seq })
	}
	slices.SortFunc(w.saved.Proofs, func(a, b Record) int { return int(a.Seq) - int(b.Seq) })
}

// restart goes on with what was saved; calls in flight are lost.
func (w *world) restart() {
	w.flights = nil
	w.m = NewMachine(w.m.cfg, w.saved, w.now)
}

func (w *world) count(k EventKind) (n int) {
	for _, e := range w.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

func (w *world) state(round int) string {
	for _, r := range w.m.Proofs() {
		if r.Round == fmt.Sprint(round) {
			return r.State
		}
	}
	return "absent"
}

func (w *world) wantState(round int, want string) {
	w.t.Helper()
	if got := w.state(round); got != want {
		w.t.Fatalf("round %d is %s, want %s\nevents: %v\nproofs: %+v\ngateways: %+v", round, got, want, w.events, w.m.Proofs(), w.m.Gateways())
	}
}

func TestAProofIsDeliveredWhenTwoGatewaysKeepIt(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.m.Configure([]string{w.node(honest), w.node(honest)}, w.now)
	w.add(0, time.Hour)
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
	if len(w.saved.Data) != 0 {
		t.Fatal("the data of a delivered proof is still in the outbox")
	}
}

func TestAProofThatNobodyCanTakeIsReported(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.add(0, time.Hour)
	w.run(30 * time.Minute)
	if n := w.count(NoCandidates); n != 1 {
		t.Fatalf("reported %d times, want once", n)
	}
	w.m.SetGateways([]string{w.node(honest), w.node(honest)}, w.now)
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
}

func TestMissingGatewaysAreReportedOnceWhileOthersComeAndGo(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a := w.node(honest)
	w.nodes[a].flaps = 20 * time.Second
	w.m.Configure([]string{a, w.node(honest), w.node(refuses)}, w.now)
	w.run(30 * time.Minute)
	if n := w.count(NoCandidates); n != 1 {
		t.Fatalf("reported %d times, want once", n)
	}
}

func TestOneGatewayIsNotEnough(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.m.Configure([]string{w.node(honest), w.node(refuses)}, w.now)
	w.add(0, time.Hour)
	w.run(10 * time.Minute)
	w.wantState(0, Pending)
}

func TestTwoAddressesOfOneGatewayAreOneGateway(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a, b := w.node(honest), w.node(honest)
	w.nodes[b].id = w.nodes[a].id
	w.m.Configure([]string{a, b}, w.now)
	w.add(0, time.Hour)
	w.run(50 * time.Minute)
	w.wantState(0, Pending)
	w.m.AddGateway(w.node(honest), FromAPI, w.now)
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
}

func TestLiarsAreFoundOut(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.m.Configure([]string{w.node(lies), w.node(lies), w.node(lies)}, w.now)
	w.add(0, time.Hour)
	w.run(time.Minute)
	w.wantState(0, Pending)
	if n := w.count(GatewayLied); n != 3 {
		t.Fatalf("%d liars found, want 3", n)
	}
	if acks := w.m.Proofs()[0].Acks; len(acks) != 0 {
		t.Fatalf("a liar's acknowledgement still counts: %+v", acks)
	}
	w.m.AddGateway(w.node(honest), FromAPI, w.now)
	w.m.AddGateway(w.node(honest), FromAPI, w.now)
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
}

func TestAStalledGatewayDelaysNoOther(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.m.Configure([]string{w.node(stalls), w.node(stalls), w.node(stalls), w.node(honest), w.node(honest)}, w.now)
	w.add(0, time.Hour)
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
}

// A gateway whose checks succeed while its pushes hang must not sit in its
// slot for ever.
func TestAGatewayThatStopsAnsweringPushesIsRecycled(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Acks, cfg.Slots = 1, 1
	w := newWorld(t, cfg)
	w.m.Configure([]string{w.node(deaf)}, w.now)
	w.run(time.Second)
	w.m.AddGateway(w.node(honest), Configured, w.now)
	w.add(0, time.Hour)
	w.run(time.Minute)
	w.wantState(0, Delivered)
	if w.count(GatewayRecycled) != 1 {
		t.Fatalf("recycled %d times, want once: %v", w.count(GatewayRecycled), w.events)
	}
}

func TestAProofThatAGatewayCallsInvalidGoesToTheOthers(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.m.Configure([]string{w.node(invalid), w.node(honest), w.node(honest)}, w.now)
	w.add(0, time.Hour)
	w.add(1, time.Hour)
	w.run(5 * time.Second)
	w.wantState(0, Delivered)
	w.wantState(1, Delivered)
	if n := w.count(BroadcastFailed); n == 0 || n > 2 {
		t.Fatalf("%d failed broadcasts, want one for each proof at most", n)
	}
}

func TestAllDeadAndCandidatesAtHandIsHealedWithin30Seconds(t *testing.T) {
	for _, death := range []manner{refuses, stalls, unfit, lies} {
		for seed := range uint64(20) {
			cfg := DefaultConfig()
			cfg.Seed = seed
			w := newWorld(t, cfg)
			var first, second []string
			for range 5 {
				first = append(first, w.node(honest))
			}
			for range 3 {
				second = append(second, w.node(honest))
			}
			w.m.Configure(first, w.now)
			w.nodes[first[0]].told = second
			w.run(time.Minute)
			for _, a := range first {
				w.nodes[a].manner = death
			}
			w.add(0, time.Hour)
			w.run(30 * time.Second)
			w.wantState(0, Delivered)
			if w.count(GatewayRecycled) < 2 {
				t.Fatalf("death %d, seed %d: delivered with %d recycled slots", death, seed, w.count(GatewayRecycled))
			}
		}
	}
}

func TestGatewaysSetByTheAPIGetEverythingThatWaitedInOrder(t *testing.T) {
	for seed := range uint64(20) {
		cfg := DefaultConfig()
		cfg.Seed = seed
		w := newWorld(t, cfg)
		for range 5 {
			w.m.AddGateway(w.node(refuses), Configured, w.now)
		}
		for round := range 3 {
			w.add(round, 30*24*time.Hour)
			w.run(time.Hour)
		}
		if n := w.count(NoCandidates); n != 1 {
			t.Fatalf("the empty candidate list was reported %d times, want once", n)
		}
		a, b := w.node(honest), w.node(honest)
		w.m.SetGateways([]string{a, b}, w.now)
		w.run(10 * time.Second)
		for round := range 3 {
			w.wantState(round, Delivered)
		}
		for _, n := range []string{a, b} {
			if got := w.nodes[n].got; !slices.Equal(got, []string{"0", "1", "2"}) {
				t.Fatalf("%s received rounds %v, want them in order", n, got)
			}
		}
	}
}

func TestAnExpiredProofIsGivenUpAndReported(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.add(0, time.Minute)
	w.run(time.Minute + time.Second)
	w.wantState(0, Expired)
	if w.count(ProofExpired) != 1 || len(w.saved.Data) != 0 {
		t.Fatalf("events %v, %d data left", w.events, len(w.saved.Data))
	}
	w.m.SetGateways([]string{w.node(honest), w.node(honest)}, w.now)
	if err := w.m.Rebroadcast(testProof(0, w.now.Add(time.Minute)), w.now); err != nil {
		t.Fatal(err)
	}
	w.run(5 * time.Second)
	w.wantState(0, Delivered)
}

func TestConfiguredGatewaysDoNotUndoWhatTheAPISet(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	old, fresh := w.node(refuses), w.node(honest)
	w.m.Configure([]string{old}, w.now)
	w.m.SetGateways([]string{fresh}, w.now)
	w.run(time.Second)
	w.restart()
	if w.m.Configure([]string{old}, w.now) {
		t.Fatal("the command line replaced gateways that the API had set")
	}
	if got := w.m.Gateways(); len(got) != 1 || got[0].Addr != fresh || got[0].Source != FromAPI {
		t.Fatalf("gateways after a restart: %+v", got)
	}
}

func TestRemovedGatewaysAreNotTakenBackFromHearsay(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a, b := w.node(honest), w.node(honest)
	w.nodes[a].told = []string{b}
	w.m.Configure([]string{a}, w.now)
	w.run(time.Second)
	if !w.m.RemoveGateway(b) {
		t.Fatal("a told gateway is not known")
	}
	w.run(time.Hour)
	if w.m.known(b) {
		t.Fatal("a removed gateway came back by hearsay")
	}
	w.m.AddGateway(b, FromAPI, w.now)
	if !w.m.known(b) {
		t.Fatal("a removed gateway cannot be added again")
	}
}

func TestHearsayNeitherGrowsWithoutLimitNorPushesOutOurOwn(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a := w.node(honest)
	w.m.Configure([]string{a}, w.now)
	w.run(time.Second)
	for i := range 10_000 {
		w.m.AddGateway(fmt.Sprintf("10.1.%d.%d:9", i/250, i%250), FromPeer, w.now)
	}
	if n := len(w.m.candidates); n > MaxCandidates {
		t.Fatalf("%d candidates", n)
	}
	own := w.node(honest)
	w.m.AddGateway(own, FromAPI, w.now)
	if c, ok := w.m.takeCandidate(w.now); !ok || c.Addr != own {
		t.Fatalf("the next candidate is %s, want %s, which we chose ourselves", c.Addr, own)
	}
}

func TestTheHistoryIsBounded(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	for i := range 3 * MaxHistory {
		w.add(i, time.Second)
		w.run(2 * time.Second)
	}
	if n := len(w.m.proofs); n > MaxHistory {
		t.Fatalf("%d records", n)
	}
	if n := len(w.saved.Proofs); n > MaxHistory {
		t.Fatalf("%d records saved", n)
	}
	for i := range MaxPending {
		w.add(1000+i, time.Hour)
	}
	if w.m.AddProof(testProof(9999, w.now), w.now) == nil {
		t.Fatal("the outbox has no limit")
	}
}

// Any mix of gateways, failing, flapping and lying, with restarts at random
// moments and saves that fail: what counts as delivered is kept by two honest gateways, every
// gateway gets its proofs in order, and with two honest ones everything is
// delivered in the end.
func TestRandomWorlds(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomWorld(t, seed) })
	}
}

func randomWorld(t *testing.T, seed uint64) {
	cfg := DefaultConfig()
	cfg.Seed = seed
	w := newWorld(t, cfg)
	w.faulty = int(seed%3) * 30
	var all []string
	for range 2 + w.rng.IntN(8) {
		a := w.node(manner(w.rng.IntN(int(manners))))
		if w.rng.IntN(3) == 0 {
			w.nodes[a].flaps = time.Duration(1+w.rng.IntN(30)) * time.Second
		}
		all = append(all, a)
	}
	for range 2 {
		all = append(all, w.node(honest))
	}
	for _, a := range all {
		w.nodes[a].told = all
	}
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	w.m.Configure(all[:1+w.rng.IntN(len(all)-1)], w.now)
	const rounds = 5
	for round := range rounds {
		w.add(round, 24*time.Hour)
		w.run(time.Duration(w.rng.IntN(90)) * time.Second)
		if w.rng.IntN(2) == 0 {
			w.restart()
		}
	}
	w.m.SetGateways(all, w.now)
	w.run(30 * time.Minute)
	for round := range rounds {
		w.wantState(round, Delivered)
		ref := testProof(round, w.now).Ref
		var kept int
		for _, n := range w.nodes {
			if _, ok := n.kept[ref]; ok {
				kept++
			}
		}
		if kept < cfg.Acks {
			t.Fatalf("round %d counts as delivered, but %d nodes keep it", round, kept)
		}
	}
	for addr, n := range w.nodes {
		if !slices.IsSorted(n.got) {
			t.Fatalf("%s received rounds out of order: %v", addr, n.got)
		}
	}
}

func TestTheSameSeedGivesTheSameRun(t *testing.T) {
	run := func() []Event {
		w := newWorld(t, DefaultConfig())
		w.m.Configure([]string{w.node(refuses), w.node(lies), w.node(honest), w.node(stalls), w.node(honest)}, w.now)
		w.add(0, time.Hour)
		w.run(10 * time.Minute)
		return w.events
	}
	if a, b := run(), run(); !slices.Equal(a, b) {
		t.Fatalf("two runs differ:\n%v\n%v", a, b)
	}
}
