// Package archtest checks that the code keeps to its plan: a folder is a floor,
// a package in it is a room; which room may import which, that the packages
// which must be pure are, and that files and functions stay short and explained.
//
// It promises to name every place that breaks a rule, with the reason for the
// rule. It leaves to its tests to run it over the project.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is the import path of the project.
const Module = "tweedle"

// floor is a folder at the root, whose packages share one import rule.
type floor struct {
	name string
	// rooms, in order: a room may import the rooms before it. A package that is
	// not listed belongs to the room whose folder it lies in.
	rooms   []string
	apart   bool     // rooms of different top folders do not import each other
	below   []string // floors that may be imported
	outside []string // third-party modules allowed; nil allows all
	why     string
}

// plan is the house, from the ground up (docs/decisions/0001-the-house.md).
func plan() []floor {
	return []floor{
		{
			name: "base", rooms: []string{"clock", "words", "durable", "sealed", "kept", "telemetry"},
			// sealed is bbolt with checksums, which are BLAKE3's; kept counts the bytes of an LRU.
			outside: []string{
				"github.com/prometheus/client_golang", "github.com/prometheus/client_model", "golang.org/x/sys", "go.etcd.io/bbolt", "github.com/zeebo/blake3", "github.com/hashicorp/golang-lru",
			},
			why: "everything stands on it, so it stands on nothing of ours",
		},
		{
			name: "values", rooms: []string{"bounded", "codec", "merkle", "types", "signing"},
			outside: []string{"github.com/zeebo/blake3", "github.com/oasisprotocol/curve25519-voi"},
			why:     "values are pure data that everything else trusts",
		},
		{
			name: "proofs", rooms: []string{"gen", "processor", "posw", "post"}, below: []string{"base", "values"},
			outside: []string{"github.com/zeebo/blake3", "golang.org/x/crypto", "golang.org/x/sys"},
			why:     "proofs are byte-exact functions that must not depend on the network around them",
		},
		{
			name:  "protocol",
			rooms: []string{"registration", "eligibility", "beacon", "hare", "tortoise", "malfeasance", "activation", "vm", "txpool", "mesh", "syncer", "core"},
			below: []string{"values", "proofs"}, outside: []string{"github.com/zeebo/blake3"},
			why: "protocol packages are passive machines that simulators must be able to drive",
		},
		{
			name: "edges", rooms: []string{"preset", "p2p", "store", "front", "api", "smeshing"},
			below: []string{"base", "values", "proofs", "protocol"},
			why:   "an edge does one kind of I/O and knows only the values that it carries",
		},
		{
			name: "services", apart: true,
			// Package poet itself has the words of its rooms.
			rooms: []string{
				"poet", "poet/journal", "poet/work", "poet/book", "poet/rounds", "poet/delivery", "poet/door", "poet/legacy", "poet/server",
				"node", "page", "testnet",
			},
			below: []string{"base", "values", "proofs", "protocol", "edges"},
			why:   "services compose; they meet over the network, not by import",
		},
		{
			name: "cmd", below: []string{"base", "values", "proofs", "protocol", "edges", "services"},
			why: "doors are flags and one call each",
		},
		{
			name: "sim", below: []string{"base", "values", "proofs", "protocol", "edges", "services"},
			why: "only tests import the simulators",
		},
		{name: "archtest", why: "it reads the house and is no part of it"},
	}
}

// place is where a package stands: its floor and its room there.
type place struct {
	floor floor
	room  string // "hare", or "poet/delivery" where a room is divided; empty on a floor without rooms
	order int
}

// locate finds the place of a package from its path inside the module: the
// first folder is the floor, the longest room that the rest begins with is the
// room.
func locate(pkg string) (place, bool) {
	name, rest, _ := strings.Cut(pkg, "/")
	for _, fl := range plan() {
		if fl.name != name {
			continue
		}
		if fl.rooms == nil {
			return place{floor: fl}, true
		}
		at := place{floor: fl, order: -1}
		for i, r := range fl.rooms {
			if (rest == r || strings.HasPrefix(rest, r+"/")) && len(r) > len(at.room) {
				at.room, at.order = r, i
			}
		}
		return at, at.order >= 0
	}
	return place{}, false
}

// File is one source file of a package, with its folder inside the module.
type File struct {
	Dir  string
	Name string
	AST  *ast.File
	Set  *token.FileSet
}

// Load parses the non-test files of all packages below root, but for nested
// modules and hidden or vendored folders.
func Load(root fs.FS) ([]File, error) {
	var files []File
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || isModule(root, p)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		b, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, p, b, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, File{Dir: path.Dir(p), Name: p, AST: f, Set: set})
		return nil
	})
	return files, err
}

func isModule(root fs.FS, dir string) bool {
	_, err := fs.Stat(root, dir+"/go.mod")
	return err == nil
}

// Imports returns a line for every import that the plan does not allow.
func Imports(files []File) []string {
	var bad []string
	for _, f := range files {
		if f.Dir == "." {
			continue
		}
		here, ok := locate(f.Dir)
		if !ok {
			bad = append(bad, fmt.Sprintf("%s: folder %q is not in the plan of package archtest", f.Name, f.Dir))
			continue
		}
		for _, spec := range f.AST.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				bad = append(bad, f.Name+": "+err.Error())
				continue
			}
			if !here.mayImport(p) {
				bad = append(bad, fmt.Sprintf("%s: %s may not import %s: %s", f.Name, f.Dir, p, here.floor.why))
			}
		}
	}
	return bad
}

func (here place) mayImport(imported string) bool {
	inside, ours := strings.CutPrefix(imported, Module+"/")
	if !ours {
		if !strings.Contains(strings.Split(imported, "/")[0], ".") {
			return true // standard library; purity is another rule
		}
		return here.floor.outside == nil || slices.ContainsFunc(here.floor.outside, func(m string) bool {
			return imported == m || strings.HasPrefix(imported, m+"/")
		})
	}
	there, ok := locate(inside)
	switch {
	case !ok:
		return false
	case there.floor.name == here.floor.name:
		return there.order <= here.order && (!here.floor.apart || top(there.room) == top(here.room))
	default:
		return slices.Contains(here.floor.below, there.floor.name)
	}
}

// top returns the first folder of a room.
func top(room string) string {
	name, _, _ := strings.Cut(room, "/")
	return name
}

// exemption is what one of the pure packages is allowed nevertheless.
type exemption struct {
	dir     string
	imports []string
	goStmt  bool
	all     bool // not part of the pure package at all
	why     string
}

func exemptions() []exemption {
	return []exemption{
		{dir: "proofs/post", imports: []string{"os", "syscall"}, goStmt: true, why: "space is files, and proving it takes all cores; workers end before the call returns"},
		{dir: "proofs/posw/bench", all: true, why: "it measures the prover from outside; only a door imports it"},
		{dir: "proofs/post/bench", all: true, why: "it measures space from outside; only a door imports it"},
		{dir: "proofs/processor", imports: []string{"unsafe"}, why: "it tells the system where memory is, and changes none of it"},
		{dir: "proofs/posw", goStmt: true, why: "recomputing subtrees takes all cores; workers end before the call returns"},
	}
}

// impureImports may not be imported by pure packages.
var impureImports = []string{
	"os", "os/exec", "os/signal", "net", "net/http", "context", "log", "log/slog", "syscall", "math/rand", "crypto/rand",
	"runtime", "runtime/debug", "reflect", "unsafe", "io/ioutil", "plugin", "hash/maphash",
}

// Purity returns a line for every place where a package of the floors values,
// proofs and protocol is not pure: an impure import, a go statement, a call of
// time.Now and its like, the global random source, or a write to a package
// variable.
func Purity(files []File) []string {
	var bad []string
	written := packageVars(files)
	for _, f := range files {
		at, ok := locate(f.Dir)
		if !ok || !slices.Contains([]string{"values", "proofs", "protocol"}, at.floor.name) || f.AST.Name.Name == "main" {
			continue // a generator in a pure package's folder is not part of it
		}
		c := checker{file: f, vars: written[f.Dir], imported: make(map[string]string), maps: mapNames(f.AST)}
		for _, e := range exemptions() {
			if e.dir == f.Dir {
				c.allow = e
			}
		}
		if c.allow.all {
			continue
		}
		c.imports()
		ast.Inspect(f.AST, c.visit)
		bad = append(bad, c.bad...)
	}
	return bad
}

// packageVars returns the names of package variables by folder.
func packageVars(files []File) map[string]map[string]bool {
	vars := make(map[string]map[string]bool)
	for _, f := range files {
		if vars[f.Dir] == nil {
			vars[f.Dir] = make(map[string]bool)
		}
		for _, decl := range f.AST.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok && gen.Tok == token.VAR {
				for _, spec := range gen.Specs {
					for _, n := range spec.(*ast.ValueSpec).Names {
						vars[f.Dir][n.Name] = true
					}
				}
			}
		}
	}
	return vars
}

type checker struct {
	file File
	vars map[string]bool
	// imported leads from a name in the file to the path that it stands for.
	imported map[string]string
	maps     map[string]bool // variables that are maps
	allow    exemption
	bad      []string
}

func (c *checker) report(n ast.Node, format string, args ...any) {
	pos := c.file.Set.Position(n.Pos())
	c.bad = append(c.bad, fmt.Sprintf("%s:%d: %s in a package that must be pure", c.file.Name, pos.Line, fmt.Sprintf(format, args...)))
}

func (c *checker) imports() {
	for _, spec := range c.file.AST.Imports {
		p, _ := strconv.Unquote(spec.Path.Value) // Imports reports what cannot be read
		name := path.Base(strings.TrimSuffix(p, "/v2"))
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			c.report(spec, "dot import of %s, which hides what is used of it,", p)
		}
		c.imported[name] = p
		if slices.Contains(impureImports, p) && !slices.Contains(c.allow.imports, p) {
			c.report(spec, "import of %s", p)
		}
	}
}

// allowed tells whether a pure package may use a name of another package.
func allowed(imported, name string) bool {
	switch imported {
	case "time":
		return !slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Local", "LoadLocation"}, name)
	case "math/rand/v2":
		return slices.Contains([]string{"New", "NewPCG", "NewChaCha8", "Rand", "PCG", "ChaCha8", "Source"}, name)
	}
	return true
}

func (c *checker) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		if !c.allow.goStmt {
			c.report(n, "go statement")
		}
	case *ast.SelectStmt:
		if !c.allow.goStmt {
			c.report(n, "select, which draws among what is ready,")
		}
	case *ast.RangeStmt:
		c.mapOrder(n)
	case *ast.SelectorExpr:
		pkg, ok := n.X.(*ast.Ident)
		if !ok || pkg.Obj != nil {
			break
		}
		if from := c.imported[pkg.Name]; !allowed(from, n.Sel.Name) {
			c.report(n, "%s.%s", from, n.Sel.Name)
		}
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			for _, l := range n.Lhs {
				c.write(l)
			}
		}
	case *ast.IncDecStmt:
		c.write(n.X)
	}
	return true
}

// mapNames returns the variables, parameters and fields of a file that are seen
// to be maps, by name.
func mapNames(f *ast.File) map[string]bool {
	names := make(map[string]bool)
	isMap := func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.MapType:
			return true
		case *ast.CompositeLit:
			_, ok := e.Type.(*ast.MapType)
			return ok
		case *ast.CallExpr:
			if fun, ok := e.Fun.(*ast.Ident); ok && fun.Name == "make" && len(e.Args) > 0 {
				_, ok := e.Args[0].(*ast.MapType)
				return ok
			}
		}
		return false
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, name := range n.Names {
				names[name.Name] = names[name.Name] || isMap(n.Type)
			}
		case *ast.ValueSpec:
			for i, name := range n.Names {
				names[name.Name] = names[name.Name] || isMap(n.Type) || i < len(n.Values) && isMap(n.Values[i])
			}
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				if name, ok := l.(*ast.Ident); ok && len(n.Lhs) == len(n.Rhs) && isMap(n.Rhs[i]) {
					names[name.Name] = true
				}
			}
		}
		return true
	})
	return names
}

// mapOrder reports a walk over a map in whose body something is put in a row,
// returned or left early: then the order of the walk, which is drawn, shows.
// It sees only maps that are declared in the file, and believes a comment on the
// line before the walk that speaks of the order.
func (c *checker) mapOrder(r *ast.RangeStmt) {
	var name string
	switch x := r.X.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	}
	if !c.maps[name] || c.explained(r) {
		return
	}
	ast.Inspect(r.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			if len(n.Results) > 0 && !constants(n.Results) {
				c.report(n, "return out of a walk over map %s", name)
			}
		case *ast.BranchStmt:
			if n.Tok == token.BREAK {
				c.report(n, "break out of a walk over map %s", name)
			}
		case *ast.CallExpr:
			if fun, ok := n.Fun.(*ast.Ident); ok && fun.Name == "append" && !c.sortedAfter(r) {
				c.report(n, "append in a walk over map %s, which is not sorted after,", name)
			}
		}
		return true
	})
}

func (c *checker) explained(r *ast.RangeStmt) bool {
	line := c.file.Set.Position(r.Pos()).Line
	return slices.ContainsFunc(c.file.AST.Comments, func(g *ast.CommentGroup) bool {
		return c.file.Set.Position(g.End()).Line == line-1 && strings.Contains(g.Text(), "order")
	})
}

// constants tells whether all results are the same whatever was met.
func constants(results []ast.Expr) bool {
	return !slices.ContainsFunc(results, func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.BasicLit:
			return false
		case *ast.Ident:
			return e.Name != "true" && e.Name != "false" && e.Name != "nil"
		}
		return true
	})
}

// sortedAfter tells whether something is sorted further down in the function
// that the walk is in.
func (c *checker) sortedAfter(r *ast.RangeStmt) (found bool) {
	for _, decl := range c.file.AST.Decls {
		if decl.Pos() > r.Pos() || decl.End() < r.End() {
			continue
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Pos() > r.End() && strings.HasPrefix(sel.Sel.Name, "Sort") {
				found = true
			}
			return !found
		})
	}
	return found
}

// write reports an assignment whose root is a package variable.
func (c *checker) write(e ast.Expr) {
	for {
		switch x := e.(type) {
		case *ast.IndexExpr:
			e = x.X
			continue
		case *ast.SelectorExpr:
			e = x.X
			continue
		case *ast.StarExpr:
			e = x.X
			continue
		case *ast.ParenExpr:
			e = x.X
			continue
		case *ast.Ident:
			global := x.Obj == nil || isPackageVar(c.file.AST, x.Obj)
			if c.vars[x.Name] && global {
				c.report(x, "write to package variable %s", x.Name)
			}
		}
		return
	}
}

// isPackageVar tells whether obj is declared at the top of the file, not in a
// function.
//
//lint:ignore SA1019 within one file, objects are enough
func isPackageVar(f *ast.File, obj *ast.Object) bool {
	return f.Scope != nil && f.Scope.Lookup(obj.Name) == obj
}
