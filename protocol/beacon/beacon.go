// Package beacon gives each epoch its randomness.
//
// Provisional (docs/decisions/0003-provisional-rules.md): the beacon is a hash
// over the ids of an epoch's ATXs, not yet the published protocol of
// reference/protocol.md A7. It promises that nodes with the same ATXs have the
// same beacon, and that an epoch without ATXs still gets one, from the hash
// chain. It does not promise that nobody can influence it.
//
// The real protocol will fill the same place: a value for each epoch, known
// before the epoch begins.
package beacon

import (
	"encoding/binary"
	"slices"

	"tweedle/values/types"
)

// Lookback is how many epochs before its own the ATXs of a beacon were
// published: far enough back that gossip has ended everywhere.
const Lookback = 2

// First returns the beacon before any ATX, from the network's golden ATX.
func First(golden types.ATXID) types.Beacon {
	h := types.Sum([]byte("beacon"), golden[:])
	return types.Beacon(h[:4])
}

// Next returns the beacon of an epoch from the one before it and the ids of
// the ATXs published Lookback epochs before it, in any order.
func Next(prev types.Beacon, epoch types.Epoch, atxs []types.ATXID) types.Beacon {
	sorted := slices.Clone(atxs)
	slices.SortFunc(sorted, func(a, b types.ATXID) int { return slices.Compare(a[:], b[:]) })
	parts := [][]byte{[]byte("beacon"), prev[:], binary.LittleEndian.AppendUint32(nil, uint32(epoch))}
	for i := range sorted {
		parts = append(parts, sorted[i][:])
	}
	h := types.Sum(parts...)
	return types.Beacon(h[:4])
}

// Chain returns the beacon of an epoch from the one before it and the
// electorate that was certified Lookback epochs before, zero if no layer of that
// epoch was. What is certified is the same for all; what was heard is not.
func Chain(prev types.Beacon, epoch types.Epoch, electorate types.Hash32) types.Beacon {
	h := types.Sum([]byte("beacon"), prev[:], binary.LittleEndian.AppendUint32(nil, uint32(epoch)), electorate[:])
	return types.Beacon(h[:4])
}
