// Package hare brings the smeshers of a layer to one set of proposals, and
// collects their signatures under what they made of it.
//
// Session is the published protocol, reference/protocol.md A8, as a passive machine,
// with committees drawn by random values (Message), and Committee and Tally are its
// certificates (A9); docs/decisions/0010-hare.md says where they differ and what they
// withstand. The core does not use the certificates yet: provisionally
// (docs/decisions/0003-provisional-rules.md) one needs more than two thirds of the weight
// of all smeshers of the epoch (Certifier).
//
// It promises: nothing here has a clock; the same inputs give the same
// outputs; all that is held is bounded; a certificate exists for at most one decision of a
// layer unless a third of the weight signs twice. It leaves to the caller the validity of
// proposals, the checking of signatures and seats before what they are under is counted,
// and to make durable what it signs before it sends.
package hare

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// MaxOpenLayers is how many layers may be undecided or uncertified at a time;
// older ones are forgotten first.
const MaxOpenLayers = 64

// Result is the outcome of a layer: its proposals in ascending order.
type Result struct {
	Layer     types.Layer
	Proposals []types.ProposalID
}

// Reasons why a signature under a decision does not count.
var (
	ErrKnown        = errors.New("signature is known")
	ErrEquivocation = errors.New("smesher signed two decisions for one layer")
	ErrOldLayer     = errors.New("layer is too old")
)

// Certifier collects signatures under decisions until one of a layer has more
// than two thirds of the weight.
type Certifier struct {
	layers map[types.Layer]*tally
	oldest types.Layer // layers below are forgotten
}

type tally struct {
	signed    map[types.NodeID]signed // the first of each
	caught    map[types.NodeID]bool   // signed a second one
	decisions map[types.Decision]*support
	done      bool
}

type signed struct {
	under *support
	at    int // among its signatures
}

type support struct {
	decision   types.Decision
	weight     uint64
	signatures []types.CertifySignature
}

// NewCertifier returns a certifier of the layers from oldest on.
func NewCertifier(oldest types.Layer) *Certifier {
	return &Certifier{layers: make(map[types.Layer]*tally), oldest: oldest}
}

// Add counts a signature, which the caller has verified, with the weight of
// its smesher of the epoch's total. It returns the certificate when this
// signature completes it, once. ErrEquivocation comes once for a smesher and
// layer: two decisions prove it, more would only be a flood.
func (c *Certifier) Add(m types.CertifyMessage, weight, total uint64) (*types.Certificate, error) {
	layer := m.Decision.Layer
	if layer < c.oldest {
		return nil, ErrOldLayer
	}
	t := c.layers[layer]
	if t == nil {
		t = &tally{
			signed: make(map[types.NodeID]signed), caught: make(map[types.NodeID]bool),
			decisions: make(map[types.Decision]*support),
		}
		c.layers[layer] = t
		c.forget()
	}
	if before, ok := t.signed[m.By.Smesher]; ok {
		if before.under.decision == m.Decision || t.caught[m.By.Smesher] {
			return nil, ErrKnown
		}
		t.caught[m.By.Smesher] = true
		return nil, ErrEquivocation
	}
	s := t.decisions[m.Decision]
	if s == nil {
		s = &support{decision: m.Decision}
		t.decisions[m.Decision] = s
	}
	t.signed[m.By.Smesher] = signed{s, len(s.signatures)}
	s.weight += weight
	s.signatures = append(s.signatures, m.By)
	if t.done || !Enough(s.weight, total) {
		return nil, nil
	}
	t.done = true
	return certificate(m.Decision, s.signatures), nil
}

// Len returns how many layers have signatures.
func (c *Certifier) Len() int { return len(c.layers) }

// Signed returns what a smesher signed first in a layer.
func (c *Certifier) Signed(layer types.Layer, smesher types.NodeID) (types.CertifyMessage, bool) {
	t := c.layers[layer]
	if t == nil {
		return types.CertifyMessage{}, false
	}
	first, ok := t.signed[smesher]
	if !ok {
		return types.CertifyMessage{}, false
	}
	return types.CertifyMessage{Decision: first.under.decision, By: first.under.signatures[first.at]}, true
}

// Support is how much weight has signed a decision.
type Support struct {
	Decision types.Decision
	Weight   uint64
}

// Support returns the decisions of a layer that were signed, the heaviest
// first; of equals, the one whose encoding sorts first.
func (c *Certifier) Support(layer types.Layer) []Support {
	t := c.layers[layer]
	if t == nil {
		return nil
	}
	var out []Support
	for d, s := range t.decisions {
		out = append(out, Support{d, s.weight})
	}
	slices.SortFunc(out, func(a, b Support) int {
		if a.Weight != b.Weight {
			return cmp.Compare(b.Weight, a.Weight)
		}
		return bytes.Compare(codec.Encode(&a.Decision), codec.Encode(&b.Decision))
	})
	return out
}

// Collected returns all signatures under a decision so far, as a certificate
// that may or may not be enough; nil if there are none.
func (c *Certifier) Collected(d types.Decision) *types.Certificate {
	t := c.layers[d.Layer]
	if t == nil || t.decisions[d] == nil {
		return nil
	}
	return certificate(d, t.decisions[d].signatures)
}

// forget keeps the number of layers within MaxOpenLayers.
func (c *Certifier) forget() {
	if len(c.layers) <= MaxOpenLayers {
		return
	}
	oldest := types.Layer(0)
	first := true
	for l := range c.layers {
		if first || l < oldest {
			oldest, first = l, false
		}
	}
	delete(c.layers, oldest)
	c.oldest = max(c.oldest, oldest+1)
}

func certificate(d types.Decision, signatures []types.CertifySignature) *types.Certificate {
	sorted := slices.Clone(signatures)
	slices.SortFunc(sorted, func(a, b types.CertifySignature) int {
		return slices.Compare(a.Smesher[:], b.Smesher[:])
	})
	return &types.Certificate{Decision: d, Signatures: sorted}
}

// Enough tells whether weight is more than two thirds of total.
func Enough(weight, total uint64) bool {
	// weight > total*2/3 without overflow: total - weight < weight/2, rounded up.
	return weight <= total && total-weight < weight-weight/2 || weight > total
}

// Reasons why a certificate is not valid.
var (
	ErrSigners   = errors.New("certificate's signers are not in strictly ascending order")
	ErrStranger  = errors.New("certificate is signed by somebody without weight in its epoch")
	ErrSignature = errors.New("certificate has a wrong signature")
	ErrWeight    = errors.New("certificate has not more than two thirds of the weight")
)

// Electorate tells who may sign in the epoch of a certificate.
type Electorate interface {
	// Weight returns the weight that an ATX gives to its smesher in the
	// epoch, false when it gives none.
	Weight(atx types.ATXID, smesher types.NodeID) (uint64, bool)
	// Total returns the weight of all.
	Total() uint64
}

// VerifyCertificate checks a certificate against the smeshers of its epoch.
// verify tells whether a signature under the decision is valid.
func VerifyCertificate(c *types.Certificate, e Electorate, verify func(types.CertifySignature) bool) error {
	var sum uint64
	for i, s := range c.Signatures {
		if i > 0 && slices.Compare(c.Signatures[i-1].Smesher[:], s.Smesher[:]) >= 0 {
			return ErrSigners
		}
		w, ok := e.Weight(s.ATX, s.Smesher)
		if !ok {
			return ErrStranger
		}
		sum += w
	}
	if !Enough(sum, e.Total()) {
		return ErrWeight
	}
	for _, s := range c.Signatures {
		if !verify(s) {
			return ErrSignature
		}
	}
	return nil
}
