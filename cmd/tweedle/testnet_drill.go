package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tweedle/base/durable"
	"tweedle/services/testnet/drill"
)

func testnetDrill(dir *string) *cobra.Command {
	var o drill.Options
	var plain, asJSON bool
	var page string
	list := ""
	for _, s := range drill.Scripts() {
		list += fmt.Sprintf("  %-16s %s\n", s.Name, s.Proves)
	}
	cmd := &cobra.Command{
		Use:   "drill NAME",
		Short: "Break a testnet of its own as a script says, and check what must hold",
		Long: "Start a testnet of real processes, break it as the named drill says, and check what must hold.\n" +
			"It needs tweedle-watch beside this program (make watch). Exit status 0 only if every check held.\n" +
			"As root each PoET of tweedledee has a small disk of its own, which is filled; without, that is not checked.\n\n" +
			"Drills (docs/drills.md says more):\n" + strings.TrimRight(list, "\n"),
		Example: "  tweedle testnet drill tweedledee --html drill.html\n" +
			"  tweedle testnet drill tweedledee --pull --json | tail -n 1",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("name one drill: see tweedle testnet drill --help")}
			}
			_, err := drill.Find(args[0])
			if err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			script, err := drill.Find(args[0])
			if err != nil {
				return err
			}
			if err := drill.Enter(script); err != nil {
				return err
			}
			if err := useKernel(""); err != nil { // its processes inherit the choice
				return err
			}
			o.View = drill.NewView(os.Stdout)
			switch {
			case asJSON && plain:
				return usageError{fmt.Errorf("--plain and --json: choose one of them")}
			case asJSON:
				o.View = drill.NewJSONView(os.Stdout)
			case plain:
				o.View = drill.NewPlainView(os.Stdout)
			}
			if !script.Variants && o.Flags != (drill.Flags{}) {
				return usageError{fmt.Errorf("drill %s has no variants: leave out --pull and --recycle", script.Name)}
			}
			if cmd.Flags().Changed("dir") {
				o.Dir = *dir
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer stop()
			tl, err := drill.Run(ctx, script, o)
			if err != nil {
				return err
			}
			if page != "" {
				if err := durable.WriteFile(durable.OS{}, page, tl.HTML(), 0o644); err != nil {
					return fmt.Errorf("--html: %w", err)
				}
			}
			if !tl.OK {
				return fmt.Errorf("drill %s: %s", script.Name, strings.Join(tl.Reasons, "; "))
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Flags.Pull, "pull", false, "tweedledee: nodes ask the PoETs for their proofs; in 2020 they did not")
	f.BoolVar(&o.Flags.Recycle, "recycle", false, "tweedledee: PoETs give the slots of dead gateways to others; in 2020 they did not")
	pathVar(f, &page, "html", "", "", "file for the timeline as a page, with a chart")
	f.BoolVar(&plain, "plain", false, "print plain lines, also on a terminal")
	f.BoolVar(&asJSON, "json", false, "print one event a line as JSON; the last one is the summary")
	return cmd
}

// drillClock reads the machine's clock, ahead by what the file in a folder says; without
// the file by nothing.
func drillClock(dir string) func() time.Time {
	return func() time.Time {
		text, err := os.ReadFile(filepath.Join(dir, drill.ClockFile))
		if err != nil {
			return time.Now().Round(0) // without the monotonic reading, as a wall clock
		}
		by, err := time.ParseDuration(strings.TrimSpace(string(text)))
		if err != nil {
			by = 0 // it is being written
		}
		return time.Now().Add(by).Round(0)
	}
}
