package post

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"tweedle/base/durable"
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
	// pieceSize is what is given up where a batch cannot be read, in bytes: a page,
	// which is what the kernel reads at least.
	pieceSize = 1 << 12
	// maxLost bounds the places that one Prove does without. A disk that lost more is
	// dying, and each place may cost seconds to try.
	maxLost = 1 << 10
)

// ProveOptions change how Prove works. Among them only Nonces changes which
// proof is found. The callbacks are called from the goroutine that called
// Prove, and may be nil.
type ProveOptions struct {
	Nonces   int // tried in one pass over the data, a multiple of 16 up to MaxNonces; 0 means DefaultNonces
	Workers  int // goroutines that scan, 0 means 1
	Progress func(ProveProgress)
	Cancel   func() bool // true stops Prove with ErrCancelled
	// Lost is told, once, each place that the disk lost and the proof does without:
	// a *DamagedError or an *UnreadableError.
	Lost func(error)
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
// Each label of the proof is recomputed before it is returned. One that the disk
// got wrong, and a place that cannot be read, are told to ProveOptions.Lost and
// done without: K2 other labels are as good. Errors are ErrCancelled,
// ErrNotBuiltIn, a file that is missing or short, too many places lost, or that
// no nonce led to a proof.
func (d *Data) Prove(challenge [32]byte, p Params, opts ProveOptions) (Proof, error) {
	if err := opts.complete(); err != nil {
		return Proof{}, err
	}
	if err := d.fits(p); err != nil {
		return Proof{}, err
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
			return s.pack(winner), nil
		}
	}
	if s.firstLost != nil {
		return Proof{}, fmt.Errorf("post: none of %d nonces has %d labels that pass, and the disk lost %d places, the first: %w", MaxNonces, p.K2, len(s.lost), s.firstLost)
	}
	return Proof{}, fmt.Errorf("post: none of %d nonces has %d labels that pass: if this repeats with another challenge, the data is damaged", MaxNonces, p.K2)
}

// NoncesFor returns how many nonces, a multiple of 16, a pass must try so that one of them
// leads to a proof with such a chance, under 1: MaxNonces if no number does. That of one
// nonce is that of K2 or more labels where K1 pass on average (reference/post.md 3.2).
func NoncesFor(p Params, chance float64) uint32 {
	fewer, term := 0.0, math.Exp(-float64(p.K1)) // Poisson's
	for k := range p.K2 {
		fewer += term
		term *= float64(p.K1) / float64(k+1)
	}
	n := uint32(nonceGroupSize)
	for n < MaxNonces && 1-math.Pow(fewer, float64(n)) < chance {
		n += nonceGroupSize
	}
	return n
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
	if o.Lost == nil {
		o.Lost = func(error) {}
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
	labeler    *Labeler
	scan       scanKernel
	buf        []byte          // a batch of labels
	hits       [][]hit         // by block of the batch
	lost       map[uint64]bool // labels that are damaged, and the first ones of unreadable pieces
	firstLost  error

	// Of the present pass:
	first   uint32
	groups  []*nonceGroup
	passed  [][]uint64 // indices by nonce, up to K2
	checked []int      // how many of them were recomputed
}

func newSearch(d *Data, challenge [32]byte, p Params, opts ProveOptions) *search {
	return &search{
		data: d, challenge: challenge, params: p, opts: opts,
		difficulty: newDifficulty(p.K1, d.layout.labels),
		labeler:    NewLabeler(p.ScryptN),
		scan:       inUse().scan,
		lost:       map[uint64]bool{},
		buf:        make([]byte, min(batchBlocks*blockLabels, d.layout.labels, d.layout.perFile)*LabelSize),
		hits:       make([][]hit, batchBlocks),
	}
}

// prepare solves the proofs of work of a pass and makes its ciphers.
func (s *search) prepare(first, end uint32) error {
	s.first, s.groups = first, s.groups[:0]
	s.passed, s.checked = make([][]uint64, end-first), make([]int, end-first)
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

// pass streams all files once and returns the first nonce with K2 good labels.
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
		first := number*l.perFile + uint64(offset)/LabelSize
		if winner, found, err = s.readBatch(f, labels, first); found || err != nil {
			return winner, found, err
		}
		offset += int64(len(labels))
		s.report(number*l.perFile + uint64(offset)/LabelSize)
	}
	return 0, false, nil
}

// readBatch reads the labels from first on and scans them. Where they cannot be
// read at once it goes on piece by piece, and does without those that fail.
func (s *search) readBatch(f durable.File, labels []byte, first uint64) (winner uint32, found bool, err error) {
	_, offset := s.data.layout.locate(first)
	if err := readAll(f, labels, offset); err == nil {
		return s.scanRun(labels, first)
	}
	for at := 0; at < len(labels); at += pieceSize {
		if s.opts.Cancel() {
			return 0, false, ErrCancelled
		}
		piece, index := labels[at:min(at+pieceSize, len(labels))], first+uint64(at)/LabelSize
		if s.lost[index] {
			continue // in an earlier pass
		}
		err := readAll(f, piece, offset+int64(at))
		if errors.Is(err, io.ErrUnexpectedEOF) { // cut off: this is no place on the disk
			name := s.data.layout.name(first / s.data.layout.perFile)
			return 0, false, advise(fmt.Errorf("read %s at byte %d: %w", name, offset+int64(at), err))
		}
		if err != nil {
			if err := s.lose(index, unreadable(s.data.layout, index, len(piece), err)); err != nil {
				return 0, false, err
			}
			continue
		}
		if winner, found, err = s.scanRun(piece, index); found || err != nil {
			return winner, found, err
		}
	}
	return 0, false, nil
}

// lose notes that a label, or the piece that begins with it, is done without. It
// returns the reason if that is no way to go on.
func (s *search) lose(i uint64, why error) error {
	var unreadable *UnreadableError
	var damaged *DamagedError
	if !errors.As(why, &unreadable) && !errors.As(why, &damaged) {
		return why
	}
	s.lost[i] = true
	s.firstLost = cmp.Or(s.firstLost, why)
	s.opts.Lost(why)
	if len(s.lost) > maxLost {
		return fmt.Errorf("post: the disk lost more than %d places, copy %s to another one, the last: %w", maxLost, s.data.layout.dir, why)
	}
	return nil
}

// scanRun scans labels that lie one behind the other.
func (s *search) scanRun(labels []byte, first uint64) (winner uint32, found bool, err error) {
	s.scanBatch(labels, first)
	return s.collect()
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
				s.hits[b] = s.scan.scan(s.hits[b], block, first+uint64(b*blockLabels), g, s.difficulty)
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
func (s *search) collect() (winner uint32, found bool, err error) {
	for _, hits := range s.hits {
		for _, h := range hits {
			if s.lost[h.index] {
				continue
			}
			passed := &s.passed[h.nonce-s.first]
			*passed = append(*passed, h.index)
			if len(*passed) < int(s.params.K2) {
				continue
			}
			if err := s.check(h.nonce); err != nil {
				return 0, false, err
			}
			if len(*passed) == int(s.params.K2) {
				return h.nonce, true, nil
			}
		}
	}
	return 0, false, nil
}

// check recomputes the labels that passed for a nonce, and takes out those that
// the disk got wrong.
func (s *search) check(nonce uint32) error {
	n := nonce - s.first
	for at := s.checked[n]; at < len(s.passed[n]); {
		if s.opts.Cancel() {
			return ErrCancelled
		}
		i := s.passed[n][at]
		if err := s.data.Check(s.labeler, i); err != nil {
			if err := s.lose(i, err); err != nil {
				return err
			}
			s.passed[n] = append(s.passed[n][:at], s.passed[n][at+1:]...)
			continue
		}
		at++
		s.checked[n] = at
	}
	return nil
}

// pack makes the proof of a nonce.
func (s *search) pack(nonce uint32) Proof {
	return Proof{
		Nonce:   nonce,
		Indices: packIndices(s.passed[nonce-s.first], indexBits(s.data.layout.labels)),
		Pow:     s.groups[(nonce-s.first)/nonceGroupSize].pow,
	}
}
