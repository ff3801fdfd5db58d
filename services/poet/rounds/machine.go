package rounds

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

// Machine decides what happens to the rounds of one PoET, and when. It is
// passive and deterministic: Step takes the time and an input, changes the
// machine, and says what to do. It reads no clock, disk or network and starts
// nothing. It is restored from what the book says, and goes on from there through
// the same steps as one that never stopped.
//
// A round closes at its start, when the next one opens. It is then sealed (its
// membership root computed) and, if it has members, executed until its end, proved,
// and its proof stored. Rounds that were missed while nobody was running are not
// made up for, but one that took registrations always goes all the way, however
// late.
type Machine struct {
	schedule types.PoetSchedule
	open     uint32
	least    uint32            // no round below may open any more: its root may be known
	joined   []uint32          // later rounds that may have members, ascending
	rounds   map[uint32]*round // those that are closed and not proved
}

// round is a closed one. Its statement and members are known once it is sealed.
type round struct {
	poet.Round
	working bool // the work of its state was given out
	overdue bool // and reported
}

// Input is something that happened: nil (only time passed), Sealed, Stored or
// Reopen.
type Input any

// Sealed says that the membership root of a closed round was computed.
type Sealed struct {
	Round     uint32
	Statement [32]byte
	Members   uint64
}

// Stored says that the proof of a round is stored, durably.
type Stored struct {
	Round  uint32
	Leaves uint64
}

// Reopen asks for the round of the clock where a later one is open, because the
// clock was ahead once. Nothing is lost by it: the later one takes registrations
// again when its time has come, and keeps those that it has.
type Reopen struct{}

// Output says what to do.
type Output struct {
	// Open, if not nil, is the round that takes registrations from now on: none
	// joins an earlier one once the caller has begun with the rest. It must be
	// stored, but may be stored later if the disk has no room: it follows from the
	// clock and from what is stored of the rounds, and a round must not wait for room.
	Open *uint32
	// Timer is when to Step again at the latest, with a nil input.
	Timer time.Time
	// Seal are rounds whose membership root is asked for, once all their
	// registrations are durable. It ends with Sealed.
	Seal []uint32
	// Execute are rounds to be executed and proved. It ends with Stored.
	Execute []work.Job
	Events  []poet.Event
}

// NewMachine restores a machine from what the book says; a new one opens the round
// of the schedule. The write that opened a round may be missing, but no round with
// members is passed over.
func NewMachine(schedule types.PoetSchedule, state book.State) *Machine {
	m := &Machine{schedule: schedule, open: state.Open, rounds: map[uint32]*round{}}
	if n := len(state.Proved); n > 0 {
		m.least = state.Proved[n-1] + 1
	}
	for _, n := range state.Members {
		_, proved := slices.BinarySearch(state.Proved, n)
		switch {
		case n > m.open:
			m.joined = append(m.joined, n)
		case n < m.open && !proved:
			m.rounds[n] = &round{Round: poet.Round{Number: n, State: poet.StateClosed}}
			m.least = max(m.least, n+1)
		}
	}
	return m
}

// Open returns the round that takes registrations.
func (m *Machine) Open() uint32 { return m.open }

// Rounds returns the closed rounds that have no stored proof yet, lowest first.
func (m *Machine) Rounds() []poet.Round {
	var out []poet.Round
	for _, n := range slices.Sorted(maps.Keys(m.rounds)) {
		out = append(out, m.rounds[n].Round)
	}
	return out
}

// Strayed returns the round that should be open by the clock, and whether a later
// one is.
func (m *Machine) Strayed(now time.Time) (right uint32, strayed bool) {
	right = max(m.schedule.Open(now), m.least)
	for n := range m.rounds { // also one that is being sealed
		right = max(right, n+1)
	}
	return right, right < m.open
}

// Over tells whether something has ended by that time that members depend on: the
// open round, or the execution of a closed one.
func (m *Machine) Over(now time.Time) bool {
	over := !now.Before(m.schedule.Start(m.open))
	for n := range m.rounds {
		over = over || !now.Before(m.schedule.End(n))
	}
	return over
}

// Step takes an input at a time. Inputs about rounds in another state change
// nothing: they come from work that was given out before a restart.
func (m *Machine) Step(now time.Time, in Input) Output {
	var out Output
	switch in := in.(type) {
	case nil:
	case Sealed:
		m.sealed(in, &out)
	case Stored:
		m.stored(in, &out)
	case Reopen:
		m.reopen(now, &out)
	default:
		panic(fmt.Sprintf("poet: %T is not an input of the machine", in))
	}
	m.tick(now, &out)
	return out
}

// tick closes the open round if its time has come, and gives out the work that
// nobody does yet.
func (m *Machine) tick(now time.Time, out *Output) {
	for m.open != math.MaxUint32 && !now.Before(m.schedule.Start(m.open)) {
		r := &round{Round: poet.Round{Number: m.open, State: poet.StateClosed}}
		m.rounds[r.Number] = r
		out.tell(poet.EventClosed, r.Number, "round is closed for registration")
		m.opens(m.next(now), out)
	}
	out.Timer = m.schedule.Start(m.open)
	for _, n := range slices.Sorted(maps.Keys(m.rounds)) {
		r := m.rounds[n]
		if !r.working {
			r.working = true
			m.give(r.Round, out)
		}
		// A proof that is not there when the next round starts is late: its
		// members wait for it from the end of the round on.
		late := m.schedule.Start(n + 1)
		switch {
		case r.overdue:
		case now.Before(late):
			if late.Before(out.Timer) {
				out.Timer = late
			}
		default:
			r.overdue = true
			out.tell(poet.EventOverdue, n, "proof is overdue: round is still "+r.State.String())
		}
	}
}

// next returns the round that opens after the open one: that of the clock, but
// for an earlier one that has members.
func (m *Machine) next(now time.Time) uint32 {
	next := max(m.open+1, m.schedule.Open(now))
	for len(m.joined) > 0 && m.joined[0] <= next {
		n := m.joined[0]
		m.joined = m.joined[1:]
		if n > m.open {
			return n
		}
	}
	return next
}

func (m *Machine) opens(n uint32, out *Output) {
	m.open = n
	out.Open = &n
	out.tell(poet.EventOpened, n, "round is open for registration")
}

func (m *Machine) reopen(now time.Time, out *Output) {
	if right, strayed := m.Strayed(now); strayed {
		at, found := slices.BinarySearch(m.joined, m.open)
		if !found {
			m.joined = slices.Insert(m.joined, at, m.open)
		}
		m.opens(right, out)
	}
}

// give gives out the work of a round's state.
func (m *Machine) give(r poet.Round, out *Output) {
	if r.State == poet.StateClosed {
		out.Seal = append(out.Seal, r.Number)
		return
	}
	out.Execute = append(out.Execute, work.Job{
		Round: r.Number, Statement: r.Statement, Members: r.Members,
		Start: m.schedule.Start(r.Number), End: m.schedule.End(r.Number),
	})
}

func (m *Machine) sealed(in Sealed, out *Output) {
	r := m.rounds[in.Round]
	if r == nil || r.State != poet.StateClosed {
		return
	}
	if in.Members == 0 { // nobody waits for its proof
		delete(m.rounds, in.Round)
		return
	}
	m.least = max(m.least, in.Round+1)
	r.State, r.Statement, r.Members, r.working = poet.StateExecuting, in.Statement, in.Members, false
	out.tell(poet.EventExecuting, in.Round, fmt.Sprintf("round executes for %d members", r.Members))
}

func (m *Machine) stored(in Stored, out *Output) {
	r := m.rounds[in.Round]
	if r == nil || r.State == poet.StateClosed {
		return
	}
	delete(m.rounds, in.Round)
	out.tell(poet.EventProved, in.Round, fmt.Sprintf("proof of %d leaves for %d members is stored", in.Leaves, r.Members))
}

func (out *Output) tell(kind poet.EventKind, round uint32, text string) {
	out.Events = append(out.Events, poet.Event{Kind: kind, Round: poet.RoundID(round), Text: text})
}
