package node

import (
	"bytes"
	"fmt"

	"tweedle/base/durable"
	"tweedle/values/signing"
)

// identityFile holds the smesher's secret seed. Who has it can act as the
// smesher; losing it loses the space that was initialized for it.
const identityFile = "identity.key"

// loadOrCreateSeed reads a key file, or makes one. If we stop before a new one
// is durable, no space is bound to the identity yet and the next start makes
// another.
func loadOrCreateSeed(path string) ([]byte, error) {
	text, err := durable.Secret(durable.OS{}, path, durable.RandomHex)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	seed, err := signing.ReadSeed(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return seed, nil
}
