package node

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tweedle/edges/p2p"
	"tweedle/edges/smeshing"
	"tweedle/proofs/post"
	"tweedle/values/signing"
)

func TestAKeyIsMadeOnceAndOnlyItsOwnerReadsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.key")
	seed, err := smeshing.Key(path, "no space")
	if err != nil || len(seed) != signing.SeedSize || bytes.Equal(seed, make([]byte, signing.SeedSize)) {
		t.Fatalf("seed %x, %v", seed, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := smeshing.Key(path, "no space")
	if err != nil || !bytes.Equal(again, seed) {
		t.Errorf("the second start has another seed, %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed, %v", err)
	}
	other, err := smeshing.Key(filepath.Join(t.TempDir(), "identity.key"), "no space")
	if err != nil || bytes.Equal(other, seed) {
		t.Errorf("two directories have the same seed, %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left, %v", len(entries), err)
	}
}

// Whatever stands in a key file may be a secret, or what is left of one: it is
// neither overwritten nor repeated in the error.
// A key that others may read is no secret any more: who starts with it is to know.
func TestAKeyThatOthersMayReadIsRefused(t *testing.T) {
	for file, load := range map[string]func(string) error{
		"identity.key": func(p string) error { _, err := smeshing.Key(p, "no space"); return err },
		"p2p.key":      func(p string) error { _, err := p2p.LoadOrCreateKey(p); return err },
	} {
		path := filepath.Join(t.TempDir(), file)
		if err := load(path); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o620} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if err := load(path); err == nil || !strings.Contains(err.Error(), "run chmod 600 on it") {
				t.Errorf("%s of mode %o: %v", file, mode, err)
			}
		}
		if err := os.Chmod(path, 0o400); err != nil {
			t.Fatal(err)
		}
		if err := load(path); err != nil {
			t.Error(err)
		}
	}
}

func TestADamagedKeyIsRefusedAndKept(t *testing.T) {
	secret := hex.EncodeToString(signing.SeedFrom("secret"))
	for name, content := range map[string]string{
		"empty":           "",
		"cut off":         secret[:40],
		"a wrong digit":   secret[:20] + "x" + secret[21:],
		"something after": secret + "00",
		"two keys":        secret + "\n" + secret + "\n",
		"not text":        string(signing.SeedFrom("secret")),
	} {
		for file, load := range map[string]func(string) error{
			"identity.key": func(p string) error { _, err := smeshing.Key(p, "no space"); return err },
			"p2p.key":      func(p string) error { _, err := p2p.LoadOrCreateKey(p); return err },
		} {
			path := filepath.Join(t.TempDir(), file)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			err := load(path)
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "restore it") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %s: %v", file, name, err)
				continue
			}
			for i := 0; i+8 <= len(content); i++ {
				if strings.Contains(err.Error(), content[i:i+8]) {
					t.Errorf("%s %s: the error repeats the content: %v", file, name, err)
					break
				}
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != content {
				t.Errorf("%s %s: the file has changed, %v", file, name, err)
			}
		}
	}
}

// A link to a disk that is not there looks like a missing file, and is the
// opposite: the key exists elsewhere.
func TestALinkThatLeadsNowhereIsNoMissingKey(t *testing.T) {
	dir := t.TempDir()
	for file, load := range map[string]func(string) error{
		"identity.key": func(p string) error { _, err := smeshing.Key(p, "no space"); return err },
		"p2p.key":      func(p string) error { _, err := p2p.LoadOrCreateKey(p); return err },
	} {
		path, target := filepath.Join(dir, file), filepath.Join(dir, "unplugged", file)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if err := load(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", file, err)
		}
		if got, err := os.Readlink(path); err != nil || got != target {
			t.Errorf("%s: the link was replaced: %q, %v", file, got, err)
		}
	}
}

// Space is bound to a key. Without the key it is told at start what to do, and no
// other key is made.
func TestALostKeyIsNamedAtStart(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	cfg.Smeshing, cfg.Coinbase, cfg.Poets = true, stillNetworkCoinbase(), []string{"http://127.0.0.1:1"}
	space := filepath.Join(cfg.Dir, "post")
	if err := os.MkdirAll(space, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(space, post.MetadataFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, "identity.key")
	_, err := Open(cfg)
	if err == nil || !strings.Contains(err.Error(), path+" is missing") || !strings.Contains(err.Error(), "restore the key") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatalf("a key was made: %v", err)
	}
	if err := os.Rename(space, space+".old"); err != nil {
		t.Fatal(err)
	}
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}

func TestASmesherKeepsItsIdentityOverARestart(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	cfg.Smeshing, cfg.Coinbase, cfg.Poets = true, stillNetworkCoinbase(), []string{"http://127.0.0.1:1"}
	var ids []string
	for range 2 {
		n, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, n.Status().NodeID+" "+n.host.ID().String())
		n.Close()
	}
	if ids[0] != ids[1] || len(ids[0]) < 64 {
		t.Errorf("first %s, then %s", ids[0], ids[1])
	}
	for _, file := range []string{"identity.key", "p2p.key"} {
		if info, err := os.Stat(filepath.Join(cfg.Dir, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
	if info, err := os.Stat(cfg.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info, err)
	}
}
