package archtest

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// Every test that grows into a campaign when TWEEDLE_NIGHTLY is set is run so by a part
// of `make nightly`: one that no part names would never be run.
func TestEveryCampaignIsAPartOfTheNight(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	var runs []*regexp.Regexp
	for _, m := range regexp.MustCompile(`NIGHTLY_TEST\) -run '([^']+)' \./(\S+)`).FindAllStringSubmatch(string(makefile), -1) {
		pattern := strings.NewReplacer("$$", "$", "^", "").Replace(m[1])
		runs = append(runs, regexp.MustCompile("^"+path.Clean(m[2])+" "+pattern))
	}
	campaigns := 0
	fset := regexp.MustCompile(`(?ms)^func (\w+)\(.*?^}$`)
	err = fs.WalkDir(os.DirFS(".."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "archtest/") {
			return err
		}
		source, err := os.ReadFile(path.Join("..", file))
		if err != nil {
			return err
		}
		dir := strings.TrimPrefix(path.Dir(file), "compat/")
		for _, fn := range fset.FindAllStringSubmatch(string(source), -1) {
			if !strings.Contains(fn[0], `Getenv("TWEEDLE_NIGHTLY")`) {
				continue
			}
			campaigns++
			if !strings.HasPrefix(fn[1], "Test") {
				continue // called by tests of the same file
			}
			named := false
			for _, r := range runs {
				named = named || r.MatchString(dir+" "+fn[1])
			}
			if !named {
				t.Errorf("%s: no part of `make nightly` runs %s: name it in the Makefile", file, fn[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if campaigns < 8 {
		t.Errorf("only %d campaigns were found", campaigns)
	}
}
