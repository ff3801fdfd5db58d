// Package jsondoc knows what the commands print with --json, by reading the types that are printed in the
// source. It is for tests: docs/json.md is written from it, and what programs print is held against it.
package jsondoc

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
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// root is the folder of the sources, which tests are run beside.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../..")
}

// events are the lines about a testnet.
var events = []any{"services/testnet.Started", "services/testnet.Process", "services/testnet.Crash", "services/testnet.Note", "services/testnet.Smesher",
	"services/testnet.Clock", "services/testnet.Layer", "services/testnet.PoetRound", "services/testnet.PoetGateways"}

// Printed is what each command prints with --json: a Go type of a package, or several, one a line, told apart by
// "type". A test that knows messages of an API, which this package does not, adds them.
var Printed = map[string][]any{
	"network new":           {"cmd/tweedle.networkShown"},
	"network show":          {"cmd/tweedle.networkShown"},
	"node status":           {"cmd/tweedle.nodeView"},
	"node peers":            {"base/telemetry.Peers"},
	"node backup":           {"cmd/tweedle.written"},
	"poet backup":           {"cmd/tweedle.written"},
	"poet bench":            {"proofs/posw/bench.Figures"},
	"poet import":           {"cmd/tweedle.importReport"},
	"post init":             {"cmd/tweedle.progress", "cmd/tweedle.initialized"},
	"post verify":           {"cmd/tweedle.progress", "cmd/tweedle.place", "cmd/tweedle.checked"},
	"post repair":           {"cmd/tweedle.progress", "cmd/tweedle.repaired"},
	"post info":             {"proofs/post.Info"},
	"post profile":          {"cmd/tweedle.profile"},
	"testnet env":           {"services/testnet.Env"},
	"testnet status":        {"services/testnet.Status"},
	"testnet up":            append(slices.Clone(events), "services/testnet.Summary"),
	"testnet drill":         append([]any{"services/testnet/drill.entryLine", "services/testnet/drill.endLine"}, events...),
	"testnet snapshot save": {"cmd/tweedle.written"},
	"testnet snapshot load": {"cmd/tweedle.loaded"},
	"testnet":               {"cmd/tweedle.carriedOut"}, // kill, pause, ...
	"wallet new":            {"cmd/tweedle.keyShown"},
	"wallet address":        {"cmd/tweedle.keyShown"},
	"wallet balance":        {"cmd/tweedle.accountState"},
	"wallet send":           {"cmd/tweedle.sent"},
	"wallet history":        {"cmd/tweedle.event"},
}

// PrintedBy finds what a command prints: its own entry, or that of the command above it.
func PrintedBy(path string) (name string, of []any) {
	for name := strings.TrimPrefix(path, "tweedle "); name != ""; {
		if of := Printed[name]; of != nil {
			return name, of
		}
		name = name[:max(0, strings.LastIndexByte(name, ' '))]
	}
	return "", nil
}

// Field is one name in a JSON object; of a list, what it holds.
type Field struct {
	Name, Kind, Doc string
	Optional        bool
	In              []Field // of an object
}

// schemas reads the types of Go packages once.
type schemas struct {
	all    map[string]map[string]*ast.TypeSpec // by folder and name
	within map[*ast.TypeSpec]bool              // those around the one that is looked at
}

func (s schemas) types(dir string) map[string]*ast.TypeSpec {
	if s.all[dir] == nil {
		s.all[dir] = map[string]*ast.TypeSpec{}
		files, _ := filepath.Glob(filepath.Join(root(), dir, "*.go"))
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
func (s schemas) fields(dir string, t *ast.StructType) (all []Field) {
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
			all = append(all, Field{m[1], kind, strings.Join(strings.Fields(doc), " "), m[2] != "", in})
		}
	}
	return all
}

// kind says in words what a Go type is in JSON.
func (s schemas) kind(dir string, e ast.Expr) (kind string, in []Field) {
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
	panic(fmt.Sprintf("jsondoc does not know %s of %s", fmt.Sprint(e), dir))
}

// message returns the names of a message of an API.
func message(d protoreflect.MessageDescriptor, docs map[string]string) (all []Field) {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		out := Field{Name: string(f.Name()), Doc: docs[string(d.Name())+"."+string(f.Name())]}
		switch {
		case f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp":
			out.Kind = "time or null"
		case f.Message() != nil:
			out.Kind, out.In = "object or null", message(f.Message(), docs)
		case f.Kind() == protoreflect.StringKind, f.Kind() == protoreflect.BytesKind:
			out.Kind = "text"
		case f.Kind() == protoreflect.BoolKind:
			out.Kind = "boolean"
		default:
			out.Kind = "number"
		}
		if f.IsList() {
			out.Kind = "list of " + strings.TrimSuffix(out.Kind, " or null")
		}
		all = append(all, out)
	}
	return all
}

// protoDocs reads what the file of an API says behind each field.
func protoDocs(t testing.TB) map[string]string {
	b, err := os.ReadFile(filepath.Join(root(), "edges/api/proto/tweedle/poet/v1/admin.proto"))
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

// Schema returns what is printed as one object or more.
func Schema(t testing.TB, of []any) (all [][]Field) {
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
				*last = append([]Field{{Name: "type", Kind: "text"}, {Name: "time", Kind: "time"}}, *last...)
			}
		case proto.Message:
			all = append(all, message(one.ProtoReflect().Descriptor(), protoDocs(t)))
		}
	}
	return all
}

// matches tells what in a value is not as a kind says.
func matches(kind string, in []Field, v any) error {
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
func holds(in []Field, v map[string]any) error {
	for name, value := range v {
		i := slices.IndexFunc(in, func(f Field) bool { return f.Name == name })
		if i < 0 {
			return fmt.Errorf("%q is not documented", name)
		}
		if err := matches(in[i].Kind, in[i].In, value); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	for _, f := range in {
		if _, there := v[f.Name]; !there && !f.Optional {
			return fmt.Errorf("%q is missing", f.Name)
		}
	}
	return nil
}

// Follows checks what a command, by its path without the program's name, printed with --json.
func Follows(t testing.TB, path, out string) {
	t.Helper()
	name, of := PrintedBy(path)
	schema := Schema(t, of)
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
		if !slices.ContainsFunc(schema, func(in []Field) bool {
			err := holds(in, v)
			why = append(why, err)
			return err == nil
		}) {
			t.Errorf("tweedle %s --json prints what docs/json.md does not say: %v: %v", name, errors.Join(why...), v)
		}
	}
}
