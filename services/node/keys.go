package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"tweedle/base/durable"
	"tweedle/proofs/post"
	"tweedle/values/signing"
)

// identityFile holds the smesher's secret seed. Who has it can act as the
// smesher; losing it loses the space that was initialized for it.
const identityFile = "identity.key"

// postDir is where the smesher's space is, in the node's folder.
const postDir = "post"

// Identity returns the seed in the key file of the smesher whose space is in a folder.
// It makes one, unless there is space: then its key is lost, and a new one could not use
// it. If we stop before a new one is durable, no space is bound to the identity yet and
// the next start makes another.
func Identity(path, space string) ([]byte, error) {
	text, err := durable.Secret(durable.OS{}, path, func() ([]byte, error) {
		if _, err := os.Stat(filepath.Join(space, post.MetadataFile)); err == nil {
			return nil, fmt.Errorf("%s is missing and the space in %s belongs to it: restore the key from a backup, or move the space away to begin with a new identity", path, space)
		}
		return durable.RandomHex()
	})
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	seed, err := signing.ReadSeed(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return seed, nil
}
