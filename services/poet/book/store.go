// Package book keeps what a PoET server must not lose, in one bbolt database:
// registrations, rounds and proofs, each value under a checksum.
//
// It promises: what a write has stored is durable when it returns, all of it or
// nothing; damage of the file is found when it is opened or read, and never
// answered from; after a failed sync nothing is acknowledged any more. It leaves
// to the caller when which round opens, and everything that needs a clock.
package book

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"tweedle/base/durable"
	"tweedle/protocol/registration"
	"tweedle/services/poet"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// DatabaseName is the database's file in the data directory.
const DatabaseName = "poet.db"

// format is the version of the data directory; others are refused. Format 1 was
// never published.
const format = 2

// Buckets of the book. Other packages of the server have their own.
var (
	bucketMeta    = []byte("meta")
	bucketMembers = []byte("members") // number, big endian -> bucket of public key -> Member
	bucketProofs  = []byte("proofs")  // number -> types.PoetProofMessage

	keyFormat   = []byte("format")
	keySchedule = []byte("schedule")
	keyOpen     = []byte("open")
	keyPow      = []byte("pow")
)

// Book is what the server keeps in poet.db. Every value carries a checksum over
// its bucket, key and content, for the database has none. All writes go through
// Update. Its methods may be called concurrently.
type Book struct {
	db    *database
	path  string
	trees trees
	open  context.Context // ends with Close, which calls done
	done  context.CancelFunc

	// failed is closed, with err set before, when a write failed in a way that
	// leaves the state of the file unknown: nothing is acknowledged any more.
	failed    chan struct{}
	err       error
	hasFailed atomic.Bool

	// Point, if not nil, is called before and after each write, by its name. Only
	// tests set it, before the first write.
	Point func(name string, after bool)
}

func roundKey(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// Open opens the database of a data directory, or makes it: under another name first, so that a
// file of that name is always complete.
func Open(dir string, schedule types.PoetSchedule, acceptOlder bool) (*Book, error) {
	path := filepath.Join(dir, DatabaseName)
	switch _, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		if err := createDatabase(path, schedule); err != nil {
			return nil, fmt.Errorf("make %s: %w", path, err)
		}
	case err != nil:
		return nil, err
	}
	if err := checkFile(path, acceptOlder); err != nil {
		return nil, err
	}
	bolt, err := openBolt(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db, err := newDatabase(bolt)
	if err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	s := newBook(db, path)
	if err := s.checkMeta(schedule); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func newBook(db *database, path string) *Book {
	s := &Book{db: db, path: path, failed: make(chan struct{})}
	s.open, s.done = context.WithCancel(context.Background())
	return s
}

func openBolt(path string) (*bbolt.DB, error) {
	return bbolt.Open(path, 0o600, &bbolt.Options{
		// The directory's lock keeps others away; this is for a person with
		// another tool.
		Timeout: time.Second,
		// The list of free pages is stored: else bbolt reads the whole file for
		// it, at a start and after each write that the disk refused. checkFile
		// sees to it that no page in use is on it.
		FreelistType: bbolt.FreelistMapType,
		// Long readers (a membership tree) would hold up a writer that must
		// map a larger file. It is address space, not memory.
		InitialMmapSize: 1 << 30,
	})
}

func createDatabase(path string, schedule types.PoetSchedule) error {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := openBolt(temp)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range topBuckets() {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		return errors.Join(
			put(meta, bucketMeta, keyFormat, []byte{format}),
			put(meta, bucketMeta, keySchedule, encodeSchedule(schedule)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	// If we stop here, the next start makes it again.
	err = durable.OS{}.Move(temp, path)
	if errors.Is(err, os.ErrExist) { // we looked: it leads nowhere
		return fmt.Errorf("%s is a link: make the place that it leads to available, or remove the link", path)
	}
	if err != nil {
		return err
	}
	return durable.OS{}.SyncDir(filepath.Dir(path))
}

func encodeSchedule(s types.PoetSchedule) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(s.Genesis.UnixMilli()))
	for _, d := range []time.Duration{s.EpochDuration, s.PhaseShift, s.CycleGap} {
		b = binary.BigEndian.AppendUint64(b, uint64(d))
	}
	return b
}

// topBuckets are in every database.
func topBuckets() [][]byte { return [][]byte{bucketMeta, bucketMembers, bucketProofs} }

// checkMeta refuses the databases of others.
func (s *Book) checkMeta(schedule types.PoetSchedule) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		// The names at the top are under no checksum.
		for _, name := range topBuckets() {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("%s is damaged, or is not the database of a PoET: restore a copy of it, or choose another data directory", s.path)
			}
		}
		meta := tx.Bucket(bucketMeta)
		version, err := get(meta, bucketMeta, keyFormat)
		if err != nil {
			return err
		}
		if !bytes.Equal(version, []byte{format}) {
			return fmt.Errorf("%s has format %x, and this program reads format %02x only: use the program that wrote it, or a new data directory", s.path, version, format)
		}
		stored, err := get(meta, bucketMeta, keySchedule)
		if err != nil {
			return err
		}
		if !bytes.Equal(stored, encodeSchedule(schedule)) {
			return fmt.Errorf("%s was made for another genesis, epoch duration, phase shift or cycle gap: correct the settings, or choose another data directory", s.path)
		}
		return nil
	})
}

// Close closes the database once nobody reads it any more.
func (s *Book) Close() error {
	s.done()
	return s.db.Close()
}

// DB returns the database, for reading buckets of other packages. They write with
// Update.
func (s *Book) DB() *bbolt.DB { return s.db.DB }

// Failed is closed when a write failed in a way that only a restart can clear;
// Err says why.
func (s *Book) Failed() <-chan struct{} { return s.failed }

// Err returns why the book failed, or nil.
func (s *Book) Err() error {
	if s.hasFailed.Load() {
		return s.err
	}
	return nil
}

// Settle returns when every write that had begun before has ended.
func (s *Book) Settle() {
	s.db.writing.Lock()
	s.db.writing.Unlock()
}

// Update runs a transaction that is durable when it returns nil. name names the
// write point. An error of fn comes back as it is; one of the disk wraps
// ErrDiskFull if there was no room, and otherwise fails the store.
func (s *Book) Update(name string, fn func(tx *bbolt.Tx) error) error {
	if s.hasFailed.Load() {
		return fmt.Errorf("%w: %w", poet.ErrStopped, s.err)
	}
	if s.Point != nil {
		s.Point(name, false)
	}
	s.db.writing.Lock()
	defer s.db.writing.Unlock()
	tx, err := s.db.Begin(true)
	if err != nil {
		return s.diskError(name, err)
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return err
	}
	if err := s.db.commit(tx); err != nil {
		return s.diskError(name, err)
	}
	if s.Point != nil {
		s.Point(name, true)
	}
	return nil
}

// diskError sorts an error of a commit. For lack of room bbolt goes on from the
// last good state; where the system tells of it only when it syncs (XFS, btrfs,
// NFS) the transaction may be there all the same, so whoever is told
// poet.ErrDiskFull may write the same again, and all our writes can be. After any
// other error the system may have dropped what it said it would write, so we stop,
// and the next start reads what is really there.
func (s *Book) diskError(name string, err error) error {
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("%w: %w", poet.ErrStopped, err)
	}
	if isFull(err) {
		return fmt.Errorf("%w: write %s of %s: %w", poet.ErrDiskFull, name, s.path, err)
	}
	err = fmt.Errorf("write %s of %s: %w: check the disk, then start again", name, s.path, err)
	if s.hasFailed.CompareAndSwap(false, true) {
		s.err = err
		close(s.failed)
	}
	return err
}

// State is what the book says about the rounds: all the rest follows from it. A
// round below Open that has members and no proof is closed and must be executed.
type State struct {
	Open    uint32   // the round that takes registrations
	New     bool     // nothing was written yet, also not Open
	Members []uint32 // rounds that have members, ascending
	Proved  []uint32 // rounds whose proof is stored, ascending
}

// State reads it.
func (s *Book) State() (st State, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v, err := get(tx.Bucket(bucketMeta), bucketMeta, keyOpen)
		if err != nil {
			return err
		}
		if st.New = len(v) != 4; !st.New {
			st.Open = binary.BigEndian.Uint32(v)
		}
		if st.Members, err = numbers(tx.Bucket(bucketMembers), 0); err != nil {
			return err
		}
		st.Proved, err = numbers(tx.Bucket(bucketProofs), 0)
		return err
	})
	return st, err
}

// numbers returns the rounds that a bucket has keys of, from first on, ascending.
func numbers(b *bbolt.Bucket, first uint32) (list []uint32, err error) {
	c := b.Cursor()
	for k, _ := c.Seek(roundKey(first)); k != nil; k, _ = c.Next() {
		if len(k) != 4 {
			return nil, fmt.Errorf("%s: key %x of a round: %w: restore the file from a copy", DatabaseName, k, poet.ErrDamaged)
		}
		list = append(list, binary.BigEndian.Uint32(k))
	}
	return list, nil
}

// WriteOpen stores the round that takes registrations.
func (s *Book) WriteOpen(open uint32) error {
	return s.Update("open", func(tx *bbolt.Tx) error {
		return put(tx.Bucket(bucketMeta), bucketMeta, keyOpen, roundKey(open))
	})
}

// Pow are the challenges that a registration's proof of work may be about. How
// much work they ask for is a matter of the configuration.
type Pow struct{ Current, Previous []byte }

func (p Pow) encode() []byte {
	var e codec.Encoder
	e.ByteSlice(p.Current)
	e.ByteSlice(p.Previous)
	return e.Bytes()
}

func decodePow(b []byte) (p Pow, err error) {
	d := codec.NewDecoder(b)
	p.Current = slices.Clone(d.ByteSlice(registration.MaxPowChallenge))
	p.Previous = slices.Clone(d.ByteSlice(registration.MaxPowChallenge))
	return p, d.Done()
}

// Pow returns the stored challenges; they are empty in a new book.
func (s *Book) Pow() (p Pow, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v, err := get(tx.Bucket(bucketMeta), bucketMeta, keyPow)
		if v == nil || err != nil {
			return err
		}
		p, err = decodePow(v)
		return err
	})
	return p, err
}

// WritePow stores the challenges.
func (s *Book) WritePow(p Pow) error {
	return s.Update("pow", func(tx *bbolt.Tx) error {
		return put(tx.Bucket(bucketMeta), bucketMeta, keyPow, p.encode())
	})
}

// WriteProof stores a round's proof, and what must not be missing beside it: the
// round that takes registrations, lest this one takes more of them, and the
// challenges that follow from the proof. It reads the proof back.
func (s *Book) WriteProof(number, open uint32, m *types.PoetProofMessage, p Pow) error {
	data := codec.Encode(m)
	err := s.Update("proof", func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		return errors.Join(
			put(tx.Bucket(bucketProofs), bucketProofs, roundKey(number), data),
			put(meta, bucketMeta, keyOpen, roundKey(open)),
			put(meta, bucketMeta, keyPow, p.encode()))
	})
	if err != nil {
		return err
	}
	back, err := s.Proof(number)
	if err != nil {
		return err
	}
	if !bytes.Equal(codec.Encode(&back), data) {
		return fmt.Errorf("proof of round %d reads back differently: %w", number, poet.ErrDamaged)
	}
	return nil
}

// Proof returns a stored proof, or ErrNotFound.
func (s *Book) Proof(n uint32) (m types.PoetProofMessage, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v, err := get(tx.Bucket(bucketProofs), bucketProofs, roundKey(n))
		if err != nil {
			return err
		}
		if v == nil {
			return fmt.Errorf("proof of round %d: %w", n, poet.ErrNotFound)
		}
		return codec.Decode(v, &m)
	})
	return m, err
}

// Proofs returns the rounds from first on whose proof is stored, ascending.
func (s *Book) Proofs(first uint32) (list []uint32, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		list, err = numbers(tx.Bucket(bucketProofs), first)
		return err
	})
	return list, err
}

// Size returns the length of the file, in bytes.
func (s *Book) Size() uint64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return uint64(info.Size())
}
