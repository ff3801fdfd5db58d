package rounds

import (
	"fmt"
	"maps"
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
// nothing. It is restored from the stored rounds, and goes on from there through
// the same steps as one that never stopped.
//
// A round closes at its start, when the next one opens. It is then sealed (its
// membership root computed), executed until its end, proved, and its proof
// stored. Rounds that were missed while nobody was running are not made up for,
// but one that took registrations always goes all the way, however late.
type Machine struct {
	schedule types.PoetSchedule
	open     uint32
	joined   []uint32                 // later rounds that have members already, ascending
	rounds   map[uint32]*machineRound // those that are closed and not proved
}

type machineRound struct {
	book.Round
	working bool // the work of its state was given out
	overdue bool // and reported
}

// Input is something that happened: nil (only time passed), Sealed or ProofMade.
type Input any

// Sealed says that the membership root of a closed round was computed.
type Sealed struct {
	Round     uint32
	Statement [32]byte
	Members   uint64
}

// ProofMade says that a round has a verified proof, not stored yet.
type ProofMade struct {
	Round uint32
	Proof types.PoetProof
}

// Output says what to do, in the order of the fields: Writes must be durable,
// in their order, before the work begins and the events are told. Timer is when
// to Step again at the latest, with a nil input.
//
// One exception: a WriteRound that the disk has no room for may be retried later
// while the work begins, for what it says follows from the clock and the
// registrations too, and no work depends on a WriteProof. A round must not wait for
// room.
type Output struct {
	Writes []Write
	Timer  time.Time
	Work   []Work
	Events []poet.Event
}

// Write is WriteRound or WriteProof.
type Write any

// WriteRound stores a round as it is now. Open is the round that takes
// registrations from now on: no earlier one does.
type WriteRound struct {
	Round book.Round
	Open  uint32
}

// WriteProof stores a proof, and the round as proved, in one step.
type WriteProof struct {
	Round book.Round
	Proof types.PoetProof
}

// Work is Seal or Execute; its end is an input.
type Work any

// Seal asks for the membership root of a round, all whose registrations are
// durable. It ends with Sealed.
type Seal struct{ Round uint32 }

// Execute asks for the execution and the proof of a round. It ends with
// ProofMade.
type Execute struct{ Job work.Job }

// NewMachine restores a machine from the stored rounds. open is the round that
// took registrations last, as stored; a new server passes that of the schedule.
// joined are the rounds that have members, in any order: the writes that closed
// one and opened the next may be missing, but no round with members is passed over.
func NewMachine(schedule types.PoetSchedule, stored []book.Round, open uint32, joined []uint32) *Machine {
	m := &Machine{schedule: schedule, open: open, rounds: map[uint32]*machineRound{}}
	known := map[uint32]bool{}
	for _, r := range stored {
		known[r.Number] = true
		if r.State != poet.StateProved && r.State != poet.StateOpen {
			m.rounds[r.Number] = &machineRound{Round: r}
		}
	}
	for _, n := range slices.Sorted(slices.Values(joined)) {
		switch {
		case known[n]:
		case n < open:
			m.rounds[n] = &machineRound{Round: book.Round{Number: n, State: poet.StateClosed}}
		case n > open:
			m.joined = append(m.joined, n)
		}
	}
	return m
}

// Open returns the round that takes registrations.
func (m *Machine) Open() uint32 { return m.open }

// Rounds returns the closed rounds that have no stored proof yet, lowest first.
func (m *Machine) Rounds() []book.Round {
	var out []book.Round
	for _, n := range slices.Sorted(maps.Keys(m.rounds)) {
		out = append(out, m.rounds[n].Round)
	}
	return out
}

// Step takes an input at a time. Inputs about rounds in another state change
// nothing: they come from work that was given out before a restart.
func (m *Machine) Step(now time.Time, in Input) Output {
	var out Output
	switch in := in.(type) {
	case nil:
	case Sealed:
		m.sealed(in, &out)
	case ProofMade:
		m.proofMade(in, &out)
	default:
		panic(fmt.Sprintf("poet: %T is not an input of the machine", in))
	}
	m.tick(now, &out)
	return out
}

// tick closes the open round if its time has come, and gives out the work that
// nobody does yet.
func (m *Machine) tick(now time.Time, out *Output) {
	for !now.Before(m.schedule.Start(m.open)) {
		r := &machineRound{Round: book.Round{Number: m.open, State: poet.StateClosed}}
		m.rounds[r.Number] = r
		m.open = m.next(now)
		out.Writes = append(out.Writes, WriteRound{r.Round, m.open})
		out.Events = append(out.Events,
			poet.Event{Kind: poet.EventClosed, Round: r.ID(), Text: "round is closed for registration"},
			poet.Event{Kind: poet.EventOpened, Round: poet.RoundID(m.open), Text: "round is open for registration"})
	}
	out.Timer = m.schedule.Start(m.open)
	for _, n := range slices.Sorted(maps.Keys(m.rounds)) {
		r := m.rounds[n]
		if !r.working {
			r.working = true
			out.Work = append(out.Work, m.work(r.Round))
		}
		// A proof that is not there when the next round starts is late: its
		// members wait for it from the end of the round on.
		late := m.schedule.Start(n + 1)
		switch {
		case r.overdue:
		case now.Before(late):
			out.Timer = earlier(out.Timer, late)
		default:
			r.overdue = true
			out.Events = append(out.Events, poet.Event{Kind: poet.EventOverdue, Round: r.ID(), Text: "proof is overdue: round is still " + r.State.String()})
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

func (m *Machine) work(r book.Round) Work {
	if r.State == poet.StateClosed {
		return Seal{r.Number}
	}
	return Execute{work.Job{
		Round: r.Number, Statement: r.Statement, Members: r.Members,
		Start: m.schedule.Start(r.Number), End: m.schedule.End(r.Number),
	}}
}

func (m *Machine) sealed(in Sealed, out *Output) {
	r := m.rounds[in.Round]
	if r == nil || r.State != poet.StateClosed {
		return
	}
	r.State, r.Statement, r.Members, r.working = poet.StateExecuting, in.Statement, in.Members, false
	out.Writes = append(out.Writes, WriteRound{r.Round, m.open})
	out.Events = append(out.Events, poet.Event{Kind: poet.EventExecuting, Round: r.ID(), Text: fmt.Sprintf("round executes for %d members", r.Members)})
}

func (m *Machine) proofMade(in ProofMade, out *Output) {
	r := m.rounds[in.Round]
	if r == nil || r.State == poet.StateClosed {
		return
	}
	r.State, r.Leaves = poet.StateProved, in.Proof.NumLeaves
	delete(m.rounds, in.Round)
	out.Writes = append(out.Writes, WriteProof{r.Round, in.Proof})
	out.Events = append(out.Events, poet.Event{Kind: poet.EventProved, Round: r.ID(), Text: fmt.Sprintf("proof of %d leaves for %d members is stored", r.Leaves, r.Members)})
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
