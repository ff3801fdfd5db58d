package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tweedle/edges/store"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// A backup of a node that runs has its keys and what it has signed; a node that starts
// from it signs nothing at first. What is not there is left out, and nothing is replaced.
func TestABackupOfANode(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "backup.tar")
	network, me := types.GenesisID{1}, types.NodeID{2}
	db, err := store.Open(dir, network)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Guard(signing.ATX, me, 3, types.Hash32{4}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"identity.key", "p2p.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	size, err := backupNode(dir, out)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(out); err != nil || info.Size() != size || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, said to have %d bytes", info, err, size)
	}
	if names, want := inTar(t, out), []string{"local.db", "identity.key", "p2p.key"}; !slices.Equal(names, want) {
		t.Errorf("it holds %v, want %v", names, want)
	}
	restored := t.TempDir()
	if said, err := exec.Command("tar", "-xpf", out, "-C", restored).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	again, err := store.Open(restored, network)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Guard(signing.ATX, me, 9, types.Hash32{9}); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("a node from a backup signs: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), ".tweedle-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, c := range []struct{ dir, out, want string }{
		{dir, out, "is never overwritten"},
		{t.TempDir(), filepath.Join(t.TempDir(), "x"), "local.db"},
		{dir, filepath.Join(t.TempDir(), "missing", "x"), "no such file"},
	} {
		if _, err := backupNode(c.dir, c.out); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.out, err, c.want)
		}
	}
}
