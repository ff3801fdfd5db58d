package testnet

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tweedle/base/durable"
)

// contents returns the files below a folder that a snapshot keeps.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		if err != nil || e.IsDir() || notKept(name) {
			return err
		}
		b, err := os.ReadFile(path)
		all[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A testnet that is down is saved and loaded elsewhere, byte for byte but for addresses, and goes
// on with the same genesis; one that runs is not saved; a file that is cut short, damaged or
// somebody else's is refused and leaves nothing; nothing is overwritten.
func TestASnapshotIsTheTestnetAgain(t *testing.T) {
	dir, shelf := t.TempDir(), t.TempDir()
	file, loaded := filepath.Join(shelf, "s.tar.gz"), filepath.Join(shelf, "a", "loaded")
	r := start(t, fakeOptions(dir))
	if err := os.WriteFile(filepath.Join(dir, "node-1", "peers.json"), []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Save(dir, file); err == nil || !strings.Contains(err.Error(), "stop it with `tweedle testnet down") {
		t.Errorf("one that runs: %v", err)
	}
	r.end()
	before, err := directory(dir).loadPlan()
	if err != nil {
		t.Fatal(err)
	}
	size, err := Save(dir, file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() != size || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, said to have %d bytes", info, err, size)
	}
	if err := Load(file, loaded); err != nil {
		t.Fatal(err)
	}
	was, is := contents(t, dir), contents(t, loaded)
	if !maps.Equal(was, is) || len(was) < 8 {
		t.Errorf("it was %v and is %v", slices.Sorted(maps.Keys(was)), slices.Sorted(maps.Keys(is)))
	}
	for _, name := range []string{"node-1/process.json", "node-1/peers.json", "node-1/endpoints.json"} {
		if _, err := os.Stat(filepath.Join(loaded, name)); err == nil {
			t.Errorf("%s of the other is there", name)
		}
	}
	o := fakeOptions(loaded)
	again := start(t, o)
	again.end()
	p, err := directory(loaded).loadPlan()
	if err != nil || p.network.ID() != before.network.ID() {
		t.Errorf("another network, %v", err)
	}

	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, bad := range map[string][]byte{
		"cut short": whole[:len(whole)/2], "without its end": whole[:len(whole)-1], "damaged": flipped, "empty": nil, "text": []byte("a snapshot"),
		"leads out": pack(t, "../x"), "absolute": pack(t, "/tmp/x"), "foreign": pack(t, "thesis.tex"), "hidden out": pack(t, "node-1/../../x"), "a lock": pack(t, "node-1/"+durable.LockName),
		"no plan": pack(t, "node-1/log"),
	} {
		path := filepath.Join(shelf, "bad")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		err := Load(path, filepath.Join(shelf, "new"))
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := filepath.Glob(filepath.Join(shelf, "new*")); len(left) > 0 {
			t.Fatalf("%s left %v", name, left)
		}
	}
	for want, err := range map[string]error{
		"is never overwritten": second(Save(dir, file)), "is not empty": Load(file, loaded), "no testnet in": second(Save(shelf, filepath.Join(shelf, "y"))),
		"own directory": second(Save(dir, filepath.Join(dir, "s.tar.gz"))), "no such file": Load(filepath.Join(shelf, "none"), filepath.Join(shelf, "z")),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func second(_ int64, err error) error { return err }

// pack returns a snapshot with one file.
func pack(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := durable.AddToTar(w, name, 1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
