package activation

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"tweedle/proofs/post"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// chainOf has an initial ATX and the one after it, with real proofs.
type chainOf struct {
	params        Params
	view          *fakeView
	first, second *types.ATX
}

type fakeView struct {
	atxs  map[types.ATXID]*Info
	poets map[types.PoetProofRef]*Poet
}

func (v *fakeView) ATX(id types.ATXID) (*Info, error)          { return v.atxs[id], nil }
func (v *fakeView) Poet(ref types.PoetProofRef) (*Poet, error) { return v.poets[ref], nil }

// register plays a PoET: the challenge is the second of three members.
func (v *fakeView) register(c types.PoetChallenge, ref types.PoetProofRef, leaves uint64) types.NIPost {
	members := [][32]byte{{1}, c.Hash(), {3}}
	v.poets[ref] = &Poet{Statement: merkle.Root(members), NumLeaves: leaves}
	n := types.NIPost{NumMembers: 3, PoetProof: ref}
	for _, h := range merkle.Proof(members, 1) {
		n.Membership = append(n.Membership, h)
	}
	return n
}

func build(t testing.TB) *chainOf {
	t.Helper()
	dir := t.TempDir()
	id := identity(t)
	p := Params{Network: types.GenesisID{1}, Golden: golden, TickSize: 10, Post: post.TestParams()}
	c := &chainOf{params: p, view: &fakeView{map[types.ATXID]*Info{}, map[types.PoetProofRef]*Poet{}}}
	meta, err := post.Init(dir, p.Post, post.Setup{NodeID: id.NodeID(), CommitmentATX: golden, NumUnits: 2}, post.InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	prove := func(challenge types.PoetProofRef) types.PostProof {
		data, err := post.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := data.Prove(challenge, p.Post, post.ProveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return types.PostProof{Nonce: proof.Nonce, Indices: proof.Indices, Pow: proof.Pow}
	}
	initial := prove(types.PoetProofRef{})
	c.first = &types.ATX{
		PublishEpoch: 1, PositioningATX: golden, SmesherID: id.NodeID(), VRFNonce: *meta.Nonce,
		Initial: &types.InitialATX{CommitmentATX: golden, Post: initial},
	}
	c.nipost(c.first, types.PoetProofRef{1}, prove)
	c.sign(c.first)
	info, err := Validate(p, c.first, 1, c.view, post.All())
	if err != nil {
		t.Fatal(err)
	}
	c.view.atxs[info.ID] = info
	c.second = &types.ATX{
		PublishEpoch: 2, PositioningATX: info.ID, PreviousATXs: []types.ATXID{info.ID},
		SmesherID: id.NodeID(), VRFNonce: *meta.Nonce,
	}
	c.nipost(c.second, types.PoetProofRef{2}, prove)
	c.sign(c.second)
	return c
}

func (c *chainOf) nipost(a *types.ATX, ref types.PoetProofRef, prove func(types.PoetProofRef) types.PostProof) {
	n := c.view.register(Challenge(&types.ATX{
		PublishEpoch: a.PublishEpoch, PositioningATX: a.PositioningATX, Initial: a.Initial, PreviousATXs: a.PreviousATXs,
	}), ref, 105)
	n.Posts = []types.SubPost{{MembershipLeafIndex: 1, Post: prove(ref), NumUnits: 2}}
	a.NIPosts = []types.NIPost{n}
}

func (c *chainOf) sign(a *types.ATX) {
	s, err := signing.NewSigner(signing.SeedFrom("smesher"), c.params.Network)
	if err != nil {
		panic(err)
	}
	id := a.ID()
	a.Signature = s.Sign(signing.ATX, id[:])
}

// copied returns a deep copy by way of the wire.
func copied(t *testing.T, a *types.ATX) *types.ATX {
	t.Helper()
	var b types.ATX
	if err := codec.Decode(codec.Encode(a), &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestRealATXsAreValidAndHaveTheirWeight(t *testing.T) {
	c := build(t)
	info, err := Validate(c.params, c.second, 2, c.view, post.Subset([]byte("peer")))
	if err != nil {
		t.Fatal(err)
	}
	if info.Ticks != 10 || info.BaseHeight != 10 || info.Height() != 20 || info.Weight != 20 || info.CommitmentATX != golden {
		t.Fatalf("%+v", info)
	}
}

func TestNewSpaceCountsOneEpochLater(t *testing.T) {
	c := build(t)
	c.view.atxs[c.first.ID()].Units = 1
	info, err := Validate(c.params, c.second, 2, c.view, post.All())
	if err != nil {
		t.Fatal(err)
	}
	if info.Units != 2 || info.Effective != 1 || info.Weight != 10 {
		t.Fatalf("%+v", info)
	}
}

func TestEachRuleRefusesItsATX(t *testing.T) {
	c := build(t)
	other := &Info{ID: types.ATXID{77}, Smesher: types.NodeID{9}, PublishEpoch: 1}
	late := &Info{ID: types.ATXID{78}, Smesher: c.second.SmesherID, PublishEpoch: 2}
	c.view.atxs[other.ID], c.view.atxs[late.ID] = other, late
	for name, tc := range map[string]struct {
		change func(a *types.ATX)
		want   error
	}{
		"published too early":       {func(a *types.ATX) { a.PublishEpoch = 4 }, ErrFuture},
		"published in epoch 0":      {func(a *types.ATX) { a.PublishEpoch = 0 }, ErrEpochZero},
		"married":                   {func(a *types.ATX) { a.Marriages = []types.Marriage{{}} }, ErrMerged},
		"merged":                    {func(a *types.ATX) { a.MarriageATX = &types.ATXID{} }, ErrMerged},
		"no proof":                  {func(a *types.ATX) { a.NIPosts = nil }, ErrShape},
		"two spaces":                {func(a *types.ATX) { a.NIPosts[0].Posts = append(a.NIPosts[0].Posts, a.NIPosts[0].Posts[0]) }, ErrShape},
		"previous and initial":      {func(a *types.ATX) { a.Initial = c.first.Initial }, ErrInitial},
		"neither":                   {func(a *types.ATX) { a.PreviousATXs = nil }, ErrInitial},
		"no positioning":            {func(a *types.ATX) { a.PositioningATX = types.ATXID{} }, ErrPositioning},
		"positioned on the same":    {func(a *types.ATX) { a.PositioningATX = late.ID }, ErrPositioning},
		"previous of somebody else": {func(a *types.ATX) { a.PreviousATXs[0] = other.ID }, ErrPrevious},
		"previous not older":        {func(a *types.ATX) { a.PreviousATXs[0] = late.ID }, ErrPrevious},
		"golden as previous":        {func(a *types.ATX) { a.PreviousATXs[0] = golden }, ErrPrevious},
		"challenge not registered":  {func(a *types.ATX) { a.PositioningATX = golden }, ErrMembership},
		"another place":             {func(a *types.ATX) { a.NIPosts[0].Posts[0].MembershipLeafIndex = 0 }, ErrMembership},
		"another number of members": {func(a *types.ATX) { a.NIPosts[0].NumMembers = 5 }, ErrMembership},
	} {
		a := copied(t, c.second)
		tc.change(a)
		c.sign(a)
		if _, err := Validate(c.params, a, 2, c.view, post.All()); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	unsigned := copied(t, c.second)
	unsigned.Coinbase[9]++
	if _, err := Validate(c.params, unsigned, 2, c.view, post.All()); !errors.Is(err, ErrSignature) {
		t.Errorf("changed after signing: %v", err)
	}
}

func TestProofsOfSpaceAreChecked(t *testing.T) {
	c := build(t)
	for name, tc := range map[string]struct {
		of     *types.ATX
		change func(a *types.ATX)
		want   string
	}{
		"an index is changed":       {c.second, func(a *types.ATX) { a.NIPosts[0].Posts[0].Post.Indices[0] ^= 1 }, "post: "},
		"more units than proved":    {c.second, func(a *types.ATX) { a.NIPosts[0].Posts[0].NumUnits = 3 }, ""},
		"more units than allowed":   {c.second, func(a *types.ATX) { a.NIPosts[0].Posts[0].NumUnits = math.MaxUint32 }, ""},
		"another nonce for the VRF": {c.second, func(a *types.ATX) { a.VRFNonce++ }, "vrf nonce: "},
	} {
		a := copied(t, tc.of)
		tc.change(a)
		c.sign(a)
		if _, err := Validate(c.params, a, 2, c.view, post.All()); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The initial proof is part of the challenge, so it is registered anew.
	a := copied(t, c.first)
	a.Initial.Post.Indices[0] ^= 1
	posts := a.NIPosts[0].Posts
	a.NIPosts[0] = c.view.register(Challenge(a), types.PoetProofRef{1}, 105)
	a.NIPosts[0].Posts = posts
	c.sign(a)
	if _, err := Validate(c.params, a, 1, c.view, post.All()); err == nil || !strings.HasPrefix(err.Error(), "initial post: ") {
		t.Errorf("damaged initial proof: %v", err)
	}
}

func TestWhatIsUnknownIsNamed(t *testing.T) {
	c := build(t)
	empty := &fakeView{map[types.ATXID]*Info{}, map[types.PoetProofRef]*Poet{}}
	_, err := Validate(c.params, c.second, 2, empty, post.All())
	var missing *Missing
	if !errors.As(err, &missing) || len(missing.ATXs) != 2 || len(missing.Poets) != 1 || missing.ATXs[0] != c.first.ID() {
		t.Fatalf("%v: %+v", err, missing)
	}
}

func TestWorkBelowOneTickAndOverflowsAreRefused(t *testing.T) {
	c := build(t)
	poet := c.view.poets[types.PoetProofRef{2}]
	poet.NumLeaves = 9
	if _, err := Validate(c.params, c.second, 2, c.view, post.All()); !errors.Is(err, ErrTicks) {
		t.Errorf("less than a tick: %v", err)
	}
	poet.NumLeaves = math.MaxUint64
	c.params.TickSize = 1
	if _, err := Validate(c.params, c.second, 2, c.view, post.All()); !errors.Is(err, ErrOverflow) {
		t.Errorf("overflow: %v", err)
	}
}

// One verdict does not depend on who else is checked: whatever the others claim, and in
// whatever order.
func TestClaimsOfABatchAreJudgedEachForItself(t *testing.T) {
	c := build(t)
	claim := func(a *types.ATX, current types.Epoch, change func(*types.ATX)) *Claim {
		a = copied(t, a)
		change(a)
		if a.Initial != nil { // its proof is part of the challenge
			posts := a.NIPosts[0].Posts
			ref := types.PoetProofRef{1}
			before := c.view.poets[ref]
			defer func() { c.view.poets[ref] = before }()
			a.NIPosts[0] = c.view.register(Challenge(a), ref, 105)
			a.NIPosts[0].Posts = posts
		}
		out, err := Derive(c.params, a, a.ID(), current, c.view)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	second := func(change func(*types.ATX)) *Claim { return claim(c.second, 2, change) }
	first := func(change func(*types.ATX)) *Claim { return claim(c.first, 1, change) }
	post1 := func(a *types.ATX) { a.NIPosts[0].Posts[0].Post.Indices[0] ^= 1 }
	initial := func(a *types.ATX) { a.Initial.Post.Indices[0] ^= 1 }
	nonce := func(a *types.ATX) { a.VRFNonce += 3 }
	same := func(*types.ATX) {}
	for _, test := range []struct {
		name   string
		claim  *Claim
		begins string
		labels int
	}{
		{"first", first(same), "", 6},
		{"second", second(same), "", 1},
		{"wrong nonce", first(nonce), "vrf nonce: ", 6},
		{"wrong nonce and post", second(func(a *types.ATX) { nonce(a); post1(a) }), "vrf nonce: ", 2},
		{"wrong nonce and initial", first(func(a *types.ATX) { nonce(a); initial(a) }), "vrf nonce: ", 6},
		{"wrong initial", first(initial), "initial post: ", 6},
		{"wrong initial and post", first(func(a *types.ATX) { initial(a); post1(a) }), "initial post: ", 6},
		{"wrong post", first(post1), "post: ", 6},
		{"wrong second post", second(post1), "post: ", 1},
	} {
		if err := test.claim.Verify(c.params, post.All()); test.begins == "" && err != nil || test.begins != "" && (err == nil || !strings.HasPrefix(err.Error(), test.begins)) {
			t.Errorf("%s: %v", test.name, err)
		}
		if got := test.claim.Labels(c.params); got != test.labels {
			t.Errorf("%s computes %d labels, want %d", test.name, got, test.labels)
		}
	}
	all := []*Claim{
		first(same), second(same), first(nonce), first(initial), first(post1), second(post1),
		first(func(a *types.ATX) { initial(a); post1(a) }), second(func(a *types.ATX) { nonce(a); post1(a) }),
		first(func(a *types.ATX) { nonce(a); initial(a) }),
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		batch := make([]*Claim, rng.IntN(60))
		for i := range batch {
			batch[i] = all[rng.IntN(len(all))]
		}
		for i, err := range VerifyAll(c.params, batch, post.All()) {
			if alone := batch[i].Verify(c.params, post.All()); !reflect.DeepEqual(err, alone) {
				t.Fatalf("claim %d of %d: %v, alone %v", i, len(batch), err, alone)
			}
		}
	}
}
