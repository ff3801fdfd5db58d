package store

import (
	"bytes"
	"fmt"

	"tweedle/values/types"
	"zombiezen.com/go/sqlite"
)

// CheckName tells whether an object that a peer sent is the one that was asked
// for: it decodes, and its bytes have the name.
func CheckName(k Kind, id, body []byte) error {
	got, err := k.nameOf(body)
	if err != nil {
		return fmt.Errorf("%v %x: %w", k, id, err)
	}
	if !bytes.Equal(got, id) {
		return fmt.Errorf("%v %x: the bytes are those of %x", k, id, got)
	}
	return nil
}

// BlockLayers returns at most MaxPage layers that have a block, from the given
// one upwards.
func (db *DB) BlockLayers(from types.Layer, limit int) (ls []Layer, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return each(c, "layers", "WHERE layer >= ? AND block <> ? ORDER BY layer LIMIT ?", func(r *row) {
			ls = append(ls, scanLayer(r))
		}, int64(from), types.EmptyBlock[:], page(limit))
	})
	return ls, err
}
