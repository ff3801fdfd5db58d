package rounds

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"tweedle/base/durable"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
)

// Backup writes a tar archive with the server's key and database as they are at
// one moment. Unpacked, it is a data directory that a server goes on from. The
// rounds' journals are not in it: a round that executes would start anew.
//
// However slowly w takes it, the database is read only as long as the disk needs for
// a copy, which is there until Backup returns: a read that lasts would hold up
// registrations as soon as the database has to grow.
func (s *Service) Backup(w io.Writer) error {
	if st := s.Storage(); st.Free < st.Database+st.Needed {
		return fmt.Errorf("backup: %w: it needs %d bytes for a copy of the database beside what a round needs, and %d are free", poet.ErrDiskFull, st.Database+st.Needed, st.Free)
	}
	// If we stop before it has no name, an empty file stays that nobody reads.
	db, err := os.CreateTemp(s.cfg.Dir, "backup-*.tmp")
	if err != nil {
		return err
	}
	defer db.Close()
	if err := os.Remove(db.Name()); err != nil {
		return err
	}
	err = s.book.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(db)
		return err
	})
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return archive(w, base64.StdEncoding.AppendEncode(nil, s.key), db)
}

// BackupStopped does the same where no server runs, and changes nothing there.
func BackupStopped(dir string, w io.Writer) error {
	// Where no server ever ran there is no lock to take, and none is left behind.
	lock := filepath.Join(dir, durable.LockName)
	_, unused := os.Stat(lock)
	if unused == nil {
		held, err := durable.Lock(dir)
		if err != nil {
			return err
		}
		defer held.Close()
	}
	key, err := durable.ReadFile(durable.OS{}, filepath.Join(dir, IdentityName), 1<<10)
	if err != nil {
		return err
	}
	db, err := os.Open(filepath.Join(dir, book.DatabaseName))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := archive(w, key, db); err != nil {
		return err
	}
	if _, err := os.Stat(lock); unused != nil && err == nil {
		return fmt.Errorf("backup: a server was started on %s meanwhile: make it again", dir)
	}
	return nil
}

// archive writes a key and a whole file.
func archive(w io.Writer, key []byte, db *os.File) error {
	info, err := db.Stat()
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	key = append(bytes.TrimSpace(key), '\n')
	err = errors.Join(
		durable.AddToTar(t, IdentityName, int64(len(key)), bytes.NewReader(key)),
		durable.AddToTar(t, book.DatabaseName, info.Size(), io.NewSectionReader(db, 0, info.Size())), t.Close())
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}
