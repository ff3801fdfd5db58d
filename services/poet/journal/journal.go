// Package journal keeps the nodes of one PoET round: in memory for the proof,
// and in an append-only file for the case that the process stops.
//
// It promises: Open returns what was synced, up to the first damaged byte, and
// never anything else; a file that cannot be written is left behind without
// harm, and once the disk takes data again the missing part is written from
// memory.
//
// It leaves to the caller: when to sync, computing the nodes, and going on from
// the checkpoint that Open found.
//
// The file is a header and then chunks, at least one for each sync:
//
//	header  magic, round, members, start, end, height k, statement, checksum
//	chunk   leaves, parked nodes below height k, new nodes of height k, checksum
//
// All nodes have one size; how many of them a chunk has follows from its number
// of leaves and that of the chunk before. A checksum is the beginning of the
// BLAKE3 hash over the checksum before it and its own chunk, so chunks cannot be
// missing, swapped, or of another file. Parked nodes of height k and above follow
// from the kept ones, and at a multiple of 2^k leaves there are none below: then a
// checkpoint costs nothing but the nodes that are kept anyway.
package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"tweedle/base/durable"
	"tweedle/proofs/posw"
)

// blockSize is the unit of memory for nodes, in bytes.
const blockSize = 1 << 20

// Journal holds the kept nodes of a round. One goroutine appends, one other syncs;
// Reader is for after the last append.
type Journal struct {
	fs     durable.FS
	path   string
	header Header

	mu     sync.Mutex // guards all up to size
	blocks [][]byte   // all kept nodes; every block but the last is full
	nodes  uint64
	marked point // the latest that the appender gave

	saved uint64 // leaves of the last synced chunk
	size  int64  // of the file, up to there

	// Owned by the goroutine that syncs.
	file    durable.File // nil if it must be written anew
	sum     checksum
	suspect bool // bytes after size may be there
}

// Path returns the name of a round's journal in a directory.
func Path(dir string, round uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%d.journal", round))
}

// Create starts a journal, in memory at first: the file is made, or replaced,
// by the first Sync.
func Create(fs durable.FS, path string, h Header) *Journal {
	return &Journal{fs: fs, path: path, header: h}
}

// ErrDamaged says that a journal has no usable header: nothing of it can be used.
var ErrDamaged = errors.New("journal is damaged")

// Open reads a journal. Lost is not nil if bytes after the last good checkpoint
// were dropped, which a sudden stop or damage explains; they are cut off.
// An error is ErrDamaged, os.ErrNotExist, or one of the disk.
func Open(fs durable.FS, path string) (j *Journal, lost error, err error) {
	file, err := fs.Edit(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	size, err := file.Size()
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(file, 0, size), 1<<16)
	h, sum, err := readHeader(r)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
	j = &Journal{fs: fs, path: path, header: h, file: file, sum: sum, size: int64(headerSize + sumSize)}
	lost = j.load(&chunkReader{r: r, k: h.K, sum: sum})
	if lost != nil {
		lost = fmt.Errorf("%s: %d of %d bytes are dropped, %d leaves are good: %w", path, size-j.size, size, j.saved, lost)
	}
	if j.size < size {
		// If we stop here, the next Open finds the same and cuts again.
		if err := errors.Join(file.Truncate(j.size), file.Sync()); err != nil {
			return nil, nil, err
		}
	}
	return j, lost, nil
}

func (j *Journal) load(c *chunkReader) error {
	for {
		to, nodes, size, err := c.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		j.append(nodes)
		j.size += size
		j.saved, j.sum, j.marked = to.leaves, c.sum, to
	}
}

// Header returns what the journal is about.
func (j *Journal) Header() Header { return j.header }

// Checkpoint returns the last synced point, or the last marked one if that is
// later, for posw.Resume with Reader.
func (j *Journal) Checkpoint() (posw.Checkpoint, error) {
	return checkpoint(&j.header, j.marked, j.Reader())
}

// Append adds kept nodes, in memory. If cp is not nil it is the state after them,
// and Sync makes it durable; without it Sync goes to the last multiple of 2^k leaves.
func (j *Journal) Append(nodes []byte, cp *posw.Checkpoint) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.append(nodes)
	if cp == nil {
		return
	}
	p := point{leaves: cp.Leaves}
	for _, n := range cp.Parked[:parkedSize(cp.Leaves, j.header.K)/posw.NodeSize] {
		p.parked = append(p.parked, n[:]...)
	}
	if p.leaves>>j.header.K != j.nodes {
		panic("journal: checkpoint does not fit the kept nodes")
	}
	j.marked = p
}

func (j *Journal) append(nodes []byte) {
	if len(nodes)%posw.NodeSize != 0 {
		panic("journal: part of a node")
	}
	j.nodes += uint64(len(nodes) / posw.NodeSize)
	for len(nodes) > 0 {
		last := len(j.blocks) - 1
		if last < 0 || len(j.blocks[last]) == blockSize {
			// The first block grows as it needs: most journals of test
			// networks have no second.
			size := blockSize
			if last < 0 {
				size = posw.NodeSize
			}
			j.blocks = append(j.blocks, make([]byte, 0, size))
			continue
		}
		n := min(len(nodes), blockSize-len(j.blocks[last]))
		j.blocks[last] = append(j.blocks[last], nodes[:n]...)
		nodes = nodes[n:]
	}
}

// Cut forgets the last nodes, that many or all. The next Sync writes a new file.
func (j *Journal) Cut(nodes uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Close()
	j.nodes -= min(nodes, j.nodes)
	end := j.nodes * posw.NodeSize
	j.blocks = j.blocks[:(end+blockSize-1)/blockSize]
	if rest := end % blockSize; rest > 0 {
		last := len(j.blocks) - 1
		j.blocks[last] = j.blocks[last][:rest]
	}
	j.marked, j.saved = point{leaves: j.nodes << j.header.K}, 0
}

// slice appends the nodes from and before to onto b.
func (j *Journal) slice(b []byte, from, to uint64) []byte {
	first, end := from*posw.NodeSize, to*posw.NodeSize
	for first < end {
		block := j.blocks[first/blockSize]
		at := first % blockSize
		n := min(end-first, uint64(len(block))-at)
		b = append(b, block[at:at+n]...)
		first += n
	}
	return b
}

// target returns the latest point that can be made durable.
func (j *Journal) target() point {
	if aligned := j.nodes << j.header.K; aligned > j.marked.leaves {
		return point{leaves: aligned}
	}
	return j.marked
}

// Sync makes everything appended durable, up to a checkpoint. After an error the
// file still holds what was durable before, the round goes on in memory, and the
// next Sync tries again: with the missing part if only room was missing, else
// with a whole new file, for the state of the old one is unknown.
func (j *Journal) Sync() error {
	j.mu.Lock()
	to := j.target()
	j.mu.Unlock()
	if j.file != nil && to.leaves == j.saved {
		return nil
	}
	if j.file == nil {
		return j.rewrite(to)
	}
	if j.suspect {
		if err := j.file.Truncate(j.size); err != nil {
			return j.abandon(err)
		}
		j.suspect = false
	}
	size, sum, err := j.write(j.file, j.size, j.saved, j.sum, to)
	if durable.IsFull(err) {
		j.suspect = true
		return fmt.Errorf("journal of round %d: %w", j.header.Round, err)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return j.abandon(err)
	}
	// If we stop from here on, Open finds this checkpoint.
	j.sum = sum
	j.setSaved(to.leaves, size)
	return nil
}

func (j *Journal) setSaved(leaves uint64, size int64) {
	j.mu.Lock()
	j.saved, j.size = leaves, size
	j.mu.Unlock()
}

// abandon gives the file up, after an error that leaves its content unknown. It
// stays where it is until a new one replaces it.
func (j *Journal) abandon(err error) error {
	j.file.Close()
	j.file = nil
	return fmt.Errorf("journal of round %d: %w", j.header.Round, err)
}

// rewrite writes a new file from memory and puts it in the place of the old.
func (j *Journal) rewrite(to point) error {
	err := j.rewriteTo(j.path+".new", to)
	if err != nil {
		return fmt.Errorf("journal of round %d: %w", j.header.Round, err)
	}
	return nil
}

func (j *Journal) rewriteTo(temp string, to point) (err error) {
	file, err := j.fs.Create(temp, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			file.Close()
			j.fs.Remove(temp) // if not, the next rewrite replaces it
		}
	}()
	head, sum := j.header.encode()
	if _, err := file.WriteAt(head, 0); err != nil {
		return err
	}
	size, sum, err := j.write(file, int64(len(head)), 0, sum, to)
	if err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := j.fs.Rename(temp, j.path); err != nil {
		return err
	}
	// If we stop here, Open finds the old journal or the new one, whole.
	if err := j.fs.SyncDir(filepath.Dir(j.path)); err != nil {
		return err
	}
	j.file, j.sum, j.suspect = file, sum, false
	j.setSaved(to.leaves, size)
	return nil
}

// write writes the chunks that lead from a number of leaves to a point.
func (j *Journal) write(file durable.File, at int64, from uint64, sum checksum, to point) (int64, checksum, error) {
	k := j.header.K
	first, end := from>>k, to.leaves>>k
	for first < end || from < to.leaves {
		next := min(end, first+maxChunkNodes)
		stop := point{leaves: next << k}
		if next == end {
			stop = to
		}
		j.mu.Lock()
		nodes := j.slice(nil, first, next)
		j.mu.Unlock()
		var chunk []byte
		chunk, sum = appendChunk(nil, stop, nodes, sum)
		if _, err := file.WriteAt(chunk, at); err != nil {
			return 0, sum, err
		}
		at += int64(len(chunk))
		first, from = next, stop.leaves
	}
	return at, sum, nil
}

// Reserve sets room aside on the disk for a file of size bytes. It needs a file:
// call it after a Sync.
func (j *Journal) Reserve(size int64) error {
	if j.file == nil || size <= j.size {
		return nil
	}
	return j.file.Reserve(size)
}

// Saved returns the leaves that survive a stop, and the length of the file in
// bytes. It may be called at any time.
func (j *Journal) Saved() (leaves uint64, size int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.saved, j.size
}

// Reader returns a reader of all kept nodes, from the first.
func (j *Journal) Reader() io.Reader { return &reader{j: j} }

type reader struct {
	j     *Journal
	block int
	at    int
}

func (r *reader) Read(p []byte) (int, error) {
	for r.block < len(r.j.blocks) {
		if block := r.j.blocks[r.block]; r.at < len(block) {
			n := copy(p, block[r.at:])
			r.at += n
			return n, nil
		}
		r.block, r.at = r.block+1, 0
	}
	return 0, io.EOF
}

// Close closes the file.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// Remove closes and deletes a journal.
func (j *Journal) Remove() error {
	j.Close()
	return Remove(j.fs, j.path)
}

// Remove deletes a journal file. It may be missing.
func Remove(fs durable.FS, path string) error {
	for _, name := range []string{path, path + ".new"} {
		if err := fs.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// If we stop here, a start finds a journal of a round that has a proof,
	// and removes it.
	return fs.SyncDir(filepath.Dir(path))
}
