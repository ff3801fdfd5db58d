package delivery

import (
	"math/rand/v2"
	"slices"
	"time"

	"tweedle/values/types"
)

// CallKind names what a gateway is asked.
type CallKind string

// The calls.
const (
	CallCheck CallKind = "check"
	CallPush  CallKind = "push"
	CallFetch CallKind = "fetch"
)

// Call is something to ask a gateway. A slot has at most one in flight.
type Call struct {
	Seat    uint64
	Addr    string
	Kind    CallKind
	Seq     uint64             // push, fetch: the proof
	Ref     types.PoetProofRef // fetch
	Data    []byte             // push
	Timeout time.Duration
}

// Result is the outcome of a Call.
type Result struct {
	Call   Call
	Err    error
	Health Health
	Ack    Ack
}

// Output is what a step asks of its driver, in this order: make Save durable,
// report Events, make the Calls, step again at Wake (zero: never) or when
// something happens. Save stays part of every step until Persisted is called.
type Output struct {
	Save   *Changes
	Events []Event
	Calls  []Call
	Wake   time.Time
}

// Machine is the logic of delivery. It has no clock, no goroutine and no I/O,
// and the same inputs give the same outputs. It is not safe for concurrent
// use.
type Machine struct {
	cfg        Config
	rng        *rand.Rand
	slots      []*slot
	candidates []candidate // by rank
	banned     []string    // removed by hand, oldest first
	apiSet     bool        // gateways were set by the API: configured ones do not come back
	starved    bool        // NoCandidates was reported
	seats      uint64

	proofs  []*item // by Seq
	nextSeq uint64

	poolDirty bool
	dirty     map[uint64]bool // proofs to save, or to delete
	events    []Event
}

// NewMachine continues from what was saved.
func NewMachine(cfg Config, saved Saved, now time.Time) *Machine {
	m := &Machine{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), dirty: map[uint64]bool{}}
	m.apiSet, m.banned = saved.Pool.APISet, saved.Pool.Banned
	for _, g := range saved.Pool.Slots {
		if len(m.slots) < cfg.Slots {
			m.slots = append(m.slots, m.seat(candidate{GatewayStatus: g}, now))
		} else {
			m.addCandidate(candidate{GatewayStatus: g})
		}
	}
	for _, g := range saved.Pool.Candidates {
		m.addCandidate(candidate{GatewayStatus: g})
	}
	for i := range saved.Proofs {
		it := &item{Record: saved.Proofs[i], data: saved.Data[saved.Proofs[i].Seq]}
		m.proofs = append(m.proofs, it)
		m.nextSeq = max(m.nextSeq, it.Seq+1)
	}
	m.poolDirty = false
	return m
}

// Configure adds the gateways of the command line, unless the API has set
// others since, and tells whether it did.
func (m *Machine) Configure(addrs []string, now time.Time) bool {
	if m.apiSet {
		return false
	}
	for _, a := range addrs {
		if !m.known(a) && !slices.Contains(m.banned, a) {
			m.AddGateway(a, Configured, now)
		}
	}
	return true
}

// Done takes a call's result.
func (m *Machine) Done(r Result, now time.Time) {
	s := m.slotOf(r.Call.Seat)
	if s == nil {
		// Its slot was recycled or removed meanwhile; an acknowledgement that
		// came too late is asked for again from whoever sits there now.
		return
	}
	s.call, s.LastAttempt = nil, now
	switch r.Call.Kind {
	case CallCheck:
		m.checked(s, r.Health, r.Err, now)
	case CallPush:
		m.pushed(s, r, now)
	case CallFetch:
		m.fetched(s, r, now)
	}
}

// Step brings the machine to now and returns what to do.
func (m *Machine) Step(now time.Time) Output {
	m.expire(now)
	m.fill(now)
	var out Output
	wake := func(t time.Time) {
		if out.Wake.IsZero() || t.Before(out.Wake) {
			out.Wake = t
		}
	}
	for _, s := range m.slots {
		if s.call != nil {
			continue
		}
		call, at := m.choose(s, now)
		if at.After(now) {
			wake(at)
			continue
		}
		s.call = &call
		out.Calls = append(out.Calls, call)
	}
	if m.hungry() {
		for _, c := range m.candidates {
			wake(c.NotBefore)
		}
	}
	for _, it := range m.proofs {
		if it.State == Pending {
			wake(it.UsefulUntil)
			wake(now.Add(m.cfg.ProbeEvery)) // who watches its age wants to see it grow
		}
	}
	out.Save = m.changes()
	out.Events, m.events = m.events, nil
	return out
}

// Seated tells whether the gateway of a call still has its seat; a call for
// another one is of no use.
func (m *Machine) Seated(seat uint64) bool { return m.slotOf(seat) != nil }

// hungry tells whether a candidate could take a slot.
func (m *Machine) hungry() bool {
	return len(m.slots) < m.cfg.Slots || slices.ContainsFunc(m.slots, func(s *slot) bool { return s.State == Dead || m.contrary(s) })
}

// choose returns the slot's next call and when it may be made.
func (m *Machine) choose(s *slot, now time.Time) (Call, time.Time) {
	check := Call{Seat: s.seat, Addr: s.Addr, Kind: CallCheck, Timeout: m.cfg.ProbeTimeout}
	if s.State != Live {
		return check, s.next
	}
	call, at := check, s.next
	for _, it := range m.proofs {
		if it.State != Pending || s.rejected[it.Seq] {
			continue
		}
		ack := it.ack(s.identity())
		if ack == nil {
			if at.After(now) {
				call = Call{Seat: s.seat, Addr: s.Addr, Kind: CallPush, Seq: it.Seq, Data: it.data, Timeout: m.cfg.PushTimeout}
				at = now
			}
			break // later proofs wait: order is kept
		}
		if due := ack.At.Add(m.cfg.FetchDelay); due.Before(at) && !it.confirmedBy(s.identity()) {
			call = Call{Seat: s.seat, Addr: s.Addr, Kind: CallFetch, Seq: it.Seq, Ref: it.Ref, Timeout: m.cfg.FetchTimeout}
			at = due
		}
	}
	return call, at
}

func (m *Machine) slotOf(seat uint64) *slot {
	for _, s := range m.slots {
		if s.seat == seat {
			return s
		}
	}
	return nil
}

func (m *Machine) event(e Event) { m.events = append(m.events, e) }

// backoff doubles with each failure and draws from its upper half.
func (m *Machine) backoff(failures int) time.Duration {
	d := m.cfg.RetryMin << min(max(failures, 0), 20)
	return m.jitter(min(d, m.cfg.RetryMax))
}

// jitter draws from the upper half of d, so that servers which started
// together do not stay together.
func (m *Machine) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(m.rng.Int64N(int64(d/2)+1))
}

func (m *Machine) find(seq uint64) *item {
	i, ok := slices.BinarySearchFunc(m.proofs, seq, func(it *item, seq uint64) int {
		switch {
		case it.Seq < seq:
			return -1
		case it.Seq > seq:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return m.proofs[i]
}
