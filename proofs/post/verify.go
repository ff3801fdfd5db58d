package post

import (
	"fmt"
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

// Verification is a proof to verify, and what it is about.
type Verification struct {
	Proof Proof
	About ProofMetadata
	Mode  Mode
}

// Verify reports why p does not prove the space that m describes. An
// *InvalidIndexError means a label that does not pass; ErrNotBuiltIn that this
// program cannot tell; any other error that the proof is malformed. The work
// is at most one PoW hash and K2 labels (reference/post.md 1.2, 5.2).
func Verify(p Proof, m ProofMetadata, params Params, mode Mode) error {
	return verify(inUse(), []Verification{{p, m, mode}}, params)[0]
}

// VerifyAll verifies several proofs. It gives for each what Verify gives for it alone, and
// costs less where a proof's own labels do not fill the lanes of the kernel: those of all
// are computed side by side.
func VerifyAll(checks []Verification, params Params) []error { return verify(inUse(), checks, params) }

func verify(kernel choice, checks []Verification, params Params) []error {
	errs := make([]error, len(checks))
	var trials []*trial
	var ordinals [][]int // of the labels of each trial
	var of []int         // the check of each trial
	for i := range checks {
		t, drawn, err := checks[i].trial(params)
		if err != nil {
			errs[i] = err
			continue
		}
		trials, ordinals, of = append(trials, t), append(ordinals, drawn), append(of, i)
	}
	kernel.try(params.ScryptN, trials)
	for k, t := range trials {
		if t.wrong >= 0 {
			errs[of[k]] = &InvalidIndexError{Ordinal: ordinals[k][t.wrong], Index: t.indices[t.wrong]}
		}
	}
	return errs
}

// trial checks all of a proof but its labels, and returns those that decide, with their
// places in the proof.
func (c *Verification) trial(params Params) (*trial, []int, error) {
	p, m := &c.Proof, &c.About
	numLabels, err := params.NumLabels(m.NumUnits)
	if err != nil {
		return nil, nil, err
	}
	if p.Nonce >= MaxNonces {
		return nil, nil, fmt.Errorf("post: nonce %d, must be below %d", p.Nonce, MaxNonces)
	}
	if p.Pow >= MaxPowNonce {
		return nil, nil, fmt.Errorf("post: proof of work counter %d, must be below 2^56", p.Pow)
	}
	indices, err := unpackIndices(p.Indices, params.K2, indexBits(numLabels))
	if err != nil {
		return nil, nil, err
	}
	if err := checkIndices(indices, numLabels); err != nil {
		return nil, nil, err
	}
	ordinals, err := c.Mode.ordinals(params, m)
	if err != nil {
		return nil, nil, err
	}

	group := p.Nonce / nonceGroupSize
	in := powInput(uint8(group), &m.Challenge, &m.NodeID)
	threshold := scalePow(params.PowDifficulty, m.NumUnits)
	switch valid, err := powValid(params.PoW, &in, p.Pow, &threshold); {
	case err != nil:
		return nil, nil, err
	case !valid:
		return nil, nil, fmt.Errorf("post: %s proof of work of nonce group %d is not below its threshold", params.PoW.Name(), group)
	}

	t := newTester(&m.Challenge, p.Nonce, p.Pow, newDifficulty(params.K1, numLabels))
	out := &trial{commitment: Commitment(m.NodeID, m.CommitmentATX), passes: func(label *[32]byte) bool { return t.passes(label[:LabelSize]) }}
	for _, o := range ordinals {
		out.indices = append(out.indices, indices[o])
	}
	return out, ordinals, nil
}

// trial is the labels of one space that decide something, in the order in which they count.
type trial struct {
	commitment [32]byte
	indices    []uint64
	passes     func(label *[32]byte) bool
	wrong      int // the first of indices whose label does not pass, -1 if there is none: try sets it
}

// idle has the labelers of verifications that ended: their scratch is up to 64 MiB, which
// takes longer to get from the system than a label does. What nobody uses is collected.
var idle sync.Pool

// try computes the labels of trials side by side, as many at once as is cheap, and no more
// of a trial that is lost. A label that does not pass is computed once more by the portable
// kernel, since it makes somebody guilty.
func (c choice) try(n uint32, trials []*trial) {
	if len(trials) == 0 {
		return
	}
	labeler, ok := idle.Get().(*Labeler)
	if !ok || labeler.n != int(n) || labeler.kernel != c.labels.name {
		labeler = newLabeler(n, c.labels)
	}
	defer idle.Put(labeler)

	type wish struct {
		of *trial
		k  int // which of its indices
	}
	lanes := labeler.Lanes()
	wishes, places, labels := make([]wish, 0, lanes), make([]Place, 0, lanes), make([][32]byte, lanes)
	compute := func() {
		labeler.LabelsAt(places, labels[:len(places)])
		for i, w := range wishes {
			if w.of.wrong >= 0 || w.of.passes(&labels[i]) {
				continue
			}
			label := newLabeler(n, portableLabels).Label(places[i].Commitment, places[i].Index)
			if !w.of.passes(&label) {
				w.of.wrong = w.k
			}
		}
		wishes, places = wishes[:0], places[:0]
	}
	for _, t := range trials {
		t.wrong = -1
		for k, index := range t.indices {
			if t.wrong >= 0 {
				break
			}
			wishes, places = append(wishes, wish{t, k}), append(places, Place{t.commitment, index})
			if len(places) == lanes {
				compute()
			}
		}
	}
	compute()
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
