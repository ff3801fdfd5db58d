package testnet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAFullDiskIsToldAtStart(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("SKIPPED: cannot mount a small disk here: %v", err)
	}
	defer unix.Unmount(dir, 0)
	_, err := Up(t.Context(), fakeOptions(dir))
	want := fmt.Sprintf("the disk of %s has 4 MiB left, 3 processes need 24 MiB: free some space, or choose another --dir", dir)
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	// Not even room for the key and the network file.
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 5<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	_, err = directory(dir).key(filepath.Join(dir, walletsDir, "x.key"))
	if err == nil || !strings.HasPrefix(err.Error(), "the disk of "+dir+" is full: free some space") {
		t.Errorf("%v", err)
	}
}

func TestAReadOnlyDiskIsToldAtStart(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=4m"); err != nil {
		t.Skipf("SKIPPED: cannot mount a read-only disk here: %v", err)
	}
	defer unix.Unmount(dir, 0)
	_, err := Up(t.Context(), fakeOptions(dir))
	if want := "cannot write to " + dir + ": choose a directory of yours with --dir"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
