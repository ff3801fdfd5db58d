package post

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
)

// partedParams give a space of four files, the last of them short.
func partedParams() Params {
	p := TestParams()
	p.LabelsPerUnit = 100
	return p
}

// withoutParts is what a directory has but for the parts' own files.
func withoutParts(files map[string]string) map[string]string {
	out := maps.Clone(files)
	maps.DeleteFunc(out, func(name, _ string) bool { return strings.HasPrefix(name, "postdata_part_") })
	return out
}

func copyInto(t *testing.T, fs durable.FS, from map[string]string) {
	t.Helper()
	if err := fs.Mkdir("dir", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range from {
		if err := durable.WriteFile(fs, filepath.Join("dir", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// initPart is a part made on a machine of its own.
func initPart(t *testing.T, p Params, part Part) map[string]string {
	t.Helper()
	fs, setup := durabletest.NewMem(1<<20), testSetup()
	setup.Part = part
	if _, err := initialise(fs, "dir", p, setup, InitOptions{BatchLabels: 16}); err != nil {
		t.Fatal(err)
	}
	return memFiles(t, fs)
}

func uninterrupted(t *testing.T, p Params) map[string]string {
	t.Helper()
	fs := durabletest.NewMem(1 << 20)
	if _, err := initialise(fs, "dir", p, testSetup(), InitOptions{}); err != nil {
		t.Fatal(err)
	}
	return memFiles(t, fs)
}

func TestPartsOfSeveralMachinesJoinToTheSpaceOfOne(t *testing.T) {
	p := partedParams()
	want := uninterrupted(t, p)
	for _, parts := range [][]Part{
		{{0, 2}, {2, 3}, {3, 4}}, // all of it
		{{0, 4}},
		{{1, 2}, {3, 4}}, // with gaps, which the join fills
		{{2, 4}, {1, 3}}, // one over another
	} {
		fs := durabletest.NewMem(1 << 20)
		for _, part := range parts {
			made := initPart(t, p, part)
			if len(made) != int(part.To-part.From)+1 {
				t.Fatalf("part %v left %d files", part, len(made))
			}
			copyInto(t, fs, made)
		}
		computed, setup := uint64(0), testSetup()
		setup.MaxFileSize = 0 // the parts know
		_, err := initialise(fs, "dir", p, setup, InitOptions{BatchLabels: 16, Progress: func(p InitProgress) { computed = p.Done - p.Resumed }})
		if err != nil {
			t.Fatalf("%v: %v", parts, err)
		}
		sameFiles(t, withoutParts(memFiles(t, fs)), want)
		if len(parts) == 3 && computed != 0 {
			t.Errorf("%d labels of finished parts were computed again", computed)
		}
		if _, err := open(fs, "dir"); err != nil {
			t.Errorf("%v: %v", parts, err)
		}
	}
}

func TestAJoinIsResumedAfterAFaultAtEveryWrite(t *testing.T) {
	p := partedParams()
	want := uninterrupted(t, p)
	parts := [2]map[string]string{initPart(t, p, Part{1, 2}), initPart(t, p, Part{3, 4})}
	opts := InitOptions{BatchLabels: 32}
	for _, fault := range []durabletest.Fault{{Err: syscall.ENOSPC}, {Err: syscall.EIO}, {}, {How: durabletest.Torn}, {How: durabletest.After}} {
		for fault.At = 1; ; fault.At++ {
			mem := durabletest.NewMem(1 << 20)
			for _, part := range parts {
				copyInto(t, mem, part)
			}
			fs := durabletest.NewFaulty(mem)
			fs.Set(fault)
			if _, err := initialise(fs, "dir", p, testSetup(), opts); err == nil {
				break
			}
			for _, next := range []*durabletest.Mem{mem.Crash(uint64(fault.At)), mem} {
				if _, err := initialise(next, "dir", p, testSetup(), opts); err != nil {
					t.Fatalf("call %d: does not resume: %v", fault.At, err)
				}
				sameFiles(t, withoutParts(memFiles(t, next)), want)
			}
		}
		if fault.At < 10 {
			t.Errorf("only %d writes were tried", fault.At)
		}
	}
}

func TestAPartIsResumedWhereItWasStopped(t *testing.T) {
	p, setup := partedParams(), testSetup()
	setup.Part = Part{1, 3}
	want := initPart(t, p, setup.Part)
	fs := durabletest.NewMem(1 << 20)
	last := InitProgress{}
	opts := InitOptions{BatchLabels: 16, Progress: func(p InitProgress) { last = p }, Cancel: func() bool { return last.Done >= 70 }}
	if _, err := initialise(fs, "dir", p, setup, opts); !errors.Is(err, ErrCancelled) {
		t.Fatalf("got %v", err)
	}
	opts.Cancel = nil
	if _, err := initialise(fs, "dir", p, setup, opts); err != nil {
		t.Fatal(err)
	}
	if last.Resumed != 64 || last.Done != 128 || last.Total != 128 {
		t.Errorf("the second start ends with %+v", last)
	}
	sameFiles(t, memFiles(t, fs), want)
}

func TestAPartThatIsNotWhatItSaysIsRefused(t *testing.T) {
	p := partedParams()
	for name, test := range map[string]struct {
		change func(files map[string]string)
		says   string
	}{
		"a file is cut off":           {func(f map[string]string) { f["postdata_2.bin"] = f["postdata_2.bin"][:100] }, "postdata_2.bin has 100 of 1024 bytes"},
		"a file was not copied":       {func(f map[string]string) { delete(f, "postdata_1.bin") }, "postdata_1.bin"},
		"a file under another's name": {func(f map[string]string) { f["postdata_1.bin"] = f["postdata_2.bin"] }, "damaged"},
		"another nonce": {func(f map[string]string) {
			f["postdata_part_1_3.json"] = strings.Replace(f["postdata_part_1_3.json"], `"Nonce": `, `"Nonce": 1`, 1)
		}, "postdata_part_1_3.json"},
		"files of another size": {func(f map[string]string) {
			f["postdata_part_3_4.json"] = strings.Replace(f["postdata_part_1_3.json"], "1024", "2048", 1)
		}, "postdata_part_3_4.json has files of 2048 bytes, not 1024"},
		"another range": {func(f map[string]string) { f["postdata_part_2_9.json"] = f["postdata_part_1_3.json"] }, "names no range"},
		"its name is a shorter range's": {func(f map[string]string) {
			f["postdata_part_3_4.json"] = f["postdata_part_1_3.json"]
			delete(f, "postdata_part_1_3.json")
		}, "restore the missing data"},
	} {
		fs := durabletest.NewMem(1 << 20)
		files := initPart(t, p, Part{1, 3})
		test.change(files)
		copyInto(t, fs, files)
		_, err := initialise(fs, "dir", p, testSetup(), InitOptions{})
		if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPartOfAnotherSpaceIsRefused(t *testing.T) {
	dir := t.TempDir()
	p, setup := partedParams(), testSetup()
	setup.Part = Part{0, 1}
	if _, err := Init(dir, p, setup, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	setup.Part = Part{}
	setup.NodeID[0]++
	if _, err := Init(dir, p, setup, InitOptions{}); err == nil || !strings.Contains(err.Error(), "postdata_part_0_1.json was made for identity") {
		t.Error(err)
	}
	for _, part := range []Part{{0, 5}, {3, 2}, {1 << 60, 1 << 61}} {
		setup.Part = part
		if _, err := Init(t.TempDir(), p, setup, InitOptions{}); err == nil || !strings.Contains(err.Error(), "the space has 4,") {
			t.Errorf("%v: %v", part, err)
		}
	}
	if err := os.Rename(filepath.Join(dir, "postdata_part_0_1.json"), filepath.Join(dir, "postdata_part_3_2.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadInfo(dir); err == nil || !strings.Contains(err.Error(), "postdata_part_3_2.json names no range") {
		t.Errorf("a wrong name: %v", err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("%d files, %v", len(files), err)
	}
}
