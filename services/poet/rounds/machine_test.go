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

	"tweedle/services/poet/book"
	"tweedle/values/types"
)

var epoch = types.PoetSchedule{
	Genesis: time.Unix(1000, 0), EpochDuration: 100 * time.Second, PhaseShift: 30 * time.Second, CycleGap: 10 * time.Second,
}

func at(seconds int) time.Time { return epoch.Genesis.Add(time.Duration(seconds) * time.Second) }

// newMachine is that of a server which never had a member.
func newMachine(open uint32) *Machine { return NewMachine(epoch, book.State{Open: open}) }

type step struct {
	second int
	in     Input
	want   string
}

// play steps a machine and compares what it says.
func play(t *testing.T, m *Machine, steps []step) {
	t.Helper()
	for _, s := range steps {
		if got := show(m.Step(at(s.second), s.in)); got != s.want {
			t.Fatalf("second %d, %+v:\n got %s\nwant %s", s.second, s.in, got, s.want)
		}
	}
}

// The life of a round, step by step, as a reader can follow it.
func TestMachineRound(t *testing.T) {
	m := newMachine(0)
	play(t, m, []step{
		{0, nil, "timer 30"},
		{29, nil, "timer 30"},
		{30, nil, "open 1, timer 130, seal 0, round_closed 0, round_opened 1"},
		{31, Sealed{0, [32]byte{9}, 5}, "timer 130, execute 0 from 30 to 120, round_executing 0"},
		{40, Sealed{0, [32]byte{8}, 6}, "timer 130"}, // not twice
		{125, Stored{0, 777}, "timer 130, round_proved 0"},
		{126, Stored{0, 778}, "timer 130"}, // not twice
		{130, nil, "open 2, timer 230, seal 1, round_closed 1, round_opened 2"},
		{131, Sealed{1, [32]byte{7}, 2}, "timer 230, execute 1 from 130 to 220, round_executing 1"},
		// Round 1 is slow: it is told once, and stays until it is proved.
		{230, nil, "open 3, timer 330, seal 2, round_closed 2, round_opened 3, proof_overdue 1"},
		{231, nil, "timer 330"},
		// Nobody joined round 2: nobody waits for its proof.
		{232, Sealed{2, [32]byte{}, 0}, "timer 330"},
		// Long sleep: rounds 3 to 6 were missed, but 3 may have registrations.
		{777, nil, "open 8, timer 830, seal 3, round_closed 3, round_opened 8, proof_overdue 3"},
		{778, Stored{1, 1}, "timer 830, round_proved 1"},
		{779, Stored{3, 1}, "timer 830"}, // not sealed: nobody can have proved it
	})
	defer func() {
		if recover() == nil {
			t.Error("an input of another kind is our own mistake and must panic")
		}
	}()
	m.Step(at(800), "nonsense")
}

// A clock that was an epoch and a half ahead closed round 0 early and opened round
// 2. When it is right again an administrator reopens the right round: 1, for the
// root of 0 is known. Round 2 keeps its members and comes when its time has come.
func TestMachineReopens(t *testing.T) {
	m := newMachine(0)
	play(t, m, []step{
		{10, nil, "timer 30"},
		{160, nil, "open 2, timer 230, seal 0, round_closed 0, round_opened 2, proof_overdue 0"},
		{11, nil, "timer 230"},
		{12, Reopen{}, "open 1, timer 130, round_opened 1"},
		{13, Reopen{}, "timer 130"}, // not twice
		{14, Sealed{0, [32]byte{9}, 5}, "timer 130, execute 0 from 30 to 120, round_executing 0"},
		{130, nil, "open 2, timer 230, seal 1, round_closed 1, round_opened 2"},
		// Nothing is passed over, also not by a clock that has gone on to round 7.
		{700, nil, "open 7, timer 730, seal 2, round_closed 2, round_opened 7, proof_overdue 1, proof_overdue 2"},
	})
}

// The round of the clock itself is opened again if nobody has joined it, and not
// while its root is being computed.
func TestMachineReopensTheRoundOfTheClock(t *testing.T) {
	m := newMachine(0)
	play(t, m, []step{
		{10_000_000, nil, "open 100000, timer 10000030, seal 0, round_closed 0, round_opened 100000, proof_overdue 0"},
		{11, Reopen{}, "open 1, timer 130, round_opened 1"},
		{12, Sealed{0, [32]byte{}, 0}, "timer 130"},
		{13, Reopen{}, "open 0, timer 30, round_opened 0"},
		{30, nil, "open 1, timer 130, seal 0, round_closed 0, round_opened 1"},
	})
	if right, strayed := m.Strayed(at(31)); right != 1 || strayed {
		t.Errorf("round %d should be open, %v", right, strayed)
	}
}

// A start finds rounds that members wait for, whatever was written about them, and
// knows when its clock would end one.
func TestMachineIsRestored(t *testing.T) {
	m := NewMachine(epoch, book.State{Open: 3, Members: []uint32{0, 1, 2, 3, 5}, Proved: []uint32{0, 2}})
	if !m.Over(at(230)) || m.Over(at(0)) {
		t.Error("round 1 is over at second 220, and nothing at the beginning")
	}
	play(t, m, []step{
		{300, nil, "timer 330, seal 1, proof_overdue 1"},
		{330, nil, "open 4, timer 430, seal 3, round_closed 3, round_opened 4"},
		{900, nil, "open 9, timer 930, seal 4, seal 5, round_closed 4, round_opened 5, round_closed 5, round_opened 9, proof_overdue 3, proof_overdue 4, proof_overdue 5"},
	})
	// A thousand years ahead are no reason to hang.
	m.Step(at(0).AddDate(1000, 0, 0), nil)
	if start := epoch.Start(m.Open()); !start.After(at(0).AddDate(1000, 0, 0)) {
		t.Errorf("round %d from %s is open", m.Open(), start)
	}
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
	if out.Open != nil {
		add("open %d", *out.Open)
	}
	add("timer %d", second(out.Timer))
	for _, n := range out.Seal {
		add("seal %d", n)
	}
	for _, job := range out.Execute {
		add("execute %d from %d to %d", job.Round, second(job.Start), second(job.End))
	}
	for _, e := range out.Events {
		add("%s %s", e.Kind, e.Round)
	}
	return s
}

// world is a server around a machine in virtual time: a book that holds what was
// written, work that takes a drawn time, crashes and clocks that jump and are
// believed.
type world struct {
	t       *testing.T
	r       *rand.Rand
	now     time.Time
	m       *Machine
	open    uint32         // as stored
	unsaved bool           // and the machine's is another one
	work    []pendingWork  // of this life
	taken   map[uint32]int // members
	roots   map[uint32]int // members that a root was computed of
	proved  map[uint32]bool
	digest  uint64
}

type pendingWork struct {
	ready time.Time
	in    Input
}

func (w *world) restart() {
	w.m = NewMachine(epoch, book.State{Open: w.open, Members: slices.Sorted(maps.Keys(w.taken)), Proved: slices.Sorted(maps.Keys(w.proved))})
	w.work, w.unsaved = nil, false
	// The disk had no room to store that a round has closed: then it may open again.
	maps.DeleteFunc(w.roots, func(n uint32, _ int) bool { return n >= w.open })
}

func (w *world) step(in Input, full bool) {
	if s, ok := in.(Stored); ok {
		w.proved[s.Round] = true
		w.open = w.m.Open() // in one transaction
	}
	before := w.m.Open()
	out := w.m.Step(w.now, in)
	h := fnv.New64a()
	fmt.Fprint(h, w.digest, show(out))
	w.digest = h.Sum64()
	if _, asked := in.(Reopen); w.m.Open() < before && !asked {
		w.t.Fatalf("open round went back from %d to %d", before, w.m.Open())
	}
	if roots := w.roots[w.m.Open()]; roots > 0 {
		w.t.Fatalf("round %d is opened again after its root of %d members was known", w.m.Open(), roots)
	}
	w.unsaved = w.unsaved || out.Open != nil
	if w.unsaved && !full {
		w.open, w.unsaved = w.m.Open(), false
	}
	ready := func() time.Time { return w.now.Add(time.Duration(w.r.IntN(150)) * time.Second) }
	for _, number := range out.Seal {
		// A round may be sealed only once nobody can join it.
		if number == w.m.Open() {
			w.t.Fatalf("round %d is sealed while it is open", number)
		}
		n := w.taken[number]
		w.roots[number] = n
		w.work = append(w.work, pendingWork{ready(), Sealed{number, [32]byte{byte(number), byte(n)}, uint64(n)}})
	}
	for _, job := range out.Execute {
		if n := w.taken[job.Round]; job.Statement != ([32]byte{byte(job.Round), byte(n)}) || n == 0 {
			w.t.Fatalf("round %d executes for another statement than that of %d members", job.Round, n)
		}
		w.work = append(w.work, pendingWork{ready().Add(time.Second), Stored{job.Round, 200}})
	}
	if in == nil && !out.Timer.After(w.now) {
		w.t.Fatalf("timer of the past: %s at %s", out.Timer, w.now)
	}
}

// run lives through some epochs with what the seed draws, then in peace, and
// returns a digest of all that happened.
func (w *world) run() uint64 {
	for range 400 {
		if w.r.IntN(3) == 0 {
			w.taken[w.m.Open()]++ // a registration
		}
		switch w.r.IntN(20) {
		case 0:
			w.restart() // crash: what was not written is gone
		case 1:
			w.now = w.now.Add(-time.Duration(w.r.IntN(400)) * time.Second) // clock set back
		case 2:
			w.now = w.now.Add(time.Duration(w.r.IntN(500)) * time.Second)
		case 3:
			w.step(Reopen{}, false)
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
		if n < w.m.Open() && !w.proved[n] {
			w.t.Fatalf("round %d took registrations and is not proved", n)
		}
	}
	return w.digest
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 0)), now: epoch.Genesis, taken: map[uint32]int{}, roots: map[uint32]int{}, proved: map[uint32]bool{}}
	w.restart()
	return w
}

// Whatever crashes, fills the disk and turns the clock: every round that took a
// registration is proved for all of its members, none is opened again whose root
// is known, and a seed gives the same run.
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
