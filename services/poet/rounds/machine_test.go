package rounds

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/values/types"
)

var epoch = types.PoetSchedule{
	Genesis: time.Unix(1000, 0), EpochDuration: 100 * time.Second, PhaseShift: 30 * time.Second, CycleGap: 10 * time.Second,
}

func at(seconds int) time.Time { return epoch.Genesis.Add(time.Duration(seconds) * time.Second) }

// The life of a round, step by step, as a reader can follow it.
func TestMachineRound(t *testing.T) {
	m := NewMachine(epoch, nil, 0, nil)
	steps := []struct {
		second int
		in     Input
		want   string
	}{
		{0, nil, "timer 30"},
		{29, nil, "timer 30"},
		{30, nil, "write {0 closed} open 1, timer 130, seal 0, round_closed 0, round_opened 1"},
		{31, Sealed{0, [32]byte{9}, 5}, "write {0 executing} open 1, timer 130, execute 0 from 30 to 120, round_executing 0"},
		{40, Sealed{0, [32]byte{8}, 6}, "timer 130"}, // not twice
		{125, ProofMade{Round: 0, Proof: types.PoetProof{NumLeaves: 777}}, "write proof {0 proved} of 777 leaves, timer 130, round_proved 0"},
		{126, ProofMade{Round: 0, Proof: types.PoetProof{NumLeaves: 778}}, "timer 130"}, // not twice
		{130, nil, "write {1 closed} open 2, timer 230, seal 1, round_closed 1, round_opened 2"},
		{131, Sealed{1, [32]byte{}, 0}, "write {1 executing} open 2, timer 230, execute 1 from 130 to 220, round_executing 1"},
		// Round 1 is slow: it is told once, and stays until it is proved.
		{230, nil, "write {2 closed} open 3, timer 330, seal 2, round_closed 2, round_opened 3, proof_overdue 1"},
		{231, nil, "timer 330"},
		// Long sleep: rounds 3 to 6 were missed, but 3 took registrations.
		{777, nil, "write {3 closed} open 8, timer 830, seal 3, round_closed 3, round_opened 8, proof_overdue 2, proof_overdue 3"},
		{778, ProofMade{Round: 1, Proof: types.PoetProof{NumLeaves: 1}}, "write proof {1 proved} of 1 leaves, timer 830, round_proved 1"},
		{779, ProofMade{Round: 2, Proof: types.PoetProof{NumLeaves: 1}}, "timer 830"}, // not sealed: nobody can have proved it
	}
	for _, s := range steps {
		if got := show(m.Step(at(s.second), s.in)); got != s.want {
			t.Fatalf("second %d, %+v:\n got %s\nwant %s", s.second, s.in, got, s.want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("an input of another kind is our own mistake and must panic")
		}
	}()
	m.Step(at(800), "nonsense")
}

// show prints an output in the order in which it must be done.
func show(out Output) (s string) {
	add := func(format string, args ...any) {
		if s != "" {
			s += ", "
		}
		s += fmt.Sprintf(format, args...)
	}
	second := func(t time.Time) int { return int(t.Sub(epoch.Genesis).Seconds()) }
	for _, w := range out.Writes {
		switch w := w.(type) {
		case WriteRound:
			add("write {%d %s} open %d", w.Round.Number, w.Round.State, w.Open)
		case WriteProof:
			add("write proof {%d %s} of %d leaves", w.Round.Number, w.Round.State, w.Round.Leaves)
		}
	}
	add("timer %d", second(out.Timer))
	for _, w := range out.Work {
		switch w := w.(type) {
		case Seal:
			add("seal %d", w.Round)
		case Execute:
			add("execute %d from %d to %d", w.Job.Round, second(w.Job.Start), second(w.Job.End))
		}
	}
	for _, e := range out.Events {
		add("%s %s", e.Kind, e.Round)
	}
	return s
}

// world is a server around a machine in virtual time: a disk that holds what was
// written, work that takes a drawn time, crashes and clocks that jump.
type world struct {
	t      *testing.T
	r      *rand.Rand
	now    time.Time
	m      *Machine
	stored map[uint32]book.Round
	open   uint32
	work   []pendingWork // of this life
	late   []Write       // writes that wait for room
	taken  map[uint32]bool
	proofs []uint32
	digest uint64
}

type pendingWork struct {
	ready time.Time
	in    Input
}

func (w *world) restart() {
	var rounds []book.Round
	for n := range uint32(200) {
		if r, ok := w.stored[n]; ok {
			rounds = append(rounds, r)
		}
	}
	w.m, w.work, w.late = NewMachine(epoch, rounds, w.open, slices.Collect(maps.Keys(w.taken))), nil, nil
}

func (w *world) step(in Input, full bool) {
	before := w.m.Open()
	out := w.m.Step(w.now, in)
	h := fnv.New64a()
	fmt.Fprint(h, w.digest, show(out))
	w.digest = h.Sum64()
	if w.m.Open() < before {
		w.t.Fatalf("open round went back from %d to %d", before, w.m.Open())
	}
	w.late = append(w.late, out.Writes...)
	for len(w.late) > 0 && !full {
		w.write(w.late[0])
		w.late = w.late[1:]
	}
	for _, work := range out.Work {
		ready := w.now.Add(time.Duration(w.r.IntN(150)) * time.Second)
		switch work := work.(type) {
		case Seal:
			// A round may be sealed only once nobody can join it.
			if work.Round >= w.m.Open() {
				w.t.Fatalf("round %d is sealed while it is open", work.Round)
			}
			w.work = append(w.work, pendingWork{ready, Sealed{work.Round, [32]byte{byte(work.Round), 1}, 7}})
		case Execute:
			if work.Job.Statement != ([32]byte{byte(work.Job.Round), 1}) {
				w.t.Fatalf("round %d executes for another statement", work.Job.Round)
			}
			w.work = append(w.work, pendingWork{ready.Add(time.Second), ProofMade{Round: work.Job.Round, Proof: types.PoetProof{NumLeaves: 200}}})
		}
	}
	if in == nil && !out.Timer.After(w.now) {
		w.t.Fatalf("timer of the past: %s at %s", out.Timer, w.now)
	}
}

func (w *world) write(one Write) {
	switch one := one.(type) {
	case WriteRound:
		if old, ok := w.stored[one.Round.Number]; ok && old.State >= one.Round.State {
			w.t.Fatalf("round %d goes from %s to %s", one.Round.Number, old.State, one.Round.State)
		}
		w.stored[one.Round.Number], w.open = one.Round, one.Open
	case WriteProof:
		w.stored[one.Round.Number] = one.Round
		w.proofs = append(w.proofs, one.Round.Number)
	}
}

// run lives through some epochs with what the seed draws, then in peace, and
// returns a digest of all that happened.
func (w *world) run() uint64 {
	for range 400 {
		if w.r.IntN(3) == 0 {
			w.taken[w.m.Open()] = true // a registration
		}
		switch w.r.IntN(20) {
		case 0:
			w.restart() // crash: what was not written is gone
		case 1:
			w.now = w.now.Add(-time.Duration(w.r.IntN(60)) * time.Second) // clock set back
		case 2:
			w.now = w.now.Add(time.Duration(w.r.IntN(500)) * time.Second)
		default:
			w.now = w.now.Add(time.Duration(w.r.IntN(20)) * time.Second)
		}
		full := w.r.IntN(8) == 0
		w.step(nil, full)
		for i := 0; i < len(w.work); i++ {
			if one := w.work[i]; !one.ready.After(w.now) {
				w.work = append(w.work[:i:i], w.work[i+1:]...)
				w.step(one.in, full)
				i = -1
			}
		}
	}
	last := w.m.Open()
	for range 100 {
		w.now = w.now.Add(30 * time.Second)
		w.step(nil, false)
		for len(w.work) > 0 {
			one := w.work[0]
			w.work = w.work[1:]
			w.step(one.in, false)
		}
	}
	for n := range w.taken {
		if n < last && w.stored[n].State != poet.StateProved {
			w.t.Fatalf("round %d took registrations and is %s", n, w.stored[n].State)
		}
	}
	return w.digest
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 0)), now: epoch.Genesis, stored: map[uint32]book.Round{}, taken: map[uint32]bool{}}
	w.restart()
	return w
}

// Whatever crashes, fills the disk and turns the clock: every round that took a
// registration is proved, states only go forward, and a seed gives the same run.
func TestMachineUnderFaults(t *testing.T) {
	seeds := uint64(100)
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		seeds = 20_000
	}
	for seed := range seeds {
		a := newWorld(t, seed).run()
		if seed%20 == 0 && newWorld(t, seed).run() != a {
			t.Fatalf("seed %d gave two different runs", seed)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
