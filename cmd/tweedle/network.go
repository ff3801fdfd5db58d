package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tweedle/base/durable"
	"tweedle/edges/preset"
)

func networkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "network", Short: "Make and read the file that says what a network is",
		Example: "  tweedle network new --preset local --layer-duration 1s --layers-per-epoch 20 --proposal-window 500ms --out network.json\n  tweedle network show network.json", Args: noArgs,
	}
	cmd.AddCommand(networkNew(), networkShow(), networkRules())
	return cmd
}

// ruleValue is a flag that sets a rule.
type ruleValue struct {
	rule preset.Rule
	to   *preset.Rules
}

func (v ruleValue) String() string {
	if v.to == nil {
		return ""
	}
	return (*v.to)[v.rule.Name]
}
func (v ruleValue) Type() string { return "value" }
func (v ruleValue) Set(text string) error {
	if err := v.rule.Set(new(preset.Params), text); err != nil {
		return err
	}
	if *v.to == nil {
		*v.to = preset.Rules{}
	}
	(*v.to)[v.rule.Name] = text
	return nil
}

// ruleFlags adds a flag for each rule that a network can have otherwise than its preset.
func ruleFlags(f *pflag.FlagSet, to *preset.Rules) {
	for _, r := range preset.AllRules() {
		f.Var(ruleValue{r, to}, r.Flag(), "rule: "+r.Help)
	}
}

func networkNew() *cobra.Command {
	var kind, name, genesis, out, from string
	var accounts []string
	var asJSON bool
	var changed preset.Rules
	cmd := &cobra.Command{
		Use: "new", Short: "Write the file of a new network: a preset, any rule of it otherwise",
		Long: "Write the file of a new network: the rules of a preset, or those of another network's file, with any of\n" +
			"them otherwise. Its identity covers every rule: nodes that would disagree never speak to each other.",
		Example: "  tweedle network new --preset local --layer-duration 1s --layers-per-epoch 20 --proposal-window 500ms --out network.json\n" +
			"  tweedle network new --from network.json --genesis +10m --account stest1qqq...=1000000 --out second.json",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usageError{errors.New("--out, the file to write, is needed")}
			}
			rules := preset.Rules{}
			if from != "" {
				old, err := preset.Load(from)
				if err != nil {
					return err
				}
				if cmd.Flags().Changed("preset") && old.Preset != kind {
					return usageError{fmt.Errorf("--preset %s: %s is of preset %s, choose one of the two", kind, from, old.Preset)}
				}
				kind = old.Preset
				maps.Copy(rules, old.Rules)
			}
			maps.Copy(rules, changed)
			at, err := parseGenesis(genesis, time.Now())
			if err != nil {
				return usageError{fmt.Errorf("--genesis: %w", err)}
			}
			n := preset.New(kind, rules, at)
			n.Name = cmp.Or(name, n.Name)
			for _, a := range accounts {
				address, amount, ok := strings.Cut(a, "=")
				if !ok {
					return usageError{fmt.Errorf("--account %q is not ADDRESS=AMOUNT", a)}
				}
				balance, err := parseAmount(amount)
				if err != nil {
					return usageError{fmt.Errorf("--account %s: %w", address, err)}
				}
				n.Accounts = append(n.Accounts, preset.Account{Address: address, Balance: balance})
			}
			b, err := n.Marshal()
			if err != nil {
				return usageError{err}
			}
			// If we stop before it is durable, there is no file and nobody has joined.
			err = durable.NewFile(durable.OS{}, out, 0o644, func(w io.Writer) error { _, err := w.Write(b); return err })
			if errors.Is(err, os.ErrExist) {
				return fmt.Errorf("%s is there already: choose another --out, or move it away", out)
			}
			if err != nil {
				return err
			}
			return showNetwork(cmd, n, asJSON)
		},
	}
	f := cmd.Flags()
	pathVar(f, &out, "out", "", "", "file to write; it must not be there")
	pathVar(f, &from, "from", "", "", "network file whose preset and rules are taken over")
	f.StringVar(&kind, "preset", "local", "rules to begin with: "+strings.Join(preset.Names(), ", "))
	f.StringVar(&name, "name", "", "what people call it (default: its preset and six digits)")
	f.StringVar(&genesis, "genesis", "+1m", "genesis time, like 2026-12-01T12:00:00Z, or from now on, like +10m")
	f.StringArrayVar(&accounts, "account", nil, "ADDRESS=AMOUNT at genesis, an amount like `tweedle wallet send` takes; repeatable")
	f.BoolVar(&asJSON, "json", false, "print the network as JSON")
	ruleFlags(f, &changed)
	return cmd
}

// parseGenesis reads a time, or a duration from now on; whole seconds.
func parseGenesis(text string, now time.Time) (time.Time, error) {
	if rest, later := strings.CutPrefix(text, "+"); later {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return time.Time{}, fmt.Errorf("%q is not like +10m", text)
		}
		return preset.After(now.Add(d)), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither a time like 2026-12-01T12:00:00Z nor like +10m", text)
	}
	return at.UTC(), nil
}

func networkShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show FILE", Short: "Say what a network file says: identity, times, each rule", Example: "  tweedle network show network.json",
		Args: exactArgs(1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := preset.Load(args[0])
			if err != nil {
				return err
			}
			return showNetwork(cmd, n, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the network as JSON")
	return cmd
}

// networkShown is a network as its file says it.
type networkShown struct {
	Name         string      `json:"name"`
	Preset       string      `json:"preset"`
	GenesisID    string      `json:"genesis_id"`
	Genesis      time.Time   `json:"genesis_time"`
	EpochSeconds float64     `json:"epoch_seconds"`
	Rules        []ruleShown `json:"rules"`
}

// ruleShown is one rule of a network.
type ruleShown struct {
	Name   string `json:"name"`
	Value  any    `json:"value"`     // a number, or text such as 2s
	Preset bool   `json:"as_preset"` // as its preset has it
}

// showNetwork prints what people compare: who has the same genesis id has the same rules.
func showNetwork(cmd *cobra.Command, n preset.Network, asJSON bool) error {
	p, err := n.Params()
	if err != nil {
		return err
	}
	s := n.Schedule(p)
	if asJSON {
		out := networkShown{n.Name, n.Preset, n.ID().String(), n.Genesis, s.EpochDuration().Seconds(), nil}
		for _, r := range preset.AllRules() {
			_, own := n.Rules[r.Name]
			value := any(r.Value(p))
			if r.Number() {
				value = json.Number(r.Value(p))
			}
			out.Rules = append(out.Rules, ruleShown{r.Name, value, !own})
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(out)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "network\t%s\n", n.Name)
	fmt.Fprintf(w, "genesis id\t%s\n", n.ID())
	fmt.Fprintf(w, "genesis\t%s\n", n.Genesis.Format(time.RFC3339))
	fmt.Fprintf(w, "epoch\t%v, ballots from %s on\n", s.EpochDuration(), s.LayerStart(s.FirstBallotLayer()).Format(time.RFC3339))
	fmt.Fprintf(w, "genesis accounts\t%d\n", len(n.Accounts))
	fmt.Fprintf(w, "rules\tpreset %s, %d otherwise (*)\n", n.Preset, len(n.Rules))
	for _, r := range preset.AllRules() {
		star := ""
		if _, own := n.Rules[r.Name]; own {
			star = " *"
		}
		fmt.Fprintf(w, "  %s\t%s%s\n", r.Name, r.Value(p), star)
	}
	return w.Flush()
}

func networkRules() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "rules", Short: "List the rules that a network can have otherwise than its preset", Example: "  tweedle network rules --preset local",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := preset.Named(name)
			if err != nil {
				return usageError{err}
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, r := range preset.AllRules() {
				value := r.Value(p)
				if len(value) > 16 {
					value = value[:16] + "..."
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, value, r.Help)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&name, "preset", "local", "preset whose values are shown: "+strings.Join(preset.Names(), ", "))
	return cmd
}
