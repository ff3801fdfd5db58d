package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tweedle/edges/preset"
	"tweedle/proofs/post"
	"tweedle/proofs/post/bench"
)

func postProfile() *cobra.Command {
	var seconds float64
	var presetName, kernel string
	var gap time.Duration
	var workers int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Tell what this machine reaches as a smesher",
		Long: `Measures how many labels a core makes in a second of its time, and how fast it
scans them for a proof, at N = 8192 and by the number of nonces that are tried in
a pass; beside it the plain Go of the same. From that it tells how much space can
be proved within the cycle gap, with 95 and 99 % of all challenges solved in one
pass, and what the disk has to give for it.`,
		Example: "  tweedle post profile\n  tweedle post profile --seconds 60 --workers 8 --gap 12h --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if seconds <= 0 || seconds > maxBenchSeconds || gap < 0 || workers < 1 || workers > post.MaxWorkers {
				return usageError{errors.New("--seconds and --gap must be positive and not endless, --workers a number of cores")}
			}
			if err := useKernel(kernel); err != nil {
				return err
			}
			rules, err := preset.Named(presetName)
			if err != nil {
				return usageError{err}
			}
			if gap == 0 {
				gap = rules.PoetCycleGap
			}
			dir, err := os.MkdirTemp("", "tweedle-profile-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			figures, err := bench.Run(cmd.Context(), dir, time.Duration(seconds*float64(time.Second)))
			if err != nil {
				return err
			}
			report := profile{Figures: figures, Workers: workers, CycleGap: gap.Seconds()}
			for _, chance := range []float64{0.95, 0.99} {
				report.Fits = append(report.Fits, fit(figures, rules.Post, chance, gap, workers))
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(report)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), report.words(rules))
			return err
		},
	}
	fl := cmd.Flags()
	fl.Float64Var(&seconds, "seconds", 20, "time to measure for")
	fl.StringVar(&presetName, "preset", "mainnet", "kind of network whose units and cycle gap to tell about")
	fl.DurationVar(&gap, "gap", 0, "time for a proof (default the cycle gap of the preset)")
	fl.IntVar(&workers, "workers", runtime.NumCPU(), "cores that prove")
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	registerKernel(cmd, &kernel)
	return cmd
}

type profile struct {
	bench.Figures
	Workers  int     `json:"workers"`
	CycleGap float64 `json:"cycle_gap_seconds"`
	Fits     []fits  `json:"fits"`
}

// fits is how much space can be proved in time.
type fits struct {
	Chance   float64 `json:"chance"` // that one pass is enough
	Nonces   uint32  `json:"nonces"`
	Units    uint64  `json:"units"` // the most, as far as the processor is concerned
	DiskRate float64 `json:"disk_mib_per_second"`
}

// fit finds how many units a pass goes through within the gap. Rates between the measured
// numbers of nonces are taken from the next larger one: all groups of 16 cost the same.
func fit(f bench.Figures, p post.Params, chance float64, gap time.Duration, workers int) fits {
	nonces := post.NoncesFor(p, chance)
	measured := bench.Nonces[len(bench.Nonces)-1]
	for _, n := range bench.Nonces {
		if n >= nonces {
			measured = n
			break
		}
	}
	rate := f.Prove[measured] * float64(measured) / float64(nonces) * float64(workers) * (1 << 30) // bytes per second
	unit := float64(p.LabelsPerUnit) * post.LabelSize
	units := min(math.Floor(rate*gap.Seconds()/unit), float64(p.MaxUnits))
	return fits{Chance: chance, Nonces: nonces, Units: uint64(units), DiskRate: units * unit / gap.Seconds() / (1 << 20)}
}

func (p profile) words(rules preset.Params) string {
	var b strings.Builder
	b.WriteString(p.Figures.Words())
	unit := rules.Post.LabelsPerUnit * post.LabelSize
	fmt.Fprintf(&b, "\nIn a gap of %v, on %d cores, with units of %s (%s):\n", time.Duration(p.CycleGap*float64(time.Second)), p.Workers, post.Bytes(unit), rules.Name)
	for _, f := range p.Fits {
		fmt.Fprintf(&b, "  %d units, %s, at most: %d nonces solve %.0f %% of challenges in one pass; the disk must give %.0f MiB a second\n",
			f.Units, post.Bytes(f.Units*unit), f.Nonces, 100*f.Chance, f.DiskRate)
	}
	b.WriteString("The proof of work of a nonce group comes before that and is not counted.\n")
	return b.String()
}
