package mesh

import (
	"errors"
	"slices"

	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// MaxDrafts is how many executed decisions that are not applied are kept.
const MaxDrafts = 128

// Draft is a decision with its block, executed on the state it names.
type Draft struct {
	Decision    types.Decision
	Certificate *types.Certificate // nil until there is one
	Block       *types.Block
	Txs         []vm.Tx // of the block, in its order
	Outcome     vm.Outcome
}

// Link is an applied layer and the state after it.
type Link struct {
	Decision types.Decision // of the beginning only Layer and StateRoot are set
	State    vm.State
	Txs      []vm.Tx // of its block, if it was applied in this run
	Sealed   bool    // its certificate is stored
}

// Errors of History.
var (
	// ErrKnown says that exactly this decision is applied.
	ErrKnown = errors.New("decision is applied already")
	// ErrParent says that the state which a decision builds on is not known:
	// layers before it are missing here.
	ErrParent = errors.New("decision builds on a state that is not known")
	// ErrRoot says that another state comes out of the block than was signed.
	ErrRoot = errors.New("executing the block gives another state than the decision says")
)

// History is the newest part of the applied layers, and the decisions that may
// follow. Its questions change nothing; Keep and Commit do.
type History struct {
	params vm.Params
	links  []Link // oldest first
	older  Link   // an applied layer before them that was looked for; no state: none
	drafts []*Draft
}

// NewHistory returns a history that begins with a link.
func NewHistory(p vm.Params, first Link) *History { return &History{params: p, links: []Link{first}} }

// Tip returns the newest link.
func (h *History) Tip() Link { return h.links[len(h.links)-1] }

// At returns the decision that is applied in a layer, as far back as the
// history goes.
func (h *History) At(l types.Layer) (types.Decision, bool) {
	for _, k := range h.links {
		if k.Decision.Layer == l {
			return k.Decision, true
		}
	}
	return types.Decision{}, false
}

// Recall adds an applied layer that is older than all links: decisions may build
// on it too, until another one is recalled.
func (h *History) Recall(k Link) { h.older = k }

// linkOf returns the newest applied layer, before another one, whose state has a
// root, and the links after it.
func (h *History) linkOf(root types.Hash32, before types.Layer) (k Link, after []Link, ok bool) {
	for i := len(h.links) - 1; i >= 0; i-- {
		if k := h.links[i]; k.Decision.StateRoot == root && k.Decision.Layer < before {
			return k, h.links[i+1:], true
		}
	}
	if k := h.older; k.Decision.Layer > 0 && k.Decision.StateRoot == root && k.Decision.Layer < before {
		return k, h.links, true
	}
	return Link{}, nil, false
}

// base returns the state with a root and the layer that left it.
func (h *History) base(root types.Hash32, before types.Layer) (vm.State, bool) {
	if k, _, ok := h.linkOf(root, before); ok {
		return k.State, true
	}
	if d := h.draftOf(root, before); d != nil {
		return d.Outcome.State, true
	}
	return vm.State{}, false
}

// Knows tells whether a state is one that the next decision may build on.
func (h *History) Knows(root types.Hash32) bool {
	_, ok := h.base(root, ^types.Layer(0))
	return ok
}

func (h *History) draftOf(root types.Hash32, before types.Layer) *Draft {
	for _, d := range h.drafts {
		if d.Decision.StateRoot == root && d.Decision.Layer < before {
			return d
		}
	}
	return nil
}

// Draft returns the executed decision, nil if it was not executed.
func (h *History) Draft(d types.Decision) *Draft {
	for _, k := range h.drafts {
		if k.Decision == d {
			return k
		}
	}
	return nil
}

// Drafts returns the drafts with a block of a layer.
func (h *History) Drafts(l types.Layer, id types.BlockID) (out []*Draft) {
	for _, d := range h.drafts {
		if d.Decision.Layer == l && d.Decision.Block == id {
			out = append(out, d)
		}
	}
	return out
}

// Try executes a block on the state with a root.
func (h *History) Try(parent types.Hash32, b vm.Block) (vm.Outcome, error) {
	state, ok := h.base(parent, b.Layer)
	if !ok {
		return vm.Outcome{}, ErrParent
	}
	return vm.Apply(state, b, h.params), nil
}

// Execute makes the draft of a decision from its content.
func (h *History) Execute(d types.Decision, block *types.Block, content vm.Block) (*Draft, error) {
	out, err := h.Try(d.Parent, content)
	switch {
	case err != nil:
		return nil, err
	case out.State.Root() != d.StateRoot:
		return nil, ErrRoot
	}
	return &Draft{Decision: d, Block: block, Txs: content.Txs, Outcome: out}, nil
}

// Keep remembers a draft. Of too many the oldest layers go.
func (h *History) Keep(d *Draft) {
	if h.Draft(d.Decision) != nil {
		return
	}
	h.drafts = append(h.drafts, d)
	if len(h.drafts) > MaxDrafts {
		oldest := 0
		for i, k := range h.drafts {
			if k.Decision.Layer < h.drafts[oldest].Decision.Layer {
				oldest = i
			}
		}
		h.drafts = slices.Delete(h.drafts, oldest, oldest+1)
	}
}

// Path is how decisions extend the history.
type Path struct {
	Base   Link     // what they build on; the tip, or an older link
	Drafts []*Draft // to apply after it, in order
	Undone []Link   // links after the base, newest last; there may be more between, if the base was recalled
}

// Extend tells how a draft's decision becomes the tip: it goes through the
// drafts that it builds on down to an applied link.
func (h *History) Extend(d *Draft) (Path, error) {
	if have, ok := h.At(d.Decision.Layer); ok && have == d.Decision {
		return Path{}, ErrKnown
	}
	var ext Path
	for step := d; step != nil; {
		ext.Drafts = append(ext.Drafts, step)
		parent, before := step.Decision.Parent, step.Decision.Layer
		if k, after, ok := h.linkOf(parent, before); ok {
			ext.Base, ext.Undone = k, slices.Clone(after)
			slices.Reverse(ext.Drafts)
			return ext, nil
		}
		step = h.draftOf(parent, before)
	}
	return Path{}, ErrParent
}

// Has tells whether a decision is one of an applied layer that is in memory.
func (h *History) Has(d types.Decision) bool {
	return h.older.Decision == d || slices.ContainsFunc(h.links, func(k Link) bool { return k.Decision == d })
}

// After returns the path of drafts that follow one another on an applied layer, which is in memory (Has).
func (h *History) After(on types.Decision, drafts []*Draft) Path {
	if h.older.Decision == on {
		return Path{Base: h.older, Drafts: drafts, Undone: slices.Clone(h.links)}
	}
	i := slices.IndexFunc(h.links, func(k Link) bool { return k.Decision == on })
	return Path{Base: h.links[i], Drafts: drafts, Undone: slices.Clone(h.links[i+1:])}
}

// Sealed tells whether the certificate of an applied decision is stored, or too old to be asked for.
func (h *History) Sealed(d types.Decision) bool {
	return !slices.ContainsFunc(h.links, func(k Link) bool { return k.Decision == d && !k.Sealed })
}

// Seal notes that the certificate of an applied decision is stored.
func (h *History) Seal(d types.Decision) {
	for i := range h.links {
		h.links[i].Sealed = h.links[i].Sealed || h.links[i].Decision == d
	}
}

// Commit makes a path part of the history.
func (h *History) Commit(ext Path) {
	i := slices.IndexFunc(h.links, func(k Link) bool { return k.Decision == ext.Base.Decision })
	switch {
	case i >= 0:
		h.links = h.links[:i+1]
	case h.older.Decision == ext.Base.Decision:
		h.links, h.older = []Link{h.older}, Link{}
	default:
		panic("mesh: path from a link that is not there")
	}
	for _, d := range ext.Drafts {
		h.links = append(h.links, Link{d.Decision, d.Outcome.State, d.Txs, d.Certificate != nil})
	}
	if over := len(h.links) - MaxHistory; over > 0 {
		h.links = slices.Delete(h.links, 0, over)
	}
	tip := h.Tip().Decision.Layer
	h.drafts = slices.DeleteFunc(h.drafts, func(d *Draft) bool { return d.Decision.Layer+MaxHistory < tip })
}

// Reset begins again with a link; what was executed is forgotten.
func (h *History) Reset(first Link) { h.links, h.older, h.drafts = []Link{first}, Link{}, nil }

// Len returns how many executed decisions wait, and how many links there are.
func (h *History) Len() (drafts, links int) { return len(h.drafts), len(h.links) }

// Links returns the links, oldest first.
func (h *History) Links() []Link { return slices.Clone(h.links) }
