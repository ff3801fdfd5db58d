package core

import (
	"errors"

	"tweedle/protocol/mesh"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// A transaction is read once, by Check, which also looks at its signature if the
// state says who has to sign. From then on it is passed on as it was read: it
// waits in the pool, or among the extras, and is stored with the layer that
// applies it.

// keepExtras is for how many layers a transaction is kept that does not wait in
// the pool: until then a proposal or a block that names it may come.
const keepExtras = 4

// MaxExtraBytes bounds those transactions.
const MaxExtraBytes = 64 << 20

// extra is a transaction outside the pool.
type extra struct {
	tx    vm.Tx
	until types.Layer
}

// extras are the transactions that proposals named and the pool does not hold:
// those it refused, and those that had to leave.
type extras struct {
	of    map[types.TransactionID]*extra
	order []types.TransactionID
	bytes int
}

func newExtras() extras { return extras{of: make(map[types.TransactionID]*extra)} }

func (m *Machine) addExtra(tx vm.Tx) bool {
	if e := m.extras.of[tx.ID]; e != nil {
		e.until = m.layer + keepExtras
		return true
	}
	if m.extras.bytes+len(tx.Raw) > MaxExtraBytes {
		return false
	}
	m.extras.of[tx.ID] = &extra{tx, m.layer + keepExtras}
	m.extras.order = append(m.extras.order, tx.ID)
	m.extras.bytes += len(tx.Raw)
	return true
}

// expireTxs forgets the extras whose time has come.
func (m *Machine) expireTxs() {
	keep := m.extras.order[:0]
	for _, id := range m.extras.order {
		e := m.extras.of[id]
		if e.until >= m.layer {
			keep = append(keep, id)
			continue
		}
		delete(m.extras.of, id)
		m.extras.bytes -= len(e.tx.Raw)
	}
	m.extras.order = keep
}

// left notes that a transaction does not wait any more and was not applied.
func (m *Machine) left(tx vm.Tx, cause Cause) {
	m.addExtra(tx)
	m.event(Left{tx, cause})
}

// overtaken says why a state makes a transaction impossible.
func overtaken(tx vm.Tx, state vm.State) Cause {
	if state.Account(tx.Principal).NextNonce > tx.Nonce {
		return Overtaken
	}
	return Unfunded
}

// Waiting returns the transactions that wait for a block, in the order of their
// coming. It only reads.
func (m *Machine) Waiting() []vm.Tx { return m.pool.All() }

// Transaction returns a transaction that is not stored, because no applied layer
// has it; nil if it is not here. It only reads.
func (m *Machine) Transaction(id types.TransactionID) types.Transaction {
	if tx, ok := m.inMemory(id); ok {
		return tx.Raw
	}
	return nil
}

func (m *Machine) inMemory(id types.TransactionID) (vm.Tx, bool) {
	if v, ok := m.pool.Get(id); ok {
		return v.Tx, true
	}
	if e := m.extras.of[id]; e != nil {
		return e.tx, true
	}
	return vm.Tx{}, false
}

// tx finds a transaction, wherever it is.
func (m *Machine) tx(id types.TransactionID) (vm.Tx, bool) {
	if tx, ok := m.inMemory(id); ok {
		return tx, true
	}
	raw := m.read.transaction(id)
	if raw == nil {
		return vm.Tx{}, false
	}
	tx, err := vm.Parse(raw)
	return tx, err == nil
}

// maxMissing is how many things of a proposal, or of all blocks in one Step, are looked for in vain, and one more for each
// block: some 20 us each. Anybody can make a block of a hundred thousand that are nowhere. Whoever waits for the first comes
// back for the others.
const maxMissing = 1024

// txsMissing names those transactions that are nowhere, at most so many.
func (m *Machine) txsMissing(ids []types.TransactionID, limit int) (names []syncer.Name) {
	for _, id := range ids {
		if _, ok := m.tx(id); ok {
			continue
		}
		if names = append(names, syncer.Name{Kind: syncer.Transaction, ID: id}); len(names) >= limit {
			break
		}
	}
	return names
}

// judgeTx lets a transaction wait. One that was asked for, because a proposal
// or block names it, is kept also if it cannot wait, and whoever gave it is not
// to blame for what it is.
func (m *Machine) judgeTx(p *parked, msg *txMessage) judgement {
	name := syncer.Name{Kind: syncer.Transaction, ID: msg.tx.ID}
	asked := p.token == 0
	gone, err := m.pool.Add(msg.tx)
	if err == nil {
		m.event(Admitted{msg.tx})
		for _, tx := range gone {
			cause := Crowded
			if tx.Principal == msg.tx.Principal && tx.Nonce == msg.tx.Nonce {
				cause = Replaced
			}
			m.left(tx, cause)
		}
		m.arrived(name)
		return accepted()
	}
	if (m.intake.wantedBy(name) || m.chain.lacks[name]) && m.addExtra(msg.tx) {
		m.arrived(name)
	}
	if errors.Is(err, vm.ErrSignature) && p.from != Self && !asked {
		return rejected(err) // wrong in every state
	}
	return ignored(err)
}

// repool moves the pool to a state; the transactions of undone blocks wait again.
func (m *Machine) repool(state vm.State, undone []vm.Tx, applied []*mesh.Draft) {
	done := make(map[types.TransactionID]bool)
	for _, d := range applied {
		for _, id := range d.Block.Txs {
			done[id] = true
		}
	}
	for _, tx := range m.pool.Reverted(state, undone) {
		if !done[tx.ID] {
			m.left(tx, overtaken(tx, state))
		}
	}
	for _, tx := range undone {
		switch _, waits := m.pool.Get(tx.ID); {
		case waits:
			m.event(Admitted{tx})
		case !done[tx.ID]:
			m.left(tx, overtaken(tx, state))
		}
	}
}
