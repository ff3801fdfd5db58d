package delivery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"tweedle/base/words"
	"tweedle/services/poet"
)

// State is a gateway's standing.
//
//	state    is checked                      it becomes
//	suspect  at once, then by backoff        live by a check that passes; dead by deadAfter failures
//	live     every probeEvery                suspect by anything that fails
//	dead     by backoff; after a lie         live by a check that passes
//	         after longBan
//
// Failed checks are forgiven by a check that passes, failed deliveries by one that
// succeeds, so a gateway that only says that it is well is dead sooner each time.
// The first Slots live gateways, by rank, have a slot: they are given the proofs.
type State string

// The states. Candidate is how a live gateway without a slot is shown.
const (
	Suspect   State = "suspect"
	Live      State = "live"
	Dead      State = "dead"
	Candidate State = "candidate"
)

// deadAfter is the number of failures, checks and deliveries together.
const deadAfter = 3

// Source tells who named the gateways.
type Source string

// The sources.
const (
	Configured Source = "configured" // the command line
	FromAPI    Source = "api"
)

// GatewayStatus is what is known of one gateway.
type GatewayStatus struct {
	Addr        string
	ID          string // its own name, once known
	State       State
	Source      Source
	Peers       uint64 // at the last check
	LastSuccess time.Time
	LastAttempt time.Time
	LastError   string
}

// gateway is an entry of the table.
type gateway struct {
	GatewayStatus
	slot     bool // it has one
	failures int  // failed checks in a row
	refusals int  // failed deliveries in a row
	next     time.Time
	call     *Call // in flight
}

// id is what distinct gateways are told apart by, beside their addresses.
func (g *gateway) id() string { return cmp.Or(g.ID, g.Addr) }

// SetGateways replaces the table, now and for all restarts. Gateways that stay are
// tried again at once.
func (m *Machine) SetGateways(addrs []string, now time.Time) error {
	list, err := distinct(addrs)
	if err != nil {
		return err
	}
	m.name(list, FromAPI, now)
	m.dirty = true
	return nil
}

// name makes the table that of some distinct addresses.
func (m *Machine) name(addrs []string, source Source, now time.Time) {
	old := m.gateways
	m.gateways, m.source = nil, source
	for _, a := range addrs {
		g := &gateway{GatewayStatus: GatewayStatus{Addr: a, State: Suspect}}
		if i := slices.IndexFunc(old, func(g *gateway) bool { return g.Addr == a }); i >= 0 {
			g = old[i]
		}
		g.failures, g.refusals, g.next = 0, 0, now
		m.gateways = append(m.gateways, g)
	}
}

// addresses lists the gateways by rank.
func (m *Machine) addresses() []string {
	list := []string{}
	for _, g := range m.gateways {
		list = append(list, g.Addr)
	}
	return list
}

// Gateways lists the table by rank.
func (m *Machine) Gateways() (list []GatewayStatus) {
	for _, g := range m.gateways {
		s := g.GatewayStatus
		s.Source = m.source
		if g.State == Live {
			s.LastError = m.twin(g)
			if !g.slot {
				s.State = Candidate
			}
		}
		list = append(list, s)
	}
	return list
}

// twin tells if another live gateway has the same name. Which of them lies, if
// one does, cannot be seen; so neither drives the other out, both are offered
// proofs, and both together count as one.
func (m *Machine) twin(g *gateway) string {
	for _, o := range m.gateways {
		if o != g && o.State == Live && g.ID != "" && o.ID == g.ID {
			return "has the same name as " + o.Addr + ": both count as one gateway"
		}
	}
	return ""
}

// checked takes a health check's result.
func (m *Machine) checked(g *gateway, h Health, err error, now time.Time) {
	if err == nil {
		err = m.fit(h)
	}
	if err != nil {
		g.failures++
		m.failed(g, err, now)
		return
	}
	g.Peers, g.ID, g.failures, g.LastSuccess = h.Peers, h.ID, 0, now
	g.next = now.Add(m.jitter(probeEvery))
	if g.State != Live {
		g.State, g.LastError = Live, ""
		m.event(poet.Event{Kind: GatewayLive, Gateway: g.Addr, Text: fmt.Sprintf("is live with %d peers", g.Peers)})
	}
}

// fit tells why a gateway that answers is still of no use.
func (m *Machine) fit(h Health) error {
	switch {
	case m.cfg.Genesis != h.Genesis && m.cfg.Genesis != [20]byte{}:
		return fmt.Errorf("is of network %s, this server of %s", h.Genesis, m.cfg.Genesis)
	case !h.Synced:
		return errors.New("is not synced")
	case h.Peers < uint64(m.cfg.MinPeers):
		return fmt.Errorf("has %d peers, %d are needed", h.Peers, m.cfg.MinPeers)
	}
	return nil
}

// failed takes a failure that its caller has counted.
func (m *Machine) failed(g *gateway, err error, now time.Time) {
	before := g.State
	g.State, g.LastError = Suspect, words.Of(err)
	g.next = now.Add(m.backoff(g.failures + g.refusals - 1))
	if g.failures+g.refusals >= deadAfter {
		g.State = Dead
	}
	switch {
	case g.State == before:
	case g.State == Dead:
		m.event(poet.Event{Kind: GatewayDead, Gateway: g.Addr, Text: "is dead", Err: err})
	default:
		m.event(poet.Event{Kind: GatewaySuspect, Gateway: g.Addr, Text: "is suspect: " + g.LastError})
	}
}

// survey deals out the slots, and reports that gateways are missing, once until
// none is missing any more.
func (m *Machine) survey(date time.Time) {
	live, dead, failing := 0, 0, ""
	for rank, g := range m.gateways {
		slot := g.State == Live && live < m.cfg.Slots && !(m.cfg.DrillNoRecycle && rank >= m.cfg.Slots)
		if slot && !g.slot && rank >= m.cfg.Slots && failing != "" {
			m.event(poet.Event{Kind: GatewayRecycled, Gateway: g.Addr, Text: "takes a slot: " + failing})
		}
		g.slot = slot
		switch {
		case g.State == Live:
			live++
		case g.failures+g.refusals > 0:
			failing = fmt.Sprintf("%s has none while it is %s (%s)", g.Addr, g.State, g.LastError)
		}
		if g.State == Dead {
			dead++
		}
	}
	alive := len(m.gateways) - dead
	short := dead > 0 && alive < m.cfg.Slots || alive == 0 && m.waiting(date) > 0
	if short && !m.short {
		m.event(poet.Event{Kind: NoCandidates, Text: "gateways are missing: add some with `tweedle poet gateways add`",
			Err: fmt.Errorf("%d gateways are dead and %d are not, for %d slots", dead, alive, m.cfg.Slots)})
	}
	m.short = short
}
