package post

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"

	"github.com/zeebo/blake3"
)

// hit is a label that passes for a nonce.
type hit struct {
	nonce uint32
	index uint64
}

// scanKernel is one way to scan labels on this processor.
type scanKernel struct {
	name string
	// scan appends the hits of one nonce group among labels, which start at index
	// first, ordered by index and then nonce.
	scan func(hits []hit, labels []byte, first uint64, g *nonceGroup, d difficulty) []hit
}

var portableScan = scanKernel{portable, scanPortable}

// nonceGroup is the ciphers of nonceGroupSize nonces. The eager cipher gives a
// byte of its output to each of them; where that byte is not decisive, the
// nonce's lazy cipher is asked (reference/post.md 1.2).
type nonceGroup struct {
	first uint32 // nonce
	pow   uint64
	eager cipher.Block
	lazy  [nonceGroupSize]cipher.Block

	// The round keys of the same ciphers, for kernels: of the eager one each twice.
	eagerKeys [11][2][16]byte
	lazyKeys  [nonceGroupSize][11][16]byte
}

func newNonceGroup(challenge *[32]byte, first uint32, pow uint64) *nonceGroup {
	key := groupKey(challenge, first/nonceGroupSize, pow)
	g := &nonceGroup{first: first, pow: pow, eager: newAES(key)}
	for i, round := range expandKey(key) {
		g.eagerKeys[i] = [2][16]byte{round, round}
	}
	for i := range g.lazy {
		key := lazyKey(challenge, first+uint32(i), pow)
		g.lazy[i], g.lazyKeys[i] = newAES(key), expandKey(key)
	}
	return g
}

func newAES(key [16]byte) cipher.Block {
	b, err := aes.NewCipher(key[:])
	if err != nil {
		panic("post: " + err.Error()) // only a wrong key length can fail
	}
	return b
}

// groupKey keys the eager cipher of a nonce group.
func groupKey(challenge *[32]byte, group uint32, pow uint64) [16]byte {
	return cipherKey(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(challenge[:], group), pow))
}

// lazyKey keys the lazy cipher of a nonce.
func lazyKey(challenge *[32]byte, nonce uint32, pow uint64) [16]byte {
	b := binary.LittleEndian.AppendUint32(challenge[:], nonce/nonceGroupSize)
	b = binary.LittleEndian.AppendUint64(b, pow)
	return cipherKey(binary.LittleEndian.AppendUint32(b, nonce))
}

func cipherKey(in []byte) [16]byte {
	sum := blake3.Sum256(in)
	return [16]byte(sum[:16])
}

// tester tests single labels for one nonce.
type tester struct {
	eager, lazy cipher.Block
	place       int // of the nonce's byte in the eager cipher text
	difficulty  difficulty
	text        [aes.BlockSize]byte
}

func newTester(challenge *[32]byte, nonce uint32, pow uint64, d difficulty) *tester {
	return &tester{
		eager: newAES(groupKey(challenge, nonce/nonceGroupSize, pow)),
		lazy:  newAES(lazyKey(challenge, nonce, pow)),
		place: int(nonce % nonceGroupSize), difficulty: d,
	}
}

func (t *tester) passes(label []byte) bool {
	t.eager.Encrypt(t.text[:], label)
	if b := t.text[t.place]; b != t.difficulty.msb {
		return b < t.difficulty.msb
	}
	t.lazy.Encrypt(t.text[:], label)
	return binary.LittleEndian.Uint64(t.text[:])&lsbMask < t.difficulty.lsb
}

func scanPortable(hits []hit, labels []byte, first uint64, g *nonceGroup, d difficulty) []hit {
	text, lazy := make([]byte, aes.BlockSize), make([]byte, aes.BlockSize)
	for at := 0; at < len(labels); at += LabelSize {
		label := labels[at : at+LabelSize]
		g.eager.Encrypt(text, label)
		if !anyAtMost(binary.LittleEndian.Uint64(text), d.msb) && !anyAtMost(binary.LittleEndian.Uint64(text[8:]), d.msb) {
			continue
		}
		for i, b := range text {
			if b > d.msb {
				continue
			}
			if b == d.msb {
				g.lazy[i].Encrypt(lazy, label)
				if binary.LittleEndian.Uint64(lazy)&lsbMask >= d.lsb {
					continue
				}
			}
			hits = append(hits, hit{nonce: g.first + uint32(i), index: first + uint64(at/LabelSize)})
		}
	}
	return hits
}

// anyAtMost reports whether a byte of w is at most b. For b >= 128 it may say
// so wrongly.
func anyAtMost(w uint64, b byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	return b >= 0x80 || (w-ones*(uint64(b)+1))&^w&tops != 0
}
