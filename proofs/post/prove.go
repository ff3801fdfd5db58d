package post

import (
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	// DefaultNonces is ProveOptions.Nonces where it is 0. One pass with so
	// many fails for about 4 % of challenges at mainnet's K1 and K2
	// (reference/post.md 3.2).
	DefaultNonces = 128

	// blockLabels is what a worker scans at once, small enough for the cache
	// next to the core.
	blockLabels = 1 << 11
	// batchBlocks is how many blocks are read at once: 4 MiB.
	batchBlocks = 1 << 7
)

// ProveOptions change how Prove works. Among them only Nonces changes which
// proof is found. The callbacks are called from the goroutine that called
// Prove, and may be nil.
type ProveOptions struct {
	Nonces   int // tried in one pass over the data, a multiple of 16 up to MaxNonces; 0 means DefaultNonces
	Workers  int // goroutines that scan, 0 means 1
	Progress func(ProveProgress)
	Cancel   func() bool // true stops Prove with ErrCancelled
}

// ProveProgress says how far a pass is.
type ProveProgress struct {
	FirstNonce, EndNonce uint32 // the pass tries FirstNonce..EndNonce-1
	Solved               uint32 // nonces whose proof of work is done, it comes first
	Done, Total          uint64 // labels scanned in this pass, and in the space
}

// Prove searches the data for a proof for challenge: K2 labels that pass for
// one nonce. It makes passes over all files until nonce MaxNonces-1.
//
// Each label of the proof is recomputed before it is returned: a *DamagedError
// names the file and byte of one that the disk got wrong. Other errors are
// ErrCancelled, ErrNotBuiltIn, a disk error with the file's name, or that no
// nonce led to a proof.
func (d *Data) Prove(challenge [32]byte, p Params, opts ProveOptions) (Proof, error) {
	if err := opts.complete(); err != nil {
		return Proof{}, err
	}
	labels, err := p.NumLabels(d.Metadata.NumUnits)
	if err != nil {
		return Proof{}, err
	}
	if labels != d.layout.labels {
		return Proof{}, fmt.Errorf("post: %s holds %d labels, the network asks for %d: it is of another network",
			d.layout.dir, d.layout.labels, labels)
	}
	s := newSearch(d, challenge, p, opts)
	for first := 0; first < MaxNonces; first += opts.Nonces {
		end := min(first+opts.Nonces, MaxNonces)
		if err := s.prepare(uint32(first), uint32(end)); err != nil {
			return Proof{}, err
		}
		winner, found, err := s.pass()
		if err != nil {
			return Proof{}, err
		}
		if found {
			return s.finish(winner)
		}
	}
	return Proof{}, fmt.Errorf("post: none of %d nonces has %d labels that pass: if this repeats with another challenge, the data is damaged", MaxNonces, p.K2)
}

func (o *ProveOptions) complete() error {
	if o.Nonces == 0 {
		o.Nonces = DefaultNonces
	}
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.Progress == nil {
		o.Progress = func(ProveProgress) {}
	}
	if o.Cancel == nil {
		o.Cancel = func() bool { return false }
	}
	switch {
	case o.Nonces < 0 || o.Nonces > MaxNonces || o.Nonces%nonceGroupSize != 0:
		return fmt.Errorf("post: %d nonces, must be a multiple of %d up to %d", o.Nonces, nonceGroupSize, MaxNonces)
	case o.Workers < 0 || o.Workers > MaxWorkers:
		return fmt.Errorf("post: %d workers, must be in 1..%d", o.Workers, MaxWorkers)
	}
	return nil
}

// search is the state of one call of Prove.
type search struct {
	data       *Data
	challenge  [32]byte
	params     Params
	opts       ProveOptions
	difficulty difficulty
	buf        []byte  // a batch of labels
	hits       [][]hit // by block of the batch

	// Of the present pass:
	first  uint32
	groups []*nonceGroup
	passed [][]uint64 // indices by nonce, up to K2
}

func newSearch(d *Data, challenge [32]byte, p Params, opts ProveOptions) *search {
	return &search{
		data: d, challenge: challenge, params: p, opts: opts,
		difficulty: newDifficulty(p.K1, d.layout.labels),
		buf:        make([]byte, min(batchBlocks*blockLabels, d.layout.labels, d.layout.perFile)*LabelSize),
		hits:       make([][]hit, batchBlocks),
	}
}

// prepare solves the proofs of work of a pass and makes its ciphers.
func (s *search) prepare(first, end uint32) error {
	s.first, s.groups = first, s.groups[:0]
	s.passed = make([][]uint64, end-first)
	threshold := scalePow(s.params.PowDifficulty, s.data.Metadata.NumUnits)
	for nonce := first; nonce < end; nonce += nonceGroupSize {
		in := powInput(uint8(nonce/nonceGroupSize), &s.challenge, &s.data.Metadata.NodeID)
		pow, err := solvePow(s.params.PoW, in, threshold, s.opts.Cancel)
		if err != nil {
			return err
		}
		s.groups = append(s.groups, newNonceGroup(&s.challenge, nonce, pow))
		s.report(0)
	}
	return nil
}

func (s *search) report(done uint64) {
	s.opts.Progress(ProveProgress{
		FirstNonce: s.first, EndNonce: s.first + uint32(len(s.passed)),
		Solved: uint32(len(s.groups)) * nonceGroupSize,
		Done:   done, Total: s.data.layout.labels,
	})
}

// pass streams all files once and returns the first nonce with K2 hits.
func (s *search) pass() (winner uint32, found bool, err error) {
	l := s.data.layout
	for number := uint64(0); number*l.perFile < l.labels; number++ {
		if winner, found, err = s.scanFile(number); found || err != nil {
			return winner, found, err
		}
	}
	return 0, false, nil
}

func (s *search) scanFile(number uint64) (winner uint32, found bool, err error) {
	l := s.data.layout
	name, size := l.name(number), l.size(number)
	f, err := s.data.fs.Open(name)
	if err != nil {
		return 0, false, advise(err)
	}
	defer f.Close()
	for offset := int64(0); offset < size; {
		if s.opts.Cancel() {
			return 0, false, ErrCancelled
		}
		labels := s.buf[:min(int64(len(s.buf)), size-offset)]
		if err := readAll(f, labels, offset); err != nil {
			return 0, false, advise(fmt.Errorf("read %s at byte %d of %d: %w", name, offset, size, err))
		}
		first := number*l.perFile + uint64(offset)/LabelSize
		s.scanBatch(labels, first)
		if winner, found := s.collect(); found {
			return winner, true, nil
		}
		offset += int64(len(labels))
		s.report(number*l.perFile + uint64(offset)/LabelSize)
	}
	return 0, false, nil
}

// scanBatch fills hits, block by block, with the workers.
func (s *search) scanBatch(labels []byte, first uint64) {
	const blockSize = blockLabels * LabelSize
	blocks := (len(labels) + blockSize - 1) / blockSize
	s.hits = s.hits[:blocks]
	var taken atomic.Int64
	work := func() {
		for {
			b := int(taken.Add(1)) - 1
			if b >= blocks {
				return
			}
			block := labels[b*blockSize : min((b+1)*blockSize, len(labels))]
			s.hits[b] = s.hits[b][:0]
			for _, g := range s.groups {
				s.hits[b] = scan(s.hits[b], block, first+uint64(b*blockLabels), g, s.difficulty)
			}
		}
	}
	var others sync.WaitGroup
	for range min(s.opts.Workers, blocks) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// collect goes through the hits in block order, so that the winner does not
// depend on which worker was faster.
func (s *search) collect() (winner uint32, found bool) {
	for _, hits := range s.hits {
		for _, h := range hits {
			passed := &s.passed[h.nonce-s.first]
			*passed = append(*passed, h.index)
			if len(*passed) == int(s.params.K2) {
				return h.nonce, true
			}
		}
	}
	return 0, false
}

// finish recomputes the labels of the proof and packs it.
func (s *search) finish(nonce uint32) (Proof, error) {
	indices := s.passed[nonce-s.first]
	labeler := NewLabeler(s.params.ScryptN)
	for _, i := range indices {
		if s.opts.Cancel() {
			return Proof{}, ErrCancelled
		}
		if err := s.data.Check(labeler, i); err != nil {
			return Proof{}, err
		}
	}
	return Proof{
		Nonce:   nonce,
		Indices: packIndices(indices, indexBits(s.data.layout.labels)),
		Pow:     s.groups[(nonce-s.first)/nonceGroupSize].pow,
	}, nil
}
