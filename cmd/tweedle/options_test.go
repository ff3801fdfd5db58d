package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// optionsOf returns the flags of commands and all below them.
func optionsOf(of ...*cobra.Command) map[string]bool {
	names := map[string]bool{"help": true}
	for _, top := range of {
		for _, c := range commands(top) {
			for _, set := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
				set.VisitAll(func(f *pflag.Flag) { names[f.Name] = true })
			}
		}
	}
	return names
}

// named finds the options that a text names: --like-this, or as what to start with.
var named = regexp.MustCompile(`(?:^|[\s"'(\x60=])--([a-z][a-z0-9-]*[a-z0-9])|\bstart(?: it)?(?: once| again)? with ([a-z]+(?:-[a-z]+)+)`)

// Whatever our messages, our help and our documentation tell to set can be set.
func TestEveryOptionThatAMessageNamesExists(t *testing.T) {
	root := filepath.Join("..", "..")
	all := optionsOf(rootCommand())
	of := map[string]map[string]bool{
		"services/poet/": optionsOf(poetCommand()), "services/node/": optionsOf(nodeCommand()), "edges/p2p/": optionsOf(nodeCommand()),
		"services/testnet/": all, "cmd/": all, "": all,
	}
	for _, foreign := range []string{"ff-only", "rm", "mount"} { // of programs that the documentation calls
		of[""][foreign] = true
	}
	of["docs/simulator.md"] = map[string]bool{ // of sim/cmd, which is no part of the program
		"seed": true, "seeds": true, "nodes": true, "epochs": true, "hostile": true, "strangers": true, "age": true, "late": true, "faults": true, "real-keys": true,
		"poets": true, "clients": true, "twins": true, "several": true, "shrink": true,
	}
	of["services/testnet/"] = maps.Clone(all)
	for _, ours := range []string{"announce", "once", "name", "watch", "token-file", "endpoints"} { // of tweedle-watch, which the testnet starts
		of["services/testnet/"][ours] = true
	}
	of["docs/alerts.md"] = map[string]bool{ // of tweedle-watch and amtool
		"config": true, "name": true, "watch": true, "token-file": true, "once": true, "alertmanager": true, "alertmanager.url": true,
		"supervise": true, "alert-webhook": true, "endpoints": true, "comment": true,
	}
	of["docs/page.md"] = of["docs/alerts.md"]
	found := 0
	check := func(path, text string) {
		options := of[""]
		for prefix, set := range of {
			if prefix != "" && strings.HasPrefix(path, prefix) {
				options = set
			}
		}
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			found++
			if name := m[1] + m[2]; !options[name] {
				t.Errorf("%s names --%s, which is no option: %q", path, name, m[0])
			}
		}
	}
	for _, top := range []string{"base", "proofs", "protocol", "edges", "services", "cmd", "docs", "README.md"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.Contains(path, "/gen/") || strings.Contains(path, "/decisions/") {
				return err
			}
			name, _ := filepath.Rel(root, path)
			switch {
			case strings.HasSuffix(path, ".md"):
				b, err := os.ReadFile(path)
				check(name, string(b))
				return err
			case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
				f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
				if err != nil {
					return err
				}
				ast.Inspect(f, func(n ast.Node) bool {
					if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						text, err := strconv.Unquote(lit.Value)
						if err != nil {
							t.Errorf("%s: %v", name, err)
						}
						check(name, text)
					}
					return true
				})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 100 {
		t.Fatalf("only %d names of options were found", found)
	}
}

// Every flag of the server can be set in all three ways: the file's key and the
// variable are the flag's name.
func TestEveryOptionOfTheServerCanBeSetInItsFile(t *testing.T) {
	poetCommand().Flags().VisitAll(func(f *pflag.Flag) {
		value := "1s"
		switch f.Value.Type() {
		case "bool":
			value = "true"
		case "string", "stringArray":
			value = "/x"
		case "duration":
		default:
			value = "7"
		}
		if f.Name == "configfile" || f.Name == "help" {
			return
		}
		for _, way := range []string{"file", "environment"} {
			fl := &poetFlags{}
			cmd := poetCommand()
			cmd.ResetFlags()
			fl.registerTime(cmd)
			fl.registerReference(cmd)
			fl.registerOurs(cmd)
			path := filepath.Join(t.TempDir(), "poet.conf")
			text := ""
			if way == "file" {
				text = f.Name + " = " + value + "\n"
			} else {
				t.Setenv("TWEEDLE_POET_"+envName(f.Name), value)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			fl.ini = path
			if err := settle(cmd); err != nil {
				t.Errorf("--%s in the %s: %v", f.Name, way, err)
			}
			if err := readINI(cmd, fl); err != nil {
				t.Errorf("--%s in the %s: %v", f.Name, way, err)
			}
			if !cmd.Flags().Changed(f.Name) {
				t.Errorf("--%s is not set by the %s", f.Name, way)
			}
			os.Unsetenv("TWEEDLE_POET_" + envName(f.Name))
		}
	})
}
