package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
)

// What each command prints with --json: a Go type of a package, a message of the PoET's admin API,
// or several types, one a line, told apart by "type".
var printed = map[string][]any{
	"network new":      {"cmd/tweedle.networkShown"},
	"network show":     {"cmd/tweedle.networkShown"},
	"node status":      {"cmd/tweedle.nodeView"},
	"node peers":       {"base/telemetry.Peers"},
	"node backup":      {"cmd/tweedle.written"},
	"poet backup":      {"cmd/tweedle.written"},
	"poet bench":       {"proofs/posw/bench.Figures"},
	"poet import":      {"cmd/tweedle.importReport"},
	"poet storage":     {&poetadminpb.GetStorageResponse{}},
	"poet rounds":      {&poetadminpb.ListRoundsResponse{}},
	"poet proofs":      {&poetadminpb.ListProofsResponse{}},
	"poet gateways":    {&poetadminpb.ListGatewaysResponse{}},
	"poet reload-keys": {&poetpb.ReloadTrustedKeysResponse{}},
	"post init":        {"cmd/tweedle.progress", "cmd/tweedle.initialized"},
	"post verify":      {"cmd/tweedle.progress", "cmd/tweedle.place", "cmd/tweedle.checked"},
	"post repair":      {"cmd/tweedle.progress", "cmd/tweedle.repaired"},
	"post info":        {"proofs/post.Info"},
	"post profile":     {"cmd/tweedle.profile"},
	"testnet env":      {"services/testnet.Env"},
	"testnet status":   {"services/testnet.Status"},
	"testnet up": {"services/testnet.Started", "services/testnet.Process", "services/testnet.Crash", "services/testnet.Note", "services/testnet.Smesher",
		"services/testnet.Clock", "services/testnet.Layer", "services/testnet.PoetRound", "services/testnet.PoetGateways", "services/testnet.Summary"},
	"testnet drill":         {"services/testnet/drill.entryLine", "services/testnet/drill.endLine"},
	"testnet snapshot save": {"cmd/tweedle.written"},
	"testnet snapshot load": {"cmd/tweedle.loaded"},
	"testnet":               {"cmd/tweedle.carriedOut"}, // kill, pause, ...
	"wallet new":            {"cmd/tweedle.keyShown"},
	"wallet address":        {"cmd/tweedle.keyShown"},
	"wallet balance":        {"cmd/tweedle.accountState"},
	"wallet send":           {"cmd/tweedle.sent"},
	"wallet history":        {"cmd/tweedle.event"},
}

// printedBy finds what a command prints: its own entry, or that of the command above it.
func printedBy(path string) (name string, of []any) {
	for name := strings.TrimPrefix(path, "tweedle "); name != ""; {
		if of := printed[name]; of != nil {
			return name, of
		}
		name = name[:max(0, strings.LastIndexByte(name, ' '))]
	}
	return "", nil
}

// field is one name in a JSON object; of a list, what it holds.
type field struct {
	name, kind, doc string
	optional        bool
	in              []field // of an object
}

// schemas reads the types of Go packages once.
type schemas struct {
	all    map[string]map[string]*ast.TypeSpec // by folder and name
	within map[*ast.TypeSpec]bool              // those around the one that is looked at
}

func (s schemas) types(dir string) map[string]*ast.TypeSpec {
	if s.all[dir] == nil {
		s.all[dir] = map[string]*ast.TypeSpec{}
		files, _ := filepath.Glob(filepath.Join(repository, dir, "*.go"))
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				panic(err) // it was compiled
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if t, ok := n.(*ast.TypeSpec); ok {
					s.all[dir][t.Name.Name] = t
				}
				return true
			})
		}
	}
	return s.all[dir]
}

// Packages by the name with which others name them.
var packages = map[string]string{"telemetry": "base/telemetry", "bench": "proofs/post/bench", "preset": "edges/preset"}

var jsonTag = regexp.MustCompile(`json:"([^",]*)(,omitempty)?"`)

// fields returns the names of a struct, those of embedded ones among them.
func (s schemas) fields(dir string, t *ast.StructType) (all []field) {
	for _, f := range t.Fields.List {
		tag := ""
		if f.Tag != nil {
			tag = f.Tag.Value
		}
		m := jsonTag.FindStringSubmatch(tag)
		switch {
		case m == nil && len(f.Names) == 0: // embedded
			_, in := s.kind(dir, f.Type)
			all = append(all, in...)
		case m != nil && m[1] != "-":
			kind, in := s.kind(dir, f.Type)
			doc := f.Comment.Text()
			if f.Doc != nil {
				doc = f.Doc.Text()
			}
			all = append(all, field{m[1], kind, strings.Join(strings.Fields(doc), " "), m[2] != "", in})
		}
	}
	return all
}

// kind says in words what a Go type is in JSON.
func (s schemas) kind(dir string, e ast.Expr) (kind string, in []field) {
	switch e := e.(type) {
	case *ast.StarExpr:
		kind, in = s.kind(dir, e.X)
		return kind + " or null", in
	case *ast.ArrayType:
		kind, in = s.kind(dir, e.Elt)
		return "list of " + kind, in
	case *ast.MapType:
		kind, in = s.kind(dir, e.Value)
		return "object of " + kind, in
	case *ast.StructType:
		return "object", s.fields(dir, e)
	case *ast.SelectorExpr:
		if pkg := fmt.Sprint(e.X); pkg == "time" {
			return "time", nil
		} else if dir := packages[pkg]; dir != "" {
			return s.kind(dir, e.Sel)
		}
	case *ast.Ident:
		switch {
		case e.Name == "string":
			return "text", nil
		case e.Name == "bool":
			return "boolean", nil
		case e.Name == "any":
			return "value", nil
		case strings.HasPrefix(e.Name, "uint"), strings.HasPrefix(e.Name, "int"), strings.HasPrefix(e.Name, "float"):
			return "number", nil
		case s.types(dir)[e.Name] != nil:
			spec := s.types(dir)[e.Name]
			if s.within[spec] {
				return "object", nil // as the one around it
			}
			s.within[spec] = true
			defer delete(s.within, spec)
			return s.kind(dir, spec.Type)
		}
	}
	panic(fmt.Sprintf("json_test.go does not know %s of %s", fmt.Sprint(e), dir))
}

// message returns the names of a message of an API.
func message(d protoreflect.MessageDescriptor, docs map[string]string) (all []field) {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		out := field{name: string(f.Name()), doc: docs[string(d.Name())+"."+string(f.Name())]}
		switch {
		case f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp":
			out.kind = "time or null"
		case f.Message() != nil:
			out.kind, out.in = "object or null", message(f.Message(), docs)
		case f.Kind() == protoreflect.StringKind, f.Kind() == protoreflect.BytesKind:
			out.kind = "text"
		case f.Kind() == protoreflect.BoolKind:
			out.kind = "boolean"
		default:
			out.kind = "number"
		}
		if f.IsList() {
			out.kind = "list of " + strings.TrimSuffix(out.kind, " or null")
		}
		all = append(all, out)
	}
	return all
}

// protoDocs reads what the file of an API says behind each field.
func protoDocs(t *testing.T) map[string]string {
	b, err := os.ReadFile(filepath.Join(repository, "edges/api/proto/tweedle/poet/v1/admin.proto"))
	if err != nil {
		t.Fatal(err)
	}
	docs, in := map[string]string{}, ""
	for _, line := range strings.Split(string(b), "\n") {
		if m := regexp.MustCompile(`^message (\w+)`).FindStringSubmatch(line); m != nil {
			in = m[1]
		} else if m := regexp.MustCompile(`(\w+) = \d+;(?: // (.*))?$`).FindStringSubmatch(line); m != nil {
			docs[in+"."+m[1]] = m[2]
		}
	}
	return docs
}

// schemaOf returns what is printed as one object or more.
func schemaOf(t *testing.T, of []any) (all [][]field) {
	known := schemas{map[string]map[string]*ast.TypeSpec{}, map[*ast.TypeSpec]bool{}}
	for _, one := range of {
		switch one := one.(type) {
		case string:
			i := strings.LastIndexByte(one, '.')
			spec := known.types(one[:i])[one[i+1:]]
			if spec == nil {
				t.Fatalf("there is no type %s", one)
			}
			_, in := known.kind(one[:i], ast.NewIdent(one[i+1:]))
			all = append(all, in)
			if strings.HasPrefix(one, "services/testnet") && len(of) > 1 { // each line of them begins with these
				last := &all[len(all)-1]
				*last = append([]field{{name: "type", kind: "text"}, {name: "time", kind: "time"}}, *last...)
			}
		case proto.Message:
			all = append(all, message(one.ProtoReflect().Descriptor(), protoDocs(t)))
		}
	}
	return all
}

// matches tells what in a value is not as a kind says.
func matches(kind string, in []field, v any) error {
	kind, null := strings.CutSuffix(kind, " or null")
	if of, list := strings.CutPrefix(kind, "list of "); list || strings.HasPrefix(kind, "object of ") {
		var each []any
		switch v := v.(type) {
		case nil:
			return nil // of an empty list that Go made
		case []any:
			each = v
		case map[string]any:
			of = strings.TrimPrefix(kind, "object of ")
			for _, one := range v {
				each = append(each, one)
			}
		default:
			return fmt.Errorf("%v is no %s", v, kind)
		}
		for _, one := range each {
			if err := matches(of, in, one); err != nil {
				return err
			}
		}
		return nil
	}
	ok := false
	switch v := v.(type) {
	case nil:
		ok = null || kind == "value"
	case string:
		ok = kind == "text" || kind == "value" || kind == "time" && regexp.MustCompile(`^\d{4}-\d\d-\d\dT[\d:.]+Z$`).MatchString(v)
	case json.Number:
		ok = kind == "number" || kind == "value"
	case bool:
		ok = kind == "boolean"
	case map[string]any:
		if ok = kind == "object"; ok && in != nil {
			return holds(in, v)
		}
	}
	if !ok {
		return fmt.Errorf("%v is no %s", v, kind)
	}
	return nil
}

// holds tells what in an object is not as documented.
func holds(in []field, v map[string]any) error {
	for name, value := range v {
		i := slices.IndexFunc(in, func(f field) bool { return f.name == name })
		if i < 0 {
			return fmt.Errorf("%q is not documented", name)
		}
		if err := matches(in[i].kind, in[i].in, value); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	for _, f := range in {
		if _, there := v[f.name]; !there && !f.optional {
			return fmt.Errorf("%q is missing", f.name)
		}
	}
	return nil
}

// follows checks what a command printed with --json. Each test of a command in this package that
// asks for JSON comes through here.
func follows(t *testing.T, args []string, out string) {
	t.Helper()
	cmd, _, err := rootCommand().Find(args)
	if err != nil {
		return // it is refused
	}
	name, of := printedBy(cmd.CommandPath())
	schema := schemaOf(t, of)
	d := json.NewDecoder(strings.NewReader(out))
	d.UseNumber()
	for {
		var v map[string]any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("tweedle %s --json prints what is no JSON: %v: %.300s", name, err, out)
			return
		}
		var why []error
		if !slices.ContainsFunc(schema, func(in []field) bool {
			err := holds(in, v)
			why = append(why, err)
			return err == nil
		}) {
			t.Errorf("tweedle %s --json prints what docs/json.md does not say: %v: %v", name, errors.Join(why...), v)
		}
	}
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
			name, of := printedBy(cmd.CommandPath())
			if of == nil {
				t.Errorf("%s has --json, and nothing says what it prints", cmd.CommandPath())
			}
			used[name] = true
		}
	}
	var names []string
	for name := range printed {
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
		for i, in := range schemaOf(t, printed[name]) {
			if len(printed[name]) > 1 {
				one := printed[name][i].(string)
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

func rows(b *strings.Builder, prefix string, in []field) {
	for _, f := range in {
		name := prefix + f.name
		if f.optional {
			name += "?"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, f.kind, strings.ReplaceAll(f.doc, "|", `\|`))
		if len(f.in) > 0 && strings.Count(prefix, ".") < 3 && f.name != "others" {
			rows(b, prefix+f.name+".", f.in)
		}
	}
}
