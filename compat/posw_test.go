// Package compat holds what judges us from outside: the published PoET beside ours,
// in one process. It is a module of its own to keep the judges' dependencies out of
// the programs.
package compat

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/spacemeshos/merkle-tree"
	"github.com/spacemeshos/merkle-tree/cache"
	"github.com/spacemeshos/poet/hash"
	"github.com/spacemeshos/poet/prover"
	"github.com/spacemeshos/poet/shared"
	"github.com/spacemeshos/poet/verifier"

	"tweedle/proofs/posw"
	"tweedle/values/types"
)

// reference computes the proof of a tree of exactly that many leaves with the parts
// its prover is made of. (The prover itself stops by the clock only.)
func reference(t testing.TB, statement []byte, leaves uint64) types.PoetProof {
	t.Helper()
	writer := cache.NewWriter(cache.MinHeightPolicy(0), cache.MakeSliceReadWriterFactory())
	tree, err := merkle.NewTreeBuilder().WithHashFunc(hash.GenMerkleHashFunc(statement)).WithCacheWriter(writer).Build()
	if err != nil {
		t.Fatal(err)
	}
	label, makeLabel := hash.GenLabelHashFunc(statement), shared.MakeLabelFunc()
	var parked [][]byte
	for i := range leaves {
		parked = tree.GetParkedNodes(parked[:0])
		if err := tree.AddLeaf(makeLabel(label, i, parked)); err != nil {
			t.Fatal(err)
		}
	}
	root := tree.Root()
	reader, err := writer.GetReader()
	if err != nil {
		t.Fatal(err)
	}
	_, proven, nodes, err := merkle.GenerateProof(shared.FiatShamir(root, leaves, shared.T), reader)
	if err != nil {
		t.Fatal(err)
	}
	return fromReference(shared.MerkleProof{Root: root, ProvenLeaves: proven, ProofNodes: nodes}, leaves)
}

func fromReference(p shared.MerkleProof, leaves uint64) types.PoetProof {
	convert := func(from [][]byte) (to []types.Hash32) {
		for _, b := range from {
			to = append(to, types.Hash32(b))
		}
		return to
	}
	return types.PoetProof{Root: types.Hash32(p.Root), Leaves: convert(p.ProvenLeaves), Nodes: convert(p.ProofNodes), NumLeaves: leaves}
}

func toReference(p *types.PoetProof) shared.MerkleProof {
	convert := func(from []types.Hash32) (to [][]byte) {
		for i := range from {
			to = append(to, from[i][:])
		}
		return to
	}
	return shared.MerkleProof{Root: p.Root[:], ProvenLeaves: convert(p.Leaves), ProofNodes: convert(p.Nodes)}
}

// referenceVerify is the published verifier.
func referenceVerify(statement []byte, p *types.PoetProof) error {
	return verifier.Validate(toReference(p), hash.GenLabelHashFunc(statement), hash.GenMerkleHashFunc(statement), p.NumLeaves, shared.T)
}

// check compares both provers and both verifiers on one tree, for each k.
func check(t *testing.T, statement []byte, leaves uint64, ks ...uint) {
	t.Helper()
	want := reference(t, statement, leaves)
	if err := posw.Verify(statement, &want, 1); err != nil {
		t.Fatalf("%d leaves: our verifier rejects the reference's proof: %v", leaves, err)
	}
	for _, k := range ks {
		p := posw.NewProver(statement, k)
		got, err := p.Prove(bytes.NewReader(p.Advance(leaves, nil)), 2, nil)
		if err != nil {
			t.Fatalf("%d leaves, k %d: %v", leaves, k, err)
		}
		if got.Root != want.Root || !slices.Equal(got.Leaves, want.Leaves) || !slices.Equal(got.Nodes, want.Nodes) {
			t.Fatalf("%d leaves, k %d: proofs differ: roots %x and %x, %d and %d nodes",
				leaves, k, got.Root, want.Root, len(got.Nodes), len(want.Nodes))
		}
		if err := referenceVerify(statement, &got); err != nil {
			t.Fatalf("%d leaves, k %d: the reference's verifier rejects our proof: %v", leaves, k, err)
		}
	}
}

// everyK is each k that makes a difference to a tree of up to 5000 leaves.
var everyK = []uint{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, posw.MaxHeight}

func statement(rng *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestProofsEqualTheReferencesAroundEveryBorder(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, leaves := range []uint64{150, 151, 152, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 5000} {
		check(t, statement(rng, 32), leaves, everyK...)
	}
}

func TestProofsEqualTheReferencesOnRandomTrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for range 8 {
		check(t, statement(rng, 32), 150+rng.Uint64N(4851), everyK...)
	}
	for _, size := range []int{0, 1, 24, 31, 33, 63, 64, 65, 1000} { // round without members, and the reference's single odd member
		check(t, statement(rng, size), 150+rng.Uint64N(500), 0, 3, 9)
	}
}

// The reference's own prover, stopped by its clock.
func TestTheReferencesProverIsAcceptedAndEqualled(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	for _, run := range []time.Duration{-time.Second, 50 * time.Millisecond, 300 * time.Millisecond} {
		s := statement(rng, 32)
		leaves, proof, err := prover.GenerateProofWithoutPersistency(context.Background(), prover.TreeConfig{Datadir: t.TempDir()},
			hash.GenLabelHashFunc(s), hash.GenMerkleHashFunc(s), time.Now().Add(run), shared.T)
		if err != nil {
			t.Fatal(err)
		}
		want := fromReference(*proof, leaves)
		if err := posw.Verify(s, &want, 1); err != nil {
			t.Fatalf("%d leaves: %v", leaves, err)
		}
		p := posw.NewProver(s, 8)
		got, err := p.Prove(bytes.NewReader(p.Advance(leaves, nil)), 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got.Root != want.Root || !slices.Equal(got.Leaves, want.Leaves) || !slices.Equal(got.Nodes, want.Nodes) {
			t.Fatalf("%d leaves: proofs differ", leaves)
		}
	}
}

// Whatever the reference's verifier rejects, ours rejects.
func TestSpoiledProofsAreRejectedByBoth(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 18))
	s, leaves := statement(rng, 32), uint64(777)
	good := reference(t, s, leaves)
	for range 60 {
		p := types.PoetProof{Root: good.Root, Leaves: slices.Clone(good.Leaves), Nodes: slices.Clone(good.Nodes), NumLeaves: leaves}
		switch rng.IntN(6) {
		case 0:
			p.Root[rng.IntN(32)] ^= 1 << rng.IntN(8)
		case 1:
			p.Leaves[rng.IntN(len(p.Leaves))][rng.IntN(32)] ^= 1 << rng.IntN(8)
		case 2:
			p.Nodes[rng.IntN(len(p.Nodes))][rng.IntN(32)] ^= 1 << rng.IntN(8)
		case 3:
			p.Nodes = p.Nodes[:len(p.Nodes)-1-rng.IntN(5)]
		case 4:
			p.NumLeaves = 150 + rng.Uint64N(2000)
			if p.NumLeaves == leaves {
				p.NumLeaves++
			}
		case 5:
			i, j := rng.IntN(len(p.Leaves)), rng.IntN(len(p.Leaves)-1)
			if j >= i {
				j++
			}
			p.Leaves[i], p.Leaves[j] = p.Leaves[j], p.Leaves[i]
		}
		ours, theirs := posw.Verify(s, &p, 1), referenceVerify(s, &p)
		if ours == nil || theirs == nil {
			t.Fatalf("a spoiled proof was accepted: ours says %v, the reference %v", ours, theirs)
		}
	}
}

// FuzzProofs compares both ways on any statement, size and k.
func FuzzProofs(f *testing.F) {
	f.Add([]byte("challenge"), uint16(0), uint8(3))
	f.Add(bytes.Repeat([]byte{0xa5}, 32), uint16(874), uint8(14))
	f.Add([]byte{}, uint16(4850), uint8(0))
	f.Fuzz(func(t *testing.T, statement []byte, size uint16, k uint8) {
		if len(statement) > 4096 {
			t.Skip("a statement is a hash or a challenge, not a document")
		}
		check(t, statement, 150+uint64(size)%4851, uint(k)%(posw.MaxHeight+1))
	})
}
