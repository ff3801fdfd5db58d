package p2p

import (
	"encoding/hex"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"

	"tweedle/base/durable"
)

// LoadOrCreateKey reads the host's identity from a file, or makes one and writes it with mode 0600.
// It is durable when LoadOrCreateKey returns; if we stop before, nobody knows it yet. A file that is
// there and cannot be read is an error and is left alone.
func LoadOrCreateKey(path string) (crypto.PrivKey, error) {
	text, err := durable.Secret(durable.OS{}, path, generateKey)
	if err != nil {
		return nil, fmt.Errorf("p2p: identity key: %w", err)
	}
	// What the decoders say is left out: it helps nobody, and protobuf words it otherwise in each build, on purpose.
	if raw, err := hex.DecodeString(string(text)); err == nil {
		if key, err := crypto.UnmarshalPrivateKey(raw); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("p2p: identity key %s is damaged (its %d bytes are no key): restore it, or remove it to get a new identity", path, len(text))
}

func generateKey() ([]byte, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return hex.AppendEncode(nil, raw), nil
}
