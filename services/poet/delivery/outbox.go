package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"tweedle/values/types"
)

// Delivery states of a proof.
const (
	Pending   = "pending"
	Delivered = "delivered"
	Expired   = "expired" // never delivered, and of no use any more; it can still be pulled
)

// Receipt is one gateway's acknowledgement, or its proof of having kept it.
type Receipt struct {
	Addr  string
	ID    string
	Peers uint32 `json:",omitempty"`
	At    time.Time
}

// Record is what is known of a proof's delivery.
type Record struct {
	Seq         uint64 // order of addition
	Round       string
	Ref         types.PoetProofRef
	Size        int // bytes
	State       string
	Added       time.Time
	UsefulUntil time.Time
	DeliveredAt time.Time
	Acks        []Receipt // distinct gateways
	Confirmed   []Receipt // those that gave the proof back
	Attempts    int
	LastError   string
}

type item struct {
	Record
	data  []byte // nil unless pending
	fresh bool   // data was never saved
}

func (it *item) ack(id string) *Receipt     { return receiptOf(it.Acks, id) }
func (it *item) confirmedBy(id string) bool { return receiptOf(it.Confirmed, id) != nil }
func receiptOf(list []Receipt, id string) *Receipt {
	for i := range list {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}

// AddProof puts a proof into the outbox. A round that is there already is left
// as it is, so that a restart may offer everything again.
func (m *Machine) AddProof(p Proof, now time.Time) error {
	if err := m.admit(p); err != nil {
		return err
	}
	for _, it := range m.proofs {
		if it.Round == p.Round && it.Ref == p.Ref {
			return nil
		}
	}
	m.append(p, now)
	return nil
}

// Rebroadcast offers a proof to every gateway anew, after those that wait.
func (m *Machine) Rebroadcast(p Proof, now time.Time) error {
	if err := m.admit(p); err != nil {
		return err
	}
	for _, it := range m.proofs {
		if it.Round == p.Round {
			m.dirty[it.Seq] = true
		}
	}
	m.proofs = slices.DeleteFunc(m.proofs, func(it *item) bool { return it.Round == p.Round })
	m.append(p, now)
	for _, s := range m.slots {
		if s.State != Live {
			s.next = now
		}
	}
	return nil
}

func (m *Machine) admit(p Proof) error {
	pending := m.waiting()
	switch {
	case len(p.Data) == 0 || len(p.Data) > MaxProofSize:
		return fmt.Errorf("a proof of %d bytes cannot be delivered: the limit is %d", len(p.Data), MaxProofSize)
	case pending >= MaxPending:
		return fmt.Errorf("%d proofs wait for delivery already: set working gateways first", pending)
	}
	return nil
}

// waiting returns how many proofs wait for delivery.
func (m *Machine) waiting() (n int) {
	for _, it := range m.proofs {
		if it.State == Pending {
			n++
		}
	}
	return n
}

func (m *Machine) append(p Proof, now time.Time) {
	m.proofs = append(m.proofs, &item{
		Record: Record{Seq: m.nextSeq, Round: p.Round, Ref: p.Ref, Size: len(p.Data), State: Pending, Added: now, UsefulUntil: p.UsefulUntil},
		data:   bytes.Clone(p.Data),
		fresh:  true,
	})
	m.dirty[m.nextSeq] = true
	m.nextSeq++
}

// Proofs lists the records, oldest first.
func (m *Machine) Proofs() []Record {
	var list []Record
	for _, it := range m.proofs {
		r := it.Record
		r.Acks, r.Confirmed = slices.Clone(r.Acks), slices.Clone(r.Confirmed)
		list = append(list, r)
	}
	return list
}

// pushed takes a push's result.
func (m *Machine) pushed(s *slot, r Result, now time.Time) {
	it := m.find(r.Call.Seq)
	if it == nil {
		return // replaced by a rebroadcast meanwhile
	}
	it.Attempts++
	m.dirty[it.Seq] = true
	err := r.Err
	if err == nil {
		err = m.truthful(it, r.Ack)
	}
	if err != nil {
		it.LastError = fmt.Sprintf("%s: %v", s.Addr, err)
		m.event(Event{Time: now, Kind: BroadcastFailed, Gateway: s.Addr, Round: it.Round, Text: err.Error()})
		if errors.Is(err, ErrRejected) {
			if s.rejected == nil {
				s.rejected = map[uint64]bool{}
			}
			s.rejected[it.Seq] = true
			return
		}
		s.refusals++
		m.failed(s, err, now)
		return
	}
	s.refusals = 0
	m.succeeded(s, now)
	if it.State == Pending && it.ack(s.identity()) == nil {
		it.Acks = append(it.Acks, Receipt{Addr: s.Addr, ID: s.identity(), Peers: r.Ack.Peers, At: now})
		m.event(Event{Time: now, Kind: ProofAcknowledged, Gateway: s.Addr, Round: it.Round,
			Text: fmt.Sprintf("acknowledged, handed to %d peers", r.Ack.Peers)})
	}
	m.settle(it, now)
}

// truthful tells what an acknowledgement lacks.
func (m *Machine) truthful(it *item, a Ack) error {
	switch {
	case a.Ref != it.Ref:
		return fmt.Errorf("acknowledged proof %s, not %s", a.Ref.Short(), it.Ref.Short())
	case !a.Known && (!a.Validated || !a.Stored):
		return errors.New("answered without validating and storing the proof")
	case a.Peers < uint32(m.cfg.MinPeers):
		return fmt.Errorf("handed the proof to %d peers, %d are needed", a.Peers, m.cfg.MinPeers)
	}
	return nil
}

// fetched takes the result of asking for a proof that was acknowledged.
func (m *Machine) fetched(s *slot, r Result, now time.Time) {
	it := m.find(r.Call.Seq)
	if it == nil || it.State != Pending {
		return
	}
	switch {
	case errors.Is(r.Err, ErrMissing):
		it.Acks = slices.DeleteFunc(it.Acks, func(a Receipt) bool { return a.ID == s.identity() })
		m.dirty[it.Seq] = true
		m.event(Event{Time: now, Kind: GatewayLied, Gateway: s.Addr, Round: it.Round, Text: "acknowledged the proof but cannot give it back"})
		m.ban(s, "acknowledged proof "+it.Ref.Short()+" but cannot give it back", now)
	case r.Err != nil:
		s.refusals++
		m.failed(s, r.Err, now)
	default:
		s.refusals = 0
		m.succeeded(s, now)
		if !it.confirmedBy(s.identity()) {
			it.Confirmed = append(it.Confirmed, Receipt{Addr: s.Addr, ID: s.identity(), At: now})
			m.dirty[it.Seq] = true
		}
		m.settle(it, now)
	}
}

// settle ends a delivery that has all it needs.
func (m *Machine) settle(it *item, now time.Time) {
	if it.State != Pending || len(it.Acks) < m.cfg.Acks || len(it.Confirmed) < m.cfg.Acks {
		return
	}
	it.State, it.DeliveredAt, it.LastError, it.data = Delivered, now, "", nil
	m.event(Event{Time: now, Kind: ProofDelivered, Round: it.Round,
		Text: fmt.Sprintf("delivered to %d gateways in %s", len(it.Acks), now.Sub(it.Added).Round(time.Millisecond))})
	m.trim()
}

// expire gives up what is of no use any more.
func (m *Machine) expire(now time.Time) {
	for _, it := range m.proofs {
		if it.State != Pending || now.Before(it.UsefulUntil) {
			continue
		}
		it.State, it.data = Expired, nil
		m.dirty[it.Seq] = true
		m.event(Event{Time: now, Kind: ProofExpired, Round: it.Round,
			Text: fmt.Sprintf("given up with %d acknowledgements; it can still be pulled (%s)", len(it.Acks), it.LastError)})
	}
	m.trim()
}

// trim forgets the oldest records that no longer wait.
func (m *Machine) trim() {
	over := -MaxHistory
	for _, it := range m.proofs {
		if it.State != Pending {
			over++
		}
	}
	m.proofs = slices.DeleteFunc(m.proofs, func(it *item) bool {
		if over <= 0 || it.State == Pending {
			return false
		}
		over--
		m.dirty[it.Seq] = true
		return true
	})
}
