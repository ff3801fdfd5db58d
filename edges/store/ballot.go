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

// ForgetBallots deletes the ballots of the layers before one, which is the
// first of an epoch, and the active sets that only they refer to. Peers do not
// need them: what came of them is in blocks and certificates. A set that a
// certificate names stays, as nobody who comes later can check it without.
//
// The sets go first, then one layer after the other, so that others can write in
// between. If we stop half way, the next call does the rest.
func (db *DB) ForgetBallots(before types.Layer) error {
	var oldest types.Layer
	err := db.write(func(c *sqlite.Conn) error {
		oldest = before
		err := query(c, "SELECT ifnull(min(layer), ?) FROM ballots WHERE layer < ?", func(r *row) error {
			oldest = types.Layer(r.int())
			return nil
		}, int64(before), int64(before))
		if err != nil || oldest >= before {
			return err
		}
		unused, err := declared(c, oldest, before)
		if err != nil {
			return err
		}
		err = each(c, "certificates", "WHERE layer >= ? AND layer < ?", func(r *row) {
			var cert types.Certificate
			r.skip()
			if codec.Decode(r.blob(), &cert) != nil {
				r.bad = true
			}
			delete(unused, cert.Decision.Electorate)
		}, int64(oldest), int64(before))
		for h := range unused {
			if err == nil {
				err = run(c, "DELETE FROM objects WHERE kind = ? AND id = ?", int64(KindActiveSet), h[:])
			}
		}
		return err
	})
	for l := oldest + 1; err == nil && l <= before; l++ {
		err = db.write(func(c *sqlite.Conn) error {
			err := run(c, "DELETE FROM objects WHERE kind = ? AND id IN (SELECT id FROM ballots WHERE layer < ?)", int64(KindBallot), int64(l))
			if err != nil {
				return err
			}
			return run(c, "DELETE FROM ballots WHERE layer < ?", int64(l))
		})
	}
	return err
}

// declared returns the active sets that the ballots of some layers declare.
func declared(c *sqlite.Conn, from, before types.Layer) (map[types.Hash32]bool, error) {
	var references [][]byte
	err := each(c, "ballots", "WHERE layer >= ? AND layer < ? AND reference = 1", func(r *row) {
		references = append(references, r.blob())
	}, int64(from), int64(before))
	if err != nil {
		return nil, err
	}
	sets := make(map[types.Hash32]bool)
	for _, id := range references {
		var b types.Ballot
		switch err := readObject(c, KindBallot, id, &b); {
		case err == nil && b.EpochData != nil:
			sets[b.EpochData.ActiveSet] = true
		case err != nil && !errors.Is(err, ErrNotFound):
			return nil, err
		}
	}
	return sets, nil
}
