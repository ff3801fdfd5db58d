package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tweedle/proofs/posw"
	"tweedle/proofs/posw/bench"
	"tweedle/services/poet/work"
)

// maxBenchSeconds is a day: nobody measures longer by intent.
const maxBenchSeconds = 24 * 60 * 60

func poetBench() *cobra.Command {
	var seconds float64
	var round time.Duration
	var keep uint
	var asJSON bool
	var kernel string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Tell what this machine reaches as a PoET",
		Long: `Computes leaves on one core for a while, proves and verifies them, and tells the
rate, how near it is to what the processor allows, and what a round would need.
Beside it stands each SHA-256 kernel that this processor can run, with its share
of the floor, which is the time that its SHA-256 instructions need at least. It
counts CPU time, so that other programs disturb it little; a quiet machine still
gives the best figures. A mean or maximum far above the minimum says that
something slows the hashing down now and then.`,
		Example: "  tweedle poet bench\n  tweedle poet bench --seconds 30 --round 324h --json\n  tweedle poet bench --kernel portable",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if seconds <= 0 || seconds > maxBenchSeconds || round <= 0 || keep > posw.MaxHeight {
				return usageError{errors.New("--seconds and --round must be positive and not endless, and --keep a height of the tree")}
			}
			if err := useKernel(kernel); err != nil {
				return err
			}
			figures, err := bench.Run(cmd.Context(), time.Duration(seconds*float64(time.Second)), keep)
			if err != nil {
				return err
			}
			if !asJSON {
				_, err = fmt.Fprint(cmd.OutOrStdout(), figures.Words(round))
				return err
			}
			b, err := json.Marshal(figures)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), string(b))
			return err
		},
	}
	fl := cmd.Flags()
	fl.Float64Var(&seconds, "seconds", 5, "time to compute for")
	fl.DurationVar(&round, "round", 324*time.Hour, "length of the round to tell about")
	fl.UintVar(&keep, "keep", work.DefaultK, "height of the lowest tree layer that is kept")
	registerKernel(cmd, &kernel)
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
