package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"tweedle/protocol/core"
)

// twins are two honest cores with one key, each heard by its own part of the
// others in each layer (arXiv 2004.10617).
type twins struct{ honesty }

func (*twins) passes(n, to *node, _ core.Topic, _ []byte, own bool) (time.Duration, bool) {
	return 0, !own || n.w.hearsFirst(to) == (n.twin == nil)
}

// signs without the guard that would tell the twins of each other.
func (*twins) signs(n *node, s core.Sign) bool {
	n.step(core.Heard{From: core.Self, Message: s.Message})
	return true
}

// hearsFirst tells which of two twins a node hears in the layer of the clock.
func (w *world) hearsFirst(o *node) bool {
	l := w.cfg.Schedule.LayerAt(w.now)
	if w.opts.Twins != nil {
		if i := slices.Index(w.honest(), o); i >= 0 {
			return w.opts.Twins[i%len(w.opts.Twins)]>>(uint(l)%TwinLayers)&1 == 1
		}
	}
	return half(o, l)
}

// TwinLayers is after how many layers a scenario of twins begins again: those of
// an epoch.
const TwinLayers = 4

// TwinScenarios returns every scenario for a number of honest smeshers, once. A
// scenario has a row of bits for each of them: in which layers it hears the first
// twin, else the second. Two scenarios that differ in the names of the smeshers,
// or of the twins, are one; of those the canonical one is returned, whose rows
// ascend and which is not after the one with the twins exchanged.
func TwinScenarios(smeshers int) (out [][]uint16) {
	const all = 1<<TwinLayers - 1
	var grow func(rows []uint16)
	grow = func(rows []uint16) {
		if len(rows) == smeshers {
			other := make([]uint16, smeshers)
			for i, r := range rows {
				other[smeshers-1-i] = all - r
			}
			if slices.Compare(rows, other) <= 0 {
				out = append(out, slices.Clone(rows))
			}
			return
		}
		least := uint16(0)
		if len(rows) > 0 {
			least = rows[len(rows)-1]
		}
		for r := least; r <= all; r++ {
			grow(append(rows, r))
		}
	}
	grow(nil)
	return out
}

// Sample returns so many of a list, without replacement, as a seed draws them.
func Sample[T any](list []T, n int, seed uint64) []T {
	rng := rand.New(rand.NewPCG(seed, 0x7477696e))
	out := slices.Clone(list)
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(n, len(out))]
}
