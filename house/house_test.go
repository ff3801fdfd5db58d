package house

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
		bad := Shape(source(t, "types/a.go", tc.text))
		if len(bad) != 1 || !strings.Contains(bad[0], tc.want) {
			t.Errorf("%s: reported %q, want %q", name, bad, tc.want)
		}
	}
	ok := "package p\n// T is.\ntype T int\nfunc (T) String() string { return \"\" }\nfunc f() {}\n"
	if bad := Shape(source(t, "types/a.go", ok)); bad != nil {
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
		"values import protocol":     {"types/a.go", "tweedle/mesh", "types may not import tweedle/mesh"},
		"values import each other":   {"codec/a.go", "tweedle/types", "codec may not import"},
		"proofs import an edge":      {"posw/a.go", "tweedle/store", "posw may not import"},
		"protocol imports upwards":   {"hare/a.go", "tweedle/mesh", "hare may not import"},
		"protocol imports a library": {"vm/a.go", "google.golang.org/grpc", "vm may not import google"},
		"an edge imports a service":  {"store/a.go", "tweedle/node", "store may not import"},
		"a service imports a door":   {"node/a.go", "tweedle/cmd/tweedle", "node may not import"},
		"anybody imports sim":        {"cmd/tweedle/a.go", "tweedle/sim", "cmd may not import"},
		"a room that is not planned": {"util/a.go", "fmt", `"util" is not in the plan`},
	} {
		bad := Imports(source(t, tc.file, "package p\nimport _ \""+tc.imported+"\"\n"))
		if len(bad) != 1 || !strings.Contains(bad[0], tc.want) {
			t.Errorf("%s: reported %q, want %q", name, bad, tc.want)
		}
	}
	for _, ok := range [][2]string{
		{"types/a.go", "tweedle/codec"}, {"mesh/a.go", "tweedle/hare"}, {"node/a.go", "tweedle/mesh"},
		{"p2p/virtual/a.go", "tweedle/p2p"}, {"store/a.go", "zombiezen.com/go/sqlite"}, {"sim/a.go", "tweedle/node"},
	} {
		if bad := Imports(source(t, ok[0], "package p\nimport _ \""+ok[1]+"\"\n")); bad != nil {
			t.Errorf("%v: %q", ok, bad)
		}
	}
}

func TestImpurityIsReported(t *testing.T) {
	for name, tc := range map[string]struct{ file, body, want string }{
		"clock":           {"hare/a.go", `import "time"; func f() time.Time { return time.Now() }`, "time.Now"},
		"timer":           {"hare/a.go", `import "time"; func f() { <-time.After(1) }`, "time.After"},
		"goroutine":       {"vm/a.go", `func f() { go f() }`, "go statement"},
		"file":            {"types/a.go", `import "os"; var _ = os.Args`, "import of os"},
		"network":         {"mesh/a.go", `import _ "net"`, "import of net"},
		"context":         {"mesh/a.go", `import _ "context"`, "import of context"},
		"log":             {"vm/a.go", `import _ "log/slog"`, "import of log/slog"},
		"random":          {"hare/a.go", `import "math/rand/v2"; func f() int { return rand.Int() }`, "rand.Int"},
		"variable":        {"vm/a.go", `var x int; func f() { x = 1 }`, "write to package variable x"},
		"map variable":    {"vm/a.go", `var m = map[int]int{}; func f() { m[1]++ }`, "write to package variable m"},
		"disk in posw":    {"posw/a.go", `import _ "os"`, "import of os"},
		"network in post": {"post/a.go", `import _ "net"`, "import of net"},
	} {
		bad := Purity(source(t, tc.file, "package p\n"+strings.ReplaceAll(tc.body, "; ", "\n")+"\n"))
		if len(bad) != 1 || !strings.Contains(bad[0], tc.want) {
			t.Errorf("%s: reported %q, want %q", name, bad, tc.want)
		}
	}
	for _, ok := range [][2]string{
		{"hare/a.go", `import "time"; func f(now time.Time) time.Time { return now.Add(time.Second) }`},
		{"hare/a.go", `import "math/rand/v2"; func f(r *rand.Rand) int { return r.Int() }`},
		{"vm/a.go", `var x int; func f() { x := 1; x = 2; _ = x }`},
		{"node/a.go", `import "time"; func f() { go f(); _ = time.Now() }`},
		{"post/a.go", `import _ "os"; func f() { go f() }`},
	} {
		if bad := Purity(source(t, ok[0], "package p\n"+strings.ReplaceAll(ok[1], "; ", "\n")+"\n")); bad != nil {
			t.Errorf("%v: %q", ok, bad)
		}
	}
}
