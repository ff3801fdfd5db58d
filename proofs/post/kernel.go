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
	// mix mixes each of the lanes states in x. v has N blocks for each of them.
	mix func(x, v []block)
}

// portable is the name of the kernels that run on every processor, in plain Go. They
// are the judges of all others.
const portable = "portable"

var portableLabels = labelKernel{portable, []mixer{{lanes: 1, mix: func(x, v []block) { romixPortable(&x[0], v) }}}}

// choice is the kernels in use, and why better ones are not.
type choice struct {
	labels labelKernel
	err    error
}

// name is the name by which the choice is made.
func (c choice) name() string { return c.labels.name }

// byHand is the name that UseKernel wants, nil if it was not called.
var byHand atomic.Pointer[string]

// inUse returns the kernels in use. A test puts worse ones here.
var inUse = func() choice { return chosen() }

// chosen chooses the kernels at first use.
var chosen = sync.OnceValue(func() choice {
	var c choice
	labels := labelKernels()
	if name := byHand.Load(); name != nil {
		labels = slices.DeleteFunc(labels, func(k labelKernel) bool { return k.name != *name })
	}
	c.labels, c.err = chooseLabels(labels)
	return c
})

// Kernels returns the names of the kernels that this processor can run, in order of
// what they ask of it, beginning with "portable".
func Kernels() []string {
	var names []string
	for _, k := range labelKernels() {
		names = append(names, choice{labels: k}.name())
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

// chooseLabels returns the fastest of the kernels that pass their self test, else the
// portable one. The error names those that do not pass.
func chooseLabels(kernels []labelKernel) (labelKernel, error) {
	var errs error
	best, least := portableLabels, math.Inf(1)
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
func (k *labelKernel) selfTest() error {
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

// cost measures how long the widest mixer takes for a label of a small cost. It believes
// the shortest of some calls: all else is what disturbs the machine.
func (k *labelKernel) cost() float64 {
	const n, calls = 128, 10
	m := k.mixers[len(k.mixers)-1]
	x, v := make([]block, m.lanes), make([]block, n*m.lanes)
	least := math.Inf(1)
	for range calls {
		start := processor.Ticks()
		m.mix(x, v)
		least = min(least, float64(processor.Ticks()-start))
	}
	return least / float64(m.lanes)
}
