// Command tweedle runs and operates a Spacemesh-style network: node, PoET
// server, local testnet, wallet.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"

	"tweedle/base/telemetry"
	"tweedle/base/words"
)

// usageError marks a mistake in how the command was called: exit status 2.
type usageError struct{ error }

// Exit statuses of the command contract.
const (
	exitFailed = 1
	exitUsage  = 2
)

// stderr is the standard error stream, for the log and for what this program says
// at its end. A reader that stopped does not stop the program.
var stderr = telemetry.NewLines(os.Stderr)

// lastWords is how long the end of the program waits for who reads them.
const lastWords = time.Second

func main() {
	log.SetOutput(stderr) // of libraries
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, stderr))
	os.Exit(run(rootCommand()))
}

func run(root *cobra.Command) int {
	defer stderr.Flush(lastWords)
	if err := telemetry.ReportCrashes(); err != nil {
		fmt.Fprintln(stderr, "tweedle:", err) // and go on: a crash has its words on stderr, too
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root.ExecuteContext(ctx)
	stop()
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "tweedle:", words.Of(err))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "tweedle",
		Short:         "A space-time network: node, PoET server, space, local testnet, wallet",
		Example:       "  tweedle testnet up\n  tweedle node --help",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("tweedle {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		nodeCommand(),
		poetCommand(),
		postCommand(),
		versionCommand(),
		manCommand(),
		networkCommand(),
		testnetCommand(),
		walletCommand(),
	)
	strict(root)
	completions(root)
	root.DisableAutoGenTag = true // of man pages: a date of today
	return root
}

// strict makes every mistake in the arguments of a command, and of those below
// it, a usageError. Left alone, a command that only has commands below it
// answers a wrong one with its help, and succeeds.
func strict(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
	if !cmd.Runnable() {
		cmd.Args, cmd.RunE = unknownCommand, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		return
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	const maxTypos = 2
	cmd.SuggestionsMinimumDistance = maxTypos
	hint := fmt.Sprintf("see %s --help", cmd.CommandPath())
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{fmt.Errorf("unknown command %q of %s: %s", args[0], cmd.CommandPath(), hint)}
}
