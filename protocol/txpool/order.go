package txpool

import (
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"slices"

	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// draw is the random number of a transaction under a seed.
func draw(seed types.Hash32, id types.TransactionID) types.Hash32 { return types.Sum(seed[:], id[:]) }

// Select returns the transactions that a proposal offers: at most limit of
// them, and no more gas than a block may have. Two seeds give two samples, so
// that the proposals of a layer differ; a higher gas price makes it more
// likely to be early. Transactions of one account keep their order of nonces.
//
// Each account takes part with the first transaction it has left, whose rank
// is its random number divided by its gas price; the lowest rank is next.
func (p *Pool) Select(seed types.Hash32, limit int) []vm.Valid {
	var race ranking
	for _, q := range p.accounts {
		race = append(race, rank(seed, q.entries))
	}
	heap.Init(&race)
	var picked []vm.Valid
	gas := p.params.BlockGasLimit
	for len(race) > 0 && len(picked) < limit {
		next := race[0].left[0]
		if next.Gas.Max > gas {
			heap.Pop(&race) // nothing later of this account may come before it
			continue
		}
		gas -= next.Gas.Max
		picked = append(picked, next.Valid)
		if left := race[0].left[1:]; len(left) > 0 {
			race[0] = rank(seed, left)
			heap.Fix(&race, 0)
		} else {
			heap.Pop(&race)
		}
	}
	return picked
}

// runner is an account in the race of Select.
type runner struct {
	rank uint64
	left []*entry
}

func rank(seed types.Hash32, left []*entry) runner {
	d := draw(seed, left[0].ID)
	return runner{binary.BigEndian.Uint64(d[:8]) / left[0].GasPrice, left}
}

// ranking is a heap of runners, lowest rank first. Equal ranks are decided by
// id, so that nothing depends on the order of a map.
type ranking []runner

func (r ranking) Len() int { return len(r) }
func (r ranking) Less(i, j int) bool {
	if r[i].rank != r[j].rank {
		return r[i].rank < r[j].rank
	}
	return bytes.Compare(r[i].left[0].ID[:], r[j].left[0].ID[:]) < 0
}
func (r ranking) Swap(i, j int) { r[i], r[j] = r[j], r[i] }

// Push is for package heap.
func (r *ranking) Push(x any) { *r = append(*r, x.(runner)) }

// Pop is for package heap.
func (r *ranking) Pop() any {
	last := len(*r) - 1
	x := (*r)[last]
	*r = (*r)[:last]
	return x
}

// Order returns the transactions of a block in the order in which they are
// executed, each once, whatever order and repetitions they come in.
//
// The rule, which is protocol: the transactions are sorted by
// BLAKE3(seed || id); then those of each principal are exchanged among the
// places that they have got, so that they stand by ascending nonce, equal
// nonces by descending gas price, equal prices by ascending id. Nobody can
// choose a place without knowing the seed.
func Order(seed types.Hash32, txs []vm.Tx) []vm.Tx {
	type placed struct {
		at types.Hash32
		vm.Tx
	}
	list := make([]placed, len(txs))
	for i, tx := range txs {
		list[i] = placed{draw(seed, tx.ID), tx}
	}
	slices.SortFunc(list, func(a, b placed) int { return bytes.Compare(a.at[:], b.at[:]) })
	list = slices.CompactFunc(list, func(a, b placed) bool { return a.ID == b.ID })
	own := map[types.Address][]vm.Tx{}
	for _, p := range list {
		own[p.Principal] = append(own[p.Principal], p.Tx)
	}
	for _, queue := range own {
		slices.SortFunc(queue, func(a, b vm.Tx) int {
			return cmp.Or(cmp.Compare(a.Nonce, b.Nonce), cmp.Compare(b.GasPrice, a.GasPrice), bytes.Compare(a.ID[:], b.ID[:]))
		})
	}
	ordered := make([]vm.Tx, len(list))
	for i, p := range list {
		ordered[i] = own[p.Principal][0]
		own[p.Principal] = own[p.Principal][1:]
	}
	return ordered
}
