package post

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

var (
	testID  = [32]byte{'i', 'd'}
	testATX = [32]byte{'a', 't', 'x'}
)

// proveInTemp initialises the least space that p allows, and proves it.
func proveInTemp(t testing.TB, p Params, challenge [32]byte) (*Data, Proof, ProofMetadata) {
	t.Helper()
	dir := t.TempDir()
	if _, err := Init(dir, p, Setup{NodeID: testID, CommitmentATX: testATX, NumUnits: p.MinUnits, MaxFileSize: MinFileSize}, InitOptions{Workers: 2}); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := d.Prove(challenge, p, ProveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return d, proof, ProofMetadata{NodeID: testID, CommitmentATX: testATX, Challenge: challenge, NumUnits: p.MinUnits}
}

func mustNumLabels(t testing.TB, p Params, units uint32) uint64 {
	t.Helper()
	n, err := p.NumLabels(units)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// rarely has parameters whose difficulty has a zero first byte, as mainnet's.
func rarely() Params {
	p := TestParams()
	p.LabelsPerUnit, p.K1, p.K2, p.K3 = 1<<10, 4, 5, 3
	return p
}

func TestWhatIsProvedVerifies(t *testing.T) {
	for _, v := range []struct {
		name   string
		params Params
		msb    bool
	}{
		{"first byte of the difficulty is not zero", TestParams(), true},
		{"first byte of the difficulty is zero", rarely(), false},
	} {
		t.Run(v.name, func(t *testing.T) {
			numLabels := mustNumLabels(t, v.params, v.params.MinUnits)
			if d := newDifficulty(v.params.K1, numLabels); (d.msb != 0) != v.msb {
				t.Fatalf("difficulty is %+v", d)
			}
			d, proof, m := proveInTemp(t, v.params, [32]byte{7})
			for _, mode := range []Mode{All(), Subset([]byte("peer")), One(0), One(int(v.params.K2) - 1)} {
				if err := Verify(proof, m, v.params, mode); err != nil {
					t.Errorf("mode %+v: %v", mode, err)
				}
			}
			if err := verifyVRFNonce(*d.Metadata.Nonce, Commitment(testID, testATX), m.NumUnits, v.params); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestProofDoesNotDependOnTheWorkers(t *testing.T) {
	d, want, _ := proveInTemp(t, rarely(), [32]byte{9})
	for _, workers := range []int{1, 2, 5} {
		got, err := d.Prove([32]byte{9}, rarely(), ProveOptions{Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		if got.Nonce != want.Nonce || got.Pow != want.Pow || !slices.Equal(got.Indices, want.Indices) {
			t.Fatalf("%d workers prove %+v, not %+v", workers, got, want)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	p := rarely()
	_, proof, m := proveInTemp(t, p, [32]byte{3})
	numLabels := mustNumLabels(t, p, m.NumUnits)
	width := indexBits(numLabels)
	indices, err := unpackIndices(proof.Indices, p.K2, width)
	if err != nil {
		t.Fatal(err)
	}
	withIndex := func(at int, index uint64) func(*Proof, *ProofMetadata, *Params) {
		return func(q *Proof, _ *ProofMetadata, _ *Params) {
			changed := slices.Clone(indices)
			changed[at] = index
			q.Indices = packIndices(changed, width)
		}
	}
	for _, v := range []struct {
		name   string
		change func(*Proof, *ProofMetadata, *Params)
		want   string // the error's beginning
	}{
		{"too few units", func(_ *Proof, m *ProofMetadata, _ *Params) { m.NumUnits = 1 }, "post: 1 units, must be in 2..4"},
		{"too many units", func(_ *Proof, m *ProofMetadata, _ *Params) { m.NumUnits = 5 }, "post: 5 units, must be in 2..4"},
		{"a nonce beyond the groups", func(q *Proof, _ *ProofMetadata, _ *Params) { q.Nonce = MaxNonces }, "post: nonce 4096, must be below 4096"},
		{"a counter beyond what is hashed", func(q *Proof, _ *ProofMetadata, _ *Params) { q.Pow += 1 << 56 }, "post: proof of work counter"},
		{"a counter that is no solution", func(_ *Proof, _ *ProofMetadata, p *Params) { p.PowDifficulty = [32]byte{} }, "post: blake3 proof of work of nonce group"},
		{"no indices", func(q *Proof, _ *ProofMetadata, _ *Params) { q.Indices = nil }, "post: indices take 0 bytes, must be 8"},
		{"one byte more", func(q *Proof, _ *ProofMetadata, _ *Params) { q.Indices = append(slices.Clone(q.Indices), 0) }, "post: indices take 9 bytes, must be 8"},
		{"a padding bit", func(q *Proof, _ *ProofMetadata, _ *Params) {
			q.Indices = slices.Clone(q.Indices)
			q.Indices[len(q.Indices)-1] |= 0x80
		}, "post: padding bits"},
		{"an index twice", withIndex(0, indices[1]), fmt.Sprintf("post: index %d appears more than once", indices[1])},
		{"an index outside", withIndex(2, numLabels), fmt.Sprintf("post: index %d is outside the space", numLabels)},
		{"a proof of work that is not built in", func(_ *Proof, _ *ProofMetadata, p *Params) { p.PoW = notBuiltIn{randomX} }, "post: randomx proof of work is not built into this program"},
	} {
		t.Run(v.name, func(t *testing.T) {
			q, m, p := proof, m, p
			v.change(&q, &m, &p)
			err := Verify(q, m, p, All())
			if err == nil || len(err.Error()) < len(v.want) || err.Error()[:len(v.want)] != v.want {
				t.Fatalf("got %v, want %q", err, v.want)
			}
		})
	}
	for _, o := range []int{-1, int(p.K2)} {
		if err := Verify(proof, m, p, One(o)); err == nil {
			t.Errorf("index number %d is accepted", o)
		}
	}
}

func TestAnIndexThatDoesNotPassIsNamed(t *testing.T) {
	p := rarely()
	_, proof, m := proveInTemp(t, p, [32]byte{4})
	numLabels := mustNumLabels(t, p, m.NumUnits)
	width := indexBits(numLabels)
	indices, err := unpackIndices(proof.Indices, p.K2, width)
	if err != nil {
		t.Fatal(err)
	}
	const at = 3
	honest := slices.Clone(indices)
	d := newDifficulty(p.K1, numLabels)
	tester := newTester(&m.Challenge, proof.Nonce, proof.Pow, d)
	for i := uint64(0); ; i++ {
		label := NewLabeler(p.ScryptN).Label(Commitment(testID, testATX), i)
		if !tester.passes(label[:LabelSize]) && !slices.Contains(indices, i) {
			indices[at] = i
			break
		}
	}
	proof.Indices = packIndices(indices, width)

	check := func(mode Mode, ordinal int) {
		t.Helper()
		err := Verify(proof, m, p, mode)
		if ordinal < 0 {
			if err != nil {
				t.Fatalf("mode %+v: %v", mode, err)
			}
			return
		}
		var invalid *InvalidIndexError
		if !errors.As(err, &invalid) || invalid.Ordinal != ordinal || invalid.Index != indices[ordinal] {
			t.Fatalf("mode %+v: got %v, want index number %d, label %d", mode, err, ordinal, indices[ordinal])
		}
	}
	check(All(), at)
	check(One(at), at)
	check(One(at-1), -1)

	// A subset finds it exactly if the seed draws it.
	drawn := 0
	for seed := range byte(50) {
		ordinals := drawOrdinals(int(p.K3), int(p.K2), []byte{seed}, m.NodeID[:], m.Challenge[:])
		if slices.Contains(ordinals, at) {
			drawn++
			check(Subset([]byte{seed}), at)
		} else {
			check(Subset([]byte{seed}), -1)
		}
	}
	if drawn == 0 || drawn == 50 {
		t.Fatalf("%d of 50 seeds draw the index", drawn)
	}

	proof.Indices = packIndices(honest, width)
	m.Challenge[0]++
	if err := Verify(proof, m, p, All()); err == nil {
		t.Fatal("the proof is accepted for another challenge")
	}
}

func TestALabelAllocatesNothing(t *testing.T) {
	l := NewLabeler(16)
	if n := testing.AllocsPerRun(100, func() { l.Label([32]byte{}, 1) }); n != 0 {
		t.Fatalf("%v allocations for a label", n)
	}
}

func verifyVRFNonce(nonce uint64, commitment [32]byte, units uint32, p Params) error {
	return VerifyVRFNonces([]VRFNonce{{nonce, commitment, units}}, p)[0]
}
