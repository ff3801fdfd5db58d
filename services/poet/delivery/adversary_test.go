package delivery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tweedle/services/poet"
)

// live runs until all gateways of honest nodes are live.
func (w *world) live(addrs ...string) {
	w.t.Helper()
	w.configure(addrs...)
	w.run(time.Second)
	for _, g := range w.m.Gateways() {
		if slices.Contains(addrs, g.Addr) && g.State != Live && g.State != Candidate {
			w.t.Fatalf("%s is %s", g.Addr, g.State)
		}
	}
}

func (w *world) record(round int) Record {
	w.t.Helper()
	for _, r := range w.m.Proofs(w.date()) {
		if r.Round == fmt.Sprint(round) {
			return r
		}
	}
	w.t.Fatalf("round %d is absent", round)
	return Record{}
}

// One address, a name that changes from check to check: one node behind a
// balancer, or a liar. It counts once.
func TestAGatewayThatChangesItsNameCountsOnce(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a := w.node(honest)
	w.configure(a)
	w.add(0, time.Hour)
	for i := range 40 {
		w.nodes[a].id = fmt.Sprint("backend-", i%2)
		w.run(5 * time.Second)
		if w.m.proofs[0].distinct() > 1 {
			t.Fatalf("it counts twice: %+v", w.record(0).Keepers)
		}
	}
	w.wantState(0, Pending)
	w.addGateway(w.node(honest))
	w.run(20 * time.Second)
	w.wantState(0, Delivered)
}

// A gateway takes the name of another while that restarts. It drives nobody out:
// the other one is used again as soon as it is back, and both count as one.
func TestAnImpostorDoesNotEvict(t *testing.T) {
	for _, what := range []manner{honest, lies, deaf, invalid, hides} {
		t.Run(fmt.Sprint(what), func(t *testing.T) {
			w := newWorld(t, DefaultConfig())
			a, evil, c := w.node(honest), w.node(what), w.node(honest)
			w.nodes[evil].id = w.nodes[a].id
			w.configure(evil, a, c)
			w.nodes[a].manner = refuses
			w.run(time.Minute)
			w.nodes[a].manner = honest
			w.run(time.Minute)
			if g := w.find(a); g.State != Live {
				t.Fatalf("%s is %s: %s", a, g.State, g.LastError)
			}
			w.add(0, time.Hour)
			w.run(time.Minute)
			w.wantState(0, Delivered)
			if n := w.nodes[a]; len(n.got) != 1 {
				t.Fatalf("%s, whose name was taken, has no proof: %+v", a, w.record(0))
			}
		})
	}
}

// A name that was taken mutes nobody: with the impostor's acknowledgement there,
// the other one is asked too.
func TestTwoGatewaysOfOneNameAreBothOfferedProofsAndCountAsOne(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a, twin := w.node(honest), w.node(honest)
	w.nodes[twin].id = w.nodes[a].id
	w.live(a, twin)
	w.add(0, time.Hour)
	w.run(time.Hour / 2)
	w.wantState(0, Pending)
	if len(w.nodes[a].got) != 1 || len(w.nodes[twin].got) != 1 {
		t.Fatal("one of them was not offered the proof")
	}
	for _, g := range w.m.Gateways() {
		if g.LastError == "" {
			t.Errorf("nothing tells that %s has a twin", g.Addr)
		}
	}
}

// One that acknowledges and tells of no peer is not believed; one that publishes
// nothing and says that it did is one voice of two.
func TestAGatewayThatPublishesNothingIsNotEnough(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.configure(w.node(hides), w.node(hides), w.node(hides))
	w.add(0, time.Hour)
	w.run(30 * time.Minute)
	w.wantState(0, Pending)
	if acks := w.record(0).Keepers; len(acks) != 0 {
		t.Fatalf("%+v", acks)
	}
	w.addGateway(w.node(honest))
	w.run(time.Minute)
	w.wantState(0, Pending)
	w.addGateway(w.node(honest))
	w.run(time.Minute)
	w.wantState(0, Delivered)
}

// All gateways die and come back under other addresses, which are named beyond
// the slots: they take the slots by themselves.
func TestAllDeadThenAliveUnderOtherAddresses(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	var old, other []string
	for range 5 {
		old = append(old, w.node(honest))
		other = append(other, w.node(refuses))
	}
	for i, a := range other {
		w.nodes[a].id = w.nodes[old[i]].id
	}
	w.configure(slices.Concat(old, other)...)
	w.run(time.Minute)
	for _, a := range old {
		w.nodes[a].manner = refuses
	}
	w.add(0, 24*time.Hour)
	w.run(time.Hour)
	w.wantState(0, Pending)
	for _, a := range other {
		w.nodes[a].manner = honest
	}
	w.run(retryMax + fetchDelay + time.Second) // as long as one that came back may stay unnoticed, and the proof then takes
	w.wantState(0, Delivered)
}

// A clock that is ahead for a moment gives up nothing, also when the server
// restarts in that moment.
func TestAGlanceAheadExpiresNothing(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := newWorld(t, DefaultConfig())
		w.add(0, 24*time.Hour)
		w.run(time.Minute)
		w.ahead = 48 * time.Hour
		w.run(time.Second)
		if restart {
			w.restart()
			w.run(time.Second)
		}
		w.wantState(0, Expired)
		w.ahead = 0
		if restart {
			w.restart()
		}
		w.wantState(0, Pending)
		w.setGateways([]string{w.node(honest), w.node(honest)})
		w.run(time.Minute)
		w.wantState(0, Delivered)
	}
}

// When the clock is set back and the server restarts between the handing over and
// the asking, the proof is delivered at once, not in the hour that was.
func TestAClockSetBackDelaysNothing(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a, b := w.node(honest), w.node(honest)
	w.live(a, b)
	w.add(0, 24*time.Hour)
	w.run(500 * time.Millisecond)
	w.wantState(0, Pending)
	w.now = w.now.Add(-10 * time.Hour)
	w.restart()
	w.configure(a, b)
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
}

// A proof that cannot be read is told of, once, and delays no other one.
func TestAProofThatCannotBeReadHoldsUpNoOther(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.live(w.node(honest), w.node(honest))
	w.add(3, time.Hour)
	w.broken = map[string]bool{"3": true}
	w.add(4, time.Hour)
	w.run(5 * time.Minute)
	w.wantState(4, Delivered)
	w.wantState(3, Pending)
	if n := w.count(ProofUnreadable); n != 1 || !strings.Contains(w.record(3).LastError, "damaged") {
		t.Fatalf("told %d times: %+v", n, w.record(3))
	}
	for _, g := range w.m.Gateways() {
		if g.State != Live {
			t.Fatalf("our fault makes %s %s", g.Addr, g.State)
		}
	}
	w.broken = nil
	w.run(time.Minute)
	w.wantState(3, Delivered)
}

// A proof that all slots reject goes to those beyond them.
func TestARejectedProofGoesBeyondTheSlots(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Slots = 2
	w := newWorld(t, cfg)
	x, y := w.node(invalid), w.node(invalid)
	a, b := w.node(honest), w.node(honest)
	w.live(x, y, a, b)
	if s := w.m.Gateways()[2].State; s != Candidate {
		t.Fatalf("a live gateway beyond the slots is %s", s)
	}
	w.add(0, time.Hour)
	w.run(10 * time.Second)
	w.wantState(0, Delivered)
	if n := w.count(BroadcastFailed); n != 2 {
		t.Fatalf("%d failed broadcasts, want one for each", n)
	}
}

// The table at State, line by line.
func TestTheStatesOfAGateway(t *testing.T) {
	type event string
	const (
		passes, fails     event = "a check passes", "a check fails"
		takes, refuseCall event = "a push passes", "a push fails"
		lie               event = "a push shows a lie"
		forgiven          event = "the operator adds it again"
	)
	for _, c := range []struct {
		events []event
		want   State
	}{
		{nil, Suspect},
		{[]event{passes}, Live},
		{[]event{fails}, Suspect},
		{[]event{fails, fails, fails}, Dead},
		{[]event{fails, fails, fails, passes}, Live},
		{[]event{passes, passes}, Live},
		{[]event{passes, fails}, Suspect},
		{[]event{passes, fails, fails}, Suspect},
		{[]event{passes, fails, fails, fails}, Dead},
		{[]event{passes, fails, fails, passes}, Live},
		{[]event{passes, fails, fails, passes, fails}, Suspect}, // a check forgives the failed ones
		{[]event{passes, refuseCall}, Suspect},
		{[]event{passes, refuseCall, passes}, Live},
		{[]event{passes, refuseCall, passes, refuseCall}, Suspect},
		{[]event{passes, refuseCall, passes, refuseCall, passes, refuseCall}, Dead}, // and no failed push
		{[]event{passes, refuseCall, passes, refuseCall, passes, takes, refuseCall}, Suspect},
		{[]event{passes, lie}, Dead},
		{[]event{passes, lie, passes}, Live},
		{[]event{passes, lie, fails}, Dead},
		{[]event{passes, fails, fails, fails, fails}, Dead},
		{[]event{passes, refuseCall, passes, refuseCall, passes, forgiven, refuseCall}, Suspect},
	} {
		w := newWorld(t, DefaultConfig())
		a := w.node(honest)
		w.configure(a)
		w.add(0, time.Hour)
		for _, e := range c.events {
			r := Result{Call: Call{to: w.find(a), Addr: a}}
			switch e {
			case passes, fails:
				r.Health = Health{ID: "a", Genesis: network, Synced: true, Peers: 1}
			case takes, refuseCall, lie:
				r.Call.Round = "0"
			case forgiven:
				w.addGateway(a)
				continue
			}
			if e == fails || e == refuseCall {
				r.Err = errors.New("connection refused")
			}
			if e == lie {
				r.Err = errLied
			}
			w.m.Done(r, w.now)
		}
		if got := w.find(a); got.State != c.want {
			t.Errorf("after %v it is %s, want %s", c.events, got.State, c.want)
		}
	}
}

// As it was in 2020, which drills show: a dead gateway keeps its slot, and who waits for
// one gets nothing until it is named among the first.
func TestADrillCanTakeRecyclingAway(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Slots, cfg.DrillNoRecycle = 2, true
	w := newWorld(t, cfg)
	a, b, c, d := w.node(honest), w.node(honest), w.node(honest), w.node(honest)
	w.live(a, b, c, d)
	w.nodes[a].manner, w.nodes[b].manner = refuses, refuses
	w.run(time.Minute)
	w.add(0, time.Hour)
	w.run(time.Minute)
	w.wantState(0, Pending)
	if n := w.count(GatewayRecycled); n != 0 {
		t.Errorf("%d slots were recycled", n)
	}
	if got := w.m.Gateways(); got[2].State != Candidate || got[3].State != Candidate {
		t.Errorf("without a slot they are %s and %s", got[2].State, got[3].State)
	}
	w.setGateways([]string{c, d})
	w.run(5 * time.Second)
	w.wantState(0, Delivered)
}

// The slot of a gateway that fails is the next live one's, until it is back.
func TestTheSlotOfADeadGateway(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Slots = 2
	w := newWorld(t, cfg)
	a, b, c := w.node(honest), w.node(honest), w.node(honest)
	w.live(a, b, c)
	if n := w.count(GatewayRecycled); n != 0 {
		t.Fatalf("%d slots are taken where none is free: %v", n, w.events)
	}
	w.nodes[a].manner = refuses
	w.run(time.Minute)
	i := slices.IndexFunc(w.events, func(e poet.Event) bool { return e.Kind == GatewayRecycled })
	if i < 0 || w.events[i].Gateway != c || !strings.Contains(w.events[i].Text, a) {
		t.Fatalf("%s does not take the slot: %v", c, w.events)
	}
	w.add(0, time.Hour)
	w.run(time.Minute)
	w.nodes[a].manner = honest
	w.run(time.Minute)
	w.add(1, time.Hour)
	w.run(time.Minute)
	for addr, want := range map[string][]string{a: {"1"}, b: {"0", "1"}, c: {"0"}} {
		if got := w.nodes[addr].got; !slices.Equal(got, want) {
			t.Errorf("%s received %v, want %v", addr, got, want)
		}
	}
	if g := w.m.Gateways()[2]; g.Addr != c || g.State != Candidate {
		t.Fatalf("last is %s, %s", g.Addr, g.State)
	}
}

// One that has a slot for a later proof only waits for the earlier one too.
func TestAGatewayGetsNothingOutOfOrder(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Acks, cfg.Slots = 1, 1
	w := newWorld(t, cfg)
	a, b := w.node(honest), w.node(honest)
	w.live(a, b)
	w.nodes[a].manner = deaf
	w.add(0, time.Hour)
	w.add(1, time.Hour)
	w.m.item("1").later = map[string]time.Time{a: w.now.Add(time.Hour)}
	w.run(time.Minute)
	if got := w.nodes[b].got; !slices.Equal(got, []string{"0", "1"}) {
		t.Fatalf("received %v", got)
	}
}

// What a gateway says after it was removed counts for nothing, also where the same
// address was named again.
func TestARemovedGatewayHasNoVoice(t *testing.T) {
	for _, again := range []bool{false, true} {
		cfg := DefaultConfig()
		cfg.Acks = 1
		w := newWorld(t, cfg)
		a := w.node(honest)
		w.live(a)
		w.add(0, time.Hour)
		out := w.m.Step(w.now, w.date())
		if len(out.Calls) != 1 || out.Calls[0].Round != "0" {
			t.Fatalf("calls %+v", out.Calls)
		}
		w.setGateways(nil)
		if again {
			w.setGateways([]string{a})
		}
		w.m.Done(Result{Call: out.Calls[0], Ref: refOf(0)}, w.now)
		w.wantState(0, Pending)
	}
}
