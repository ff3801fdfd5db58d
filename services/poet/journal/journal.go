// Package journal keeps the nodes of one PoET round: in memory for the proof,
// and in an append-only file for the case that the process stops.
//
// It promises: Open returns what was synced and is whole, up to the first damaged
// byte, and never anything else; what is whole behind damage comes back once the
// nodes between are computed again; one failed call of the disk is not taken for
// damage; a file that is damaged, or about something else, is kept aside and never
// replaced; a file that cannot be written is left behind without harm, and once the
// disk takes data again the missing part is written from memory.
//
// It leaves to the caller: when to sync, computing the nodes, and going on from
// the checkpoint that Open found.
//
// The file is a header and then chunks, at least one for each sync:
//
//	header  magic, round, members, 16 unused, height k, statement, checksum
//	chunk   leaves, parked nodes below height k, new nodes of height k, checksum
//
// All nodes have one size; how many of them a chunk has follows from its number
// of leaves and that of the chunk before. A checksum is the beginning of the
// BLAKE3 hash over the checksum before it and its own chunk, so chunks cannot be
// missing, swapped, or of another file. Parked nodes of height k and above follow
// from the kept ones, and at a multiple of 2^k leaves there are none below: then a
// checkpoint costs nothing but the nodes that are kept anyway.
//
// Behind damage the chain of checksums says that chunks are whole, not that they
// belong here: they may be what the disk held before. So a piece behind damage
// counts only when the first of its nodes came out the same as it was computed
// again. It depends on all nodes before it, and the chain ties the rest to it.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"tweedle/base/durable"
	"tweedle/proofs/posw"
	"tweedle/values/types"
)

// Journal holds the kept nodes of a round. One goroutine appends, one other syncs;
// Reader is for after the last append.
type Journal struct {
	fs     durable.FS
	path   string
	header Header

	mu     sync.Mutex // guards all up to size
	list   list
	nodes  uint64  // that are known, from the first on
	pieces []piece // that were read from behind damage, in order
	marked point   // the latest that the appender gave

	doubted bool // since the last Sync

	saved uint64 // leaves of the last synced chunk
	size  int64  // of the file, up to there
	kept  string // the file that was put aside last

	// Owned by the goroutine that syncs.
	at      place
	file    durable.File // open for appending; else nil
	sum     checksum
	suspect bool // bytes after size may be there
}

// piece is a run of nodes behind damage.
type piece struct {
	first, end uint64
	to         point // after them
}

// place is what the file is to the journal.
type place int

const (
	// foreign: whatever is there has what is not in memory. It is put aside.
	foreign place = iota
	// known: nothing is there that is not in memory, but it may be torn. It is
	// replaced by a whole file.
	known
	// good: up to size it is as it was synced, and may be appended to.
	good
)

// Path returns the name of a round's journal in a directory.
func Path(dir string, round uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%d.journal", round))
}

// Create starts a journal, in memory at first: the file is made by the first
// Sync. A file that is there is put aside then.
func Create(fs durable.FS, path string, h Header) *Journal {
	return &Journal{fs: fs, path: path, header: h}
}

// Header returns what the journal is about.
func (j *Journal) Header() Header { return j.header }

// Checkpoint returns the last synced point, or the last that was appended if that
// is later, for posw.Resume with Reader.
func (j *Journal) Checkpoint() posw.Checkpoint {
	p := j.target()
	cp := posw.Checkpoint{Leaves: p.leaves}
	for low := p.parked; len(low) > 0; low = low[posw.NodeSize:] {
		cp.Parked = append(cp.Parked, types.Hash32(low))
	}
	return cp
}

// Node returns one of the kept nodes. It panics if there is none of that number.
func (j *Journal) Node(n uint64) []byte {
	if n >= j.nodes {
		panic("journal: no such node")
	}
	return j.list.slice(nil, n, n+1)
}

// Nodes returns the number of kept nodes from the first on.
func (j *Journal) Nodes() uint64 { return j.nodes }

// Append adds kept nodes, in memory. If cp is not nil it is the state after them,
// and Sync makes it durable; without it Sync goes to the last multiple of 2^k leaves.
//
// When the nodes reach a piece behind damage and its first comes out the same,
// the piece is taken, and jumped is true: go on from Checkpoint. If it comes out
// different the piece is no use, and dropped says so.
func (j *Journal) Append(nodes []byte, cp *posw.Checkpoint) (jumped bool, dropped error) {
	if len(nodes)%posw.NodeSize != 0 {
		panic("journal: part of a node")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.pieces) > 0 && j.nodes+uint64(len(nodes)/posw.NodeSize) > j.pieces[0].first {
		p := j.pieces[0]
		at := (p.first - j.nodes) * posw.NodeSize
		node := nodes[at : at+posw.NodeSize]
		j.pieces = j.pieces[1:]
		if bytes.Equal(node, j.list.slice(nil, p.first, p.first+1)) {
			j.put(nodes[:at])
			j.nodes, j.marked = p.end, p.to
			return true, dropped
		}
		dropped = fmt.Errorf("%d nodes behind the damage, from node %d on, are not of this journal and are dropped", p.end-p.first, p.first)
	}
	j.put(nodes)
	if cp == nil {
		return false, dropped
	}
	p := point{leaves: cp.Leaves}
	for _, n := range cp.Parked {
		p.parked = append(p.parked, n[:]...)
	}
	if p.leaves>>j.header.K != j.nodes || len(p.parked) != parkedSize(p.leaves, j.header.K) {
		panic("journal: checkpoint does not fit the kept nodes")
	}
	j.marked = p
	return false, dropped
}

func (j *Journal) put(nodes []byte) {
	j.list.put(j.nodes, nodes)
	j.nodes += uint64(len(nodes) / posw.NodeSize)
}

// Doubt says that a node is wrong. It is to be computed again, from Checkpoint, and
// the nodes after it count if the first of them comes out the same, as behind damage
// of the file. The number may be Nodes(): then only what is after the last is wrong.
func (j *Journal) Doubt(node uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.doubted = true
	if node+1 < j.nodes {
		j.pieces = append([]piece{{first: node + 1, end: j.nodes, to: j.targetLocked()}}, j.pieces...)
	}
	j.nodes = min(node, j.nodes)
	j.marked = point{leaves: j.nodes << j.header.K}
	j.saved = min(j.saved, j.marked.leaves)
}

// Gap returns how many nodes must be computed until a piece behind damage can be
// taken, its first among them, and how many more it brings. Both are 0 if there is
// none.
func (j *Journal) Gap() (nodes, brings uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.pieces) == 0 {
		return 0, 0
	}
	p := j.pieces[0]
	return p.first + 1 - j.nodes, p.end - p.first - 1
}

// target returns the latest point that can be made durable.
func (j *Journal) target() point {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.targetLocked()
}

func (j *Journal) targetLocked() point {
	if aligned := j.nodes << j.header.K; aligned > j.marked.leaves {
		return point{leaves: aligned}
	}
	return j.marked
}

// Sync makes everything appended durable, up to a checkpoint. After an error the
// file still holds what was durable before, the round goes on in memory, and the
// next Sync tries again: with the missing part if only room was missing, else
// with a whole new file, for the state of the old one is unknown.
//
// While a piece behind damage waits for the nodes before it, Sync does nothing: the
// damaged file has more than could be written.
func (j *Journal) Sync() error {
	if nodes, _ := j.Gap(); nodes > 0 {
		return nil
	}
	j.mu.Lock()
	to := j.targetLocked()
	if j.doubted { // the file has the wrong node too, or is right and memory is not
		j.Close()
		j.at, j.doubted = foreign, false
	}
	j.mu.Unlock()
	if err := j.syncTo(to); err != nil {
		return fmt.Errorf("journal of round %d: %w", j.header.Round, err)
	}
	return nil
}

func (j *Journal) syncTo(to point) error {
	if j.at == good && to.leaves == j.saved {
		return nil
	}
	if j.at == good && j.file == nil {
		j.reopen()
	}
	if j.at != good {
		return j.rewrite(j.path+".new", to)
	}
	if j.suspect {
		// If we stop here, Open finds the same checkpoint.
		if err := j.file.Truncate(j.size); err != nil {
			return j.abandon(err)
		}
		j.suspect = false
	}
	size, sum, err := j.write(j.file, j.size, j.saved, j.sum, to)
	if durable.IsFull(err) {
		j.suspect = true
		return err
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

// reopen opens the file that Open read for appending. If that cannot be, because it
// may be read only, a new one takes its place.
func (j *Journal) reopen() {
	file, err := j.fs.Edit(j.path)
	if err != nil {
		j.at = known
		return
	}
	j.file = file
}

func (j *Journal) setSaved(leaves uint64, size int64) {
	j.mu.Lock()
	j.saved, j.size = leaves, size
	j.mu.Unlock()
}

// abandon gives the file up, after an error that leaves its content unknown. It
// stays where it is until a new one replaces it.
func (j *Journal) abandon(err error) error {
	j.Close()
	j.at = known
	return err
}

// rewrite writes a new file from memory and puts it in the place of the old.
func (j *Journal) rewrite(temp string, to point) (err error) {
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
	if j.at == foreign {
		if err := j.putAside(); err != nil {
			return err
		}
		// If we stop here, Open reads what was put aside.
	}
	if err := j.fs.Rename(temp, j.path); err != nil {
		return err
	}
	j.at = known
	// If we stop here, Open finds the old journal or the new one, whole.
	if err := j.fs.SyncDir(filepath.Dir(j.path)); err != nil {
		return err
	}
	j.at, j.file, j.sum, j.suspect = good, file, sum, false
	j.setSaved(to.leaves, size)
	return nil
}

// putAside renames what is at the journal's path, if anything.
func (j *Journal) putAside() error {
	name, err := durable.SetAside(j.fs, j.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if name != "" {
		j.mu.Lock()
		j.kept = name
		j.mu.Unlock()
	}
	return err
}

// Kept returns the name of the file that a Sync put aside last, or "". It may be
// called at any time.
func (j *Journal) Kept() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.kept
}

// write writes the chunks that lead from a number of leaves to a point.
func (j *Journal) write(file durable.File, at int64, from uint64, sum checksum, to point) (int64, checksum, error) {
	k := j.header.K
	first, end := from>>k, to.leaves>>k
	var nodes, out []byte
	for first < end || from < to.leaves {
		next := min(end, first+chunkNodes)
		stop := point{leaves: next << k}
		if next == end {
			stop = to
		}
		j.mu.Lock()
		nodes = j.list.slice(nodes[:0], first, next)
		j.mu.Unlock()
		out, sum = appendChunk(out, stop, nodes, sum)
		first, from = next, stop.leaves
		if last := from == to.leaves; !last && len(out) < writeSize {
			continue
		}
		if _, err := file.WriteAt(out, at); err != nil {
			return 0, sum, err
		}
		at += int64(len(out))
		out = out[:0]
	}
	return at, sum, nil
}

// writeSize is about how much is written at a time, in bytes.
const writeSize = 1 << 18

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
	j  *Journal
	at uint64 // bytes
}

func (r *reader) Read(p []byte) (int, error) {
	if r.at == r.j.nodes*posw.NodeSize {
		return 0, io.EOF
	}
	block := r.j.list.blocks[r.at/blockSize][r.at%blockSize:]
	n := copy(p, block[:min(uint64(len(block)), r.j.nodes*posw.NodeSize-r.at)])
	r.at += uint64(n)
	return n, nil
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
