package store

import (
	"zombiezen.com/go/sqlite"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// AddBallot stores a valid ballot. Storing it again changes nothing.
func (db *DB) AddBallot(b *types.Ballot) error {
	id, body := b.ID(), codec.Encode(b)
	var reference int64
	if b.EpochData != nil {
		reference = 1
	}
	return db.write(func(c *sqlite.Conn) error {
		if err := addObject(c, KindBallot, id[:], body); err != nil {
			return err
		}
		return put(c, ignore, "ballots", id[:], int64(b.Layer), b.Smesher[:], b.ATX[:], reference)
	})
}

// Ballot returns a ballot by id.
func (db *DB) Ballot(id types.BallotID) (*types.Ballot, error) {
	var b types.Ballot
	err := db.read(func(c *sqlite.Conn) error { return readObject(c, KindBallot, id[:], &b) })
	if err != nil {
		return nil, err
	}
	return &b, nil
}

// LayerBallots returns the ids of a layer's ballots, ascending.
func (db *DB) LayerBallots(l types.Layer) (ids []types.BallotID, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return each(c, "ballots", "WHERE layer = ? ORDER BY id", func(r *row) {
			var id types.BallotID
			r.raw(id[:])
			ids = append(ids, id)
		}, int64(l))
	})
	return ids, err
}

// ReferenceBallot returns the first ballot with epoch data of a smesher in
// the layers from first to last, which are those of an epoch.
func (db *DB) ReferenceBallot(smesher types.NodeID, first, last types.Layer) (*types.Ballot, error) {
	var b types.Ballot
	err := db.read(func(c *sqlite.Conn) error {
		var id types.BallotID
		err := one(c, "ballots", "WHERE smesher = ? AND reference = 1 AND layer BETWEEN ? AND ? ORDER BY layer, id",
			func(r *row) { r.raw(id[:]) }, smesher[:], int64(first), int64(last))
		if err != nil {
			return err
		}
		return readObject(c, KindBallot, id[:], &b)
	})
	if err != nil {
		return nil, err
	}
	return &b, nil
}
