package post

import (
	"bytes"
	"fmt"
	"math/big"
	"math/bits"
)

// difficulty is what a label's cipher text is compared with: its first byte
// with msb, and only where that is equal a second cipher text with lsb.
type difficulty struct {
	msb byte
	lsb uint64 // 56 bits
}

// lsbMask keeps the 56 bits that difficulty.lsb is compared with.
const lsbMask = 1<<56 - 1

// newDifficulty makes k1 of numLabels labels pass on average. numLabels must
// exceed k1, which Params.Validate has checked.
func newDifficulty(k1 uint32, numLabels uint64) difficulty {
	if numLabels <= uint64(k1) {
		panic(fmt.Sprintf("post: difficulty of %d in %d labels", k1, numLabels))
	}
	d, _ := bits.Div64(uint64(k1), 0, numLabels) // floor(2^64*k1 / numLabels)
	return difficulty{msb: byte(d >> 56), lsb: d & lsbMask}
}

// scalePow divides the big-endian threshold of one unit by numUnits.
func scalePow(threshold [32]byte, numUnits uint32) (scaled [32]byte) {
	q := new(big.Int).SetBytes(threshold[:])
	q.Quo(q, new(big.Int).SetUint64(uint64(numUnits))).FillBytes(scaled[:])
	return scaled
}

// vrfThreshold is what the label of a VRF nonce must stay below, big endian:
// 8 * floor(2^256 / numLabels). For 8 labels or fewer that exceeds 256 bits,
// and the largest value stands for it.
func vrfThreshold(numLabels uint64) (threshold [32]byte) {
	t := new(big.Int).Lsh(big.NewInt(1), 256)
	t.Quo(t, new(big.Int).SetUint64(numLabels))
	t.Lsh(t, 3)
	if t.BitLen() > 256 {
		return [32]byte(bytes.Repeat([]byte{0xff}, 32))
	}
	t.FillBytes(threshold[:])
	return threshold
}

// candidate is a label that may become the VRF nonce.
type candidate struct {
	found bool
	index uint64
	label [32]byte
}

// offer keeps label i if it is below threshold and the smallest so far; of
// equal labels the one with the smaller index.
func (c *candidate) offer(i uint64, label, threshold *[32]byte) {
	if bytes.Compare(label[:], threshold[:]) >= 0 {
		return
	}
	if c.found {
		if d := bytes.Compare(label[:], c.label[:]); d > 0 || d == 0 && i > c.index {
			return
		}
	}
	*c = candidate{found: true, index: i, label: *label}
}

// VRFNonce is a VRF nonce to verify, of so many units of space of a commitment.
type VRFNonce struct {
	Nonce      uint64
	Commitment [32]byte
	NumUnits   uint32
}

// VerifyVRFNonces reports why each of the nonces is not valid, nil if it is. It computes
// one label for each, side by side. A valid nonce may lie beyond the space: the search
// goes on there when the space has none (reference/post.md 1.2).
func VerifyVRFNonces(nonces []VRFNonce, p Params) []error {
	errs := make([]error, len(nonces))
	var trials []*trial
	var of []int       // the nonce of each trial
	var sizes []uint64 // labels of its space
	for i, v := range nonces {
		numLabels, err := p.NumLabels(v.NumUnits)
		if err != nil {
			errs[i] = err
			continue
		}
		threshold := vrfThreshold(numLabels)
		trials, of = append(trials, &trial{
			commitment: v.Commitment, indices: []uint64{v.Nonce},
			passes: func(label *[32]byte) bool { return bytes.Compare(label[:], threshold[:]) < 0 },
		}), append(of, i)
		sizes = append(sizes, numLabels)
	}
	inUse().try(p.ScryptN, trials)
	for k, t := range trials {
		if t.wrong >= 0 {
			errs[of[k]] = fmt.Errorf("post: label of VRF nonce %d is not below the threshold of %d labels", nonces[of[k]].Nonce, sizes[k])
		}
	}
	return errs
}
