package beacon

import (
	"testing"

	"tweedle/values/types"
)

func TestABeaconFollowsFromWhatWasCertified(t *testing.T) {
	first := First(types.ATXID{1})
	if Chain(first, 4, types.Hash32{1}) == Chain(first, 4, types.Hash32{2}) {
		t.Error("the electorate does not matter")
	}
	if Chain(first, 4, types.Hash32{1}) == Chain(First(types.ATXID{2}), 4, types.Hash32{1}) {
		t.Error("the beacon before does not matter")
	}
}

func TestEmptyEpochsHaveDifferentBeacons(t *testing.T) {
	seen := map[types.Beacon]types.Epoch{}
	b := First(types.ATXID{1})
	for e := types.Epoch(0); e < 100; e++ {
		b = Chain(b, e, types.Hash32{})
		if other, ok := seen[b]; ok {
			t.Fatalf("epochs %d and %d share a beacon", other, e)
		}
		seen[b] = e
	}
}
