package journal

import (
	"crypto/sha256"
	"encoding/binary"

	"tweedle/proofs/posw"
)

// RecordSize is what a node takes in the file, in bytes: the node, the height of the
// layer that is kept, and a checksum.
const RecordSize = posw.NodeSize + 1 + sumSize

const sumSize = 7

// version is for a format that others do not read.
const version = "tweedle journal 2"

// About says what the nodes are about. Without members the statement is the empty
// byte string.
type About struct {
	Round     uint32
	Members   uint64
	K         uint // height of the nodes that are kept
	Statement [32]byte
}

// key is what the checksums of a journal begin with.
type key [8]byte

// key is of all but the height, which a record says itself: a journal goes on at its
// own when another is configured.
func (a About) key() key {
	b := append([]byte(nil), version...)
	b = binary.BigEndian.AppendUint32(b, a.Round)
	b = binary.BigEndian.AppendUint64(b, a.Members)
	sum := sha256.Sum256(append(b, a.Statement[:]...))
	return key(sum[:])
}

// sum returns the checksum of the node of that number: a record that stands in the
// wrong place, or comes from another journal, does not match. What it is over fits in
// one block of SHA-256.
func (k key) sum(height byte, number uint64, node []byte) [sumSize]byte {
	b := make([]byte, 0, 55)
	b = append(b, k[:]...)
	b = append(b, height)
	b = binary.BigEndian.AppendUint64(b, number)
	sum := sha256.Sum256(append(b, node...))
	return [sumSize]byte(sum[:])
}

// appendRecord appends the record of the node of that number.
func (k key) appendRecord(b []byte, height byte, number uint64, node []byte) []byte {
	sum := k.sum(height, number, node)
	b = append(b, node...)
	b = append(b, height)
	return append(b, sum[:]...)
}

// whole tells whether a record is that of the node of that number in a layer, and
// returns both.
func (k key) whole(record []byte, number uint64) (node []byte, height uint, ok bool) {
	node, height = record[:posw.NodeSize], uint(record[posw.NodeSize])
	sum := [sumSize]byte(record[posw.NodeSize+1:])
	return node, height, height <= posw.MaxHeight && sum == k.sum(byte(height), number, node)
}
