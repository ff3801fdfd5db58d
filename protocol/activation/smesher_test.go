package activation

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"tweedle/proofs/post"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

var (
	genesis  = time.Unix(10_000, 0)
	schedule = types.Schedule{Genesis: genesis, LayerDuration: 2 * time.Second, LayersPerEpoch: 10}
	rounds   = types.PoetSchedule{Genesis: genesis, EpochDuration: 20 * time.Second, PhaseShift: 10 * time.Second, CycleGap: 8 * time.Second}
	golden   = types.ATXID{0xaa}
)

func identity(t testing.TB) *signing.Signer {
	t.Helper()
	s, err := signing.NewSigner(signing.SeedFrom("smesher"), types.GenesisID{1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// world plays everything around one smesher in virtual time: it does the work
// at once, as long as the PoET lives, and keeps what is published.
type world struct {
	t         *testing.T
	now       time.Time
	id        *signing.Signer
	machine   *Smesher
	poetDown  func(now time.Time) bool
	published []*types.ATX
	dropped   []string
	pending   []Input
	chain     map[types.ATXID]types.Epoch
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: genesis.Add(-5 * time.Second), id: identity(t), chain: map[types.ATXID]types.Epoch{}}
	w.poetDown = func(time.Time) bool { return false }
	w.restart(Record{})
	return w
}

func (w *world) config() Config {
	return Config{
		Params: Params{Network: types.GenesisID{1}, Golden: golden, TickSize: 10, Post: post.TestParams()}, Schedule: schedule,
		Poet: rounds, NumUnits: 2, Grace: 5 * time.Second, FetchDelay: 100 * time.Millisecond, Retry: time.Second,
	}
}

func (w *world) restart(rec Record) { w.machine = NewSmesher(w.config(), w.id, rec) }

func (w *world) Highest(before types.Epoch) (types.ATXID, bool) {
	var best types.ATXID
	found := false
	for id, e := range w.chain {
		if e < before && (!found || e > w.chain[best]) {
			best, found = id, true
		}
	}
	return best, found
}

// until runs the world to a moment, step by step.
func (w *world) until(end time.Time) {
	w.t.Helper()
	for w.now.Before(end) {
		var in Input = Tick{}
		if len(w.pending) > 0 {
			in, w.pending = w.pending[0], w.pending[1:]
		} else {
			w.now = w.now.Add(100 * time.Millisecond)
		}
		out := w.machine.Step(w.now, in, w)
		if out.Dropped != "" {
			w.dropped = append(w.dropped, out.Dropped)
		}
		for _, work := range out.Work {
			if r := w.do(work); r != nil {
				w.pending = append(w.pending, r)
			}
		}
	}
}

func (w *world) do(work Work) Input {
	down := w.poetDown(w.now)
	switch work.Kind {
	case WorkInit:
		return Initialized{Space{CommitmentATX: golden, NumUnits: 2, VRFNonce: 7}}
	case WorkRegister:
		if down {
			return Failed{work.Kind, "no PoET"}
		}
		return Registered{work.Challenge, Registration{"poet", "r"}}
	case WorkFetch:
		if down {
			return Failed{work.Kind, "no PoET"}
		}
		return Fetched{work.Challenge, Membership{Ref: types.PoetProofRef(work.Challenge), NumLeaves: 100, NumMembers: 1}}
	case WorkProve:
		return Proved{work.PostChallenge, types.PostProof{Nonce: 1, Indices: []byte{1}}}
	case WorkPublish:
		if work.ATX.PublishEpoch != schedule.EpochAt(w.now) {
			w.t.Errorf("ATX for epoch %d published in epoch %d", work.ATX.PublishEpoch, schedule.EpochAt(w.now))
		}
		w.published = append(w.published, work.ATX)
		w.chain[work.ATX.ID()] = work.ATX.PublishEpoch
		return Published{work.ATX.ID()}
	}
	w.t.Fatalf("unknown work %d", work.Kind)
	return nil
}

func (w *world) epochs() (es []types.Epoch) {
	for _, a := range w.published {
		es = append(es, a.PublishEpoch)
	}
	return es
}

func TestASmesherPublishesOneATXInEveryEpoch(t *testing.T) {
	w := newWorld(t)
	w.until(schedule.EpochStart(6))
	if want := []types.Epoch{1, 2, 3, 4, 5}; !slices.Equal(w.epochs(), want) {
		t.Fatalf("published in epochs %v, want %v (dropped: %q)", w.epochs(), want, w.dropped)
	}
	first, second := w.published[0], w.published[1]
	if first.Initial == nil || len(first.PreviousATXs) != 0 || first.PositioningATX != golden {
		t.Error("the first ATX is not an initial one on golden")
	}
	if second.Initial != nil || second.PreviousATXs[0] != first.ID() || second.PositioningATX != first.ID() {
		t.Error("the second ATX does not build on the first")
	}
	id := second.ID()
	if !signing.NewVerifier(types.GenesisID{1}).Verify(signing.ATX, second.SmesherID, id[:], second.Signature) {
		t.Error("the ATX is not signed")
	}
}

func TestAfterEpochsThatEverybodyMissedATXsResumeByThemselves(t *testing.T) {
	w := newWorld(t)
	w.poetDown = func(now time.Time) bool {
		return !now.Before(schedule.EpochStart(3)) && now.Before(schedule.EpochStart(5))
	}
	w.until(schedule.EpochStart(9))
	// Round 2, which serves epoch 3, ends within the outage; registration for
	// round 5, which serves epoch 6, is open when it ends.
	if want := []types.Epoch{1, 2, 6, 7, 8}; !slices.Equal(w.epochs(), want) {
		t.Fatalf("published in epochs %v, want %v (dropped: %q)", w.epochs(), want, w.dropped)
	}
	if w.published[2].PreviousATXs[0] != w.published[1].ID() || w.published[2].PositioningATX != w.published[1].ID() {
		t.Error("the first ATX after the gap does not build on the last one before it")
	}
	if len(w.dropped) == 0 {
		t.Error("no challenge was dropped")
	}
}

func TestAnOutageBeforeTheFirstATXFallsBackToGolden(t *testing.T) {
	w := newWorld(t)
	w.poetDown = func(now time.Time) bool { return now.Before(schedule.EpochStart(4)) }
	w.until(schedule.EpochStart(7))
	if want := []types.Epoch{5, 6}; !slices.Equal(w.epochs(), want) {
		t.Fatalf("published in epochs %v, want %v", w.epochs(), want)
	}
	if w.published[0].Initial == nil || w.published[0].PositioningATX != golden {
		t.Error("the first ATX is not an initial one on golden")
	}
}

func TestARestartAtAnyMomentGoesOnWhereItStopped(t *testing.T) {
	for stop := time.Duration(0); stop < 65*time.Second; stop += 700 * time.Millisecond {
		w := newWorld(t)
		w.until(genesis.Add(stop))
		b := codec.Encode(w.machine.Record())
		var rec Record
		if err := codec.Decode(b, &rec); err != nil {
			t.Fatalf("stopped after %v: %v", stop, err)
		}
		w.pending = nil // work in progress is lost
		w.restart(rec)
		w.until(schedule.EpochStart(6))
		byEpoch := map[types.Epoch]types.ATXID{}
		for _, a := range w.published {
			if id, ok := byEpoch[a.PublishEpoch]; ok && id != a.ID() {
				t.Fatalf("stopped after %v: two different ATXs in epoch %d", stop, a.PublishEpoch)
			}
			byEpoch[a.PublishEpoch] = a.ID()
		}
		if len(byEpoch) != 5 {
			t.Fatalf("stopped after %v: published in %v", stop, w.epochs())
		}
	}
}

func TestResultsOfAnotherChallengeAreIgnored(t *testing.T) {
	w := newWorld(t)
	w.until(genesis.Add(11 * time.Second)) // registered, waits for the round
	before := codec.Encode(w.machine.Record())
	for name, in := range map[string]Input{
		"registered": Registered{types.Hash32{9}, Registration{"x", "y"}},
		"fetched":    Fetched{types.Hash32{9}, Membership{}},
		"proved":     Proved{types.PoetProofRef{9}, types.PostProof{}},
		"published":  Published{types.ATXID{9}},
	} {
		w.machine.Step(w.now, in, w)
		if !bytes.Equal(before, codec.Encode(w.machine.Record())) {
			t.Errorf("%s changed the record", name)
		}
	}
}

func FuzzRecord(f *testing.F) {
	w := &world{id: identity(f), chain: map[types.ATXID]types.Epoch{}, poetDown: func(time.Time) bool { return false }, now: genesis}
	w.restart(Record{})
	f.Add(codec.Encode(w.machine.Record()))
	f.Add(codec.Encode(&Record{
		Space: &Space{}, Last: types.ATXID{1}, LastEpoch: 3,
		Pending: &Pending{
			Registrations: []Registration{{"a", "b"}}, Poet: &Membership{Nodes: []types.Hash32{{1}}},
			Post: &types.PostProof{}, ATX: &types.ATX{},
		},
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if codec.Decode(b, &r) == nil && !bytes.Equal(codec.Encode(&r), b) {
			t.Fatalf("accepted %x, encodes as %x", b, codec.Encode(&r))
		}
	})
}
