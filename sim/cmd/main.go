// Command cmd plays one seed of the simulator and prints its transcript, or
// many seeds and prints a line for each. docs/simulator.md explains both.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"tweedle/sim"
)

func main() {
	o, seeds, shrink, err := sim.Parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	failed := false
	start, virtual := time.Now(), time.Duration(0)
	for s := o.Seed; s < o.Seed+seeds; s++ {
		one := o
		one.Seed = s
		if seeds == 1 {
			one.Transcript = os.Stdout
		}
		r := sim.Run(one)
		virtual += r.Virtual
		fmt.Println(r)
		for _, v := range r.Violations {
			fmt.Println("  broken:", v)
		}
		if len(r.Violations) == 0 {
			continue
		}
		failed = true
		if shrink {
			least, runs := sim.Shrink(one, 200, func(o sim.Options) bool { return len(sim.Run(o).Violations) > 0 })
			fmt.Printf("after %d runs the least that fails is\n%s\n%s\n", runs, least.Command(), least.Test())
		}
	}
	if seeds > 1 {
		fmt.Printf("%d seeds, %.1f virtual hours, %.1f s\n", seeds, virtual.Hours(), time.Since(start).Seconds())
	}
	if failed {
		os.Exit(1)
	}
}
