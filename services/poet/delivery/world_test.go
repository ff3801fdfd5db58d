package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tweedle/services/poet"
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
	hides          // keeps a proof and gives it back, but hands it to no peer
	manners        // how many there are
)

var network = types.GenesisID{1}

type fakeNode struct {
	id     string
	manner manner
	flaps  time.Duration // swaps honest and refuses in turns of this length
	kept   map[types.PoetProofRef]bool
	jams   string   // the round whose proof it takes and fails to give back
	got    []string // rounds, in the order of first arrival
}

func (n *fakeNode) mannerAt(now time.Time) manner {
	if n.flaps > 0 && (now.UnixNano()/int64(n.flaps))%2 == 1 {
		return refuses
	}
	return n.manner
}

// answer is what a node replies to a call, and false if it never does.
func (n *fakeNode) answer(c Call, now time.Time) (Result, bool) {
	r := Result{Call: c}
	switch n.mannerAt(now) {
	case refuses:
		r.Err = errors.New("connection refused")
		return r, true
	case stalls:
		return r, false
	}
	if c.Round == "" {
		r.Health = Health{ID: n.id, Genesis: network, Synced: true, Peers: 4}
		if n.manner == unfit {
			r.Health.Peers = 0
		}
		return r, true
	}
	r.Ref = refOf(c.Round)
	switch n.manner {
	case deaf:
		return r, false
	case invalid:
		r.Err = fmt.Errorf("%w: bad leaf", errRejected)
		return r, true
	case honest, hides:
		if !n.kept[r.Ref] {
			n.got = append(n.got, c.Round)
		}
		n.kept[r.Ref] = true
	}
	switch {
	case n.manner == hides:
		r.Err = errors.New("handed the proof to 0 peers, 1 are needed")
	case !n.kept[r.Ref]:
		r.Err = errLied
	case c.Round == n.jams:
		r.Err = fmt.Errorf("%w: internal error", errUnsure)
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
	ahead   time.Duration // of the clock that is believed
	shelf   map[string]Due
	broken  map[string]bool // rounds that cannot be read now
	flights []flight
	events  []poet.Event
	saved   Saved
	line    []string // gateways of the command line
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
	w := &world{t: t, m: &Machine{cfg: cfg}, nodes: map[string]*fakeNode{}, rng: rand.New(rand.NewPCG(cfg.Seed, 7)), now: time.Unix(1e9, 0), shelf: map[string]Due{}}
	w.restart()
	return w
}

// date is the hour that is believed.
func (w *world) date() time.Time { return w.now.Add(w.ahead) }

// configure starts with gateways of the command line.
func (w *world) configure(addrs ...string) {
	w.line = addrs
	w.restart()
}

func (w *world) setGateways(addrs []string) {
	w.t.Helper()
	if err := w.m.SetGateways(addrs, w.now); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) addGateway(addr string) {
	w.t.Helper()
	w.setGateways(append(w.m.addresses(), addr))
}

func (w *world) find(addr string) *gateway {
	for _, g := range w.m.gateways {
		if g.Addr == addr {
			return g
		}
	}
	return nil
}

func (w *world) node(m manner) string {
	name := fmt.Sprintf("10.0.0.%d:9", len(w.nodes)+1)
	w.nodes[name] = &fakeNode{id: "id-" + name, manner: m, kept: map[types.PoetProofRef]bool{}}
	return name
}

func testProof(round string) types.PoetProofMessage {
	m := types.PoetProofMessage{RoundID: round}
	m.Proof.Root = types.Sum([]byte(round))
	m.Proof.Leaves = []types.Hash32{m.Proof.Root}
	return m
}

func refOf(round any) types.PoetProofRef {
	m := testProof(fmt.Sprint(round))
	return m.Proof.Ref()
}

// add stores a proof; it is found at the next look.
func (w *world) add(round int, useful time.Duration) {
	d := Due{Round: fmt.Sprint(round), UsefulUntil: w.now.Add(useful)}
	w.shelf[d.Round] = d
	w.look()
}

// look finds what is on the shelf, as the driver does.
func (w *world) look() {
	w.m.Due(slices.DeleteFunc(slices.Collect(maps.Values(w.shelf)), func(d Due) bool { return !w.date().Before(d.UsefulUntil) }), w.now)
}

// save is the driver's part: what a database would keep, if the disk takes it.
func (w *world) save() {
	if w.m.dirty && w.rng.IntN(100) >= w.faulty {
		b, err := json.Marshal(w.m.saved())
		w.saved = Saved{}
		if err := errors.Join(err, json.Unmarshal(b, &w.saved)); err != nil {
			w.t.Fatal(err)
		}
		w.m.dirty = false
	}
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for {
		out := w.m.Step(w.now, w.date())
		w.events = append(w.events, out.Events...)
		w.save()
		for _, c := range out.Calls {
			w.launch(c)
		}
		next := end
		if out.Wake.Before(next) {
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
		if f.r.Call.to == c.to {
			w.t.Fatalf("two calls at a time for %s", c.Addr)
		}
	}
	r, answers := w.nodes[c.Addr].answer(c, w.now)
	if w.broken[c.Round] {
		r, answers = Result{Call: c, Err: fmt.Errorf("%w: damaged", errUnreadable)}, true
	}
	takes := time.Duration(w.rng.Int64N(int64(50*time.Millisecond) + 1))
	switch {
	case !answers && c.Round == "":
		r.Err, takes = errors.New("deadline exceeded"), probeTimeout
	case !answers:
		r.Err, takes = errors.New("deadline exceeded"), callTimeout
	case r.Err == nil && c.Round != "":
		takes += fetchDelay
	}
	at := w.now.Add(takes)
	w.flights = append(w.flights, flight{at, r})
	slices.SortStableFunc(w.flights, func(a, b flight) int { return a.at.Compare(b.at) })
}

// restart goes on with what was saved; calls in flight are lost.
func (w *world) restart() {
	w.flights = nil
	w.m = NewMachine(w.m.cfg, w.saved, w.line, w.now, w.date())
	w.look()
}

func (w *world) count(k poet.EventKind) (n int) {
	for _, e := range w.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

func (w *world) state(round int) string {
	for _, r := range w.m.Proofs(w.date()) {
		if r.Round == fmt.Sprint(round) {
			return r.State
		}
	}
	return "absent"
}

func (w *world) wantState(round int, want string) {
	w.t.Helper()
	if got := w.state(round); got != want {
		w.t.Fatalf("round %d is %s, want %s\nevents: %v\nproofs: %+v\ngateways: %+v", round, got, want, w.events, w.m.Proofs(w.date()), w.m.Gateways())
	}
}

// rebroadcast is what the operator asks for.
func (w *world) rebroadcast(round int) {
	w.m.Rebroadcast(fmt.Sprint(round), refOf(round), w.now, w.date())
}
