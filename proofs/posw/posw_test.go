package posw

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"tweedle/values/types"
)

// vectorStatement is the statement of the vectors in reference/poet.md 1.10.
func vectorStatement() []byte {
	s := make([]byte, 32)
	for i := range s {
		s[i] = byte(7*i + 1)
	}
	return s
}

func sumOf(nodes []node) string {
	h := sha256.New()
	for _, n := range nodes {
		h.Write(n[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// prove computes a round of that many leaves and proves it.
func prove(t testing.TB, statement []byte, k uint, leaves uint64, workers int) types.PoetProof {
	t.Helper()
	p := NewProver(statement, k)
	kept := p.Advance(leaves, nil)
	proof, err := p.Prove(bytes.NewReader(kept), workers, nil)
	if err != nil {
		t.Fatalf("prove %d leaves, k %d: %v", leaves, k, err)
	}
	return proof
}

func checkEqual(t testing.TB, got, want types.PoetProof) {
	t.Helper()
	if got.Root != want.Root {
		t.Fatalf("root %x, want %x", got.Root, want.Root)
	}
	if got.NumLeaves != want.NumLeaves {
		t.Fatalf("proof of %d leaves, want %d", got.NumLeaves, want.NumLeaves)
	}
	if !slices.Equal(got.Leaves, want.Leaves) {
		t.Fatalf("leaves differ")
	}
	if !slices.Equal(got.Nodes, want.Nodes) {
		t.Fatalf("nodes differ: %d, want %d", len(got.Nodes), len(want.Nodes))
	}
}

func TestFirstLabelsAreThoseOfTheReference(t *testing.T) {
	kept := NewProver(vectorStatement(), 0).Advance(3, nil)
	want := "55758ff984c59ffb2393a38f76d2ae2d79a524accbc46208a5c47d8b31ed6061" +
		"ea6988bad14680a106b1cfc5b1e1e17bfe640f6ddf29a3037b32a6e15ca256f7" +
		"995261fe23c115deba8520ee17a46f03dde114e9f1d1339a0a0bb14abc47dace"
	if got := hex.EncodeToString(kept); got != want {
		t.Fatalf("labels %s, want %s", got, want)
	}
}

func TestProofsAreThoseOfTheReference(t *testing.T) {
	for _, v := range []struct {
		leaves              uint64
		root                string
		count               int
		nodesSum, leavesSum string
	}{
		{150, "d9fbfd974eb52d9288772bfe70b47d2a03303b1dee3ef38415af49510435dea3", 4,
			"38723a2e5e8a17aa7950dc008209944e898f69a7bd10a23c839d341e935fd5ca", ""},
		{257, "e59feb1a03962de290e0d55b7db9b5e098f4ea1236bade84367c877a6535e647", 94,
			"d779efaebbfb05489ef07a3550fc03f3c1e6f1487b5eaf646a093f10f2d772e3",
			"d860f12edbe1a33d9756dd9d75c0ba0c0d858ca0b1bd59962158a747f42a2d38"},
		{1000, "f74e80bc0ed40d0c4500c66bf256a7b1433c7e504b68705a1473ef542f99892e", 320,
			"c4a450c28c9505ad2f228066885bd68e00c0a07094a4f556bc47f9c5d0ccd108", ""},
	} {
		p := prove(t, vectorStatement(), 3, v.leaves, 1)
		if got := hex.EncodeToString(p.Root[:]); got != v.root {
			t.Errorf("%d leaves: root %s, want %s", v.leaves, got, v.root)
		}
		if len(p.Nodes) != v.count || sumOf(p.Nodes) != v.nodesSum {
			t.Errorf("%d leaves: %d nodes of hash %s, want %d of %s", v.leaves, len(p.Nodes), sumOf(p.Nodes), v.count, v.nodesSum)
		}
		if v.leavesSum != "" && sumOf(p.Leaves) != v.leavesSum {
			t.Errorf("%d leaves: leaves of hash %s, want %s", v.leaves, sumOf(p.Leaves), v.leavesSum)
		}
		if err := Verify(vectorStatement(), &p, 1); err != nil {
			t.Errorf("%d leaves: %v", v.leaves, err)
		}
		if got := Indices(p.Root, v.leaves)[:5]; v.leaves == 1000 && !slices.Equal(got, []uint64{0, 22, 23, 24, 26}) {
			t.Errorf("first indices %v", got)
		}
	}
}

func TestProverEqualsTheNaiveTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sizes := []uint64{150, 151, 255, 256, 257, 511, 512}
	for range 8 {
		sizes = append(sizes, 150+rng.Uint64N(900))
	}
	for _, leaves := range sizes {
		statement := make([]byte, []int{0, 1, 24, 31, 32, 33, 64, 100}[rng.IntN(8)])
		for i := range statement {
			statement[i] = byte(rng.Uint32())
		}
		want := newNaive(statement, leaves).proof()
		for _, k := range []uint{0, 1, 4, 7, uint(rng.IntN(12)), MaxHeight} {
			checkEqual(t, prove(t, statement, k, leaves, 1+rng.IntN(3)), want)
		}
		if err := Verify(statement, &want, 1+rng.IntN(3)); err != nil {
			t.Fatalf("%d leaves: %v", leaves, err)
		}
	}
}

func TestResumedProverEqualsTheUninterrupted(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	statement := vectorStatement()
	for range 6 {
		k, leaves := uint(rng.IntN(9)), 150+rng.Uint64N(800)
		whole := NewProver(statement, k)
		wantKept := whole.Advance(leaves, nil)

		p, kept := NewProver(statement, k), []byte(nil)
		for {
			kept = p.Advance(min(rng.Uint64N(300), leaves-p.Leaves()), kept)
			if uint64(len(kept)) != p.Kept()*NodeSize {
				t.Fatalf("%d bytes kept, Kept says %d nodes", len(kept), p.Kept())
			}
			if p.Leaves() == leaves {
				break
			}
			var err error
			if p, err = Resume(statement, k, bytes.NewReader(kept), p.Kept()); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(kept, wantKept) {
			t.Fatalf("k %d, %d leaves: kept nodes differ after resuming", k, leaves)
		}
		want, err := whole.Prove(bytes.NewReader(wantKept), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Prove(bytes.NewReader(kept), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkEqual(t, got, want)
	}
}

// What follows the kept nodes in the stream is the caller's, and stays unread.
func TestTheStreamIsReadNoFurtherThanItsNodes(t *testing.T) {
	p := NewProver(vectorStatement(), 2)
	stream := bytes.NewBuffer(append(p.Advance(1001, nil), "what follows"...))
	again := bytes.NewBuffer(slices.Clone(stream.Bytes()))
	if _, err := Resume(vectorStatement(), 2, stream, p.Kept()); err != nil || stream.String() != "what follows" {
		t.Fatalf("left %q, error %v", stream, err)
	}
	if _, err := p.Prove(again, 1, nil); err != nil || again.String() != "what follows" {
		t.Fatalf("left %q, error %v", again, err)
	}
}

func TestResumeSaysWhatIsWrong(t *testing.T) {
	const k, leaves = 3, 0b1011_0110
	statement := vectorStatement()
	p := NewProver(statement, k)
	kept := p.Advance(leaves, nil)
	broken := errors.New("disk is gone")
	for _, c := range []struct {
		name  string
		bytes int
		nodes uint64
		want  string
	}{
		{"a node is missing", len(kept) - 32, p.Kept(), "only 21 whole kept nodes for 176 leaves, 22 are needed"},
		{"half a node is missing", len(kept) - 16, p.Kept(), "only 21 whole kept nodes"},
		{"too many nodes", len(kept), MaxLeaves>>k + 1, "beyond the largest tree"},
	} {
		_, err := Resume(statement, k, bytes.NewReader(kept[:c.bytes]), c.nodes)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Resume(statement, k, iotest.ErrReader(broken), p.Kept()); !errors.Is(err, broken) {
		t.Errorf("read error lost: %v", err)
	}
	if _, err := Resume(statement, MaxHeight+1, bytes.NewReader(kept), p.Kept()); err == nil {
		t.Error("height of the kept nodes has no limit")
	}
}

func TestProveFindsWhatWasSpoiled(t *testing.T) {
	p := NewProver(vectorStatement(), 4)
	kept := p.Advance(1000, nil)
	for at := 0; at < len(kept); at += 97 {
		kept[at] ^= 1
		if _, err := p.Prove(bytes.NewReader(kept), 2, nil); err == nil {
			t.Fatalf("kept byte %d changed and the proof was made", at)
		}
		kept[at] ^= 1
	}
	p.spine.parked[5][0] ^= 1 // 1000 has bit 5
	if _, err := p.Prove(bytes.NewReader(kept), 2, nil); err == nil {
		t.Fatal("parked node changed and the proof was made")
	}
	if _, err := NewProver(nil, 4).Prove(bytes.NewReader(nil), 1, nil); err == nil {
		t.Fatal("a proof was made of no leaves")
	}
}

func TestProveReportsEverySubtree(t *testing.T) {
	p := NewProver(vectorStatement(), 5)
	kept := p.Advance(3000, nil)
	var calls, total int
	if _, err := p.Prove(bytes.NewReader(kept), 3, func(done, of int) {
		if calls++; done != calls {
			t.Errorf("call %d says %d done", calls, done)
		}
		total = of
	}); err != nil {
		t.Fatal(err)
	}
	if calls != total || total < 60 || total > 94 { // 3000 leaves are 94 subtrees of 32
		t.Fatalf("progress ended at %d of %d", calls, total)
	}
}

// The largest proof must fit on the wire, and the next height must not.
func TestMaxHeightIsTheTallestThatFits(t *testing.T) {
	// 106 leaves alone under their node of the 7th layer from the top, 44 in pairs.
	spread := func(height uint) int {
		indices := make([]uint64, openings)
		for i := range indices {
			indices[i] = uint64(min(2*i, i+106)) << (height - 8)
		}
		return len(spot{height: height}.siblings(indices, nil))
	}
	if got := spread(MaxHeight); got > types.MaxPoetNodes {
		t.Fatalf("height %d opens %d nodes, more than %d", MaxHeight, got, types.MaxPoetNodes)
	}
	if got := spread(MaxHeight + 1); got <= types.MaxPoetNodes {
		t.Fatalf("height %d opens only %d nodes, MaxHeight is too low", MaxHeight+1, got)
	}
}

func TestIndicesOfFewLeavesAreAll(t *testing.T) {
	for _, leaves := range []uint64{0, 1, 149, 150} {
		got := Indices(node{1}, leaves)
		if uint64(len(got)) != leaves {
			t.Fatalf("%d indices of %d leaves", len(got), leaves)
		}
		for i, index := range got {
			if index != uint64(i) {
				t.Fatalf("index %d is %d", i, index)
			}
		}
	}
}

func TestAdvanceAllocatesNothing(t *testing.T) {
	p := NewProver(vectorStatement(), 4)
	kept := make([]byte, 0, 1<<16)
	kept = p.Advance(1000, kept)
	if got := testing.AllocsPerRun(20, func() { kept = p.Advance(100, kept[:0]) }); got != 0 {
		t.Fatalf("%v allocations in 100 leaves", got)
	}
}

func TestVerifyRejects(t *testing.T) {
	const leaves = 1000
	statement := vectorStatement()
	good := prove(t, statement, 2, leaves, 1)
	clone := func() types.PoetProof {
		return types.PoetProof{Root: good.Root, Leaves: slices.Clone(good.Leaves), Nodes: slices.Clone(good.Nodes), NumLeaves: good.NumLeaves}
	}
	if err := Verify(statement, &good, 1); err != nil {
		t.Fatal(err)
	}
	zeroNode := slices.Index(good.Nodes, node{})
	for _, c := range []struct {
		name   string
		leaves uint64
		spoil  func(*types.PoetProof)
		want   string
	}{
		{"too few leaves in the tree", 149, func(*types.PoetProof) {}, "must be 150 to"},
		{"no leaves in the tree", 0, func(*types.PoetProof) {}, "must be 150 to"},
		{"too many leaves in the tree", MaxLeaves + 1, func(*types.PoetProof) {}, "must be 150 to"},
		{"all bits of the number", ^uint64(0), func(*types.PoetProof) {}, "must be 150 to"},
		{"largest tree", MaxLeaves, func(*types.PoetProof) {}, "nodes, the opened leaves need"},
		{"another tree", leaves + 1, func(*types.PoetProof) {}, "nodes"},
		{"empty proof", leaves, func(p *types.PoetProof) { *p = types.PoetProof{NumLeaves: leaves} }, "0 opened leaves"},
		{"leaf missing", leaves, func(p *types.PoetProof) { p.Leaves = p.Leaves[1:] }, "149 opened leaves"},
		{"leaf too many", leaves, func(p *types.PoetProof) { p.Leaves = append(p.Leaves, node{}) }, "151 opened leaves"},
		{"node missing", leaves, func(p *types.PoetProof) { p.Nodes = p.Nodes[1:] }, "319 nodes, the opened leaves need 320"},
		{"node too many", leaves, func(p *types.PoetProof) { p.Nodes = append(p.Nodes, node{}) }, "321 nodes, the opened leaves need 320"},
		{"nodes beyond the wire", leaves, func(p *types.PoetProof) { p.Nodes = make([]node, types.MaxPoetNodes+1) }, "at most 5400"},
		{"leaf changed", leaves, func(p *types.PoetProof) { p.Leaves[77][31] ^= 1 }, "do not hash to the root"},
		{"node changed", leaves, func(p *types.PoetProof) { p.Nodes[0][0] ^= 1 }, "do not hash to the root"},
		{"padding not zero", leaves, func(p *types.PoetProof) { p.Nodes[zeroNode][3] = 1 }, "beyond the last leaf and is not zero"},
	} {
		p := clone()
		p.NumLeaves = c.leaves
		c.spoil(&p)
		if err := Verify(statement, &p, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	if err := Verify([]byte("another statement"), &good, 1); err == nil {
		t.Error("another statement was accepted")
	}
}

// A tree whose nodes are right but one of whose leaves was not computed must not
// pass: only the labels can tell.
func TestVerifyRecomputesTheLabels(t *testing.T) {
	const leaves = 150 // all are opened
	lazy := newNaive(vectorStatement(), leaves)
	lazy.leaves[leaves-1] = node{1, 2, 3}
	lazy.inner = map[spot]node{}
	proof := lazy.proof()
	err := Verify(vectorStatement(), &proof, 2)
	if err == nil || !strings.Contains(err.Error(), "leaf 149 is not the label") {
		t.Fatalf("error %v", err)
	}
}

// FuzzVerify spoils an honest proof, or hands over arbitrary bytes as one. Nothing but the
// honest proof itself may be accepted.
func FuzzVerify(f *testing.F) {
	statement := vectorStatement()
	good := prove(f, statement, 2, 1000, 1)
	f.Add(uint64(1000), []byte{}, 0, byte(0), true)
	f.Add(uint64(1000), []byte{}, 77, byte(1), true)
	f.Add(uint64(1<<40), bytes.Repeat([]byte{7}, 32*(openings+200)), 3, byte(9), false)
	f.Add(uint64(MaxLeaves), bytes.Repeat([]byte{0}, 32*(openings+5400)), 0, byte(0), false)
	f.Fuzz(func(t *testing.T, leaves uint64, raw []byte, at int, flip byte, honest bool) {
		p := types.PoetProof{Root: good.Root, Leaves: slices.Clone(good.Leaves), Nodes: slices.Clone(good.Nodes), NumLeaves: good.NumLeaves}
		if !honest {
			p = types.PoetProof{}
			for i := 0; i+32 <= len(raw); i += 32 {
				if n := node(raw[i:]); i/32 < openings {
					p.Leaves = append(p.Leaves, n)
				} else {
					p.Nodes = append(p.Nodes, n)
				}
			}
		}
		all := [][]node{{p.Root}, p.Leaves, p.Nodes}
		if at >= 0 {
			for _, part := range all {
				if at < len(part)*32 {
					part[at/32][at%32] ^= flip
					break
				}
				at -= len(part) * 32
			}
		}
		p.Root = all[0][0]
		p.NumLeaves = leaves
		err := Verify(statement, &p, 1)
		same := leaves == 1000 && p.Root == good.Root && slices.Equal(p.Leaves, good.Leaves) && slices.Equal(p.Nodes, good.Nodes)
		if same != (err == nil) {
			t.Fatalf("the honest proof: %v, error: %v", same, err)
		}
	})
}
