package post

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// countSets are how many labels are asked for: less, as many and more than lanes.
var countSets = []int{0, 1, 2, 3, 5, 6, 7, 8, 11, 12, 13, 37}

func TestLabelsAtOnceAreThoseOneByOne(t *testing.T) {
	for _, k := range labelKernels() {
		l, twin := newLabeler(16, k), newLabeler(16, portableLabels)
		for _, n := range countSets {
			indices, labels := make([]uint64, n), make([][32]byte, n)
			for i := range indices {
				indices[i] = uint64(i) * 0x9e3779b97f4a7c15
			}
			l.Labels(testID, indices, labels)
			for i, index := range indices {
				if labels[i] != twin.Label(testID, index) {
					t.Errorf("%s: label %d of %d is wrong", k.name, i, n)
				}
			}
		}
	}
}

// Lanes of which few are used may cost more than one label after another.
func TestTheMixerThatCostsLeastForSoManyLabelsIsTaken(t *testing.T) {
	for _, test := range []struct {
		costs [3]float64 // of 1, 4 and 16 lanes
		taken map[int]int
	}{
		{[3]float64{0, 0, 0}, map[int]int{1: 1, 2: 4, 4: 4, 5: 16, 16: 16, 40: 16}},
		{[3]float64{10, 16, 32}, map[int]int{1: 1, 2: 4, 4: 4, 7: 4, 9: 16, 40: 16}},
		{[3]float64{10, 9, 30}, map[int]int{1: 4, 13: 4, 14: 16}},
	} {
		var k labelKernel
		for i, lanes := range []int{1, 4, 16} {
			k.mixers = append(k.mixers, mixer{lanes: lanes, cost: test.costs[i], mix: one.mix})
		}
		for labels, lanes := range test.taken {
			if got := newLabeler(2, k).mixer(labels).lanes; got != lanes {
				t.Errorf("costs %v: %d lanes for %d labels, want %d", test.costs, got, labels, lanes)
			}
		}
	}
}

// A cost whose scratch would be large for many lanes is computed in few.
func TestScratchIsBounded(t *testing.T) {
	for _, k := range labelKernels() {
		for n := uint32(2); n <= MaxScryptN; n *= 2 {
			l := newLabeler(n, k)
			if l.Lanes() > k.mixers[0].lanes && l.Lanes()*int(n)*128 > 64<<20 {
				t.Errorf("%s: %d lanes at N=%d", k.name, l.Lanes(), n)
			}
		}
	}
}

func TestAWrongKernelIsNotChosen(t *testing.T) {
	for _, k := range labelKernels() {
		got, err := fastest([]labelKernel{wrongLabels(k)}, portableLabels)
		if got.name != portable || err == nil || !strings.Contains(err.Error(), "wrong kernel of post") {
			t.Errorf("%s spoiled in its last lane: %s is chosen, %v", k.name, got.name, err)
		}
		if got, err := fastest([]labelKernel{k}, portableLabels); got.name != k.name || err != nil {
			t.Errorf("%s alone: %s is chosen, %v", k.name, got.name, err)
		}
	}
}

func TestAKernelIsChosenByNameBeforeUse(t *testing.T) {
	names := Kernels()
	if names[0] != portable {
		t.Fatalf("kernels are %v", names)
	}
	inUse, err := Kernel()
	if err != nil || !slices.Contains(names, inUse) {
		t.Fatalf("%s of %v is in use, %v", inUse, names, err)
	}
	if err := UseKernel("abacus"); err == nil || !strings.Contains(err.Error(), "choose one of: "+strings.Join(names, ", ")) {
		t.Errorf("an unknown kernel: %v", err)
	}
	for _, name := range names {
		if err := UseKernel(name); (err == nil) != (name == inUse) {
			t.Errorf("%s, while %s is in use: %v", name, inUse, err)
		}
	}
}

// Nobody is guilty because our kernel computes a wrong label.
func TestAWrongKernelAccusesNobody(t *testing.T) {
	p := TestParams()
	_, proof, m := proveInTemp(t, p, [32]byte{1})
	for _, k := range labelKernels() {
		useLabels(t, wrongLabels(k))
		if err := Verify(proof, m, p, All()); err != nil {
			t.Errorf("%s spoiled: %v", k.name, err)
		}
		var wrong *InvalidIndexError
		bad := m
		bad.CommitmentATX[0] ^= 1
		if err := Verify(proof, bad, p, All()); !errors.As(err, &wrong) {
			t.Errorf("%s spoiled, a false proof: %v", k.name, err)
		}
	}
}

func TestAWrongScanIsNotChosen(t *testing.T) {
	for _, k := range scanKernels() {
		wrong := scanKernel{"wrong", func(hits []hit, labels []byte, first uint64, g *nonceGroup, d difficulty) []hit {
			hits = k.scan(hits, labels, first, g, d)
			return hits[:max(0, len(hits)-1)]
		}}
		got, err := fastest([]scanKernel{wrong}, portableScan)
		if got.name != portable || err == nil || !strings.Contains(err.Error(), "wrong kernel of post") {
			t.Errorf("%s without its last hit: %s is chosen, %v", k.name, got.name, err)
		}
		if got, err := fastest([]scanKernel{k}, portableScan); got.name != k.name || err != nil {
			t.Errorf("%s alone: %s is chosen, %v", k.name, got.name, err)
		}
	}
}

// The space is large enough that no byte of a cipher text is decisive by itself, which is
// what kernels are for.
func TestAProofDoesNotDependOnTheKernel(t *testing.T) {
	p := TestParams()
	p.LabelsPerUnit = 300 * uint64(p.K1)
	d, want, m := proveInTemp(t, p, [32]byte{7})
	if newDifficulty(p.K1, d.Metadata.NumLabels()).msb != 0 {
		t.Fatal("the space is too small for this test")
	}
	real := inUse
	defer func() { inUse = real }()
	for _, c := range choices() {
		inUse = func() choice { return c }
		got, err := d.Prove(m.Challenge, p, ProveOptions{Workers: 2})
		if err != nil || got.Nonce != want.Nonce || !slices.Equal(got.Indices, want.Indices) {
			t.Errorf("%s: nonce %d, want %d, %v", c.name(), got.Nonce, want.Nonce, err)
		}
		if err := Verify(got, m, p, All()); err != nil {
			t.Errorf("%s: %v", c.name(), err)
		}
	}
}
