package legacy

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"tweedle/base/sealed"
	"tweedle/services/poet"
)

// bucketArchive holds the proofs taken over, by round in big-endian order.
const bucketArchive = "legacy proofs"

// Archive keeps proofs that were taken over, beside a server's own, in its database
// and in the reference's form.
type Archive struct{ db *sealed.DB }

// OpenArchive returns the archive of a server.
func OpenArchive(db *sealed.DB) Archive { return Archive{db} }

// Put keeps a proof durably. Putting it again changes nothing. If we stop
// before it returns, the archive is as before, and an import may be repeated.
func (a Archive) Put(p Proof) error {
	return a.db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(bucketArchive)); err != nil {
			return err
		}
		return sealed.Top(tx, bucketArchive).Put(binary.BigEndian.AppendUint32(nil, p.Round), p.XDR)
	})
}

// Proof returns a proof, or poet.ErrNotFound.
func (a Archive) Proof(round string) (p poet.ProofRecord, err error) {
	number, err := poet.ParseRoundID(round)
	if err != nil {
		return p, err
	}
	err = a.db.View(func(tx *bbolt.Tx) error {
		raw, err := sealed.Top(tx, bucketArchive).Get(binary.BigEndian.AppendUint32(nil, number))
		switch {
		case err != nil:
			return err
		case raw == nil:
			return fmt.Errorf("proof of round %s: %w", round, poet.ErrNotFound)
		}
		if p, err = parse(round, raw); err != nil {
			return fmt.Errorf("taken over proof of round %s: %w", round, errors.Join(poet.ErrDamaged, err))
		}
		return nil
	})
	return p, err
}
