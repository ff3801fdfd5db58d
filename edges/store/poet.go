package store

import (
	"fmt"
	"math"

	"zombiezen.com/go/sqlite"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// AddPoetProof stores a valid proof. It survives power loss when AddPoetProof
// returns, because a gateway then acknowledges it to the PoET. Storing it
// again changes nothing.
func (db *DB) AddPoetProof(m *types.PoetProofMessage) error {
	return db.writeDurable(func(c *sqlite.Conn) error { return addPoetProof(c, m) })
}

func addPoetProof(c *sqlite.Conn, m *types.PoetProofMessage) error {
	if m.Proof.NumLeaves > math.MaxInt64 {
		return fmt.Errorf("PoET proof of %d leaves is out of range", m.Proof.NumLeaves)
	}
	ref := m.Proof.Ref()
	if err := addObject(c, KindPoetProof, ref[:], codec.Encode(m)); err != nil {
		return err
	}
	return put(c, ignore, "poet_proofs", ref[:], m.Statement[:], int64(m.Proof.NumLeaves))
}

// PoetProof returns a proof by its reference.
func (rd *Reader) PoetProof(ref types.PoetProofRef) (*types.PoetProofMessage, error) {
	var m types.PoetProofMessage
	err := rd.read(func(c *sqlite.Conn) error { return readObject(c, KindPoetProof, ref[:], &m) })
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// PoetProofOf returns the proof of most work for a statement, whatever names it
// bears: those are not authenticated. Anybody can make one of little work for a
// statement that is known.
func (rd *Reader) PoetProofOf(statement types.Hash32) (*types.PoetProofMessage, error) {
	var m types.PoetProofMessage
	err := rd.read(func(c *sqlite.Conn) error {
		var ref types.PoetProofRef
		err := one(c, "poet_proofs", "WHERE statement = ? ORDER BY leaves DESC, ref", func(r *row) {
			r.raw(ref[:])
		}, statement[:])
		if err != nil {
			return err
		}
		return readObject(c, KindPoetProof, ref[:], &m)
	})
	if err != nil {
		return nil, err
	}
	return &m, nil
}
