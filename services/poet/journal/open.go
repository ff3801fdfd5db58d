package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"tweedle/base/durable"
	"tweedle/proofs/posw"
)

// ErrOther says that nothing in a journal is of this round: it is about another
// statement, or damaged throughout.
var ErrOther = errors.New("nothing in it is of this round")

// tornTail is the length up to which bytes at the end that are not whole are
// what a sudden stop leaves of a sync, and no damage.
const tornTail = 1 << 16

// Open reads the journal of a round; want says what it must be about, and the
// height to take if the journal has no node. It writes nothing, and needs no right
// to, but where a stop left no file under the name (see rewrite).
//
// Lost is not nil if something is damaged: everything before the first damaged
// record is used, and what is behind it once the nodes between are computed again, see
// Append. A damaged file stays under its name until a whole one is durable, and is
// then kept beside it; what a sudden stop left at the end is written over.
//
// The error is os.ErrNotExist, ErrOther, or one of the disk. After one of the disk
// the file may be as good as ever: try again, and start no other.
func Open(fs durable.FS, path string, want About) (j *Journal, lost error, err error) {
	file, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := fs.Rename(path+newSuffix, path); err != nil {
			return nil, nil, err
		}
		file, err = fs.Open(path)
	}
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, nil, err
	}
	j = &Journal{fs: fs, path: path, about: want, key: want.key(), at: good}
	if err := j.read(io.NewSectionReader(file, 0, size)); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	j.saved = j.countLocked()
	k, end := j.about.K, uint64(len(j.nodes)/posw.NodeSize)
	switch bad := int64(j.saved * RecordSize); {
	case bad == size:
	case end == 0 && size >= RecordSize:
		return nil, nil, fmt.Errorf("%s: %w", path, ErrOther)
	case end == j.saved && size-bad <= tornTail:
		lost = fmt.Errorf("%s: the last %d bytes are not whole, as a sudden stop leaves them; %d leaves are good", path, size-bad, j.saved<<k)
	default:
		missing := uint64(0)
		for _, h := range j.holes {
			missing += h.end - h.first
		}
		lost = fmt.Errorf("%s is damaged at byte %d of %d: %d leaves before it are good, and %d behind it once %d between are computed again",
			path, bad, size, j.saved<<k, (end-j.saved-missing)<<k, missing<<k)
		j.at = foreign
	}
	return j, lost, nil
}

// read takes every whole record. The height is that of the first.
func (j *Journal) read(from io.Reader) error {
	r := bufio.NewReaderSize(from, 1<<20)
	var record [RecordSize]byte
	for number := uint64(0); ; number++ {
		_, err := io.ReadFull(r, record[:])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		node, height, ok := j.key.whole(record[:], number)
		end := uint64(len(j.nodes) / posw.NodeSize)
		if !ok || end > 0 && height != j.about.K {
			continue
		}
		j.about.K = height
		if end < number {
			j.holes = append(j.holes, hole{end, number})
			j.nodes = append(j.nodes, make([]byte, (number-end)*posw.NodeSize)...)
		}
		j.nodes = append(j.nodes, node...)
	}
}
