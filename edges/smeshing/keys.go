package smeshing

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"tweedle/base/durable"
	"tweedle/proofs/post"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// In the folder of an identity: its secret seed, its space, and what shows that a PoET cheated
// it. Who has the seed can act as the smesher; losing it loses the space that was initialized
// for it.
const (
	IdentityFile   = "identity.key"
	PostFolder     = "post"
	evidenceFolder = "evidence"
)

// MaxIdentities bounds those of a node: what each signs in a layer is made durable one after
// the other, 10 ms each on a slow disk, before the layer goes on.
const MaxIdentities = 16

// Identity is one smesher of a node.
type Identity struct {
	Dir    string          // its folder
	Signer *signing.Signer // nil: its key cannot be read
	Err    error           // why
}

// Identities loads the keys in the folders of a node's smeshers. The first is of the node itself,
// and gets a key if it has none. The others were made before: one that cannot be read, as when
// its disk is gone, is no reason for the others not to smesh. A key that is there twice is an error:
// each of the two would sign.
func Identities(network types.GenesisID, dirs ...string) (all []Identity, err error) {
	if len(dirs) > MaxIdentities {
		return nil, fmt.Errorf("%d identities are given, one node can have %d: start another node for the rest", len(dirs), MaxIdentities)
	}
	for i, dir := range dirs {
		id := Identity{Dir: dir}
		if i > 0 {
			id = Other(network, dir)
		} else if id.load(network, func(path string) ([]byte, error) { return Key(path, filepath.Join(dir, PostFolder)) }); id.Err != nil {
			return nil, id.Err
		}
		for _, other := range all {
			if id.Signer != nil && other.Signer != nil && id.Signer.NodeID() == other.Signer.NodeID() {
				return nil, fmt.Errorf("%s and %s have the same key, of identity %s: give each identity once, and delete the copy", other.Dir, dir, id.Signer.NodeID().Short())
			}
		}
		all = append(all, id)
	}
	return all, nil
}

// Other loads the key in the folder of an identity that was made before; it makes none.
func Other(network types.GenesisID, dir string) Identity {
	id := Identity{Dir: dir}
	id.load(network, func(path string) ([]byte, error) {
		return readKey(path, func() ([]byte, error) {
			return nil, fmt.Errorf("%s is missing: restore it or make its disk available, or make a new identity by \"tweedle post init --key %s --dir %s\", and start the node again",
				path, path, filepath.Join(dir, PostFolder))
		})
	})
	return id
}

func (id *Identity) load(network types.GenesisID, key func(path string) ([]byte, error)) {
	seed, err := key(filepath.Join(id.Dir, IdentityFile))
	if err == nil {
		id.Signer, err = signing.NewSigner(seed, network)
	}
	id.Err = err
}

// Key returns the seed in the key file of the smesher whose space is in a folder.
// It makes one, unless there is space: then its key is lost, and a new one could not use
// it. If we stop before a new one is durable, no space is bound to the identity yet and
// the next start makes another.
func Key(path, space string) ([]byte, error) {
	return readKey(path, func() ([]byte, error) {
		if _, err := os.Stat(filepath.Join(space, post.MetadataFile)); err == nil {
			return nil, fmt.Errorf("%s is missing and the space in %s belongs to it: restore the key from a backup, or move the space away to begin with a new identity", path, space)
		}
		return durable.RandomHex()
	})
}

func readKey(path string, missing func() ([]byte, error)) ([]byte, error) {
	text, err := durable.Secret(durable.OS{}, path, missing)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	seed, err := signing.ReadSeed(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return seed, nil
}
