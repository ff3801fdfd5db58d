package core

import (
	"errors"

	"tweedle/protocol/mesh"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// keepExtras is for how many layers a transaction is kept that does not wait in
// the pool: until then a proposal or a block that names it may come.
const keepExtras = 4

// MaxExtraBytes bounds those transactions.
const MaxExtraBytes = 64 << 20

// extra is a transaction outside the pool.
type extra struct {
	tx     vm.Tx
	stored bool // in the store, to be dropped from there
	until  types.Layer
}

// extras are the transactions that proposals named and the pool does not hold:
// those it refused, and those that had to leave.
type extras struct {
	of    map[types.TransactionID]*extra
	order []types.TransactionID
	bytes int
}

func newExtras() extras { return extras{of: make(map[types.TransactionID]*extra)} }

func (m *Machine) addExtra(tx vm.Tx, stored bool) bool {
	if e := m.extras.of[tx.ID]; e != nil {
		e.until, e.stored = m.layer+keepExtras, e.stored || stored
		return true
	}
	if m.extras.bytes+len(tx.Raw) > MaxExtraBytes && !stored {
		return false
	}
	m.extras.of[tx.ID] = &extra{tx, stored, m.layer + keepExtras}
	m.extras.order = append(m.extras.order, tx.ID)
	m.extras.bytes += len(tx.Raw)
	return true
}

// expireTxs forgets the extras whose time has come.
func (m *Machine) expireTxs() {
	var drop []types.TransactionID
	keep := m.extras.order[:0]
	for _, id := range m.extras.order {
		e := m.extras.of[id]
		if e.until >= m.layer {
			keep = append(keep, id)
			continue
		}
		delete(m.extras.of, id)
		m.extras.bytes -= len(e.tx.Raw)
		if _, waits := m.pool.Get(id); e.stored && !waits {
			drop = append(drop, id)
		}
	}
	m.extras.order = keep
	if len(drop) > 0 {
		m.write(DropTxs{drop})
	}
	for _, ref := range m.poets.drop {
		m.write(DropPoet{ref})
	}
	m.poets.drop = nil
}

// dropTx notes that a transaction that waited will not be applied.
func (m *Machine) dropTx(id types.TransactionID, reason string) {
	raw := m.read.transaction(id)
	if raw == nil {
		return
	}
	if tx, err := vm.Parse(raw); err == nil {
		m.addExtra(tx, true)
	}
	m.event(Left{id, reason})
}

// tx finds a transaction, wherever it is.
func (m *Machine) tx(id types.TransactionID) (vm.Tx, bool) {
	if v, ok := m.pool.Get(id); ok {
		return v.Tx, true
	}
	if e := m.extras.of[id]; e != nil {
		return e.tx, true
	}
	raw := m.read.transaction(id)
	if raw == nil {
		return vm.Tx{}, false
	}
	tx, err := vm.Parse(raw)
	return tx, err == nil
}

// txsMissing names those transactions that are nowhere.
func (m *Machine) txsMissing(ids []types.TransactionID) (names []syncer.Name) {
	for _, id := range ids {
		if _, ok := m.tx(id); !ok {
			names = append(names, syncer.Name{Kind: syncer.Transaction, ID: id})
		}
	}
	return names
}

// judgeTx lets a transaction wait. One that was asked for, because a proposal
// or block names it, is kept also if it cannot wait.
func (m *Machine) judgeTx(p *parked, msg *txMessage) judgement {
	id := msg.tx.ID
	name := syncer.Name{Kind: syncer.Transaction, ID: id}
	evicted, err := m.pool.Add(msg.tx.Raw)
	if err == nil {
		m.write(WriteTx{msg.tx.Raw, msg.tx.Addresses(), m.now})
		m.event(Admitted{msg.tx.Raw})
		for _, gone := range evicted {
			m.dropTx(gone, "another one with a higher gas price took its place")
		}
		m.arrived(name)
		return accepted()
	}
	if m.intake.wantedBy(name) && m.addExtra(msg.tx, false) {
		m.arrived(name)
	}
	if errors.Is(err, vm.ErrSignature) && p.from != Self {
		return rejected(err) // wrong in every state
	}
	return ignored(err)
}

// repool moves the pool to a state; the transactions of undone blocks wait again.
func (m *Machine) repool(state vm.State, undone []types.Transaction, applied []*mesh.Draft) {
	done := make(map[types.TransactionID]bool)
	for _, d := range applied {
		for _, id := range d.Block.Txs {
			done[id] = true
		}
	}
	for _, id := range m.pool.Reverted(state, undone) {
		if !done[id] {
			m.dropTx(id, "an applied transaction took its nonce or its funds")
		}
	}
	for _, raw := range undone {
		id := raw.ID()
		if _, waits := m.pool.Get(id); !waits && !done[id] {
			if tx, err := vm.Parse(raw); err == nil {
				m.addExtra(tx, true)
			}
		}
	}
}
