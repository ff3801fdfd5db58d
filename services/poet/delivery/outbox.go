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

// Ack is one gateway's acknowledgement, confirmed when it gave the proof back.
type Ack struct {
	Addr        string
	ID          string // its name then
	Peers       uint32 // to whom it handed the proof
	At          time.Time
	ConfirmedAt time.Time // zero: not yet

	due time.Time // when to ask for the proof; zero after a restart: at once
}

// Record is what is known of a proof's delivery.
type Record struct {
	Round       string
	Ref         types.PoetProofRef // zero: it could not be read yet
	Size        int                // bytes
	State       string             `json:"-"` // follows from the rest and the clock
	Added       time.Time
	UsefulUntil time.Time
	DeliveredAt time.Time // zero: not yet
	Acks        []Ack     // one for each address
	Attempts    int
	LastError   string
}

type item struct {
	Record
	rejected map[string]time.Time // until when not to offer it to an address
	retry    time.Time            // it could not be read before a push: not before then
	told     bool                 // that it expired
}

// waits tells whether a proof is to be delivered at an hour.
func (it *item) waits(date time.Time) bool {
	return it.DeliveredAt.IsZero() && date.Before(it.UsefulUntil)
}

func (it *item) readable(now time.Time) bool {
	return it.Ref != types.PoetProofRef{} && !it.retry.After(now)
}

func (it *item) ack(addr string) *Ack {
	for i := range it.Acks {
		if it.Acks[i].Addr == addr {
			return &it.Acks[i]
		}
	}
	return nil
}

func (it *item) forget(addr string) {
	it.Acks = slices.DeleteFunc(it.Acks, func(a Ack) bool { return a.Addr == addr })
}

// confirmed returns how many distinct gateways have given the proof back.
func (it *item) confirmed() int {
	names := map[string]bool{}
	for _, a := range it.Acks {
		if !a.ConfirmedAt.IsZero() {
			names[a.ID] = true
		}
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
}

// Lacks tells whether the proof of a round is still to be read.
func (m *Machine) Lacks(round string) bool {
	it := m.item(round)
	return it == nil || it.Ref == types.PoetProofRef{}
}

// Found takes a proof that is due, or why it could not be read.
func (m *Machine) Found(d Due, p Proof, err error, now time.Time) {
	it := m.item(d.Round)
	if it == nil {
		it = &item{Record: Record{Round: d.Round, Added: now, UsefulUntil: d.UsefulUntil}}
		m.insert(it)
	}
	if err != nil {
		m.unreadable(it, err)
	} else {
		it.Ref, it.Size, it.LastError = p.Ref, len(p.Data), ""
		m.dirty = true
	}
}

// unreadable reports that a proof could not be read, once for each reason.
func (m *Machine) unreadable(it *item, err error) {
	if it.LastError != err.Error() {
		it.LastError = err.Error()
		m.event(poet.Event{Kind: ProofUnreadable, Round: it.Round, Text: "the stored proof is not delivered, others are", Err: err})
	}
}

// Rebroadcast offers a proof to the gateways anew, whatever became of it before.
func (m *Machine) Rebroadcast(p Proof, now, date time.Time) error {
	if m.waiting(date) >= MaxRecords {
		return fmt.Errorf("%d proofs wait for delivery already: set working gateways first", MaxRecords)
	}
	until := date.Add(m.cfg.Again)
	if p.UsefulUntil.After(until) {
		until = p.UsefulUntil
	}
	m.insert(&item{Record: Record{Round: p.Round, Ref: p.Ref, Size: len(p.Data), Added: now, UsefulUntil: until}})
	m.dirty = true
	return nil
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
		r.Acks = slices.Clone(r.Acks)
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

// disown forgets what a gateway acknowledged under another name: it may be
// another node now, and one that changes its name counts once at most.
func (m *Machine) disown(g *gateway) {
	for _, it := range m.proofs {
		if a := it.ack(g.Addr); a != nil && a.ID != g.id() && it.DeliveredAt.IsZero() {
			it.forget(g.Addr)
			m.dirty = true
		}
	}
}

// offered returns the proof that a push or fetch was about; or, if that does not
// wait any more, one that nobody looks at.
func (m *Machine) offered(c Call) *item {
	if it := m.item(c.Round); it != nil && it.Ref == c.Ref && it.DeliveredAt.IsZero() {
		return it
	}
	return &item{}
}

// pushed takes a push's result.
func (m *Machine) pushed(g *gateway, r Result, now time.Time) {
	it := m.offered(r.Call)
	if errors.Is(r.Err, errUnreadable) {
		it.retry = now.Add(retryMax)
		m.unreadable(it, r.Err)
		return
	}
	err := r.Err
	if err == nil {
		err = m.truthful(r.Call.Ref, r.Answer)
	}
	it.Attempts++
	if err == nil {
		g.refusals, g.LastSuccess = 0, now
		it.forget(g.Addr)
		it.Acks = append(it.Acks, Ack{Addr: g.Addr, ID: g.id(), Peers: r.Answer.Peers, At: now, due: now.Add(fetchDelay)})
		m.dirty = true
		m.event(poet.Event{Kind: ProofAcknowledged, Gateway: g.Addr, Round: r.Call.Round,
			Text: fmt.Sprintf("acknowledged, handed to %d peers", r.Answer.Peers)})
		return
	}
	it.LastError = fmt.Sprintf("%s: %v", g.Addr, err)
	m.event(poet.Event{Kind: BroadcastFailed, Gateway: g.Addr, Round: r.Call.Round, Text: err.Error()})
	if !errors.Is(err, ErrRejected) {
		m.refused(g, err, now)
		return
	}
	// Another one takes its slot for this proof. The fault may be ours, and later
	// proofs may fare better, so it keeps it for them.
	if it.rejected == nil {
		it.rejected = map[string]time.Time{}
	}
	it.rejected[g.Addr] = now.Add(longBan)
}

// truthful tells what an acknowledgement lacks.
func (m *Machine) truthful(ref types.PoetProofRef, a Answer) error {
	switch {
	case a.Ref != ref:
		return fmt.Errorf("acknowledged proof %s, not %s", a.Ref.Short(), ref.Short())
	case !a.Known && (!a.Validated || !a.Stored):
		return errors.New("answered without validating and storing the proof")
	case a.Peers < uint32(m.cfg.MinPeers):
		return fmt.Errorf("handed the proof to %d peers, %d are needed", a.Peers, m.cfg.MinPeers)
	}
	return nil
}

// fetched takes the result of asking for a proof that was acknowledged.
func (m *Machine) fetched(g *gateway, r Result, now time.Time) {
	it := m.offered(r.Call)
	switch a := it.ack(g.Addr); {
	case errors.Is(r.Err, ErrMissing):
		it.forget(g.Addr)
		err := fmt.Errorf("acknowledged proof %s but cannot give it back", r.Call.Ref.Short())
		m.event(poet.Event{Kind: GatewayLied, Gateway: g.Addr, Round: r.Call.Round, Text: "lied", Err: err})
		g.refusals = deadRefusals
		m.failed(g, err, now)
		g.next = now.Add(longBan)
	case r.Err != nil:
		m.refused(g, r.Err, now)
		if a != nil { // once it lives again, other proofs come first
			a.due = g.next.Add(retryMax)
		}
		return
	default:
		g.refusals, g.LastSuccess = 0, now
		if a != nil {
			a.ConfirmedAt = now
		}
	}
	m.dirty = true
	if n := it.confirmed(); n >= m.cfg.Acks {
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
				Err: fmt.Errorf("%d acknowledgements; %s", len(it.Acks), cmp.Or(it.LastError, "no gateway took it"))})
		}
		it.told = over
	}
}
