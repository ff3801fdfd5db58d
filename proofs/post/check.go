package post

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"tweedle/base/durable"
)

// CheckOptions say how much of a space is looked at. The callbacks are called by one
// goroutine at a time, and may be nil.
type CheckOptions struct {
	// Fraction of each file's labels, at most 1; 0 means all. They are drawn evenly, one
	// of each stretch, and at least one of a file.
	Fraction float64
	// Seed draws them.
	Seed uint64
	// Files are the numbers of those to look at, all if it is empty.
	Files    []uint64
	Workers  int // goroutines, 0 means 1
	Progress func(done, total uint64)
	Cancel   func() bool // true stops with ErrCancelled
	// Found is told all that is wrong: a *DamagedError, an *UnreadableError or a
	// *MissingError.
	Found func(error)
}

// Check compares what dir stores with recomputed labels, and reports how many it looked
// at. What it finds goes to Found, and is no error; an error is that the directory has
// no metadata of these parameters, or a kernel that differs from the portable one.
func Check(dir string, p Params, opts CheckOptions) (labels uint64, err error) {
	return check(durable.OS{}, dir, p, opts)
}

func check(fs durable.FS, dir string, p Params, opts CheckOptions) (uint64, error) {
	if err := opts.complete(); err != nil {
		return 0, err
	}
	c := &checker{fs: fs, opts: opts, params: p}
	var err error
	if c.meta, c.layout, err = finished(fs, dir, p); err != nil {
		return 0, err
	}
	if c.files, err = c.meta.numbers(opts.Files); err != nil {
		return 0, err
	}
	for number := range c.files {
		c.total += c.picks(number)
	}
	for number := range c.files {
		if err := c.file(number); err != nil {
			return c.done.Load(), err
		}
	}
	return c.done.Load(), nil
}

func (o *CheckOptions) complete() error {
	switch {
	case o.Fraction < 0 || o.Fraction > 1 || o.Fraction != o.Fraction:
		return fmt.Errorf("post: fraction %v, must be over 0 and at most 1", o.Fraction)
	case o.Workers < 0 || o.Workers > MaxWorkers:
		return fmt.Errorf("post: %d workers, must be in 1..%d", o.Workers, MaxWorkers)
	}
	o.Workers = cmp.Or(o.Workers, 1)
	if o.Progress == nil {
		o.Progress = func(_, _ uint64) {}
	}
	if o.Cancel == nil {
		o.Cancel = func() bool { return false }
	}
	if o.Found == nil {
		o.Found = func(error) {}
	}
	return nil
}

// checker is the state of one call of Check.
type checker struct {
	fs     durable.FS
	opts   CheckOptions
	params Params
	meta   Metadata
	layout layout
	files  iter.Seq[uint64]
	total  uint64
	done   atomic.Uint64

	mu sync.Mutex // held while a callback is called
}

// finished returns the metadata of a directory that Init finished.
func finished(fs durable.FS, dir string, p Params) (Metadata, layout, error) {
	d, err := opened(fs, dir)
	if err != nil {
		return Metadata{}, layout{}, err
	}
	if err := d.fits(p); err != nil {
		return Metadata{}, layout{}, err
	}
	if last := d.Metadata.LastPosition; last != nil && *last < d.layout.labels {
		return Metadata{}, layout{}, fmt.Errorf("post: %s has %d of %d labels: finish initialising first", dir, *last, d.layout.labels)
	}
	return d.Metadata, d.layout, nil
}

// numbers goes through the file numbers asked for, all if none is, in order.
func (m Metadata) numbers(asked []uint64) (iter.Seq[uint64], error) {
	all := m.NumFiles()
	if len(asked) == 0 {
		return func(yield func(uint64) bool) {
			for number := uint64(0); number < all && yield(number); number++ {
			}
		}, nil
	}
	asked = slices.Compact(slices.Sorted(slices.Values(asked)))
	if last := asked[len(asked)-1]; last >= all {
		return nil, fmt.Errorf("post: there is no %s, the space has %d files, numbered from 0", dataFile(last), all)
	}
	return slices.Values(asked), nil
}

// picks returns how many labels of a file are looked at.
func (c *checker) picks(number uint64) uint64 {
	labels := uint64(c.layout.size(number)) / LabelSize
	if c.opts.Fraction == 0 {
		return labels
	}
	return min(labels, max(1, uint64(float64(labels)*c.opts.Fraction)))
}

// pick returns one of so many picks among the labels of a file.
func (c *checker) pick(number, i, picks, labels uint64) uint64 {
	from, to := stretch(i, picks, labels), stretch(i+1, picks, labels)
	return from + rand.New(rand.NewPCG(c.opts.Seed, number<<32^i)).Uint64N(to-from)
}

// stretch returns where the i-th of n equal stretches of a length begins, without
// overflow.
func stretch(i, n, length uint64) uint64 { return i*(length/n) + i*(length%n)/n }

func (c *checker) file(number uint64) error {
	f, err := c.fs.Open(c.layout.name(number))
	if err != nil {
		c.lost(number, 0, err)
		return nil
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return advise(err)
	}
	if full := c.layout.size(number); size != full {
		c.lost(number, size, nil)
	}
	there := uint64(size) / LabelSize
	labels, picks := uint64(c.layout.size(number))/LabelSize, c.picks(number)
	var taken atomic.Uint64
	errs := make([]error, c.opts.Workers)
	var others sync.WaitGroup
	for w := range c.opts.Workers {
		others.Go(func() {
			l := NewLabeler(c.params.ScryptN)
			run := uint64(l.Lanes())
			for errs[w] == nil {
				from := taken.Add(run) - run
				if from >= picks {
					return
				}
				var indices []uint64
				for i := from; i < min(from+run, picks); i++ {
					if at := c.pick(number, i, picks, labels); at < there {
						indices = append(indices, number*c.layout.perFile+at)
					}
				}
				errs[w] = c.look(f, l, indices)
			}
			taken.Add(picks) // the others end as well
		})
	}
	others.Wait()
	return errors.Join(errs...)
}

// lost tells of a file that is not there in full size.
func (c *checker) lost(number uint64, size int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts.Found(&MissingError{File: c.layout.name(number), Has: size, Want: c.layout.size(number), Err: err})
}

// MissingError says which data file is not there in full size.
type MissingError struct {
	File      string // path of the data file
	Has, Want int64  // bytes
	Err       error  // why it cannot be opened, nil if it can
}

// Error says where, and what to do.
func (e *MissingError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("post: %s cannot be opened: \"tweedle post repair\" makes it again: %v", e.File, e.Err)
	}
	return fmt.Sprintf("post: %s has %d of %d bytes: \"tweedle post repair\" makes it again", e.File, e.Has, e.Want)
}

// Unwrap returns why it cannot be opened.
func (e *MissingError) Unwrap() error { return e.Err }

// look compares some labels of a file.
func (c *checker) look(f durable.File, l *Labeler, indices []uint64) error {
	commitment := Commitment(c.meta.NodeID, c.meta.CommitmentATX)
	labels := make([][32]byte, len(indices))
	l.Labels(commitment, indices, labels)
	for k, i := range indices {
		_, offset := c.layout.locate(i)
		var stored [LabelSize]byte
		var found error
		if err := readAll(f, stored[:], offset); err != nil {
			found = unreadable(c.layout, i, LabelSize, err)
		} else if !bytes.Equal(stored[:], labels[k][:LabelSize]) {
			judge := newLabeler(c.params.ScryptN, portableLabels)
			found = checkLabel(f, c.layout, judge, commitment, i)
			if found == nil {
				return errors.New("post: the kernel in use computes wrong labels: start with --kernel portable, and do not trust what was made with it")
			}
		}
		if found != nil {
			c.mu.Lock()
			c.opts.Found(found)
			c.mu.Unlock()
		}
	}
	done := c.done.Add(uint64(len(indices)))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts.Progress(done, c.total)
	if c.opts.Cancel() {
		return ErrCancelled
	}
	return nil
}

// Repair computes all labels of the named files anew and writes those that differ,
// missing files and all that cannot be read. It touches no other file and shortens none;
// stopped at any moment, a file has what it had or what it should have, label by label.
// It reports how many labels it replaced.
func Repair(dir string, p Params, files []uint64, opts InitOptions) (replaced uint64, err error) {
	return repair(durable.OS{}, dir, p, files, opts)
}

func repair(fs durable.FS, dir string, p Params, files []uint64, opts InitOptions) (replaced uint64, err error) {
	if err := opts.complete(); err != nil {
		return 0, err
	}
	if len(files) == 0 {
		return 0, errors.New("post: name the files to repair")
	}
	in := &initialiser{fs: fs, opts: opts, judge: newLabeler(p.ScryptN, portableLabels)}
	if in.meta, in.layout, err = finished(fs, dir, p); err != nil {
		return 0, err
	}
	numbers, err := in.meta.numbers(files)
	if err != nil {
		return 0, err
	}
	in.commitment, in.threshold = Commitment(in.meta.NodeID, in.meta.CommitmentATX), vrfThreshold(in.layout.labels)
	in.buf = make([]byte, opts.BatchLabels*LabelSize)
	for range opts.Workers {
		in.labelers = append(in.labelers, NewLabeler(p.ScryptN))
	}
	total, done := uint64(0), uint64(0)
	for number := range numbers {
		total += uint64(in.layout.size(number)) / LabelSize
	}
	report := in.opts.Progress
	for number := range numbers {
		first, end := in.layout.part(Part{number, number + 1})
		in.opts.Progress = func(p InitProgress) { report(InitProgress{Done: done + p.Done, Total: total}) }
		in.begin, in.end, in.resumed = first, end, first
		n, err := in.mend(first, end)
		replaced += n
		if err != nil {
			return replaced, err
		}
		done += end - first
	}
	return replaced, nil
}

// mend goes through the labels of one file.
func (in *initialiser) mend(first, end uint64) (replaced uint64, err error) {
	defer func() {
		if in.file != nil {
			err = cmp.Or(err, advise(in.file.Close()))
			in.file = nil
		}
	}()
	number, _ := in.layout.locate(first)
	if err := in.openFile(number); err != nil {
		return 0, err
	}
	stored := make([]byte, len(in.buf))
	for at := first; at < end; {
		n := min(uint64(in.opts.BatchLabels), end-at)
		if err := in.compute(at, n); err != nil {
			return replaced, err
		}
		want, have := in.buf[:n*LabelSize], stored[:n*LabelSize]
		_, offset := in.layout.locate(at)
		// What cannot be read is replaced: a disk gives a bad sector another place when
		// it is written.
		if read, err := in.file.ReadAt(have, offset); err != nil {
			if err == io.EOF {
				have = have[:read]
			} else {
				have = nil
			}
		}
		if differing := differ(have, want); differing > 0 {
			if err := in.store(at, want); err != nil {
				return replaced, err
			}
			replaced += differing
		}
		at += n
	}
	return replaced, nil
}

// differ counts the labels of want that have has not.
func differ(have, want []byte) (n uint64) {
	for at := 0; at < len(want); at += LabelSize {
		if at+LabelSize > len(have) || !bytes.Equal(have[at:at+LabelSize], want[at:at+LabelSize]) {
			n++
		}
	}
	return n
}
