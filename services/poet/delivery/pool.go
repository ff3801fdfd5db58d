package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// State is a gateway's standing.
type State string

// The states. Suspect is a gateway that has not proved itself yet, or that
// failed lately; nothing is pushed to it until a check succeeds.
const (
	Live      State = "live"
	Suspect   State = "suspect"
	Dead      State = "dead"
	Candidate State = "candidate" // not in the pool
)

// Source tells where a gateway was learned from.
type Source string

// The sources, in the order in which candidates are preferred.
const (
	Configured Source = "configured"
	FromAPI    Source = "api"
	FromPeer   Source = "peer"
)

// GatewayStatus is what is known of one gateway.
type GatewayStatus struct {
	Addr        string
	ID          string // its own identity, once known
	State       State
	Source      Source
	Peers       uint64 // at the last check
	LastSuccess time.Time
	LastAttempt time.Time
	LastError   string
}

// slot is a place in the pool and the gateway that sits in it.
type slot struct {
	GatewayStatus
	seat     uint64 // new for each gateway that sits down
	proven   bool   // was live in this seat
	failures int    // failed checks in a row
	refusals int    // failed pushes and fetches in a row
	next     time.Time
	call     *Call
	rejected map[uint64]bool // proofs that it called invalid
}

// identity is what distinct gateways are told apart by.
func (s *slot) identity() string { return cmp.Or(s.ID, s.Addr) }

// candidate is a gateway that may take a slot.
type candidate struct {
	GatewayStatus
	NotBefore time.Time
	Failures  int
	order     uint64 // drawn, so that told gateways are tried in no order of theirs
}

// rank orders candidates: our own choice before hearsay, then the healthier.
func rank(a, b candidate) int {
	hearsay := func(c candidate) int {
		if c.Source == FromPeer {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(hearsay(a), hearsay(b)),
		cmp.Compare(a.Failures, b.Failures),
		a.NotBefore.Compare(b.NotBefore),
		cmp.Compare(a.order, b.order),
		cmp.Compare(a.Addr, b.Addr),
	)
}

// SetGateways replaces every known gateway by addrs. Those that stay keep
// their seats and are checked at once.
func (m *Machine) SetGateways(addrs []string, now time.Time) {
	m.apiSet, m.poolDirty = true, true
	m.candidates, m.banned = nil, nil
	keep := m.slots[:0]
	for _, s := range m.slots {
		if slices.Contains(addrs, s.Addr) {
			s.Source, s.next = FromAPI, now
			keep = append(keep, s)
		}
	}
	clear(m.slots[len(keep):])
	m.slots = keep
	for _, a := range addrs {
		m.AddGateway(a, FromAPI, now)
	}
}

// AddGateway adds a candidate. A gateway that is known already is tried again
// without waiting for its backoff, unless it was only told of.
func (m *Machine) AddGateway(addr string, source Source, now time.Time) {
	if CheckAddress(addr) != nil {
		return
	}
	if source == FromPeer {
		if len(m.candidates) < MaxCandidates && !m.known(addr) && !slices.Contains(m.banned, addr) {
			m.addCandidate(candidate{GatewayStatus: GatewayStatus{Addr: addr, Source: source}})
		}
		return
	}
	m.poolDirty = true
	m.banned = slices.DeleteFunc(m.banned, func(a string) bool { return a == addr })
	if i := slices.IndexFunc(m.slots, func(s *slot) bool { return s.Addr == addr }); i >= 0 {
		s := m.slots[i]
		s.Source, s.failures, s.refusals, s.next, s.rejected = source, 0, 0, now, nil
		return
	}
	m.candidates = slices.DeleteFunc(m.candidates, func(c candidate) bool { return c.Addr == addr })
	m.addCandidate(candidate{GatewayStatus: GatewayStatus{Addr: addr, Source: source}})
}

// RemoveGateway forgets a gateway and tells whether it was known. It comes
// back only by AddGateway or SetGateways from our own side.
func (m *Machine) RemoveGateway(addr string) bool {
	known := m.known(addr)
	m.slots = slices.DeleteFunc(m.slots, func(s *slot) bool { return s.Addr == addr })
	m.candidates = slices.DeleteFunc(m.candidates, func(c candidate) bool { return c.Addr == addr })
	if !slices.Contains(m.banned, addr) {
		m.banned = append(m.banned, addr)
	}
	if len(m.banned) > maxBanned {
		m.banned = m.banned[1:]
	}
	m.poolDirty = true
	return known
}

// Gateways lists the pool and then the candidates in the order of preference.
func (m *Machine) Gateways() []GatewayStatus {
	var list []GatewayStatus
	for _, s := range m.slots {
		list = append(list, s.GatewayStatus)
	}
	for _, c := range m.candidates {
		c.State = Candidate
		list = append(list, c.GatewayStatus)
	}
	return list
}

func (m *Machine) known(addr string) bool {
	return slices.ContainsFunc(m.slots, func(s *slot) bool { return s.Addr == addr }) ||
		slices.ContainsFunc(m.candidates, func(c candidate) bool { return c.Addr == addr })
}

// addCandidate keeps the candidates ordered by rank and within their limit:
// the last in rank goes.
func (m *Machine) addCandidate(c candidate) {
	c.State, c.order = Candidate, m.rng.Uint64()
	m.candidates = append(m.candidates, c)
	slices.SortFunc(m.candidates, rank)
	if len(m.candidates) > MaxCandidates {
		m.candidates = m.candidates[:MaxCandidates]
	}
	m.poolDirty = true
}

// fill seats candidates in empty slots and in those of gateways of no use.
func (m *Machine) fill(now time.Time) {
	for len(m.slots) < m.cfg.Slots {
		c, ok := m.takeCandidate(now)
		if !ok {
			break
		}
		m.slots = append(m.slots, m.seat(c, now))
	}
	var lack Event
	if len(m.slots) == 0 && m.waiting() > 0 {
		lack = Event{Text: "no gateway is known and a proof waits: add some with `tweedle poet gateways add`"}
	}
	for i, s := range m.slots {
		contrary := m.contrary(s)
		if s.State != Dead && !contrary {
			continue
		}
		c, ok := m.takeCandidate(now)
		if !ok {
			if s.State == Dead {
				lack = Event{Gateway: s.Addr, Text: "no gateway can take the slot of a dead one: add some with `tweedle poet gateways add`"}
			}
			continue
		}
		if contrary {
			m.ban(s, "rejects a proof that this server has verified", now)
		}
		m.slots[i] = m.seat(c, now)
		m.event(Event{Time: now, Kind: GatewayRecycled, Gateway: c.Addr,
			Text: fmt.Sprintf("takes the slot of %s (%s)", s.Addr, s.LastError)})
		m.retire(s, now)
	}
	m.starve(lack, now)
}

// starve reports that gateways are missing, once until none is missing any
// more; dead ones go on being tried.
func (m *Machine) starve(lack Event, now time.Time) {
	if lack.Text != "" && !m.starved {
		lack.Time, lack.Kind = now, NoCandidates
		m.event(lack)
	}
	m.starved = lack.Text != ""
}

// contrary tells whether a gateway rejected a proof that still waits. Others
// may take it, so it gives way to any candidate; without one it stays, since
// the fault may be ours and later proofs may fare better.
func (m *Machine) contrary(s *slot) bool {
	for seq := range s.rejected {
		if it := m.find(seq); it != nil && it.State == Pending {
			return true
		}
	}
	return false
}

// takeCandidate removes and returns the best candidate that may be tried now.
func (m *Machine) takeCandidate(now time.Time) (candidate, bool) {
	for i, c := range m.candidates {
		if !c.NotBefore.After(now) {
			m.candidates = slices.Delete(m.candidates, i, i+1)
			return c, true
		}
	}
	return candidate{}, false
}

func (m *Machine) seat(c candidate, now time.Time) *slot {
	m.seats++
	m.poolDirty = true
	s := &slot{GatewayStatus: c.GatewayStatus, seat: m.seats, failures: c.Failures, next: now}
	s.State = Suspect
	return s
}

// retire returns a dead slot's gateway to the candidates. One that was only
// told of and never worked is forgotten; it may be told of again.
func (m *Machine) retire(s *slot, now time.Time) {
	if s.Source == FromPeer && !s.proven {
		return
	}
	wait := m.backoff(s.failures + s.refusals)
	if s.next.After(now.Add(wait)) {
		wait = s.next.Sub(now) // a ban
	}
	m.addCandidate(candidate{GatewayStatus: s.GatewayStatus, NotBefore: now.Add(wait), Failures: s.failures + s.refusals})
}

// checked takes a health check's result.
func (m *Machine) checked(s *slot, h Health, err error, now time.Time) {
	if err == nil {
		err = m.fit(h)
	}
	if err != nil {
		s.failures++
		m.failed(s, err, now)
		return
	}
	s.Peers, s.ID = h.Peers, h.ID
	if twin := m.twin(s); twin != "" {
		m.ban(s, fmt.Sprintf("is the same gateway as %s", twin), now)
		return
	}
	for _, a := range h.Told[:min(len(h.Told), MaxTold)] {
		m.AddGateway(a, FromPeer, now)
	}
	s.failures, s.next = 0, now.Add(m.jitter(m.cfg.ProbeEvery))
	m.succeeded(s, now)
}

// fit tells why a gateway that answers is still of no use.
func (m *Machine) fit(h Health) error {
	switch {
	case m.cfg.Genesis != h.Genesis && m.cfg.Genesis != [20]byte{}:
		return fmt.Errorf("is of network %s, this server of %s", h.Genesis, m.cfg.Genesis)
	case !h.Synced:
		return fmt.Errorf("is not synced")
	case h.Peers < uint64(m.cfg.MinPeers):
		return fmt.Errorf("has %d peers, %d are needed", h.Peers, m.cfg.MinPeers)
	}
	return nil
}

// twin returns the address of another live slot with the same identity.
func (m *Machine) twin(s *slot) string {
	for _, o := range m.slots {
		if o != s && s.ID != "" && o.ID == s.ID && o.State == Live {
			return o.Addr
		}
	}
	return ""
}

func (m *Machine) succeeded(s *slot, now time.Time) {
	s.LastSuccess, s.proven = now, true
	if s.State == Live {
		return
	}
	s.State, s.LastError = Live, ""
	m.poolDirty = true
	m.event(Event{Time: now, Kind: GatewayLive, Gateway: s.Addr, Text: fmt.Sprintf("is live with %d peers", s.Peers)})
}

// deadRefusals is how many failed pushes or fetches in a row turn a gateway
// dead, however healthy it calls itself in between.
const deadRefusals = 2

// failed takes a failure that its caller has counted.
func (m *Machine) failed(s *slot, err error, now time.Time) {
	s.LastError = err.Error()
	s.next = now.Add(m.backoff(s.failures + s.refusals - 1))
	dead := s.failures >= m.cfg.DeadAfter || s.refusals >= deadRefusals || !s.proven
	switch {
	case s.State == Dead:
	case dead:
		s.State = Dead
		m.poolDirty = true
		m.event(Event{Time: now, Kind: GatewayDead, Gateway: s.Addr, Text: s.LastError})
	case s.State == Live:
		s.State = Suspect
		m.event(Event{Time: now, Kind: GatewaySuspect, Gateway: s.Addr, Text: s.LastError})
	}
}

// ban makes a slot dead and keeps its gateway away for long.
func (m *Machine) ban(s *slot, why string, now time.Time) {
	s.refusals = deadRefusals
	m.failed(s, fmt.Errorf("%s", why), now)
	s.next = now.Add(m.cfg.LongBan)
}
