package activation

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"tweedle/values/types"
)

type memory []Entry

func (m memory) EpochEntries(e types.Epoch) (out []Entry) {
	for _, r := range m {
		if r.PublishEpoch == e {
			out = append(out, r)
		}
	}
	return out
}

func (m memory) HighestEntry(last types.Epoch) (best Entry, ok bool) {
	for _, r := range m {
		if r.PublishEpoch <= last && (!ok || r.Height() > best.Height()) {
			best, ok = r, true
		}
	}
	return best, ok
}

func (m memory) ATX(id types.ATXID) (*Info, error) {
	for _, r := range m {
		if r.ID == id {
			return &r.Info, nil
		}
	}
	return nil, nil
}

func (m memory) Poet(types.PoetProofRef) (*Poet, error) { return nil, nil }

func clock() types.Schedule {
	return types.Schedule{Genesis: time.Unix(1000, 0).UTC(), LayerDuration: 2 * time.Second, LayersPerEpoch: 10}
}

// entry is an ATX of a smesher in epoch 1 with a weight, received a second after the epoch's start.
func entry(id, smesher byte, weight uint64) Entry {
	return Entry{
		Info:     Info{ID: types.ATXID{id}, Smesher: types.NodeID{smesher}, PublishEpoch: 1, Effective: uint32(weight), Ticks: 1, Weight: weight},
		Received: clock().EpochStart(1).Add(time.Second),
	}
}

func registry(entries ...Entry) *Registry { return NewRegistry(clock(), memory(entries), nil) }

func late(e Entry) Entry {
	e.Received = clock().EpochStart(2).Add(time.Second)
	return e
}

func TestTwoATXsOfASmesherWeighNothingInWhateverOrderTheyCome(t *testing.T) {
	all := []Entry{entry(1, 1, 10), entry(2, 1, 10), entry(3, 2, 10), entry(4, 3, 10)}
	want := types.ActiveSet{{3}, {4}}.Hash()
	for range 20 {
		r := registry()
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var caught int
		for _, e := range all {
			if r.Add(e) != nil {
				caught++
			}
		}
		el := r.Own(2, clock().EpochStart(2))
		if el.ID != want || el.Total() != 20 || caught != 1 {
			t.Fatalf("electorate %v of weight %d, caught %d times", el.Set(), el.Total(), caught)
		}
		if !r.Has(1, types.ATXID{1}) || !r.Has(1, types.ATXID{2}) {
			t.Fatal("an ATX is forgotten: what honest smeshers position on it could not be validated")
		}
	}
}

func TestTheElectorateIsFixedByTheClock(t *testing.T) {
	r := registry(entry(1, 1, 10), entry(2, 2, 10), entry(3, 3, 10))
	if r.Own(2, clock().EpochStart(2).Add(-Cut(clock())-1)) != nil {
		t.Fatal("fixed before its time")
	}
	before := r.Own(2, clock().EpochStart(2))
	r.Add(late(entry(4, 4, 10)))
	r.Add(late(entry(5, 1, 10))) // a second one of smesher 1
	if got := r.Own(2, clock().EpochStart(2)); got.ID != before.ID {
		t.Fatalf("what came late changed the electorate from %v to %v", before.Set(), got.Set())
	}
	// The same after a restart, from what was stored.
	again := registry(entry(1, 1, 10), entry(2, 2, 10), entry(3, 3, 10), late(entry(4, 4, 10)), late(entry(5, 1, 10)))
	if got := again.Own(2, clock().EpochStart(2)); got.ID != before.ID {
		t.Fatalf("a restart made %v of %v", got.Set(), before.Set())
	}
}

func TestASetOfOneSideOfASplitDoesNotStand(t *testing.T) {
	r := registry(entry(1, 1, 10), entry(2, 2, 10))
	half := r.Own(2, clock().EpochStart(2))
	r.Add(late(entry(3, 3, 10)))
	if !r.Plausible(half) {
		t.Fatal("a third of the weight that was withheld undoes a set")
	}
	r.Add(late(entry(4, 4, 10)))
	if r.Plausible(half) {
		t.Fatal("half of the weight stands for all")
	}
	if got := r.Own(2, clock().EpochStart(2)); len(got.Members) != 4 {
		t.Fatalf("after the split heals the node declares %v", got.Set())
	}
}

func TestLongerWorkThanTheOthersMakesNobodyHeavier(t *testing.T) {
	r := registry(entry(1, 1, 10), entry(2, 2, 10))
	el := r.Own(2, clock().EpochStart(2))
	withheld := late(entry(3, 3, 5)) // a fifth of the space
	withheld.Ticks, withheld.Weight = 1000, 5000
	r.Add(withheld)
	if !r.Plausible(el) {
		t.Fatal("an ATX with a thousand times the ticks undoes the electorate")
	}
}

func TestAProofTakesTheWeightFromTheNextElectorateOn(t *testing.T) {
	r := registry(entry(1, 1, 10), entry(2, 2, 10), entry(3, 3, 10), entry(4, 4, 10))
	el := r.Own(2, clock().EpochStart(2))
	if !r.Convict(types.NodeID{1}, clock().EpochStart(2).Add(time.Second)) || r.Convict(types.NodeID{1}, clock().EpochStart(2)) {
		t.Fatal("a proof is new once")
	}
	if got := r.Own(2, clock().EpochStart(2)); got.ID != el.ID {
		t.Fatal("a proof after the cut changed what the clock had fixed")
	}
	next := entry(5, 1, 10)
	next.PublishEpoch = 2
	r.Add(next)
	if got := r.Own(3, clock().EpochStart(3)); got.Total() != 0 {
		t.Fatalf("a convicted smesher weighs %d in the next epoch", got.Total())
	}
	if best, _ := r.Highest(2); best == (types.ATXID{1}) {
		t.Fatal("the highest ATX is a convicted smesher's")
	}
}

func TestADeclaredSetIsCheckedMemberByMember(t *testing.T) {
	other := entry(9, 9, 1)
	other.PublishEpoch = 0
	source := memory{entry(1, 1, 10), entry(2, 2, 20), entry(3, 2, 20), other}
	r := NewRegistry(clock(), source, nil)
	for name, tc := range map[string]struct {
		set  types.ActiveSet
		want error
	}{
		"empty":        {nil, ErrSetEmpty},
		"descending":   {types.ActiveSet{{2}, {1}}, ErrSetOrder},
		"repeated":     {types.ActiveSet{{1}, {1}}, ErrSetOrder},
		"of one twice": {types.ActiveSet{{2}, {3}}, ErrSetTwice},
		"other epoch":  {types.ActiveSet{{1}, {9}}, ErrSetEpoch},
	} {
		if _, err := r.Electorate(2, tc.set, source); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	var missing *Missing
	if _, err := r.Electorate(2, types.ActiveSet{{1}, {7}}, source); !errors.As(err, &missing) || len(missing.ATXs) != 1 || missing.ATXs[0] != (types.ATXID{7}) {
		t.Errorf("unknown member: %v", err)
	}
	el, err := r.Electorate(2, types.ActiveSet{{1}, {2}}, source)
	if err != nil || el.Total() != 30 || el.ID != (types.ActiveSet{{1}, {2}}).Hash() {
		t.Fatalf("%v, %v", el, err)
	}
	if w, ok := el.Weight(types.ATXID{2}, types.NodeID{2}); !ok || w != 20 {
		t.Errorf("weight %d, %v", w, ok)
	}
	if _, ok := el.Weight(types.ATXID{2}, types.NodeID{1}); ok {
		t.Error("an ATX gives its weight to another smesher")
	}
}

// Whoever waits for the ATXs that a long set is said to lack comes to its end, or to the one that is of another epoch.
func TestALongSetIsHadInParts(t *testing.T) {
	for _, foreign := range []int{-1, 0, MaxMissing + 5, 2*MaxMissing + 7} {
		var all, known memory
		var set types.ActiveSet
		for i := range 2*MaxMissing + 8 {
			e := entry(1, 1, 1)
			e.ID, e.Smesher = types.ATXID{byte(i >> 8), byte(i)}, types.NodeID{byte(i >> 8), byte(i)}
			if i == foreign {
				e.PublishEpoch = 0
			}
			all, set = append(all, e), append(set, e.ID)
		}
		if foreign >= 0 { // it is here
			known = memory{all[foreign]}
		}
		r := NewRegistry(clock(), known, nil)
		var missing *Missing
		var err error
		for range 4 {
			if _, err = r.Electorate(2, set, known); !errors.As(err, &missing) {
				break
			}
			if len(missing.ATXs) > MaxMissing {
				t.Fatalf("%d are named", len(missing.ATXs))
			}
			for _, id := range missing.ATXs {
				i := int(id[0])<<8 | int(id[1])
				if known = append(known, all[i]); i != foreign {
					r.Add(all[i])
				}
			}
		}
		if foreign < 0 && err != nil || foreign >= 0 && !errors.Is(err, ErrSetEpoch) {
			t.Errorf("with the %d. of another epoch: %v", foreign, err)
		}
	}
}

func TestTheRegistryHoldsFewEpochs(t *testing.T) {
	r := registry(entry(1, 1, 10))
	for e := range types.Epoch(100) {
		r.in(e)
	}
	if len(r.epochs) > maxLoaded {
		t.Fatalf("%d epochs are in memory", len(r.epochs))
	}
	if !r.Has(1, types.ATXID{1}) {
		t.Fatal("an epoch that was let go is not read again")
	}
}

func TestAnEpochThatWasLetGoAndAddedToIsReadFromTheStore(t *testing.T) {
	r := registry(entry(1, 1, 10))
	if r.Add(entry(1, 1, 10)) != nil {
		t.Fatal("the same ATX again is a second one")
	}
	if !r.Full(1, types.NodeID{1}) && r.Add(entry(2, 1, 10)) == nil {
		t.Fatal("a second one is not told")
	}
	if !r.Full(1, types.NodeID{1}) {
		t.Fatal("two are not enough")
	}
}
