package delivery

import (
	"math/rand/v2"
	"slices"
	"time"

	"tweedle/services/poet"
	"tweedle/values/types"
)

// Call is something to ask a gateway, which has at most one in flight: to take a
// proof and to give it back, or how it is.
type Call struct {
	to    *gateway
	Addr  string
	Round string // empty: how it is
}

// Result is the outcome of a Call.
type Result struct {
	Call   Call
	Err    error
	Health Health
	Ref    types.PoetProofRef // of the proof, if it could be read
}

// Output is what a step asks of its driver, in this order: make what is unsaved
// durable, report Events, make the Calls, step again at Wake or when something
// happens.
type Output struct {
	Events []poet.Event
	Calls  []Call
	Wake   time.Time
}

// Machine is the logic of delivery. It has no clock, no goroutine and no I/O,
// and the same inputs give the same outputs. It is not safe for concurrent use.
//
// Two times come in: now only measures, and may be a monotonic reading; date is
// the hour that is believed, and only says what is still of use.
type Machine struct {
	cfg      Config
	rng      *rand.Rand
	gateways []*gateway // by rank: the order in which the operator named them
	source   Source     // who named them
	short    bool       // NoCandidates was reported
	proofs   []*item    // by round
	dirty    bool       // something is unsaved; who saves it sets it back
	events   []poet.Event
}

// NewMachine continues from what was saved. The configured gateways, which can be
// used, count until the API sets others.
func NewMachine(cfg Config, saved Saved, configured []string, now, date time.Time) *Machine {
	m := &Machine{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0))}
	if saved.Gateways == nil {
		m.name(configured, Configured, now)
	} else {
		m.name(saved.Gateways, FromAPI, now)
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
	if r.Call.Round == "" {
		m.checked(g, r.Health, r.Err, now)
	} else {
		m.pushed(g, r, now)
	}
}

// Step brings the machine to now and returns what to do.
func (m *Machine) Step(now, date time.Time) Output {
	m.expire(date)
	m.survey(date)
	// Something may expire, and who watches its age wants to see it grow.
	out := Output{Wake: now.Add(probeEvery)}
	for _, g := range m.gateways {
		if g.call != nil {
			continue
		}
		call := Call{to: g, Addr: g.Addr}
		if it := m.toPush(g, now, date); it != nil {
			call.Round = it.Round
		} else if g.next.After(now) {
			if g.next.Before(out.Wake) {
				out.Wake = g.next
			}
			continue
		}
		g.call = &call
		out.Calls = append(out.Calls, call)
	}
	out.Events, m.events = m.events, nil
	return out
}

// toPush returns the proof that a gateway is to be given now. Where it must wait
// for one, it waits for the later ones too, so that it gets them in order; what it
// must not be offered now holds up nothing.
func (m *Machine) toPush(g *gateway, now, date time.Time) *item {
	if g.State != Live {
		return nil
	}
	for _, it := range m.proofs {
		if !it.waits(date) || it.retry.After(now) || it.keptBy(g) || it.later[g.Addr].After(now) {
			continue
		}
		if m.hasSlot(g, it, now) {
			return it
		}
		return nil
	}
	return nil
}

// hasSlot tells whether a gateway is among the first Slots live ones that may be
// offered a proof.
func (m *Machine) hasSlot(g *gateway, it *item, now time.Time) bool {
	before, rank := 0, slices.Index(m.gateways, g)
	if m.cfg.DrillNoRecycle {
		return rank < m.cfg.Slots
	}
	for _, o := range m.gateways[:rank] {
		if o.State == Live && !it.later[o.Addr].After(now) {
			before++
		}
	}
	return before < m.cfg.Slots
}

func (m *Machine) event(e poet.Event) { m.events = append(m.events, e) }

// backoff doubles with each failure.
func (m *Machine) backoff(failures int) time.Duration {
	return m.jitter(min(retryMin<<min(failures, 20), retryMax))
}

func (m *Machine) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(m.rng.Int64N(int64(d/2)+1))
}
