package posw

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

//go:generate go run ../gen ..

// kernel is one way to compute SHA-256 on this processor.
type kernel struct {
	serial
	beside []parallel // none if one message after another is all it does
	plan   plan
}

// serial hashes one message, for latency.
type serial struct {
	name string
	// blocks goes on from a state over n blocks of 64 bytes at p. Nil if the kernel
	// hashes whole messages only, by crypto/sha256.
	blocks func(state *node, p *byte, n int)
	// chain hashes a digest n times, as fast as one hash can follow another.
	chain func(d *node, n int)
}

// parallel hashes several messages side by side, for throughput.
type parallel struct {
	name  string // empty if it comes with the serial part of its kernel
	lanes int
	// several goes on from each of the states over n blocks of 64 bytes, that begin in
	// room where at says. Nil if only chains are computed side by side.
	several func(states *[maxLanes]node, room []byte, at *[maxLanes]uint32, n int)
	// chains hashes several digests n times each.
	chains func(d *[maxLanes]node, n int)
}

// maxLanes is the largest number of lanes that a parallel has.
const maxLanes = 16

// newKernel puts a kernel together, with a plan that fills lanes at least by half.
func newKernel(s serial, beside ...parallel) kernel {
	k := kernel{serial: s, beside: beside}
	for n := range k.plan {
		for i, p := range beside {
			if 2*n >= p.lanes && n > 1 {
				k.plan[n] = i + 1
			}
		}
	}
	return k
}

// id is the name by which a kernel is chosen.
func (k kernel) id() string {
	name := k.name
	for _, p := range k.beside {
		if p.name != "" {
			name += "+" + p.name
		}
	}
	return name
}

// plan says by which part of a kernel to go on if so many messages are left: 0 for the
// serial part, else the number of a parallel, from 1.
type plan [maxLanes + 1]int

// next returns the parallel for n messages that are left, nil for one at a time, and
// how many of them it takes.
func (k *kernel) next(n int) (*parallel, int) {
	if i := k.plan[min(n, maxLanes)]; i > 0 {
		p := &k.beside[i-1]
		return p, min(n, p.lanes)
	}
	return nil, 1
}

// width is the number of messages that are worth having at hand.
func (k *kernel) width() int {
	widest := 1
	for n := range k.plan {
		_, taken := k.next(n)
		widest = max(widest, taken)
	}
	return widest
}

// initial is the state in which SHA-256 begins (FIPS 180-4, section 5.3.3).
var initial = node{
	0x6a, 0x09, 0xe6, 0x67, 0xbb, 0x67, 0xae, 0x85, 0x3c, 0x6e, 0xf3, 0x72, 0xa5, 0x4f, 0xf5, 0x3a,
	0x51, 0x0e, 0x52, 0x7f, 0x9b, 0x05, 0x68, 0x8c, 0x1f, 0x83, 0xd9, 0xab, 0x5b, 0xe0, 0xcd, 0x19,
}

// portable runs on every processor.
var portable = serial{
	name: "portable",
	chain: func(d *node, n int) {
		for range n {
			*d = sha256.Sum256(d[:])
		}
	},
}

// choice is the kernel in use, and why a better one is not.
type choice struct {
	kernel kernel
	err    error
	floor  func(n int) // of this processor, nil if none is written for it
}

// byHand is the kernel that UseKernel wants, nil if it was not called.
var byHand atomic.Pointer[string]

// chosen chooses the kernel at first use.
var chosen = sync.OnceValue(func() choice {
	candidates := runnable()
	if name := byHand.Load(); name != nil {
		candidates = slices.DeleteFunc(candidates, func(k kernel) bool { return k.id() != *name })
	}
	k, err := choose(candidates, ticks())
	return choice{k, err, floor()}
})

// choose returns the fastest of the kernels that pass their self test, else the
// portable one. The error names those that do not pass. What it cannot protect from is
// a kernel that faults, as one with a misaligned operand does: that ends the process,
// and only UseKernel helps then.
//
// Speed is measured with the clock, in short runs; without one the last that passes is
// taken, as they stand in order of what they ask of the processor.
func choose(candidates []kernel, clock func() uint64) (kernel, error) {
	var errs error
	var good []kernel
	for _, k := range candidates {
		if err := selfTest(k); err != nil {
			errs = errors.Join(errs, err)
		} else {
			good = append(good, k)
		}
	}
	switch {
	case len(good) == 0:
		return newKernel(portable), errs
	case clock == nil:
		return good[len(good)-1], errs
	}
	return fastest(good, clock), errs
}

// Kernels returns the names of the SHA-256 kernels that this processor can run, in
// order of what they ask of it, beginning with "portable".
func Kernels() []string {
	var names []string
	for _, k := range runnable() {
		names = append(names, k.id())
	}
	return names
}

// Kernel returns the name of the kernel in use. If nobody chose one by UseKernel, it is
// the one of Kernels that a measurement at first use, of some milliseconds, found the
// fastest. The error is not nil if a kernel of this processor failed its self test:
// leaves are then computed by another one, correctly but maybe slowly. A service that
// depends on speed refuses to start on it.
func Kernel() (string, error) {
	c := chosen()
	return c.kernel.id(), c.err
}

// UseKernel chooses the kernel of this process by its name, before anything is computed.
// The error, one line, says which names there are, or that it is too late.
func UseKernel(name string) error {
	if names := Kernels(); !slices.Contains(names, name) {
		return fmt.Errorf("no kernel %q runs on this processor, choose one of: %s", name, strings.Join(names, ", "))
	}
	byHand.Store(&name)
	inUse, err := Kernel()
	if err == nil && inUse != name {
		err = fmt.Errorf("kernel %s is in use already, %s cannot be chosen any more", inUse, name)
	}
	return err
}

// selfTest compares a kernel with the portable one on messages and chains of all the
// shapes that labels and nodes have.
func selfTest(k kernel) error {
	fail := func(what string) error {
		return fmt.Errorf("the %s kernel of posw computes a wrong %s on this processor: do not trust this machine", k.id(), what)
	}
	h, twin := newHasher(k, initial[:]), newHasher(newKernel(portable), initial[:])
	var parked [MaxHeight + 1]node
	d := node(sha256.Sum256(initial[:]))
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
	for _, n := range []int{0, 1, 2, 33, LeafHashes - 1} {
		a, b := parked[n%7], parked[n%7]
		k.chain(&a, n)
		portable.chain(&b, n)
		if a != b {
			return fail("chain")
		}
	}
	for i := range k.beside {
		if err := k.beside[i].selfTest(fail); err != nil {
			return err
		}
	}
	return nil
}

// selfTest tests all lanes, of which the first few would do if it trusted them.
func (p *parallel) selfTest(fail func(what string) error) error {
	var states, twins [maxLanes]node
	var at [maxLanes]uint32
	room := make([]byte, maxLanes*(2*blockSize+4))
	for i, d := 0, initial; i < len(room); i += len(d) {
		d = sha256.Sum256(d[:])
		copy(room[i:], d[:])
	}
	for _, n := range []int{0, 1, 2, 33, LeafHashes - 1} {
		for i := range p.lanes {
			states[i] = node(room[32*i:])
			twins[i] = states[i]
			portable.chain(&twins[i], n)
		}
		p.chains(&states, n)
		if states != twins {
			return fail("set of chains")
		}
	}
	if p.several == nil {
		return nil
	}
	for n := range 3 { // blocks; the last has the padding
		for i := range p.lanes {
			at[i] = uint32(132 * i)
			message := room[at[i]:][:n*blockSize]
			if n > 0 {
				pad(message, max(0, len(message)-minPadding-i))
				twins[i] = sha256.Sum256(message[:len(message)-minPadding-i])
			} else {
				twins[i] = initial
			}
			states[i] = initial
		}
		p.several(&states, room, &at, n)
		if states != twins {
			return fail("set of messages")
		}
	}
	return nil
}
