package post

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirEnv); dir != "" {
		childInit(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func testSetup() Setup {
	return Setup{NodeID: testID, CommitmentATX: testATX, NumUnits: 2, MaxFileSize: MinFileSize}
}

// memFiles returns the contents of the folder "dir" by name, without temporary files.
func memFiles(t testing.TB, fs durable.FS) map[string]string {
	t.Helper()
	names, err := fs.ReadDir("dir")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, name := range names {
		if strings.HasSuffix(name, ".tmp") {
			continue
		}
		b, err := durable.ReadFile(fs, filepath.Join("dir", name), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(b)
	}
	return out
}

func filesOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, entry := range names {
		if strings.HasSuffix(entry.Name(), ".tmp") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[entry.Name()] = string(b)
	}
	return out
}

func sameFiles(t testing.TB, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs:\ngot  %.200q\nwant %.200q", name, got[name], want[name])
		}
	}
}

func TestInitWritesEveryLabelInItsPlace(t *testing.T) {
	p, setup := TestParams(), testSetup()
	p.LabelsPerUnit = 100 // the last file is shorter
	dir := filepath.Join(t.TempDir(), "a", "b")
	m, err := Init(dir, p, setup, InitOptions{Workers: 3, BatchLabels: 7})
	if err != nil {
		t.Fatal(err)
	}
	l := NewLabeler(p.ScryptN)
	commitment := Commitment(testID, testATX)
	var want []byte
	nonce, smallest := uint64(0), [32]byte{0xff}
	for i := range uint64(200) {
		label := l.Label(commitment, i)
		want = append(want, label[:LabelSize]...)
		if string(label[:]) < string(smallest[:]) {
			nonce, smallest = i, label
		}
	}
	for n, size := range []int{1024, 1024, 1024, 128} {
		name := filepath.Join(dir, fmt.Sprintf("postdata_%d.bin", n))
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[n*1024:n*1024+size]) {
			t.Errorf("%s does not hold labels %d.. (%d bytes)", name, n*64, len(got))
		}
		if info, _ := os.Stat(name); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if info, _ := os.Stat(d); info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", d, info.Mode())
		}
	}
	if *m.Nonce != nonce || *m.NonceValue != [16]byte(smallest[:16]) {
		t.Fatalf("VRF nonce is %d, %x, want %d, %x", *m.Nonce, *m.NonceValue, nonce, smallest)
	}
	if err := verifyVRFNonce(nonce, commitment, 2, p); err != nil {
		t.Fatal(err)
	}
}

func TestInitIsResumedAfterAFaultAtEveryWrite(t *testing.T) {
	p, setup := TestParams(), testSetup()
	p.LabelsPerUnit = 48
	opts := InitOptions{BatchLabels: 32} // two batches in the first file, one in the second
	const dir = "dir"
	clean := durabletest.NewFaulty(durabletest.NewMem(1 << 20))
	if _, err := initialise(clean, dir, p, setup, opts); err != nil {
		t.Fatal(err)
	}
	want, writes := memFiles(t, clean), len(clean.Done())
	if len(want) != 3 {
		t.Fatalf("%d files, want 2 data files and the metadata", len(want))
	}
	for name, f := range map[string]durabletest.Fault{
		"disk full":                 {Err: syscall.ENOSPC},
		"disk full in the middle":   {Err: syscall.ENOSPC, How: durabletest.Torn},
		"input/output error":        {Err: syscall.EIO},
		"error after it was done":   {Err: syscall.EIO, How: durabletest.After},
		"death before the call":     {},
		"death after half a write":  {How: durabletest.Torn},
		"death after the whole one": {How: durabletest.After},
	} {
		t.Run(name, func(t *testing.T) {
			for f.At = 1; f.At <= writes; f.At++ {
				mem := durabletest.NewMem(1 << 20)
				fs := durabletest.NewFaulty(mem)
				fs.Set(f)
				_, err := initialise(fs, dir, p, setup, opts)
				if err == nil || strings.Contains(err.Error(), "\n") {
					t.Fatalf("call %d: error is %v, want one line", f.At, err)
				}
				if f.Err == syscall.ENOSPC && !strings.Contains(err.Error(), "disk full") {
					t.Fatalf("call %d: %v", f.At, err)
				}
				for what, next := range map[string]*durabletest.Mem{"power loss": mem.Crash(uint64(f.At)), "kill -9": mem} {
					if _, err := initialise(next, dir, p, setup, opts); err != nil {
						t.Fatalf("call %d of %d, %s: does not resume: %v", f.At, writes, what, err)
					}
					sameFiles(t, memFiles(t, next), want)
				}
			}
		})
	}
}

func TestFinishedLabelsAreNotComputedAgain(t *testing.T) {
	p, setup := TestParams(), testSetup()
	fs := durabletest.NewFaulty(durabletest.NewMem(1 << 20))
	stopAt := uint64(100)
	opts := InitOptions{BatchLabels: 16}
	last := uint64(0)
	opts.Progress = func(p InitProgress) { last = p.Done }
	opts.Cancel = func() bool { return last >= stopAt }
	if _, err := initialise(fs, "dir", p, setup, opts); !errors.Is(err, ErrCancelled) {
		t.Fatalf("got %v, want ErrCancelled", err)
	}
	opts.Cancel = nil
	first := InitProgress{}
	opts.Progress = func(p InitProgress) {
		if first.Total == 0 {
			first = p
		}
	}
	if _, err := initialise(fs, "dir", p, setup, opts); err != nil {
		t.Fatal(err)
	}
	// Batches end at multiples of 16 within files of 64 labels.
	if first.Resumed != 96 || first.Total != 256 || first.Done != min(96+uint64(NewLabeler(p.ScryptN).Lanes()), 112) {
		t.Fatalf("second start begins with %+v", first)
	}
	fs.Set(durabletest.Fault{})
	if _, err := initialise(fs, "dir", p, setup, opts); err != nil {
		t.Fatal(err)
	}
	if writes := fs.Done(); len(writes) != 1 || writes[0] != "mkdir dir" {
		t.Fatalf("a start of a finished directory changes the disk: %v", writes)
	}
}

const childDirEnv = "POST_TEST_INIT_DIR"

// manyBatches gives a space whose Init has moments to be killed at. Nightly it has
// more of them.
func manyBatches() (p Params, kills int) {
	p = TestParams()
	p.LabelsPerUnit, kills = 512, 10
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		p.LabelsPerUnit, kills = 8192, 200
	}
	p.ScryptN = 512
	return p, kills
}

const killedBatch = 16

// childInit is a process to kill: it prints a line for each bit of progress.
func childInit(dir string) {
	p, _ := manyBatches()
	_, err := Init(dir, p, testSetup(), InitOptions{
		Workers: 2, BatchLabels: killedBatch,
		Progress: func(p InitProgress) { fmt.Println(p.Done, p.Resumed) },
	})
	fmt.Println("end", err)
}

func TestInitIsResumedAfterKillOfTheProcess(t *testing.T) {
	p, want := manyBatches()
	clean := filepath.Join(t.TempDir(), "clean")
	if _, err := Init(clean, p, testSetup(), InitOptions{BatchLabels: killedBatch}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "killed")
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	kills, before := 0, uint64(0)
	for ended := ""; ended != "end <nil>"; kills++ {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childDirEnv+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		done, resumed := uint64(0), uint64(0)
		for n := rng.IntN(6); n >= 0 && lines.Scan(); n-- {
			if ended = lines.Text(); strings.HasPrefix(ended, "end") {
				break
			}
			if _, err := fmt.Sscan(ended, &done, &resumed); err != nil {
				t.Fatalf("%q: %v", ended, err)
			}
		}
		child.Process.Kill()
		io.Copy(io.Discard, out)
		child.Wait()
		if strings.HasPrefix(ended, "end") && ended != "end <nil>" {
			t.Fatalf("after %d kills: %q", kills, ended)
		}
		// Of what was computed, all but the last batch was durable.
		if done > 0 && resumed+killedBatch < before {
			t.Fatalf("kill %d: %d labels were computed, %d are there", kills, before, resumed)
		}
		before = max(before, done)
	}
	if kills < want {
		t.Errorf("only %d kills, want %d", kills, want)
	}
	t.Logf("%d kills", kills)
	sameFiles(t, filesOf(t, dir), filesOf(t, clean))
}

func TestVRFSearchGoesOnBeyondTheSpace(t *testing.T) {
	// About one identity in e^8 has no nonce inside its space. This is one.
	p, setup := TestParams(), testSetup()
	p.LabelsPerUnit = 48
	const labels = 96
	setup.NodeID = [32]byte{}
	binary.LittleEndian.PutUint32(setup.NodeID[:], 9061)
	commitment := Commitment(setup.NodeID, setup.CommitmentATX)
	for i := range uint64(labels) {
		if verifyVRFNonce(i, commitment, 2, p) == nil {
			t.Fatalf("label %d is a VRF nonce: look for another identity", i)
		}
	}

	clean := durabletest.NewFaulty(durabletest.NewMem(1 << 20))
	m, err := initialise(clean, "dir", p, setup, InitOptions{BatchLabels: 4})
	if err != nil {
		t.Fatal(err)
	}
	if *m.Nonce < labels || *m.LastPosition <= *m.Nonce {
		t.Fatalf("nonce %d, last position %d", *m.Nonce, *m.LastPosition)
	}
	if err := verifyVRFNonce(*m.Nonce, commitment, 2, p); err != nil {
		t.Fatal(err)
	}
	fs := durabletest.NewFaulty(durabletest.NewMem(1 << 20))
	last := uint64(0)
	_, err = initialise(fs, "dir", p, setup, InitOptions{
		BatchLabels: 4,
		Progress:    func(p InitProgress) { last = p.Done },
		Cancel:      func() bool { return last > labels },
	})
	if !errors.Is(err, ErrCancelled) {
		t.Fatalf("got %v, want ErrCancelled beyond the space", err)
	}
	if _, err := initialise(fs, "dir", p, setup, InitOptions{BatchLabels: 4}); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, memFiles(t, fs), memFiles(t, clean))
}

func TestInitRefuses(t *testing.T) {
	p := TestParams()
	for _, v := range []struct {
		name   string
		change func(dir string, p *Params, s *Setup)
		want   string
	}{
		{"another identity", func(_ string, _ *Params, s *Setup) { s.NodeID[0]++ }, "was made for identity"},
		{"another commitment", func(_ string, _ *Params, s *Setup) { s.CommitmentATX[0]++ }, "was made for commitment ATX"},
		{"more units", func(_ string, _ *Params, s *Setup) { s.NumUnits++ }, "was made for 2 units, not 3: ask for 2 units, or choose another directory"},
		{"another unit", func(_ string, p *Params, _ *Setup) { p.LabelsPerUnit *= 2 }, "has units of 128 labels, not 256"},
		{"another file size", func(_ string, _ *Params, s *Setup) { s.MaxFileSize *= 2 }, "has files of 1024 bytes, not 2048"},
		{"an odd file size", func(_ string, _ *Params, s *Setup) { s.MaxFileSize++ }, "must be a multiple of 16"},
		{"too many units", func(_ string, _ *Params, s *Setup) { s.NumUnits = 5 }, "5 units, must be in 2..4"},
		{"another cost", func(_ string, p *Params, _ *Setup) { p.ScryptN = 4 }, "label 255 in DIR/postdata_3.bin at byte 1008 is damaged or was made with another cost"},
		{"a damaged last label", func(dir string, _ *Params, _ *Setup) { flip(dir, 3, 1023) }, "label 255 in DIR/postdata_3.bin at byte 1008 is damaged"},
		{"a missing file", func(dir string, _ *Params, _ *Setup) { os.Rename(dir+"/postdata_1.bin", dir+"/saved") },
			"DIR/postdata_1.bin is missing or empty (0 of 1024 bytes), but DIR/postdata_2.bin has data"},
		{"a missing last file", func(dir string, _ *Params, _ *Setup) { os.Rename(dir+"/postdata_3.bin", dir+"/saved") },
			"DIR/postdata_3.bin is missing or empty (0 of 1024 bytes), but 256 labels were finished"},
		{"a short file", func(dir string, _ *Params, _ *Setup) { os.Truncate(dir+"/postdata_3.bin", 1000) },
			"DIR/postdata_3.bin ends at byte 992 of 1024, but 256 labels were finished"},
		{"a long file", func(dir string, _ *Params, _ *Setup) { os.Truncate(dir+"/postdata_0.bin", 1040) },
			"DIR/postdata_0.bin has 1040 bytes, must have 1024"},
		{"data without metadata", func(dir string, _ *Params, _ *Setup) { os.Rename(dir+"/"+MetadataFile, dir+"/saved") },
			"DIR has data files but no postdata_metadata.json: restore it"},
		{"damaged metadata", func(dir string, _ *Params, _ *Setup) { os.WriteFile(dir+"/"+MetadataFile, []byte("{"), 0o600) },
			"postdata_metadata.json is damaged, restore it"},
	} {
		t.Run(v.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Init(dir, p, testSetup(), InitOptions{}); err != nil {
				t.Fatal(err)
			}
			q, s := p, testSetup()
			v.change(dir, &q, &s)
			before := filesOf(t, dir)
			want := strings.ReplaceAll(v.want, "DIR", dir)
			if _, err := Init(dir, q, s, InitOptions{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("got  %v\nwant %q", err, want)
			}
			sameFiles(t, filesOf(t, dir), before)
		})
	}
}

// flip changes a byte of a data file.
func flip(dir string, number, at int) {
	name := filepath.Join(dir, dataFile(uint64(number)))
	b, err := os.ReadFile(name)
	if err != nil {
		panic(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		panic(err)
	}
}

func TestInitSaysWhereItCannotWrite(t *testing.T) {
	parent := t.TempDir()
	blocked := filepath.Join(parent, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Init(filepath.Join(blocked, "dir"), TestParams(), testSetup(), InitOptions{})
	if !errors.Is(err, syscall.ENOTDIR) || strings.Contains(err.Error(), "\n") ||
		!strings.Contains(err.Error(), blocked) || !strings.Contains(err.Error(), "choose another one") {
		t.Fatalf("got %v", err)
	}

	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere: the unwritable directory is not tested")
	}
	locked := filepath.Join(parent, "locked")
	if err := os.Mkdir(locked, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err = Init(filepath.Join(locked, "dir"), TestParams(), testSetup(), InitOptions{})
	if err == nil || !strings.Contains(err.Error(), "change its permissions or choose another one") {
		t.Fatalf("got %v", err)
	}
}

func TestTheDirectoryOfAnotherProgramIsTakenOver(t *testing.T) {
	p := TestParams()
	dir := t.TempDir()
	m, err := Init(dir, p, testSetup(), InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := filesOf(t, dir)
	// Stopped in the second file, with no position in the metadata and half a
	// label written.
	m.LastPosition = nil
	if err := saveMetadata(durable.OS{}, filepath.Join(dir, MetadataFile), m); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 3} {
		if err := os.Remove(filepath.Join(dir, dataFile(uint64(n)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, dataFile(1)), 10*LabelSize+5); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "postdata_1.bin ends at byte 160 of 1024") {
		t.Fatalf("opened half a space: %v", err)
	}
	resumed := uint64(0)
	setup := testSetup()
	setup.MaxFileSize = 0 // whatever is there
	if _, err := Init(dir, p, setup, InitOptions{Progress: func(p InitProgress) { resumed = p.Resumed }}); err != nil {
		t.Fatal(err)
	}
	if resumed != 64+10 {
		t.Errorf("resumed at label %d, want 74", resumed)
	}
	sameFiles(t, filesOf(t, dir), want)
}

func TestWrongVRFNonceInMetadataIsRefused(t *testing.T) {
	p := TestParams()
	dir := t.TempDir()
	m, err := Init(dir, p, testSetup(), InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Metadata){
		"its value":     func(m *Metadata) { m.NonceValue = &[LabelSize]byte{1} },
		"the threshold": func(m *Metadata) { m.Nonce, m.NonceValue = new(*m.Nonce+1), nil },
	} {
		bad := m
		change(&bad)
		if err := saveMetadata(durable.OS{}, filepath.Join(dir, MetadataFile), bad); err != nil {
			t.Fatal(err)
		}
		if _, err := Init(dir, p, testSetup(), InitOptions{}); err == nil {
			t.Errorf("a nonce that does not meet %s is taken", name)
		}
	}
}

func TestKernelThatDiffersFromThePortableOneIsCaught(t *testing.T) {
	useLabels(t, wrongLabels(portableLabels))
	var damaged *DamagedError
	if _, err := Init(t.TempDir(), TestParams(), testSetup(), InitOptions{}); !errors.As(err, &damaged) {
		t.Fatalf("got %v", err)
	}
}

// useLabels has labels computed by a kernel until the test ends.
func useLabels(t *testing.T, k labelKernel) {
	real := inUse
	t.Cleanup(func() { inUse = real })
	inUse = func() choice { return choice{labels: k, scan: portableScan} }
}

// wrongLabels spoils the last lane of each mixer.
func wrongLabels(k labelKernel) labelKernel {
	wrong := labelKernel{name: "wrong"}
	for _, m := range k.mixers {
		wrong.mixers = append(wrong.mixers, mixer{lanes: m.lanes, mix: func(x, v []block) {
			m.mix(x, v)
			x[m.lanes-1][3] ^= 1
		}})
	}
	return wrong
}

func TestTimeLeft(t *testing.T) {
	p := InitProgress{Resumed: 100, Done: 150, Total: 400}
	if got := p.Left(10 * time.Second); got != 50*time.Second {
		t.Errorf("50 labels in 10 s leave %v for 250", got)
	}
	for _, p := range []InitProgress{{Total: 10}, {Done: 11, Total: 10}, {Resumed: 5, Done: 5, Total: 10}} {
		if got := p.Left(time.Second); got != 0 {
			t.Errorf("%+v leaves %v", p, got)
		}
	}
}
