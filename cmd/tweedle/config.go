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

// logger writes to the standard error stream.
func (l *logFlags) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level: %w", err)}
	}
	return telemetry.NewLog(stderr, l.json, level), nil
}
