package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tweedle/edges/preset"
	"tweedle/services/testnet"
)

func testnetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "testnet",
		Short:   "Start a whole network on this machine, and operate it",
		Example: "  tweedle testnet up\n  tweedle testnet status\n  tweedle testnet kill node-3 && tweedle testnet restart node-3",
		Args:    noArgs,
	}
	dir := new(string)
	pathVar(cmd.PersistentFlags(), dir, "dir", "", defaultTestnetDir(), "directory that holds everything")
	cmd.AddCommand(
		testnetUp(dir), testnetDrill(dir), testnetStatus(dir), testnetEnv(dir), testnetLogs(dir), testnetSnapshot(dir),
		testnetDo(dir, testnet.Kill, "NAME...", "Kill processes (SIGKILL); they stay down until restarted", "node-2"),
		testnetDo(dir, testnet.Pause, "NAME...", "Stop the clock of processes (SIGSTOP)", "node-2"),
		testnetDo(dir, testnet.Resume, "NAME...", "Let paused processes go on (SIGCONT)", "node-2"),
		testnetDo(dir, testnet.Restart, "NAME...", "Start processes again, with the addresses they had", "node-2 poet-1"),
		testnetDo(dir, testnet.Move, "NAME...", "Start processes again under other addresses, as after a move to another machine", "node-2"),
		testnetDo(dir, testnet.Add, "node|poet...", "Add and start processes; nodes that run learn of a new PoET when they are restarted", "node"),
		testnetDo(dir, testnet.Down, "[NAME...]", "Stop processes in order; without names, the whole testnet", ""),
	)
	return cmd
}

// defaultTestnetDir is the same in every folder, so that later commands find
// the testnet from anywhere.
func defaultTestnetDir() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return "testnet-data"
	}
	return filepath.Join(home, ".tweedle", "testnet")
}

func testnetUp(dir *string) *cobra.Command {
	var o testnet.Options
	var plain, asJSON bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a testnet in the foreground, or continue the one in --dir",
		Long: "Start nodes and PoET servers as processes on loopback, or continue the testnet that is in --dir\n" +
			"with the same genesis. Ctrl-C stops everything; a later `up` goes on.\n" +
			"With --epochs N it ends after N full epochs with ballots, and succeeds only if all nodes agree.",
		Example: "  tweedle testnet up\n  tweedle testnet up --nodes 5 --poets 2 --epochs 4 --json --dir /tmp/net\n" +
			"  tweedle testnet up --supervise --alert-webhook https://example.com/hook",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if plain && asJSON {
				return usageError{errors.New("--plain and --json: choose one of them")}
			}
			// Its processes inherit the choice, and genesis waits for their labels.
			if err := useKernel(""); err != nil {
				return err
			}
			o.Dir, o.View = *dir, testnet.NewView(os.Stdout)
			switch {
			case asJSON:
				o.View = testnet.NewJSONView(os.Stdout)
			case plain:
				o.View = testnet.NewPlainView(os.Stdout)
			}
			for _, name := range []string{"nodes", "poets", "gateways"} { // left out they have a default, which is not 0
				if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "0" {
					return usageError{fmt.Errorf("--%s 0: a testnet needs at least one", name)}
				}
			}
			if err := o.Validate(); err != nil {
				return usageError{err}
			}
			// A closed terminal is an order to stop, too.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer stop()
			sum, err := testnet.Up(ctx, o)
			if err == nil && o.Epochs > 0 && !sum.OK {
				err = fmt.Errorf("the testnet did not do well: %s", strings.Join(sum.Reasons, "; "))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Nodes, "nodes", 0, fmt.Sprintf("smeshing nodes (default %d)", testnet.DefaultNodes))
	f.IntVar(&o.Poets, "poets", 0, fmt.Sprintf("PoET servers (default %d)", testnet.DefaultPoets))
	f.IntVar(&o.Gateways, "gateways", 0, fmt.Sprintf("nodes that the PoETs deliver to (default %d, or all if there are fewer)", testnet.DefaultGateways))
	f.StringVar(&o.Preset, "preset", "", "network parameters: "+strings.Join(preset.Names(), ", ")+" (default \""+testnet.DefaultPreset+"\")")
	ruleFlags(f, &o.Rules)
	f.IntVar(&o.Epochs, "epochs", 0, "end after so many full epochs with ballots (default: run until Ctrl-C)")
	f.Float64Var(&o.TxRate, "tx-rate", testnet.DefaultTxRate, "transactions to send per second; 0: none")
	f.Uint64Var(&o.MaxLeavesPerSecond, "max-leaves-per-second", 0, fmt.Sprintf("speed limit of each PoET (default %d)", testnet.DefaultLeavesPerSecond))
	f.BoolVar(&o.Supervise, "supervise", false, "start again what has crashed, after 0.5 s, doubled each time to a minute")
	f.StringVar(&o.AlertWebhook, "alert-webhook", "", "URL that gets the alerts; it needs tweedle-watch (make watch) beside this program or on PATH")
	f.IntVar(&o.BasePort, "base-port", 0, fmt.Sprintf("fix all ports from this one on, %d to %d (default: any that are free): the page has it, node-3 +30 to +33, poet-2 +1020 to +1023", testnet.MinBasePort, testnet.MaxBasePort))
	f.BoolVar(&o.Fresh, "fresh", false, "delete the testnet in --dir and start a new one")
	f.BoolVar(&plain, "plain", false, "print plain lines, also on a terminal")
	f.BoolVar(&asJSON, "json", false, "print one event a line as JSON; the last one is the summary")
	return cmd
}

func testnetEnv(dir *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print addresses and the funded key for a shell, and a command that joins",
		Example: "  tweedle testnet env --json\n" +
			"  eval \"$(tweedle testnet env)\" && tweedle wallet balance -k $TWEEDLE_FAUCET_KEY --node $TWEEDLE_GRPC",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := filepath.Abs(*dir)
			if err != nil {
				return err
			}
			env, err := testnet.ReadEnv(cmd.Context(), path)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(env)
			}
			program, err := os.Executable()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), env.Text(program))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func testnetStatus(dir *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show what every process does",
		Example: "  tweedle testnet status\n  tweedle testnet status --json --dir /tmp/net",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := testnet.ReadStatus(cmd.Context(), *dir)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(s)
			}
			lines := s.Text(time.Now())
			if out, ok := cmd.OutOrStdout().(*os.File); ok {
				lines = testnet.Fit(out, lines)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(lines, "\n"))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func testnetSnapshot(dir *string) *cobra.Command {
	parent := &cobra.Command{
		Use: "snapshot", Short: "Keep a whole testnet that is down in a file, and load it again",
		Long: `Keeps everything of a testnet that is down, keys and logs too, in one file that
only you can read, or makes that testnet again in an empty directory. What is
loaded goes on with the same genesis when it is started, as if it had been down
meanwhile: epochs that passed are missed. Never run it beside the testnet that it
was saved from: both have the same keys.`,
		Example: "  tweedle testnet snapshot save before.tar.gz\n" +
			"  tweedle testnet snapshot load before.tar.gz --dir /tmp/again && tweedle testnet up --dir /tmp/again",
		Args: noArgs,
	}
	var asJSON bool
	print := func(cmd *cobra.Command, v any, text string) error {
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
		return err
	}
	parent.AddCommand(
		&cobra.Command{
			Use: "save FILE", Short: "Write a new file with everything of the testnet in --dir, which is down",
			Example: "  tweedle testnet snapshot save before.tar.gz --dir /tmp/net", Args: exactArgs(1, "FILE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				size, err := testnet.Save(*dir, args[0])
				if err != nil {
					return err
				}
				return print(cmd, written{args[0], size},
					fmt.Sprintf("%s holds the testnet, %d bytes; to load it: tweedle testnet snapshot load %s --dir DIR", args[0], size, shellWord(args[0])))
			},
		},
		&cobra.Command{
			Use: "load FILE", Short: "Make the testnet of a file in --dir, which is empty or not there",
			Example: "  tweedle testnet snapshot load before.tar.gz --dir /tmp/again", Args: exactArgs(1, "FILE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := testnet.Load(args[0], *dir); err != nil {
					return err
				}
				return print(cmd, loaded{*dir}, fmt.Sprintf("the testnet is in %s; to start it: tweedle testnet up --dir %s", *dir, shellWord(*dir)))
			},
		},
	)
	for _, c := range parent.Commands() {
		c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	}
	return parent
}

// loaded is what "testnet snapshot load" reports.
type loaded struct {
	Dir string `json:"dir"` // of the testnet
}

func testnetLogs(dir *string) *cobra.Command {
	var o testnet.LogOptions
	var since, level, grep string
	cmd := &cobra.Command{
		Use:   "logs [NAME...]",
		Short: "Print the end of the processes' logs, of all if none is named",
		Example: "  tweedle testnet logs node-1 -f\n  tweedle testnet logs -n 5\n" +
			"  tweedle testnet logs --since 2m --level warn\n  tweedle testnet logs node-2 --grep 'epoch=7|proof' -f",
		ValidArgsFunction: processNames(dir),
		RunE: func(cmd *cobra.Command, names []string) (err error) {
			if o.Lines < 0 {
				return usageError{fmt.Errorf("%d lines: choose 0 or more with -n", o.Lines)}
			}
			if since != "" {
				if o.Since, err = sinceTime(since, time.Now()); err != nil {
					return err
				}
				if !cmd.Flags().Changed("lines") {
					o.Lines = 0
				}
			}
			if level != "" {
				if o.Level, err = logLevel("level", level); err != nil {
					return err
				}
			}
			if grep != "" {
				if o.Grep, err = regexp.Compile(grep); err != nil {
					return usageError{fmt.Errorf("--grep: %w", err)}
				}
			}
			return testnet.Logs(cmd.Context(), *dir, names, o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on with what is added, until Ctrl-C")
	f.IntVarP(&o.Lines, "lines", "n", 40, "how many lines of each log, the last ones; with --since all of them")
	f.StringVar(&since, "since", "", "lines from then on: a time before now, like 5m, or one like 2026-12-01T00:00:00Z")
	f.StringVar(&level, "level", "", "lines of this level and worse: debug, info, warn or error")
	f.StringVar(&grep, "grep", "", "lines in which this regular expression is found")
	return cmd
}

// sinceTime reads a time, or how long before now it was.
func sinceTime(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usageError{fmt.Errorf("--since %q: give how long ago, like 5m, or a time like 2026-12-01T00:00:00Z", text)}
	}
	return at, nil
}

// testnetDo is a command that the running `up` carries out.
func testnetDo(dir *string, c testnet.Command, args, short, example string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     string(c) + " " + args,
		Short:   short,
		Example: strings.TrimRight("  tweedle testnet "+string(c)+" "+example, " "),
		Args: func(_ *cobra.Command, names []string) error {
			if len(names) == 0 && c != testnet.Down {
				return usageError{fmt.Errorf("%s what? name it: tweedle testnet %s %s", c, c, args)}
			}
			for _, n := range names {
				if c == testnet.Add && testnet.Kind(n) != testnet.Node && testnet.Kind(n) != testnet.Poet {
					return usageError{fmt.Errorf("cannot add %q: add node or poet", n)}
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, names []string) error {
			done, err := testnet.Do(cmd.Context(), *dir, c, names...)
			if asJSON {
				return errors.Join(err, json.NewEncoder(cmd.OutOrStdout()).Encode(carriedOut{done}))
			}
			for _, name := range done {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", c, name)
			}
			if err == nil && c == testnet.Down && len(names) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "the testnet in %s is down\n", *dir)
			}
			return err
		},
	}
	cmd.ValidArgsFunction = processNames(dir)
	if c == testnet.Add {
		cmd.ValidArgsFunction = cobra.FixedCompletions([]string{string(testnet.Node), string(testnet.Poet)}, cobra.ShellCompDirectiveNoFileComp)
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the names of the processes it was done to as JSON")
	return cmd
}

// carriedOut is what the commands report that a running testnet carries out.
type carriedOut struct {
	Done []string `json:"done"` // names of the processes it was done to
}
