package main

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// An import that fails at its first step, when key and database are there and nothing
// else, leaves a directory on which no server starts.
func TestNoServerStartsOnTheFirstStepOfAnImport(t *testing.T) {
	from, dir := t.TempDir(), filepath.Join(t.TempDir(), "poet")
	state := append([]byte{0, 0, 0, ed25519.PrivateKeySize}, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))...)
	if err := os.WriteFile(filepath.Join(from, referenceState), state, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(dir, "rounds")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	server := poetArgs(dir)
	times := slices.DeleteFunc(slices.Clone(server[3:]), func(arg string) bool {
		return !strings.Contains(arg, "=") || strings.Contains(arg, "listen") || strings.Contains(arg, "memory")
	})
	refused(t, false, append([]string{"poet", "import", "--from-datadir", from, "--from-dbdir", from, "--dir", dir}, times...)...)
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	root := rootCommand()
	root.SetArgs(server)
	if err := root.ExecuteContext(ctx); err == nil || !strings.Contains(err.Error(), "tweedle poet import") {
		t.Fatalf("a server starts on it: %v", err)
	}
}
