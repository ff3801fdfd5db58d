package journal

import (
	"bufio"
	"crypto/sha256"
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
	headerSize = len(magic) + 4 + 8 + 8 + 8 + 1 + 32
	sumSize    = 16

	// maxChunkNodes bounds the nodes of one chunk, and so the memory for
	// reading it; a longer piece becomes several chunks.
	maxChunkNodes = 1 << 15
)

type checksum [sumSize]byte

// next returns the checksum of data that follows what c is the checksum of.
func (c checksum) next(data []byte) checksum {
	h := blake3.New()
	h.Write(c[:])
	h.Write(data)
	return checksum(h.Sum(nil)[:sumSize])
}

// Header says what the nodes are about. Start and End are unix milliseconds.
// Without members the statement is the empty byte string.
type Header struct {
	Round      uint32
	Members    uint64
	Start, End int64
	K          uint
	Statement  [32]byte
}

// statement returns the bytes that are hashed.
func (h *Header) statement() []byte {
	if h.Members == 0 {
		return nil
	}
	return h.Statement[:]
}

// encode returns the header with its checksum, and the checksum.
func (h *Header) encode() ([]byte, checksum) {
	b := append(make([]byte, 0, headerSize+sumSize), magic...)
	b = binary.BigEndian.AppendUint32(b, h.Round)
	b = binary.BigEndian.AppendUint64(b, h.Members)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Start))
	b = binary.BigEndian.AppendUint64(b, uint64(h.End))
	b = append(b, byte(h.K))
	b = append(b, h.Statement[:]...)
	sum := checksum{}.next(b)
	return append(b, sum[:]...), sum
}

var errHeader = errors.New("header is damaged")

func readHeader(r io.Reader) (Header, checksum, error) {
	var b [headerSize + sumSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Header{}, checksum{}, errHeader
	}
	f := b[len(magic):]
	h := Header{
		Round:     binary.BigEndian.Uint32(f),
		Members:   binary.BigEndian.Uint64(f[4:]),
		Start:     int64(binary.BigEndian.Uint64(f[12:])),
		End:       int64(binary.BigEndian.Uint64(f[20:])),
		K:         uint(f[28]),
		Statement: [32]byte(f[29:]),
	}
	sum := checksum{}.next(b[:headerSize])
	if string(b[:len(magic)]) != magic || h.K > posw.MaxHeight || sum != checksum(b[headerSize:]) {
		return Header{}, checksum{}, errHeader
	}
	return h, sum, nil
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

// chunkReader reads chunk after chunk. Nothing it returns is unchecked.
type chunkReader struct {
	r    *bufio.Reader
	k    uint
	last uint64 // leaves
	sum  checksum
	buf  []byte
}

// next returns the point a chunk leads to, its nodes (valid until the next call)
// and its length. io.EOF means that the file ends here; another error that the
// rest is damaged.
func (c *chunkReader) next() (to point, nodes []byte, size int64, err error) {
	c.buf = append(c.buf[:0], make([]byte, 8)...)
	if _, err := io.ReadFull(c.r, c.buf); err != nil {
		return point{}, nil, 0, torn(err)
	}
	to.leaves = binary.BigEndian.Uint64(c.buf)
	count := to.leaves>>c.k - c.last>>c.k
	if to.leaves <= c.last || to.leaves > posw.MaxLeaves || count > maxChunkNodes {
		return point{}, nil, 0, errors.New("chunk is damaged")
	}
	low := parkedSize(to.leaves, c.k)
	rest := make([]byte, low+int(count)*posw.NodeSize+sumSize)
	if _, err := io.ReadFull(c.r, rest); err != nil {
		return point{}, nil, 0, fmt.Errorf("chunk is cut off: %w", io.ErrUnexpectedEOF)
	}
	body := rest[:len(rest)-sumSize]
	c.buf = append(c.buf, body...)
	sum := c.sum.next(c.buf)
	if sum != checksum(rest[len(body):]) {
		return point{}, nil, 0, errors.New("checksum of a chunk is wrong")
	}
	c.sum, c.last = sum, to.leaves
	to.parked = body[:low:low]
	return to, body[low:], int64(len(c.buf) + sumSize), nil
}

func torn(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("chunk is cut off: %w", err)
	}
	return err
}

// checkpoint completes a point by the parked nodes of height k and above, which
// follow from the kept nodes: node = SHA-256(statement || left || right)
// (reference/poet.md 1.3).
func checkpoint(h *Header, p point, kept io.Reader) (posw.Checkpoint, error) {
	cp := posw.Checkpoint{Leaves: p.leaves}
	for low := p.parked; len(low) > 0; low = low[posw.NodeSize:] {
		cp.Parked = append(cp.Parked, [posw.NodeSize]byte(low))
	}
	var parked [posw.MaxHeight + 1][posw.NodeSize]byte
	msg := append(make([]byte, 0, 3*posw.NodeSize), h.statement()...)
	fixed := len(msg)
	count := p.leaves >> h.K
	for i := range count {
		var n [posw.NodeSize]byte
		if _, err := io.ReadFull(kept, n[:]); err != nil {
			return cp, fmt.Errorf("kept node %d: %w", i, err)
		}
		at := 0
		for ; i>>at&1 == 1; at++ {
			msg = append(append(msg[:fixed], parked[at][:]...), n[:]...)
			n = sha256.Sum256(msg)
		}
		parked[at] = n
	}
	for at := range parked {
		if count>>at&1 == 1 {
			cp.Parked = append(cp.Parked, parked[at])
		}
	}
	return cp, nil
}
