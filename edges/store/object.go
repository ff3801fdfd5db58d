package store

import (
	"bytes"
	"fmt"

	"zombiezen.com/go/sqlite"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// Kind tells what the bytes of an object are. The values are stored.
type Kind uint8

// The kinds of objects that are named by their hash.
const (
	KindATX         Kind = 1
	KindPoetProof   Kind = 2 // a types.PoetProofMessage, named by its proof
	KindActiveSet   Kind = 3
	KindBallot      Kind = 4
	KindBlock       Kind = 5
	KindTransaction Kind = 6
)

func (k Kind) String() string {
	switch k {
	case KindATX:
		return "ATX"
	case KindPoetProof:
		return "PoET proof"
	case KindActiveSet:
		return "active set"
	case KindBallot:
		return "ballot"
	case KindBlock:
		return "block"
	case KindTransaction:
		return "transaction"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// nameOf decodes an object and returns the name that its bytes have.
func (k Kind) nameOf(body []byte) ([]byte, error) {
	switch k {
	case KindATX:
		var v types.ATX
		err := codec.Decode(body, &v)
		id := v.ID()
		return id[:], err
	case KindPoetProof:
		var v types.PoetProofMessage
		err := codec.Decode(body, &v)
		ref := v.Proof.Ref()
		return ref[:], err
	case KindBallot:
		var v types.Ballot
		err := codec.Decode(body, &v)
		id := v.ID()
		return id[:], err
	case KindBlock:
		h := types.Sum(body)
		return h[:len(types.BlockID{})], nil
	case KindActiveSet, KindTransaction:
		h := types.Sum(body)
		return h[:], nil
	}
	return nil, fmt.Errorf("%v is not stored", k)
}

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

// Object returns the bytes of an object as peers ask for them, checked against
// its name. The error is ErrNotFound or ErrCorrupt.
func (rd *Reader) Object(k Kind, id []byte) (body []byte, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		body, err = object(c, k, id)
		return err
	})
	return body, err
}

// Has tells whether an object is stored; it does not read its bytes.
func (rd *Reader) Has(k Kind, id []byte) (found bool, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		found, err = exists(c, "objects WHERE kind = ? AND id = ?", int64(k), id)
		return err
	})
	return found, err
}

func exists(c *sqlite.Conn, from string, args ...any) (found bool, err error) {
	err = query(c, "SELECT 1 FROM "+from+" LIMIT 1", func(*row) error { found = true; return nil }, args...)
	return found, err
}

func object(c *sqlite.Conn, k Kind, id []byte) ([]byte, error) {
	var body []byte
	err := one(c, "objects", "WHERE kind = ? AND id = ?", func(r *row) {
		r.skip()
		r.skip()
		body = r.blob()
	}, int64(k), id)
	if err != nil {
		return nil, err
	}
	if name, err := k.nameOf(body); err != nil || string(name) != string(id) {
		return nil, fmt.Errorf("table objects, %v %x: %w", k, id, ErrCorrupt)
	}
	return body, nil
}

// readObject decodes an object.
func readObject(c *sqlite.Conn, k Kind, id []byte, v codec.Decodable) error {
	body, err := object(c, k, id)
	if err != nil {
		return err
	}
	if err := codec.Decode(body, v); err != nil {
		return fmt.Errorf("table objects, %v %x: %w (%v)", k, id, ErrCorrupt, err)
	}
	return nil
}

// addObject stores an object unless it is there.
func addObject(c *sqlite.Conn, k Kind, id, body []byte) error {
	return put(c, ignore, "objects", int64(k), id, body)
}

// AddActiveSet stores an active set under its hash.
func (db *DB) AddActiveSet(s types.ActiveSet) error {
	h := s.Hash()
	return db.write(func(c *sqlite.Conn) error {
		return addObject(c, KindActiveSet, h[:], codec.Encode(s))
	})
}

// ActiveSet returns the active set with a hash.
func (rd *Reader) ActiveSet(h types.Hash32) (s types.ActiveSet, err error) {
	err = rd.read(func(c *sqlite.Conn) error { return readObject(c, KindActiveSet, h[:], &s) })
	return s, err
}

// AddBlock stores a block under its id.
func (db *DB) AddBlock(b *types.Block) error {
	return db.write(func(c *sqlite.Conn) error { return addBlock(c, b) })
}

func addBlock(c *sqlite.Conn, b *types.Block) error {
	body := codec.Encode(b)
	id := b.ID()
	return addObject(c, KindBlock, id[:], body)
}

// Block returns a block by id.
func (rd *Reader) Block(id types.BlockID) (*types.Block, error) {
	var b types.Block
	err := rd.read(func(c *sqlite.Conn) error { return readObject(c, KindBlock, id[:], &b) })
	if err != nil {
		return nil, err
	}
	return &b, nil
}
