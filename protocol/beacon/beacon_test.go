package beacon

import (
	"testing"

	"tweedle/values/types"
)

func TestBeaconDependsOnTheSetOfATXsNotOnTheirOrder(t *testing.T) {
	first := First(types.ATXID{1})
	a, b := types.ATXID{2}, types.ATXID{3}
	if Next(first, 2, []types.ATXID{a, b}) != Next(first, 2, []types.ATXID{b, a}) {
		t.Error("order matters")
	}
	if Next(first, 2, []types.ATXID{a, b}) == Next(first, 2, []types.ATXID{a}) {
		t.Error("an ATX does not matter")
	}
}

func TestEmptyEpochsHaveDifferentBeacons(t *testing.T) {
	seen := map[types.Beacon]types.Epoch{}
	b := First(types.ATXID{1})
	for e := types.Epoch(0); e < 100; e++ {
		b = Next(b, e, nil)
		if other, ok := seen[b]; ok {
			t.Fatalf("epochs %d and %d share a beacon", other, e)
		}
		seen[b] = e
	}
}
