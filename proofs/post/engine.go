package post

// Engine is what depends on a kernel, on that one, for comparing kernels. The functions
// of this package are those of the engine in use, see [Kernel].
type Engine struct{ kernel choice }

// Engines returns one for each of Kernels that passes its self test, in the same order.
func Engines() []Engine {
	var engines []Engine
	for _, c := range choices() {
		if c.labels.selfTest() == nil && c.scan.selfTest() == nil {
			c.labels = c.labels.measure()
			engines = append(engines, Engine{c})
		}
	}
	return engines
}

// Name returns the name of the kernel.
func (e Engine) Name() string { return e.kernel.name() }

// NewLabeler is [NewLabeler] on this engine.
func (e Engine) NewLabeler(n uint32) *Labeler { return newLabeler(n, e.kernel.labels) }

// Verify is [Verify] on this engine.
func (e Engine) Verify(p Proof, m ProofMetadata, params Params, mode Mode) error {
	return verify(e.kernel, []Verification{{p, m, mode}}, params)[0]
}

// NewScan returns the function with which a worker of Prove looks for labels that pass
// for one of so many nonces, a multiple of 16, in a space of numLabels: block by block,
// without a proof of work. It returns how many pass.
func (e Engine) NewScan(challenge [32]byte, nonces, k1 uint32, numLabels uint64) func(labels []byte) int {
	d := newDifficulty(k1, numLabels)
	var groups []*nonceGroup
	for first := uint32(0); first < nonces; first += nonceGroupSize {
		groups = append(groups, newNonceGroup(&challenge, first, 0))
	}
	var hits []hit
	return func(labels []byte) int {
		n := 0
		for len(labels) > 0 {
			block := labels[:min(len(labels), blockLabels*LabelSize)]
			for _, g := range groups {
				hits = e.kernel.scan.scan(hits[:0], block, 0, g, d)
				n += len(hits)
			}
			labels = labels[len(block):]
		}
		return n
	}
}
