package merkle

import (
	"encoding/hex"
	"testing"
)

func leaves(n int) [][32]byte {
	out := make([][32]byte, n)
	for i := range out {
		for j := range out[i] {
			out[i][j] = byte(i + 1)
		}
	}
	return out
}

// Vectors of reference/poet.md 1.10: member j, from 1, is 32 bytes of value j.
func TestRootsAreTheReferencesMembershipRoots(t *testing.T) {
	for n, want := range map[int]string{
		0: "0000000000000000000000000000000000000000000000000000000000000000",
		2: "7dfb6d5986153fae21ad072c102d9b029a7c247f7e4019dc0ad217145a4a3485",
		3: "d2814fc261af4aa4fc561a38699090eb9bf6b4d608de9066505dbe5a338002d0",
	} {
		root := Root(leaves(n))
		if got := hex.EncodeToString(root[:]); got != want {
			t.Errorf("%d members: %s, want %s", n, got, want)
		}
	}
}

func TestEveryLeafHasAProofAndNoOtherLeafHas(t *testing.T) {
	for n := 1; n <= 70; n++ {
		ls := leaves(n)
		root := Root(ls)
		for i := range ls {
			proof := Proof(ls, uint64(i))
			if err := Verify(root, ls[i], uint64(i), uint64(n), proof); err != nil {
				t.Fatalf("leaf %d of %d: %v", i, n, err)
			}
			if Verify(root, [32]byte{0xff}, uint64(i), uint64(n), proof) == nil {
				t.Fatalf("leaf %d of %d: another leaf accepted", i, n)
			}
			if n > 1 && Verify(root, ls[i], uint64(i^1), uint64(n), proof) == nil {
				t.Fatalf("leaf %d of %d: another place accepted", i, n)
			}
			if Verify(root, ls[i], uint64(i), uint64(n), append(proof, [32]byte{})) == nil {
				t.Fatalf("leaf %d of %d: a longer proof accepted", i, n)
			}
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte{}, uint64(0), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, i, n uint64) {
		proof := make([][32]byte, len(b)/32)
		for j := range proof {
			copy(proof[j][:], b[32*j:])
		}
		if Verify([32]byte{1}, [32]byte{2}, i, n, proof) == nil {
			t.Fatal("a proof was forged")
		}
	})
}
