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
	if m.Proof.NumLeaves > math.MaxInt64 {
		return fmt.Errorf("PoET proof of %d leaves is out of range", m.Proof.NumLeaves)
	}
	ref, body := m.Proof.Ref(), codec.Encode(m)
	return db.writeDurable(func(c *sqlite.Conn) error {
		if err := addObject(c, KindPoetProof, ref[:], body); err != nil {
			return err
		}
		return put(c, ignore, "poet_proofs", ref[:], m.PoetID[:], m.RoundID, int64(m.Proof.NumLeaves))
	})
}

// PoetProof returns a proof by its reference.
func (db *DB) PoetProof(ref types.PoetProofRef) (*types.PoetProofMessage, error) {
	var m types.PoetProofMessage
	err := db.read(func(c *sqlite.Conn) error { return readObject(c, KindPoetProof, ref[:], &m) })
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// PoetProofOf returns the proof of a PoET's round. The PoET's name in a proof
// is not authenticated, so several may claim it: the one with the most work
// is returned.
func (db *DB) PoetProofOf(poet types.NodeID, round string) (*types.PoetProofMessage, error) {
	var m types.PoetProofMessage
	err := db.read(func(c *sqlite.Conn) error {
		var ref types.PoetProofRef
		err := one(c, "poet_proofs", "WHERE poet = ? AND round = ? ORDER BY leaves DESC, ref", func(r *row) {
			r.raw(ref[:])
		}, poet[:], round)
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
