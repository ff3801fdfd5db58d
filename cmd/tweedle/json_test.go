package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"tweedle/archtest/jsondoc"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
)

func init() {
	for name, message := range map[string]proto.Message{
		"poet storage":     &poetadminpb.GetStorageResponse{},
		"poet rounds":      &poetadminpb.ListRoundsResponse{},
		"poet proofs":      &poetadminpb.ListProofsResponse{},
		"poet gateways":    &poetadminpb.ListGatewaysResponse{},
		"poet reload-keys": &poetpb.ReloadTrustedKeysResponse{},
	} {
		jsondoc.Printed[name] = []any{message}
	}
}

// follows checks what a command printed with --json. Each test of a command in this package that
// asks for JSON comes through here.
func follows(t *testing.T, args []string, out string) {
	t.Helper()
	cmd, _, err := rootCommand().Find(args)
	if err != nil {
		return // it is refused
	}
	jsondoc.Follows(t, cmd.CommandPath(), out)
}

// docs/json.md says what every command with --json prints, and is written by this test.
func TestJSONIsDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# What the commands print with --json

For scripts. Written by a test ("make generate") from the types that are printed; each output that the commands' tests see is held against it.
Numbers are numbers, whole ones exact to 64 bits: read them as integers. A time is RFC 3339 in UTC, as 2026-12-01T00:00:00Z. The unit of a number is in
its name (` + "`_smidges`, `_seconds`, `_bytes`" + `) or beside it. A name with ? may be left out; a later version may have more names. The command's errors
are on the standard error stream, one line; its exit status is 0 when it did what it should, 1 when it failed, 2 when it was called wrongly.
`)
	used := map[string]bool{}
	for _, cmd := range commands(rootCommand()) {
		if cmd.Flag("json") != nil && cmd.Runnable() && !cmd.HasSubCommands() {
			name, of := jsondoc.PrintedBy(cmd.CommandPath())
			if of == nil {
				t.Errorf("%s has --json, and nothing says what it prints", cmd.CommandPath())
			}
			used[name] = true
		}
	}
	var names []string
	for name := range jsondoc.Printed {
		if !used[name] {
			t.Errorf("no command with --json is called %s", name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		title := name
		if name == "testnet" {
			title = "testnet kill, pause, resume, restart, move, add, down"
		}
		fmt.Fprintf(&b, "\n## tweedle %s\n", title)
		for i, in := range jsondoc.Schema(t, jsondoc.Printed[name]) {
			if len(jsondoc.Printed[name]) > 1 {
				one := jsondoc.Printed[name][i].(string)
				fmt.Fprintf(&b, "\nA line of it: %s\n", kindOfLine(t, one))
			}
			b.WriteString("\n| name | is | |\n|---|---|---|\n")
			rows(&b, "", in)
		}
	}
	path := filepath.Join(repository, "docs/json.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if was, err := os.ReadFile(path); err != nil || string(was) != b.String() {
		t.Errorf("docs/json.md is not what is printed: run make generate (%v)", err)
	}
}

// kindOfLine says which type a line has, as far as its Go type tells.
func kindOfLine(t *testing.T, one string) string {
	i := strings.LastIndexByte(one, '.')
	if kinds := sources(t, one[:i], `func \(`+one[i+1:]+`\) kind\(\) string\s*\{ return ("\w+") \}`); len(kinds) == 1 {
		return "`type` is " + kinds[0]
	}
	return "see `type`"
}

func rows(b *strings.Builder, prefix string, in []jsondoc.Field) {
	for _, f := range in {
		name := prefix + f.Name
		if f.Optional {
			name += "?"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, f.Kind, strings.ReplaceAll(f.Doc, "|", `\|`))
		if len(f.In) > 0 && strings.Count(prefix, ".") < 3 && f.Name != "others" {
			rows(b, prefix+f.Name+".", f.In)
		}
	}
}
