// Package hare brings the smeshers of a layer to one set of proposals, and
// collects their signatures under what they made of it.
//
// Session is the published protocol, reference/protocol.md A8, as a passive machine,
// with committees drawn by random values (Message), and Committee and Certifier are its
// certificates (A9); docs/decisions/0010-hare.md says where they differ and what they
// withstand.
//
// It promises: nothing here has a clock; the same inputs give the same
// outputs; all that is held is bounded; a certificate exists for at most one decision of a
// layer unless a third of the weight signs twice, or the luck of the draw gives liars half of
// a committee. It leaves to the caller the validity of
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

// Certifier collects the signatures of committees under decisions until one of a layer
// has more than half of the seats.
type Certifier struct {
	p      Params
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
	seats      uint32
	signatures []types.CertifySignature
}

// NewCertifier returns a certifier of the layers from oldest on.
func NewCertifier(p Params, oldest types.Layer) *Certifier {
	return &Certifier{p: p, layers: make(map[types.Layer]*tally), oldest: oldest}
}

// Add counts a signature, which the caller has verified, for the seats of its smesher
// (Committee.Seats). It returns the certificate when this signature completes it, once.
// ErrEquivocation comes once for a smesher and layer: two decisions prove it, more would
// only be a flood.
func (c *Certifier) Add(m types.CertifyMessage, seats uint32) (*types.Certificate, error) {
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
	if len(t.signed) >= types.MaxCertificateSignatures {
		return nil, ErrFull
	}
	s := t.decisions[m.Decision]
	if s == nil {
		s = &support{decision: m.Decision}
		t.decisions[m.Decision] = s
	}
	t.signed[m.By.Smesher] = signed{s, len(s.signatures)}
	s.seats += seats
	s.signatures = append(s.signatures, m.By)
	if t.done || s.seats < c.p.threshold() {
		return nil, nil
	}
	t.done = true
	return certificate(m.Decision, s.signatures), nil
}

// Certified tells whether a decision of a layer was certified.
func (c *Certifier) Certified(l types.Layer) bool { t := c.layers[l]; return t != nil && t.done }

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

// Support is how many seats have signed a decision.
type Support struct {
	Decision types.Decision
	Seats    uint32
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
		out = append(out, Support{d, s.seats})
	}
	slices.SortFunc(out, func(a, b Support) int {
		if a.Seats != b.Seats {
			return cmp.Compare(b.Seats, a.Seats)
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
