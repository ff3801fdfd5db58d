package rounds

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tweedle/services/poet"
)

// A server whose key is lost does not become another one without a word.
func TestALostKeyIsRefused(t *testing.T) {
	cfg := config(t, time.Now())
	open := func() (poet.Info, error) {
		s, err := Open(cfg)
		if err != nil {
			return poet.Info{}, err
		}
		defer s.Close()
		return s.Info(), nil
	}
	before, err := open()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.Dir, IdentityName)
	saved, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), path+" is missing") || !strings.Contains(err.Error(), "--new-identity") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("without its key: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatalf("a key was made: %v", err)
	}
	if err := os.WriteFile(path, saved, 0o400); err != nil { // restored, for its owner to read only
		t.Fatal(err)
	}
	if after, err := open(); err != nil || after.PoetID != before.PoetID {
		t.Fatalf("restored: %v, %v", after.PoetID, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	cfg.NewIdentity = true
	if after, err := open(); err != nil || after.PoetID == before.PoetID {
		t.Fatalf("a new identity was asked for: %v, %v", after.PoetID, err)
	}
}
