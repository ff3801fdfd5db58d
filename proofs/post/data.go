package post

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"tweedle/base/durable"
)

// Data is a finished directory of labels. It holds no open files, so there is
// nothing to close.
type Data struct {
	// Metadata says what the directory holds.
	Metadata Metadata

	fs     durable.FS
	layout layout
}

// Open checks that every data file in dir is there in full size. The error
// names the first file that is not, and the byte where its data ends.
func Open(dir string) (*Data, error) { return open(durable.OS{}, dir) }

func open(fs durable.FS, dir string) (*Data, error) {
	d, err := opened(fs, dir)
	if err != nil {
		return nil, err
	}
	m := d.Metadata
	stored, err := d.layout.stored(fs, 0, m.NumFiles()-1, func(uint64) bool { return false })
	if err != nil {
		return nil, err
	}
	if last := m.LastPosition; last != nil {
		stored = min(stored, *last)
	}
	if stored < d.layout.labels {
		return nil, fmt.Errorf("post: %s: restore the file, or finish initialising", d.layout.end(stored))
	}
	return d, nil
}

// opened is open that does not look at the data files.
func opened(fs durable.FS, dir string) (*Data, error) {
	m, err := loadMetadata(fs, filepath.Join(dir, MetadataFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("post: %s has no %s: initialise it first", dir, MetadataFile)
	}
	if err != nil {
		return nil, err
	}
	return &Data{Metadata: m, fs: fs, layout: m.layout(dir)}, nil
}

// fits tells why the space is none of a network.
func (d *Data) fits(p Params) error {
	labels, err := p.NumLabels(d.Metadata.NumUnits)
	if err == nil && labels != d.layout.labels {
		err = fmt.Errorf("post: %s holds %d labels, the network asks for %d: it is of another network", d.layout.dir, d.layout.labels, labels)
	}
	return err
}

// Locate returns the path of the file that holds label i, and the byte where
// it starts there. i must be below Metadata.NumLabels.
func (d *Data) Locate(i uint64) (name string, offset int64) {
	number, offset := d.layout.locate(i)
	return d.layout.name(number), offset
}

// Check recomputes label i, which must be below Metadata.NumLabels, with l and
// compares it with what is stored. A difference is a *DamagedError.
func (d *Data) Check(l *Labeler, i uint64) error {
	return checkStored(d.fs, d.layout, l, Commitment(d.Metadata.NodeID, d.Metadata.CommitmentATX), i)
}

// DamagedError says which stored label differs from the computed one.
type DamagedError struct {
	File   string // path of the data file
	Offset int64  // byte in it where the label starts
	Index  uint64 // of the label
}

// Error says where, and what to do.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("post: label %d in %s at byte %d is damaged or was made with another cost: \"tweedle post repair\" makes it again",
		e.Index, e.File, e.Offset)
}

// UnreadableError says which part of a file the disk does not give back.
type UnreadableError struct {
	File   string // path of the data file
	Offset int64  // byte in it where the part begins
	Size   int    // of the part, in bytes
	Err    error  // the disk's
}

// Error says where, and what to do.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("post: %d bytes at byte %d of %s cannot be read: check the disk, then \"tweedle post repair\" this file: %v", e.Size, e.Offset, e.File, e.Err)
}

// Unwrap returns the disk's error.
func (e *UnreadableError) Unwrap() error { return e.Err }

// unreadable is what the disk said about size bytes from label i on.
func unreadable(l layout, i uint64, size int, err error) error {
	number, offset := l.locate(i)
	return &UnreadableError{File: l.name(number), Offset: offset, Size: size, Err: err}
}

// checkStored is checkLabel that opens the file.
func checkStored(fs durable.FS, l layout, judge *Labeler, commitment [32]byte, i uint64) error {
	number, _ := l.locate(i)
	f, err := fs.Open(l.name(number))
	if err != nil {
		return advise(err)
	}
	defer f.Close()
	return checkLabel(f, l, judge, commitment, i)
}

// checkLabel compares label i in f with a recomputed one.
func checkLabel(f durable.File, l layout, judge *Labeler, commitment [32]byte, i uint64) error {
	number, offset := l.locate(i)
	var stored [LabelSize]byte
	err := readAll(f, stored[:], offset)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return advise(fmt.Errorf("read label %d in %s at byte %d: %w", i, l.name(number), offset, err))
	}
	if err != nil {
		return unreadable(l, i, LabelSize, err)
	}
	if label := judge.Label(commitment, i); stored != [LabelSize]byte(label[:LabelSize]) {
		return &DamagedError{File: l.name(number), Offset: offset, Index: i}
	}
	return nil
}
