package delivery

import (
	"math/rand/v2"
	"slices"
	"time"

	"tweedle/services/poet"
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

// Call is something to ask a gateway, which has at most one in flight.
type Call struct {
	to      *gateway
	Addr    string
	Kind    CallKind
	Round   string             // push, fetch
	Ref     types.PoetProofRef // push, fetch
	Timeout time.Duration
}

// Result is the outcome of a Call.
type Result struct {
	Call   Call
	Err    error
	Health Health
	Answer Answer
}

// Output is what a step asks of its driver, in this order: make Save durable,
// report Events, make the Calls, step again at Wake (zero: never) or when
// something happens. Save stays part of every step until Persisted is called.
type Output struct {
	Save   *Saved
	Events []poet.Event
	Calls  []Call
	Wake   time.Time
	table  []*gateway // all others are of no use any more
}

// Machine is the logic of delivery. It has no clock, no goroutine and no I/O,
// and the same inputs give the same outputs. It is not safe for concurrent use.
//
// Two times come in: now only measures, and may be a monotonic reading; date is
// the hour that is believed, and only says what is still of use.
type Machine struct {
	cfg      Config
	rng      *rand.Rand
	gateways []*gateway // by rank
	apiSet   bool       // the API has set or removed some: the command line does not count
	short    bool       // NoCandidates was reported
	proofs   []*item    // by round
	dirty    bool       // something is not saved
	events   []poet.Event
}

// NewMachine continues from what was saved.
func NewMachine(cfg Config, saved Saved, now, date time.Time) *Machine {
	m := &Machine{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), apiSet: saved.APISet}
	for _, g := range saved.Gateways {
		_ = m.AddGateway(g.Addr, g.Source, now) // what was refused was not saved
	}
	for _, r := range saved.Records {
		m.insert(&item{Record: r, told: !date.Before(r.UsefulUntil)})
	}
	m.dirty = false
	return m
}

// Done takes a call's result. That of a gateway which was removed meanwhile is of
// no use.
func (m *Machine) Done(r Result, now time.Time) {
	g := r.Call.to
	if !slices.Contains(m.gateways, g) {
		return
	}
	g.call, g.LastAttempt = nil, now
	switch r.Call.Kind {
	case CallCheck:
		m.checked(g, r.Health, r.Err, now)
	case CallPush:
		m.pushed(g, r, now)
	case CallFetch:
		m.fetched(g, r, now)
	}
}

// Step brings the machine to now and returns what to do.
func (m *Machine) Step(now, date time.Time) Output {
	m.expire(date)
	m.count(date)
	out := Output{table: slices.Clone(m.gateways)}
	if m.waiting(date) > 0 {
		out.Wake = now.Add(probeEvery) // it may expire, and who watches its age wants to see it grow
	}
	for _, g := range m.gateways {
		if g.call != nil {
			continue
		}
		call, at := m.choose(g, now, date)
		if !at.After(now) {
			g.call = &call
			out.Calls = append(out.Calls, call)
		} else if out.Wake.IsZero() || at.Before(out.Wake) {
			out.Wake = at
		}
	}
	out.Save = m.unsaved()
	out.Events, m.events = m.events, nil
	return out
}

// choose returns a gateway's next call and when it may be made. What a live
// gateway can give back comes first, then what it can be given, then its health.
func (m *Machine) choose(g *gateway, now, date time.Time) (Call, time.Time) {
	check := Call{to: g, Addr: g.Addr, Kind: CallCheck, Timeout: probeTimeout}
	if g.State != Live {
		return check, g.next
	}
	about := func(it *item, kind CallKind) Call {
		return Call{to: g, Addr: g.Addr, Kind: kind, Round: it.Round, Ref: it.Ref, Timeout: callTimeout}
	}
	fetch, due := m.toFetch(g, date)
	if fetch != nil && !due.After(now) {
		return about(fetch, CallFetch), due
	}
	if push := m.toPush(g, now, date); push != nil {
		return about(push, CallPush), now
	}
	if fetch != nil && due.Before(g.next) {
		return about(fetch, CallFetch), due
	}
	return check, g.next
}

// toFetch returns the proof that a gateway has acknowledged and is to give back
// first, and when.
func (m *Machine) toFetch(g *gateway, date time.Time) (first *item, due time.Time) {
	for _, it := range m.proofs {
		a := it.ack(g.Addr)
		if it.waits(date) && a != nil && a.ConfirmedAt.IsZero() && (first == nil || a.due.Before(due)) {
			first, due = it, a.due
		}
	}
	return first, due
}

// toPush returns the proof that a gateway is to be given now. Where it must wait
// for one, it waits for the later ones too, so that it gets them in order; what it
// rejected and what cannot be read holds up nothing.
func (m *Machine) toPush(g *gateway, now, date time.Time) *item {
	for _, it := range m.proofs {
		if !it.waits(date) || !it.readable(now) || it.ack(g.Addr) != nil || it.rejected[g.Addr].After(now) {
			continue
		}
		if m.hasSlot(g, it, now) {
			return it
		}
		return nil
	}
	return nil
}

// hasSlot tells whether a gateway is among the first Slots live ones that may
// take a proof.
func (m *Machine) hasSlot(g *gateway, it *item, now time.Time) bool {
	before := 0
	for _, o := range m.gateways[:slices.Index(m.gateways, g)] {
		if o.State == Live && !it.rejected[o.Addr].After(now) {
			before++
		}
	}
	return before < m.cfg.Slots
}

func (m *Machine) event(e poet.Event) { m.events = append(m.events, e) }

// backoff doubles with each failure.
func (m *Machine) backoff(failures int) time.Duration {
	return m.jitter(min(retryMin<<min(max(failures, 0), 20), retryMax))
}

func (m *Machine) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(m.rng.Int64N(int64(d/2)+1))
}
