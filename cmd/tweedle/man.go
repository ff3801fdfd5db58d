package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/preset"
	"tweedle/proofs/post"
	"tweedle/proofs/posw"
	"tweedle/services/testnet"
)

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write a man page for each command into a folder",
		Long: `Writes a page of section 1 for each command into a folder: those of this very
program, from what --help says. Completion for a shell is made by
tweedle completion.`,
		Example: "  tweedle man ./man1\n  man -l ./man1/tweedle-testnet-up.1",
		Args:    exactArgs(1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := expandPath(args[0])
			if err != nil {
				return usageError{err}
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			return manPages(cmd.Root(), dir)
		},
	}
}

// manPages writes the page of a command, and those of the commands below it.
func manPages(cmd *cobra.Command, dir string) error {
	for _, sub := range cmd.Commands() {
		if sub.Name() == "help" {
			continue
		}
		if err := manPages(sub, dir); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, manName(cmd)+".1"), []byte(manPage(cmd)), 0o644)
}

func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// roff is a text as it stands: no line of it is a request, no hyphen a dash.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	return regexp.MustCompile(`(?m)^([.'])`).ReplaceAllString(text, `\&$1`)
}

// manPage is what --help says of a command, for man.
func manPage(cmd *cobra.Command) string {
	cmd.InitDefaultHelpFlag()
	var b strings.Builder
	part := func(name, text string) { fmt.Fprintf(&b, ".SH %s\n%s\n", name, text) }
	verbatim := func(text string) string { return ".nf\n" + roff(text) + "\n.fi" }
	fmt.Fprintf(&b, ".TH %q 1 \"\" %q Tweedle\n", strings.ToUpper(manName(cmd)), "tweedle "+version())
	part("NAME", roff(manName(cmd))+` \- `+roff(cmd.Short))
	part("SYNOPSIS", roff(cmd.UseLine()))
	if cmd.Long != "" {
		part("DESCRIPTION", verbatim(cmd.Long))
	}
	var options strings.Builder
	option := func(f *pflag.Flag) {
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if zero := f.DefValue == "" || f.DefValue == "0" || f.DefValue == "false" || f.DefValue == "[]"; !zero {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(&options, ".TP\n%s\n%s\n", roff(strings.TrimSpace(name+" "+kind)), roff(usage))
	}
	cmd.LocalFlags().VisitAll(option)
	cmd.InheritedFlags().VisitAll(option)
	part("OPTIONS", strings.TrimSuffix(options.String(), "\n"))
	if cmd.Example != "" {
		part("EXAMPLES", verbatim(cmd.Example))
	}
	var also []string
	if cmd.HasParent() {
		also = append(also, manName(cmd.Parent())+"(1)")
	}
	for _, sub := range cmd.Commands() {
		also = append(also, manName(sub)+"(1)")
	}
	part("EXIT STATUS", "0: done. 1: it failed. 2: it was called in a wrong way.")
	part("SEE ALSO", roff(strings.Join(also, ", ")))
	return b.String()
}

// askTimeout bounds what a completion asks of a server: a person waits for it.
const askTimeout = time.Second

// completions tells shells what can be written: names of processes and presets, kernels, rounds
// and gateways. Everything else that is a value may be a path.
func completions(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		completions(sub)
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		values := map[string]func() []string{
			"preset":    preset.Names,
			"kernel":    func() []string { return append(posw.Kernels(), post.Kernels()...) },
			"log-level": func() []string { return []string{"debug", "info", "warn", "error"} },
		}[f.Name]
		if values == nil {
			return
		}
		must(cmd.RegisterFlagCompletionFunc(f.Name, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return values(), cobra.ShellCompDirectiveNoFileComp
		}))
	})
	if cmd.ValidArgsFunction == nil && !strings.Contains(cmd.Use, " ") {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
}

// must panics: a completion cannot be registered twice.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("tweedle: %v", err))
	}
}

// processNames completes names of a testnet's processes, each once.
func processNames(dir *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		names, err := testnet.Names(*dir)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError | cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// ofServer completes with what a running PoET server says.
func ofServer(ask func(context.Context, adminClient) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) (values []string, _ cobra.ShellCompDirective) {
		dir, err := cmd.Flags().GetString("dir")
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		err = (&adminFlags{dir: dir}).connected(cmd.Context(), askTimeout, func(ctx context.Context, c adminClient) (err error) {
			values, err = ask(ctx, c)
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError | cobra.ShellCompDirectiveNoFileComp
		}
		return values, cobra.ShellCompDirectiveNoFileComp
	}
}

// roundsWithProof completes rounds whose proof is stored.
func roundsWithProof(ctx context.Context, c adminClient) (rounds []string, err error) {
	r, err := c.ListProofs(ctx, &poetadminpb.ListProofsRequest{})
	for _, p := range r.GetProofs() {
		rounds = append(rounds, p.GetRoundId())
	}
	return rounds, err
}

func gatewayAddresses(ctx context.Context, c adminClient) (addresses []string, err error) {
	r, err := c.ListGateways(ctx, &poetadminpb.ListGatewaysRequest{})
	for _, g := range r.GetGateways() {
		addresses = append(addresses, g.GetAddress())
	}
	return addresses, err
}
