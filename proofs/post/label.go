package post

import (
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"golang.org/x/crypto/sha3"
)

// keccakRate is the block of Keccak-512, and of HMAC over it. A label's
// password is exactly one block.
const keccakRate = 72

// Labeler computes labels. It owns 128*N bytes of scratch and allocates
// nothing for a label. It is not safe for concurrent use.
type Labeler struct {
	mix    func(x *block, v []block)
	v      []block
	keccak interface {
		hash.Hash
		io.Reader
	}

	// Buffers handed to functions that the compiler cannot see: kept here so
	// that they are not allocated anew for each label.
	x            block
	inner, outer [keccakRate]byte // the password xor HMAC's two pads
	mixed        [128]byte
	digest       [64]byte
	counter      [4]byte
}

// NewLabeler returns a Labeler of cost n, a power of two in 2..MaxScryptN. It
// panics on another n: Params.Validate has checked it.
func NewLabeler(n uint32) *Labeler { return newLabeler(n, romix) }

func newLabeler(n uint32, mix func(*block, []block)) *Labeler {
	if n < 2 || n > MaxScryptN || n&(n-1) != 0 {
		panic(fmt.Sprintf("post: labeler of cost %d", n))
	}
	l := &Labeler{mix: mix, v: make([]block, n)}
	l.keccak = sha3.NewLegacyKeccak512().(interface {
		hash.Hash
		io.Reader
	})
	return l
}

// Label returns the 32 bytes of label i, of which the first LabelSize are
// stored: scrypt over PBKDF2-HMAC-Keccak-512 and ChaCha20/8 with r = p = 1,
// empty salt, and the password commitment || LE64(i) || 32 zero bytes
// (reference/post.md 1.2).
func (l *Labeler) Label(commitment [32]byte, i uint64) [32]byte {
	var password [keccakRate]byte
	copy(password[:], commitment[:])
	binary.LittleEndian.PutUint64(password[32:], i)
	for k, b := range password {
		l.inner[k], l.outer[k] = b^0x36, b^0x5c
	}

	l.pbkdf2(1, nil)
	copy(l.mixed[:64], l.digest[:])
	l.pbkdf2(2, nil)
	copy(l.mixed[64:], l.digest[:])

	for k := range l.x {
		l.x[k] = binary.LittleEndian.Uint32(l.mixed[4*k:])
	}
	l.mix(&l.x, l.v)
	for k, w := range l.x {
		binary.LittleEndian.PutUint32(l.mixed[4*k:], w)
	}

	l.pbkdf2(1, l.mixed[:])
	return [32]byte(l.digest[:32])
}

// pbkdf2 sets digest to block number n of PBKDF2 with one iteration.
func (l *Labeler) pbkdf2(n uint32, salt []byte) {
	binary.BigEndian.PutUint32(l.counter[:], n)
	l.keccak.Reset()
	l.keccak.Write(l.inner[:])
	l.keccak.Write(salt)
	l.keccak.Write(l.counter[:])
	l.keccak.Read(l.digest[:])
	l.keccak.Reset()
	l.keccak.Write(l.outer[:])
	l.keccak.Write(l.digest[:])
	l.keccak.Read(l.digest[:])
}
