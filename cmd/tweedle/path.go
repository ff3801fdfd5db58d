package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// pathFlag is the value of a flag that is a path. It is expanded wherever it
// comes from: no shell looks at the environment or at a configuration file.
type pathFlag string

// pathVar registers a flag that is a path; shorthand may be empty.
func pathVar(fl *pflag.FlagSet, to *string, name, shorthand, value, usage string) {
	*to = value
	fl.VarP((*pathFlag)(to), name, shorthand, usage)
}

// String implements pflag.Value.
func (p *pathFlag) String() string { return string(*p) }

// Type implements pflag.Value.
func (p *pathFlag) Type() string { return "string" }

// Set implements pflag.Value.
func (p *pathFlag) Set(text string) error {
	path, err := expandPath(text)
	if err == nil {
		*p = pathFlag(path)
	}
	return err
}

// unixAddress begins the address of a socket, which is a path.
const unixAddress = "unix:"

// expandPath replaces ~ at the start by the home directory, and $NAME and ${NAME}
// by variables of the environment; $$ is a dollar. What cannot be replaced is an
// error: a directory named "~", or one that lacks a part of its name, is what
// nobody wants.
func expandPath(text string) (string, error) {
	if path, isSocket := strings.CutPrefix(text, unixAddress); isSocket {
		path, err := expandPath(path)
		return unixAddress + path, err
	}
	var bad error
	path := os.Expand(text, func(name string) string {
		if name == "$" {
			return "$"
		}
		value := os.Getenv(name)
		if value == "" && bad == nil {
			bad = fmt.Errorf("%s: the environment has no variable %q: write the path in full, and $$ for a dollar", text, name)
		}
		return value
	})
	if bad != nil || !strings.HasPrefix(path, "~") {
		return path, bad
	}
	user, rest, _ := strings.Cut(path[1:], "/")
	home, err := os.UserHomeDir()
	if user != "" || err != nil {
		return "", fmt.Errorf("%s: only ~/ can be replaced, if the environment has a HOME: write the path in full, or ./%s", text, text)
	}
	return filepath.Join(home, rest), nil
}
