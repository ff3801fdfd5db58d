package sim

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/syncer"
	"tweedle/protocol/tortoise"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// layer is an applied layer with what is needed to undo it.
type layer struct {
	decision types.Decision
	cert     types.Certificate
	txs      []vm.Tx
	state    vm.State // after it
	money    uint64   // of all its accounts, smidges
}

// memory is a node's store: what it has survives a crash of its node.
type memory struct {
	entries map[types.ATXID]*activation.Entry // not to be changed: readers share them
	atxs    map[types.ATXID]*types.ATX
	epochs  map[types.Epoch][]types.ATXID // ascending
	proofs  map[types.NodeID]*malfeasance.Proof
	poets   map[types.PoetProofRef]*types.PoetProofMessage
	newest  map[types.NodeID]types.ATXID // of each smesher
	evil    map[types.NodeID]time.Time
	sets    map[types.Hash32]types.ActiveSet
	ballots map[types.BallotID]*types.Ballot
	byLayer map[types.Layer][]*types.Ballot
	votes   map[types.Layer]tortoise.Record
	blocks  map[types.BlockID]*types.Block
	beacons map[types.Epoch]types.Beacon
	txs     map[types.TransactionID]types.Transaction
	layers  []layer                 // ascending; the first is genesis
	sums    map[types.Hash32]uint64 // money of the states that any node had, by their roots
}

func newMemory(p vm.Params, sums map[types.Hash32]uint64) *memory {
	state, err := vm.Genesis(p)
	if err != nil {
		panic(err)
	}
	s := &memory{
		entries: make(map[types.ATXID]*activation.Entry), atxs: make(map[types.ATXID]*types.ATX), epochs: make(map[types.Epoch][]types.ATXID),
		proofs: make(map[types.NodeID]*malfeasance.Proof), poets: make(map[types.PoetProofRef]*types.PoetProofMessage), evil: make(map[types.NodeID]time.Time),
		newest: make(map[types.NodeID]types.ATXID), sets: make(map[types.Hash32]types.ActiveSet), ballots: make(map[types.BallotID]*types.Ballot), blocks: make(map[types.BlockID]*types.Block), beacons: make(map[types.Epoch]types.Beacon),
		byLayer: make(map[types.Layer][]*types.Ballot), votes: make(map[types.Layer]tortoise.Record), txs: make(map[types.TransactionID]types.Transaction), sums: sums,
	}
	s.layers = []layer{{decision: types.Decision{Layer: p.EffectiveGenesis, StateRoot: state.Root()}, state: state, money: money(state)}}
	return s
}

func entriesOf(s vm.State) (out []vm.Entry) {
	for a, account := range s.All() {
		out = append(out, vm.Entry{Address: a, Account: account})
	}
	return out
}

// money is the same for all nodes that have the same state: it is added up once.
func (s *memory) money(state vm.State) uint64 {
	root := state.Root()
	sum, known := s.sums[root]
	if !known {
		sum = money(state)
		s.sums[root] = sum
	}
	return sum
}

func money(s vm.State) (sum uint64) {
	for _, account := range s.All() {
		sum += account.Balance
	}
	return sum
}

// commit does the writes of a Step. An impossible one is a fault of the machine.
func (s *memory) commit(writes []core.Write) error {
	for _, w := range writes {
		switch w := w.(type) {
		case core.WriteATX:
			s.addATX(w)
		case core.WritePoet:
			s.poets[w.Message.Proof.Ref()] = w.Message
		case core.DropPoet:
			delete(s.poets, w.Ref)
		case core.WriteMalfeasance:
			s.evil[w.Proof.Smesher] = w.Received
			s.proofs[w.Proof.Smesher] = w.Proof
		case core.WriteActiveSet:
			s.sets[w.Set.Hash()] = w.Set
		case core.WriteBallot:
			if s.ballots[w.ID] == nil {
				s.ballots[w.ID] = w.Ballot
				s.byLayer[w.Ballot.Layer] = append(s.byLayer[w.Ballot.Layer], w.Ballot)
			}
		case core.WriteBeacon:
			if old, known := s.beacons[w.Epoch]; known && old != w.Beacon {
				return fmt.Errorf("beacon of epoch %d is changed", w.Epoch)
			}
			s.beacons[w.Epoch] = w.Beacon
		case core.WriteOpinion:
			if w.Anew {
				clear(s.votes)
			}
			s.addOpinion(w.Record)
		case core.DropOpinions:
			clear(s.votes)
		case core.WriteBlock:
			s.addBlock(w.Block)
		case core.WriteRevert:
			s.revert(w.To)
		case core.WriteCertificate:
			d := w.Certificate.Decision
			i := s.at(d.Layer)
			if i >= len(s.layers) || s.layers[i].decision != d {
				return fmt.Errorf("certificate of layer %d, where another decision is applied", d.Layer)
			}
			s.layers[i].cert = *w.Certificate
		case core.WriteLayer:
			if err := s.apply(w); err != nil {
				return err
			}
		default:
			return fmt.Errorf("unknown write %T", w)
		}
	}
	return nil
}

func (s *memory) addATX(w core.WriteATX) {
	id := w.Entry.ID
	if _, known := s.entries[id]; known {
		return
	}
	s.entries[id], s.atxs[id] = &w.Entry, w.ATX
	if before, ok := s.newest[w.Entry.Smesher]; !ok || s.entries[before].PublishEpoch < w.Entry.PublishEpoch {
		s.newest[w.Entry.Smesher] = id
	}
	ids := s.epochs[w.Entry.PublishEpoch]
	i, _ := slices.BinarySearchFunc(ids, id, func(a, b types.ATXID) int { return bytes.Compare(a[:], b[:]) })
	s.epochs[w.Entry.PublishEpoch] = slices.Insert(ids, i, id)
}

func (s *memory) addBlock(b *types.Block) { s.blocks[b.ID()] = b }

func (s *memory) revert(to types.Layer) {
	for len(s.layers) > 1 && s.layers[len(s.layers)-1].decision.Layer > to {
		for _, tx := range s.tip().txs {
			delete(s.txs, tx.ID)
		}
		s.layers = s.layers[:len(s.layers)-1]
	}
}

func (s *memory) apply(w core.WriteLayer) error {
	s.revert(w.Base)
	d := w.Certificate.Decision
	if last := s.layers[len(s.layers)-1].decision; last.Layer != w.Base || d.Layer <= w.Base || last.StateRoot != d.Parent {
		return fmt.Errorf("layer %d on %d, but the newest stored is %d", d.Layer, w.Base, last.Layer)
	}
	s.addBlock(w.Block)
	for i, tx := range w.Txs {
		if w.Outcome.Results[i].Status == vm.Ineffective {
			continue // another layer before it has it: the block was made for another history
		}
		if s.txs[tx.ID] != nil {
			return fmt.Errorf("transaction %s is applied twice", tx.ID.Short())
		}
		s.txs[tx.ID] = tx.Raw
	}
	s.layers = append(s.layers, layer{d, *w.Certificate, w.Txs, w.Outcome.State, s.money(w.Outcome.State)})
	return nil
}

func (s *memory) tip() layer { return s.layers[len(s.layers)-1] }

// at returns the index of the first layer that is not before l.
func (s *memory) at(l types.Layer) int {
	i, _ := slices.BinarySearchFunc(s.layers, l, func(a layer, l types.Layer) int { return int(a.decision.Layer) - int(l) })
	return i
}

// The rest is core.Reader and core.Library.

func (s *memory) ATXEntry(id types.ATXID) (*activation.Entry, error) {
	return s.entries[id], nil
}

func (s *memory) ATX(id types.ATXID) (*types.ATX, error) { return s.atxs[id], nil }

func (s *memory) EpochEntries(e types.Epoch) (out []activation.Entry, err error) {
	for _, id := range s.epochs[e] {
		out = append(out, *s.entries[id])
	}
	return out, nil
}

func (s *memory) HighestEntry(last types.Epoch) (best *activation.Entry, err error) {
	for e := types.Epoch(1); e <= last; e++ {
		for _, id := range s.epochs[e] {
			if c := s.entries[id]; best == nil || c.Height() > best.Height() {
				best = c
			}
		}
	}
	return best, nil
}

func (s *memory) Poet(ref types.PoetProofRef) (*types.PoetProofMessage, error) {
	return s.poets[ref], nil
}
func (s *memory) Malicious() (map[types.NodeID]time.Time, error) { return s.evil, nil }
func (s *memory) Published(id types.NodeID) (bool, error) {
	_, ok := s.newest[id]
	return ok, nil
}
func (s *memory) Beacon(e types.Epoch) (*types.Beacon, error) {
	if v, ok := s.beacons[e]; ok {
		return &v, nil
	}
	return nil, nil
}

func (s *memory) ActiveSet(h types.Hash32) (types.ActiveSet, error) { return s.sets[h], nil }
func (s *memory) Ballot(id types.BallotID) (*types.Ballot, error)   { return s.ballots[id], nil }
func (s *memory) Block(id types.BlockID) (*types.Block, error)      { return s.blocks[id], nil }
func (s *memory) Tip() (types.Decision, error)                      { return s.tip().decision, nil }
func (s *memory) EpochATXs(e types.Epoch) ([]types.ATXID, error)    { return s.epochs[e], nil }
func (s *memory) Transaction(id types.TransactionID) (types.Transaction, error) {
	return s.txs[id], nil
}

// addOpinion forgets what is not needed any more.
func (s *memory) addOpinion(r tortoise.Record) {
	s.votes[r.Layer] = r
	for l := range s.votes {
		if l < r.Before {
			delete(s.votes, l)
		}
	}
}

func (s *memory) LayerBallots(l types.Layer) ([]*types.Ballot, error) { return s.byLayer[l], nil }

func (s *memory) Opinions() (out []tortoise.Record, err error) {
	for _, l := range slices.Sorted(maps.Keys(s.votes)) {
		out = append(out, s.votes[l])
	}
	return out, nil
}

func (s *memory) ReferenceBallot(smesher types.NodeID, first, last types.Layer) (best *types.Ballot, err error) {
	for _, b := range s.ballots {
		if b.Smesher == smesher && b.EpochData != nil && b.Layer >= first && b.Layer <= last && (best == nil || b.Layer < best.Layer) {
			best = b
		}
	}
	return best, nil
}

func (s *memory) Before(l types.Layer) (*types.Decision, error) {
	if i := s.at(l); i > 0 {
		return &s.layers[i-1].decision, nil
	}
	return nil, nil
}

func (s *memory) Decisions(from types.Layer, limit int) (out []types.Decision, err error) {
	for i := max(s.at(from), 1); i < len(s.layers) && len(out) < limit; i++ {
		out = append(out, s.layers[i].decision)
	}
	return out, nil
}

func (s *memory) Certificates(from types.Layer, limit int) (out []types.Certificate, err error) {
	for i := max(s.at(from), 1); i < len(s.layers) && len(out) < limit; i++ {
		out = append(out, s.layers[i].cert)
	}
	return out, nil
}

func (s *memory) LayerTransactions(l types.Layer) (out []types.Transaction, err error) {
	if i := s.at(l); i < len(s.layers) && s.layers[i].decision.Layer == l {
		for _, tx := range s.layers[i].txs {
			out = append(out, tx.Raw)
		}
	}
	return out, nil
}

func (s *memory) Accounts(at types.Layer) ([]vm.Entry, error) {
	i := s.at(at)
	if i == len(s.layers) || s.layers[i].decision.Layer != at {
		return nil, fmt.Errorf("layer %d is not applied", at)
	}
	return entriesOf(s.layers[i].state), nil
}

// Waiting says that nothing waited: nodes end by crashing here.
func (s *memory) Waiting() ([]types.Transaction, error) { return nil, nil }

// Object implements core.Library.
func (s *memory) Object(n syncer.Name) ([]byte, error) {
	switch n.Kind {
	case syncer.ATX:
		return encoded(s.atxs[n.ID])
	case syncer.PoetProof:
		return encoded(s.poets[n.ID])
	case syncer.Malfeasance:
		return encoded(s.proofs[n.ID])
	case syncer.ActiveSet:
		if set, ok := s.sets[n.ID]; ok {
			return codec.Encode(set), nil
		}
	case syncer.Ballot:
		return encoded(s.ballots[types.BallotID(n.ID[:20])])
	case syncer.Block:
		return encoded(s.blocks[types.BlockID(n.ID[:20])])
	case syncer.Transaction:
		return s.txs[n.ID], nil
	}
	return nil, nil
}

func encoded[T any, P interface {
	*T
	codec.Encodable
}](v P) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return codec.Encode(v), nil
}

// BallotIDs implements core.Library.
func (s *memory) BallotIDs(from types.Layer, limit int) (ids []types.BallotID, err error) {
	for _, l := range slices.Sorted(maps.Keys(s.byLayer)) {
		if l < from {
			continue
		}
		first := len(ids)
		for _, b := range s.byLayer[l] {
			ids = append(ids, b.ID())
		}
		slices.SortFunc(ids[first:], func(a, b types.BallotID) int { return bytes.Compare(a[:], b[:]) })
	}
	return ids[:min(len(ids), limit)], nil
}

// MaliciousIDs implements core.Library.
func (s *memory) MaliciousIDs() (out []types.NodeID, err error) {
	for id := range s.evil {
		out = append(out, id)
	}
	slices.SortFunc(out, func(a, b types.NodeID) int { return bytes.Compare(a[:], b[:]) })
	return out, nil
}

// library is what a node serves.
type library struct {
	*memory
	m   *core.Machine // nil: only what is stored
	now time.Time
}

// Now implements core.Library.
func (l library) Now() time.Time { return l.now }

// Open implements core.Library.
func (l library) Open() []types.Certificate {
	if l.m == nil {
		return nil
	}
	return l.m.Open()
}

// Object implements core.Library.
func (l library) Object(n syncer.Name) ([]byte, error) {
	if n.Kind == syncer.Transaction && l.m != nil {
		if raw := l.m.Transaction(n.ID); raw != nil {
			return raw, nil
		}
	}
	return l.memory.Object(n)
}

func (s *memory) library() library { return library{memory: s} }
