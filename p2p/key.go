package p2p

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// LoadOrCreateKey reads the host's identity from a file, or makes one and writes it with mode 0600.
// It is durable when LoadOrCreateKey returns. A file that is there and cannot be read is an error and
// is left alone.
func LoadOrCreateKey(path string) (crypto.PrivKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("p2p: read identity key: %w", err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err == nil {
		var key crypto.PrivKey
		if key, err = crypto.UnmarshalPrivateKey(raw); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("p2p: identity key %s is damaged (%w): restore it, or remove it to get a new identity", path, err)
}

func createKey(path string) (crypto.PrivKey, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := writeDurably(path, []byte(hex.EncodeToString(raw)+"\n")); err != nil {
		return nil, fmt.Errorf("p2p: write identity key: %w", err)
	}
	return key, nil
}

// writeDurably replaces the file, with mode 0600, so that a reader finds the old or the new content.
func writeDurably(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp") // CreateTemp gives mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// If we stop here, the next start finds the old file, or none, and a .tmp that nobody reads.
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// If we stop before this ends, the next start may find the old file; nobody was told otherwise.
	return d.Sync()
}
