package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// maxINI bounds an INI file, in bytes.
const maxINI = 1 << 20

// readINI fills the flags that were not given from the reference's INI file,
// whose keys are flag names; sections only group them. The file's relative
// paths are relative to where the server is started, as the reference's are.
func readINI(cmd *cobra.Command, f *poetFlags) error {
	if f.ini == "" {
		return nil
	}
	info, err := os.Stat(f.ini)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	if info.Size() > maxINI {
		return fmt.Errorf("config file %s has %d bytes: it cannot be one", f.ini, info.Size())
	}
	b, err := os.ReadFile(f.ini)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	pairs, err := parseINI(string(b))
	if err != nil {
		return usageError{fmt.Errorf("config file %s: %w", f.ini, err)}
	}
	given := map[string]bool{} // by flags or the environment: they come first
	for _, p := range pairs {
		flag := cmd.Flags().Lookup(p.key)
		if flag == nil || p.key == "configfile" || p.key == "help" {
			return usageError{fmt.Errorf("config file %s, line %d: %q is not a setting: see tweedle poet --help", f.ini, p.line, p.key)}
		}
		if _, seen := given[p.key]; !seen {
			given[p.key] = flag.Changed
		}
		if given[p.key] {
			continue
		}
		if err := cmd.Flags().Set(p.key, p.value); err != nil {
			return usageError{fmt.Errorf("config file %s, line %d: %w", f.ini, p.line, err)}
		}
	}
	return nil
}

type iniPair struct {
	key, value string
	line       int
}

// parseINI reads key = value lines. Comments begin with ; or # at the start
// of a line; a value may stand in double quotes; a key alone is true.
func parseINI(text string) ([]iniPair, error) {
	var pairs []iniPair
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			if !strings.HasSuffix(line, "]") {
				return nil, fmt.Errorf("line %d: a section has no closing bracket", n)
			}
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if !found {
			key, value, found = strings.Cut(line, ":")
		}
		if !found {
			value = "true"
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key == "" {
			return nil, fmt.Errorf("line %d: a value has no name", n)
		}
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		pairs = append(pairs, iniPair{key, value, n})
	}
	return pairs, nil
}
