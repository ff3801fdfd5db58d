package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/preset"
)

// There is a page for each command, with each of its flags and its example, and man takes it.
func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	mustTweedle(t, "man", dir)
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Log("NOT CHECKED: what groff says of the pages, it is not installed")
	}
	pages := 0
	root := rootCommand()
	root.InitDefaultCompletionCmd()
	for _, cmd := range commands(root) {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		b, err := os.ReadFile(filepath.Join(dir, name+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		pages++
		text := strings.NewReplacer(`\-`, "-", `\&`, "", `\e`, `\`).Replace(string(b))
		if !strings.Contains(text, cmd.Short) || !strings.Contains(text, cmd.Example) || !strings.Contains(text, cmd.Long) {
			t.Errorf("%s.1 has no %q, or no example", name, cmd.Short)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(text, "--"+f.Name) {
				t.Errorf("%s.1 has no --%s", name, f.Name)
			}
		})
		if groff == "" || pages%8 != 1 {
			continue
		}
		out, err := exec.Command(groff, "-man", "-Tutf8", "-ww", filepath.Join(dir, name+".1")).CombinedOutput()
		if err != nil || strings.Contains(string(out), "warning:") || len(out) < 200 {
			t.Errorf("%s.1: %v: %.300s", name, err, out)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != pages {
		t.Errorf("%d pages for %d commands, %v", len(files), pages, err)
	}
}

// A shell that asks gets the names that there are.
func TestCompletions(t *testing.T) {
	net := t.TempDir()
	plan := `{"preset":"local","members":[{"name":"node-1","kind":"node"},{"name":"node-2","kind":"node"},{"name":"poet-1","kind":"poet"}]}`
	if err := os.WriteFile(filepath.Join(net, "testnet.json"), []byte(plan), 0o600); err != nil {
		t.Fatal(err)
	}
	poet := filepath.Join(t.TempDir(), "poet")
	_, stop := poetServer(t, poet, "--gateway", "127.0.0.1:1")
	defer stop() //nolint:errcheck // the test of the server looks at that
	const noFiles, files = ":4", ":0"
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"testnet", "kill", "--dir", net, ""}, []string{"node-1", "node-2", "poet-1", noFiles}},
		{[]string{"testnet", "kill", "--dir", net, "node-1", ""}, []string{"node-2", "poet-1", noFiles}},
		{[]string{"testnet", "logs", "--dir", net, ""}, []string{"node-1", "node-2", "poet-1", noFiles}},
		{[]string{"testnet", "add", ""}, []string{"node", "poet", noFiles}},
		{[]string{"testnet", "kill", "--dir", filepath.Join(net, "none"), ""}, []string{":5"}},
		{[]string{"testnet", "up", "--preset", ""}, append(preset.Names(), noFiles)},
		{[]string{"network", "new", "--preset", ""}, append(preset.Names(), noFiles)},
		{[]string{"node", "--log-level", ""}, []string{"debug", "info", "warn", "error", noFiles}},
		{[]string{"poet", "gateways", "remove", "--dir", poet, ""}, []string{"127.0.0.1:1", noFiles}},
		{[]string{"poet", "proofs", "rebroadcast", "--dir", poet, ""}, []string{noFiles}}, // it has none yet
		{[]string{"network", "show", ""}, []string{files}},
		{[]string{"version", ""}, []string{noFiles}},
	} {
		out := mustTweedle(t, append([]string{"__complete"}, c.args...)...)
		if got := strings.Split(out, "\n"); !slices.Equal(got, c.want) {
			t.Errorf("tweedle %v: %q, want %q", c.args, got, c.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := mustTweedle(t, "completion", shell)
		if program, err := exec.LookPath(shell); err != nil {
			t.Logf("NOT CHECKED: the script for %s, it is not installed", shell)
		} else if said, err := parse(program, script); err != nil || len(script) < 1000 {
			t.Errorf("%s: %v: %s", shell, err, said)
		}
	}
}

// parse lets a shell read a script, and carry out nothing.
func parse(shell, script string) ([]byte, error) {
	cmd := exec.Command(shell, "-n")
	cmd.Stdin = strings.NewReader(script)
	return cmd.CombinedOutput()
}

// What scripts read has numbers as numbers, exactly, and times in UTC.
func TestNumbersInJSONAreNumbers(t *testing.T) {
	at := time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	for _, m := range []proto.Message{
		&poetadminpb.GetStorageResponse{FreeBytes: 1<<63 - 25},
		&poetadminpb.ListRoundsResponse{Rounds: []*poetadminpb.Round{{Id: "12", Members: 3, Leaves: 1<<53 + 1, Start: timestamppb.New(at)}}},
	} {
		if err := printProto(&out, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{`"free_bytes": 9223372036854775783`, `"id": "12"`, `"members": 3`, `"leaves": 9007199254740993`, `"start": "2026-11-28T05:00:00Z"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
	out.Reset()
	roundTable(&out, &poetadminpb.ListRoundsResponse{Rounds: []*poetadminpb.Round{{Id: "12", Start: timestamppb.New(at), End: timestamppb.New(at)}}})
	if !strings.Contains(out.String(), "2026-11-28 05:00:00Z") {
		t.Error(out.String())
	}
}
