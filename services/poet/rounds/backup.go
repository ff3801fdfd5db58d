package rounds

import (
	"archive/tar"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/base/durable"
	"tweedle/services/poet/book"
)

// Backup writes a tar archive with the server's key and database as they are at
// one moment. Unpacked, it is a data directory that a server goes on from. The
// rounds' journals are not in it: a round that executes would start anew.
func (s *Service) Backup(w io.Writer) error {
	key := base64.StdEncoding.AppendEncode(nil, s.key)
	return s.book.DB().View(func(tx *bbolt.Tx) error {
		return archive(w, append(key, '\n'), tx.Size(), func(w io.Writer) error {
			_, err := tx.WriteTo(w)
			return err
		})
	})
}

// BackupStopped does the same where no server runs.
func BackupStopped(dir string, w io.Writer) error {
	lock, err := durable.Lock(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	key, err := durable.ReadFile(durable.OS{}, filepath.Join(dir, IdentityName), 1<<10)
	if err != nil {
		return err
	}
	db, err := os.Open(filepath.Join(dir, book.DatabaseName))
	if err != nil {
		return err
	}
	defer db.Close()
	info, err := db.Stat()
	if err != nil {
		return err
	}
	return archive(w, key, info.Size(), func(w io.Writer) error {
		_, err := io.Copy(w, db)
		return err
	})
}

func archive(w io.Writer, key []byte, size int64, database func(io.Writer) error) error {
	t := tar.NewWriter(w)
	add := func(name string, size int64, write func(io.Writer) error) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: time.Now(), Format: tar.FormatPAX}); err != nil {
			return err
		}
		return write(t)
	}
	err := add(IdentityName, int64(len(key)), func(w io.Writer) error { _, err := w.Write(key); return err })
	if err == nil {
		err = add(book.DatabaseName, size, database)
	}
	if err := errors.Join(err, t.Close()); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}
