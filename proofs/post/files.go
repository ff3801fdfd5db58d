package post

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"tweedle/base/durable"
)

// advise adds what to do to an error of the disk.
func advise(err error) error {
	switch {
	case err == nil:
		return nil
	case durable.IsFull(err):
		return fmt.Errorf("post: disk full, free some space and start again, finished labels are kept: %w", err)
	case errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("post: directory is not usable, change its permissions or choose another one: %w", err)
	}
	return fmt.Errorf("post: disk error, check the disk and start again, finished labels are kept: %w", err)
}

// layout places labels in files: position is by the number in a file's name.
type layout struct {
	dir     string
	labels  uint64 // in all files
	perFile uint64 // in every file but the last
}

func (m Metadata) layout(dir string) layout {
	return layout{dir: dir, labels: m.NumLabels(), perFile: m.MaxFileSize / LabelSize}
}

// locate returns the number of the file that holds label i and the byte where
// the label starts.
func (l layout) locate(i uint64) (number uint64, offset int64) {
	return i / l.perFile, int64(i % l.perFile * LabelSize)
}

// name returns the path of a data file.
func (l layout) name(number uint64) string {
	return filepath.Join(l.dir, dataFile(number))
}

// size returns the full size of a data file in bytes.
func (l layout) size(number uint64) int64 {
	return int64(min(l.perFile, l.labels-number*l.perFile) * LabelSize)
}

// stored returns how many labels the files from first to last hold without a gap. It is
// an error if more data follows after a gap, or a file is too long: then labels would be
// read from a wrong place. Files that are covered may follow after a gap.
func (l layout) stored(fs durable.FS, first, last uint64, covered func(number uint64) bool) (labels uint64, err error) {
	number := first
	for ; number <= last; number++ {
		size, err := fileSize(fs, l.name(number))
		if err != nil {
			return 0, err
		}
		if full := l.size(number); size > full {
			return 0, fmt.Errorf("post: %s has %d bytes, must have %d: is MaxFileSize in %s right?", l.name(number), size, full, MetadataFile)
		}
		labels += uint64(size) / LabelSize
		if size < l.size(number) {
			break
		}
	}
	numbers, err := dataFiles(fs, l.dir)
	if err != nil {
		return 0, err
	}
	for _, later := range numbers {
		if later <= number || later > last || covered(later) {
			continue
		}
		if size, err := fileSize(fs, l.name(later)); err != nil || size > 0 {
			return 0, cmp.Or(err, fmt.Errorf("post: %s, but %s has data: restore the missing data or choose another directory",
				l.end(first*l.perFile+labels), l.name(later)))
		}
	}
	return labels, nil
}

// end says in words where data that holds so many labels ends.
func (l layout) end(labels uint64) string {
	number, offset := l.locate(labels)
	if offset == 0 {
		return fmt.Sprintf("%s is missing or empty (0 of %d bytes)", l.name(number), l.size(number))
	}
	return fmt.Sprintf("%s ends at byte %d of %d", l.name(number), offset, l.size(number))
}

// fileSize returns the size in bytes, 0 if there is no such file.
func fileSize(fs durable.FS, name string) (int64, error) {
	f, err := fs.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, advise(err)
	}
	size, err := f.Size()
	return size, advise(cmp.Or(err, f.Close()))
}

// readAll is ReadAt that takes the end of the file for an error only if p was
// not filled.
func readAll(f durable.File, p []byte, offset int64) error {
	n, err := f.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// loadMetadata returns os.ErrNotExist if there is no such file.
func loadMetadata(fs durable.FS, name string) (m Metadata, err error) {
	in, err := durable.ReadFile(fs, name, MaxMetadataSize)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return m, err
	case errors.Is(err, durable.ErrTooLong):
		return m, fmt.Errorf("post: %w: restore it from a backup", err)
	case err != nil:
		return m, advise(err)
	}
	if m, err = decodeMetadata(in); err != nil {
		return m, fmt.Errorf("post: %s is damaged, restore it from a backup: %w", name, err)
	}
	return m, nil
}

// saveMetadata replaces the metadata. Stopped before it returns, the next start
// finds the old file or the new one.
func saveMetadata(fs durable.FS, name string, m Metadata) error {
	return advise(durable.WriteFile(fs, name, encodeMetadata(m), 0o600))
}

// dataFiles returns the numbers of the data files in dir, in no order.
func dataFiles(fs durable.FS, dir string) (numbers []uint64, err error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, advise(err)
	}
	for _, name := range names {
		digits, isData := strings.CutPrefix(strings.TrimSuffix(name, ".bin"), "postdata_")
		number, err := strconv.ParseUint(digits, 10, 64)
		if isData && err == nil && name == dataFile(number) {
			numbers = append(numbers, number)
		}
	}
	return numbers, nil
}

func dataFile(number uint64) string { return fmt.Sprintf("postdata_%d.bin", number) }

// ReadMetadata returns what a directory's metadata says of its data, whether or
// not all of that is there; fs.ErrNotExist of io/fs if there is none.
func ReadMetadata(dir string) (Metadata, error) {
	return loadMetadata(durable.OS{}, filepath.Join(dir, MetadataFile))
}
