// Package journal keeps the nodes of one PoET round: in memory for the proof,
// and in a file for the case that the process stops.
//
// It promises: Open returns what was synced and is whole, and never anything else;
// damage costs the nodes that it hit, which are computed again; one failed call of the
// disk is not taken for damage; a file that is damaged before its end, or about
// something else, is kept aside and never replaced; a file that cannot be written is
// left behind without harm, and once the disk takes data again the missing part is
// written from memory.
//
// It leaves to the caller: when to sync, and computing the nodes.
//
// The file is one record for each node, in order, and nothing else. A record's
// checksum is over the node, its number, and what the journal is about, so each stands
// for itself: which are whole is known without the others, what was never whole is
// not read, and a record written again is the same record. Nodes between two kept
// ones are not stored: a stop costs up to 2^k leaves, k being the height of the nodes.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"tweedle/base/durable"
	"tweedle/proofs/posw"
)

// Journal holds the kept nodes of a round. One goroutine appends, one other syncs;
// Node, Reader and Doubt are for when neither does.
type Journal struct {
	fs    durable.FS
	path  string
	about About
	key   key

	mu    sync.Mutex // guards all up to kept
	nodes []byte     // all that are known, and zeros in the holes
	holes []hole     // in order
	saved uint64     // nodes that survive a stop
	kept  string     // the file that was put aside last

	// Owned by the goroutine that syncs.
	at   place
	file durable.File // open for writing; else nil
}

// hole is a run of nodes that are to be computed again.
type hole struct{ first, end uint64 }

// place is what the file is to the journal.
type place int

const (
	// foreign: whatever is there has what is not in memory. It is put aside.
	foreign place = iota
	// known: nothing is there that is not in memory, but it may be torn. It is
	// replaced by a whole file.
	known
	// good: its saved records are as they were synced, and more may follow.
	good
)

// newSuffix is for a file that is to take the place of a journal.
const newSuffix = ".new"

// Path returns the name of a round's journal in a directory.
func Path(dir string, round uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%d.journal", round))
}

// Create starts a journal, in memory at first: the file is made by the first
// Sync. A file that is there is put aside then.
func Create(fs durable.FS, path string, about About) *Journal {
	return &Journal{fs: fs, path: path, about: about, key: about.key()}
}

// K returns the height of the nodes.
func (j *Journal) K() uint { return j.about.K }

// Count returns the number of nodes that are known from the first on. The prover goes
// on there.
func (j *Journal) Count() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.countLocked()
}

func (j *Journal) countLocked() uint64 {
	if len(j.holes) > 0 {
		return j.holes[0].first
	}
	return uint64(len(j.nodes) / posw.NodeSize)
}

// Missing returns how many nodes must be computed until what is behind damage counts,
// or 0.
func (j *Journal) Missing() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.holes) == 0 {
		return 0
	}
	return j.holes[0].end - j.holes[0].first
}

// Node returns one of the first Count nodes.
func (j *Journal) Node(n uint64) []byte { return j.nodes[n*posw.NodeSize:][:posw.NodeSize] }

// Reader returns a reader of the first Count nodes.
func (j *Journal) Reader() io.Reader {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.NewReader(j.nodes[:j.countLocked()*posw.NodeSize])
}

// Append adds the nodes that follow the first Count, in memory. When they fill a hole
// the nodes behind it count too, and jumped is true: go on from Count. What is left of
// the appended ones is behind the hole already.
func (j *Journal) Append(nodes []byte) (jumped bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.holes) == 0 {
		j.nodes = append(j.nodes, nodes...)
		return false
	}
	h := &j.holes[0]
	n := copy(j.nodes[h.first*posw.NodeSize:h.end*posw.NodeSize], nodes)
	h.first += uint64(n / posw.NodeSize)
	if h.first < h.end {
		return false
	}
	j.holes = j.holes[1:]
	return true
}

// Doubt says that nodes from first up to end are wrong: they are to be computed again,
// from first on. What is behind them counts afterwards.
func (j *Journal) Doubt(first, end uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if end < j.countLocked() {
		j.holes = slices.Insert(j.holes, 0, hole{first, end})
	} else {
		j.nodes, j.holes = j.nodes[:first*posw.NodeSize], nil
	}
	j.saved = min(j.saved, first)
	j.Close()
	j.at = foreign // the file has the wrong nodes too, or is right and memory is not
}

// Sync makes the first Count nodes durable. After an error the file still holds what
// was durable before, the round goes on in memory, and the next Sync tries again: with
// the missing part if only room was missing, else with a whole new file, for the state
// of the old one is unknown.
//
// While nodes are missing before others Sync does nothing: the damaged file has more
// than could be written.
func (j *Journal) Sync() error {
	if j.Missing() > 0 {
		return nil
	}
	if err := j.syncTo(j.Count()); err != nil {
		return fmt.Errorf("journal of round %d: %w", j.about.Round, err)
	}
	return nil
}

func (j *Journal) syncTo(end uint64) error {
	if j.at == good && end == j.saved {
		return nil
	}
	if j.at == good && j.file == nil {
		// If it cannot be, because it may be read only, a new file takes its place.
		file, err := j.fs.Edit(j.path)
		if err != nil {
			j.at = known
		}
		j.file = file
	}
	if j.at != good {
		return j.rewrite(end)
	}
	err := j.write(j.file, j.saved, end)
	if durable.IsFull(err) {
		return err // what was written is written again
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.Close()
		j.at = known
		return err
	}
	// If we stop before, Open finds what was saved, and maybe more; from here on all.
	j.setSaved(end)
	return nil
}

func (j *Journal) setSaved(nodes uint64) {
	j.mu.Lock()
	j.saved = nodes
	j.mu.Unlock()
}

// rewrite writes a new file from memory and puts it in the place of the old.
func (j *Journal) rewrite(end uint64) (err error) {
	temp, dir := j.path+newSuffix, filepath.Dir(j.path)
	file, err := j.fs.Create(temp, 0o600)
	if err != nil {
		return err
	}
	only := false // the new file has what no other has under a name that Open knows
	defer func() {
		if err != nil {
			file.Close()
		}
		if err != nil && !only {
			j.fs.Remove(temp) // if not, the next rewrite replaces it
		}
	}()
	if err := j.write(file, 0, end); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if j.at == foreign {
		if err := j.fs.SyncDir(dir); err != nil {
			return err
		}
		only = true
		if err := j.putAside(); err != nil {
			return err
		}
		// If we stop here, Open takes the new file, which is durable under its
		// own name.
	}
	if err := j.fs.Rename(temp, j.path); err != nil {
		return err
	}
	j.at = known
	// If we stop here, Open finds the old journal or the new one, whole.
	if err := j.fs.SyncDir(dir); err != nil {
		return err
	}
	j.at, j.file = good, file
	j.setSaved(end)
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

// writeNodes is how many nodes are written at a time.
const writeNodes = 1 << 12

// write writes the records of the nodes from first up to end at their places.
func (j *Journal) write(file durable.File, first, end uint64) error {
	var out []byte
	for first < end {
		next := min(end, first+writeNodes)
		out = out[:0]
		j.mu.Lock()
		for n := first; n < next; n++ {
			out = j.key.appendRecord(out, byte(j.about.K), n, j.Node(n))
		}
		j.mu.Unlock()
		if _, err := file.WriteAt(out, int64(first*RecordSize)); err != nil {
			return err
		}
		first = next
	}
	return nil
}

// Reserve sets room aside for so many nodes, in memory, so that they are not copied
// as they grow, and on the disk. It needs a file: call it after a Sync.
func (j *Journal) Reserve(nodes uint64) error {
	j.mu.Lock()
	if size := int(nodes * posw.NodeSize); size > cap(j.nodes) {
		j.nodes = append(make([]byte, 0, size), j.nodes...)
	}
	j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	return j.file.Reserve(int64(nodes * RecordSize))
}

// Saved returns the leaves that survive a stop, and the length of the file in
// bytes. It may be called at any time.
func (j *Journal) Saved() (leaves uint64, size int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.saved << j.about.K, int64(j.saved * RecordSize)
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
	for _, name := range []string{path, path + newSuffix} {
		if err := fs.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// If we stop here, a start finds a journal of a round that has a proof,
	// and removes it.
	return fs.SyncDir(filepath.Dir(path))
}
