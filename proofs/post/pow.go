package post

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// ErrNotBuiltIn says that a network's proof of work is known but not part of
// this program.
var ErrNotBuiltIn = errors.New("proof of work is not built into this program")

// PoW is the hash that a prover must grind before it may use a nonce group, so
// that trying many nonces costs more than keeping the space. It must be
// deterministic and safe for concurrent use.
//
// The input is LE64(pow)[0:7] || group || challenge[0:8] || node id; the hash
// is valid if it is, big endian, below PowDifficulty divided by the number of
// units. Both are the same for every PoW (reference/post.md 1.2).
type PoW interface {
	// Name is how network parameters name it.
	Name() string
	// Hash fails only if this program or machine cannot compute it.
	Hash(input *[48]byte) ([32]byte, error)
}

const (
	blake3Name = "blake3"
	randomX    = "randomx"
)

// Blake3 is the proof of work of our own networks.
type Blake3 struct{}

// Name returns "blake3".
func (Blake3) Name() string { return blake3Name }

// Hash returns BLAKE3-256 of input.
func (Blake3) Hash(input *[48]byte) ([32]byte, error) { return blake3.Sum256(input[:]), nil }

// notBuiltIn stands for a PoW that we can name but not compute.
type notBuiltIn struct{ name string }

func (n notBuiltIn) Name() string { return n.name }

func (n notBuiltIn) Hash(*[48]byte) ([32]byte, error) {
	return [32]byte{}, fmt.Errorf("post: %s %w: use a network with %s", n.name, ErrNotBuiltIn, blake3Name)
}

// PoWByName returns the PoW that network parameters name. "randomx" gives
// ErrNotBuiltIn.
func PoWByName(name string) (PoW, error) {
	switch name {
	case blake3Name:
		return Blake3{}, nil
	case randomX:
		_, err := notBuiltIn{randomX}.Hash(nil)
		return nil, err
	}
	return nil, fmt.Errorf("post: unknown proof of work %q, have %s", name, blake3Name)
}

// Provable returns ErrNotBuiltIn if this program could never prove a space of these
// parameters: then it should not make one.
func (p Params) Provable() error {
	_, err := p.PoW.Hash(new([48]byte))
	return err
}

// powInput returns what is hashed, with the counter left zero.
func powInput(group uint8, challenge, nodeID *[32]byte) (in [48]byte) {
	in[7] = group
	copy(in[8:16], challenge[:])
	copy(in[16:], nodeID[:])
	return in
}

// powValid reports whether counter solves the proof of work in, whose first 7
// bytes it overwrites.
func powValid(h PoW, in *[48]byte, counter uint64, threshold *[32]byte) (bool, error) {
	group := in[7]
	binary.LittleEndian.PutUint64(in[:], counter)
	in[7] = group
	sum, err := h.Hash(in)
	return bytes.Compare(sum[:], threshold[:]) < 0, err
}

// solvePow returns the smallest counter that is valid. It asks cancelled from
// time to time.
func solvePow(h PoW, in [48]byte, threshold [32]byte, cancelled func() bool) (uint64, error) {
	const askEvery = 256
	for counter := range uint64(MaxPowNonce) {
		if counter%askEvery == 0 && cancelled() {
			return 0, ErrCancelled
		}
		valid, err := powValid(h, &in, counter, &threshold)
		if err != nil {
			return 0, err
		}
		if valid {
			return counter, nil
		}
	}
	return 0, fmt.Errorf("post: no proof of work below %x", threshold)
}
