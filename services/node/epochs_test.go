package node

import (
	"bytes"
	"slices"
	"testing"

	"tweedle/edges/store"
	"tweedle/protocol/activation"
	"tweedle/protocol/beacon"
	"tweedle/values/types"
)

// store gives the epochs an ATX as validation would leave it.
func (w *world) store(tb testing.TB, published types.Epoch, smesher byte, weight uint64) types.ATXID {
	tb.Helper()
	a := &types.ATX{PublishEpoch: published, SmesherID: types.NodeID{smesher}}
	info := &activation.Info{ID: a.ID(), Smesher: a.SmesherID, PublishEpoch: published, Weight: weight, Ticks: 1}
	if err := w.db.AddATX(a, info, w.now()); err != nil {
		tb.Fatal(err)
	}
	w.epochs.added(published)
	return a.ID()
}

func (w *world) who(tb testing.TB, e types.Epoch) *electorate {
	tb.Helper()
	el, err := w.epochs.Electorate(e)
	if err != nil {
		tb.Fatal(err)
	}
	return el
}

func (w *world) beacon(tb testing.TB, e types.Epoch) types.Beacon {
	tb.Helper()
	b, err := w.epochs.Beacon(e)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestAnATXCountsInTheEpochAfterItsOwn(t *testing.T) {
	w := openWorld(t)
	for e := range types.Epoch(4) {
		if el := w.who(t, e); el.Total() != 0 || len(el.ids) != 0 {
			t.Fatalf("epoch %d has weight %d before there is any ATX", e, el.Total())
		}
	}
	first := w.store(t, 1, 1, 10)
	second := w.store(t, 1, 2, 5)
	el := w.who(t, 2)
	if el.Total() != 15 || len(el.ids) != 2 || bytes.Compare(el.ids[0][:], el.ids[1][:]) >= 0 {
		t.Errorf("epoch 2: weight %d, ATXs %v", el.Total(), el.ids)
	}
	if w.who(t, 1).Total() != 0 || w.who(t, 3).Total() != 0 {
		t.Error("the ATXs count in another epoch too")
	}
	if weight, ok := el.Weight(first, types.NodeID{1}); !ok || weight != 10 {
		t.Errorf("weight %d, %v", weight, ok)
	}
	if _, ok := el.Weight(first, types.NodeID{2}); ok {
		t.Error("an ATX counts for another smesher")
	}
	if _, ok := el.Weight(types.ATXID{}, types.NodeID{1}); ok {
		t.Error("an unknown ATX counts")
	}
	if own, ok := el.of(types.NodeID{2}); !ok || own.ID != second {
		t.Errorf("the ATX of smesher 2 is %s, %v", own.ID, ok)
	}
	if _, ok := el.of(types.NodeID{3}); ok {
		t.Error("somebody without ATX has one")
	}
}

func TestAnATXThatComesLaterChangesElectorateAndBeacons(t *testing.T) {
	w := openWorld(t)
	w.store(t, 1, 1, 10)
	before := w.who(t, 2)
	var beacons []types.Beacon
	for e := range types.Epoch(6) {
		beacons = append(beacons, w.beacon(t, e))
	}
	w.store(t, 1, 2, 5)
	if got := w.who(t, 2).Total(); got != 15 {
		t.Errorf("weight %d after another ATX", got)
	}
	if before.Total() != 10 || len(before.ids) != 1 {
		t.Error("an electorate that was handed out has changed")
	}
	for e, old := range beacons {
		changed := w.beacon(t, types.Epoch(e)) != old
		if want := types.Epoch(e) >= 1+beacon.Lookback; changed != want {
			t.Errorf("the beacon of epoch %d has changed: %v", e, changed)
		}
	}
}

func TestTheBeaconIsTheSameByWhateverWayItIsComputed(t *testing.T) {
	w := openWorld(t)
	atxs := map[types.Epoch][]types.ATXID{}
	for e := types.Epoch(1); e < 12; e += 2 { // every other epoch has none
		for smesher := range byte(3) {
			atxs[e] = append(atxs[e], w.store(t, e, smesher, 1))
		}
	}
	want := []types.Beacon{beacon.First(w.activation.Golden)}
	for e := types.Epoch(1); e < 16; e++ {
		var of []types.ATXID
		if e >= beacon.Lookback {
			of = atxs[e-beacon.Lookback]
		}
		want = append(want, beacon.Next(want[e-1], e, of))
	}
	for name, order := range map[string][]types.Epoch{
		"upwards":   {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		"downwards": {15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0},
		"jumping":   {7, 15, 0, 3, 15, 1, 14, 2, 13, 7},
	} {
		w.epochs = newEpochs(w.db, w.activation.Golden)
		for _, e := range order {
			if got := w.beacon(t, e); got != want[e] {
				t.Errorf("%s: the beacon of epoch %d is %s, want %s", name, e, got, want[e])
			}
		}
		if len(w.epochs.beacons) > maxCachedEpochs {
			t.Errorf("%d beacons are remembered, the limit is %d", len(w.epochs.beacons), maxCachedEpochs)
		}
	}
}

func TestTheOldestEpochsAreForgottenFirst(t *testing.T) {
	w := openWorld(t)
	for e := range types.Epoch(2 * maxCachedEpochs) {
		w.who(t, e)
	}
	var kept []types.Epoch
	for e := range w.epochs.electorate {
		kept = append(kept, e)
	}
	slices.Sort(kept)
	if len(kept) != maxCachedEpochs || kept[0] != maxCachedEpochs {
		t.Errorf("epochs %v are remembered", kept)
	}
}

// Positioning must not look at ATXs of the same or a later epoch.
func TestTheHighestATXIsOfAnEarlierEpoch(t *testing.T) {
	w := openWorld(t)
	if _, ok := w.Highest(5); ok {
		t.Error("there is an ATX before any was stored")
	}
	id := w.store(t, 2, 1, 1)
	for before, want := range map[types.Epoch]bool{0: false, 1: false, 2: false, 3: true, 100: true} {
		if got, ok := w.Highest(before); ok != want || ok && got != id {
			t.Errorf("before epoch %d: %s, %v", before, got, ok)
		}
	}
	if info, err := (view{w.Node}).ATX(id); err != nil || info == nil || info.ID != id {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err := (view{w.Node}).ATX(types.ATXID{1}); err != nil || info != nil {
		t.Errorf("an unknown ATX: %+v, %v", info, err)
	}
	if _, err := w.db.ATXRecord(types.ATXID{1}); err != store.ErrNotFound {
		t.Errorf("%v", err)
	}
}
