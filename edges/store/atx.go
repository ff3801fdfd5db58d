package store

import (
	"fmt"
	"math"
	"time"

	"zombiezen.com/go/sqlite"

	"tweedle/protocol/activation"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// ATXRecord is what most questions need of an ATX: all but its proofs.
type ATXRecord = activation.Entry

// AddATX stores a valid ATX with what validation derived from it. Storing it
// again changes nothing, not even when it was received.
func (db *DB) AddATX(a *types.ATX, info *activation.Info, received time.Time) error {
	return db.write(func(c *sqlite.Conn) error { return addATX(c, a, info, received) })
}

func addATX(c *sqlite.Conn, a *types.ATX, info *activation.Info, received time.Time) error {
	// SQLite's integers are signed, and heights are sorted by.
	if info.BaseHeight > math.MaxInt64/2 || info.Ticks > math.MaxInt64/2 {
		return fmt.Errorf("ATX %v has height %d+%d, which is out of range", info.ID, info.BaseHeight, info.Ticks)
	}
	if err := addObject(c, KindATX, info.ID[:], codec.Encode(a)); err != nil {
		return err
	}
	return put(c, ignore, "atxs", info.ID[:], int64(info.PublishEpoch), info.Smesher[:], info.Coinbase[:],
		info.CommitmentATX[:], int64(info.VRFNonce), int64(info.Units), int64(info.Effective),
		int64(info.Ticks), int64(info.BaseHeight), int64(info.Weight), received.UnixNano())
}

func scanATX(r *row) (a ATXRecord) {
	r.raw(a.ID[:])
	a.PublishEpoch = types.Epoch(r.int())
	r.raw(a.Smesher[:])
	r.raw(a.Coinbase[:])
	r.raw(a.CommitmentATX[:])
	a.VRFNonce = uint64(r.int())
	a.Units = uint32(r.int())
	a.Effective = uint32(r.int())
	a.Ticks = uint64(r.int())
	a.BaseHeight = uint64(r.int())
	a.Weight = uint64(r.int())
	a.Received = time.Unix(0, r.int()).UTC()
	return a
}

func (rd *Reader) atxRecord(where string, args ...any) (a ATXRecord, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return one(c, "atxs", where, func(r *row) { a = scanATX(r) }, args...)
	})
	return a, err
}

// ATX returns an ATX by id.
func (rd *Reader) ATX(id types.ATXID) (*types.ATX, error) {
	var a types.ATX
	err := rd.read(func(c *sqlite.Conn) error { return readObject(c, KindATX, id[:], &a) })
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// ATXRecord returns an ATX's record by id.
func (rd *Reader) ATXRecord(id types.ATXID) (ATXRecord, error) {
	return rd.atxRecord("WHERE id = ?", id[:])
}

// SmesherATX returns the ATX that a smesher published in an epoch; of several,
// which are malfeasance, the one with the lowest id.
func (rd *Reader) SmesherATX(smesher types.NodeID, published types.Epoch) (ATXRecord, error) {
	return rd.atxRecord("WHERE smesher = ? AND publish_epoch = ? ORDER BY id", smesher[:], int64(published))
}

// LastATX returns a smesher's ATX with the newest publish epoch.
func (rd *Reader) LastATX(smesher types.NodeID) (ATXRecord, error) {
	return rd.atxRecord("WHERE smesher = ? ORDER BY publish_epoch DESC, id", smesher[:])
}

// HighestATX returns the ATX with the greatest height among those published
// in the epoch last or before; of equals, the one with the lowest id.
func (rd *Reader) HighestATX(last types.Epoch) (ATXRecord, error) {
	return rd.atxRecord("WHERE publish_epoch <= ? ORDER BY base_height + ticks DESC, id", int64(last))
}

// EpochATXs returns the ids of the ATXs published in an epoch, ascending.
func (rd *Reader) EpochATXs(published types.Epoch) (ids []types.ATXID, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return each(c, "atxs", "WHERE publish_epoch = ? ORDER BY id", func(r *row) {
			ids = append(ids, scanATX(r).ID)
		}, int64(published))
	})
	return ids, err
}

// EpochATXRecords returns the records of the ATXs published in an epoch,
// ascending by id.
func (rd *Reader) EpochATXRecords(published types.Epoch) (as []ATXRecord, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return each(c, "atxs", "WHERE publish_epoch = ? ORDER BY id", func(r *row) {
			as = append(as, scanATX(r))
		}, int64(published))
	})
	return as, err
}

// CoinbaseATXs returns at most MaxPage ATXs that name a coinbase and were
// published in the epoch from or later, in that order, skipping the first
// offset.
func (rd *Reader) CoinbaseATXs(a types.Address, from types.Epoch, offset, limit int) (as []ATXRecord, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return each(c, "atxs", "WHERE coinbase = ? AND publish_epoch >= ? ORDER BY publish_epoch, id LIMIT ? OFFSET ?",
			func(r *row) { as = append(as, scanATX(r)) }, a[:], int64(from), page(limit), int64(max(offset, 0)))
	})
	return as, err
}

// CountCoinbaseATXs returns how many ATXs CoinbaseATXs has in all its pages.
func (rd *Reader) CountCoinbaseATXs(a types.Address, from types.Epoch) (int, error) {
	return rd.count("SELECT count(*) FROM atxs WHERE coinbase = ? AND publish_epoch >= ?", a[:], int64(from))
}
