package poet

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

	"github.com/zeebo/blake3"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"tweedle/base/durable"
	"tweedle/services/poet/registration"
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

// store is what the server keeps in poet.db. Every value carries a checksum over
// its bucket, key and content, for the database has none. All writes go through
// update.
type store struct {
	db   *bbolt.DB
	path string

	// failed is closed, with err set before, when a write failed in a way that
	// leaves the state of the file unknown: nothing is acknowledged any more.
	failed    chan struct{}
	err       error
	hasFailed atomic.Bool

	// point is called before and after each write, by its name; for tests.
	point func(name string, after bool)
}

const valueSumSize = 8

// SealValue returns value with a checksum over bucket, key and value.
func SealValue(bucket string, key, value []byte) []byte {
	sum := valueSum([]byte(bucket), key, value)
	return append(append(make([]byte, 0, len(value)+len(sum)), value...), sum[:]...)
}

// OpenValue returns the value of SealValue, sharing its memory, or ErrDamaged.
func OpenValue(bucket string, key, sealed []byte) ([]byte, error) {
	return openValue([]byte(bucket), key, sealed)
}

func openValue(bucket, key, sealed []byte) ([]byte, error) {
	if n := len(sealed) - valueSumSize; n >= 0 {
		if sum := valueSum(bucket, key, sealed[:n]); bytes.Equal(sum[:], sealed[n:]) {
			return sealed[:n:n], nil
		}
	}
	return nil, fmt.Errorf("%s: value of %x in bucket %x: %w: restore the file from a copy", DatabaseName, key, bucket, ErrDamaged)
}

func valueSum(bucket, key, value []byte) (sum [valueSumSize]byte) {
	buf := make([]byte, 0, 160)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(bucket)))
	buf = append(buf, bucket...)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(key)))
	buf = append(buf, key...)
	buf = append(buf, value...)
	full := blake3.Sum256(buf)
	copy(sum[:], full[:])
	return sum
}

// put stores a value. The bucket's sequence is the number of its keys, so that the
// check at a start misses none.
func put(b *bbolt.Bucket, name, key, value []byte) error {
	if b.Get(key) == nil {
		if err := b.SetSequence(b.Sequence() + 1); err != nil {
			return err
		}
	}
	return b.Put(key, SealValue(string(name), key, value))
}

// get returns the value of a key, or nil if there is none.
func get(b *bbolt.Bucket, name, key []byte) ([]byte, error) {
	sealed := b.Get(key)
	if sealed == nil {
		return nil, nil
	}
	return openValue(name, key, sealed)
}

func roundKey(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// openStore opens the database, or makes it: under another name first, so that a
// file of that name is always complete.
func openStore(dir string, schedule types.PoetSchedule, acceptOlder bool) (*store, error) {
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
	db, err := openBolt(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &store{db: db, path: path, failed: make(chan struct{})}
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

func (s *store) checkMeta(schedule types.PoetSchedule) error {
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

func (s *store) close() error { return s.db.Close() }

// update runs a transaction that is durable when it returns nil. name names the
// write point. An error of fn comes back as it is; one of the disk wraps
// ErrDiskFull if there was no room, and otherwise fails the store.
func (s *store) update(name string, fn func(tx *bbolt.Tx) error) error {
	if s.hasFailed.Load() {
		return fmt.Errorf("%w: %w", ErrStopped, s.err)
	}
	if s.point != nil {
		s.point(name, false)
	}
	tx, err := s.db.Begin(true)
	if err != nil {
		return s.diskError(name, err)
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return s.diskError(name, err)
	}
	if s.point != nil {
		s.point(name, true)
	}
	return nil
}

// diskError sorts an error of a commit. bbolt goes on from the last good state
// when pages could not be written for lack of room. After any other error the
// system may have dropped what it said it would write, so we stop, and the next
// start reads what is really there.
func (s *store) diskError(name string, err error) error {
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("%w: %w", ErrStopped, err)
	}
	// bbolt passes some errors on as text only.
	if durable.IsFull(err) || strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return fmt.Errorf("%w: write %s of %s: %w", ErrDiskFull, name, s.path, err)
	}
	err = fmt.Errorf("write %s of %s: %w: check the disk, then start again", name, s.path, err)
	if s.hasFailed.CompareAndSwap(false, true) {
		s.err = err
		close(s.failed)
	}
	return err
}

// rounds returns all stored rounds, lowest first, the open one, and the rounds that
// have members; found is false in a new database.
func (s *store) rounds() (rounds []Round, open uint32, joined []uint32, found bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketMembers).ForEachBucket(func(k []byte) error {
			if len(k) != 4 {
				return fmt.Errorf("%s: members of round %x: %w: restore the file from a copy", DatabaseName, k, ErrDamaged)
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

func (s *store) round(n uint32) (r Round, found bool, err error) {
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

func (r Round) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, r.Number)
	b = append(b, byte(r.State))
	b = append(b, r.Statement[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Members)
	return binary.BigEndian.AppendUint64(b, r.Leaves)
}

func decodeRound(b []byte) (Round, error) {
	if len(b) != 4+1+32+8+8 || b[4] > byte(StateProved) {
		return Round{}, fmt.Errorf("%s: round: %w: restore the file from a copy", DatabaseName, ErrDamaged)
	}
	return Round{
		Number:    binary.BigEndian.Uint32(b),
		State:     RoundState(b[4]),
		Statement: [32]byte(b[5:]),
		Members:   binary.BigEndian.Uint64(b[37:]),
		Leaves:    binary.BigEndian.Uint64(b[45:]),
	}, nil
}

func putRound(tx *bbolt.Tx, r Round) error {
	return put(tx.Bucket(bucketRounds), bucketRounds, roundKey(r.Number), r.encode())
}

// writeRound does WriteRound.
func (s *store) writeRound(w WriteRound) error {
	return s.update("round-"+w.Round.State.String(), func(tx *bbolt.Tx) error {
		return errors.Join(
			putRound(tx, w.Round),
			put(tx.Bucket(bucketMeta), bucketMeta, keyOpen, roundKey(w.Open)))
	})
}

func (s *store) writeOpen(open uint32) error {
	return s.update("open", func(tx *bbolt.Tx) error {
		return put(tx.Bucket(bucketMeta), bucketMeta, keyOpen, roundKey(open))
	})
}

// powParams are the parameters of the registration's proof of work.
type powParams struct{ current, previous registration.PowParams }

func (p powParams) encode() []byte {
	var e codec.Encoder
	for _, q := range []registration.PowParams{p.current, p.previous} {
		e.ByteSlice(q.Challenge)
		e.Compact(uint64(q.Difficulty))
	}
	return e.Bytes()
}

func decodePow(b []byte) (p powParams, err error) {
	d := codec.NewDecoder(b)
	for _, q := range []*registration.PowParams{&p.current, &p.previous} {
		q.Challenge = slices.Clone(d.ByteSlice(registration.MaxPowChallenge))
		q.Difficulty = uint(d.Compact())
	}
	return p, d.Done()
}

// pow returns the stored parameters; they are zero in a new database.
func (s *store) pow() (p powParams, err error) {
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

func (s *store) writePow(p powParams) error {
	return s.update("pow", func(tx *bbolt.Tx) error {
		return put(tx.Bucket(bucketMeta), bucketMeta, keyPow, p.encode())
	})
}

// writeProof stores a proof, its round and the parameters that follow from it in
// one transaction, and reads it back.
func (s *store) writeProof(r Round, m *types.PoetProofMessage, p powParams) error {
	data := codec.Encode(m)
	err := s.update("proof", func(tx *bbolt.Tx) error {
		return errors.Join(
			putRound(tx, r),
			put(tx.Bucket(bucketProofs), bucketProofs, roundKey(r.Number), data),
			put(tx.Bucket(bucketMeta), bucketMeta, keyPow, p.encode()))
	})
	if err != nil {
		return err
	}
	back, err := s.proof(r.Number)
	if err != nil {
		return err
	}
	if !bytes.Equal(codec.Encode(&back), data) {
		return fmt.Errorf("proof of round %s reads back differently: %w", r.ID(), ErrDamaged)
	}
	return nil
}

// proof returns a stored proof, or ErrNotFound.
func (s *store) proof(n uint32) (m types.PoetProofMessage, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v, err := get(tx.Bucket(bucketProofs), bucketProofs, roundKey(n))
		if err != nil {
			return err
		}
		if v == nil {
			return fmt.Errorf("proof of round %d: %w", n, ErrNotFound)
		}
		return codec.Decode(v, &m)
	})
	return m, err
}

// proofs returns the numbers of the rounds whose proof is stored, lowest first.
func (s *store) proofs() (numbers []uint32, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketProofs).ForEach(func(k, _ []byte) error {
			if len(k) != 4 {
				return fmt.Errorf("%s: key of a proof: %w", DatabaseName, ErrDamaged)
			}
			numbers = append(numbers, binary.BigEndian.Uint32(k))
			return nil
		})
	})
	return numbers, err
}

func (s *store) size() uint64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return uint64(info.Size())
}
