package beacon

import (
	"encoding/binary"

	"tweedle/values/types"
)

// Of is the beacon that proposals give.
func Of(yes []Value) types.Beacon {
	h := types.Sum(bytesOf(yes)...)
	return types.Beacon(h[:4])
}

func bytesOf(list []Value) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i][:]
	}
	return out
}

// Fallback is the beacon of an epoch for which nobody could propose. Everybody can foresee
// it, and nobody can choose it. It follows from the network's golden ATX alone, not from the beacon
// before: who does not know that one would never know another, and if it is nobody's the
// network would not go on.
func Fallback(golden types.ATXID, epoch types.Epoch) types.Beacon {
	h := types.Sum([]byte("beacon fallback"), golden[:], binary.LittleEndian.AppendUint32(nil, uint32(epoch)))
	return types.Beacon(h[:4])
}

// Ballots learns an epoch's beacon from what ballots declare, for whoever was not
// there when it was found. It holds the weight of each smesher that it heard.
type Ballots struct {
	total   uint64
	heard   map[types.NodeID]uint64
	weights map[types.Beacon]uint64
}

// NewBallots returns the machine for an epoch with so much weight.
func NewBallots(total uint64) *Ballots {
	return &Ballots{total: total, heard: make(map[types.NodeID]uint64), weights: make(map[types.Beacon]uint64)}
}

// Add takes what a ballot of a smesher with weight declares, of each one once. It is the beacon when
// more than a third of the weight declares it: then somebody honest does.
func (b *Ballots) Add(s types.NodeID, declared types.Beacon, weight uint64) bool {
	if _, again := b.heard[s]; !again && weight > 0 {
		b.heard[s] = weight
		b.weights[declared] += weight
	}
	return b.weights[declared] > b.total/3
}

// Len is how many smeshers were heard.
func (b *Ballots) Len() int { return len(b.heard) }
