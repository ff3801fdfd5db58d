// Package txpool holds the transactions that wait for a block, picks those
// that a proposal offers, and has the rule by which a block orders them.
//
// It promises: every transaction it holds could be executed after those of
// the same account that wait before it, on top of the state it was last told
// of; memory is bounded by Limits; the same calls in the same order give the
// same answers. Order is a pure function, the same on every node.
//
// It leaves to the caller: telling it of every new state, gossip, and the
// randomness of proposals, which comes in as a seed. A Pool has one owner; it
// is not safe for concurrent use.
package txpool

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// Limits bound the memory of a pool.
type Limits struct {
	PerAccount   int // transactions of one account
	Transactions int // transactions in all
	Bytes        int // of the transactions in all
}

// DefaultLimits are those of a node (reference/protocol.md A11 for the limit
// per account).
func DefaultLimits() Limits {
	return Limits{PerAccount: 100, Transactions: 50_000, Bytes: 16 << 20}
}

// ReplacePercent is by how much the gas price of a transaction must exceed
// that of the one with the same nonce which it replaces, so that replacing is
// not a cheap way to make every node gossip again.
const ReplacePercent = 10

// Reasons why the pool refuses a valid transaction. Those of vm.Validate come
// through as they are.
var (
	ErrKnown       = errors.New("transaction is waiting already")
	ErrUnderpriced = errors.New("gas price is too low to replace the transaction that waits with this nonce")
	ErrAccountFull = errors.New("account has too many waiting transactions: wait until some are applied")
	ErrPending     = errors.New("balance is too low to pay for the waiting transactions too")
	ErrPoolFull    = errors.New("pool is full: offer a higher gas price or try later")
)

// Pool holds waiting transactions over the latest state.
type Pool struct {
	params   vm.Params
	limits   Limits
	state    vm.State
	accounts map[types.Address]*queue
	byID     map[types.TransactionID]*entry
	cheapest evictionOrder
	bytes    int
	arrivals uint64
}

// entry is one waiting transaction.
type entry struct {
	vm.Valid
	arrival uint64
	place   int // in Pool.cheapest
}

// queue has the waiting transactions of one account by ascending nonce, one
// for each. cost is the sum of their costs; it fits because the balance that
// it was compared with does.
type queue struct {
	entries []*entry
	cost    uint64
}

func (q *queue) find(nonce uint64) (int, bool) {
	return slices.BinarySearchFunc(q.entries, nonce, func(e *entry, n uint64) int { return cmp.Compare(e.Nonce, n) })
}

// New returns an empty pool over a state. Limits below one are a mistake of
// the caller and panic.
func New(state vm.State, p vm.Params, l Limits) *Pool {
	if l.PerAccount < 1 || l.Transactions < 1 || l.Bytes < types.MaxTransactionSize {
		panic(fmt.Sprintf("txpool: limits %+v cannot hold one transaction", l))
	}
	return &Pool{
		params: p, limits: l, state: state,
		accounts: map[types.Address]*queue{}, byID: map[types.TransactionID]*entry{},
	}
}

// Len returns how many transactions wait.
func (p *Pool) Len() int { return len(p.byID) }

// Bytes returns the size of the waiting transactions.
func (p *Pool) Bytes() int { return p.bytes }

// Get returns a waiting transaction.
func (p *Pool) Get(id types.TransactionID) (vm.Valid, bool) {
	if e, ok := p.byID[id]; ok {
		return e.Valid, true
	}
	return vm.Valid{}, false
}

// All returns what waits, in the order of its coming.
func (p *Pool) All() []vm.Tx {
	entries := slices.SortedFunc(maps.Values(p.byID), func(a, b *entry) int { return cmp.Compare(a.arrival, b.arrival) })
	out := make([]vm.Tx, len(entries))
	for i, e := range entries {
		out[i] = e.Tx
	}
	return out
}

// Projected returns the nonce and balance that an account would have if all
// its waiting transactions were executed and nobody paid it.
func (p *Pool) Projected(address types.Address) (nextNonce, balance uint64) {
	account := p.state.Account(address)
	if q := p.accounts[address]; q != nil {
		return q.entries[len(q.entries)-1].Nonce + 1, account.Balance - q.cost
	}
	return account.NextNonce, account.Balance
}

// Add validates a transaction and lets it wait. It returns the transactions
// that had to leave for it: the one it replaces, and while a limit is
// exceeded the one with the lowest gas price, the latest of several. On error,
// which is one line, nothing has changed.
func (p *Pool) Add(tx vm.Tx) (evicted []vm.Tx, err error) {
	if _, ok := p.byID[tx.ID]; ok {
		return nil, ErrKnown
	}
	v, err := vm.Validate(tx, p.state, p.params)
	if err != nil {
		return nil, err
	}
	return p.admit(v)
}

func (p *Pool) admit(v vm.Valid) (evicted []vm.Tx, err error) {
	var replaced *entry
	var pending uint64
	if q := p.accounts[v.Principal]; q != nil {
		pending = q.cost
		i, taken := q.find(v.Nonce)
		switch {
		case taken && !outbids(v.GasPrice, q.entries[i].GasPrice):
			return nil, fmt.Errorf("%w: it is %d, that one pays %d", ErrUnderpriced, v.GasPrice, q.entries[i].GasPrice)
		case taken:
			replaced = q.entries[i]
			pending -= replaced.Cost
		case len(q.entries) >= p.limits.PerAccount:
			return nil, fmt.Errorf("%w: the limit is %d", ErrAccountFull, p.limits.PerAccount)
		}
	}
	balance := p.state.Account(v.Principal).Balance
	if sum, over := bits.Add64(pending, v.Cost, 0); over != 0 || sum > balance {
		return nil, fmt.Errorf("%w: it is %d, waiting ones take %d, this one %d", ErrPending, balance, pending, v.Cost)
	}
	if replaced != nil {
		p.remove(replaced)
		evicted = append(evicted, replaced.Tx)
	}
	victims, ok := p.makeRoom(v)
	if !ok {
		if replaced != nil {
			p.insert(replaced)
		}
		return nil, ErrPoolFull
	}
	for _, e := range victims {
		evicted = append(evicted, e.Tx)
	}
	p.arrivals++
	p.insert(&entry{Valid: v, arrival: p.arrivals})
	return evicted, nil
}

// outbids tells whether a price is ReplacePercent above another one.
func outbids(price, other uint64) bool {
	step := other / 100 * ReplacePercent
	step += (other%100*ReplacePercent + 99) / 100
	sum, over := bits.Add64(other, step, 0)
	return over == 0 && price >= sum
}

// makeRoom removes and returns the cheapest transactions until one more fits.
// If one of them pays no less than the newcomer nothing is removed.
func (p *Pool) makeRoom(newcomer vm.Valid) (victims []*entry, ok bool) {
	for len(p.byID)+1 > p.limits.Transactions || p.bytes+len(newcomer.Raw) > p.limits.Bytes {
		if len(p.cheapest) == 0 || p.cheapest[0].GasPrice >= newcomer.GasPrice {
			for _, e := range victims {
				p.insert(e)
			}
			return nil, false
		}
		e := p.cheapest[0]
		p.remove(e)
		victims = append(victims, e)
	}
	return victims, true
}

func (p *Pool) insert(e *entry) {
	q := p.accounts[e.Principal]
	if q == nil {
		q = &queue{}
		p.accounts[e.Principal] = q
	}
	i, _ := q.find(e.Nonce)
	q.entries = slices.Insert(q.entries, i, e)
	q.cost += e.Cost
	p.byID[e.ID] = e
	p.bytes += len(e.Raw)
	heap.Push(&p.cheapest, e)
}

func (p *Pool) remove(e *entry) {
	q := p.accounts[e.Principal]
	i, _ := q.find(e.Nonce)
	q.entries = slices.Delete(q.entries, i, i+1)
	q.cost -= e.Cost
	if len(q.entries) == 0 {
		delete(p.accounts, e.Principal)
	}
	delete(p.byID, e.ID)
	p.bytes -= len(e.Raw)
	heap.Remove(&p.cheapest, e.place)
}

// Applied moves the pool to another state and returns the transactions that
// can no longer wait, in ascending order of their ids: their nonce is used, by them or by
// others, or the balance does not cover them after those before them.
// A transaction that a block passed over stays if it can still be executed.
func (p *Pool) Applied(state vm.State) (dropped []vm.Tx) {
	p.state = state
	var stale []*entry
	for address, q := range p.accounts {
		balance := state.Account(address).Balance
		for _, e := range q.entries {
			if vm.Revalidate(e.Valid, state, p.params) != nil || e.Cost > balance {
				stale = append(stale, e)
			} else {
				balance -= e.Cost
			}
		}
	}
	for _, e := range stale {
		p.remove(e)
		dropped = append(dropped, e.Tx)
	}
	slices.SortFunc(dropped, func(a, b vm.Tx) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return dropped
}

// Reverted moves the pool back to an older state and lets the transactions of
// the blocks that were undone wait again, as far as they can be executed. It
// returns those that left for it, like Applied and Add.
func (p *Pool) Reverted(state vm.State, txs []vm.Tx) (dropped []vm.Tx) {
	dropped = p.Applied(state)
	for _, tx := range txs {
		evicted, err := p.Add(tx)
		if err == nil {
			dropped = append(dropped, evicted...)
		}
	}
	return dropped
}

// evictionOrder is a heap whose first element leaves first.
type evictionOrder []*entry

func (h evictionOrder) Len() int { return len(h) }
func (h evictionOrder) Less(i, j int) bool {
	if h[i].GasPrice != h[j].GasPrice {
		return h[i].GasPrice < h[j].GasPrice
	}
	return h[i].arrival > h[j].arrival
}
func (h evictionOrder) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is for package heap.
func (h *evictionOrder) Push(x any) {
	e := x.(*entry)
	e.place = len(*h)
	*h = append(*h, e)
}

// Pop is for package heap.
func (h *evictionOrder) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
