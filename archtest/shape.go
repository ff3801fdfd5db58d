package archtest

import (
	"fmt"
	"go/ast"
	"strings"
)

// Limits of size, in lines.
const (
	MaxFileLines     = 900
	MaxFunctionLines = 120
)

// Shape returns a line for every file or function that is too long, and for
// every exported name of a package without a doc comment. Generated files are
// passed over.
func Shape(files []File) []string {
	var bad []string
	for _, f := range files {
		if ast.IsGenerated(f.AST) {
			continue
		}
		if n := f.Set.Position(f.AST.End()).Line; n > MaxFileLines {
			bad = append(bad, fmt.Sprintf("%s has %d lines, more than %d: split it by what it decides", f.Name, n, MaxFileLines))
		}
		for _, d := range f.AST.Decls {
			bad = append(bad, f.declaration(d)...)
		}
	}
	return bad
}

func (f File) declaration(d ast.Decl) []string {
	var bad []string
	undocumented := func(n *ast.Ident, docs ...*ast.CommentGroup) {
		for _, doc := range docs {
			if doc != nil {
				return
			}
		}
		if n.IsExported() && f.AST.Name.Name != "main" {
			bad = append(bad, fmt.Sprintf("%s:%d: exported %s has no doc comment", f.Name, f.Set.Position(n.Pos()).Line, n.Name))
		}
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if n := f.Set.Position(d.End()).Line - f.Set.Position(d.Pos()).Line + 1; n > MaxFunctionLines {
			bad = append(bad, fmt.Sprintf("%s: function %s has %d lines, more than %d", f.Name, d.Name.Name, n, MaxFunctionLines))
		}
		if d.Recv == nil {
			undocumented(d.Name, d.Doc)
		} else if !strings.Contains("String Error Unwrap EncodeTo DecodeFrom", d.Name.Name) && exportedReceiver(d) {
			undocumented(d.Name, d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				undocumented(s.Name, d.Doc, s.Doc, s.Comment)
			case *ast.ValueSpec:
				for _, n := range s.Names {
					undocumented(n, d.Doc, s.Doc, s.Comment)
				}
			}
		}
	}
	return bad
}

func exportedReceiver(d *ast.FuncDecl) bool {
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	name, ok := t.(*ast.Ident)
	return ok && name.IsExported()
}
