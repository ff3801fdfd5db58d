package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tweedle": main, byzantine: byzantineMain})
}

// The scripts of testdata/script run the command as people do. Beside the
// commands of testscript they have
//
//	fails STATUS COMMAND [ARGS...]
//
// which wants the exit status, nothing on the standard output, and one line
// that begins with "tweedle: " on the standard error stream.
//
//	mode PERMISSIONS FILE
//
// wants a file to have these permissions, in octal.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": scriptFails,
			"mode":  scriptMode,
		},
	})
}

func scriptFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails STATUS COMMAND [ARGS...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case err == nil:
		ts.Fatalf("it succeeds")
	case !errors.As(err, &exit):
		ts.Fatalf("%v", err)
	case exit.ExitCode() != want:
		ts.Fatalf("exit status %d, want %d", exit.ExitCode(), want)
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("standard output: %s", out)
	}
	said := ts.ReadFile("stderr")
	if !strings.HasPrefix(said, "tweedle: ") || strings.Count(said, "\n") != 1 || len(said) > 400 {
		ts.Fatalf("not one line that begins with \"tweedle: \": %q", said)
	}
}

func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode PERMISSIONS FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// commands yields a command and all below it.
func commands(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		list = append(list, commands(sub)...)
	}
	return list
}

func TestTheHelpOfEveryCommandShowsAnExample(t *testing.T) {
	for _, cmd := range commands(rootCommand()) {
		path := strings.Fields(cmd.CommandPath())[1:]
		var out bytes.Buffer
		root := rootCommand()
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append(path, "--help"))
		if err := root.Execute(); err != nil {
			t.Errorf("%s --help: %v", cmd.CommandPath(), err)
			continue
		}
		help := out.String()
		_, after, found := strings.Cut(help, "Examples:\n")
		example, _, _ := strings.Cut(after, "\n")
		if !found || !strings.HasPrefix(example, "  "+cmd.CommandPath()) {
			t.Errorf("%s --help does not show an example: %q", cmd.CommandPath(), example)
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || strings.Contains(cmd.Short, "\n") {
			t.Errorf("%s: short description %q", cmd.CommandPath(), cmd.Short)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s has no description", cmd.CommandPath(), f.Name)
			}
		})
	}
}

// Every command refuses a flag that it does not have, and whatever it cannot
// make sense of, as a mistake of the caller: exit status 2.
func TestEveryCommandRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, cmd := range commands(rootCommand()) {
		path := strings.Fields(cmd.CommandPath())[1:]
		for name, args := range map[string][]string{"a flag": {"--no-such-flag"}, "arguments": {"no-such", "thing", "at", "all"}} {
			if name == "arguments" && takesMany(cmd) {
				continue
			}
			root := rootCommand()
			root.SetArgs(append(path, args...))
			root.SetOut(new(bytes.Buffer))
			err := root.Execute()
			var usage usageError
			if !errors.As(err, &usage) {
				t.Errorf("%s with %s %q: %v", cmd.CommandPath(), name, args, err)
			}
		}
	}
}

// takesMany tells whether a command takes any number of names.
func takesMany(cmd *cobra.Command) bool { return strings.Contains(cmd.Use, "...") }
