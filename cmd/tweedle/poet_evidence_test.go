package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is no evidence is refused in a line; package activation has the rest.
func TestWhatIsNoEvidenceIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.omission")
	if err := os.WriteFile(path, []byte("not evidence"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := refused(t, false, "poet", "evidence", path); !strings.Contains(got, "is not evidence") {
		t.Error(got)
	}
	if got := refused(t, false, "poet", "evidence", filepath.Join(t.TempDir(), "none")); !strings.Contains(got, "no such file") {
		t.Error(got)
	}
	refused(t, true, "poet", "evidence")
}
