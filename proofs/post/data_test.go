package post

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
)

// slowProve finds, label by label, the first K2 indices that pass for nonce and are
// not lost.
func slowProve(t *testing.T, d *Data, challenge [32]byte, p Params, nonce uint32, pow uint64, lost func(i uint64) bool) (indices []uint64) {
	t.Helper()
	numLabels := d.Metadata.NumLabels()
	tester := newTester(&challenge, nonce, pow, newDifficulty(p.K1, numLabels))
	l := NewLabeler(p.ScryptN)
	for i := uint64(0); i < numLabels && len(indices) < int(p.K2); i++ {
		label := l.Label(Commitment(d.Metadata.NodeID, d.Metadata.CommitmentATX), i)
		if tester.passes(label[:LabelSize]) && !lost(i) {
			indices = append(indices, i)
		}
	}
	return indices
}

func TestProofHasTheFirstPassingLabelsOfItsNonce(t *testing.T) {
	for _, p := range []Params{TestParams(), rarely()} {
		d, proof, m := proveInTemp(t, p, [32]byte{2})
		want := slowProve(t, d, m.Challenge, p, proof.Nonce, proof.Pow, func(uint64) bool { return false })
		got, err := unpackIndices(proof.Indices, p.K2, indexBits(d.Metadata.NumLabels()))
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v (%v)", got, want, err)
		}
	}
}

func TestPassSeesEveryLabelOfEveryFileOnce(t *testing.T) {
	s, labels := searchRandom(t, 2*blockLabels+900, blockLabels+100, 16)
	s.opts.Workers = 3
	s.difficulty = difficulty{msb: 0, lsb: lsbMask / 2}
	if _, found, err := s.pass(); found || err != nil {
		t.Fatalf("found %t, error %v", found, err)
	}
	total := 0
	for nonce, got := range s.passed {
		tester := newTester(&s.challenge, uint32(nonce), s.groups[0].pow, s.difficulty)
		var want []uint64
		for i := range uint64(len(labels) / LabelSize) {
			if tester.passes(labels[i*LabelSize : (i+1)*LabelSize]) {
				want = append(want, i)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("nonce %d: labels %v pass, want %v", nonce, got, want)
		}
		total += len(want)
	}
	if total == 0 {
		t.Fatal("no label passes")
	}
}

// searchRandom prepares a pass over random labels in files of perFile, with a
// K2 that is never reached.
func searchRandom(t testing.TB, numLabels, perFile uint64, nonces uint32) (*search, []byte) {
	t.Helper()
	dir := t.TempDir()
	labels := make([]byte, numLabels*LabelSize)
	rand.NewChaCha8([32]byte{}).Read(labels)
	m := Metadata{LabelsPerUnit: numLabels, NumUnits: 1, MaxFileSize: perFile * LabelSize}
	l := m.layout(dir)
	for number := uint64(0); number*perFile < numLabels; number++ {
		at := number * perFile * LabelSize
		if err := os.WriteFile(l.name(number), labels[at:at+uint64(l.size(number))], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := MainnetLikeParams()
	s := newSearch(&Data{Metadata: m, fs: durable.OS{}, layout: l}, [32]byte{}, p, ProveOptions{Workers: 1})
	s.params.K2 = 1 << 30
	if err := s.opts.complete(); err != nil {
		t.Fatal(err)
	}
	s.params.PowDifficulty = TestParams().PowDifficulty
	if err := s.prepare(0, nonces); err != nil {
		t.Fatal(err)
	}
	return s, labels
}

func TestProveMakesAnotherPassWhereOneIsNotEnough(t *testing.T) {
	p := rarely()
	p.K2 = 9 // about 1 nonce in 47 has so many, a pass of 16 often fails
	d, proof, m := proveInTemp(t, p, [32]byte{})
	for n := byte(0); ; n++ {
		if n == 100 {
			t.Fatal("no challenge needs a second pass")
		}
		m.Challenge = [32]byte{n}
		var passes []uint32
		var err error
		proof, err = d.Prove(m.Challenge, p, ProveOptions{Nonces: 16, Progress: func(p ProveProgress) {
			if p.EndNonce != p.FirstNonce+16 || p.Total != 2048 || p.Done > p.Total || p.Done > 0 && p.Solved != 16 {
				t.Fatalf("progress %+v", p)
			}
			if len(passes) == 0 || passes[len(passes)-1] != p.FirstNonce {
				passes = append(passes, p.FirstNonce)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := Verify(proof, m, p, All()); err != nil {
			t.Fatal(err)
		}
		if last := passes[len(passes)-1]; last != proof.Nonce/16*16 {
			t.Fatalf("passes from %v, but nonce %d", passes, proof.Nonce)
		}
		if proof.Nonce >= 16 {
			return
		}
	}
}

func TestProveSaysWhenNoNonceIsLeft(t *testing.T) {
	p := TestParams()
	d, _, _ := proveInTemp(t, p, [32]byte{})
	p.K2 = 200 // of 256 labels about 12 pass
	_, err := d.Prove([32]byte{}, p, ProveOptions{Nonces: MaxNonces - 16, Workers: 2})
	if err == nil || !strings.Contains(err.Error(), "none of 4096 nonces has 200 labels that pass") {
		t.Fatalf("got %v", err)
	}
}

func TestProveStopsWhenCancelled(t *testing.T) {
	d, _, _ := proveInTemp(t, rarely(), [32]byte{})
	asked := 0
	for stopAt := 1; ; stopAt++ {
		asked = 0
		_, err := d.Prove([32]byte{}, rarely(), ProveOptions{Cancel: func() bool { asked++; return asked >= stopAt }})
		if asked < stopAt {
			break // the proof needs fewer questions
		}
		if !errors.Is(err, ErrCancelled) {
			t.Fatalf("cancelled at question %d: %v", stopAt, err)
		}
	}
	if asked < 3 {
		t.Fatalf("asked %d times only", asked)
	}
}

func TestDamagedLabelIsNamedByFileAndByte(t *testing.T) {
	p := rarely()
	d, proof, m := proveInTemp(t, p, [32]byte{8})
	indices, err := unpackIndices(proof.Indices, p.K2, indexBits(d.Metadata.NumLabels()))
	if err != nil {
		t.Fatal(err)
	}
	// A copy of a passing label passes too, in its wrong place.
	const bad = 5
	if slices.Contains(indices, bad) {
		t.Fatalf("pick another label than %d", bad)
	}
	name, offset := d.Locate(bad)
	if filepath.Base(name) != "postdata_0.bin" || offset != bad*LabelSize {
		t.Fatalf("label %d is at %d in %s", bad, offset, name)
	}
	copyLabel(t, d, indices[0], bad)
	want := DamagedError{File: name, Offset: offset, Index: bad}
	var damaged *DamagedError
	var lost []error
	again, err := d.Prove(m.Challenge, p, ProveOptions{Lost: func(err error) { lost = append(lost, err) }})
	if err != nil || len(lost) != 1 || !errors.As(lost[0], &damaged) || *damaged != want {
		t.Fatalf("Prove says %v and lost %v, want %+v", err, lost, want)
	}
	if err := Verify(again, m, p, All()); err != nil {
		t.Fatal(err)
	}
	l := NewLabeler(p.ScryptN)
	if err := d.Check(l, bad); !errors.As(err, &damaged) || *damaged != want {
		t.Fatalf("Check says %v, want %+v", err, want)
	}
	for _, i := range []uint64{bad - 1, bad + 1, d.Metadata.NumLabels() - 1} {
		if err := d.Check(l, i); err != nil {
			t.Fatalf("label %d: %v", i, err)
		}
	}
}

func TestFilesAreFoundByNameAndAllMustBeThere(t *testing.T) {
	p := rarely() // 2048 labels in 32 files, so that names do not sort as numbers
	d, proof, m := proveInTemp(t, p, [32]byte{1})
	if name, offset := d.Locate(64*20 + 3); filepath.Base(name) != "postdata_20.bin" || offset != 48 {
		t.Fatalf("label 1283 is at byte %d of %s", offset, name)
	}
	if err := Verify(proof, m, p, All()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(first(d.Locate(0)))
	for _, stray := range []string{"postdata_32.bin", "postdata_007.bin", "postdata_x.bin", "identity.key"} {
		if err := os.WriteFile(filepath.Join(dir, stray), []byte("not ours"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir); err != nil {
		t.Fatalf("files that are not part of the space: %v", err)
	}
	for _, v := range []struct {
		change func(name string) error
		want   string
	}{
		{func(name string) error { return os.Truncate(name, 500) }, "postdata_16.bin ends at byte 496 of 1024, but "},
		{func(name string) error { return os.Rename(name, name+".saved") }, "postdata_16.bin is missing or empty (0 of 1024 bytes), but "},
	} {
		if err := v.change(filepath.Join(dir, "postdata_16.bin")); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), v.want) {
			t.Fatalf("got %v, want %q", err, v.want)
		}
		// A file that goes away later is noticed while proving.
		q := p
		q.K2 = 200
		_, err := d.Prove([32]byte{}, q, ProveOptions{})
		if err == nil || !strings.Contains(err.Error(), "postdata_16.bin") {
			t.Fatalf("Prove says %v", err)
		}
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "initialise it first") {
		t.Fatalf("got %v", err)
	}
}

func first(s string, _ int64) string { return s }

// badSectors is a disk that does not give back the bytes of data files in front of
// or behind a place.
type badSectors struct {
	durable.OS
	bad func(name string, from, to int64) bool
}

type badSectorFile struct {
	durable.File
	name string
	bad  func(name string, from, to int64) bool
}

func (f badSectors) Open(name string) (durable.File, error) {
	g, err := f.OS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".bin") {
		return g, err
	}
	return badSectorFile{g, filepath.Base(name), f.bad}, nil
}

func (f badSectorFile) ReadAt(p []byte, off int64) (int, error) {
	if f.bad(f.name, off, off+int64(len(p))) {
		return 0, &os.PathError{Op: "read", Path: f.name, Err: syscall.EIO}
	}
	return f.File.ReadAt(p, off)
}

// A sector that cannot be read and a label that the disk got wrong do not cost the
// epoch: any K2 other labels of a nonce are a proof, and the owner is told where.
func TestOneBadSectorAndOneFlippedLabelDoNotLoseTheEpoch(t *testing.T) {
	p := rarely()
	p.LabelsPerUnit = 1 << 12
	dir := t.TempDir()
	if _, err := Init(dir, p, Setup{NodeID: testID, CommitmentATX: testATX, NumUnits: p.MinUnits, MaxFileSize: 16 << 12}, InitOptions{Workers: 2}); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	met := 0
	for n := range byte(8) {
		challenge := [32]byte{n}
		d.fs = durable.OS{}
		good, err := d.Prove(challenge, p, ProveOptions{Nonces: 16})
		if err != nil {
			t.Fatal(err)
		}
		indices, err := unpackIndices(good.Indices, p.K2, indexBits(d.Metadata.NumLabels()))
		if err != nil {
			t.Fatal(err)
		}
		// The sector of one label of that proof, a flipped bit of another one, and two
		// that pass though they are wrong: copies of a third, in front of the last.
		file, at := d.Locate(indices[0])
		sector := at / 512 * 512
		d.fs = badSectors{bad: func(name string, from, to int64) bool {
			return name == filepath.Base(file) && from < sector+512 && sector < to
		}}
		flipped, wrong := indices[1], []uint64{indices[p.K2-1] - 2, indices[p.K2-1] - 1}
		before := filesOf(t, dir)
		for _, i := range wrong {
			copyLabel(t, d, indices[2], i)
		}
		_, flippedAt := d.Locate(flipped)
		flip(dir, int(flipped>>12), int(flippedAt))
		piece := UnreadableError{File: file, Offset: at / pieceSize * pieceSize, Size: pieceSize, Err: syscall.EIO}
		isLost := func(i uint64) bool {
			name, at := d.Locate(i)
			return i == flipped || slices.Contains(wrong, i) || name == file && at/pieceSize == piece.Offset/pieceSize
		}

		var lost []error
		proof, err := d.Prove(challenge, p, ProveOptions{Nonces: 16, Workers: 2, Lost: func(err error) { lost = append(lost, err) }})
		if err != nil {
			t.Fatalf("challenge %d: %v", n, err)
		}
		if err := Verify(proof, ProofMetadata{NodeID: testID, CommitmentATX: testATX, Challenge: challenge, NumUnits: p.MinUnits}, p, All()); err != nil {
			t.Fatal(err)
		}
		got, err := unpackIndices(proof.Indices, p.K2, indexBits(d.Metadata.NumLabels()))
		if err != nil || !slices.Equal(got, slowProve(t, d, challenge, p, proof.Nonce, proof.Pow, isLost)) {
			t.Fatalf("challenge %d: the proof has labels %v, %v", n, got, err)
		}
		var unreadable *UnreadableError
		if len(lost) == 0 || !errors.As(lost[0], &unreadable) || unreadable.File != piece.File || unreadable.Offset != piece.Offset || !errors.Is(lost[0], syscall.EIO) {
			t.Fatalf("challenge %d: lost %v, want %v first", n, lost, &piece)
		}
		for _, err := range lost[1:] {
			var damaged *DamagedError
			if !errors.As(err, &damaged) || !slices.Contains(wrong, damaged.Index) {
				t.Fatalf("challenge %d: lost %v", n, err)
			}
			if in, at := d.Locate(damaged.Index); damaged.File != in || damaged.Offset != at {
				t.Fatalf("challenge %d: lost %v, which is at byte %d of %s", n, err, at, in)
			}
			met++
		}
		for name, content := range before {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if met < 8 {
		t.Fatalf("wrong labels were met %d times in 8 proofs", met)
	}
}

// copyLabel puts a label in the place of another one.
func copyLabel(t *testing.T, d *Data, from, to uint64) {
	t.Helper()
	name, at := d.Locate(from)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	label := make([]byte, LabelSize)
	if _, err := f.ReadAt(label, at); err != nil {
		t.Fatal(err)
	}
	name, at = d.Locate(to)
	g, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.WriteAt(label, at); err != nil {
		t.Fatal(err)
	}
}

func TestADyingDiskIsToldWithItsPlace(t *testing.T) {
	d, _, _ := proveInTemp(t, TestParams(), [32]byte{})
	d.fs = badSectors{bad: func(string, int64, int64) bool { return true }}
	_, err := d.Prove([32]byte{}, TestParams(), ProveOptions{})
	if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "the disk lost 4 places, the first: ") ||
		!strings.Contains(err.Error(), "1024 bytes at byte 0 of "+first(d.Locate(0))) {
		t.Fatalf("got %v", err)
	}
	p := TestParams()
	p.LabelsPerUnit = 1 << 18 // 2,048 pieces, read as if they were there
	dir := filepath.Dir(first(d.Locate(0)))
	m := Metadata{LabelsPerUnit: p.LabelsPerUnit, NumUnits: 2, MaxFileSize: 16 << 20}
	if err := os.WriteFile(filepath.Join(dir, dataFile(0)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, dataFile(0)), 8<<20); err != nil {
		t.Fatal(err)
	}
	d = &Data{Metadata: m, fs: d.fs, layout: m.layout(dir)}
	lost := 0
	_, err = d.Prove([32]byte{}, p, ProveOptions{Lost: func(error) { lost++ }})
	if !errors.Is(err, syscall.EIO) || lost != maxLost+1 || !strings.Contains(err.Error(), "the disk lost more than 1024 places, copy "+dir+" to another one") {
		t.Fatalf("after %d places: %v", lost, err)
	}
}

func TestProveRefusesDataOfAnotherNetwork(t *testing.T) {
	d, _, _ := proveInTemp(t, TestParams(), [32]byte{})
	p := TestParams()
	p.LabelsPerUnit *= 2
	if _, err := d.Prove([32]byte{}, p, ProveOptions{}); err == nil || !strings.Contains(err.Error(), "of another network") {
		t.Fatalf("got %v", err)
	}
	for _, opts := range []ProveOptions{{Nonces: 17}, {Nonces: MaxNonces + 16}, {Nonces: -16}, {Workers: -1}, {Workers: MaxWorkers + 1}} {
		if _, err := d.Prove([32]byte{}, TestParams(), opts); err == nil {
			t.Errorf("options %+v are taken", opts)
		}
	}
	for _, opts := range []InitOptions{{BatchLabels: -1}, {BatchLabels: MaxBatchLabels + 1}, {Workers: -1}, {Workers: MaxWorkers + 1}} {
		if _, err := Init(t.TempDir(), TestParams(), testSetup(), opts); err == nil {
			t.Errorf("options %+v are taken", opts)
		}
	}
}

func TestRandomXIsNamedButNotBuiltIn(t *testing.T) {
	if _, err := PoWByName("randomx"); !errors.Is(err, ErrNotBuiltIn) {
		t.Errorf("got %v", err)
	}
	if _, err := PoWByName("sha1"); err == nil || errors.Is(err, ErrNotBuiltIn) {
		t.Errorf("got %v", err)
	}
	if h, err := PoWByName("blake3"); err != nil || h != (Blake3{}) {
		t.Errorf("got %v, %v", h, err)
	}
	d, proof, m := proveInTemp(t, TestParams(), [32]byte{})
	p := TestParams()
	p.PoW = MainnetParams().PoW
	if p.PoW.Name() != "randomx" {
		t.Errorf("mainnet has %s", p.PoW.Name())
	}
	fs := durabletest.NewFaulty(durabletest.NewMem(1 << 20))
	if _, err := initialise(fs, "dir", p, testSetup(), InitOptions{}); !errors.Is(err, ErrNotBuiltIn) || len(fs.Done()) != 0 {
		t.Errorf("Init says %v, after %v", err, fs.Done())
	}
	if _, err := d.Prove([32]byte{}, p, ProveOptions{}); !errors.Is(err, ErrNotBuiltIn) {
		t.Errorf("Prove says %v", err)
	}
	if err := Verify(proof, m, p, All()); !errors.Is(err, ErrNotBuiltIn) {
		t.Errorf("Verify says %v", err)
	}
}

func TestProofOfWorkIsTheSmallestCounterAndDependsOnAllItCovers(t *testing.T) {
	threshold := [32]byte{0x01}
	never := func() bool { return false }
	solve := func(group uint8, challenge, id byte) uint64 {
		t.Helper()
		pow, err := solvePow(Blake3{}, powInput(group, &[32]byte{challenge}, &[32]byte{id}), threshold, never)
		if err != nil {
			t.Fatal(err)
		}
		return pow
	}
	pow := solve(1, 2, 3)
	in := powInput(1, &[32]byte{2}, &[32]byte{3})
	for counter := range pow + 1 {
		if valid, _ := powValid(Blake3{}, &in, counter, &threshold); valid != (counter == pow) {
			t.Fatalf("counter %d: valid is %t, found %d", counter, valid, pow)
		}
	}
	for _, other := range []uint64{solve(2, 2, 3), solve(1, 3, 3), solve(1, 2, 4)} {
		if other == pow {
			t.Errorf("another input has the same solution %d", pow)
		}
	}
}

func TestPresetsAreValid(t *testing.T) {
	for _, p := range []Params{TestParams(), LocalParams(), MainnetLikeParams(), MainnetParams(), rarely()} {
		for _, units := range []uint32{p.MinUnits, p.MaxUnits} {
			if _, err := p.NumLabels(units); err != nil {
				t.Error(err)
			}
		}
	}
	for name, change := range map[string]func(*Params){
		"no labels":            func(p *Params) { p.LabelsPerUnit = 0 },
		"no units":             func(p *Params) { p.MinUnits = 0 },
		"units reversed":       func(p *Params) { p.MaxUnits = 1 },
		"labels overflow":      func(p *Params) { p.LabelsPerUnit = 1 << 63 },
		"no K1":                func(p *Params) { p.K1 = 0 },
		"K1 too large":         func(p *Params) { p.K1 = 256 },
		"no K2":                func(p *Params) { p.K2 = 0 },
		"no K3":                func(p *Params) { p.K3 = 0 },
		"K3 above K2":          func(p *Params) { p.K3 = 5 },
		"K2 beyond the wire":   func(p *Params) { p.K2 = 8*MaxIndicesSize/10 + 1 },
		"N is no power of two": func(p *Params) { p.ScryptN = 3 },
		"N too small":          func(p *Params) { p.ScryptN = 1 },
		"N too large":          func(p *Params) { p.ScryptN = 2 * MaxScryptN },
		"no proof of work":     func(p *Params) { p.PoW = nil },
	} {
		p := TestParams()
		change(&p)
		if p.Validate() == nil {
			t.Errorf("%s: parameters are taken", name)
		}
		if err := Verify(Proof{}, ProofMetadata{NumUnits: 2}, p, All()); err == nil {
			t.Errorf("%s: Verify takes them", name)
		}
	}
}

func TestMetadataOfBothWritersIsRead(t *testing.T) {
	id := bytes.Repeat([]byte{0xfb}, 32)
	const id64 = "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s="
	nonce, value, last := uint64(7), [16]byte{0xab, 1}, uint64(300)
	base := Metadata{NodeID: [32]byte(id), LabelsPerUnit: 128, NumUnits: 2, MaxFileSize: 4294967296}
	full := base
	full.Nonce, full.NonceValue, full.LastPosition = &nonce, &value, &last
	noValue := base
	noValue.Nonce = &nonce
	const zero64 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	const goForm = "{\n\t\"NodeId\": \"" + id64 + "\",\n\t\"CommitmentAtxId\": \"" + zero64 +
		"\",\n\t\"LabelsPerUnit\": 128,\n\t\"NumUnits\": 2,\n\t\"MaxFileSize\": 4294967296"
	const rustForm = "{\n  \"NodeId\": \"" + id64 + "\",\n  \"CommitmentAtxId\": \"" + zero64 +
		"\",\n  \"LabelsPerUnit\": 128,\n  \"NumUnits\": 2,\n  \"MaxFileSize\": 4294967296,\n"
	for _, v := range []struct {
		name, text string
		want       Metadata
	}{
		{"tabs, all fields", goForm + ",\n\t\"Nonce\": 7,\n\t\"NonceValue\": \"ab010000000000000000000000000000\",\n\t\"LastPosition\": 300\n}\n", full},
		{"tabs, no nonce yet", goForm + "\n}\n", base},
		{"two spaces, nulls", rustForm + "  \"Nonce\": null,\n  \"LastPosition\": null\n}", base},
		{"two spaces, a nonce", rustForm + "  \"Nonce\": 7,\n  \"LastPosition\": null\n}", noValue},
	} {
		t.Run(v.name, func(t *testing.T) {
			got, err := decodeMetadata([]byte(v.text))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(encodeMetadata(got), encodeMetadata(v.want)) {
				t.Fatalf("got %s", encodeMetadata(got))
			}
			if strings.Contains(v.text, "\t") && string(encodeMetadata(got)) != v.text {
				t.Fatalf("written as %s", encodeMetadata(got))
			}
		})
	}
	for name, change := range map[string][2]string{
		"a short id":           {id64, "AAAA"},
		"no units":             {`"NumUnits": 2`, `"NumUnits": 0`},
		"too many units":       {`"NumUnits": 2`, `"NumUnits": 4294967296`},
		"labels overflow":      {`"LabelsPerUnit": 128`, `"LabelsPerUnit": 9223372036854775808`},
		"a tiny file size":     {`4294967296`, `1023`},
		"a huge file size":     {`4294967296`, `18446744073709551615`},
		"a huge position":      {`4294967296`, `4294967296, "LastPosition": 18446744073709551615`},
		"a value, no nonce":    {`4294967296`, `4294967296, "NonceValue": "ab010000000000000000000000000000"`},
		"a short nonce value":  {`4294967296`, `4294967296, "Nonce": 1, "NonceValue": "ab"`},
		"a nonce value no hex": {`4294967296`, `4294967296, "Nonce": 1, "NonceValue": "zz010000000000000000000000000000"`},
		"something after it":   {`4294967296`, `4294967296} {"a": 1`},
	} {
		text := goForm + "}"
		if changed := strings.Replace(text, change[0], change[1], 1); changed == text {
			t.Fatalf("%s: nothing changed", name)
		} else if _, err := decodeMetadata([]byte(changed)); err == nil {
			t.Errorf("metadata with %s is taken", name)
		}
	}
}
