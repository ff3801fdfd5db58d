package smeshing

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"tweedle/base/durable"
	"tweedle/proofs/post"
	"tweedle/values/types"
)

// identitiesFile lists the folders of a node's other identities, for Kept.
const (
	identitiesFile    = "identities.json"
	maxIdentitiesFile = 1 << 20 // bytes
)

// OthersFolder has, in a copy of what a node keeps, a folder for each of its other identities.
const OthersFolder = "identities"

// Keep is a file that nobody else has: where it is, and its name in a copy of the
// node's folder.
type Keep struct{ Path, Name string }

// Kept are the files that nobody else has of the identity in a node's folder, and of the other
// identities with which it was last started, after those that are named in the node's. Those that
// are not there belong to what the node does not do. It returns an error with them if the key of another identity
// cannot be read: then nothing of that one is among them.
func Kept(dir string, named ...string) (files []Keep, err error) {
	own := []string{IdentityFile, filepath.Join(PostFolder, post.MetadataFile)}
	for _, name := range slices.Concat(named, own) {
		files = append(files, Keep{filepath.Join(dir, name), name})
	}
	others, err := readIdentities(dir)
	for _, other := range others {
		id := Other(types.GenesisID{}, other)
		if id.Err != nil {
			err = errors.Join(err, fmt.Errorf("identity in %s: %w", other, id.Err))
			continue
		}
		for _, name := range own {
			files = append(files, Keep{filepath.Join(other, name), filepath.Join(OthersFolder, id.Signer.NodeID().Short(), name)})
		}
	}
	return files, err
}

func readIdentities(dir string) (dirs []string, err error) {
	path := filepath.Join(dir, identitiesFile)
	b, err := durable.ReadFile(durable.OS{}, path, maxIdentitiesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a node with one identity has none
	}
	if err == nil {
		if err = json.Unmarshal(b, &dirs); err != nil {
			err = fmt.Errorf("%s is damaged (%w): the node writes it again when it starts", path, err)
		}
	}
	return dirs, err
}

// NoteIdentities writes down in a node's folder with which other identities it smeshes, for who makes
// a copy.
func NoteIdentities(dir string, identities []string) error {
	dirs := []string{}
	for _, dir := range identities {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		dirs = append(dirs, dir)
	}
	if old, err := readIdentities(dir); err == nil && slices.Equal(old, dirs) {
		return nil
	}
	b, err := json.Marshal(dirs)
	if err != nil {
		return err
	}
	// If we stop before this is durable, the next start writes it.
	return durable.WriteFile(durable.OS{}, filepath.Join(dir, identitiesFile), append(b, '\n'), 0o600)
}
