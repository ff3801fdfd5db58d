package archtest

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func project(t *testing.T) []File {
	t.Helper()
	files, err := Load(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d files found: the test looks at the wrong place", len(files))
	}
	return files
}

func TestPackagesImportOnlyWhatTheirFloorAllows(t *testing.T) {
	for _, line := range Imports(project(t)) {
		t.Error(line)
	}
}

func TestValuesProofsAndProtocolArePure(t *testing.T) {
	for _, line := range Purity(project(t)) {
		t.Error(line)
	}
}

func TestFilesAndFunctionsAreShortAndExplained(t *testing.T) {
	for _, line := range Shape(project(t)) {
		t.Error(line)
	}
}

func TestLongAndUnexplainedCodeIsReported(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"long file":     {"package p\n" + strings.Repeat("\n", MaxFileLines) + "var x int\n", "lines, more than"},
		"long function": {"package p\nfunc f() {" + strings.Repeat("\n", MaxFunctionLines) + "}\n", "function f has"},
		"function":      {"package p\nfunc F() {}\n", "exported F has no doc"},
		"method":        {"package p\n// T is.\ntype T int\nfunc (t *T) M() {}\n", "exported M has no doc"},
		"type":          {"package p\ntype T int\n", "exported T has no doc"},
		"constant":      {"package p\nconst C = 1\n", "exported C has no doc"},
	} {
		bad := Shape(source(t, "values/types/a.go", tc.text))
		if len(bad) != 1 || !strings.Contains(bad[0], tc.want) {
			t.Errorf("%s: reported %q, want %q", name, bad, tc.want)
		}
	}
	ok := "package p\n// T is.\ntype T int\nfunc (T) String() string { return \"\" }\nfunc f() {}\n"
	if bad := Shape(source(t, "values/types/a.go", ok)); bad != nil {
		t.Errorf("%q", bad)
	}
}

// source makes a project of one file and the places it may refer to.
func source(t *testing.T, name, text string) []File {
	t.Helper()
	files, err := Load(fstest.MapFS{name: {Data: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestForbiddenImportsAreReported(t *testing.T) {
	for name, tc := range map[string]struct{ file, imported, want string }{
		"values import protocol":      {"values/types/a.go", "tweedle/protocol/mesh", "values/types may not import tweedle/protocol/mesh"},
		"values import each other":    {"values/codec/a.go", "tweedle/values/types", "values/codec may not import"},
		"proofs import an edge":       {"proofs/posw/a.go", "tweedle/edges/store", "proofs/posw may not import"},
		"protocol imports upwards":    {"protocol/hare/a.go", "tweedle/protocol/mesh", "protocol/hare may not import"},
		"protocol imports a library":  {"protocol/vm/a.go", "google.golang.org/grpc", "protocol/vm may not import google"},
		"an edge imports a service":   {"edges/store/a.go", "tweedle/services/node", "edges/store may not import"},
		"services meet by import":     {"services/node/a.go", "tweedle/services/poet/door", "services/node may not import"},
		"a service imports a door":    {"services/node/a.go", "tweedle/cmd/tweedle", "services/node may not import"},
		"anybody imports sim":         {"cmd/tweedle/a.go", "tweedle/sim", "cmd/tweedle may not import"},
		"a floor that is not planned": {"util/a.go", "fmt", `"util" is not in the plan`},
		"a room that is not planned":  {"edges/util/a.go", "fmt", `"edges/util" is not in the plan`},
	} {
		bad := Imports(source(t, tc.file, "package p\nimport _ \""+tc.imported+"\"\n"))
		if len(bad) != 1 || !strings.Contains(bad[0], tc.want) {
			t.Errorf("%s: reported %q, want %q", name, bad, tc.want)
		}
	}
	for _, ok := range [][2]string{
		{"values/types/a.go", "tweedle/values/codec"}, {"protocol/mesh/a.go", "tweedle/protocol/hare"}, {"services/node/a.go", "tweedle/protocol/mesh"},
		{"edges/p2p/virtual/a.go", "tweedle/edges/p2p"}, {"edges/store/a.go", "zombiezen.com/go/sqlite"}, {"sim/a.go", "tweedle/services/node"},
	} {
		if bad := Imports(source(t, ok[0], "package p\nimport _ \""+ok[1]+"\"\n")); bad != nil {
			t.Errorf("%v: %q", ok, bad)
		}
	}
}

func TestImpurityIsReported(t *testing.T) {
	for name, tc := range map[string]struct{ file, body, want string }{
		"clock":                 {"protocol/hare/a.go", `import "time"; func f() time.Time { return time.Now() }`, "time.Now"},
		"timer":                 {"protocol/hare/a.go", `import "time"; func f() { <-time.After(1) }`, "time.After"},
		"goroutine":             {"protocol/vm/a.go", `func f() { go f() }`, "go statement"},
		"file":                  {"values/types/a.go", `import "os"; var _ = os.Args`, "import of os"},
		"network":               {"protocol/mesh/a.go", `import _ "net"`, "import of net"},
		"context":               {"protocol/mesh/a.go", `import _ "context"`, "import of context"},
		"log":                   {"protocol/vm/a.go", `import _ "log/slog"`, "import of log/slog"},
		"random":                {"protocol/hare/a.go", `import "math/rand/v2"; func f() int { return rand.Int() }`, "math/rand/v2.Int"},
		"clock by another name": {"protocol/hare/a.go", `import t "time"; func f() t.Time { return t.Now() }`, "time.Now"},
		"dot import":            {"protocol/hare/a.go", `import . "time"; func f() Duration { return Second }`, "dot import of time"},
		"true random":           {"values/signing/a.go", `import _ "crypto/rand"`, "import of crypto/rand"},
		"processors":            {"protocol/vm/a.go", `import _ "runtime"`, "import of runtime"},
		"select":                {"protocol/vm/a.go", `func f(a, b chan int) { select { case <-a:; case <-b:; } }`, "select"},
		"list of a map":         {"protocol/vm/a.go", `func f(m map[int]int) (l []int) { for k := range m {; l = append(l, k); }; return l }`, "append in a walk over map m"},
		"one of a map":          {"protocol/vm/a.go", `func f(m map[int]int) int { for k := range m {; return k; }; return 0 }`, "return out of a walk over map m"},
		"break in a map":        {"protocol/vm/a.go", `func f() (n int) { m := map[int]int{}; for k := range m {; n = k; break; }; return n }`, "break out of a walk"},
		"map in a struct":       {"protocol/vm/a.go", `type t struct{ m map[int]int }; func (x *t) f() int { for k := range x.m {; return k; }; return 0 }`, "over map m"},
		"variable":              {"protocol/vm/a.go", `var x int; func f() { x = 1 }`, "write to package variable x"},
		"map variable":          {"protocol/vm/a.go", `var m = map[int]int{}; func f() { m[1]++ }`, "write to package variable m"},
		"disk in posw":          {"proofs/posw/a.go", `import _ "os"`, "import of os"},
		"network in post":       {"proofs/post/a.go", `import _ "net"`, "import of net"},
	} {
		bad := Purity(source(t, tc.file, "package p\n"+strings.ReplaceAll(tc.body, "; ", "\n")+"\n"))
		if len(bad) != 1 || !strings.Contains(bad[0], tc.want) {
			t.Errorf("%s: reported %q, want %q", name, bad, tc.want)
		}
	}
	for _, ok := range [][2]string{
		{"protocol/hare/a.go", `import "time"; func f(now time.Time) time.Time { return now.Add(time.Second) }`},
		{"protocol/hare/a.go", `import "math/rand/v2"; func f(r *rand.Rand) int { return r.Int() }`},
		{"protocol/vm/a.go", `import "slices"; func f(m map[int]int) (l []int) { for k := range m {; l = append(l, k); }; slices.Sort(l); return l }`},
		{"protocol/vm/a.go", "func f(m map[int]int) (l []int) {\n// The caller brings them in order.\nfor k := range m {\nl = append(l, k)\n}\nreturn l\n}"},
		{"protocol/vm/a.go", `func f(m map[int]int) (n int) { for _, v := range m {; n += v; }; return n }`},
		{"protocol/vm/a.go", `func f(m map[int]int) bool { for k := range m {; if k > 3 {; return true; }; }; return false }`},
		{"protocol/vm/a.go", `var x int; func f() { x := 1; x = 2; _ = x }`},
		{"services/node/a.go", `import "time"; func f() { go f(); _ = time.Now() }`},
		{"proofs/post/a.go", `import _ "os"; func f() { go f() }`},
	} {
		if bad := Purity(source(t, ok[0], "package p\n"+strings.ReplaceAll(ok[1], "; ", "\n")+"\n")); bad != nil {
			t.Errorf("%v: %q", ok, bad)
		}
	}
}
