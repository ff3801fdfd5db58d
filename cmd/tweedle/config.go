package main

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tweedle/base/telemetry"
)

// configFlag names the flag of a TOML file whose keys are flag names.
const configFlag = "config"

// settle fills the flags that were not given: from the environment
// (TWEEDLE_NODE_GRPC_LISTEN for --grpc-listen of the command node), then from
// the TOML file. Unknown keys of the file are a mistake.
func settle(cmd *cobra.Command) error {
	prefix := "TWEEDLE_" + envName(cmd.Name()) + "_"
	var bad error
	set := func(f *pflag.Flag, values []string, where string) {
		for _, v := range values {
			if err := cmd.Flags().Set(f.Name, v); err != nil && bad == nil {
				bad = usageError{fmt.Errorf("%s: %w", where, err)}
			}
		}
	}
	known := map[string]bool{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		known[prefix+envName(f.Name)] = true
		if v, ok := os.LookupEnv(prefix + envName(f.Name)); ok && !f.Changed {
			set(f, []string{v}, "environment variable "+prefix+envName(f.Name))
		}
	})
	for _, pair := range os.Environ() {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(name, prefix) && value != "" && !known[name] && bad == nil {
			bad = usageError{fmt.Errorf("environment variable %s is not a setting: see tweedle %s --help", name, cmd.Name())}
		}
	}
	if bad == nil {
		bad = misspelled(os.Environ())
	}
	path, err := cmd.Flags().GetString(configFlag)
	if bad != nil || err != nil || path == "" {
		return bad
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	var file map[string]any
	if err := toml.Unmarshal(b, &file); err != nil {
		return usageError{fmt.Errorf("config file %s: %w", path, err)}
	}
	for _, key := range slices.Sorted(maps.Keys(file)) {
		value := file[key]
		f := cmd.Flags().Lookup(key)
		if f == nil || key == configFlag || key == "help" {
			return usageError{fmt.Errorf("config file %s: %q is not a setting: see tweedle %s --help", path, key, cmd.Name())}
		}
		if f.Changed {
			continue
		}
		values, ok := value.([]any)
		if !ok {
			values = []any{value}
		}
		for _, v := range values {
			set(f, []string{fmt.Sprint(v)}, "config file "+path)
		}
	}
	return bad
}

// misspelled finds a variable that is nearly one of ours, as TWEEDLE_NOED_DIR: others are
// somebody else's business.
func misspelled(environment []string) error {
	const ours = "TWEEDLE_"
	for _, pair := range environment {
		name, value, _ := strings.Cut(pair, "=")
		rest, mine := strings.CutPrefix(name, ours)
		if !mine || value == "" {
			continue
		}
		first, _, more := strings.Cut(rest, "_")
		for _, known := range []string{"NODE", "POET", "KERNEL"} {
			if first != known && more == (known != "KERNEL") && near(first, known) && first != "POETS" {
				return usageError{fmt.Errorf("environment variable %s is not a setting: did you mean %s?", name, ours+known+strings.TrimPrefix(rest, first))}
			}
		}
	}
	return nil
}

// near tells whether one word is the other but for a letter that is wrong, missing, too
// much, or two that are swapped.
func near(a, b string) bool {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return len(a) <= 1 && len(b) <= 1 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

// logFlags are the same for all services.
type logFlags struct {
	level string
	json  bool
}

func (l *logFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().BoolVar(&l.json, "log-json", false, "log as JSON")
}

// logLevel reads the value of a flag.
func logLevel(flag, text string) (level slog.Level, err error) {
	if level.UnmarshalText([]byte(text)) != nil {
		return level, usageError{fmt.Errorf("--%s %q: choose debug, info, warn or error", flag, text)}
	}
	return level, nil
}

// logger writes to the standard error stream.
func (l *logFlags) logger() (*slog.Logger, error) {
	level, err := logLevel("log-level", l.level)
	if err != nil {
		return nil, err
	}
	log := telemetry.NewLog(stderr, l.json, level)
	slog.SetDefault(log) // libraries log in the same form
	return log, nil
}
