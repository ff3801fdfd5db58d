package post

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tweedle/base/durable"
)

const (
	// DefaultBatchLabels is InitOptions.BatchLabels where it is 0.
	DefaultBatchLabels = 1024
	// MaxBatchLabels bounds InitOptions.BatchLabels: 16 MiB of labels.
	MaxBatchLabels = 1 << 20
	// MaxWorkers bounds the workers of Init and Prove.
	MaxWorkers = 1024
)

// Setup is whose space Init fills, and how much.
type Setup struct {
	NodeID        [32]byte // the identity
	CommitmentATX [32]byte // the ATX to bind the labels to
	NumUnits      uint32   // within the parameters' MinUnits..MaxUnits

	// MaxFileSize is the size of a data file in bytes, a multiple of LabelSize
	// and at least MinFileSize. 0 means what the directory has, or
	// DefaultFileSize.
	MaxFileSize uint64

	// Part is the part to fill, the whole space if it is zero.
	Part Part
}

// InitOptions change how Init works, not which labels and nonce it writes. The callbacks are
// called from the goroutine that called Init, and may be nil.
type InitOptions struct {
	Workers     int // goroutines that compute labels, 0 means 1
	BatchLabels int // labels between two fsyncs, 0 means DefaultBatchLabels
	Progress    func(InitProgress)
	Cancel      func() bool // true stops Init with ErrCancelled
}

// InitProgress counts labels, of the part that is filled.
type InitProgress struct {
	// Done labels are computed; all but the last batch of them is durable. It
	// exceeds Total while a VRF nonce is sought beyond the space.
	Done uint64
	// Total labels make the space, or the part.
	Total uint64
	// Resumed labels were there when Init started.
	Resumed uint64
}

// Left estimates the time to the end from the time since Init started. It is 0
// where there is nothing to go by.
func (p InitProgress) Left(elapsed time.Duration) time.Duration {
	if p.Done <= p.Resumed || p.Done >= p.Total {
		return 0
	}
	perLabel := float64(elapsed) / float64(p.Done-p.Resumed)
	return time.Duration(perLabel * float64(p.Total-p.Done))
}

// Init fills dir with the labels of setup and finds a VRF nonce. It creates
// what is missing and goes on where an earlier call was stopped, be it by
// kill -9 or power loss, so calling it on a finished directory is the way to
// check that it belongs to setup: that costs one or two labels.
//
// It refuses a directory of another identity, commitment or size, and data
// that does not match a recomputed label. One caller at a time may work on a
// directory.
func Init(dir string, p Params, setup Setup, opts InitOptions) (Metadata, error) {
	return initialise(durable.OS{}, dir, p, setup, opts)
}

func initialise(fs durable.FS, dir string, p Params, setup Setup, opts InitOptions) (Metadata, error) {
	labels, err := p.NumLabels(setup.NumUnits)
	if err != nil {
		return Metadata{}, err
	}
	if err := p.Provable(); err != nil {
		return Metadata{}, err
	}
	if labels > maxPosition/LabelSize {
		return Metadata{}, fmt.Errorf("post: %d labels do not fit a disk", labels)
	}
	if err := opts.complete(); err != nil {
		return Metadata{}, err
	}
	in := &initialiser{
		fs: fs, opts: opts, part: setup.Part,
		commitment: Commitment(setup.NodeID, setup.CommitmentATX),
		threshold:  vrfThreshold(labels),
		judge:      newLabeler(p.ScryptN, portableLabels),
	}
	if setup.Part == (Part{}) {
		if in.parts, err = partsIn(fs, dir, p, &setup); err != nil {
			return Metadata{}, err
		}
	}
	if in.meta, err = claim(fs, dir, p, setup); err != nil {
		return Metadata{}, err
	}
	in.layout = in.meta.layout(dir)
	in.begin, in.end = in.layout.part(setup.Part)
	if err := in.resume(); err != nil {
		return Metadata{}, err
	}
	in.buf = make([]byte, opts.BatchLabels*LabelSize)
	for range opts.Workers {
		in.labelers = append(in.labelers, NewLabeler(p.ScryptN))
	}
	err = in.run()
	if in.file != nil {
		err = cmp.Or(err, advise(in.file.Close()))
	}
	if err != nil {
		return Metadata{}, err
	}
	return in.meta, nil
}

func (o *InitOptions) complete() error {
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.BatchLabels == 0 {
		o.BatchLabels = DefaultBatchLabels
	}
	if o.Progress == nil {
		o.Progress = func(InitProgress) {}
	}
	if o.Cancel == nil {
		o.Cancel = func() bool { return false }
	}
	switch {
	case o.Workers < 0 || o.Workers > MaxWorkers:
		return fmt.Errorf("post: %d workers, must be in 1..%d", o.Workers, MaxWorkers)
	case o.BatchLabels < 0 || o.BatchLabels > MaxBatchLabels:
		return fmt.Errorf("post: batches of %d labels, must be in 1..%d", o.BatchLabels, MaxBatchLabels)
	}
	return nil
}

// claim returns dir's metadata, writing it first if dir is new. If we stop
// before it is written, the next start finds a new directory.
func claim(fs durable.FS, dir string, p Params, s Setup) (Metadata, error) {
	if s.MaxFileSize != 0 && (s.MaxFileSize < MinFileSize || s.MaxFileSize%LabelSize != 0 || s.MaxFileSize > maxPosition) {
		return Metadata{}, fmt.Errorf("post: MaxFileSize %d must be a multiple of %d and at least %d", s.MaxFileSize, LabelSize, MinFileSize)
	}
	if err := fs.Mkdir(dir, 0o700); err != nil {
		return Metadata{}, advise(err)
	}
	name := filepath.Join(dir, s.Part.MetadataName())
	m, err := loadMetadata(fs, name)
	if err == nil {
		return m, s.belongs(m, p, name)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return Metadata{}, err
	}
	shared, err := hasParts(fs, dir)
	if err != nil {
		return Metadata{}, err
	}
	switch numbers, err := dataFiles(fs, dir); {
	case err != nil:
		return Metadata{}, err
	case len(numbers) > 0 && !shared:
		return Metadata{}, fmt.Errorf("post: %s has data files but no %s: restore it, or choose an empty directory", dir, MetadataFile)
	}
	m = Metadata{
		NodeID: s.NodeID, CommitmentATX: s.CommitmentATX,
		LabelsPerUnit: p.LabelsPerUnit, NumUnits: s.NumUnits, MaxFileSize: s.MaxFileSize,
	}
	if m.MaxFileSize == 0 {
		m.MaxFileSize = DefaultFileSize
	}
	if s.Part != (Part{}) && (s.Part.From >= s.Part.To || s.Part.To > m.NumFiles()) {
		return Metadata{}, fmt.Errorf("post: files %d to %d, but the space has %d, numbered from 0", s.Part.From, s.Part.To-1, m.NumFiles())
	}
	first, _ := m.layout(dir).part(s.Part)
	m.LastPosition = &first
	return m, saveMetadata(fs, name, m)
}

// belongs reports how m, of that file, differs from what s asks for.
func (s Setup) belongs(m Metadata, p Params, name string) error {
	const advice = "choose another directory (nothing was changed)"
	switch {
	case m.NodeID != s.NodeID:
		return fmt.Errorf("post: %s was made for identity %x, not %x: start with that identity, or %s", name, m.NodeID, s.NodeID, advice)
	case m.CommitmentATX != s.CommitmentATX:
		return fmt.Errorf("post: %s was made for commitment ATX %x, not %x: use that ATX, or %s", name, m.CommitmentATX, s.CommitmentATX, advice)
	case m.LabelsPerUnit != p.LabelsPerUnit:
		return fmt.Errorf("post: %s has units of %d labels, not %d: it is of another network, %s", name, m.LabelsPerUnit, p.LabelsPerUnit, advice)
	case m.NumUnits != s.NumUnits:
		return fmt.Errorf("post: %s was made for %d units, not %d: ask for %d units, or %s", name, m.NumUnits, s.NumUnits, m.NumUnits, advice)
	case s.MaxFileSize != 0 && m.MaxFileSize != s.MaxFileSize:
		return fmt.Errorf("post: %s has files of %d bytes, not %d: ask for that size or none, or %s", name, m.MaxFileSize, s.MaxFileSize, advice)
	}
	return nil
}

// initialiser is the state of one call of Init.
type initialiser struct {
	fs         durable.FS
	opts       InitOptions
	commitment [32]byte
	threshold  [32]byte
	meta       Metadata
	layout     layout
	labelers   []*Labeler // one for each worker
	judge      *Labeler   // the portable kernel, which checks the others
	buf        []byte     // the stored part of a batch

	part       Part
	begin, end uint64     // labels of the part
	parts      []madePart // that others filled

	next, resumed uint64    // the first label not yet computed; the same at start
	best          candidate // of all labels before next

	file   durable.File // the open data file, if any
	number uint64
}

// resume finds where to go on and checks what is there.
func (in *initialiser) resume() error {
	last := (in.end - 1) / in.layout.perFile
	stored, err := in.layout.stored(in.fs, in.begin/in.layout.perFile, last, in.covered)
	if err != nil {
		return err
	}
	in.next = in.begin + stored
	if last := in.meta.LastPosition; last != nil {
		// What lies beyond was not acknowledged: it may be torn, and is
		// written again.
		in.next = *last
	}
	finished := min(in.next, in.end)
	if in.next < in.begin {
		return fmt.Errorf("post: LastPosition %d in %s is before the part's first label: restore that file from a backup", in.next, in.part.MetadataName())
	}
	if in.begin+stored < finished {
		return fmt.Errorf("post: %s, but %d labels were finished: restore the file or choose another directory",
			in.layout.end(in.begin+stored), finished-in.begin)
	}
	if finished > in.begin {
		if err := checkStored(in.fs, in.layout, in.judge, in.commitment, finished-1); err != nil {
			return err
		}
	}
	in.resumed = in.next
	return in.take(in.meta, filepath.Join(in.layout.dir, in.part.MetadataName()))
}

// take offers the VRF nonce of what was found before, after a look whether it is one.
func (in *initialiser) take(m Metadata, name string) error {
	if m.Nonce == nil {
		return nil
	}
	nonce := *m.Nonce
	label := in.judge.Label(in.commitment, nonce)
	if v := m.NonceValue; v != nil && *v != [LabelSize]byte(label[:LabelSize]) {
		return fmt.Errorf("post: NonceValue in %s is not label %d: restore that file from a backup", name, nonce)
	}
	var one candidate
	one.offer(nonce, &label, &in.threshold)
	if !one.found {
		return fmt.Errorf("post: Nonce %d in %s is not below the threshold: restore that file from a backup", nonce, name)
	}
	in.best.offer(nonce, &label, &in.threshold)
	return nil
}

// run goes through the labels in batches: first those that are stored, then,
// if none of them was small enough for the VRF nonce, those beyond.
//
// A part ends where it ends: its nonce is sought in what it has.
func (in *initialiser) run() error {
	for {
		if err := in.skip(); err != nil {
			return err
		}
		keep := in.next < in.end
		if !keep && (in.best.found || in.part != (Part{})) {
			return nil
		}
		n := uint64(in.opts.BatchLabels)
		if keep {
			n = min(n, in.layout.perFile-in.next%in.layout.perFile, in.before())
		}
		if err := in.compute(in.next, n); err != nil {
			return err
		}
		if keep {
			if err := in.store(in.next, in.buf[:n*LabelSize]); err != nil {
				return err
			}
		}
		in.next += n
		if err := in.save(); err != nil {
			return err
		}
	}
}

// save makes it durable how far we are.
func (in *initialiser) save() error {
	in.meta.LastPosition = new(in.next)
	if in.best.found {
		in.meta.Nonce = new(in.best.index)
		in.meta.NonceValue = new([LabelSize]byte(in.best.label[:LabelSize]))
	}
	return saveMetadata(in.fs, filepath.Join(in.layout.dir, in.part.MetadataName()), in.meta)
}

// compute fills buf with n labels from first on and offers them to best.
func (in *initialiser) compute(first, n uint64) error {
	var taken, done atomic.Uint64
	var stop atomic.Bool
	found := make([]candidate, len(in.labelers))
	// What a worker takes at once. Between two runs progress is reported and
	// cancellation asked for.
	run := uint64(in.labelers[0].Lanes())
	work := func(w int, between func()) {
		indices, labels := make([]uint64, run), make([][32]byte, run)
		for !stop.Load() {
			from := taken.Add(run) - run
			if from >= n {
				return
			}
			to := min(from+run, n)
			for k := from; k < to; k++ {
				indices[k-from] = first + k
			}
			in.labelers[w].Labels(in.commitment, indices[:to-from], labels[:to-from])
			for k := from; k < to; k++ {
				label := &labels[k-from]
				copy(in.buf[k*LabelSize:], label[:LabelSize])
				found[w].offer(first+k, label, &in.threshold)
			}
			done.Add(to - from)
			between()
		}
	}
	var others sync.WaitGroup
	for w := 1; w < len(in.labelers); w++ {
		others.Go(func() { work(w, func() {}) })
	}
	work(0, func() {
		in.opts.Progress(InitProgress{
			Done: first + done.Load() - in.begin, Total: in.end - in.begin, Resumed: in.resumed - in.begin,
		})
		if in.opts.Cancel() {
			stop.Store(true)
		}
	})
	others.Wait()
	if stop.Load() {
		return ErrCancelled
	}
	for _, c := range found {
		if c.found {
			in.best.offer(c.index, &c.label, &in.threshold)
		}
	}
	return nil
}

// store makes a batch of labels durable and reads one of them back, to compare
// it with the portable kernel. If we stop anywhere in here, resume starts with
// this batch again and writes the same bytes.
func (in *initialiser) store(first uint64, labels []byte) error {
	number, offset := in.layout.locate(first)
	if in.file == nil || in.number != number {
		if err := in.openFile(number); err != nil {
			return err
		}
	}
	if _, err := in.file.WriteAt(labels, offset); err != nil {
		return advise(err)
	}
	if err := in.file.Sync(); err != nil {
		return advise(err)
	}
	pick := first + first*0x9e3779b97f4a7c15>>32%uint64(len(labels)/LabelSize) // any label, another in each batch
	return checkLabel(in.file, in.layout, in.judge, in.commitment, pick)
}

func (in *initialiser) openFile(number uint64) error {
	if in.file != nil {
		err := in.file.Close()
		in.file = nil
		if err != nil {
			return advise(err)
		}
	}
	f, err := in.fs.Edit(in.layout.name(number))
	if errors.Is(err, os.ErrNotExist) {
		f, err = in.fs.Create(in.layout.name(number), 0o600)
	}
	if err != nil {
		return advise(err)
	}
	in.file, in.number = f, number
	return advise(in.fs.SyncDir(in.layout.dir))
}
