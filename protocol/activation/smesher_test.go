package activation

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"tweedle/proofs/post"
	"tweedle/values/codec"
	"tweedle/values/merkle"
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
		Patience: time.Second, ChooseBy: 4 * time.Second,
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

func (w *world) Last() (id types.ATXID, e types.Epoch, ok bool) {
	if n := len(w.published); n > 0 {
		return w.published[n-1].ID(), w.published[n-1].PublishEpoch, true
	}
	return id, e, false
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
			return Failed{work.Kind, work.Of, "no PoET"}
		}
		return Registered{work.Of, Registration{Poet: "poet", Round: "r"}}
	case WorkPlace:
		return nil // it does not say
	case WorkFetch:
		if down {
			return Failed{work.Kind, work.Of, "no PoET"}
		}
		return Fetched{work.Of, work.Registrations[0], Membership{Ref: types.PoetProofRef(work.Of), NumLeaves: 100, NumMembers: 1}}
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
		"registered": Registered{types.Hash32{9}, Registration{Poet: "x", Round: "y"}},
		"placed":     Placed{types.Hash32{9}, w.machine.Record().Pending.Registrations[0]},
		"fetched":    Fetched{types.Hash32{9}, w.machine.Record().Pending.Registrations[0], Membership{}},
		"failed":     Failed{WorkRegister, types.Hash32{9}, "long ago"},
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
			Registrations: []Registration{{Poet: "a", Round: "b", Place: &Place{Members: 2, Path: []types.Hash32{{2}}}}}, Poet: &Membership{Nodes: []types.Hash32{{1}}},
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

// search is a machine whose round has just ended, with two registrations.
type search struct {
	*world
	challenge types.Hash32
	end       time.Time
	leaves    [][32]byte
}

func newSearch(t *testing.T) *search {
	w := newWorld(t)
	w.until(genesis.Add(9 * time.Second)) // registered at one
	s := &search{world: w, challenge: w.machine.rec.Pending.hash(), end: rounds.End(0)}
	w.machine.Step(w.now, Registered{s.challenge, Registration{Poet: "other", Round: "r"}}, w)
	s.leaves = [][32]byte{{1}, s.challenge, {3}}
	return s
}

// step gives the machine an input some time after the round's end, and returns
// the reference of the proof that it chose.
func (s *search) step(after time.Duration, in Input) types.PoetProofRef {
	s.t.Helper()
	s.machine.Step(s.end.Add(after), in, s)
	if m := s.machine.rec.Pending.Poet; m != nil {
		return m.Ref
	}
	return types.PoetProofRef{}
}

func (s *search) registration(i int) Registration { return s.machine.rec.Pending.Registrations[i] }

func (s *search) proof(n byte, leaves uint64) Membership {
	return Membership{Ref: types.PoetProofRef{n}, NumLeaves: leaves, NumMembers: 3, LeafIndex: 1}
}

// place is where the challenge stands in the statement of the registration's
// round.
func (s *search) place() *Place {
	p := &Place{Statement: merkle.Root(s.leaves), Index: 1, Members: 3}
	for _, h := range merkle.Proof(s.leaves, 1) {
		p.Path = append(p.Path, h)
	}
	return p
}

func TestOneHungPoETCostsNothing(t *testing.T) {
	s := newSearch(t)
	if got := s.step(500*time.Millisecond, Fetched{s.challenge, s.registration(0), s.proof(1, 100)}); got != (types.PoetProofRef{}) {
		t.Fatalf("%v is taken without waiting for a better one", got)
	}
	s.step(time.Second, Answered{s.challenge, s.registration(1), false}) // its call ended with its time
	if got := s.step(1500*time.Millisecond, Tick{}); got != (types.PoetProofRef{1}) {
		t.Errorf("after the patience %v is taken", got)
	}
}

func TestTheProofOfMostWorkIsTaken(t *testing.T) {
	s := newSearch(t)
	s.step(200*time.Millisecond, Fetched{s.challenge, s.registration(0), s.proof(1, 100)})
	if got := s.step(300*time.Millisecond, Fetched{s.challenge, s.registration(1), s.proof(2, 300)}); got != (types.PoetProofRef{2}) {
		t.Errorf("with the proofs of all %v is taken", got)
	}
}

// A PoET that gives a proof of little work at once does not win over one that
// is at work, and one that pretends to work does not keep us for ever.
func TestAQuickCheapProofWaitsForWhoIsAtWork(t *testing.T) {
	s := newSearch(t)
	s.step(100*time.Millisecond, Answered{s.challenge, s.registration(1), true})
	s.step(100*time.Millisecond, Fetched{s.challenge, s.registration(0), s.proof(1, 10)})
	if got := s.step(3*time.Second, Tick{}); got != (types.PoetProofRef{}) {
		t.Fatalf("%v is taken though the other is at work", got)
	}
	if got := s.step(3500*time.Millisecond, Fetched{s.challenge, s.registration(1), s.proof(2, 300)}); got != (types.PoetProofRef{2}) {
		t.Errorf("%v is taken", got)
	}
	s = newSearch(t)
	s.step(100*time.Millisecond, Answered{s.challenge, s.registration(1), true})
	s.step(100*time.Millisecond, Fetched{s.challenge, s.registration(0), s.proof(1, 10)})
	if got := s.step(4*time.Second, Tick{}); got != (types.PoetProofRef{1}) {
		t.Errorf("at the latest moment %v is taken", got)
	}
}

// A stored proof is known by its statement; names play no part. A place is
// believed only when the statement shows it, and survives a restart.
func TestAStoredProofCompletesTheStepByItsStatement(t *testing.T) {
	s := newSearch(t)
	lie := s.place()
	lie.Index = 0
	s.step(-5*time.Second, Placed{s.challenge, Registration{Poet: "poet", Round: "r", Place: lie}})
	if s.registration(0).Place != nil {
		t.Fatal("a place is believed that the statement does not show")
	}
	s.step(-5*time.Second, Placed{s.challenge, Registration{Poet: "poet", Round: "r", Place: s.place()}})
	var rec Record
	if err := codec.Decode(codec.Encode(s.machine.Record()), &rec); err != nil {
		t.Fatal(err)
	}
	s.restart(rec)
	statement := s.place().Statement
	early := ProofStored{types.PoetProofRef{7}, statement, 1}
	s.step(-time.Second, early)
	for range 2 { // Answered counts only once it is fetched for
		s.step(200*time.Millisecond, Answered{s.challenge, s.registration(0), false})
		s.step(200*time.Millisecond, Answered{s.challenge, s.registration(1), false})
	}
	s.step(200*time.Millisecond, ProofStored{types.PoetProofRef{8}, types.Hash32{1}, 900}) // of somebody else
	s.step(300*time.Millisecond, early)                                                    // cheap, made by anybody
	s.step(time.Second, ProofStored{types.PoetProofRef{9}, statement, 200})
	if got := s.step(2299*time.Millisecond, Tick{}); got != (types.PoetProofRef{}) {
		t.Fatalf("%v is taken before the patience is over", got)
	}
	if got := s.step(2300*time.Millisecond, Tick{}); got != (types.PoetProofRef{9}) {
		t.Fatalf("%v is taken", got)
	}
	m := s.machine.rec.Pending.Poet
	if m.LeafIndex != 1 || m.NumMembers != 3 || !slices.Equal(m.Nodes, s.place().Path) {
		t.Errorf("membership %+v", m)
	}
}

// Work of a challenge that was dropped ends late: that says nothing of the
// work for the new one.
func TestALateFailureDoesNotFreeTheWorkOfTheNewChallenge(t *testing.T) {
	w := newWorld(t)
	w.until(genesis.Add(6 * time.Second))
	old := w.machine.rec.Pending.hash()
	for ; w.machine.rec.Pending == nil || w.machine.rec.Pending.hash() == old; w.now = w.now.Add(100 * time.Millisecond) {
		w.machine.Step(w.now, Tick{}, w)
	}
	if w.machine.running[WorkRegister] != w.machine.rec.Pending.hash() {
		t.Fatal("the new challenge is not being registered")
	}
	if out := w.machine.Step(w.now, Failed{WorkRegister, old, "late"}, w); len(out.Work) != 0 || w.machine.lastErr == "late" {
		t.Errorf("work is started anew: %+v", out.Work)
	}
	if out := w.machine.Step(w.now.Add(w.machine.cfg.Retry), Tick{}, w); len(out.Work) != 0 {
		t.Errorf("work is started twice: %+v", out.Work)
	}
}

// A record that was lost is made again from what the network knows.
func TestALostRecordGoesOnFromTheLastATX(t *testing.T) {
	w := newWorld(t)
	w.until(schedule.EpochStart(4))
	last := w.published[len(w.published)-1]
	w.pending = nil
	w.restart(Record{})
	w.until(schedule.EpochStart(7))
	next := w.published[slices.Index(w.published, last)+1]
	if next.Initial != nil || len(next.PreviousATXs) != 1 || next.PreviousATXs[0] != last.ID() {
		t.Errorf("the ATX after the loss does not build on the one before it: %+v", next)
	}
}
