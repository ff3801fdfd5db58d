package testnet

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tweedle/base/durable"
	"tweedle/base/telemetry"
	"tweedle/edges/p2p"
)

// A snapshot is everything of a testnet that is down, in one compressed tar file: plan, network,
// wallets, and the folder of each process. What a file is called there is its name in the
// testnet's folder. A testnet that is loaded goes on as if it had been down since: with the same
// genesis, after the epochs that it missed.

// notKept are files that belong to a run: addresses and peers of one that is loaded are its own,
// so that it does not find the one that it is a copy of.
func notKept(name string) bool {
	base := filepath.Base(name)
	return name == socketFile || base == durable.LockName || slices.Contains([]string{recordFile, telemetry.EndpointsFile, p2p.PeersName, watchURL}, base)
}

// Save writes a snapshot of the testnet in dir, which must be down, to a new file that only its
// owner can read, and returns its size in bytes.
func Save(dir, out string) (size int64, err error) {
	d, err := openDir(dir)
	if err != nil {
		return 0, err
	}
	locked, err := lockDir(string(d))
	if err != nil {
		return 0, err // it names `down`
	}
	defer locked.unlock()
	if inside, err := filepath.Rel(string(d), absolute(out)); err == nil && filepath.IsLocal(inside) {
		return 0, fmt.Errorf("%s is in the testnet's own directory: choose another file", out)
	}
	// If we stop before it is durable, there is no file.
	err = durable.NewFile(durable.OS{}, out, 0o600, func(w io.Writer) error {
		zipped, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			return err
		}
		t := tar.NewWriter(zipped)
		if err := d.addAll(t); err != nil {
			return err
		}
		return errors.Join(t.Close(), zipped.Close())
	})
	if errors.Is(err, os.ErrExist) {
		return 0, fmt.Errorf("%s exists: choose another file, a snapshot is never overwritten", out)
	}
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(out)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func (d directory) addAll(t *tar.Writer) error {
	return filepath.WalkDir(string(d), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(string(d), path)
		if err != nil || e.IsDir() || notKept(name) || !isOurs(strings.Split(name, string(filepath.Separator))[0]) {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file: move it away", path)
		}
		return durable.AddFileToTar(t, name, path)
	})
}

// loading ends the name of a folder in which a snapshot is unpacked.
const loading = ".loading"

// Load makes the testnet of a snapshot in dir, which must not be there or be empty. It is there
// whole or not at all.
func Load(file, dir string) error {
	dir = absolute(dir)
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty: choose another --dir", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return directory(dir).explain(err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return directory(dir).explain(err)
	}
	// What an earlier load has left is of no use: it did not end.
	temp := dir + loading
	if err := errors.Join(os.RemoveAll(temp), os.Mkdir(temp, 0o700)); err != nil {
		return directory(dir).explain(err)
	}
	defer os.RemoveAll(temp) // after the move it is not there
	if err := unpack(bufio.NewReader(f), temp); err != nil {
		if durable.IsFull(err) {
			return directory(dir).explain(err)
		}
		return fmt.Errorf("%s is no whole snapshot (%w): save it again", file, err)
	}
	if _, err := directory(temp).loadPlan(); err != nil {
		return fmt.Errorf("%s is no snapshot of a testnet: %w", file, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return directory(dir).explain(err)
	}
	if err := syncFolders(temp); err != nil {
		return directory(dir).explain(err)
	}
	// Each file and each folder is synced by now. If we stop before this, there is no testnet.
	if err := os.Rename(temp, dir); err != nil {
		return directory(dir).explain(err)
	}
	return durable.OS{}.SyncDir(filepath.Dir(dir))
}

// syncFolders makes durable which files the folders below one have.
func syncFolders(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return durable.OS{}.SyncDir(path)
	})
}

// unpack reads to the end, where the checksum of the whole is.
func unpack(r io.Reader, to string) error {
	zipped, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(to) // no name leads out of it
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(zipped); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, zipped)
			return err
		}
		if err != nil {
			return err
		}
		name := filepath.FromSlash(h.Name)
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(name) || !isOurs(strings.Split(h.Name, "/")[0]) || notKept(name) {
			return fmt.Errorf("%.80q does not belong to a testnet", h.Name)
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := write(root, name, t); err != nil {
			return err
		}
	}
}

func write(root *os.Root, name string, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
