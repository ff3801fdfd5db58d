package api

import (
	"slices"
	"sync"

	"tweedle/protocol/vm"
	"tweedle/values/bounded"
	"tweedle/values/types"
)

// MaxLeft is of how many transactions that left the pool without being applied
// the cause is remembered.
const MaxLeft = 16_384

// waiting knows the transactions that wait for a block, from what the node says
// of them, so that readers ask nobody else. It is as large as the node's pool.
type waiting struct {
	mu        sync.Mutex // guards what follows
	of        map[types.TransactionID]vm.Tx
	byAddress map[types.Address][]types.TransactionID // in the order of their coming
	left      bounded.Map[types.TransactionID, Left]
}

func newWaiting() *waiting {
	return &waiting{
		of: make(map[types.TransactionID]vm.Tx), byAddress: make(map[types.Address][]types.TransactionID),
		left: bounded.New[types.TransactionID, Left](MaxLeft),
	}
}

// happened follows the node.
func (w *waiting) happened(ev Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch ev := ev.(type) {
	case Accepted:
		if _, known := w.of[ev.ID]; known {
			return
		}
		w.left.Remove(ev.ID)
		w.of[ev.ID] = ev.Tx
		for _, a := range ev.Addresses() {
			w.byAddress[a] = append(w.byAddress[a], ev.ID)
		}
	case Left:
		w.removeLocked([]types.TransactionID{ev.ID})
		w.left.Put(ev.ID, ev)
	case Applied:
		var done []types.TransactionID
		for _, r := range ev.Outcome.Results {
			if r.Status != vm.Ineffective {
				done = append(done, r.ID)
			}
		}
		w.removeLocked(done)
	}
}

func (w *waiting) removeLocked(ids []types.TransactionID) {
	touched := make(map[types.Address]bool)
	for _, id := range ids {
		if tx, ok := w.of[id]; ok {
			delete(w.of, id)
			for _, a := range tx.Addresses() {
				touched[a] = true
			}
		}
	}
	for a := range touched {
		left := slices.DeleteFunc(w.byAddress[a], func(id types.TransactionID) bool { _, ok := w.of[id]; return !ok })
		if w.byAddress[a] = left; len(left) == 0 {
			delete(w.byAddress, a)
		}
	}
}

// get returns a transaction that waits.
func (w *waiting) get(id types.TransactionID) (vm.Tx, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tx, ok := w.of[id]
	return tx, ok
}

// gone returns how a transaction left.
func (w *waiting) gone(id types.TransactionID) (Left, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.left.Get(id)
}

// count returns how many transactions that wait name an address.
func (w *waiting) count(a types.Address) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byAddress[a])
}

// page returns some of the transactions that name an address.
func (w *waiting) page(a types.Address, offset, limit int) (out []vm.Tx) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := w.byAddress[a]
	ids = ids[min(offset, len(ids)):]
	for _, id := range ids[:min(limit, len(ids))] {
		out = append(out, w.of[id])
	}
	return out
}
