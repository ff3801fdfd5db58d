package beacon

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tweedle/values/types"
)

// script is one honest smesher among four of equal weight, told what arrives when.
type script struct {
	t    *testing.T
	p    Params
	m    *Machine
	keys []key
}

func newScript(t *testing.T) *script {
	s := &script{t: t, p: params}
	var members []Member
	for i := range 4 {
		s.keys = append(s.keys, keyOf(99, i))
		members = append(members, Member{s.keys[i].id, 100, 4, uint64(i), i != 3})
	}
	s.m = New(s.p, 5, members, []Identity{s.keys[0]}, 0)
	return s
}

func (s *script) value(who int) Value { return valueOf(s.proposal(who).Proof) }

func (s *script) proposal(who int) *Message {
	return &Message{Kind: Propose, Target: 5, Smesher: s.keys[who].id, Nonce: uint64(who), Proof: s.keys[who].VRF(proposalInput(5, uint64(who)))}
}

func (s *script) signed(who int, m *Message) *Message {
	m.Target, m.Smesher = 5, s.keys[who].id
	m.Signature = s.keys[who].Sign(m.Domain(), m.SignedBytes())
	return m
}

// toss is the lowest coin of one.
func (s *script) toss(who, round int, yes ...Value) *Message {
	var best *Message
	for u := range uint32(4) {
		p := s.keys[who].VRF(coinInput(5, uint64(who), uint8(round), u))
		if best == nil || rankOf(p) < rankOf(best.Proof) {
			best = &Message{Kind: Toss, Round: uint8(round), Unit: u, Yes: yes, Nonce: uint64(who), Proof: p}
		}
	}
	return s.signed(who, best)
}

func (s *script) hears(at time.Duration, m *Message, want error) {
	s.t.Helper()
	if err := s.m.Hear(at, m); !errors.Is(err, want) {
		s.t.Fatalf("at %v: %v, not %v", at, err, want)
	}
}

func (s *script) votes(round, who int, values ...Value) {
	s.t.Helper()
	s.hears(s.p.voteStart(round), s.signed(who, &Message{Kind: Vote, Round: uint8(round), Yes: values}), nil)
}

// opinion is what this node is for before a round.
func (s *script) opinion(round int) []Value {
	s.m.Step(s.p.voteStart(round))
	return s.m.yes
}

func (s *script) is(round int, want ...Value) {
	s.t.Helper()
	if got := s.opinion(round); !slices.Equal(got, sorted(slices.Values(want))) {
		s.t.Errorf("before round %d it is for %v, not %v", round, got, want)
	}
}

func TestAProposalIsVotedForIfItCameInTime(t *testing.T) {
	s := newScript(t)
	s.hears(0, s.proposal(0), nil)
	s.hears(s.p.voteStart(0)-1, s.proposal(3), nil) // its ATX was not early
	s.hears(s.p.voteStart(0), s.proposal(1), nil)
	s.hears(s.p.voteStart(0), s.proposal(1), ErrKnown)
	s.hears(s.p.coinStart(0), s.proposal(2), ErrTime)
	s.is(0, s.value(0))
}

func TestWhoIsProvedMaliciousIsNotVotedForAndDoesNotVote(t *testing.T) {
	s := newScript(t)
	s.hears(0, s.proposal(1), nil)
	s.m.Convict(s.keys[2].id)
	s.hears(0, s.proposal(2), nil)
	s.is(0, s.value(1))
	s.votes(0, 0, s.value(1))
	s.votes(0, 1, s.value(1))
	s.votes(0, 2)
	s.is(1, s.value(1))
	s.votes(1, 0)
	s.votes(1, 1)
	s.hears(s.p.coinStart(1), s.toss(2, 1, s.value(1)), nil)
	s.is(2)
}

func TestAnIdentityOfOursThatIsProvedMaliciousIsSilent(t *testing.T) {
	s := newScript(t)
	s.m.Convict(s.keys[0].id)
	for r := range s.p.Rounds + 1 {
		if got := append(s.m.Step(s.p.voteStart(r)), s.m.Step(s.p.coinStart(r))...); len(got) > 0 {
			t.Fatalf("round %d: it says %+v", r, got)
		}
	}
}

func TestAMarginOfMoreThanAThirdDecidesWhateverTheCoinShows(t *testing.T) {
	for _, c := range []struct {
		name        string
		pro, contra []int
		coin, want  bool
	}{
		{"three for it, one against", []int{0, 1, 2}, []int{3}, false, true},
		{"one for it, three against", []int{0}, []int{1, 2, 3}, true, false},
		{"a margin of a quarter, the coin for it", []int{0}, []int{1, 2}, true, true},
		{"a margin of a quarter, the coin against it", []int{0, 1}, []int{2}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t)
			s.hears(0, s.proposal(1), nil)
			s.m.Step(s.p.voteStart(0))
			for _, who := range c.pro {
				s.votes(0, who, s.value(1))
			}
			for _, who := range c.contra {
				s.votes(0, who) // who does not name it is against it
			}
			var shows []Value
			if c.coin {
				shows = []Value{s.value(1)}
			}
			s.hears(s.p.coinStart(0), s.toss(2, 0, shows...), nil)
			if got := len(s.opinion(1)) > 0; got != c.want {
				t.Errorf("supported: %v", got)
			}
		})
	}
}

func TestTheLowestCoinLeadsAndWithoutOneTheMost(t *testing.T) {
	s := newScript(t)
	s.hears(0, s.proposal(1), nil)
	s.m.Step(s.p.voteStart(0))
	s.votes(0, 1, s.value(1))
	s.is(1, s.value(1)) // one for it, nobody against, and no coin
	s.votes(1, 1, s.value(1))
	low, high := s.toss(2, 1), s.toss(3, 1, s.value(1))
	if rankOf(low.Proof) > rankOf(high.Proof) {
		low, high = s.toss(3, 1), s.toss(2, 1, s.value(1))
	}
	s.hears(s.p.coinStart(1), high, nil)
	s.hears(s.p.coinStart(1), low, nil)
	s.hears(s.p.coinStart(1), high, ErrWorse)
	s.is(2)
}

// Whoever leads a round, or votes in it, with less than a third of the weight, brings in nothing that nobody
// proposed: else he could try any number of values until he likes the beacon.
func TestWhatNobodyProposedIsNotSupported(t *testing.T) {
	s := newScript(t)
	made := Value{1, 2, 3, 4}
	s.m.Step(s.p.voteStart(0))
	s.votes(0, 2, made)
	s.hears(s.p.coinStart(0), s.toss(2, 0, made), nil)
	s.is(1)
}

// A node that did not get a proposal comes round to it, as more than a third of the weight is for it.
func TestWhatAThirdVotesForIsKnown(t *testing.T) {
	s := newScript(t)
	s.m.Step(s.p.voteStart(0))
	for who := range 3 {
		s.votes(0, who, s.value(1))
	}
	s.is(1, s.value(1))
}

func TestWhoVotesTwiceDoesNotVote(t *testing.T) {
	for round := range 2 {
		s := newScript(t)
		s.hears(0, s.proposal(1), nil)
		s.m.Step(s.p.voteStart(round))
		s.votes(round, 1, s.value(1))
		s.votes(round, 2, s.value(1))
		second := func(round int, yes ...Value) *Message {
			return s.signed(1, &Message{Kind: Vote, Round: uint8(round), Yes: yes})
		}
		s.hears(s.p.voteStart(round), second(round, s.value(1)), ErrKnown)
		s.hears(s.p.coinStart(round), second(round), nil) // passed on: others must know
		s.hears(s.p.coinStart(round), second(round, Value{7}), ErrAgain)
		s.hears(s.p.coinStart(round), s.signed(3, &Message{Kind: Vote, Round: uint8(round)}), ErrTime)
		s.hears(s.p.coinStart(round), s.toss(2, round), nil)
		s.is(round + 1) // with two votes it would have been decided
	}
}

func TestAVoteCountsInItsTime(t *testing.T) {
	for _, c := range []struct {
		at   time.Duration
		want error
	}{
		{params.voteStart(1) - 1, ErrTime}, // its sender's clock is a round ahead
		{params.voteStart(1), nil},
		{params.coinStart(2) - 1, nil},
		{params.coinStart(2), ErrTime},
	} {
		s := newScript(t)
		s.m.Step(c.at)
		s.hears(c.at, s.signed(1, &Message{Kind: Vote, Round: 2}), c.want)
	}
}

// A smesher has one nonce, and so one value: with others, which anybody can check, it could try many.
func TestAnotherNonceIsNotHeard(t *testing.T) {
	s := newScript(t)
	for nonce := range uint64(20) {
		if nonce == 1 {
			continue
		}
		s.hears(0, &Message{Kind: Propose, Target: 5, Smesher: s.keys[1].id, Nonce: nonce, Proof: s.keys[1].VRF(proposalInput(5, nonce))}, ErrNonce)
		s.hears(s.p.coinStart(0), &Message{Kind: Toss, Target: 5, Smesher: s.keys[1].id, Nonce: nonce, Proof: s.keys[1].VRF(coinInput(5, nonce, 0, 0))}, ErrNonce)
	}
	s.hears(0, s.proposal(1), nil)
	s.is(0, s.value(1))
}

func TestACoinOfAUnitThatIsNotThere(t *testing.T) {
	s := newScript(t)
	s.hears(s.p.coinStart(0), &Message{Kind: Toss, Target: 5, Smesher: s.keys[1].id, Nonce: 1, Unit: 4}, ErrUnit)
}

// It takes more than two thirds in the last round; 2/3 are not enough.
func TestTheLastRoundTellsWhoFoundWhat(t *testing.T) {
	three := func(w ...uint64) (m []Member, keys []key) {
		for i, w := range w {
			keys = append(keys, keyOf(99, i))
			m = append(m, Member{keys[i].id, w, 4, uint64(i), true})
		}
		return m, keys
	}
	for _, c := range []struct {
		last  uint64
		known bool
	}{{100, false}, {99, true}} {
		members, keys := three(100, 100, c.last)
		m := New(params, 5, members, nil, 0)
		if _, known := m.Result(); known {
			t.Error("known before it began")
		}
		m.Step(params.voteStart(params.Rounds))
		for _, k := range keys[:2] {
			msg := &Message{Kind: Vote, Target: 5, Smesher: k.id, Round: uint8(params.Rounds), Yes: []Value{{9}}}
			if err := m.Hear(params.voteStart(params.Rounds), msg); err != nil {
				t.Fatal(err)
			}
		}
		m.Step(params.Duration())
		if got, known := m.Result(); known != c.known || !m.Done() || known && got[0] != (Value{9}) {
			t.Errorf("200 of %d: %v, %v", 200+c.last, got, known)
		}
	}
}

func TestAnEpochWithoutMembersHasNoProposals(t *testing.T) {
	m := New(params, 5, nil, nil, 0)
	m.Step(params.Duration())
	if got, known := m.Result(); len(got) > 0 || !known {
		t.Errorf("%v, %v", got, known)
	}
}

// Whoever comes while it runs hears a round before it votes, and finds what the others do.
func TestWhoJoinsLateHearsARoundAndThenVotes(t *testing.T) {
	w := newWorld(3, 9, 0)
	var members []Member
	for i := range w.keys {
		members = append(members, w.nodes[0].members[w.keys[i].id].Member)
	}
	late := New(w.p, 5, members, []Identity{w.keys[8]}, w.p.voteStart(3)+1)
	w.nodes[8] = late
	first := -1
	for !late.Done() {
		at, _ := late.Next()
		for i, m := range w.nodes {
			for _, msg := range m.Step(at) {
				if i == 8 && first < 0 {
					first = int(msg.Round)
				}
				for j, o := range w.nodes {
					if j != 8 || at >= late.joined {
						_ = o.Hear(at, msg)
					}
				}
			}
		}
	}
	if _, err := w.agreed(); err != nil || first != 5 {
		t.Errorf("speaks first in round %d, %v", first, err)
	}
}

// A node with two identities speaks for both, and shows the lower coin.
func TestTwoIdentitiesOfOneNode(t *testing.T) {
	s := newScript(t)
	var members []Member
	for _, k := range s.keys {
		members = append(members, s.m.members[k.id].Member)
	}
	m := New(s.p, 5, members, []Identity{s.keys[0], s.keys[1], keyOf(1, 1)}, 0)
	for r, want := range []int{2, 2} {
		if got := m.Step(s.p.voteStart(r - 1)); len(got) != want {
			t.Errorf("step %d: %d messages", r, len(got))
		}
	}
	for who := range 2 {
		if err := m.Hear(s.p.voteStart(0), s.signed(who+2, &Message{Kind: Vote, Yes: []Value{{byte(who)}}})); err != nil {
			t.Fatal(err)
		}
	}
	coin := m.Step(s.p.coinStart(0))
	if len(coin) != 1 || rankOf(coin[0].Proof) != min(rankOf(s.toss(0, 0).Proof), rankOf(s.toss(1, 0).Proof)) {
		t.Errorf("coins: %+v", coin)
	}
}

// One member holds the same, whatever it sends.
func TestWhatOneIdentitySendsIsBounded(t *testing.T) {
	s := newScript(t)
	s.m.Step(s.p.voteStart(0))
	passed := 0
	for i := range 1000 {
		for r := range 2 {
			if s.m.Hear(s.p.voteStart(0), s.signed(1, &Message{Kind: Vote, Round: uint8(r), Yes: []Value{{byte(i), byte(i >> 8)}}})) == nil {
				passed++
			}
		}
	}
	if s.m.Step(s.p.voteStart(2)); passed != 4 || len(s.m.known) != 0 {
		t.Errorf("%d of 2000 votes were passed on, not two a round; %d are known", passed, len(s.m.known))
	}
}

// So many that each says something else fill no more than the limit, and ours has its place.
func TestManyDifferentVotesAreBounded(t *testing.T) {
	self := keyOf(99, 0)
	members := []Member{{self.id, 1, 1, 0, true}}
	for i := range MaxLists + 50 {
		members = append(members, Member{types.NodeID{byte(i), byte(i >> 8), 1}, 1, 1, 0, true})
	}
	m := New(params, 5, members, []Identity{self}, 0)
	m.Step(0)
	for round := range 2 {
		refused := 0
		for i, x := range members[1:] {
			vote := &Message{Kind: Vote, Target: 5, Smesher: x.Smesher, Round: uint8(round), Yes: []Value{{1, byte(i), byte(i >> 8)}}}
			switch err := m.Hear(params.voteStart(0), vote); err {
			case ErrMany:
				refused++
			case nil:
			default:
				t.Fatal(err)
			}
		}
		if refused != 50 {
			t.Errorf("%d votes were refused", refused)
		}
	}
	own := m.Step(params.voteStart(0))
	if now, most := m.Held(); now > most || now != 2*MaxLists+1 {
		t.Errorf("%d different votes are held, at most %d may be", now, most)
	}
	if len(own) != 1 || m.Hear(params.voteStart(0), own[0]) != nil {
		t.Errorf("its own vote has no place: %v", own)
	}
	for r := 0; r <= params.Rounds; r++ { // what is over goes
		m.Step(params.voteStart(r + 1))
	}
	if now, _ := m.Held(); now > 2 {
		t.Errorf("%d different votes are held when all is over", now)
	}
}

func TestThreshold(t *testing.T) {
	for _, n := range []int{1, 2, 10, 59, 60, 61, 1000, 1_000_000} {
		want := (1 - math.Exp2(-60/float64(n))) * (1 << 32)
		if got := float64(threshold(n) >> 32); math.Abs(got-want) > 2 {
			t.Errorf("of %d: %v, not %v", n, got, want)
		}
	}
	if threshold(0) != 0 {
		t.Error("nobody expected, and somebody may propose")
	}
	if got := threshold(1000); got != 0xa6daaab45914481 {
		t.Errorf("of 1000: %#x", got) // the same on every machine
	}
}

func TestLateJoinersLearnFromBallots(t *testing.T) {
	b := NewBallots(30)
	for i, s := range []struct {
		who      byte
		declares byte
		w        uint64
		known    bool
	}{
		{1, 1, 9, false},
		{1, 1, 9, false},  // once each
		{2, 2, 10, false}, // a third is not enough
		{2, 1, 10, false},
		{3, 1, 0, false}, // malicious
		{4, 1, 2, true},
	} {
		if known := b.Add(types.NodeID{s.who}, types.Beacon{s.declares}, s.w); known != s.known {
			t.Fatalf("step %d: %v", i, known)
		}
	}
}

func TestEachEmptyEpochHasAFallbackOfItsOwn(t *testing.T) {
	seen := map[types.Beacon]bool{}
	for e := range types.Epoch(100) {
		b := Fallback(types.ATXID{1}, e)
		if seen[b] {
			t.Fatalf("epoch %d has the beacon of another", e)
		}
		seen[b] = true
	}
}

// Whoever grinds proofs has one value to propose: the others are refused. All honest proposals are in the
// beacon, so with h hostile smeshers that show, withhold, split or are late there are 2^h beacons to
// choose among, whatever they do.
func TestNobodyChoosesAmongMoreThanAllowed(t *testing.T) {
	const hostile, plays = 3, 24
	for seed := range seeds(4) {
		beacons := map[types.Beacon]int{}
		for play := range uint64(plays) {
			w := newWorld(seed, 9, hostile)
			w.rng = rand.New(rand.NewPCG(seed, play))
			shows := w.rng.IntN(1 << hostile)
			w.sends = func(w *world, from int, msg *Message) {
				if msg.Kind != Propose {
					lies["draws by lot"](w, from, msg)
					return
				}
				ground, stranger := *msg, *msg // the lowest of many nonces; by a key that has no ATX
				stranger.Smesher = keyOf(seed, 100+from).id
				stranger.Proof = key{stranger.Smesher}.VRF(stranger.Input())
				for try := range uint64(100) {
					n := 1000*play + try
					if p := w.keys[from].VRF(proposalInput(5, n)); n != msg.Nonce && rankOf(p) < rankOf(ground.Proof) {
						ground.Nonce, ground.Proof = n, p
					}
				}
				for to := range w.honest() {
					w.give(0, to, &ground, idOf(&ground)) // before its own, as the first is what counts
					w.give(0, to, &stranger, idOf(&stranger))
				}
				if shows>>(from-w.honest())&1 == 1 {
					for to := range w.honest() {
						w.give(1+time.Duration(w.rng.Int64N(int64(w.p.coinStart(0)))), to, msg, idOf(msg))
					}
				}
			}
			w.run()
			b, err := w.agreed()
			if err != nil {
				t.Fatalf("seed %d, play %d: %v", seed, play, err)
			}
			if !w.allowed()[b] {
				t.Fatalf("seed %d, play %d: %s is none of the %d beacons that the protocol allows", seed, play, b, len(w.allowed()))
			}
			beacons[b]++
		}
		t.Logf("seed %d: %d beacons in %d plays, %d allowed", seed, len(beacons), plays, 1<<hostile)
	}
}

// allowed are the beacons of all honest proposals and any of the hostile.
func (w *world) allowed() map[types.Beacon]bool {
	var honest, hostile []Value
	for i, k := range w.keys {
		if p := k.VRF(proposalInput(5, uint64(i))); rankOf(p) < w.nodes[0].strict {
			if i < w.honest() {
				honest = append(honest, valueOf(p))
			} else {
				hostile = append(hostile, valueOf(p))
			}
		}
	}
	out := make(map[types.Beacon]bool)
	for subset := range 1 << len(hostile) {
		all := slices.Clone(honest)
		for i, v := range hostile {
			if subset>>i&1 == 1 {
				all = append(all, v)
			}
		}
		out[Of(sorted(slices.Values(all)))] = true
	}
	return out
}
