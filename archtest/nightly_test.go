package archtest

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
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
	var list []string
	for _, lane := range regexp.MustCompile(`(?m)^NIGHTLY_(?:ALONE|WAITS|WORKS) := (.*)$`).FindAllStringSubmatch(string(makefile), -1) {
		list = append(list, strings.Fields(lane[1])...)
	}
	for _, m := range regexp.MustCompile(`(?m)^nightly-([a-z]+):`).FindAllStringSubmatch(string(makefile), -1) {
		if !slices.Contains(list, m[1]) {
			t.Errorf("`make nightly` leaves out nightly-%s: put it into one of its lanes", m[1])
		}
	}
	campaigns := campaignsOf(t)
	for test, file := range campaigns {
		if !slices.ContainsFunc(runs, func(r *regexp.Regexp) bool { return r.MatchString(test) }) {
			t.Errorf("%s: no part of `make nightly` runs %s: name it in the Makefile", file, test)
		}
	}
	if len(campaigns) < 15 {
		t.Errorf("only %d campaigns were found", len(campaigns))
	}
}

// campaignsOf returns the files of all tests that ask for TWEEDLE_NIGHTLY, by themselves
// or through a function of their package, by folder and name.
func campaignsOf(t *testing.T) map[string]string {
	t.Helper()
	function := regexp.MustCompile(`(?ms)^func (\w+)\(.*?^}$`)
	type found struct{ dir, file, name, text string }
	var all []found
	asks := map[string]bool{} // by folder and name
	err := fs.WalkDir(os.DirFS(".."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "archtest/") {
			return err
		}
		source, err := os.ReadFile(path.Join("..", file))
		if err != nil {
			return err
		}
		dir := strings.TrimPrefix(strings.TrimPrefix(path.Dir(file), "compat/"), "watch/")
		for _, fn := range function.FindAllStringSubmatch(string(source), -1) {
			all = append(all, found{dir, file, fn[1], fn[0]})
			asks[dir+" "+fn[1]] = strings.Contains(fn[0], `Getenv("TWEEDLE_NIGHTLY")`)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`\b(\w+)\(`)
	campaigns := map[string]string{}
	for more := true; more; {
		more = false
		for _, fn := range all {
			key := fn.dir + " " + fn.name
			for _, m := range call.FindAllStringSubmatch(fn.text, -1) {
				if !asks[key] && m[1] != fn.name && asks[fn.dir+" "+m[1]] {
					asks[key], more = true, true
				}
			}
			if asks[key] && strings.HasPrefix(fn.name, "Test") && fn.name != "TestMain" {
				campaigns[key] = fn.file
			}
		}
	}
	return campaigns
}
