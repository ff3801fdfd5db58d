// Package beacon gives each epoch its randomness.
//
// Provisional (docs/decisions/0003-provisional-rules.md): the beacon is a hash
// over what was certified, not yet the published protocol of
// reference/protocol.md A7. It promises that nodes with the same history have
// the same beacon, and that an epoch without one still gets a beacon, from the
// hash chain. It does not promise that nobody can influence it.
//
// The real protocol will fill the same place: a value for each epoch, known
// before the epoch begins.
package beacon

import (
	"encoding/binary"

	"tweedle/values/types"
)

// Lookback is how many epochs before its own the electorate of a beacon was
// certified: far enough back that all have the certificate.
const Lookback = 2

// First returns the beacon before any ATX, from the network's golden ATX.
func First(golden types.ATXID) types.Beacon {
	h := types.Sum([]byte("beacon"), golden[:])
	return types.Beacon(h[:4])
}

// Chain returns the beacon of an epoch from the one before it and the
// electorate that was certified Lookback epochs before, zero if no layer of that
// epoch was. What is certified is the same for all; what was heard is not.
func Chain(prev types.Beacon, epoch types.Epoch, electorate types.Hash32) types.Beacon {
	h := types.Sum([]byte("beacon"), prev[:], binary.LittleEndian.AppendUint32(nil, uint32(epoch)), electorate[:])
	return types.Beacon(h[:4])
}
