package durable

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"time"
)

// AddToTar adds a file to a backup, which only its owner may read once it is unpacked.
// size is in bytes, and content has as many.
func AddToTar(t *tar.Writer, name string, size int64, content io.Reader) error {
	err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: time.Now(), Format: tar.FormatPAX})
	if err == nil {
		_, err = io.CopyN(t, content, size)
	}
	return err
}

// AddFileToTar adds the file at a path, under a name of the operating system's form.
func AddFileToTar(t *tar.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return AddToTar(t, filepath.ToSlash(name), info.Size(), f)
}
