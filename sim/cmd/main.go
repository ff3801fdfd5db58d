// Command cmd plays one seed of the simulator and prints its transcript, or
// many seeds and prints a line for each. docs/simulator.md explains both.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"tweedle/sim"
)

func main() {
	seed := flag.Uint64("seed", 1, "the first seed")
	seeds := flag.Uint64("seeds", 1, "how many seeds to play; more than one prints no transcript")
	nodes := flag.Int("nodes", 0, "smeshers; 0 draws 5 to 20")
	epochs := flag.Int("epochs", 0, "epochs with ballots; 0 is 4")
	hostile := flag.String("hostile", "", "strategies of smeshers, separated by commas; empty draws them, none is none")
	strangers := flag.String("strangers", "", "strategies of peers without weight; empty draws them, none is none")
	poets := flag.String("poets", "", "kinds of PoETs beside an honest one; empty draws them, none is none")
	age := flag.Int("age", 0, "epochs that passed since genesis before anybody came")
	late := flag.Int("late", 0, "of the nodes, so many join late, with nothing")
	faults := flag.String("faults", "", "none, or empty to draw them")
	keys := flag.Bool("real-keys", false, "sign with ed25519 and ECVRF instead of hashes")
	flag.Usage = func() {
		fmt.Fprintf(os.Stderr, "go run ./sim/cmd --seed 7 --nodes 8 --epochs 4 --hostile two-atxs --strangers none\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	failed := false
	start, virtual := time.Now(), time.Duration(0)
	for s := *seed; s < *seed+*seeds; s++ {
		o := sim.Options{Seed: s, Nodes: *nodes, Epochs: *epochs, Age: *age, Late: *late, Hostile: list(*hostile), Strangers: list(*strangers), Poets: list(*poets), RealKeys: *keys}
		if *faults == "none" {
			o.Faults = &sim.Faults{Latency: 20 * time.Millisecond}
		}
		if *seeds == 1 {
			o.Transcript = os.Stdout
		}
		r := sim.Run(o)
		virtual += r.Virtual
		fmt.Println(r)
		for _, v := range r.Violations {
			failed = true
			fmt.Println("  broken:", v)
		}
	}
	if *seeds > 1 {
		fmt.Printf("%d seeds, %.1f virtual hours, %.1f s\n", *seeds, virtual.Hours(), time.Since(start).Seconds())
	}
	if failed {
		os.Exit(1)
	}
}

func list(s string) []string {
	switch s {
	case "":
		return nil
	case "none":
		return []string{}
	}
	return strings.Split(s, ",")
}
