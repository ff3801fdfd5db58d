package legacy

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/values/codec"
)

// bucketArchive holds the proofs taken over, by round in big-endian order.
const bucketArchive = "legacy proofs"

// Store is where an Archive lives: a *rounds.Service.
type Store interface {
	Update(fn func(tx *bbolt.Tx) error) error
	DB() *bbolt.DB
}

// Archive keeps proofs that were taken over, beside a server's own.
type Archive struct{ store Store }

// OpenArchive returns the archive of a server.
func OpenArchive(s Store) Archive { return Archive{s} }

// archived is the stored form of a Proof.
type archived struct{ Proof }

// EncodeTo implements codec.Encodable.
func (a *archived) EncodeTo(e *codec.Encoder) {
	a.Message.EncodeTo(e)
	e.Compact(uint64(len(a.Members)))
	for i := range a.Members {
		e.Raw(a.Members[i][:])
	}
}

// DecodeFrom implements codec.Decodable.
func (a *archived) DecodeFrom(d *codec.Decoder) {
	a.Message.DecodeFrom(d)
	n := d.Count(maxMembers)
	if d.Remaining() < n*32 {
		d.Fail(codec.ErrShort)
		return
	}
	a.Members = make([][32]byte, n)
	for i := range a.Members {
		d.Raw(a.Members[i][:])
	}
}

// Put keeps a proof durably. Putting it again changes nothing. If we stop
// before it returns, the archive is as before, and an import may be repeated.
func (a Archive) Put(p Proof) error {
	key := binary.BigEndian.AppendUint32(nil, p.Round)
	return a.store.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucketArchive))
		if err != nil {
			return err
		}
		return b.Put(key, book.SealValue(bucketArchive, key, codec.Encode(&archived{p})))
	})
}

// Proof returns a proof, or poet.ErrNotFound.
func (a Archive) Proof(round string) (poet.ProofRecord, error) {
	number, err := poet.ParseRoundID(round)
	if err != nil {
		return poet.ProofRecord{}, err
	}
	key := binary.BigEndian.AppendUint32(nil, number)
	var out archived
	err = a.store.DB().View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketArchive))
		if b == nil || b.Get(key) == nil {
			return fmt.Errorf("proof of round %s: %w", round, poet.ErrNotFound)
		}
		raw, err := book.OpenValue(bucketArchive, key, b.Get(key))
		if err != nil {
			return err
		}
		if err := codec.Decode(raw, &out); err != nil {
			return fmt.Errorf("taken over proof of round %s: %w", round, errors.Join(poet.ErrDamaged, err))
		}
		return nil
	})
	return poet.ProofRecord{Message: out.Message, Members: out.Members}, err
}
