// Package book keeps what a PoET server must not lose, in one database:
// registrations, which round takes them, and proofs. All the rest follows.
//
// It promises what package sealed does: what a write has stored is durable when it
// returns, all of it or nothing; damage is found when the file is opened or read, and
// never answered from. It leaves to the caller when which round opens, and everything
// that needs a clock.
package book

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/base/kept"
	"tweedle/base/sealed"
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
const (
	meta    = "meta"
	members = "members" // number, big endian -> bucket of public key -> Member
	proofs  = "proofs"  // number -> types.PoetProofMessage
)

// Keys of the bucket meta.
var (
	keyFormat   = []byte("format")
	keySchedule = []byte("schedule")
	keyOpen     = []byte("open")
	keyPow      = []byte("pow")
	keyOwner    = []byte("owner") // public key of the server
)

// Book is what the server keeps in poet.db. Its methods may be called concurrently.
type Book struct {
	*sealed.DB
	trees *kept.Values[uint32, *tree]
}

func roundKey(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// Open opens the database of a data directory, or makes it. With acceptOlder it does
// so although one of the two heads of the file is damaged: the last transaction may
// be missing then.
func Open(dir string, schedule types.PoetSchedule, acceptOlder bool) (*Book, error) {
	db, err := sealed.Open(filepath.Join(dir, DatabaseName), sealed.Options{
		Buckets: []string{meta, members, proofs}, AcceptOlder: acceptOlder,
		New: func(tx *bbolt.Tx) error {
			b := sealed.Top(tx, meta)
			return errors.Join(b.Put(keyFormat, []byte{format}), b.Put(keySchedule, encodeSchedule(schedule)))
		},
	})
	if errors.Is(err, sealed.ErrHead) {
		err = fmt.Errorf("%w; or, if the power failed while it was written, start once with --accept-older-state", err)
	}
	if err != nil {
		return nil, err
	}
	b := &Book{DB: db, trees: kept.New[uint32](keptTrees, (*tree).size)}
	if err := b.View(func(tx *bbolt.Tx) error { return checkMeta(tx, schedule) }); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Own binds the database to the key of its server, and refuses that of another: its receipts are of
// that key. anew makes it the new one's.
func (b *Book) Own(public []byte, anew bool) error {
	var owner []byte
	err := b.View(func(tx *bbolt.Tx) (err error) {
		owner, err = sealed.Top(tx, meta).Get(keyOwner)
		owner = bytes.Clone(owner)
		return err
	})
	switch {
	case err != nil || bytes.Equal(owner, public):
		return err
	case len(owner) > 0 && !anew:
		return fmt.Errorf("%s is of the server %x, and the key is of %x: restore the one or the other, or start once with --new-identity to go on as another server, whose receipts say nothing of the old ones",
			DatabaseName, owner[:5], public[:5])
	}
	return b.Update(func(tx *bbolt.Tx) error { return sealed.Top(tx, meta).Put(keyOwner, public) })
}

func encodeSchedule(s types.PoetSchedule) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(s.Genesis.UnixMilli()))
	for _, d := range []time.Duration{s.EpochDuration, s.PhaseShift, s.CycleGap} {
		b = binary.BigEndian.AppendUint64(b, uint64(d))
	}
	return b
}

// checkMeta refuses the databases of other programs and networks.
func checkMeta(tx *bbolt.Tx, schedule types.PoetSchedule) error {
	path := tx.DB().Path()
	version, err := sealed.Top(tx, meta).Get(keyFormat)
	if err != nil {
		return err
	}
	if !bytes.Equal(version, []byte{format}) {
		return fmt.Errorf("%s has format %x, and this program reads format %02x only: use the program that wrote it, or a new data directory", path, version, format)
	}
	stored, err := sealed.Top(tx, meta).Get(keySchedule)
	if err != nil {
		return err
	}
	if !bytes.Equal(stored, encodeSchedule(schedule)) {
		return fmt.Errorf("%s was made for another genesis, epoch duration, phase shift or cycle gap: correct the settings, or choose another data directory", path)
	}
	return nil
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
func (b *Book) State() (st State, err error) {
	err = b.View(func(tx *bbolt.Tx) error {
		v, err := sealed.Top(tx, meta).Get(keyOpen)
		if err != nil {
			return err
		}
		if st.New = len(v) != 4; !st.New {
			st.Open = binary.BigEndian.Uint32(v)
		}
		if st.Members, err = numbers(sealed.Top(tx, members), 0); err != nil {
			return err
		}
		st.Proved, err = numbers(sealed.Top(tx, proofs), 0)
		return err
	})
	return st, err
}

// numbers returns the rounds that a bucket has keys of, from first on, ascending.
func numbers(b sealed.Bucket, first uint32) (list []uint32, err error) {
	for key := range b.Keys(roundKey(first)) {
		if len(key) != 4 {
			return nil, fmt.Errorf("%s: key %x of a round: %w: restore the file from a copy", DatabaseName, key, poet.ErrDamaged)
		}
		list = append(list, binary.BigEndian.Uint32(key))
	}
	return list, nil
}

// WriteOpen stores the round that takes registrations.
func (b *Book) WriteOpen(open uint32) error {
	return b.Update(func(tx *bbolt.Tx) error { return sealed.Top(tx, meta).Put(keyOpen, roundKey(open)) })
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
func (b *Book) Pow() (p Pow, err error) {
	err = b.View(func(tx *bbolt.Tx) error {
		v, err := sealed.Top(tx, meta).Get(keyPow)
		if v == nil || err != nil {
			return err
		}
		p, err = decodePow(v)
		return err
	})
	return p, err
}

// WritePow stores the challenges.
func (b *Book) WritePow(p Pow) error {
	return b.Update(func(tx *bbolt.Tx) error { return sealed.Top(tx, meta).Put(keyPow, p.encode()) })
}

// WriteProof stores a round's proof, and what must not be missing beside it: the
// round that takes registrations, lest this one takes more of them, and the
// challenges that follow from the proof. It reads the proof back.
func (b *Book) WriteProof(number, open uint32, m *types.PoetProofMessage, p Pow) error {
	data := codec.Encode(m)
	err := b.Update(func(tx *bbolt.Tx) error {
		about := sealed.Top(tx, meta)
		return errors.Join(
			sealed.Top(tx, proofs).Put(roundKey(number), data),
			about.Put(keyOpen, roundKey(open)),
			about.Put(keyPow, p.encode()))
	})
	if err != nil {
		return err
	}
	back, err := b.Proof(number)
	if err != nil {
		return err
	}
	if !bytes.Equal(codec.Encode(&back), data) {
		return fmt.Errorf("proof of round %d reads back differently: %w", number, poet.ErrDamaged)
	}
	return nil
}

// Proof returns a stored proof, or ErrNotFound.
func (b *Book) Proof(n uint32) (m types.PoetProofMessage, err error) {
	err = b.View(func(tx *bbolt.Tx) error {
		v, err := sealed.Top(tx, proofs).Get(roundKey(n))
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
func (b *Book) Proofs(first uint32) (list []uint32, err error) {
	err = b.View(func(tx *bbolt.Tx) error {
		list, err = numbers(sealed.Top(tx, proofs), first)
		return err
	})
	return list, err
}
