package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tweedle/sim"
)

// The documentation is run: each command in a block of it, marked "sh" or indented, each in a
// `code span`, and each example of --help, is one that the programs take, with flags that they
// have and values that can be read. Those that are quick and touch nothing else are carried
// out, in the order in which a reader meets them, in an empty folder with a network file.

// docCommand is one command of the documentation.
type docCommand struct {
	where string
	words []string
	block bool // as it stands it can be carried out; of a span the arguments may be left out
}

func (c docCommand) String() string { return c.where + ": " + strings.Join(c.words, " ") }

// shell splits a text as a shell does: quotes, comments, lines that go on, and what stands
// between ; & | ( ) and line ends is a command. Commands in $( ) are among the results, and
// are a word of the one around them. What a command would read or write is left out.
func shell(text string) (all [][]string) {
	var words []string
	var word strings.Builder
	inWord, quote, skip := false, rune(0), false
	endWord := func() {
		if inWord && !skip {
			words = append(words, word.String())
		}
		if inWord {
			skip = false
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			all = append(all, words)
		}
		words = nil
	}
	rs := []rune(text)
	for i := 0; i < len(rs); i++ {
		r := rs[i]
		next := rune(0)
		if i+1 < len(rs) {
			next = rs[i+1]
		}
		switch {
		case quote != '\'' && r == '\\' && next == '\n':
			i++
		case quote != '\'' && r == '\\':
			i++
			inWord = true
			word.WriteRune(next)
		case quote != '\'' && r == '$' && next == '(':
			depth, from := 1, i+2
			for i += 2; i < len(rs) && depth > 0; i++ {
				depth += map[rune]int{'(': 1, ')': -1}[rs[i]]
			}
			i--
			all = append(all, shell(string(rs[from:i]))...)
			inWord = true
			word.WriteString("$X")
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '#' && !inWord:
			for i+1 < len(rs) && rs[i+1] != '\n' {
				i++
			}
		case r == '>' || r == '<':
			if word.String() == "2" {
				word.Reset()
				inWord = false
			}
			endWord()
			skip = true
		case strings.ContainsRune(";&|()\n", r):
			endCommand()
		case r == ' ' || r == '\t':
			endWord()
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	endCommand()
	return all
}

// Programs that the documentation calls, beside ours.
var foreign = []string{"amtool", "cat", "cd", "chmod", "curl", "dd", "eval", "export", "grep", "man", "mkdir", "source", "systemctl", "systemd-analyze", "tail", "tar", "$X"}

var span = regexp.MustCompile("`([^`\n]+)`")

// docCommands finds the commands of a document.
func docCommands(where, text string) (all []docCommand, err error) {
	add := func(line int, block bool, text string) {
		for _, words := range shell(text) {
			for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0]) {
				words = words[1:] // of the environment
			}
			if len(words) > 0 {
				all = append(all, docCommand{fmt.Sprintf("%s:%d", where, line), words, block})
			}
		}
	}
	var block strings.Builder
	kind, from, fenced := "", 0, false
	lines := append(strings.Split(text, "\n"), "")
	for i, line := range lines {
		fence, opens := strings.CutPrefix(line, "```")
		indented := !fenced && strings.HasPrefix(line, "    ") && (i == 0 || lines[i-1] == "" || block.Len() > 0)
		switch {
		case opens && !fenced:
			fenced, kind, from = true, fence, i+2
		case opens:
			if kind == "sh" {
				add(from, true, block.String())
			} else if first := ours.FindString(block.String()); first != "" && kind == "" {
				err = fmt.Errorf("%s:%d: a block with a command (%q) is not marked sh", where, from, first)
			}
			fenced = false
			block.Reset()
		case fenced:
			block.WriteString(line + "\n")
		case indented:
			if block.Len() == 0 {
				from = i + 1
			}
			block.WriteString(line[4:] + "\n")
		default:
			// Of an indented block each line stands for itself; what a command printed may be among them.
			for n, line := range strings.Split(block.String(), "\n") {
				if words := shell(line); len(words) > 0 && known(words[0][0]) {
					add(from+n, true, line)
				}
			}
			block.Reset()
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				if ours.MatchString(m[1]) {
					add(i+1, false, m[1])
				}
			}
		}
	}
	return all, err
}

func known(program string) bool {
	return slices.Contains(foreign, program) || ours.MatchString(program+" ") || program == "go"
}

// ours finds a line that begins with a program of ours, or of Go.
var ours = regexp.MustCompile(`(?m)^(?:[A-Z_]+=\S* )*(?:bin/)?(?:tweedle|tweedle-watch|make|go (?:test|run)) `)

// placeholder is what stands for a value; elided is what stands for more of them.
var placeholder = regexp.MustCompile(`^[A-Z][A-Z_]*$`)

const elided = "..."

// checkTweedle says what is wrong with a command of ours.
func checkTweedle(c docCommand) error {
	root := rootCommand()
	root.InitDefaultCompletionCmd()
	args := slices.DeleteFunc(slices.Clone(c.words[1:]), func(w string) bool { return w == elided })
	for i, w := range args {
		args[i] = strings.ReplaceAll(w, "$", "") // the environment is the reader's
	}
	if len(args) > 0 && args[0] == "COMMAND" {
		args = args[1:]
	}
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	for i, w := range rest {
		name, isFlag := strings.CutPrefix(w, "--")
		if !isFlag || i+1 == len(rest) || !placeholder.MatchString(rest[i+1]) {
			continue
		}
		if f := cmd.Flag(name); f != nil { // a value that can be read
			rest[i+1] = map[string]string{"int": "1", "uint": "1", "uint32": "1", "uint64": "1", "float64": "1", "duration": "1s"}[f.Value.Type()]
			if rest[i+1] == "" {
				rest[i+1] = "X"
			}
		}
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return fmt.Errorf("%s: %w", cmd.CommandPath(), err)
	}
	complete := c.block && !slices.Contains(c.words, elided)
	if args := cmd.Flags().Args(); complete || len(args) > 0 {
		if err := cmd.ValidateArgs(args); err != nil && !cmd.Flags().Changed("help") {
			return fmt.Errorf("%s: %w", cmd.CommandPath(), err)
		}
	}
	return nil
}

// sources finds what a pattern captures in the Go files of a folder of the repository.
func sources(t *testing.T, dir, pattern string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(repository, dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no Go files, %v", dir, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(b), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// repository is its folder; tests begin in that of their package.
var repository, _ = filepath.Abs(filepath.Join("..", ".."))

// checkOther says what is wrong with a command that is not of this program.
func checkOther(t *testing.T, c docCommand, makefile string) error {
	program, args := filepath.Base(c.words[0]), c.words[1:]
	flags := func(known []string) error {
		for _, a := range args {
			if a == "--" {
				return nil
			}
			if name, isFlag := strings.CutPrefix(a, "--"); isFlag && !slices.Contains(known, name) {
				return fmt.Errorf("%s has no flag --%s", program, name)
			}
		}
		return nil
	}
	switch {
	case program == "tweedle-watch":
		dir := "watch/cmd/tweedle-watch"
		if len(args) > 0 && !slices.Contains(sources(t, dir, `"([a-z]+)": [a-z]+,`), args[0]) {
			return fmt.Errorf("tweedle-watch has no command %s", args[0])
		}
		return flags(sources(t, dir, `fs\.\w+Var\(&[\w.]+, "([a-z-]+)"`))
	case program == "make":
		for _, a := range args {
			if part, ok := strings.CutPrefix(a, "NIGHTLY="); ok {
				for _, p := range strings.Fields(part) {
					if !regexp.MustCompile(`(?m)^NIGHTLY_\w+ := .*\b` + regexp.QuoteMeta(p) + `\b`).MatchString(makefile) {
						return fmt.Errorf("no campaign %s", p)
					}
				}
			} else if name := strings.TrimPrefix(a, "nightly-"); !strings.Contains(a, "=") &&
				!regexp.MustCompile(`(?m)^(?:`+regexp.QuoteMeta(a)+`:|NIGHTLY_\w+ := .*\b`+regexp.QuoteMeta(name)+`\b)`).MatchString(makefile) {
				return fmt.Errorf("make has no %s", a)
			}
		}
	case program == "go" && args[0] == "run" && args[1] == "./sim/cmd":
		_, _, _, err := sim.Parse(args[2:], io.Discard)
		return err
	case program == "go" && args[0] == "test":
		for i, a := range args {
			kind := map[string]string{"-run": "(?:Test|Example)", "-bench": "Benchmark", "-fuzz": "Fuzz"}[a]
			if kind == "" || i+1 == len(args) || args[i+1] == "XXX" || args[i+1] == "." {
				continue
			}
			if slices.Contains(args, "./...") {
				continue
			}
			want, found := regexp.MustCompile(strings.SplitN(args[i+1], "/", 2)[0]), false
			for _, dir := range args {
				if strings.HasPrefix(dir, "./") {
					found = found || slices.ContainsFunc(sources(t, dir, `(?m)^func (`+kind+`\w+)\(`), want.MatchString)
				}
			}
			if !found {
				return fmt.Errorf("no test is %s %s", a, args[i+1])
			}
		}
	case !slices.Contains(foreign, program):
		return fmt.Errorf("what is %s? A program that is not ours belongs to the list of those that documents call", program)
	}
	return nil
}

// harmless are commands that are quick, ask nobody, and write only where they are told.
var harmless = []string{"tweedle network new", "tweedle network show", "tweedle network rules", "tweedle wallet new",
	"tweedle version", "tweedle man", "tweedle completion bash", "tweedle completion zsh", "tweedle completion fish", "tweedle post init"}

// carryOut runs a command of a document in the current folder, if it is harmless and says all.
func carryOut(t *testing.T, c docCommand) (ran bool) {
	args := slices.Clone(c.words[1:])
	cmd, rest, err := rootCommand().Find(args)
	if err != nil || !slices.Contains(harmless, cmd.CommandPath()) || !c.block && len(rest) == 0 {
		return false
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range args {
		if placeholder.MatchString(a) || strings.Contains(a, elided) {
			return false
		}
		if a, ok := strings.CutPrefix(a, "~/"); ok {
			args[i] = filepath.Join(here, a)
		} else if filepath.IsAbs(a) {
			args[i] = filepath.Join(here, a)
		}
	}
	if i := slices.Index(args, "--out"); i >= 0 { // what an example before it has made
		_ = os.Remove(args[i+1])
	}
	if cmd.CommandPath() != "tweedle network new" || slices.Contains(args, "--from") {
		if _, err := os.Stat("network.json"); err != nil {
			mustTweedle(t, "network", "new", "--preset", "test", "--out", "network.json")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	if err := root.ExecuteContext(ctx); err != nil {
		t.Errorf("%v: %v", c, err)
	}
	return true
}

// check fails the test if something is wrong with a command.
func check(t *testing.T, c docCommand, makefile string) bool {
	t.Helper()
	err := problem(t, c, makefile)
	if err != nil {
		t.Errorf("%v: %v", c, err)
	}
	return err == nil
}

func problem(t *testing.T, c docCommand, makefile string) error {
	if filepath.Base(c.words[0]) == "tweedle" {
		return checkTweedle(c)
	}
	if slices.Equal(c.words[:min(3, len(c.words))], []string{"go", "run", "./cmd/tweedle"}) {
		return checkTweedle(docCommand{c.where, c.words[2:], c.block})
	}
	if i := slices.Index(c.words, "--"); i >= 0 && i+1 < len(c.words) { // another command is an argument of it
		if err := problem(t, docCommand{c.where, c.words[i+1:], false}, makefile); err != nil {
			return err
		}
	}
	return checkOther(t, c, makefile)
}

func TestEachCommandOfTheDocumentationIsOne(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string]string{}
	for _, pattern := range []string{"README.md", "docs/*.md", "watch/rules/*.md"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(repository, file)
			documents[name] = string(b)
		}
	}
	examples := func(c *cobra.Command) string { return "```sh\n" + c.Example + "\n```\n" + c.Long + "\n" }
	for _, c := range commands(rootCommand()) {
		documents[c.CommandPath()+" --help"] = examples(c)
		c.Flags().VisitAll(func(f *pflag.Flag) { documents[c.CommandPath()+" --help"] += f.Usage + "\n" })
	}
	checked, ran := map[string]int{}, 0
	for name, text := range documents {
		all, err := docCommands(name, text)
		if err != nil {
			t.Error(err)
		}
		t.Chdir(t.TempDir())
		for _, c := range all {
			program := filepath.Base(c.words[0])
			if checked[program]++; check(t, c, string(makefile)) && program == "tweedle" && carryOut(t, c) {
				ran++
			}
		}
	}
	t.Logf("checked %v, carried out %d", checked, ran)
	if checked["tweedle"] < 100 || checked["make"] < 20 || checked["go"] < 10 || ran < 8 {
		t.Errorf("only %v were found, and %d carried out", checked, ran)
	}
}

// namedPlace is a file or folder of the repository that a text names; behind it, a function in it.
var namedPlace = regexp.MustCompile("`((?:archtest|base|values|proofs|protocol|edges|services|cmd|sim|compat|watch|docs|scripts)(?:/[\\w.-]+)*/?)`(?:, `(\\w+)`)?")

// misplaced lists what a text names and is not there.
func misplaced(text string) (wrong []string) {
	for _, m := range namedPlace.FindAllStringSubmatch(text, -1) {
		path := filepath.Join(repository, m[1])
		if _, err := os.Stat(path); err != nil {
			wrong = append(wrong, m[1])
		} else if b, err := os.ReadFile(path); m[2] != "" && strings.HasSuffix(path, ".go") && (err != nil || !regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?`+m[2]+`\(`).Match(b)) {
			wrong = append(wrong, m[1]+", "+m[2])
		}
	}
	return wrong
}

func TestEachPlaceThatTheDocumentationNamesIsThere(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repository, "docs/*.md"))
	if err != nil || len(files) < 8 {
		t.Fatalf("%d documents, %v", len(files), err)
	}
	for _, file := range append(files, filepath.Join(repository, "README.md")) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, wrong := range misplaced(string(b)) {
			t.Errorf("%s names %s, which is not there", filepath.Base(file), wrong)
		}
	}
	for text, want := range map[string]int{"`protocol/vm/apply.go`, `Apply`": 0, "`protocol/vm/apply.go`, `Applied`": 1, "`protocol/vm/gone.go`": 1, "`edges/p2p`": 0} {
		if got := misplaced(text); len(got) != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestWhatIsWrongWithADocumentIsFound(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"```sh\ntweedle testnet up --nodez 3\n```":                   "unknown flag: --nodez",
		"text `tweedle testnet up --nodez 3` more":                   "unknown flag: --nodez",
		"    tweedle node --dir x --gone\n":                          "unknown flag: --gone",
		"```sh\ntweedle testnet up \\\n  --nodes many\n```":          "many",
		"```sh\ncd x && tweedle wallet steal -k \"a b\"\n```":        "unknown command",
		"`tweedle node dance`":                                       "dance",
		"```sh\ntweedle network show\n```":                           "FILE",
		"```sh\neval \"$(bin/tweedle testnet envy)\" # x\n```":       "unknown command",
		"```\ntweedle version \n```":                                 "is not marked sh",
		"`make nightly NIGHTLY=nap`":                                 "no campaign nap",
		"`make cake`":                                                "make has no cake",
		"`go test ./services/node -run TestNothingOfTheKind`":        "no test is -run TestNothingOfTheKind",
		"`go run ./sim/cmd --sead 7`":                                "-sead",
		"`tweedle-watch serve --konfig x`":                           "no flag --konfig",
		"`tweedle-watch stare`":                                      "no command stare",
		"`tweedle-watch run --name x -- tweedle node --gone`":        "unknown flag: --gone",
		"```sh\nrm -rf /\n```":                                       "what is rm?",
		"`tweedle post repair --files N`, `tweedle poet import ...`": "",
		"```sh\ntweedle network new --genesis +10m --out 'a b' > x 2>&1 | grep id # as ever\n```": "",
	} {
		all, err := docCommands("x.md", text)
		for _, c := range all {
			if err == nil {
				err = problem(t, c, string(makefile))
			}
		}
		if want == "" && err == nil && len(all) == 2 {
			continue
		}
		if want == "" || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q, in %v", text, err, want, all)
		}
	}
}
