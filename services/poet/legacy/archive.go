package legacy

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"tweedle/base/sealed"
	"tweedle/services/poet"
	"tweedle/values/codec"
)

// bucketArchive holds the proofs taken over, by round in big-endian order.
const bucketArchive = "legacy proofs"

// Archive keeps proofs that were taken over, beside a server's own: in its database.
type Archive struct{ db *sealed.DB }

// OpenArchive returns the archive of a server.
func OpenArchive(db *sealed.DB) Archive { return Archive{db} }

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
	return a.db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(bucketArchive)); err != nil {
			return err
		}
		return sealed.Top(tx, bucketArchive).Put(key, codec.Encode(&archived{p}))
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
	err = a.db.View(func(tx *bbolt.Tx) error {
		raw, err := sealed.Top(tx, bucketArchive).Get(key)
		if err != nil {
			return err
		}
		if raw == nil {
			return fmt.Errorf("proof of round %s: %w", round, poet.ErrNotFound)
		}
		if err := codec.Decode(raw, &out); err != nil {
			return fmt.Errorf("taken over proof of round %s: %w", round, errors.Join(poet.ErrDamaged, err))
		}
		return nil
	})
	return poet.ProofRecord{Message: out.Message, Members: out.Members}, err
}
