package store

import (
	"fmt"
	"math"
	"time"

	"zombiezen.com/go/sqlite"

	"tweedle/codec"
	"tweedle/types"
)

// Verified is what validation derives from an ATX (reference/protocol.md A3).
type Verified struct {
	Weight         uint64 // effective units times ticks
	BaseHeight     uint64 // in ticks: the height of the positioning ATX
	Ticks          uint64
	EffectiveUnits uint32
	Received       time.Time
}

// ATXHeader is an ATX as most questions need it: without its proofs.
type ATXHeader struct {
	ID           types.ATXID
	PublishEpoch types.Epoch
	Smesher      types.NodeID
	Coinbase     types.Address
	NumUnits     uint32 // of all identities in it
	VRFNonce     uint64
	Verified
}

// Height returns the ATX's place on the PoET clock, in ticks.
func (h ATXHeader) Height() uint64 { return h.BaseHeight + h.Ticks }

// TargetEpoch is the epoch in which the ATX counts.
func (h ATXHeader) TargetEpoch() types.Epoch { return h.PublishEpoch + 1 }

// AddATX stores a valid ATX. Storing it again changes nothing, not even when
// it was received.
func (db *DB) AddATX(a *types.ATX, v Verified) error {
	// SQLite's integers are signed, and heights are sorted by.
	if v.BaseHeight > math.MaxInt64/2 || v.Ticks > math.MaxInt64/2 {
		return fmt.Errorf("ATX %v has height %d+%d, which is out of range", a.ID(), v.BaseHeight, v.Ticks)
	}
	id, body := a.ID(), codec.Encode(a)
	var units int64
	for _, n := range a.NIPosts {
		for _, p := range n.Posts {
			units += int64(p.NumUnits)
		}
	}
	return db.write(func(c *sqlite.Conn) error {
		if _, err := addObject(c, KindATX, id[:], body); err != nil {
			return err
		}
		return put(c, ignore, "atxs", id[:], int64(a.PublishEpoch), a.SmesherID[:], a.Coinbase[:], units,
			int64(v.EffectiveUnits), int64(a.VRFNonce), int64(v.Weight), int64(v.BaseHeight), int64(v.Ticks),
			v.Received.UnixNano())
	})
}

func scanATX(r *row) (h ATXHeader) {
	r.raw(h.ID[:])
	h.PublishEpoch = types.Epoch(r.int())
	r.raw(h.Smesher[:])
	r.raw(h.Coinbase[:])
	h.NumUnits = uint32(r.int())
	h.EffectiveUnits = uint32(r.int())
	h.VRFNonce = uint64(r.int())
	h.Weight = uint64(r.int())
	h.BaseHeight = uint64(r.int())
	h.Ticks = uint64(r.int())
	h.Received = time.Unix(0, r.int()).UTC()
	return h
}

func (db *DB) atxHeader(where string, args ...any) (h ATXHeader, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return one(c, "atxs", where, func(r *row) { h = scanATX(r) }, args...)
	})
	return h, err
}

// ATX returns an ATX by id.
func (db *DB) ATX(id types.ATXID) (*types.ATX, error) {
	var a types.ATX
	err := db.read(func(c *sqlite.Conn) error { return readObject(c, KindATX, id[:], &a) })
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// ATXHeader returns an ATX's header by id.
func (db *DB) ATXHeader(id types.ATXID) (ATXHeader, error) {
	return db.atxHeader("WHERE id = ?", id[:])
}

// SmesherATX returns the ATX that a smesher published in an epoch; of several,
// which are malfeasance, the one with the lowest id.
func (db *DB) SmesherATX(smesher types.NodeID, published types.Epoch) (ATXHeader, error) {
	return db.atxHeader("WHERE smesher = ? AND publish_epoch = ? ORDER BY id", smesher[:], int64(published))
}

// LastATX returns a smesher's ATX with the newest publish epoch.
func (db *DB) LastATX(smesher types.NodeID) (ATXHeader, error) {
	return db.atxHeader("WHERE smesher = ? ORDER BY publish_epoch DESC, id", smesher[:])
}

// HighestATX returns the ATX with the greatest height among those published
// in the epoch last or before; of equals, the one with the lowest id.
func (db *DB) HighestATX(last types.Epoch) (ATXHeader, error) {
	return db.atxHeader("WHERE publish_epoch <= ? ORDER BY base_height + ticks DESC, id", int64(last))
}

// EpochATXs returns the ids of the ATXs published in an epoch, ascending.
func (db *DB) EpochATXs(published types.Epoch) (ids []types.ATXID, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return query(c, "SELECT id FROM atxs WHERE publish_epoch = ? ORDER BY id", func(r *row) error {
			var id types.ATXID
			r.raw(id[:])
			ids = append(ids, id)
			return nil
		}, int64(published))
	})
	return ids, err
}

// EpochATXHeaders returns the headers of the ATXs published in an epoch,
// ascending by id.
func (db *DB) EpochATXHeaders(published types.Epoch) (hs []ATXHeader, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return each(c, "atxs", "WHERE publish_epoch = ? ORDER BY id", func(r *row) {
			hs = append(hs, scanATX(r))
		}, int64(published))
	})
	return hs, err
}
