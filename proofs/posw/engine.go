package posw

import "tweedle/values/types"

// Engine is the prover and the verifier on one kernel, for comparing kernels. The
// functions of this package are those of the engine in use, see [Kernel].
type Engine struct{ kernel kernel }

// Engines returns one for each of Kernels that passes its self test, measured like the
// kernel in use, in the same order.
func Engines() []Engine {
	var engines []Engine
	for _, k := range runnable() {
		if c, err := choose([]kernel{k}, ticks()); err == nil {
			engines = append(engines, Engine{c})
		}
	}
	return engines
}

// Name returns the name of the kernel.
func (e Engine) Name() string { return e.kernel.id() }

// NewProver is [NewProver] on this engine.
func (e Engine) NewProver(statement []byte, k uint) *Prover { return newProver(e.kernel, statement, k) }

// Verify is [Verify] on this engine.
func (e Engine) Verify(statement []byte, p *types.PoetProof, workers int) error {
	return verify(e.kernel, statement, p, workers)
}
