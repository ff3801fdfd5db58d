package post

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func TestLabelsOfManySpacesAreThoseOneByOne(t *testing.T) {
	for _, k := range labelKernels() {
		l, twin := newLabeler(16, k), newLabeler(16, portableLabels)
		for _, n := range append(slices.Clone(countSets), 38, 39, 40, 41, 97) {
			places, labels := make([]Place, n), make([][32]byte, n)
			for i := range places {
				places[i] = Place{[32]byte{byte(i / 2), byte(n)}, uint64(i) * 0x9e3779b97f4a7c15}
			}
			l.LabelsAt(places, labels)
			for i, p := range places {
				if labels[i] != twin.Label(p.Commitment, p.Index) {
					t.Errorf("%s: label %d of %d is wrong", k.name, i, n)
				}
			}
		}
	}
}

// proved are spaces of their own identities, with a proof of each.
func proved(t testing.TB, p Params, n int) []Verification {
	t.Helper()
	var all []Verification
	for i := range n {
		dir := t.TempDir()
		m := ProofMetadata{NodeID: [32]byte{byte(i), 7}, CommitmentATX: [32]byte{8, byte(i % 2)}, Challenge: [32]byte{byte(i / 2)}, NumUnits: p.MinUnits + uint32(i%2)}
		if _, err := Init(dir, p, Setup{NodeID: m.NodeID, CommitmentATX: m.CommitmentATX, NumUnits: m.NumUnits, MaxFileSize: MinFileSize}, InitOptions{}); err != nil {
			t.Fatal(err)
		}
		d, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := d.Prove(m.Challenge, p, ProveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Verification{proof, m, All()})
	}
	return all
}

// FuzzVerifyAll compares the verdicts on a batch, of honest proofs and false ones in any
// order, with those of the portable kernel on each alone.
func FuzzVerifyAll(f *testing.F) {
	p := rarely()
	spaces := proved(f, p, 5)
	f.Add(uint64(1), uint8(1))
	f.Add(uint64(2), uint8(45))
	f.Add(uint64(3), uint8(100))
	f.Fuzz(func(t *testing.T, seed uint64, count uint8) {
		rng := rand.New(rand.NewPCG(seed, 0))
		batch := make([]Verification, count)
		for i := range batch {
			v := spaces[rng.IntN(len(spaces))]
			v.Proof.Indices = slices.Clone(v.Proof.Indices)
			v.Mode = []Mode{All(), Subset([]byte{byte(rng.Uint32())}), One(rng.IntN(int(p.K2)))}[rng.IntN(3)]
			switch rng.IntN(8) {
			case 0, 1, 2: // most of the time it claims labels that do not pass
				bit := rng.IntN(int(p.K2) * indexBits(mustNumLabels(t, p, v.About.NumUnits)))
				v.Proof.Indices[bit/8] ^= 1 << (bit % 8)
			case 3:
				v.About.CommitmentATX[5]++
			case 4:
				v.Proof.Pow = rng.Uint64()
			case 5:
				v.About.NumUnits = rng.Uint32N(6)
			}
			batch[i] = v
		}
		want := make([]error, len(batch))
		for i := range batch {
			want[i] = verify(choice{labels: portableLabels}, batch[i:i+1], p)[0]
		}
		for _, k := range labelKernels() {
			if got := verify(choice{labels: k}, batch, p); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: in a batch of %d\n%v, alone\n%v", k.name, len(batch), got, want)
			}
		}
	})
}

func TestOneFalseProofInABatchIsNamedAndCostsTheOthersNothing(t *testing.T) {
	p := rarely()
	spaces := proved(t, p, 5)
	for _, k := range labelKernels() {
		for at := range spaces {
			batch := slices.Clone(spaces)
			batch[at].About.CommitmentATX[5]++
			for i, err := range verify(choice{labels: k}, batch, p) {
				var wrong *InvalidIndexError
				if errors.As(err, &wrong) != (i == at) || i != at && err != nil {
					t.Errorf("%s, proof %d is false: of proof %d %v", k.name, at, i, err)
				}
			}
		}
	}
}

// A false proof gets no more of our time in a batch than alone: a call of the kernel, and the
// label that convicts it once more.
func TestALostProofIsComputedNoFurther(t *testing.T) {
	p := rarely()
	honest := proved(t, p, 1)[0]
	lie := honest
	lie.About.CommitmentATX[5]++
	mixed := 0
	counting := labelKernel{"counting", []mixer{{lanes: 1, mix: func(x, v []block) { mixed++; one.mix(x, v) }}}}
	var wrong *InvalidIndexError
	if err := verify(choice{labels: counting}, []Verification{lie}, p)[0]; !errors.As(err, &wrong) || wrong.Ordinal+1 == int(p.K2) {
		t.Fatalf("this test needs a label that is wrong and not the last: %v", err)
	}
	alone := wrong.Ordinal + 1
	if mixed != alone {
		t.Errorf("%d labels for a lie whose label %d is wrong", mixed, wrong.Ordinal)
	}
	for i := range 20 {
		mixed = 0
		batch := slices.Repeat([]Verification{lie}, i)
		verify(choice{labels: counting}, append(batch, honest), p)
		if want := i*alone + int(p.K2); mixed != want {
			t.Errorf("%d labels for %d lies and a proof, want %d", mixed, i, want)
		}
	}
}

// Nobody is guilty because our kernel computes a wrong label, of whatever proof of a batch.
func TestAWrongKernelAccusesNobodyOfABatch(t *testing.T) {
	p := rarely()
	batch := proved(t, p, 5)
	nonces := []VRFNonce{}
	for i := range uint64(9) {
		nonces = append(nonces, VRFNonce{Nonce: i, Commitment: [32]byte{3}, NumUnits: p.MinUnits})
	}
	want := VerifyVRFNonces(nonces, p)
	for _, k := range labelKernels() {
		useLabels(t, wrongLabels(k))
		for i, err := range VerifyAll(batch, p) {
			if err != nil {
				t.Errorf("%s spoiled, proof %d: %v", k.name, i, err)
			}
		}
		for i, err := range VerifyVRFNonces(nonces, p) {
			if want[i] == nil && err != nil {
				t.Errorf("%s spoiled, VRF nonce %d: %v", k.name, i, err)
			}
		}
	}
}

func TestVRFNoncesOfABatchAreJudgedEachForItself(t *testing.T) {
	p := rarely()
	good, bad := 0, 0
	var nonces []VRFNonce
	for i := range uint64(100) {
		nonces = append(nonces, VRFNonce{Nonce: i * 97, Commitment: [32]byte{byte(i)}, NumUnits: uint32(i % 6)})
	}
	// Where few labels are below the threshold, most are wrong: some good ones among them.
	for c := range byte(3) {
		commitment := [32]byte{c, 1}
		for i := uint64(0); ; i++ {
			if verifyVRFNonce(i, commitment, 2, p) == nil {
				nonces = slices.Insert(nonces, int(c)*30, VRFNonce{i, commitment, 2})
				break
			}
		}
	}
	for _, k := range labelKernels() {
		useLabels(t, k)
		for i, err := range VerifyVRFNonces(nonces, p) {
			v := nonces[i]
			var want error
			if numLabels, outside := p.NumLabels(v.NumUnits); outside != nil {
				want = outside
			} else if label, threshold := newLabeler(p.ScryptN, portableLabels).Label(v.Commitment, v.Nonce), vrfThreshold(numLabels); slices.Compare(label[:], threshold[:]) >= 0 {
				want = fmt.Errorf("post: label of VRF nonce %d is not below the threshold of %d labels", v.Nonce, numLabels)
				bad++
			} else {
				good++
			}
			if fmt.Sprint(err) != fmt.Sprint(want) {
				t.Errorf("%s: nonce %d: %v, want %v", k.name, i, err, want)
			}
		}
	}
	if good == 0 || bad == 0 {
		t.Errorf("%d good ones, %d bad ones", good, bad)
	}
}
