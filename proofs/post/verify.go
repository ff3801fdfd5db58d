package post

import (
	"fmt"
	"slices"
	"sync"
)

// Mode says which of a proof's labels Verify recomputes. The zero value is
// All. Everything else about a proof is checked in every mode.
type Mode struct {
	kind    modeKind
	seed    []byte
	ordinal int
}

type modeKind uint8

const (
	modeAll modeKind = iota
	modeSubset
	modeOne
)

// All recomputes all K2 labels.
func All() Mode { return Mode{} }

// Subset recomputes K3 labels drawn by seed, the node id and the challenge. A
// seed that differs from node to node (its peer id) makes the nodes of a
// network check all of them together.
func Subset(seed []byte) Mode { return Mode{kind: modeSubset, seed: seed} }

// One recomputes the label at a place in the proof, counted from 0: what a
// proof of malfeasance needs.
func One(ordinal int) Mode { return Mode{kind: modeOne, ordinal: ordinal} }

// InvalidIndexError says that the proof claims a label which does not pass: the
// evidence of a malfeasance proof against the identity that signed it. Prove
// never returns such a proof, whatever the disk holds.
type InvalidIndexError struct {
	Ordinal int    // place in the proof, from 0
	Index   uint64 // the label's index
}

// Error names the index.
func (e *InvalidIndexError) Error() string {
	return fmt.Sprintf("post: label %d (number %d in the proof) does not pass the challenge", e.Index, e.Ordinal)
}

// Verify reports why p does not prove the space that m describes. An
// *InvalidIndexError means a label that does not pass; ErrNotBuiltIn that this
// program cannot tell; any other error that the proof is malformed. The work
// is at most one PoW hash and K2 labels (reference/post.md 1.2, 5.2).
func Verify(p Proof, m ProofMetadata, params Params, mode Mode) error {
	return verify(inUse(), p, m, params, mode)
}

func verify(kernel choice, p Proof, m ProofMetadata, params Params, mode Mode) error {
	numLabels, err := params.NumLabels(m.NumUnits)
	if err != nil {
		return err
	}
	if p.Nonce >= MaxNonces {
		return fmt.Errorf("post: nonce %d, must be below %d", p.Nonce, MaxNonces)
	}
	if p.Pow >= MaxPowNonce {
		return fmt.Errorf("post: proof of work counter %d, must be below 2^56", p.Pow)
	}
	indices, err := unpackIndices(p.Indices, params.K2, indexBits(numLabels))
	if err != nil {
		return err
	}
	if err := checkIndices(indices, numLabels); err != nil {
		return err
	}
	ordinals, err := mode.ordinals(params, &m)
	if err != nil {
		return err
	}

	group := p.Nonce / nonceGroupSize
	in := powInput(uint8(group), &m.Challenge, &m.NodeID)
	threshold := scalePow(params.PowDifficulty, m.NumUnits)
	switch valid, err := powValid(params.PoW, &in, p.Pow, &threshold); {
	case err != nil:
		return err
	case !valid:
		return fmt.Errorf("post: %s proof of work of nonce group %d is not below its threshold", params.PoW.Name(), group)
	}

	t := newTester(&m.Challenge, p.Nonce, p.Pow, newDifficulty(params.K1, numLabels))
	labeler, ok := idle.Get().(*Labeler)
	if !ok || labeler.n != int(params.ScryptN) || labeler.kernel != kernel.labels.name {
		labeler = newLabeler(params.ScryptN, kernel.labels)
	}
	defer idle.Put(labeler)
	return checkLabels(labeler, t, &m, params, indices, ordinals)
}

// idle has the labelers of verifications that ended: their scratch is up to 64 MiB, which
// takes longer to get from the system than a label does. What nobody uses is collected.
var idle sync.Pool

// checkLabels recomputes the labels at the ordinals, as many at once as is cheap. One that
// does not pass is computed once more by the portable kernel, since the error makes
// somebody guilty.
func checkLabels(labeler *Labeler, t *tester, m *ProofMetadata, params Params, indices []uint64, ordinals []int) error {
	commitment := Commitment(m.NodeID, m.CommitmentATX)
	var wanted []uint64
	var labels [][32]byte
	for some := range slices.Chunk(ordinals, labeler.Lanes()) {
		wanted = wanted[:0]
		for _, o := range some {
			wanted = append(wanted, indices[o])
		}
		labels = slices.Grow(labels[:0], len(some))[:len(some)]
		labeler.Labels(commitment, wanted, labels)
		for k, o := range some {
			if t.passes(labels[k][:LabelSize]) {
				continue
			}
			label := newLabeler(params.ScryptN, portableLabels).Label(commitment, indices[o])
			if !t.passes(label[:LabelSize]) {
				return &InvalidIndexError{Ordinal: o, Index: indices[o]}
			}
		}
	}
	return nil
}

func (mode Mode) ordinals(params Params, m *ProofMetadata) ([]int, error) {
	k2 := int(params.K2)
	switch mode.kind {
	case modeSubset:
		return drawOrdinals(int(params.K3), k2, mode.seed, m.NodeID[:], m.Challenge[:]), nil
	case modeOne:
		if mode.ordinal < 0 || mode.ordinal >= k2 {
			return nil, fmt.Errorf("post: a proof has no index number %d, it has %d", mode.ordinal, k2)
		}
		return []int{mode.ordinal}, nil
	default:
		all := make([]int, k2)
		for i := range all {
			all[i] = i
		}
		return all, nil
	}
}
