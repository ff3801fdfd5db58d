package store

import (
	"errors"

	"zombiezen.com/go/sqlite"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// AddBallot stores a valid ballot. Storing it again changes nothing.
func (db *DB) AddBallot(b *types.Ballot) error {
	return db.write(func(c *sqlite.Conn) error { return addBallot(c, b) })
}

func addBallot(c *sqlite.Conn, b *types.Ballot) error {
	id := b.ID()
	var reference int64
	if b.EpochData != nil {
		reference = 1
	}
	if err := addObject(c, KindBallot, id[:], codec.Encode(b)); err != nil {
		return err
	}
	return put(c, ignore, "ballots", id[:], int64(b.Layer), b.Smesher[:], b.ATX[:], reference)
}

// Ballot returns a ballot by id.
func (rd *Reader) Ballot(id types.BallotID) (*types.Ballot, error) {
	var b types.Ballot
	err := rd.read(func(c *sqlite.Conn) error { return readObject(c, KindBallot, id[:], &b) })
	if err != nil {
		return nil, err
	}
	return &b, nil
}

// LayerBallots returns the ids of a layer's ballots, ascending.
func (rd *Reader) LayerBallots(l types.Layer) (ids []types.BallotID, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
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
func (rd *Reader) ReferenceBallot(smesher types.NodeID, first, last types.Layer) (*types.Ballot, error) {
	var b types.Ballot
	err := rd.read(func(c *sqlite.Conn) error {
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

// ForgetBallots deletes the ballots of the layers before one, and the active
// sets that no ballot refers to any more. Peers do not need them: what came of
// them is in blocks and certificates.
func (db *DB) ForgetBallots(before types.Layer) error {
	return db.write(func(c *sqlite.Conn) error {
		err := run(c, "DELETE FROM objects WHERE kind = ? AND id IN (SELECT id FROM ballots WHERE layer < ?)", int64(KindBallot), int64(before))
		if err != nil {
			return err
		}
		if err := run(c, "DELETE FROM ballots WHERE layer < ?", int64(before)); err != nil {
			return err
		}
		used := make(map[types.Hash32]bool)
		var references, unused [][]byte
		if err := each(c, "ballots", "WHERE reference = 1", func(r *row) { references = append(references, r.blob()) }); err != nil {
			return err
		}
		for _, id := range references {
			var b types.Ballot
			switch err := readObject(c, KindBallot, id, &b); {
			case err == nil && b.EpochData != nil:
				used[b.EpochData.ActiveSet] = true
			case err != nil && !errors.Is(err, ErrNotFound):
				return err
			}
		}
		err = query(c, "SELECT id FROM objects WHERE kind = ?", func(r *row) error {
			if id := r.blob(); !used[types.Hash32(id)] {
				unused = append(unused, id)
			}
			return nil
		}, int64(KindActiveSet))
		for _, id := range unused {
			if err == nil {
				err = run(c, "DELETE FROM objects WHERE kind = ? AND id = ?", int64(KindActiveSet), id)
			}
		}
		return err
	})
}
