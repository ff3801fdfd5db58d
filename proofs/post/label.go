package post

import (
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"golang.org/x/crypto/sha3"

	"tweedle/proofs/processor"
)

// keccakRate is the block of Keccak-512, and of HMAC over it. A label's
// password is exactly one block.
const keccakRate = 72

// maxScratch bounds the scratch of mixers with more than the fewest lanes, in blocks:
// 64 MiB.
const maxScratch = 1 << 19

// Labeler computes labels. It owns 128*N bytes of scratch for each label that its kernel
// computes at once, and allocates nothing for a label once it has that. It is not safe
// for concurrent use.
type Labeler struct {
	n      int
	kernel string  // its name
	mixers []mixer // by their lanes, fewest first
	x, v   []block // states of lanes, and their scratch
	keccak interface {
		hash.Hash
		io.Reader
	}

	// Buffers handed to functions that the compiler cannot see: kept here so
	// that they are not allocated anew for each label.
	pads    []pads // of lanes
	mixed   [128]byte
	digest  [64]byte
	counter [4]byte
}

// pads are a password xor HMAC's two pads.
type pads struct{ inner, outer [keccakRate]byte }

// NewLabeler returns a Labeler of cost n, a power of two in 2..MaxScryptN, on the kernel
// in use. It panics on another n: Params.Validate has checked it.
func NewLabeler(n uint32) *Labeler { return newLabeler(n, inUse().labels) }

func newLabeler(n uint32, k labelKernel) *Labeler {
	if n < 2 || n > MaxScryptN || n&(n-1) != 0 {
		panic(fmt.Sprintf("post: labeler of cost %d", n))
	}
	l := &Labeler{n: int(n), kernel: k.name, mixers: k.mixers[:1]}
	for _, m := range k.mixers[1:] {
		if m.lanes*l.n <= maxScratch {
			l.mixers = append(l.mixers[:len(l.mixers):len(l.mixers)], m)
		}
	}
	l.keccak = sha3.NewLegacyKeccak512().(interface {
		hash.Hash
		io.Reader
	})
	return l
}

// Lanes is how many labels are computed at once: multiples of it cost least.
func (l *Labeler) Lanes() int { return l.mixers[len(l.mixers)-1].lanes }

// Label returns the 32 bytes of label i, of which the first LabelSize are
// stored: scrypt over PBKDF2-HMAC-Keccak-512 and ChaCha20/8 with r = p = 1,
// empty salt, and the password commitment || LE64(i) || 32 zero bytes
// (reference/post.md 1.2).
func (l *Labeler) Label(commitment [32]byte, i uint64) [32]byte {
	var label [1][32]byte
	l.Labels(commitment, []uint64{i}, label[:])
	return label[0]
}

// Place is where a label stands: in the space of a commitment, at an index.
type Place struct {
	Commitment [32]byte
	Index      uint64
}

// Labels sets labels to those of the indices, of which there must be as many. Each is
// as Label says.
func (l *Labeler) Labels(commitment [32]byte, indices []uint64, labels [][32]byte) {
	if len(indices) != len(labels) {
		panic(fmt.Sprintf("post: %d labels of %d indices", len(labels), len(indices)))
	}
	l.compute(labels, func(k int) Place { return Place{commitment, indices[k]} })
}

// LabelsAt sets labels to those at the places, of which there must be as many. They cost
// what those of one space do.
func (l *Labeler) LabelsAt(places []Place, labels [][32]byte) {
	if len(places) != len(labels) {
		panic(fmt.Sprintf("post: %d labels of %d places", len(labels), len(places)))
	}
	l.compute(labels, func(k int) Place { return places[k] })
}

func (l *Labeler) compute(labels [][32]byte, at func(k int) Place) {
	for done := 0; done < len(labels); {
		m := l.mixer(len(labels) - done)
		n := min(m.lanes, len(labels)-done)
		for lane := range n {
			l.begin(lane, at(done+lane))
		}
		m.mix(l.x[:m.lanes], l.v[:m.lanes*l.n]) // what else is in x is mixed for nothing
		for lane := range n {
			labels[done+lane] = l.end(lane)
		}
		done += n
	}
}

// mixer returns the mixer for so many labels, with what it works on: that which costs
// least for each of them. Without measured costs it is the first that takes them all, else
// the widest.
func (l *Labeler) mixer(labels int) mixer {
	m := l.mixers[0]
	for _, wider := range l.mixers[1:] {
		each := func(m mixer) float64 { return m.cost / float64(min(m.lanes, labels)) }
		if m.lanes < labels && m.cost == 0 || each(wider) < each(m) {
			m = wider
		}
	}
	if len(l.x) < m.lanes {
		l.x, l.v, l.pads = make([]block, m.lanes), make([]block, m.lanes*l.n), make([]pads, m.lanes)
		processor.PreferHugePages(l.v) // it is read in no order
	}
	return m
}

// begin makes the state of a lane from the password of the label at a place.
func (l *Labeler) begin(lane int, at Place) {
	var password [keccakRate]byte
	copy(password[:], at.Commitment[:])
	binary.LittleEndian.PutUint64(password[32:], at.Index)
	p := &l.pads[lane]
	for k, b := range password {
		p.inner[k], p.outer[k] = b^0x36, b^0x5c
	}
	l.pbkdf2(p, 1, nil)
	copy(l.mixed[:64], l.digest[:])
	l.pbkdf2(p, 2, nil)
	copy(l.mixed[64:], l.digest[:])
	for k := range l.x[lane] {
		l.x[lane][k] = binary.LittleEndian.Uint32(l.mixed[4*k:])
	}
}

// end makes the label from the mixed state of a lane.
func (l *Labeler) end(lane int) [32]byte {
	for k, w := range l.x[lane] {
		binary.LittleEndian.PutUint32(l.mixed[4*k:], w)
	}
	l.pbkdf2(&l.pads[lane], 1, l.mixed[:])
	return [32]byte(l.digest[:32])
}

// pbkdf2 sets digest to block number n of PBKDF2 with one iteration.
func (l *Labeler) pbkdf2(p *pads, n uint32, salt []byte) {
	binary.BigEndian.PutUint32(l.counter[:], n)
	l.keccak.Reset()
	l.keccak.Write(p.inner[:])
	l.keccak.Write(salt)
	l.keccak.Write(l.counter[:])
	l.keccak.Read(l.digest[:])
	l.keccak.Reset()
	l.keccak.Write(p.outer[:])
	l.keccak.Write(l.digest[:])
	l.keccak.Read(l.digest[:])
}
