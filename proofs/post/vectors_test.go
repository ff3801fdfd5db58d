package post

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"testing"
)

// The vectors of reference/post.md 1.3.

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func id32(t testing.TB, s string) [32]byte {
	t.Helper()
	return [32]byte(unhex(t, s))
}

func TestCommitmentOfZeroIDs(t *testing.T) {
	const want = "4d006976636a8696d909a630a4081aad4d7c50f81afdee04020bf05086ab6a55"
	if got := Commitment([32]byte{}, [32]byte{}); got != id32(t, want) {
		t.Fatalf("got %x, want %s", got, want)
	}
}

func TestCommitmentKeepsItsTwoIDsApart(t *testing.T) {
	a, b := [32]byte{1}, [32]byte{2}
	if Commitment(a, b) == Commitment(b, a) {
		t.Fatal("swapped ids give the same commitment")
	}
}

func TestLabelsMatchTheVectors(t *testing.T) {
	zero := [32]byte{}
	ofZeroIDs := Commitment([32]byte{}, [32]byte{})
	for _, v := range []struct {
		name       string
		commitment [32]byte
		n          uint32
		index      uint64
		label      string
	}{
		{"zero commitment, label 0", zero, 8192, 0, "8c7b34d495266b23799ddaddc2a1836babdd6719c20aca272b42e9d9675ad2b7"},
		{"zero commitment, label 1", zero, 8192, 1, "82032392c5605bfbfed09343fa06f086ff881bab4e77f3b0c6ff408c369bf4d3"},
		{"zero commitment, label 2^32", zero, 8192, 1 << 32, "accf2c97ccd9569f951c4d463176f060e6ec43c19e3c129f79ee27e31109b95e"},
		{"zero ids, label 0", ofZeroIDs, 8192, 0, "13f053790cc908fd17c1ed054ad849d63a3abb394d07bb54872fe91b24c56f46"},
		{"zero ids, least cost", ofZeroIDs, 2, 0, "502009eefb489466fd46f63685e0d1cec99c7821c0a92eb013efba9f2e805abc"},
		{"the VRF nonce", id32(t, "e26b543725490682675f6f84ea7689601adeaf14caa7024ec1140c82754ca339"), 32, 165545,
			"00001f81fadfc488b990c940aba8367a97e85cbb5bc0720a308d293b22902a74"},
	} {
		t.Run(v.name, func(t *testing.T) {
			for _, k := range labelKernels() {
				l := newLabeler(v.n, k)
				for _, m := range k.mixers { // the label last of as many as are computed at once
					indices, labels := make([]uint64, m.lanes), make([][32]byte, m.lanes)
					for i := range indices {
						indices[i] = v.index - uint64(m.lanes-1) + uint64(i)
					}
					if l.Labels(v.commitment, indices, labels); labels[m.lanes-1] != id32(t, v.label) {
						t.Errorf("%s, %d at once: got %x, want %s", k.name, m.lanes, labels[m.lanes-1], v.label)
					}
				}
			}
		})
	}
}

func TestFirstBitsOfLabelsMatchTheGPUVector(t *testing.T) {
	want := unhex(t, "96b9")
	l := NewLabeler(512)
	got := make([]byte, 2)
	for i := range 16 {
		label := l.Label([32]byte{}, uint64(i))
		got[i/8] |= label[0] & 1 << (i % 8)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %x, want %x", got, want)
	}
}

func TestVRFSearchFindsTheOnlyHitOfTheVector(t *testing.T) {
	from, to := uint64(1<<10), uint64(1<<18)
	if raceEnabled {
		from, to = 165545-1000, 165545+1000
	}
	commitment := id32(t, "e26b543725490682675f6f84ea7689601adeaf14caa7024ec1140c82754ca339")
	threshold := [32]byte(append([]byte{0x00, 0x00, 0x3f}, bytes.Repeat([]byte{0xff}, 29)...))
	l := NewLabeler(32)
	var hits []uint64
	for i := from; i < to; i++ {
		label := l.Label(commitment, i)
		var c candidate
		if c.offer(i, &label, &threshold); c.found {
			hits = append(hits, i)
		}
	}
	if !slices.Equal(hits, []uint64{165545}) {
		t.Fatalf("got hits %v, want only 165545", hits)
	}
	if raceEnabled {
		t.Skipf("the race detector makes labels 20 times slower: only %d..%d were searched, the rest without -race", from, to)
	}
}

func TestProofMatchesTheVector(t *testing.T) {
	challenge := [32]byte([]byte("hello world, CHALLENGE me!!!!!!!"))
	labels := make([]byte, 128*LabelSize)
	for i := range labels {
		labels[i] = byte(i % 12)
	}
	d := newDifficulty(4, 128)
	if d != (difficulty{msb: 8}) {
		t.Fatalf("difficulty of 4 in 128 is %+v", d)
	}
	for _, k := range scanKernels() {
		s := search{
			params: Params{K2: 32}, difficulty: d, hits: make([][]hit, 1),
			groups: []*nonceGroup{newNonceGroup(&challenge, 0, 0)},
			passed: make([][]uint64, nonceGroupSize), opts: ProveOptions{Workers: 1},
			checked: slices.Repeat([]int{32}, nonceGroupSize), // these labels are no scrypt
			scan:    k,
		}
		nonce, found, err := s.scanRun(labels, 0)
		if err != nil || !found || nonce != 3 {
			t.Fatalf("%s: got nonce %d (found: %t, %v), want 3", k.name, nonce, found, err)
		}
		for i, index := range s.passed[nonce] {
			if index != uint64(3*i) {
				t.Fatalf("%s: got indices %v, want 0, 3, 6, ..", k.name, s.passed[nonce])
			}
		}
		if last := s.passed[nonce][31]; last != 93 {
			t.Fatalf("%s: last index is %d, want 93", k.name, last)
		}
	}
}

// The example of FIPS 197, appendix A.1.
func TestRoundKeysAreThoseOfTheStandard(t *testing.T) {
	round := expandKey([16]byte(unhex(t, "2b7e151628aed2a6abf7158809cf4f3c")))
	if got := hex.EncodeToString(round[10][:]); got != "d014f9a8c9ee2589e13f0cc8b6630ca6" {
		t.Fatalf("the last round key is %s", got)
	}
}

func TestCipherKeysMatchTheVectors(t *testing.T) {
	challenge := [32]byte([]byte("hello world, CHALLENGE me!!!!!!!"))
	if got := groupKey(&challenge, 0, 0); !bytes.Equal(got[:], unhex(t, "a6f11e79d0c30fa56e53454c8c6ab6d3")) {
		t.Errorf("group key is %x", got)
	}
	if got := lazyKey(&challenge, 3, 0); !bytes.Equal(got[:], unhex(t, "dbbd9ffd536b2bb9460d42767477454a")) {
		t.Errorf("lazy key is %x", got)
	}
}

func TestSubsetDrawsTheVector(t *testing.T) {
	want := []int{39, 13, 95, 77, 36, 41, 74, 17, 59, 87, 91, 63}
	if got := drawOrdinals(len(want), 100); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if got := drawOrdinals(len(want), 100, []byte("another seed")); slices.Equal(got, want) {
		t.Fatal("the seed does not matter")
	}
	all := drawOrdinals(100, 100)
	slices.Sort(all)
	for i, o := range all {
		if i != o {
			t.Fatalf("drawing all of 100 gives %v", all)
		}
	}
}

func TestIndicesPackAsTheVector(t *testing.T) {
	if got := packIndices([]uint64{0, 0xfff5, 0, 0xff0f}, 3); !bytes.Equal(got, []byte{0x28, 0x0e}) {
		t.Fatalf("got %x, want 280e", got)
	}
}

func TestDifficultiesMatchTheVectors(t *testing.T) {
	for _, v := range []struct {
		k1        uint32
		numLabels uint64
		want      uint64
	}{
		{1, 128, 1 << 57},
		{4, 128, 1 << 59},
		{26, 4 << 32, 27917287424},
		{26, 16 << 32, 6979321856},
		{1, math.MaxUint64, 1},
	} {
		d := newDifficulty(v.k1, v.numLabels)
		if got := uint64(d.msb)<<56 | d.lsb; got != v.want {
			t.Errorf("difficulty of %d in %d labels is %d, want %d", v.k1, v.numLabels, got, v.want)
		}
	}
}

func TestPowThresholdScalesAsTheVector(t *testing.T) {
	all := [32]byte(bytes.Repeat([]byte{0xff}, 32))
	want := all
	want[0] = 0x07
	if got := scalePow(all, 32); got != want {
		t.Fatalf("got %x, want %x", got, want)
	}
	if got := scalePow(all, 1); got != all {
		t.Fatalf("one unit changes the threshold to %x", got)
	}
}

func TestMainnetIndexSizesMatchTheVectors(t *testing.T) {
	for _, v := range []struct {
		units      uint32
		bits, size int
	}{{4, 35, 162}, {16, 37, 172}} {
		labels, err := MainnetParams().NumLabels(v.units)
		if err != nil {
			t.Fatal(err)
		}
		width := indexBits(labels)
		if size := indicesSize(MainnetParams().K2, width); width != v.bits || size != v.size {
			t.Errorf("%d units: %d bits and %d bytes, want %d and %d", v.units, width, size, v.bits, v.size)
		}
	}
}

func TestPowInputIsCounterGroupChallengeAndID(t *testing.T) {
	id := [32]byte(bytes.Repeat([]byte{6}, 32))
	challenge := [32]byte([]byte("hello!!!" + "not part of the input..."))
	in := powInput(7, &challenge, &id)
	threshold := [32]byte(bytes.Repeat([]byte{0xff}, 32))
	if _, err := powValid(Blake3{}, &in, 0x00aabbccddeeff11, &threshold); err != nil {
		t.Fatal(err)
	}
	want := "11ffeeddccbbaa" + "07" + hex.EncodeToString([]byte("hello!!!")) + hex.EncodeToString(id[:])
	if got := fmt.Sprintf("%x", in); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestVRFThresholdIsEightTimesTheShareOfOneLabel(t *testing.T) {
	for _, v := range []struct {
		labels uint64
		want   string // leading bytes, the rest is zero
	}{
		{1 << 10, "02"},
		{1 << 34, "00000002"},
		{16, "80"},
	} {
		var want [32]byte
		copy(want[:], unhex(t, v.want))
		if got := vrfThreshold(v.labels); got != want {
			t.Errorf("threshold of %d labels is %x, want %x", v.labels, got, want)
		}
	}
	if got := vrfThreshold(8); got != [32]byte(bytes.Repeat([]byte{0xff}, 32)) {
		t.Errorf("threshold of 8 labels is %x, want all ff", got)
	}
	// floor first, then times 8: 8*floor(2^256/3) is not floor(8*2^256/3).
	if got := vrfThreshold(48); got[31]&7 != 0 {
		t.Errorf("threshold of 48 labels, %x, is not a multiple of 8", got)
	}
}
