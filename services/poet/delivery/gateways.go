package delivery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"tweedle/services/poet"
)

// State is a gateway's standing. A check tells whether it serves, a push or a
// fetch whether it does what it says: only they forgive failed ones of their kind.
//
//	state    is checked              gets proofs        it becomes
//	suspect  at once, then by        no                 live by a check that passes; dead by deadAfter failed
//	         backoff                                    ones in a row
//	live     every probeEvery        if it has a slot   suspect by anything that fails; dead by deadRefusals failed
//	                                                    pushes or fetches in a row, or by one lie
//	dead     by backoff; after a     no                 live by a check that passes
//	         lie after longBan
//
// The first Slots live gateways, by rank, have a slot. The rank is the order in
// which the operator named them, but who dies goes behind all others: so its slot
// is the next one's, and stays it when the dead one comes back.
type State string

// The states. Candidate is how a live gateway without a slot is shown.
const (
	Suspect   State = "suspect"
	Live      State = "live"
	Dead      State = "dead"
	Candidate State = "candidate"
)

const (
	deadAfter    = 3
	deadRefusals = 2
)

// Source tells who named a gateway.
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
	failures int // failed checks in a row
	refusals int // failed pushes and fetches in a row
	next     time.Time
	call     *Call // in flight
}

// id is what distinct gateways are told apart by, beside their addresses.
func (g *gateway) id() string { return cmp.Or(g.ID, g.Addr) }

func (m *Machine) find(addr string) *gateway {
	for _, g := range m.gateways {
		if g.Addr == addr {
			return g
		}
	}
	return nil
}

// Configure names the gateways of the command line, and returns those that are
// not used: all if the API has set or removed some, and those that find no room.
func (m *Machine) Configure(addrs []string, now time.Time) (unused []string) {
	for _, a := range addrs {
		if m.apiSet || m.AddGateway(a, Configured, now) != nil {
			unused = append(unused, a)
		}
	}
	return unused
}

// SetGateways replaces the table. Gateways that stay are checked at once.
func (m *Machine) SetGateways(addrs []string, now time.Time) error {
	if err := checkAll(addrs); err != nil {
		return err
	}
	old := m.gateways
	m.gateways, m.apiSet, m.dirty = nil, true, true
	for _, a := range addrs {
		i := slices.IndexFunc(old, func(g *gateway) bool { return g.Addr == a })
		if i >= 0 && m.find(a) == nil {
			m.gateways = append(m.gateways, old[i])
		}
		_ = m.AddGateway(a, FromAPI, now) // they are checked, and not too many
	}
	return nil
}

// AddGateway adds a gateway behind the others. One that is known already is tried
// again without waiting for its backoff.
func (m *Machine) AddGateway(addr string, source Source, now time.Time) error {
	g := m.find(addr)
	if g == nil {
		if err := CheckAddress(addr); err != nil {
			return err
		}
		if len(m.gateways) >= MaxGateways {
			return fmt.Errorf("%d gateways are known already, and that is the limit: remove one first", MaxGateways)
		}
		g = &gateway{GatewayStatus: GatewayStatus{Addr: addr, State: Suspect}}
		m.gateways = append(m.gateways, g)
	}
	g.Source, g.failures, g.refusals, g.next, m.dirty = source, 0, 0, now, true
	return nil
}

// RemoveGateway forgets a gateway and tells whether it was known. The command
// line does not bring it back.
func (m *Machine) RemoveGateway(addr string) (known bool) {
	g := m.find(addr)
	if g == nil {
		return false
	}
	m.gateways = slices.DeleteFunc(m.gateways, func(o *gateway) bool { return o == g })
	m.apiSet, m.dirty = true, true
	return true
}

// Gateways lists the table by rank.
func (m *Machine) Gateways() (list []GatewayStatus) {
	live := 0
	for _, g := range m.gateways {
		s := g.GatewayStatus
		if g.State == Live {
			s.LastError = m.twin(g)
			if live++; live > m.cfg.Slots {
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
	m.disown(g)
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

// refused takes a failed push or fetch.
func (m *Machine) refused(g *gateway, err error, now time.Time) {
	g.refusals++
	m.failed(g, err, now)
}

// failed takes a failure that its caller has counted.
func (m *Machine) failed(g *gateway, err error, now time.Time) {
	g.LastError = err.Error()
	g.next = now.Add(m.backoff(g.failures + g.refusals - 1))
	switch {
	case g.State == Dead:
	case g.failures >= deadAfter || g.refusals >= deadRefusals:
		m.event(poet.Event{Kind: GatewayDead, Gateway: g.Addr, Text: "is dead", Err: err})
		m.bury(g)
	case g.State == Live:
		g.State = Suspect
		m.event(poet.Event{Kind: GatewaySuspect, Gateway: g.Addr, Text: "is suspect: " + g.LastError})
	}
}

// bury ranks a gateway behind all others; if it had a slot, the next one has it
// now.
func (m *Machine) bury(g *gateway) {
	g.State = Dead
	i := slices.Index(m.gateways, g)
	m.gateways = append(slices.Delete(m.gateways, i, i+1), g)
	alive := 0
	for j, o := range m.gateways {
		if o.State == Dead {
			continue
		}
		if alive++; alive == m.cfg.Slots && j >= i && o.State == Live {
			m.event(poet.Event{Kind: GatewayRecycled, Gateway: o.Addr, Text: fmt.Sprintf("takes the slot of %s (%s)", g.Addr, g.LastError)})
		}
	}
}

// count reports that gateways are missing, once until none is missing any more.
func (m *Machine) count(date time.Time) {
	dead := 0
	for _, g := range m.gateways {
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
