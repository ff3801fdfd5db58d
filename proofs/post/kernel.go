package post

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"tweedle/proofs/processor"
)

//go:generate go run ../gen ..

// labelKernel is one way to compute labels on this processor.
type labelKernel struct {
	name   string
	mixers []mixer // by their lanes, fewest first
}

// mixer runs ROMix on several states at once.
type mixer struct {
	lanes int
	// cost of a call, whatever it mixes: processor ticks at a small N, 0 if it was not
	// measured.
	cost float64
	// mix mixes each of the lanes states in x. v has N blocks for each of them.
	mix func(x, v []block)
}

// portable is the name of the kernels that run on every processor, in plain Go. They
// are the judges of all others.
const portable = "portable"

var portableLabels = labelKernel{portable, []mixer{one}}

// one mixes a state by itself. A kernel has it too: lanes of which one is used take longer
// on some processors.
var one = mixer{lanes: 1, mix: func(x, v []block) { romixPortable(&x[0], v) }}

// choice is the kernels in use, and why better ones are not.
type choice struct {
	labels labelKernel
	scan   scanKernel
	err    error
}

// name is the name by which the choice is made: of what is not portable.
func (c choice) name() string {
	switch {
	case c.scan.name == portable:
		return c.labels.name
	case c.labels.name == portable:
		return c.scan.name
	}
	return c.labels.name + "+" + c.scan.name
}

// choices returns all kernels for labels with all for scanning.
func choices() []choice {
	var all []choice
	for _, labels := range labelKernels() {
		for _, scan := range scanKernels() {
			all = append(all, choice{labels: labels, scan: scan})
		}
	}
	return all
}

// byHand is the name that UseKernel wants, nil if it was not called.
var byHand atomic.Pointer[string]

// inUse returns the kernels in use. A test puts worse ones here.
var inUse = func() choice { return chosen() }

// chosen chooses the kernels at first use.
var chosen = sync.OnceValue(func() choice {
	labels, scans := labelKernels(), scanKernels()
	if name := byHand.Load(); name != nil {
		for _, c := range choices() {
			if c.name() == *name {
				labels, scans = []labelKernel{c.labels}, []scanKernel{c.scan}
			}
		}
	}
	var c choice
	var wrongLabels, wrongScan error
	for i, k := range labels {
		labels[i] = k.measure()
	}
	c.labels, wrongLabels = fastest(labels, portableLabels)
	c.scan, wrongScan = fastest(scans, portableScan)
	c.err = errors.Join(wrongLabels, wrongScan)
	return c
})

// Kernels returns the names of the kernels that this processor can run, in order of
// what they ask of it, beginning with "portable".
func Kernels() []string {
	var names []string
	for _, c := range choices() {
		names = append(names, c.name())
	}
	return names
}

// Kernel returns the name of the kernel in use. If nobody chose one by UseKernel, it is
// what a measurement at first use, of some milliseconds, found the fastest. The error is
// not nil if a kernel of this processor failed its self test: another one is in use
// then, which is right but maybe slow.
func Kernel() (string, error) {
	c := chosen()
	return c.name(), c.err
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

// tested is what a kernel is chosen by.
type tested interface {
	selfTest() error
	cost() float64
}

// fastest returns the fastest of the kernels that pass their self test, else the portable
// one. The error names those that do not pass.
func fastest[K tested](kernels []K, portable K) (K, error) {
	var errs error
	best, least := portable, math.Inf(1)
	for _, k := range kernels {
		if err := k.selfTest(); err != nil {
			errs = errors.Join(errs, err)
		} else if cost := k.cost(); cost < least {
			best, least = k, cost
		}
	}
	return best, errs
}

// selfTest compares a kernel with the portable one, on states that differ from lane to
// lane, and so in what they read.
func (k labelKernel) selfTest() error {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, m := range k.mixers {
		for _, n := range []int{2, 16, 64} {
			x := make([]block, m.lanes)
			for i := range x {
				for w := range x[i] {
					x[i][w] = rng.Uint32()
				}
			}
			want := slices.Clone(x)
			for i := range want {
				romixPortable(&want[i], make([]block, n))
			}
			if m.mix(x, make([]block, n*m.lanes)); !slices.Equal(x, want) {
				return fmt.Errorf("the %s kernel of post computes wrong labels on this processor: do not trust this machine", k.name)
			}
		}
	}
	return nil
}

// measure returns the kernel with the costs of its mixers.
func (k labelKernel) measure() labelKernel {
	const n = 128
	mixers := slices.Clone(k.mixers)
	for i, m := range mixers {
		x, v := make([]block, m.lanes), make([]block, n*m.lanes)
		mixers[i].cost = shortest(func() { m.mix(x, v) })
	}
	return labelKernel{k.name, mixers}
}

// cost is what a label costs by the widest mixer, as measure found it.
func (k labelKernel) cost() float64 {
	m := k.mixers[len(k.mixers)-1]
	return m.cost / float64(m.lanes)
}

// selfTest compares a kernel with the portable one, on labels of which many pass the
// eager cipher and half of those the lazy one.
func (k scanKernel) selfTest() error {
	labels, g := scanSample()
	d := difficulty{lsb: 1 << 55}
	for _, n := range []int{len(labels), 0, LabelSize, 17 * LabelSize} {
		if !slices.Equal(k.scan(nil, labels[:n], 1<<40, g, d), scanPortable(nil, labels[:n], 1<<40, g, d)) {
			return fmt.Errorf("the %s kernel of post finds wrong labels on this processor: do not trust this machine", k.name)
		}
	}
	return nil
}

// cost measures how long a scan takes, in which as good as nothing passes.
func (k scanKernel) cost() float64 {
	labels, g := scanSample()
	return shortest(func() { k.scan(nil, labels, 0, g, difficulty{lsb: 1}) })
}

// scanSample returns labels to try a kernel on.
func scanSample() ([]byte, *nonceGroup) {
	labels := make([]byte, (1<<10+9)*LabelSize)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(labels) //nolint:errcheck // it never fails
	return labels, newNonceGroup(&[32]byte{2}, nonceGroupSize, 3)
}

// shortest returns the shortest time of some calls: all else is what disturbs the
// machine.
func shortest(f func()) float64 {
	least := math.Inf(1)
	for range 10 {
		start := processor.Ticks()
		f()
		least = min(least, float64(processor.Ticks()-start))
	}
	return least
}
