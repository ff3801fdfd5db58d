package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"tweedle/base/durable"
	"tweedle/values/signing"
)

// identityFile holds the smesher's secret seed. Who has it can act as the
// smesher; losing it loses the space that was initialized for it.
const identityFile = "identity.key"

// loadOrCreateSeed reads a key file, or makes one. A file that is there is
// never overwritten.
func loadOrCreateSeed(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		// A link to a disk that is not there is no missing key.
		if _, link := os.Lstat(path); link == nil {
			return nil, fmt.Errorf("identity key: %w: make the place that it leads to available, or remove the link to get a new identity", err)
		}
		return createSeed(path)
	}
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	defer f.Close()
	seed, err := signing.ReadSeed(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return seed, nil
}

func createSeed(path string) ([]byte, error) {
	seed := make([]byte, signing.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return nil, err
	}
	// If we stop before this is durable, no space is bound to the identity yet
	// and the next start makes another.
	return seed, durable.WriteFile(durable.OS{}, path, []byte(hex.EncodeToString(seed)+"\n"), 0o600)
}
