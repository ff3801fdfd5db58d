package node

import (
	"bytes"
	"slices"
	"sync"

	"tweedle/edges/store"
	"tweedle/protocol/beacon"
	"tweedle/values/types"
)

// maxCachedEpochs bounds what epochs remembers; the oldest go first.
const maxCachedEpochs = 8

// electorate is who counts in an epoch: the smeshers of the ATXs that target
// it. It is immutable.
type electorate struct {
	epoch types.Epoch
	atxs  map[types.ATXID]store.ATXRecord
	ids   types.ActiveSet // ascending
	total uint64
}

// Weight implements hare.Electorate.
func (e *electorate) Weight(atx types.ATXID, smesher types.NodeID) (uint64, bool) {
	h, ok := e.atxs[atx]
	if !ok || h.Smesher != smesher {
		return 0, false
	}
	return h.Weight, true
}

// Total implements hare.Electorate.
func (e *electorate) Total() uint64 { return e.total }

// of returns the ATX of a smesher.
func (e *electorate) of(smesher types.NodeID) (store.ATXRecord, bool) {
	for _, h := range e.atxs {
		if h.Smesher == smesher {
			return h, true
		}
	}
	return store.ATXRecord{}, false
}

// epochs answers what follows from the ATXs of an epoch. It caches, and
// forgets when another ATX comes.
type epochs struct {
	db     *store.DB
	golden types.ATXID

	mu         sync.Mutex // guards the fields below
	electorate map[types.Epoch]*electorate
	beacons    map[types.Epoch]types.Beacon
}

func newEpochs(db *store.DB, golden types.ATXID) *epochs {
	return &epochs{
		db: db, golden: golden,
		electorate: make(map[types.Epoch]*electorate), beacons: make(map[types.Epoch]types.Beacon),
	}
}

// added tells of a new ATX.
func (e *epochs) added(published types.Epoch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.electorate, published+1)
	for epoch := range e.beacons {
		if epoch >= published+beacon.Lookback {
			delete(e.beacons, epoch)
		}
	}
}

// Electorate returns who counts in an epoch.
func (e *epochs) Electorate(epoch types.Epoch) (*electorate, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if el := e.electorate[epoch]; el != nil {
		return el, nil
	}
	el := &electorate{epoch: epoch, atxs: make(map[types.ATXID]store.ATXRecord)}
	if epoch > 0 {
		records, err := e.db.EpochATXRecords(epoch - 1)
		if err != nil {
			return nil, err
		}
		for _, h := range records {
			el.atxs[h.ID] = h
			el.ids = append(el.ids, h.ID)
			el.total += h.Weight
		}
		slices.SortFunc(el.ids, func(a, b types.ATXID) int { return bytes.Compare(a[:], b[:]) })
	}
	evict(e.electorate)
	e.electorate[epoch] = el
	return el, nil
}

// Beacon returns the randomness of an epoch.
func (e *epochs) Beacon(epoch types.Epoch) (types.Beacon, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	from := types.Epoch(0)
	value := beacon.First(e.golden)
	for known, v := range e.beacons {
		if known <= epoch && known >= from {
			from, value = known, v
		}
	}
	for next := from + 1; next <= epoch; next++ {
		var atxs []types.ATXID
		if next >= beacon.Lookback {
			var err error
			if atxs, err = e.db.EpochATXs(next - beacon.Lookback); err != nil {
				return value, err
			}
		}
		value = beacon.Next(value, next, atxs)
	}
	evict(e.beacons)
	e.beacons[epoch] = value
	return value, nil
}

func evict[V any](m map[types.Epoch]V) {
	for len(m) >= maxCachedEpochs {
		oldest, first := types.Epoch(0), true
		for e := range m {
			if first || e < oldest {
				oldest, first = e, false
			}
		}
		delete(m, oldest)
	}
}
