package drill

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tweedle/archtest/jsondoc"
)

// The drills themselves take minutes each, and processors of their own.
func byNight(t *testing.T) {
	t.Helper()
	if os.Getenv("TWEEDLE_NIGHTLY") == "" {
		t.Skip("it runs for minutes: make nightly NIGHTLY=\"drill drill-guards\"")
	}
}

// builds are the programs, and the program with each guard taken away.
type builds struct{ dir string }

func newBuilds(t *testing.T) builds {
	t.Helper()
	b := builds{t.TempDir()}
	b.run(t, "build", "-C", "../../..", "-o", b.dir+"/", "./cmd/tweedle")
	b.run(t, "build", "-C", "../../../watch", "-o", b.dir+"/", "./cmd/tweedle-watch")
	return b
}

func (b builds) run(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v: %s", args, err, out)
	}
}

// planted is a fault that no program has by itself: one line of its source changed.
type planted struct{ guard, file, old, new string }

// without builds the program with a guard taken away (go build -overlay).
func (b builds) without(t *testing.T, p planted) (program string) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, p.file)
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), p.old) != 1 {
		t.Fatalf("%s is not as it was when the fault was written (%v): it does not have once %q", file, err, p.old)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, filepath.Base(file)), filepath.Join(dir, "overlay")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{changed: strings.Replace(string(text), p.old, p.new, 1), overlay: string(list)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(dir, "tweedle")
	b.run(t, "build", "-C", root, "-overlay", overlay, "-o", program, "./cmd/tweedle")
	if err := os.Symlink(filepath.Join(b.dir, "tweedle-watch"), filepath.Join(dir, "tweedle-watch")); err != nil {
		t.Fatal(err)
	}
	return program
}

// outcome is the last line of a drill.
type outcome struct {
	Type    string
	OK      bool
	Reasons []string
	Seconds float64
	Stood   float64 `json:"machine_stood_seconds"`
	Checks  []Result
}

// play runs a drill as people do.
func playDrill(t *testing.T, program string, args ...string) outcome {
	t.Helper()
	var out, said bytes.Buffer
	cmd := exec.Command(program, append([]string{"testnet", "drill", "--json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	jsondoc.Follows(t, "testnet drill", out.String())
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	var last outcome
	if jsonErr := json.Unmarshal(lines[len(lines)-1], &last); jsonErr != nil || last.Type != "summary" {
		t.Fatalf("%v, %v: %s: %s", err, jsonErr, &said, lines[len(lines)-1])
	}
	if last.OK != (err == nil) {
		t.Errorf("exit %v with %+v", err, last)
	}
	var b strings.Builder
	for _, r := range last.Checks {
		fmt.Fprintf(&b, "%d %s\n", r.Step, r.text())
	}
	t.Logf("%v: ok %v after %.0f s; the machine stood still for %g s at most\n%s", args, last.OK, last.Seconds, last.Stood, &b)
	return last
}

// longest is what a drill may take on two quiet processors.
const longest = 5 * time.Minute

// Every drill holds, in all its variants.
func TestEveryDrillHolds(t *testing.T) {
	byNight(t)
	b := newBuilds(t)
	for _, s := range Scripts() {
		variants := [][]string{nil}
		if s.Variants {
			variants = append(variants, []string{"--pull"}, []string{"--recycle"}, []string{"--pull", "--recycle"})
		}
		for _, flags := range variants {
			t.Run(strings.Join(append([]string{s.Name}, flags...), ""), func(t *testing.T) {
				r := playDrill(t, filepath.Join(b.dir, "tweedle"), append([]string{s.Name}, flags...)...)
				if !r.OK {
					t.Errorf("it does not hold: %v", r.Reasons)
				}
				if r.Seconds > longest.Seconds() {
					t.Errorf("it took %.0f s, the bound is %v", r.Seconds, longest)
				}
			})
		}
	}
}

// guard is what the drill of the incident is about: with it taken away it fails, at one of the checks
// that say so.
type guard struct {
	planted
	flags []string
	fails []string // parts of the names of those checks
}

func (g guard) about(check string) bool {
	return slices.ContainsFunc(g.fails, func(part string) bool { return strings.Contains(check, part) })
}

func guards() []guard {
	return []guard{
		{planted{"bounded table", "edges/p2p/sessions.go", "len(t.sessions) >= t.limit", "len(t.sessions) >= 1000"}, nil, []string{"no table holds more than"}},
		{planted{"a replaced session closes nothing twice", "edges/p2p/sessions.go", "		t.remove(victim, reason, now)\n", "		t.remove(victim, reason, now)\n		t.sessions[victim].of.sessions--\n"}, nil, []string{"every node lives"}},
		{planted{"outbox", "services/poet/delivery/outbox.go", "return it.DeliveredAt.IsZero() && date.Before(it.UsefulUntil)", "return it.DeliveredAt.IsZero() && date.Before(it.Added.Add(25*time.Second))"}, nil, []string{"all waiting proofs go out"}},
		{planted{"recycling", "services/poet/delivery/gateways.go", "!(m.cfg.DrillNoRecycle && rank >= m.cfg.Slots)", "rank < m.cfg.Slots"}, []string{"--recycle"}, []string{"slots go to the two that are left"}},
		{planted{"pull", "edges/smeshing/poets.go", "if s.cfg.NoPull {", "if true {"}, []string{"--pull"}, []string{"ATXs go on", "blocks go on"}},
	}
}

func TestADrillFailsWithoutItsGuard(t *testing.T) {
	byNight(t)
	b := newBuilds(t)
	for _, g := range guards() {
		t.Run(strings.ReplaceAll(g.guard, " ", "_"), func(t *testing.T) {
			r := playDrill(t, b.without(t, g.planted), append([]string{"tweedledee"}, g.flags...)...)
			for _, c := range r.Checks {
				if !c.OK && g.about(c.Name) {
					return
				}
			}
			t.Errorf("ok %v without it; none of the checks %q fails: %v", r.OK, g.fails, r.Reasons)
		})
	}
}

// The faults fit the source as it is now: found by day, not in the night.
func TestTheGuardsAreWhereTheyWere(t *testing.T) {
	for _, g := range guards() {
		b, err := os.ReadFile(filepath.Join("../../..", g.file))
		if err != nil || strings.Count(string(b), g.old) != 1 {
			t.Errorf("%s: %s does not have once %q (%v)", g.guard, g.file, g.old, err)
		}
		found := false
		for _, f := range []Flags{{}, {Pull: true}, {Recycle: true}} {
			for _, s := range tweedledee().Steps(f) {
				for _, c := range s.Checks {
					found = found || g.about(c.Name)
				}
			}
		}
		if !found {
			t.Errorf("%s: no check is named like one of %q", g.guard, g.fails)
		}
	}
}
