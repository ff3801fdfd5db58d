package post

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
)

func FuzzMetadata(f *testing.F) {
	f.Add(encodeMetadata(Metadata{LabelsPerUnit: 128, NumUnits: 2, MaxFileSize: 1024}))
	f.Add(encodeMetadata(Metadata{LabelsPerUnit: 1, NumUnits: 1, MaxFileSize: 1 << 40, Nonce: new(uint64(3)), NonceValue: &[LabelSize]byte{1}, LastPosition: new(uint64(9))}))
	f.Add([]byte(`{"NodeId":null,"Nonce":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := decodeMetadata(in)
		if err != nil {
			return
		}
		once := encodeMetadata(m)
		again, err := decodeMetadata(once)
		if err != nil || !bytes.Equal(encodeMetadata(again), once) {
			t.Fatalf("%s is read as %+v, then as %+v (%v)", in, m, again, err)
		}
		// No metadata makes the check of its files hang or panic.
		fs := durabletest.NewMem(1 << 20)
		for _, number := range []uint64{0, 1 << 63} {
			if err := durable.WriteFile(fs, "dir/"+dataFile(number), make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if stored, err := m.layout("dir").stored(fs, 0, m.NumFiles()-1, func(uint64) bool { return false }); err == nil && stored > 6 {
			t.Fatalf("100 bytes hold %d labels", stored)
		}
	})
}

func FuzzIndices(f *testing.F) {
	f.Add([]byte{0x28, 0x0e}, uint8(4), uint8(3))
	f.Add([]byte{}, uint8(0), uint8(1))
	f.Add(bytes.Repeat([]byte{0xff}, 16), uint8(2), uint8(64))
	f.Fuzz(func(t *testing.T, packed []byte, k, width uint8) {
		if width == 0 || width > 64 {
			return
		}
		indices, err := unpackIndices(packed, uint32(k), int(width))
		if err != nil {
			return
		}
		if len(indices) != int(k) || !bytes.Equal(packIndices(indices, int(width)), packed) {
			t.Fatalf("%x holds %v, which packs to %x", packed, indices, packIndices(indices, int(width)))
		}
	})
}

func FuzzVerify(f *testing.F) {
	for _, p := range []Params{TestParams(), rarely()} {
		_, proof, m := proveInTemp(f, p, [32]byte{1})
		f.Add(proof.Nonce, proof.Indices, proof.Pow, m.NumUnits, 0)
	}
	f.Add(uint32(1<<32-1), make([]byte, MaxIndicesSize+1), uint64(1<<64-1), uint32(1<<32-1), -1)
	f.Fuzz(func(t *testing.T, nonce uint32, indices []byte, pow uint64, units uint32, ordinal int) {
		proof := Proof{Nonce: nonce, Indices: indices, Pow: pow}
		m := ProofMetadata{NodeID: testID, CommitmentATX: testATX, Challenge: [32]byte{1}, NumUnits: units}
		for _, p := range []Params{TestParams(), rarely()} {
			all := Verify(proof, m, p, All())
			subset := Verify(proof, m, p, Subset([]byte{byte(ordinal)}))
			one := Verify(proof, m, p, One(ordinal))
			if all != nil {
				continue
			}
			if subset != nil || one != nil && ordinal >= 0 && ordinal < int(p.K2) {
				t.Fatalf("all labels pass, but a subset %v, one %v", subset, one)
			}
			slowVerify(t, proof, m, p)
		}
	})
}

// slowVerify checks an accepted proof again, bit by bit and cipher by cipher.
func slowVerify(t *testing.T, proof Proof, m ProofMetadata, p Params) {
	t.Helper()
	numLabels := mustNumLabels(t, p, m.NumUnits)
	width := indexBits(numLabels)
	d := newDifficulty(p.K1, numLabels)
	g := newNonceGroup(&m.Challenge, proof.Nonce/nonceGroupSize*nonceGroupSize, proof.Pow)
	seen := map[uint64]bool{}
	for k := range int(p.K2) {
		var index uint64
		for b := range width {
			at := k*width + b
			index |= uint64(proof.Indices[at/8]>>(at%8)&1) << b
		}
		label := NewLabeler(p.ScryptN).Label(Commitment(m.NodeID, m.CommitmentATX), index)
		hits := scanPortable(nil, label[:LabelSize], index, g, d)
		found := false
		for _, h := range hits {
			found = found || h.nonce == proof.Nonce
		}
		if !found || seen[index] || index >= numLabels {
			t.Fatalf("index %d is accepted wrongly", index)
		}
		seen[index] = true
	}
}

// FuzzRomix compares every mixer of every kernel, each lane on a state of its own, with
// the portable one, and that with a slow one.
func FuzzRomix(f *testing.F) {
	f.Add([]byte("seed"), uint8(3))
	f.Add([]byte("one entry is read often"), uint8(0))
	f.Fuzz(func(t *testing.T, seed []byte, log uint8) {
		var key [32]byte
		copy(key[:], seed)
		random := rand.New(rand.NewChaCha8(key))
		n := 2 << (log % 8)
		for _, k := range labelKernels() {
			for _, m := range k.mixers {
				x := make([]block, m.lanes)
				for i := range x {
					for w := range x[i] {
						x[i][w] = random.Uint32()
					}
				}
				want, slow := slices.Clone(x), x[m.lanes-1]
				for i := range want {
					romixPortable(&want[i], make([]block, n))
				}
				if romixSlow(&slow, n); want[m.lanes-1] != slow {
					t.Fatalf("N=%d: the portable kernel gives\n%x\n%x", n, want[m.lanes-1], slow)
				}
				around := make([]block, n*m.lanes+2) // what lies beside the scratch must stay
				if m.mix(x, around[1:n*m.lanes+1]); !slices.Equal(x, want) {
					t.Fatalf("N=%d: %s with %d lanes gives\n%x\n%x", n, k.name, m.lanes, x, want)
				}
				if around[0] != (block{}) || around[n*m.lanes+1] != (block{}) {
					t.Fatalf("N=%d: %s with %d lanes writes beside its scratch", n, k.name, m.lanes)
				}
			}
		}
	})
}

// romixSlow is scrypt's ROMix with its mix in loops, written straight from its description.
func romixSlow(x *block, n int) {
	mix := func(x block) (out block) {
		t := [16]uint32(x[16:])
		for half := range 2 {
			for i := range t {
				t[i] ^= x[16*half+i]
			}
			before := t
			for range 4 {
				for _, q := range [8][4]int{
					{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15},
					{0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13}, {3, 4, 9, 14},
				} {
					for _, r := range [4]struct{ a, b, d, by int }{
						{q[0], q[1], q[3], 16}, {q[2], q[3], q[1], 12}, {q[0], q[1], q[3], 8}, {q[2], q[3], q[1], 7},
					} {
						t[r.a] += t[r.b]
						t[r.d] ^= t[r.a]
						t[r.d] = t[r.d]<<r.by | t[r.d]>>(32-r.by)
					}
				}
			}
			for i := range t {
				t[i] += before[i]
			}
			copy(out[16*half:], t[:])
		}
		return out
	}
	var v []block
	for range n {
		v = append(v, *x)
		*x = mix(*x)
	}
	for range n {
		from := v[int(x[16])%n]
		for i := range x {
			x[i] ^= from[i]
		}
		*x = mix(*x)
	}
}

// FuzzScan compares every kernel with a test of each label by itself. Few labels, or many
// more than a kernel looks at together; random ones, or ones that repeat, of which a
// kernel may have to remember more than it can.
func FuzzScan(f *testing.F) {
	f.Add(uint64(1)<<59, uint64(7), []byte("labels"), uint16(200), false)
	f.Add(uint64(1)<<55, uint64(0), []byte{}, uint16(15), false)
	f.Add(^uint64(0)>>8, uint64(2), []byte{3}, uint16(2500), false)
	f.Add(^uint64(0)>>8, uint64(2), []byte("often"), uint16(2500), true)
	f.Add(^uint64(0), uint64(1)<<55, []byte{1}, uint16(100), true)
	f.Fuzz(func(t *testing.T, bits, pow uint64, seed []byte, count uint16, same bool) {
		d := difficulty{msb: byte(bits >> 56), lsb: bits & lsbMask}
		var key [32]byte
		copy(key[:], seed)
		n := int(count % 4096)
		labels := make([]byte, n*LabelSize)
		random := rand.NewChaCha8(key)
		g := newNonceGroup(&key, 48, pow)
		random.Read(labels)
		if same && n > 0 { // a label with a 0 in its cipher text, again and again
			for text := make([]byte, 16); !bytes.ContainsAny(text, "\x00"); {
				random.Read(labels[:LabelSize])
				g.eager.Encrypt(text, labels)
			}
			for i := 1; i < n; i++ {
				copy(labels[i*LabelSize:], labels[:LabelSize])
			}
		}
		var want []hit
		for nonce := range uint32(nonceGroupSize) {
			tester := newTester(&key, 48+nonce, pow, d)
			for i := range n {
				if tester.passes(labels[i*LabelSize : (i+1)*LabelSize]) {
					want = append(want, hit{48 + nonce, 10 + uint64(i)})
				}
			}
		}
		slices.SortStableFunc(want, func(a, b hit) int { return cmp.Compare(a.index, b.index) })
		before := hit{1, 2}
		want = append([]hit{before}, want...)
		for _, k := range scanKernels() {
			if got := k.scan([]hit{before}, labels, 10, g, d); !slices.Equal(got, want) {
				t.Fatalf("%s, %d labels: %d hits, want %d", k.name, n, len(got), len(want))
			}
		}
	})
}

func FuzzOrdinals(f *testing.F) {
	f.Add([]byte{}, uint16(100), uint16(3))
	f.Fuzz(func(t *testing.T, seed []byte, n, k uint16) {
		n = n%1000 + 1
		k %= n + 1
		drawn := drawOrdinals(int(k), int(n), seed)
		again := drawOrdinals(int(k), int(n), bytes.Clone(seed))
		seen := map[int]bool{}
		for i, o := range drawn {
			if o < 0 || o >= int(n) || seen[o] || again[i] != o {
				t.Fatalf("%d of %d from %x: %v", k, n, binary.LittleEndian.AppendUint64(nil, uint64(o)), drawn)
			}
			seen[o] = true
		}
	})
}
