package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tweedle/base/words"
	"tweedle/proofs/post"
)

// shownDamages is how many places of a file are told one by one.
const shownDamages = 10

func postVerify() *cobra.Command {
	var f spaceFlags
	var files string
	var fraction float64
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Compare stored labels with computed ones",
		Long: `Computes labels anew and compares them with those of the folder: all, which takes
as long as to fill it, or a part drawn from all stretches of each file. It names
each damaged file and place, changes nothing, and exits with 1 if it found any.
Each run with --fraction draws others, unless --seed is given. A node may prove
the same space meanwhile.`,
		Example: "  tweedle post verify --network network.json --dir ~/node/post --fraction 0.001\n" +
			"  tweedle post verify --network network.json --dir ~/node/post --files 3,5-7",
		Args: noArgs,
	}
	f.register(cmd)
	fl := cmd.Flags()
	fl.StringVar(&files, "files", "", "look at these data files only, such as 1,5-7")
	fl.Float64Var(&fraction, "fraction", 1, "part of each file's labels, over 0 to 1")
	seed := fl.Uint64("seed", 0, "draws the labels (default another one in each run)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_, p, err := f.open()
		if err != nil {
			return err
		}
		if !(fraction > 0 && fraction <= 1) {
			return usageError{fmt.Errorf("--fraction %v: must be over 0 and at most 1", fraction)}
		}
		numbers, err := fileNumbers(files)
		if err != nil {
			return err
		}
		opts := post.CheckOptions{Seed: *seed, Files: numbers, Workers: f.workers, Cancel: cancelled(cmd.Context())}
		if fraction < 1 {
			opts.Fraction = fraction
		}
		if !cmd.Flags().Changed("seed") {
			opts.Seed = uint64(time.Now().UnixNano())
		}
		return f.verify(cmd, p, opts)
	}
	return cmd
}

// damages counts what was found by file.
type damages map[string]int

func (f *spaceFlags) verify(cmd *cobra.Command, p post.Params, opts post.CheckOptions) error {
	m := f.meter(cmd, "verifying")
	opts.Progress = func(done, total uint64) { m.tell(done, total, 0) }
	found := damages{}
	opts.Found = func(err error) {
		file, what := placeOf(err)
		found[file]++
		if f.json {
			json.NewEncoder(cmd.OutOrStdout()).Encode(what) //nolint:errcheck // the end tells
			return
		}
		m.end()
		switch n := found[file]; {
		case n <= shownDamages:
			fmt.Fprintln(cmd.OutOrStdout(), strings.TrimPrefix(err.Error(), "post: "))
		case n == shownDamages+1:
			fmt.Fprintf(cmd.OutOrStdout(), "%s has more damage, which is counted only\n", file)
		}
	}
	labels, err := post.Check(f.dir, p, opts)
	m.end()
	if errors.Is(err, post.ErrCancelled) {
		return fmt.Errorf("stopped after %d labels", labels)
	}
	if err != nil {
		return err
	}
	places := 0
	for _, n := range found {
		places += n
	}
	if err := f.print(cmd, checked{"end", labels, places, len(found)},
		"%d labels were computed anew, %d places are damaged\n", labels, places); err != nil {
		return err
	}
	if places == 0 {
		return nil
	}
	return fmt.Errorf("%d places are damaged in %s: mend them with \"tweedle post repair --files\" and the numbers of these files", places, strings.Join(slices.Sorted(maps.Keys(found)), ", "))
}

// place is a line of "post verify" about what it found.
type place struct {
	Type   string  `json:"type"` // damage
	File   string  `json:"file"`
	Offset *int64  `json:"offset_bytes,omitempty"` // in the file
	Label  *uint64 `json:"label,omitempty"`        // number of the damaged one
	Size   *int    `json:"bytes,omitempty"`        // of a part that cannot be read
	Has    *int64  `json:"has_bytes,omitempty"`    // of a file that is missing or short
	Must   *int64  `json:"must_have_bytes,omitempty"`
	Error  string  `json:"error"`
}

// checked is the last line of "post verify".
type checked struct {
	Type   string `json:"type"` // end
	Labels uint64 `json:"labels_checked"`
	Places int    `json:"places_damaged"`
	Files  int    `json:"files_damaged"`
}

// repaired is the last line of "post repair".
type repaired struct {
	Type   string `json:"type"` // end
	Labels uint64 `json:"labels_replaced"`
}

// placeOf returns the file of a finding, and the finding as JSON.
func placeOf(err error) (file string, what place) {
	what = place{Type: "damage", Error: words.Of(err)}
	var damaged *post.DamagedError
	var unreadable *post.UnreadableError
	var missing *post.MissingError
	switch {
	case errors.As(err, &damaged):
		file, what.Offset, what.Label = damaged.File, &damaged.Offset, &damaged.Index
	case errors.As(err, &unreadable):
		file, what.Offset, what.Size = unreadable.File, &unreadable.Offset, &unreadable.Size
	case errors.As(err, &missing):
		file, what.Has, what.Must = missing.File, &missing.Has, &missing.Want
	}
	what.File = file
	return file, what
}

func postRepair() *cobra.Command {
	var f spaceFlags
	var files string
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Compute named data files anew and write what differs",
		Long: `Computes all labels of the named files and writes those that are damaged, missing
or cannot be read. Other files are not touched, and nothing is shortened or
deleted. Stop the node first, or it may wait in vain for its turn.`,
		Example: "  tweedle post repair --network network.json --dir ~/node/post --files 3,5-7",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, p, err := f.open()
			if err != nil {
				return err
			}
			if files == "" {
				return usageError{errors.New("--files: name the files to repair, such as 3 for postdata_3.bin; \"tweedle post verify\" tells which")}
			}
			numbers, err := fileNumbers(files)
			if err != nil {
				return err
			}
			lock, err := f.lock()
			if err != nil {
				return err
			}
			defer lock.Close()
			m := f.meter(cmd, "repairing")
			replaced, err := post.Repair(f.dir, p, numbers, post.InitOptions{
				Workers: f.workers, Cancel: cancelled(cmd.Context()),
				Progress: func(p post.InitProgress) { m.tell(p.Done, p.Total, 0) },
			})
			m.end()
			if errors.Is(err, post.ErrCancelled) {
				return fmt.Errorf("stopped, %d labels were replaced: the same command does the rest", replaced)
			}
			if err != nil {
				return err
			}
			return f.print(cmd, repaired{"end", replaced}, "%d labels were replaced\n", replaced)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&files, "files", "", "numbers of the data files to repair, such as 3,5-7 (required)")
	return cmd
}

func postInfo() *cobra.Command {
	var f spaceFlags
	cmd := &cobra.Command{
		Use:     "info",
		Short:   "Tell what a folder of labels is",
		Example: "  tweedle post info --dir ~/node/post\n  tweedle post info --dir ~/node/post --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.dir == "" {
				return usageError{errors.New("--dir, the folder of the space, is needed")}
			}
			info, err := post.ReadInfo(f.dir)
			if err != nil {
				return err
			}
			return f.print(cmd, info, "%s", infoWords(f.dir, info))
		},
	}
	pathVar(cmd.Flags(), &f.dir, "dir", "", "", "folder of the space (required)")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

func infoWords(dir string, info post.Info) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s"+format+"\n", append([]any{name}, args...)...)
	}
	line("folder", "%s", dir)
	line("smesher", "%s", info.NodeID)
	line("bound to", "ATX %s", info.CommitmentATX)
	line("space", "%d units of %d labels, %s in %d files of %s", info.NumUnits, info.LabelsPerUnit, post.Bytes(info.Labels*post.LabelSize), info.Files, post.Bytes(info.FileSize))
	state := fmt.Sprintf("%d of %d labels (%.1f %%): go on with \"tweedle post init\", or start the node", info.Done, info.Labels, 100*float64(info.Done)/float64(max(1, info.Labels)))
	if info.Finished {
		state = "full"
	}
	if info.Damage != "" {
		state = info.Damage
	}
	line("state", "%s", state)
	if info.VRFNonce != nil {
		line("VRF nonce", "%d", *info.VRFNonce)
	}
	for _, part := range info.Parts {
		line("part", "files %d to %d, %s", part.From, part.To-1, cmp.Or(map[bool]string{true: "full"}[part.Finished], fmt.Sprintf("%d labels", part.Done)))
	}
	return b.String()
}
