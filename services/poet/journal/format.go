package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/zeebo/blake3"

	"tweedle/proofs/posw"
)

const (
	magic      = "tweedle journal1"
	headerSize = len(magic) + 4 + 8 + 16 + 1 + 32
	sumSize    = 16

	// maxChunkNodes bounds the nodes of one chunk that is read, and so the memory
	// for reading it. chunkNodes is how many are written: a damaged chunk costs
	// its nodes, each 2^k leaves of work.
	maxChunkNodes = 1 << 15
	chunkNodes    = 1 << 8

	// maxChunk is the length of the longest chunk.
	maxChunk = leastChunk + (posw.MaxHeight+maxChunkNodes)*posw.NodeSize

	// leastChunk is what a chunk has beside its nodes.
	leastChunk = 8 + sumSize

	// maxTries bounds the checksums that are tried for finding chunks behind
	// damage, in all: about a second, in a file that somebody made for it.
	maxTries = 1 << 22
)

type checksum [sumSize]byte

// next returns the checksum of data that follows what c is the checksum of.
func (c checksum) next(data []byte) checksum {
	h := blake3.New()
	h.Write(c[:])
	h.Write(data)
	return checksum(h.Sum(nil)[:sumSize])
}

// Header says what the nodes are about. Without members the statement is the
// empty byte string.
type Header struct {
	Round     uint32
	Members   uint64
	K         uint // height of the nodes that are kept
	Statement [32]byte
}

// encode returns the header with its checksum, and the checksum. The 16 bytes
// behind the members are no longer used: older files have the round's times there.
func (h *Header) encode() ([]byte, checksum) {
	b := append(make([]byte, 0, headerSize+sumSize), magic...)
	b = binary.BigEndian.AppendUint32(b, h.Round)
	b = binary.BigEndian.AppendUint64(b, h.Members)
	b = append(b, make([]byte, 16)...)
	b = append(b, byte(h.K))
	b = append(b, h.Statement[:]...)
	sum := checksum{}.next(b)
	return append(b, sum[:]...), sum
}

// errBad says that bytes are not what was written. Other errors of reading are
// the disk's.
var errBad = errors.New("damaged")

// readHeader returns an error that wraps errBad, or one of the disk.
func readHeader(r *bufio.Reader) (Header, checksum, error) {
	b, err := peek(r, headerSize+sumSize)
	if err != nil {
		return Header{}, checksum{}, err
	}
	f := b[len(magic):]
	h := Header{
		Round:     binary.BigEndian.Uint32(f),
		Members:   binary.BigEndian.Uint64(f[4:]),
		K:         uint(f[28]),
		Statement: [32]byte(f[29:]),
	}
	sum := checksum{}.next(b[:headerSize])
	if string(b[:len(magic)]) != magic || h.K > posw.MaxHeight || sum != checksum(b[headerSize:]) {
		return Header{}, checksum{}, fmt.Errorf("header: %w", errBad)
	}
	return h, sum, nil
}

// peek returns the next n bytes. If there are fewer the error wraps errBad.
func peek(r *bufio.Reader, n int) ([]byte, error) {
	b, err := r.Peek(n)
	if errors.Is(err, io.EOF) {
		return b, fmt.Errorf("cut off: %w", errBad)
	}
	return b, err
}

// point is a place in the tree from which it can go on, given the kept nodes:
// the leaves done, and the parked nodes below height k, lowest first.
type point struct {
	leaves uint64
	parked []byte
}

func parkedSize(leaves uint64, k uint) int {
	return posw.NodeSize * bits.OnesCount64(leaves&(1<<k-1))
}

// appendChunk appends the chunk that leads to a point.
func appendChunk(b []byte, to point, nodes []byte, prev checksum) ([]byte, checksum) {
	start := len(b)
	b = binary.BigEndian.AppendUint64(b, to.leaves)
	b = append(b, to.parked...)
	b = append(b, nodes...)
	sum := prev.next(b[start:])
	return append(b, sum[:]...), sum
}

// chunkReader reads chunk after chunk. Nothing it returns is unchecked. r must
// hold maxChunk bytes and a checksum.
type chunkReader struct {
	r     *bufio.Reader
	k     uint
	at    int64    // where the next chunk begins in the file
	last  uint64   // leaves before it
	sum   checksum // of the chunk before it
	tries int
}

// next returns the point a chunk leads to, and its nodes, valid until the next
// call. io.EOF means that the file ends before it; errBad that it is damaged;
// another error is the disk's. It moves only over a chunk that it returns.
func (c *chunkReader) next() (to point, nodes []byte, err error) {
	if _, err := c.r.Peek(1); err != nil {
		return point{}, nil, err
	}
	b, err := peek(c.r, 8)
	if err != nil {
		return point{}, nil, err
	}
	to.leaves = binary.BigEndian.Uint64(b)
	count := to.leaves>>c.k - c.last>>c.k
	if to.leaves <= c.last || to.leaves > posw.MaxLeaves || count > maxChunkNodes {
		return point{}, nil, errBad
	}
	low := 8 + parkedSize(to.leaves, c.k)
	end := low + int(count)*posw.NodeSize
	if b, err = peek(c.r, end+sumSize); err != nil {
		return point{}, nil, err
	}
	sum := c.sum.next(b[:end])
	if sum != checksum(b[end:]) {
		return point{}, nil, errBad
	}
	c.sum, c.last = sum, to.leaves
	to.parked = append([]byte(nil), b[8:low]...)
	c.skip(len(b))
	return to, b[low:end], nil
}

// each takes chunk after chunk, and returns what next ended with.
func (c *chunkReader) each(take func(to point, nodes []byte)) error {
	for {
		to, nodes, err := c.next()
		if err != nil {
			return err
		}
		take(to, nodes)
	}
}

func (c *chunkReader) skip(n int) {
	n, _ = c.r.Discard(n) // it was peeked at
	c.at += int64(n)
}

// seek moves from a damaged chunk to the next one that is whole, and tells
// whether there is one. A chunk's checksum is over the one before it, which is
// read from the file then: so what follows shows that this is a chunk, but not yet
// of which journal.
func (c *chunkReader) seek() (bool, error) {
	begin, last := c.at, c.last
	for c.skip(leastChunk - sumSize); c.tries < maxTries; c.skip(8) { // all lengths are multiples of 8
		b, err := c.r.Peek(sumSize + leastChunk)
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		leaves := binary.BigEndian.Uint64(b[sumSize:])
		if leaves <= last || leaves > posw.MaxLeaves {
			continue
		}
		// The nodes that are missing were in the bytes that are skipped.
		total, room := leaves>>c.k-last>>c.k, uint64(c.at+sumSize-begin-leastChunk)/posw.NodeSize
		least, most := total-min(total, room), min(total, maxChunkNodes)
		if least > most {
			continue
		}
		if b, err = c.r.Peek(sumSize + leastChunk + parkedSize(leaves, c.k) + int(most)*posw.NodeSize); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if count, ok := c.try(b[sumSize:], checksum(b), leaves, least, most); ok {
			prev := checksum(b)
			c.skip(sumSize)
			c.sum, c.last = prev, (leaves>>c.k-count)<<c.k
			return true, nil
		}
	}
	return false, nil
}

// try looks for the number of nodes, from least to most, with which b begins with
// a chunk to so many leaves.
func (c *chunkReader) try(b []byte, prev checksum, leaves, least, most uint64) (count uint64, ok bool) {
	h := blake3.New()
	h.Write(prev[:])
	done := 0
	for count := least; count <= most; count++ {
		end := 8 + parkedSize(leaves, c.k) + int(count)*posw.NodeSize
		if len(b) < end+sumSize {
			return 0, false
		}
		h.Write(b[done:end])
		done = end
		if c.tries++; checksum(h.Sum(nil)) == checksum(b[end:]) {
			return count, true
		}
	}
	return 0, false
}
