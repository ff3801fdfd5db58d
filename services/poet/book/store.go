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
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
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

// format is the version of the data directory. A program refuses others.
const format = 1

// Buckets of the store. Other packages of the server have their own.
var (
	bucketMeta    = []byte("meta")
	bucketRounds  = []byte("rounds")  // number, big endian -> Round
	bucketMembers = []byte("members") // number -> bucket of public key -> member
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
	db   *database
	path string

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
	if err := checkDatabase(path, acceptOlder); err != nil {
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
	s := &Book{db: db, path: path, failed: make(chan struct{})}
	if err := s.checkMeta(schedule); err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

func openBolt(path string) (*bbolt.DB, error) {
	return bbolt.Open(path, 0o600, &bbolt.Options{
		// The directory's lock keeps others away; this is for a person with
		// another tool.
		Timeout: time.Second,
		// The list of free pages is made from the pages in use at each start,
		// so a damaged one cannot destroy data.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
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
		for _, name := range [][]byte{bucketMeta, bucketRounds, bucketMembers, bucketProofs} {
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
	if err := os.Rename(temp, path); err != nil {
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

func (s *Book) checkMeta(schedule types.PoetSchedule) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return fmt.Errorf("%s is not the database of a PoET: choose another data directory", s.path)
		}
		version, err := get(meta, bucketMeta, keyFormat)
		if err != nil {
			return err
		}
		if len(version) != 1 || version[0] != format {
			return fmt.Errorf("%s has format %v and this program reads format %d: use the program that wrote it, or a new data directory", s.path, version, format)
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
func (s *Book) Close() error { return s.db.Close() }

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

// diskError sorts an error of a commit. bbolt goes on from the last good state
// when pages could not be written for lack of room. After any other error the
// system may have dropped what it said it would write, so we stop, and the next
// start reads what is really there.
func (s *Book) diskError(name string, err error) error {
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("%w: %w", poet.ErrStopped, err)
	}
	// bbolt passes some errors on as text only.
	if durable.IsFull(err) || strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return fmt.Errorf("%w: write %s of %s: %w", poet.ErrDiskFull, name, s.path, err)
	}
	err = fmt.Errorf("write %s of %s: %w: check the disk, then start again", name, s.path, err)
	if s.hasFailed.CompareAndSwap(false, true) {
		s.err = err
		close(s.failed)
	}
	return err
}

// Rounds returns all stored rounds, lowest first, the open one, and the rounds that
// have members; found is false in a new database.
func (s *Book) Rounds() (rounds []Round, open uint32, joined []uint32, found bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketMembers).ForEachBucket(func(k []byte) error {
			if len(k) != 4 {
				return fmt.Errorf("%s: members of round %x: %w: restore the file from a copy", DatabaseName, k, poet.ErrDamaged)
			}
			joined = append(joined, binary.BigEndian.Uint32(k))
			return nil
		})
		if err != nil {
			return err
		}
		v, err := get(tx.Bucket(bucketMeta), bucketMeta, keyOpen)
		if err != nil {
			return err
		}
		if found = len(v) == 4; found {
			open = binary.BigEndian.Uint32(v)
		}
		b := tx.Bucket(bucketRounds)
		return b.ForEach(func(k, sealed []byte) error {
			v, err := openValue(bucketRounds, k, sealed)
			if err != nil {
				return err
			}
			r, err := decodeRound(v)
			if err != nil {
				return err
			}
			rounds = append(rounds, r)
			return nil
		})
	})
	return rounds, open, joined, found, err
}

// Round returns what is stored of a round.
func (s *Book) Round(n uint32) (r Round, found bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v, err := get(tx.Bucket(bucketRounds), bucketRounds, roundKey(n))
		if v == nil || err != nil {
			return err
		}
		found = true
		r, err = decodeRound(v)
		return err
	})
	return r, found, err
}

// WriteRound stores a round as it is now, and the round that takes registrations
// from now on.
func (s *Book) WriteRound(r Round, open uint32) error {
	return s.Update("round-"+r.State.String(), func(tx *bbolt.Tx) error {
		return errors.Join(
			putRound(tx, r),
			put(tx.Bucket(bucketMeta), bucketMeta, keyOpen, roundKey(open)))
	})
}

// WriteOpen stores the round that takes registrations.
func (s *Book) WriteOpen(open uint32) error {
	return s.Update("open", func(tx *bbolt.Tx) error {
		return put(tx.Bucket(bucketMeta), bucketMeta, keyOpen, roundKey(open))
	})
}

// Pow are the parameters of the registration's proof of work.
type Pow struct{ Current, Previous registration.PowParams }

func (p Pow) encode() []byte {
	var e codec.Encoder
	for _, q := range []registration.PowParams{p.Current, p.Previous} {
		e.ByteSlice(q.Challenge)
		e.Compact(uint64(q.Difficulty))
	}
	return e.Bytes()
}

func decodePow(b []byte) (p Pow, err error) {
	d := codec.NewDecoder(b)
	for _, q := range []*registration.PowParams{&p.Current, &p.Previous} {
		q.Challenge = slices.Clone(d.ByteSlice(registration.MaxPowChallenge))
		q.Difficulty = uint(d.Compact())
	}
	return p, d.Done()
}

// Pow returns the stored parameters; they are zero in a new database.
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

// WritePow stores the parameters of the proof of work.
func (s *Book) WritePow(p Pow) error {
	return s.Update("pow", func(tx *bbolt.Tx) error {
		return put(tx.Bucket(bucketMeta), bucketMeta, keyPow, p.encode())
	})
}

// WriteProof stores a proof, its round and the parameters that follow from it in
// one transaction, and reads it back.
func (s *Book) WriteProof(r Round, m *types.PoetProofMessage, p Pow) error {
	data := codec.Encode(m)
	err := s.Update("proof", func(tx *bbolt.Tx) error {
		return errors.Join(
			putRound(tx, r),
			put(tx.Bucket(bucketProofs), bucketProofs, roundKey(r.Number), data),
			put(tx.Bucket(bucketMeta), bucketMeta, keyPow, p.encode()))
	})
	if err != nil {
		return err
	}
	back, err := s.Proof(r.Number)
	if err != nil {
		return err
	}
	if !bytes.Equal(codec.Encode(&back), data) {
		return fmt.Errorf("proof of round %s reads back differently: %w", r.ID(), poet.ErrDamaged)
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

// Proofs returns the numbers of the rounds whose proof is stored, from one on,
// lowest first.
func (s *Book) Proofs(from uint32) (numbers []uint32, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketProofs).Cursor()
		for k, _ := c.Seek(roundKey(from)); k != nil; k, _ = c.Next() {
			if len(k) != 4 {
				return fmt.Errorf("%s: key of a proof: %w", DatabaseName, poet.ErrDamaged)
			}
			numbers = append(numbers, binary.BigEndian.Uint32(k))
		}
		return nil
	})
	return numbers, err
}

// Size returns the length of the file, in bytes.
func (s *Book) Size() uint64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return uint64(info.Size())
}
