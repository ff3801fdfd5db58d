package post

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"tweedle/base/durable"
)

// Part is a range of data files, From to To-1, that one Init fills by itself, so that
// machines share the work. The zero Part is the whole space.
//
// A part has a metadata file of its own beside its data files. Copied together into one
// directory, parts are joined by an Init of the whole there, which takes what is finished
// as it is, the best of their VRF nonces, and fills what is missing.
type Part struct {
	From uint64 `json:"from"` // number of the first data file
	To   uint64 `json:"to"`   // of the one after the last
}

// parsePart returns the part whose metadata file has a name.
func parsePart(name string) (p Part, ok bool) {
	n, err := fmt.Sscanf(name, "postdata_part_%d_%d.json", &p.From, &p.To)
	return p, n == 2 && err == nil && p.MetadataName() == name
}

// MetadataName is the name of the file that describes a part.
func (p Part) MetadataName() string {
	if p == (Part{}) {
		return MetadataFile
	}
	return fmt.Sprintf("postdata_part_%d_%d.json", p.From, p.To)
}

// NumFiles returns the number of data files of the whole space.
func (m Metadata) NumFiles() uint64 {
	perFile := m.MaxFileSize / LabelSize
	return (m.NumLabels() + perFile - 1) / perFile
}

// part returns the first label of a part and the one after its last.
func (l layout) part(p Part) (first, end uint64) {
	if p == (Part{}) {
		return 0, l.labels
	}
	return p.From * l.perFile, min(p.To*l.perFile, l.labels)
}

// madePart is a part with what its file says.
type madePart struct {
	Part
	meta Metadata
}

// inRange tells why the name of a part's file cannot be right.
func (p madePart) inRange(dir string) error {
	if n := p.meta.NumFiles(); p.From >= p.To || p.To > n {
		return fmt.Errorf("post: %s names no range of the %d files of this space: give it back its name", filepath.Join(dir, p.MetadataName()), n)
	}
	return nil
}

// listParts returns the parts that lie in dir, finished or not, in order.
func listParts(fs durable.FS, dir string) (parts []madePart, err error) {
	names, err := fs.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, advise(err)
	}
	for _, name := range names {
		part, ok := parsePart(name)
		if !ok {
			continue
		}
		m, err := loadMetadata(fs, filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		parts = append(parts, madePart{part, m})
	}
	slices.SortFunc(parts, func(a, b madePart) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return parts, nil
}

// partsIn returns the parts in dir that are finished, in order. Those that are not are
// filled again: what they have is the same. If s does not say how large files are, it gets
// that from the parts: they must agree.
func partsIn(fs durable.FS, dir string, p Params, s *Setup) (parts []madePart, err error) {
	all, err := listParts(fs, dir)
	if err != nil {
		return nil, err
	}
	for _, part := range all {
		m, name := part.meta, filepath.Join(dir, part.MetadataName())
		if s.MaxFileSize == 0 {
			s.MaxFileSize = m.MaxFileSize
		}
		if err := cmp.Or(s.belongs(m, p, name), part.inRange(dir)); err != nil {
			return nil, err
		}
		if _, end := m.layout(dir).part(part.Part); m.LastPosition != nil && *m.LastPosition >= end {
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// skip goes over the finished parts in which we are. A part counts only if its files have
// their size and its first and last labels are right: what was copied may be of another
// file, or cut off.
func (in *initialiser) skip() error {
	for _, part := range in.parts {
		first, end := in.layout.part(part.Part)
		if in.next < first || in.next >= end {
			continue
		}
		for number := part.From; number < part.To; number++ {
			if size, err := fileSize(in.fs, in.layout.name(number)); err != nil || size != in.layout.size(number) {
				return cmp.Or(err, fmt.Errorf("post: %s has %d of %d bytes, though %s says that it is finished: copy it again from where it was made",
					in.layout.name(number), size, in.layout.size(number), part.MetadataName()))
			}
		}
		for _, label := range []uint64{first, end - 1} {
			if err := checkStored(in.fs, in.layout, in.judge, in.commitment, label); err != nil {
				return err
			}
		}
		if err := in.take(part.meta, filepath.Join(in.layout.dir, part.MetadataName())); err != nil {
			return err
		}
		in.resumed += end - in.next // it is as if it was there before
		in.next = end
		if err := in.save(); err != nil {
			return err
		}
	}
	return nil
}

// before returns how many labels from the present one on are in no finished part.
func (in *initialiser) before() uint64 {
	next := in.end
	for _, part := range in.parts {
		if first, _ := in.layout.part(part.Part); first >= in.next {
			next = min(next, first)
		}
	}
	return next - in.next
}

// covered tells whether a data file belongs to a finished part.
func (in *initialiser) covered(number uint64) bool {
	for _, part := range in.parts {
		if number >= part.From && number < part.To {
			return true
		}
	}
	return false
}

// hasParts tells whether parts lie in dir, whatever they are.
func hasParts(fs durable.FS, dir string) (bool, error) {
	names, err := fs.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, advise(err)
	}
	return slices.ContainsFunc(names, func(name string) bool {
		_, ok := parsePart(name)
		return ok
	}), nil
}
