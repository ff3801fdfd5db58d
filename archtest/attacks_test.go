package archtest

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// docs/attacks.md names a test for each attack, and each exists.
func TestEachAttackHasItsTest(t *testing.T) {
	page, err := os.ReadFile("../docs/attacks.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	err = fs.WalkDir(os.DirFS(".."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path.Join("..", file))
		source.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile("`(Test\\w+)`")
	rows := 0
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| # ") {
			continue
		}
		rows++
		tests := name.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, m := range tests {
			if !strings.Contains(source.String(), "\nfunc "+m[1]+"(") {
				t.Errorf("%s: there is no %s", strings.Split(line, "|")[1], m[1])
			}
		}
	}
	if rows < 34 {
		t.Errorf("%d rows", rows)
	}
}
