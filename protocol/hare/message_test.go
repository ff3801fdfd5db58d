package hare

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tweedle/protocol/eligibility"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

var network = types.GenesisID{7}

func signer(name string) *signing.Signer {
	s, err := signing.NewSigner(signing.SeedFrom(name), network)
	if err != nil {
		panic(err)
	}
	return s
}

var someDraw = Draw{Layer: 7, Beacon: types.Beacon{1}, Total: 1000}

// spoken is a message with a real signature and a real proof.
func spoken(s *signing.Signer, r Round, set ...types.ProposalID) *Message {
	m := &Message{Layer: someDraw.Layer, Round: r, Smesher: s.NodeID()}
	if r.lists() {
		m.Set = set
	} else {
		m.Ref = SetRef(set)
	}
	m.Proof = s.VRF(eligibility.CommitteeMessage(someDraw.Beacon, someDraw.Layer, uint32(r)))
	m.Signature = s.Sign(signing.Hare, SignedBytes(m.Layer, m.Round, m.Says()))
	return m
}

func messages(s *signing.Signer) []*Message {
	ids := proposals(3)
	return []*Message{
		spoken(s, Preround), spoken(s, Preround, ids...), spoken(s, Propose.In(2), ids[0]), spoken(s, Commit, ids...), spoken(s, Notify.In(7), ids...),
	}
}

func TestAMessageIsTakenAsItWasSaid(t *testing.T) {
	s, v := signer("a"), signing.NewVerifier(network)
	for _, m := range messages(s) {
		raw := codec.Encode(m)
		var got Message
		if err := codec.Decode(raw, &got); err != nil || !bytes.Equal(codec.Encode(&got), raw) || got.Says() != m.Says() {
			t.Fatalf("%s: %v", m.Round, err)
		}
		if err := got.Validate(published, v); err != nil {
			t.Errorf("%s: %v", m.Round, err)
		}
		if seats, err := got.Seats(published, someDraw, 900, signing.VerifyVRF); err != nil || seats == 0 {
			t.Errorf("%s: %d seats, %v", m.Round, seats, err)
		}
	}
	full := spoken(s, Preround, make([]types.ProposalID, MaxProposals)...)
	full.Layer = 1<<32 - 1
	if n := len(codec.Encode(full)); n > MaxMessageSize {
		t.Errorf("the longest message has %d bytes, more than %d", n, MaxMessageSize)
	}
}

func TestAMessageThatBreaksARuleIsRefused(t *testing.T) {
	s, v := signer("a"), signing.NewVerifier(network)
	ids := proposals(2)
	for name, c := range map[string]struct {
		change func(m *Message)
		want   error
	}{
		"beyond the last iteration": {func(m *Message) { *m = *spoken(s, Notify.In(published.Iterations), ids...) }, ErrRound},
		"a set that is not sorted":  {func(m *Message) { *m = *spoken(s, Preround, ids[1], ids[0]) }, ErrOrder},
		"a proposal twice":          {func(m *Message) { *m = *spoken(s, Preround, ids[0], ids[0]) }, ErrOrder},
		"another round":             {func(m *Message) { m.Round = Propose }, ErrHareSignature},
		"another layer":             {func(m *Message) { m.Layer++ }, ErrHareSignature},
		"another set":               {func(m *Message) { m.Set = m.Set[:1] }, ErrHareSignature},
		"another smesher":           {func(m *Message) { m.Smesher = signer("b").NodeID() }, ErrHareSignature},
	} {
		m := spoken(s, Preround, ids...)
		if c.change(m); !errors.Is(m.Validate(published, v), c.want) {
			t.Errorf("%s: %v, not %v", name, m.Validate(published, v), c.want)
		}
	}
	m := spoken(s, Preround, ids...)
	m.Proof = spoken(s, Commit).Proof
	if _, err := m.Seats(published, someDraw, 900, signing.VerifyVRF); !errors.Is(err, ErrProof) {
		t.Errorf("the proof of another round: %v", err)
	}
	if _, err := spoken(s, Preround).Seats(published, someDraw, 0, signing.VerifyVRF); !errors.Is(err, ErrSeats) {
		t.Errorf("without weight: %v", err)
	}
	for r, size := range map[Round]int{Preround: MaxProposals + 1, Hardlock: 0, Softlock: 0, Wait1: 0, Wait2.In(1): 0} {
		e := codec.NewEncoder(64)
		e.Compact(7)
		e.U8(uint8(r))
		e.Raw(make([]byte, 32))
		e.Compact(uint64(size))
		e.Raw(make([]byte, 20*size+32+80+64))
		var got Message
		if codec.Decode(e.Bytes(), &got) == nil {
			t.Errorf("a message of round %s with %d proposals is decoded", r, size)
		}
	}
}

func TestWhatASmesherBeginsWith(t *testing.T) {
	mine := types.Beacon{1}
	of := func(id, atx byte) Candidate {
		return Candidate{ID: types.ProposalID{id}, ATX: types.ATXID{atx}, Beacon: mine, Base: 10}
	}
	foreign, evil, future := of(3, 3), of(4, 4), of(5, 5)
	foreign.Beacon, evil.Malicious, future.Base = types.Beacon{2}, true, 20
	all := []Candidate{of(9, 9), foreign, of(1, 1), evil, of(6, 6), future, of(7, 6)}
	want := []types.ProposalID{{1}, {9}}
	for range 10 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if got := Initial(all, mine, 20); !slices.Equal(got, want) {
			t.Fatalf("begins with %v, not %v", got, want)
		}
	}
}

// However much comes, a round holds no more seats than it may have, and of a smesher two
// messages.
func TestARoundHasALimit(t *testing.T) {
	p := Params{Committee: 9, Leaders: 3, Iterations: 2, Round: round}
	s := NewSession(p, Draw{Total: 1}, genesis, nil, nil)
	held := uint32(0)
	for i := range 1000 {
		if _, err := s.Hear(genesis, &Message{Round: Commit, Smesher: keyOf(1, i).NodeID()}, 3); err == nil {
			held += 3
		} else if !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	if held > p.maxSeats(Commit) || held < p.maxSeats(Commit)-3 {
		t.Errorf("holds %d seats of at most %d", held, p.maxSeats(Commit))
	}
	if _, err := s.Hear(genesis, &Message{Round: Notify.In(2)}, 1); !errors.Is(err, ErrRound) {
		t.Errorf("a round after the last: %v", err)
	}
}

// everybody gives all the same weight.
type everybody struct{ each, total uint64 }

func (e everybody) Weight(atx types.ATXID, _ types.NodeID) (uint64, bool) {
	return e.each, atx == types.ATXID{1}
}
func (e everybody) Total() uint64 { return e.total }

func TestACertificateNeedsMostOfACommitteeAndComesOnce(t *testing.T) {
	p := Params{Committee: 40}
	d := types.Decision{Layer: 7, Electorate: types.Hash32{1}, Beacon: types.Beacon{9}, Parent: types.Hash32{2}, Block: types.BlockID{3}}
	all := everybody{100, 1000}
	sealed := func(name string, d types.Decision) types.CertifyMessage {
		s := signer(name)
		return types.CertifyMessage{Decision: d, By: types.CertifySignature{ATX: types.ATXID{1}, Smesher: s.NodeID(), Proof: s.VRF(CertifyInput(&d))}}
	}
	c, sum := NewCertifier(p, 0), uint32(0)
	var cert *types.Certificate
	for i := 0; cert == nil; i++ {
		m := sealed(fmt.Sprint(i), d)
		seats, err := p.CertifySeats(&m.By, all)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Certifies(&types.Certificate{Decision: d, Signatures: []types.CertifySignature{m.By}}, all); !errors.Is(err, ErrFew) {
			t.Fatalf("one signature is enough: %v", err)
		}
		sum += seats
		if cert, err = c.Add(m, seats); err != nil || (cert != nil) != (sum > 20) {
			t.Fatalf("certificate %v after %d seats: %v", cert, sum, err)
		}
	}
	if err := p.Certifies(cert, all); err != nil {
		t.Fatal(err)
	}
	if more, err := c.Add(sealed("one more", d), 3); more != nil || err != nil {
		t.Errorf("a second certificate: %v %v", more, err)
	}
	first := sealed("0", d)
	if _, err := c.Add(first, 3); !errors.Is(err, ErrKnown) {
		t.Errorf("a signature twice: %v", err)
	}
	for i, want := range []error{ErrEquivocation, ErrKnown} { // told once: more would be a flood
		other := first
		other.Decision.Block[0] += byte(i) + 1
		if _, err := c.Add(other, 3); !errors.Is(err, want) {
			t.Errorf("a signature under another decision: %v, want %v", err, want)
		}
	}
	if m, ok := c.Signed(7, first.By.Smesher); !ok || m != first {
		t.Error("what was signed first is not there")
	}
	for name, x := range map[string]struct {
		change func(*types.Certificate)
		want   error
	}{
		"a signature twice":   {func(c *types.Certificate) { c.Signatures[1] = c.Signatures[0] }, ErrSigners},
		"too few":             {func(c *types.Certificate) { c.Signatures = c.Signatures[:2] }, ErrFew},
		"nobody":              {func(c *types.Certificate) { c.Signatures = nil }, ErrFew},
		"somebody else's ATX": {func(c *types.Certificate) { c.Signatures[0].ATX[0]++ }, ErrStranger},
		"no seat":             {func(c *types.Certificate) { c.Signatures[1].Proof = types.VRFSignature{} }, ErrNoSeat},
	} {
		bad := types.Certificate{Decision: cert.Decision, Signatures: slices.Clone(cert.Signatures)}
		if x.change(&bad); !errors.Is(p.Certifies(&bad, all), x.want) {
			t.Errorf("%s: %v, not %v", name, p.Certifies(&bad, all), x.want)
		}
	}
}

// The input is any messages at any times: the decoder reads what it would write, and the
// machine never panics, never holds more than it may, and is asked to wake only later.
func FuzzHareFromTheNetwork(f *testing.F) {
	s := signer("a")
	var all []byte
	for _, m := range messages(s) {
		f.Add(codec.Encode(m), []byte{1, 2, 3})
		all = append(all, codec.Encode(m)...)
	}
	f.Add(all, []byte{0, 0, 9, 255, 1, 7, 7, 7})
	f.Fuzz(func(t *testing.T, raw, script []byte) {
		var m Message
		if codec.Decode(raw, &m) == nil && !bytes.Equal(codec.Encode(&m), raw) {
			t.Fatal("two encodings of one message")
		}
		p := Params{Committee: 9, Leaders: 9, Iterations: 3, Round: round}
		now := genesis.Add(-round)
		seat := lotOf(240, mine)
		session := NewSession(p, Draw{Layer: 7, Total: 1}, genesis, []Member{{actor("me"), 1}}, func() []types.ProposalID { return proposals(2) })
		for i := 0; i+3 < len(script); i += 4 {
			now = now.Add(time.Duration(script[i]) * round / 64)
			out := session.Step(now)
			for _, r := range out.Draw {
				session.Seat(Seat{actor("me").NodeID(), r, seat})
			}
			for _, own := range out.Signed {
				if _, err := session.Hear(now, own, mine); err != nil {
					t.Fatal(err)
				}
			}
			next := Message{Round: Round(script[i+1]), Smesher: types.NodeID{script[i+2] % 16}, Set: proposals(int(script[i+3] % 4)), Proof: m.Proof}
			if next.Ref = SetRef(next.Set); !next.Round.lists() && !next.Round.names() {
				continue
			}
			_, _ = session.Hear(now, &next, uint32(script[i+2]/16))
		}
		out := session.Step(now)
		if !out.Ended && !out.Wake.After(now) {
			t.Fatalf("wakes at %s, and it is %s", out.Wake, now)
		}
		for r := range session.rounds {
			if v := session.rounds[r]; v.seats > p.maxSeats(Round(r)) {
				t.Fatalf("round %d holds %d seats", r, v.seats)
			}
		}
	})
}

// What a node looks at for each message: signature, seats, and random value. Signatures are
// not checked in batches: package signing has none.
func BenchmarkVerify(b *testing.B) {
	v := signing.NewVerifier(network)
	draw := someDraw
	draw.Total = 400 * 1000
	var all []*Message
	for i := 0; len(all) < 64; i++ {
		m := spoken(signer(fmt.Sprint(i)), Commit)
		if _, err := m.Seats(published, draw, 1000, signing.VerifyVRF); err == nil {
			all = append(all, m)
		}
	}
	b.Run("all", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			m := all[i%len(all)]
			if m.Validate(published, v) != nil {
				b.Fatal("signature")
			}
			if _, err := m.Seats(published, draw, 1000, signing.VerifyVRF); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("signature", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if all[i%len(all)].Validate(published, v) != nil {
				b.Fatal("signature")
			}
		}
	})
	b.Run("seats", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := all[i%len(all)].Seats(published, draw, 1000, signing.VerifyVRF); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// The bytes of a layer, if each message crosses to a node once: a committee of 400 whose
// members have one seat each, and 50 proposals.
func TestBytesOfALayer(t *testing.T) {
	s := signer("a")
	size := func(r Round, n int) int {
		set := make([]types.ProposalID, n)
		for i := range set {
			set[i] = types.ProposalID{byte(i >> 8), byte(i)}
		}
		return len(codec.Encode(spoken(s, r, set...)))
	}
	const seats, leaders, n = 400, 5, 50
	preround, iteration := seats*size(Preround, n), leaders*size(Propose, n)+seats*(size(Commit, n)+size(Notify, n))
	whole := preround + 2*iteration
	t.Logf("%d proposals, %d seats: %d bytes, of which the preround has %d (%d with ids of 4 bytes) and each of two iterations %d; a vote has %d",
		n, seats, whole, preround, preround-16*n*seats, iteration, size(Commit, n))
	if whole > 1<<20 {
		t.Errorf("a layer takes %d bytes, more than a megabyte", whole)
	}
}
