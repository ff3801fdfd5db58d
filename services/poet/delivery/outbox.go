package delivery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"tweedle/services/poet"
	"tweedle/values/types"
)

// Delivery states of a proof.
const (
	Pending   = "pending"
	Delivered = "delivered"
	Expired   = "expired" // never delivered, and of no use at this hour; it can still be pulled
)

// Keeper is a gateway that took a proof and gave it back.
type Keeper struct {
	Addr string
	ID   string // its name then
}

// Record is what is known of a proof's delivery.
type Record struct {
	Round       string
	Ref         types.PoetProofRef // zero: it was not read yet
	State       string             `json:"-"` // follows from the rest and the clock
	Added       time.Time
	UsefulUntil time.Time
	DeliveredAt time.Time // zero: not yet
	Keepers     []Keeper  // one for each address
	Attempts    int
	LastError   string
}

type item struct {
	Record
	later map[string]time.Time // until when not to offer it to an address
	retry time.Time            // it could not be read: not before then
	told  bool                 // that it expired
}

// waits tells whether a proof is to be delivered at an hour.
func (it *item) waits(date time.Time) bool {
	return it.DeliveredAt.IsZero() && date.Before(it.UsefulUntil)
}

func (it *item) keptBy(g *gateway) bool {
	return slices.ContainsFunc(it.Keepers, func(k Keeper) bool { return k.Addr == g.Addr })
}

// distinct returns how many gateways keep the proof, by their names: each has an
// address of its own already.
func (it *item) distinct() int {
	names := map[string]bool{}
	for _, k := range it.Keepers {
		names[k.ID] = true
	}
	return len(names)
}

// oldest orders rounds by number: their names are decimal without leading zeros.
func oldest(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

func (m *Machine) item(round string) *item {
	for _, it := range m.proofs {
		if it.Round == round {
			return it
		}
	}
	return nil
}

// insert puts an item in its place, in the stead of one of the same round. Beyond
// the limit it forgets what was of use last.
func (m *Machine) insert(it *item) {
	m.proofs = slices.DeleteFunc(m.proofs, func(o *item) bool { return o.Round == it.Round })
	m.proofs = append(m.proofs, it)
	if len(m.proofs) > MaxRecords {
		last := slices.MinFunc(m.proofs, func(a, b *item) int { return a.UsefulUntil.Compare(b.UsefulUntil) })
		m.proofs = slices.DeleteFunc(m.proofs, func(o *item) bool { return o == last })
	}
	slices.SortFunc(m.proofs, func(a, b *item) int { return oldest(a.Round, b.Round) })
	m.dirty = true
}

// Due tells which proofs are of use.
func (m *Machine) Due(list []Due, now time.Time) {
	for _, d := range list {
		if m.item(d.Round) == nil {
			m.insert(&item{Record: Record{Round: d.Round, Added: now, UsefulUntil: d.UsefulUntil}})
		}
	}
}

// Rebroadcast offers a proof to the gateways anew, whatever became of it before.
func (m *Machine) Rebroadcast(round string, ref types.PoetProofRef, now, date time.Time) {
	until := date.Add(m.cfg.Again)
	if it := m.item(round); it != nil && it.UsefulUntil.After(until) {
		until = it.UsefulUntil
	}
	m.insert(&item{Record: Record{Round: round, Ref: ref, Added: now, UsefulUntil: until}})
}

// waiting returns how many proofs wait for delivery.
func (m *Machine) waiting(date time.Time) (n int) {
	for _, it := range m.proofs {
		if it.waits(date) {
			n++
		}
	}
	return n
}

// Proofs lists the records, oldest round first, as they are at an hour.
func (m *Machine) Proofs(date time.Time) []Record {
	var list []Record
	for _, it := range m.proofs {
		r := it.Record
		r.Keepers = slices.Clone(r.Keepers)
		switch {
		case !r.DeliveredAt.IsZero():
			r.State = Delivered
		case it.waits(date):
			r.State = Pending
		default:
			r.State = Expired
		}
		list = append(list, r)
	}
	return list
}

// pushed takes the result of a delivery.
func (m *Machine) pushed(g *gateway, r Result, now time.Time) {
	it := m.item(r.Call.Round)
	if it == nil || !it.DeliveredAt.IsZero() {
		it = &item{} // it does not wait any more, and nobody looks at this one
	}
	if errors.Is(r.Err, errUnreadable) { // our fault, not the gateway's
		it.retry = now.Add(probeEvery)
		if it.LastError != r.Err.Error() { // once for each reason
			it.LastError = r.Err.Error()
			m.event(poet.Event{Kind: ProofUnreadable, Round: it.Round, Text: "the stored proof is not delivered, others are", Err: r.Err})
		}
		return
	}
	it.Ref = r.Ref
	it.Attempts++
	m.dirty = true
	if r.Err == nil {
		g.refusals, g.LastSuccess = 0, now
		if it.Round != "" {
			m.kept(it, g, now)
		}
		return
	}
	it.LastError = fmt.Sprintf("%s: %v", g.Addr, r.Err)
	m.event(poet.Event{Kind: BroadcastFailed, Gateway: g.Addr, Round: r.Call.Round, Text: r.Err.Error()})
	if it.later == nil {
		it.later = map[string]time.Time{}
	}
	switch {
	case errors.Is(r.Err, errRejected):
		// Another one takes its slot for this proof. The fault may be ours, and later
		// proofs may fare better, so it keeps it for them.
		it.later[g.Addr] = now.Add(longBan)
	case errors.Is(r.Err, errLied):
		g.refusals = deadAfter
		m.failed(g, r.Err, now)
		g.next = now.Add(longBan)
	case errors.Is(r.Err, errUnsure):
		g.refusals++
		m.failed(g, r.Err, now)
		it.later[g.Addr] = g.next.Add(retryMax) // once it lives again, other proofs come first
	default:
		g.refusals++
		m.failed(g, r.Err, now)
	}
}

// kept takes that a gateway took a proof and gave it back.
func (m *Machine) kept(it *item, g *gateway, now time.Time) {
	it.Keepers = append(it.Keepers, Keeper{Addr: g.Addr, ID: g.id()})
	m.event(poet.Event{Kind: ProofAcknowledged, Gateway: g.Addr, Round: it.Round, Text: "took the proof and gave it back"})
	if n := it.distinct(); n >= m.cfg.Acks {
		it.DeliveredAt, it.LastError = now, ""
		m.event(poet.Event{Kind: ProofDelivered, Round: it.Round,
			Text: fmt.Sprintf("delivered to %d gateways in %s", n, max(now.Sub(it.Added), 0).Round(time.Millisecond))})
	}
}

// expire reports what has become of no use.
func (m *Machine) expire(date time.Time) {
	for _, it := range m.proofs {
		over := it.DeliveredAt.IsZero() && !date.Before(it.UsefulUntil)
		if over && !it.told {
			m.event(poet.Event{Kind: ProofExpired, Round: it.Round, Text: "given up; it can still be pulled, or sent with `tweedle poet proofs rebroadcast`",
				Err: fmt.Errorf("%d gateways keep it; %s", len(it.Keepers), cmp.Or(it.LastError, "no gateway took it"))})
		}
		it.told = over
	}
}
