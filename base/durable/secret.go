package durable

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxSecret bounds a key file, in bytes.
const maxSecret = 64 << 10

// Secret returns the content of a key file, without the white space around it.
// If there is no such file it makes one of mode 0600 with what generate returns,
// durably. A file that is there is never replaced, nor is a link that leads
// nowhere; of two processes that make one at once, both get the same. On the machine's
// disk one that others may read is refused.
func Secret(fs FS, path string, generate func() ([]byte, error)) ([]byte, error) {
	if _, machine := fs.(OS); machine {
		if err := Private(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	content, err := ReadFile(fs, path, maxSecret)
	if errors.Is(err, os.ErrNotExist) {
		content, err = makeSecret(fs, path, generate)
	}
	return bytes.TrimSpace(content), err
}

func makeSecret(fs FS, path string, generate func() ([]byte, error)) ([]byte, error) {
	content, err := generate()
	if err != nil {
		return nil, err
	}
	err = NewSecret(fs, path, content)
	if err == nil {
		return content, nil
	}
	if !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	content, err = ReadFile(fs, path, maxSecret)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is a link: make the place that it leads to available, or remove the link to get a new key", err)
	}
	return content, err
}

// Private returns an error if others than its owner may read a file.
func Private(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("others can read %s: run chmod 600 on it", path)
	}
	return err
}

// RandomHex is a key for [Secret]: 32 random bytes in hexadecimal.
func RandomHex() ([]byte, error) {
	key := make([]byte, 32)
	rand.Read(key) //nolint:errcheck // it never fails
	return hex.AppendEncode(nil, key), nil
}

// NewSecret makes a file of mode 0600 with content and a line end, durably. The
// error is os.ErrExist if the name is taken; then nothing is changed.
func NewSecret(fs FS, path string, content []byte) error {
	return NewFile(fs, path, 0o600, func(w io.Writer) error {
		_, err := w.Write(append(bytes.Clone(content), '\n'))
		return err
	})
}

// NewFile makes a file of what write writes, durably: it is there whole or not at
// all. The error is os.ErrExist if the name is taken; then nothing is changed.
func NewFile(fs FS, path string, mode os.FileMode, write func(io.Writer) error) error {
	// Another process may do the same at this moment.
	temp := path + "." + rand.Text()[:8] + tempSuffix
	err := writeSynced(fs, temp, mode, write)
	if err == nil {
		// If we stop here, nobody has seen what is in the temporary file.
		err = fs.Move(temp, path)
	}
	if err != nil {
		fs.Remove(temp) //nolint:errcheck // if it stays, nobody uses it
		return fmt.Errorf("write %s: %w", path, err)
	}
	// If we stop here, a start finds the file, whole, or none.
	if err := fs.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
