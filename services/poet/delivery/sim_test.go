package delivery

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tweedle/services/poet"
)

func TestAProofIsDeliveredWhenTwoGatewaysKeepIt(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.configure(w.node(honest), w.node(honest))
	w.add(0, time.Hour)
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
}

func TestAProofThatNobodyCanTakeIsReported(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.add(0, time.Hour)
	w.run(30 * time.Minute)
	if n := w.count(NoCandidates); n != 1 {
		t.Fatalf("reported %d times, want once", n)
	}
	w.setGateways([]string{w.node(honest), w.node(honest)})
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
}

func TestMissingGatewaysAreReportedOnceWhileOthersComeAndGo(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a := w.node(honest)
	w.nodes[a].flaps = 20 * time.Second
	w.configure(a, w.node(honest), w.node(refuses))
	w.run(30 * time.Minute)
	if n := w.count(NoCandidates); n != 1 {
		t.Fatalf("reported %d times, want once", n)
	}
}

func TestOneGatewayIsNotEnough(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.configure(w.node(honest), w.node(refuses))
	w.add(0, time.Hour)
	w.run(10 * time.Minute)
	w.wantState(0, Pending)
}

func TestTwoAddressesOfOneGatewayAreOneGateway(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a, b := w.node(honest), w.node(honest)
	w.nodes[b].id = w.nodes[a].id
	w.configure(a, b)
	w.add(0, time.Hour)
	w.run(50 * time.Minute)
	w.wantState(0, Pending)
	w.addGateway(w.node(honest))
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
}

func TestLiarsAreFoundOut(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.configure(w.node(lies), w.node(lies), w.node(lies))
	w.add(0, time.Hour)
	w.run(time.Minute)
	w.wantState(0, Pending)
	if n := w.count(GatewayDead); n != 3 {
		t.Fatalf("%d liars found, want 3", n)
	}
	if kept := w.record(0).Keepers; len(kept) != 0 {
		t.Fatalf("a liar's acknowledgement counts: %+v", kept)
	}
	w.addGateway(w.node(honest))
	w.addGateway(w.node(honest))
	w.run(3 * time.Second)
	w.wantState(0, Delivered)
}

func TestAStalledGatewayDelaysNoOther(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.configure(w.node(stalls), w.node(stalls), w.node(stalls), w.node(honest), w.node(honest))
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
	w.configure(w.node(deaf))
	w.run(time.Second)
	w.addGateway(w.node(honest))
	w.add(0, time.Hour)
	w.run(time.Minute)
	w.wantState(0, Delivered)
	if w.count(GatewayRecycled) == 0 {
		t.Fatalf("its slot is not recycled: %v", w.events)
	}
}

func TestAProofThatAGatewayCallsInvalidGoesToTheOthers(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	w.configure(w.node(invalid), w.node(honest), w.node(honest))
	w.add(0, time.Hour)
	w.add(1, time.Hour)
	w.run(5 * time.Second)
	w.wantState(0, Delivered)
	w.wantState(1, Delivered)
	if n := w.count(BroadcastFailed); n == 0 || n > 2 {
		t.Fatalf("%d failed broadcasts, want one for each proof at most", n)
	}
}

func TestAProofThatCannotBeGivenBackHoldsUpNoOther(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a, b := w.node(honest), w.node(honest)
	w.nodes[a].jams, w.nodes[b].jams = "0", "0"
	w.configure(a, b)
	w.add(0, time.Hour)
	w.run(10 * time.Second)
	w.add(1, time.Hour)
	w.run(10 * time.Minute)
	w.wantState(0, Pending)
	w.wantState(1, Delivered)
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
			w.configure(slices.Concat(first, second)...)
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
			w.addGateway(w.node(refuses))
		}
		for round := range 3 {
			w.add(round, 30*24*time.Hour)
			w.run(time.Hour)
		}
		if n := w.count(NoCandidates); n != 1 {
			t.Fatalf("the empty candidate list was reported %d times, want once", n)
		}
		a, b := w.node(honest), w.node(honest)
		w.setGateways([]string{a, b})
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
	w.run(time.Minute + 15*time.Second)
	w.wantState(0, Expired)
	if w.count(ProofExpired) != 1 {
		t.Fatalf("events %v", w.events)
	}
	a, b := w.node(honest), w.node(honest)
	w.setGateways([]string{a, b})
	w.run(time.Minute)
	w.wantState(0, Expired)
	w.rebroadcast(0)
	w.run(5 * time.Second)
	w.wantState(0, Delivered)
}

// Whatever became of a proof, the operator can have it sent again, also when the
// server restarts in between, and however old it is.
func TestARebroadcastByHand(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a, b := w.node(honest), w.node(honest)
	w.configure(a, b)
	for round := range 3 {
		w.add(round, time.Hour)
	}
	w.run(10 * time.Second)
	w.wantState(1, Delivered)
	w.run(24 * time.Hour)
	clear(w.nodes[a].kept) // their disks were lost
	clear(w.nodes[b].kept)
	w.nodes[a].manner, w.nodes[b].manner = refuses, refuses
	w.run(time.Minute)
	w.rebroadcast(1)
	w.wantState(1, Pending)
	w.run(time.Minute)
	w.restart()
	w.wantState(1, Pending)
	w.nodes[a].manner, w.nodes[b].manner = honest, honest
	w.run(time.Minute)
	w.wantState(1, Delivered)
	if got := w.nodes[a].got; !slices.Equal(got, []string{"0", "1", "2", "1"}) {
		t.Fatalf("%s received %v", a, got)
	}
}

func TestConfiguredGatewaysDoNotUndoWhatTheAPISet(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	old, fresh := w.node(refuses), w.node(honest)
	w.configure(old)
	w.setGateways([]string{fresh})
	w.run(time.Second)
	w.restart()
	if got := w.m.Gateways(); len(got) != 1 || got[0].Addr != fresh || got[0].Source != FromAPI {
		t.Fatalf("gateways after a restart: %+v", got)
	}
}

// The command line counts until the API has changed the gateways, and then no more.
func TestARemovedGatewayIsNotBroughtBackByTheCommandLine(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	a, b, c := w.node(honest), w.node(honest), w.node(honest)
	w.configure(a)
	w.add(0, time.Hour) // so that something is saved
	w.run(time.Second)
	w.configure(a, b) // and a restart
	if got := w.m.addresses(); !slices.Equal(got, []string{a, b}) {
		t.Fatalf("with another command line: %v", got)
	}
	w.setGateways([]string{a})
	w.run(time.Second)
	w.configure(a, b, c)
	if got := w.m.addresses(); !slices.Equal(got, []string{a}) {
		t.Fatalf("a removed gateway came back: %v", got)
	}
	w.setGateways(nil)
	w.run(time.Second)
	w.restart()
	if got := w.m.addresses(); len(got) != 0 {
		t.Fatalf("with all removed: %v", got)
	}
}

// Nothing can have fewer peers than none: such a setting would refuse every gateway.
func TestACountOfPeersBelowZeroIsRefused(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MinPeers = -1
	if _, err := Open(openDB(t, filepath.Join(t.TempDir(), "delivery.db")), newShelf(), cfg, nil, Options{}); err == nil {
		t.Fatal("it is taken")
	}
}

func TestTheTableIsBounded(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	for i := range MaxGateways {
		w.addGateway(fmt.Sprintf("10.1.0.%d:9", i))
	}
	w.addGateway("10.1.0.0:9") // it is there already
	if err := w.m.SetGateways(append(w.m.addresses(), "10.2.0.1:9"), w.now); !errors.Is(err, ErrAddresses) || !strings.Contains(err.Error(), "limit is 64") {
		t.Fatalf("the table has no limit: %v", err)
	}
	if n := len(w.m.gateways); n != MaxGateways {
		t.Fatalf("%d gateways", n)
	}
}

func TestTheRecordsAreBounded(t *testing.T) {
	w := newWorld(t, DefaultConfig())
	for i := range 2 * MaxRecords {
		w.add(i, time.Second)
		w.run(2 * time.Second)
	}
	if n, saved := len(w.m.proofs), len(w.saved.Records); n > MaxRecords || saved > MaxRecords {
		t.Fatalf("%d records, %d saved", n, saved)
	}
	for i := range 2 * MaxRecords {
		w.rebroadcast(1000 + i)
	}
	if n := len(w.m.proofs); n > MaxRecords {
		t.Fatalf("%d records after many a rebroadcast", n)
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
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	w.configure(all[:1+w.rng.IntN(len(all)-1)]...)
	const rounds = 5
	for round := range rounds {
		w.add(round, 24*time.Hour)
		w.run(time.Duration(w.rng.IntN(90)) * time.Second)
		if w.rng.IntN(2) == 0 {
			w.restart()
		}
	}
	w.setGateways(all)
	w.run(30 * time.Minute)
	for round := range rounds {
		w.wantState(round, Delivered)
		ref := refOf(round)
		var kept int
		for _, n := range w.nodes {
			if n.kept[ref] {
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
	run := func() []poet.Event {
		w := newWorld(t, DefaultConfig())
		w.configure(w.node(refuses), w.node(lies), w.node(honest), w.node(stalls), w.node(honest))
		w.add(0, time.Hour)
		w.run(10 * time.Minute)
		return w.events
	}
	if a, b := fmt.Sprint(run()), fmt.Sprint(run()); a != b {
		t.Fatalf("two runs differ:\n%s\n%s", a, b)
	}
}
