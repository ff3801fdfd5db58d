package post

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
)

// findings are what a check says of a directory.
func findings(t *testing.T, fs durable.FS, p Params, opts CheckOptions) (found []string, labels uint64) {
	t.Helper()
	opts.Found = func(err error) { found = append(found, err.Error()) }
	last := uint64(0)
	opts.Progress = func(done, total uint64) { last = max(last, done) }
	labels, err := check(fs, "dir", p, opts)
	if err != nil {
		t.Fatal(err)
	}
	if labels != last {
		t.Errorf("%d labels were looked at, progress says %d", labels, last)
	}
	slices.Sort(found)
	return found, labels
}

func TestACheckNamesEachDamageAndARepairMendsIt(t *testing.T) {
	p := partedParams()
	want := uninterrupted(t, p)
	flip := func(s string, at int) string { return s[:at] + string(s[at]^1) + s[at+1:] }
	for name, test := range map[string]struct {
		change   func(files map[string]string)
		says     []string
		repair   []uint64
		replaced uint64
	}{
		"nothing":      {func(map[string]string) {}, nil, []uint64{0, 1, 2, 3}, 0},
		"flipped bits": {func(f map[string]string) { f["postdata_1.bin"] = flip(flip(f["postdata_1.bin"], 0), 1023) }, []string{"label 127 in dir/postdata_1.bin at byte 1008", "label 64 in dir/postdata_1.bin at byte 0"}, []uint64{1}, 2},
		"a short file": {func(f map[string]string) { f["postdata_2.bin"] = f["postdata_2.bin"][:1000] }, []string{"postdata_2.bin has 1000 of 1024 bytes"}, []uint64{2}, 2},
		"a file gone":  {func(f map[string]string) { delete(f, "postdata_0.bin") }, []string{"postdata_0.bin cannot be opened"}, []uint64{0}, 64},
		"zeroes at the end": {func(f map[string]string) {
			f["postdata_3.bin"] = strings.Repeat("\x00", len(f["postdata_3.bin"]))
		}, []string{"label 192", "label 193", "label 194", "label 195", "label 196", "label 197", "label 198", "label 199"}, []uint64{3}, 8},
		"swapped files": {func(f map[string]string) {
			f["postdata_1.bin"], f["postdata_2.bin"] = f["postdata_2.bin"], f["postdata_1.bin"]
		}, nil, []uint64{1, 2}, 128},
	} {
		fs := durabletest.NewMem(1 << 20)
		files := maps.Clone(want)
		test.change(files)
		copyInto(t, fs, files)
		found, _ := findings(t, fs, p, CheckOptions{Workers: 3})
		if test.says == nil && len(found) != int(test.replaced) || test.says != nil && len(found) != len(test.says) {
			t.Errorf("%s: %d findings, the first: %v", name, len(found), found[:min(1, len(found))])
		}
		for i, says := range test.says {
			if i < len(found) && !strings.Contains(found[i], says) {
				t.Errorf("%s: %s, want %s", name, found[i], says)
			}
		}
		replaced, err := repair(fs, "dir", p, test.repair, InitOptions{Workers: 2, BatchLabels: 16})
		if err != nil || replaced != test.replaced {
			t.Errorf("%s: %d labels were replaced, want %d, %v", name, replaced, test.replaced, err)
		}
		sameFiles(t, memFiles(t, fs), want)
	}
}

func TestAPartOfTheLabelsIsDrawnFromAllStretchesOfEachFile(t *testing.T) {
	p := partedParams()
	want := uninterrupted(t, p)
	for number := range 4 { // whichever stretch is damaged, some are drawn from it
		for half := range 2 {
			fs := durabletest.NewMem(1 << 20)
			files := maps.Clone(want)
			name := dataFile(uint64(number))
			b := []byte(files[name])
			for i := half * len(b) / 2; i < (half+1)*len(b)/2; i++ {
				b[i] ^= 1
			}
			files[name] = string(b)
			copyInto(t, fs, files)
			found, labels := findings(t, fs, p, CheckOptions{Fraction: 0.25, Seed: 7})
			if labels != 3*16+2 {
				t.Errorf("%d labels were looked at", labels)
			}
			if len(found) != len(b)/LabelSize/8 {
				t.Errorf("half %d of %s is damaged, %d findings", half, name, len(found))
			}
		}
	}
	fs := durabletest.NewMem(1 << 20)
	copyInto(t, fs, want)
	for _, fraction := range []float64{1e-9, 1} {
		if found, labels := findings(t, fs, p, CheckOptions{Fraction: fraction, Files: []uint64{2, 0, 2}}); len(found) != 0 || labels != map[float64]uint64{1e-9: 2, 1: 128}[fraction] {
			t.Errorf("fraction %v: %d labels, %v", fraction, labels, found)
		}
	}
}

func TestAnUnreadablePlaceIsNamedAndTheRestLookedAt(t *testing.T) {
	p, dir := partedParams(), t.TempDir()
	if _, err := Init(dir, p, testSetup(), InitOptions{}); err != nil {
		t.Fatal(err)
	}
	fs := badSectors{bad: func(name string, from, to int64) bool { return name == dataFile(1) && from < 1024 && to > 512 }}
	var unreadable *UnreadableError
	found := 0
	labels, err := check(fs, dir, p, CheckOptions{Found: func(err error) {
		if errors.As(err, &unreadable) && unreadable.Offset >= 512 {
			found++
		}
	}})
	if err != nil || labels != 200 || found != 32 {
		t.Errorf("%d labels, %d of 32 found, %v", labels, found, err)
	}
}

func TestARepairThatMeetsAFaultAtAnyWriteLosesNothing(t *testing.T) {
	p := partedParams()
	want := uninterrupted(t, p)
	broken := maps.Clone(want)
	broken["postdata_1.bin"] = want["postdata_1.bin"][:500]
	delete(broken, "postdata_3.bin")
	for _, fault := range []durabletest.Fault{{Err: syscall.ENOSPC, How: durabletest.Torn}, {Err: syscall.EIO}, {}, {How: durabletest.Torn}, {How: durabletest.After}} {
		for fault.At = 1; ; fault.At++ {
			mem := durabletest.NewMem(1 << 20)
			copyInto(t, mem, broken)
			fs := durabletest.NewFaulty(mem)
			fs.Set(fault)
			if _, err := repair(fs, "dir", p, []uint64{1, 3}, InitOptions{BatchLabels: 16}); err == nil {
				break
			}
			for _, next := range []*durabletest.Mem{mem.Crash(uint64(fault.At)), mem} {
				for _, name := range []string{"postdata_0.bin", "postdata_2.bin", MetadataFile} {
					if got := memFiles(t, next)[name]; got != want[name] {
						t.Fatalf("call %d: %s was changed", fault.At, name)
					}
				}
				if _, err := repair(next, "dir", p, []uint64{1, 3}, InitOptions{}); err != nil {
					t.Fatal(err)
				}
				sameFiles(t, memFiles(t, next), want)
			}
		}
		if fault.At < 6 {
			t.Errorf("only %d writes were tried", fault.At)
		}
	}
}

func TestWhatCannotBeCheckedIsSaid(t *testing.T) {
	p, dir := partedParams(), t.TempDir()
	setup := testSetup()
	if _, err := Check(dir, p, CheckOptions{}); err == nil || !strings.Contains(err.Error(), "initialise it first") {
		t.Error(err)
	}
	last := uint64(0)
	opts := InitOptions{BatchLabels: 16, Progress: func(p InitProgress) { last = p.Done }, Cancel: func() bool { return last > 100 }}
	if _, err := Init(dir, p, setup, opts); !errors.Is(err, ErrCancelled) {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"a check":  second(Check(dir, p, CheckOptions{})),
		"a repair": second(Repair(dir, p, []uint64{0}, InitOptions{})),
	} {
		if err == nil || !strings.Contains(err.Error(), "finish initialising") {
			t.Errorf("%s of what is not finished: %v", what, err)
		}
	}
	if _, err := Init(dir, p, setup, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	other := p
	other.LabelsPerUnit = 50
	for what, err := range map[string]error{
		"another network": second(Check(dir, other, CheckOptions{})),
		"has 4 files":     second(Check(dir, p, CheckOptions{Files: []uint64{4}})),
		"fraction 1.5":    second(Check(dir, p, CheckOptions{Fraction: 1.5})),
		"name the files":  second(Repair(dir, p, nil, InitOptions{})),
		"cancelled":       second(Check(dir, p, CheckOptions{Cancel: func() bool { return true }})),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	useLabels(t, wrongLabels(labelKernels()[0]))
	if _, err := Check(dir, p, CheckOptions{}); err == nil || !strings.Contains(err.Error(), "--kernel portable") {
		t.Error(err)
	}
}

func second(_ uint64, err error) error { return err }

// A file that lost its rights is named, not taken for damaged.
func TestAFileThatMayNotBeReadIsNamed(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("SKIPPED: root may read everything, so nothing was tested")
	}
	p, dir := partedParams(), t.TempDir()
	if _, err := Init(dir, p, testSetup(), InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, dataFile(1)), 0); err != nil {
		t.Fatal(err)
	}
	var found []error
	if _, err := Check(dir, p, CheckOptions{Found: func(err error) { found = append(found, err) }}); err != nil || len(found) != 1 {
		t.Fatal(err, found)
	}
	if !strings.Contains(fmt.Sprint(found[0]), "permission denied") {
		t.Error(found[0])
	}
}
