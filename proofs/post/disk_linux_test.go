package post

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A disk that turned read-only, as a kernel makes it after errors, is named where something
// would be written; what is there is still proved.
func TestAReadOnlyDiskIsNamedAndStillProved(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("SKIPPED: mounting a disk needs root: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	}()
	p, full, half := TestParams(), filepath.Join(disk, "full"), filepath.Join(disk, "half")
	if _, err := Init(full, p, testSetup(), InitOptions{}); err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	opts := InitOptions{BatchLabels: 16, Progress: func(p InitProgress) { last = p.Done }, Cancel: func() bool { return last > 100 }}
	if _, err := Init(half, p, testSetup(), opts); !errors.Is(err, ErrCancelled) {
		t.Fatal(err)
	}
	before := filesOf(t, half)
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	initError := func(dir string) error { _, err := Init(dir, p, testSetup(), InitOptions{}); return err }
	for what, err := range map[string]error{
		"a new space":   initError(filepath.Join(disk, "new")),
		"one to go on":  initError(half),
		"one to repair": second(Repair(full, p, []uint64{0}, InitOptions{})),
	} {
		if !errors.Is(err, syscall.EROFS) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), disk) ||
			!strings.Contains(err.Error(), "change its permissions or choose another one") {
			t.Errorf("%s: %v", what, err)
		}
	}
	sameFiles(t, filesOf(t, half), before)
	d, err := Open(full)
	if err != nil {
		t.Fatal(err)
	}
	m := ProofMetadata{NodeID: testID, CommitmentATX: testATX, Challenge: [32]byte{5}, NumUnits: testSetup().NumUnits}
	proof, err := d.Prove(m.Challenge, p, ProveOptions{})
	if err == nil {
		err = Verify(proof, m, p, All())
	}
	if err != nil {
		t.Errorf("what can be read is not proved: %v", err)
	}
}
