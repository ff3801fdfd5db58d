package p2p

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"

	"tweedle/base/durable"
)

// LoadOrCreateKey reads the host's identity from a file, or makes one and writes it with mode 0600.
// It is durable when LoadOrCreateKey returns. A file that is there and cannot be read is an error and
// is left alone.
func LoadOrCreateKey(path string) (crypto.PrivKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		// A link to a disk that is not there is no missing key.
		if _, link := os.Lstat(path); link == nil {
			return nil, fmt.Errorf("p2p: identity key: %w: make the place that it leads to available, or remove the link", err)
		}
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
	// If we stop before this is durable, the next start makes another key; nobody knows this one yet.
	if err := durable.WriteFile(durable.OS{}, path, []byte(hex.EncodeToString(raw)+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("p2p: write identity key: %w", err)
	}
	return key, nil
}
