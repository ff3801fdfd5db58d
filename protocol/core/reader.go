package core

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/tortoise"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// Reader answers what is stored. What is not there is nil or empty, not an
// error; an error ends the node.
type Reader interface {
	ATXEntry(types.ATXID) (*activation.Entry, error)
	ATX(types.ATXID) (*types.ATX, error)
	EpochEntries(published types.Epoch) ([]activation.Entry, error)
	HighestEntry(last types.Epoch) (*activation.Entry, error)
	Poet(types.PoetProofRef) (*types.PoetProofMessage, error)
	Malicious() (map[types.NodeID]time.Time, error)
	// Published tells whether a smesher has an ATX.
	Published(types.NodeID) (bool, error)
	ActiveSet(types.Hash32) (types.ActiveSet, error)
	Ballot(types.BallotID) (*types.Ballot, error)
	// ReferenceBallot returns the first ballot with epoch data of a smesher in
	// the layers from first to last.
	ReferenceBallot(smesher types.NodeID, first, last types.Layer) (*types.Ballot, error)
	// LayerBallots returns the ballots of a layer, in any order.
	LayerBallots(types.Layer) ([]*types.Ballot, error)
	// Opinions returns what was written of layers, ascending, as far as it is needed.
	Opinions() ([]tortoise.Record, error)
	Block(types.BlockID) (*types.Block, error)
	// Beacon returns the beacon of an epoch.
	Beacon(types.Epoch) (*types.Beacon, error)
	Transaction(types.TransactionID) (types.Transaction, error)
	// Tip returns the newest applied layer; of genesis only Layer and StateRoot.
	Tip() (types.Decision, error)
	// Before returns the newest applied layer before one, as Tip does.
	Before(types.Layer) (*types.Decision, error)
	// Decisions returns at most limit decisions of applied layers with a block,
	// ascending from a layer.
	Decisions(from types.Layer, limit int) ([]types.Decision, error)
	// LayerTransactions returns the transactions that had an effect in a layer.
	LayerTransactions(types.Layer) ([]types.Transaction, error)
	// Accounts returns all accounts as they were after a layer.
	Accounts(at types.Layer) ([]vm.Entry, error)
	// Waiting returns the transactions that waited when the node ended, oldest
	// first. Those that do not any more are no harm.
	Waiting() ([]types.Transaction, error)
}

// view reads without plumbing errors: after the first one it answers nothing
// more, and Step returns it.
//
// What the current Step has written is not in the store yet; the overlay has
// it until the next Step.
type view struct {
	r   Reader
	err error

	dirty   bool // the overlay has something
	entries map[types.ATXID]*activation.Entry
	atxs    map[types.ATXID]*types.ATX
	poets   map[types.PoetProofRef]*types.PoetProofMessage
	ballots map[types.BallotID]*types.Ballot
	sets    map[types.Hash32]types.ActiveSet
	blocks  map[types.BlockID]*types.Block
	txs     map[types.TransactionID]types.Transaction
}

func newView(r Reader) view {
	return view{
		r: r, entries: make(map[types.ATXID]*activation.Entry), atxs: make(map[types.ATXID]*types.ATX),
		poets: make(map[types.PoetProofRef]*types.PoetProofMessage), ballots: make(map[types.BallotID]*types.Ballot),
		sets: make(map[types.Hash32]types.ActiveSet), blocks: make(map[types.BlockID]*types.Block),
		txs: make(map[types.TransactionID]types.Transaction),
	}
}

// begin forgets the overlay: what it has is committed. Most Steps write nothing.
func (v *view) begin() {
	if !v.dirty {
		return
	}
	v.dirty = false
	clear(v.entries)
	clear(v.atxs)
	clear(v.poets)
	clear(v.ballots)
	clear(v.sets)
	clear(v.blocks)
	clear(v.txs)
}

// wrote adds a write to the overlay.
func (v *view) wrote(w Write) {
	v.dirty = true
	switch w := w.(type) {
	case WriteATX:
		v.entries[w.Entry.ID], v.atxs[w.Entry.ID] = &w.Entry, w.ATX
	case WritePoet:
		v.poets[w.Message.Proof.Ref()] = w.Message
	case WriteBallot:
		v.ballots[w.ID] = w.Ballot
	case WriteActiveSet:
		v.sets[w.Set.Hash()] = w.Set
	case WriteBlock:
		v.blocks[w.Block.ID()] = w.Block
	case WriteLayer:
		for _, tx := range w.Txs {
			v.txs[tx.ID] = tx.Raw
		}
	}
}

func get[T any](v *view, f func() (T, error)) (out T) {
	if v.err != nil {
		return out
	}
	got, err := f()
	if err != nil {
		v.err = err
		return out
	}
	return got
}

func (v *view) entry(id types.ATXID) *activation.Entry {
	if got, ok := v.entries[id]; ok {
		return got
	}
	return get(v, func() (*activation.Entry, error) { return v.r.ATXEntry(id) })
}

func (v *view) atx(id types.ATXID) *types.ATX {
	if got, ok := v.atxs[id]; ok {
		return got
	}
	return get(v, func() (*types.ATX, error) { return v.r.ATX(id) })
}

func (v *view) poet(ref types.PoetProofRef) *types.PoetProofMessage {
	if got, ok := v.poets[ref]; ok {
		return got
	}
	return get(v, func() (*types.PoetProofMessage, error) { return v.r.Poet(ref) })
}

func (v *view) malicious() map[types.NodeID]time.Time { return get(v, v.r.Malicious) }

func (v *view) published(id types.NodeID) bool {
	for _, e := range v.entries {
		if e.Smesher == id {
			return true
		}
	}
	return get(v, func() (bool, error) { return v.r.Published(id) })
}

func (v *view) activeSet(h types.Hash32) types.ActiveSet {
	if got, ok := v.sets[h]; ok {
		return got
	}
	return get(v, func() (types.ActiveSet, error) { return v.r.ActiveSet(h) })
}

func (v *view) ballot(id types.BallotID) *types.Ballot {
	if got, ok := v.ballots[id]; ok {
		return got
	}
	return get(v, func() (*types.Ballot, error) { return v.r.Ballot(id) })
}

func (v *view) block(id types.BlockID) *types.Block {
	if got, ok := v.blocks[id]; ok {
		return got
	}
	return get(v, func() (*types.Block, error) { return v.r.Block(id) })
}

func (v *view) transaction(id types.TransactionID) types.Transaction {
	if got, ok := v.txs[id]; ok {
		return got
	}
	return get(v, func() (types.Transaction, error) { return v.r.Transaction(id) })
}

func (v *view) tip() types.Decision { return get(v, v.r.Tip) }

func (v *view) decisions(from types.Layer, limit int) []types.Decision {
	return get(v, func() ([]types.Decision, error) { return v.r.Decisions(from, limit) })
}

func (v *view) layerTransactions(l types.Layer) (txs []vm.Tx) {
	for _, raw := range get(v, func() ([]types.Transaction, error) { return v.r.LayerTransactions(l) }) {
		if tx, err := vm.Parse(raw); err == nil { // what was applied can be read
			txs = append(txs, tx)
		}
	}
	return txs
}

func (v *view) accounts(l types.Layer) []vm.Entry {
	return get(v, func() ([]vm.Entry, error) { return v.r.Accounts(l) })
}

func (v *view) waiting() []types.Transaction { return get(v, v.r.Waiting) }

// source is the view as package activation asks it.
func (v *view) source() activation.Source { return source{v} }

type source struct{ v *view }

// EpochEntries has what this Step writes too: the registry may let an epoch go
// and read it again before the Step ends.
func (s source) EpochEntries(e types.Epoch) []activation.Entry {
	out := get(s.v, func() ([]activation.Entry, error) { return s.v.r.EpochEntries(e) })
	for _, id := range slices.SortedFunc(maps.Keys(s.v.entries), func(a, b types.ATXID) int { return bytes.Compare(a[:], b[:]) }) {
		if w := s.v.entries[id]; w.PublishEpoch == e {
			out = append(out, *w) // the registry takes one of two
		}
	}
	return out
}

func (s source) HighestEntry(last types.Epoch) (activation.Entry, bool) {
	e := get(s.v, func() (*activation.Entry, error) { return s.v.r.HighestEntry(last) })
	if e == nil {
		return activation.Entry{}, false
	}
	return *e, true
}
