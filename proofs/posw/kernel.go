package posw

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
)

//go:generate go run ./gen .

// lanes is the number of chains that a kernel runs side by side.
const lanes = 4

// kernel is one way to compute SHA-256.
type kernel struct {
	name string
	// blocks goes on from a state over n blocks of 64 bytes at p. Nil if the kernel
	// hashes whole messages only, by crypto/sha256.
	blocks func(state *node, p *byte, n int)
	// several does so with n blocks of each of several messages. Nil if blocks is.
	several func(states *[lanes]node, p *[lanes]*byte, n int)
	// chain hashes a digest n times, as fast as one hash can follow another.
	chain func(d *node, n int)
	// chains does so with several digests at once, as many hashes a second as it can.
	chains func(d *[lanes]node, n int)
}

// initial is the state in which SHA-256 begins (FIPS 180-4, section 5.3.3).
var initial = node{
	0x6a, 0x09, 0xe6, 0x67, 0xbb, 0x67, 0xae, 0x85, 0x3c, 0x6e, 0xf3, 0x72, 0xa5, 0x4f, 0xf5, 0x3a,
	0x51, 0x0e, 0x52, 0x7f, 0x9b, 0x05, 0x68, 0x8c, 0x1f, 0x83, 0xd9, 0xab, 0x5b, 0xe0, 0xcd, 0x19,
}

// portable runs on every processor.
var portable = kernel{
	name: "portable",
	chain: func(d *node, n int) {
		for range n {
			*d = sha256.Sum256(d[:])
		}
	},
	chains: func(d *[lanes]node, n int) {
		for i := range d {
			for range n {
				d[i] = sha256.Sum256(d[i][:])
			}
		}
	},
}

// choice is the kernel in use, and why a better one is not.
type choice struct {
	kernel kernel
	err    error
	floor  func(n int) // of this processor, nil if none is written for it
}

// chosen tests the kernels of this processor at first use.
var chosen = sync.OnceValue(func() choice {
	k, err := choose(accelerated())
	return choice{k, err, floor()}
})

// choose returns the first kernel that passes its self test, else the portable one.
// The error names those that did not pass.
func choose(candidates []kernel) (kernel, error) {
	var errs error
	for _, k := range candidates {
		err := selfTest(k)
		if err == nil {
			return k, errs
		}
		errs = errors.Join(errs, err)
	}
	return portable, errs
}

// Kernel returns the name of the SHA-256 kernel in use: "sha-ni" (x86), "sha2"
// (ARMv8) or "portable", the last where the processor has no SHA-256 instructions
// that this package knows. The error is not nil if a kernel of this processor failed
// its self test: leaves are then computed by another one, correctly but slowly. A
// service that depends on speed refuses to start on it.
func Kernel() (string, error) {
	c := chosen()
	return c.kernel.name, c.err
}

// selfTest compares a kernel with the portable one on messages and chains of all the
// shapes that labels and nodes have.
func selfTest(k kernel) error {
	fail := func(what string) error {
		return fmt.Errorf("the %s kernel of posw computes a wrong %s on this processor: do not trust this machine", k.name, what)
	}
	h, twin := newHasher(k, initial[:]), newHasher(portable, initial[:])
	var parked [MaxHeight + 1]node
	d := sha256.Sum256(initial[:])
	for i := range parked {
		parked[i] = d
		d = sha256.Sum256(d[:])
	}
	for i := range uint64(64) {
		if index := i * (MaxLeaves - 1) / 63; h.first(index, &parked) != twin.first(index, &parked) {
			return fail("message hash")
		}
		if a, b := parked[i%40], parked[i%40+1]; h.parent(&a, &b) != twin.parent(&a, &b) {
			return fail("node")
		}
	}
	for n := range 8 {
		a, b := parked[n], parked[n]
		k.chain(&a, n*57)
		portable.chain(&b, n*57)
		if a != b {
			return fail("chain")
		}
		several := [lanes]node(parked[n : n+lanes])
		twins := several
		k.chains(&several, n*57)
		portable.chains(&twins, n*57)
		if several != twins {
			return fail("set of chains")
		}
		msgs := make([][]byte, lanes)
		for i := range msgs {
			msgs[i] = make([]byte, n*(1+i)*29, padded(n*(1+i)*29))
			copy(msgs[i], d[:])
		}
		h.sums(msgs...)
		twin.sums(msgs...)
		if h.several != twin.several {
			return fail("set of messages")
		}
	}
	return nil
}
