package journal

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"tweedle/base/durable"
	"tweedle/proofs/posw"
)

// ErrOther says that a journal is about another statement: nothing of it can be
// used for this one.
var ErrOther = errors.New("journal is about another statement")

// tornTail is the length up to which bytes at the end that are not whole are
// what a sudden stop leaves of a sync, and no damage.
const tornTail = 1 << 16

// Open reads the journal of a round; want says what it must be about, and the
// height to take where its own cannot be read. It writes nothing, and needs no
// right to.
//
// Lost is not nil if something is damaged: everything before the first damaged
// byte is used, and what is whole behind it once the nodes between are computed
// again, see Append. A damaged file stays under its name until a whole one is
// durable, and is then kept beside it.
//
// The error is os.ErrNotExist, ErrOther, or one of the disk. After one of the disk
// the file may be as good as ever: try again, and start no other.
func Open(fs durable.FS, path string, want Header) (j *Journal, lost error, err error) {
	j, lost, err = open(fs, path, want)
	if !errors.Is(err, os.ErrNotExist) {
		return j, lost, err
	}
	// Somebody may have stopped between putting a damaged file aside and putting
	// the new one in its place.
	names, err := fs.ReadDir(filepath.Dir(path))
	for _, name := range names {
		if !strings.HasPrefix(name, filepath.Base(path)+".bad") {
			continue
		}
		k, why, err := open(fs, filepath.Join(filepath.Dir(path), name), want)
		if err != nil && !errors.Is(err, ErrOther) {
			return nil, nil, err
		}
		if err == nil && (j == nil || k.saved > j.saved) {
			j, lost = k, why
			j.path, j.at = path, foreign
		}
	}
	if j == nil {
		return nil, nil, cmp.Or(err, error(&os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}))
	}
	return j, lost, nil
}

func open(fs durable.FS, path string, want Header) (j *Journal, lost error, err error) {
	file, err := fs.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(file, 0, size), 2*maxChunk)
	h, sum, err := readHeader(r)
	c := &chunkReader{r: r, sum: sum, at: int64(headerSize + sumSize)}
	headless := errors.Is(err, errBad)
	switch {
	case headless: // then it is like a damaged chunk, and the first whole one is behind it
		h = want
		c.at -= leastChunk
	case err != nil:
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	case h.Round != want.Round || h.Members != want.Members || h.Statement != want.Statement:
		return nil, nil, fmt.Errorf("%s: %w", path, ErrOther)
	}
	c.k = h.K
	if _, err := r.Discard(int(c.at)); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	j = &Journal{fs: fs, path: path, header: h, at: good, sum: sum, size: c.at}
	bad, err := j.load(c, headless)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !headless && bad == size {
		return j, nil, nil
	}
	if !headless && len(j.pieces) == 0 && size-bad <= tornTail {
		j.suspect = true // the next Sync cuts it off
		return j, fmt.Errorf("%s: the last %d bytes are not whole, as a sudden stop leaves them; %d leaves are good", path, size-bad, j.saved), nil
	}
	j.at = foreign
	missing, behind := j.ahead()
	return j, fmt.Errorf("%s is damaged at byte %d of %d: %d leaves before it are good, and %d behind it once %d between are computed again",
		path, bad, size, j.saved, behind<<h.K, missing<<h.K), nil
}

// load takes what is whole: what comes before the first damaged byte, and the pieces
// behind it. bad is the place of that byte, or the end of the file. The error is the
// disk's.
func (j *Journal) load(c *chunkReader, headless bool) (bad int64, err error) {
	if !headless {
		err := c.each(func(to point, nodes []byte) {
			j.list.put(j.nodes, nodes)
			j.nodes += uint64(len(nodes) / posw.NodeSize)
			j.saved, j.sum, j.marked, j.size = to.leaves, c.sum, to, c.at
		})
		if !errors.Is(err, errBad) {
			return c.at, notEOF(err)
		}
		bad = c.at
	}
	for {
		found, err := c.seek()
		if !found || err != nil {
			return bad, err
		}
		p := piece{first: c.last >> c.k, end: c.last >> c.k}
		err = c.each(func(to point, nodes []byte) {
			j.list.put(p.end, nodes)
			p.end += uint64(len(nodes) / posw.NodeSize)
			p.to = to
		})
		if p.end > p.first { // else there is nothing to know it by
			j.pieces = append(j.pieces, p)
		}
		if !errors.Is(err, errBad) {
			return bad, notEOF(err)
		}
	}
}

// ahead returns how many nodes must be computed to take all pieces, and how many they
// bring.
func (j *Journal) ahead() (missing, brings uint64) {
	at := j.nodes
	for _, p := range j.pieces {
		missing += p.first + 1 - at
		brings += p.end - p.first - 1
		at = p.end
	}
	return missing, brings
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
