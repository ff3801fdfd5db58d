package testnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tweedle/base/durable"
	"tweedle/edges/preset"
)

// directory is where a testnet keeps everything:
//
//	LOCK          held while an `up` runs
//	control.sock  where that `up` takes commands
//	testnet.json  the plan: which processes, of which preset
//	network.json  the network's parameters and genesis balances
//	wallets/      keys of the faucet and of each node's coinbase
//	watch/        configuration and data of the watch, if there is one
//	NAME/         one process: its own data, and
//	NAME/log             what it printed
//	NAME/process.json    its Record
//	NAME/endpoints.json  written by the process
//	NAME/crashes/        what is known of its deaths, if somebody watches
type directory string

const (
	socketFile  = "control.sock"
	planFile    = "testnet.json"
	networkFile = preset.File
	walletsDir  = "wallets"
	recordFile  = "process.json"
	logFile     = "log"
)

func (d directory) path(parts ...string) string {
	return filepath.Join(append([]string{string(d)}, parts...)...)
}

// lockedDir is a directory that belongs to this process until unlock.
type lockedDir struct {
	directory
	lock io.Closer
}

// lockDir makes the directory and takes its lock, which the kernel frees with
// its holder: nothing has to be cleaned up after a kill -9.
func lockDir(path string) (*lockedDir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", path, err)
	}
	d := directory(abs)
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, d.explain(err)
	}
	lock, err := durable.Lock(abs)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("a testnet runs in %s: stop it with `tweedle testnet down --dir %s`, or choose another --dir", abs, abs)
	}
	if err != nil {
		return nil, d.explain(err)
	}
	return &lockedDir{directory: d, lock: lock}, nil
}

func (d *lockedDir) unlock() { d.lock.Close() }

// explain turns the errors of the file system into what to do about them.
func (d directory) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("cannot write to %s: choose a directory of yours with --dir (%w)", d, err)
	case durable.IsFull(err):
		return fmt.Errorf("the disk of %s is full: free some space, or choose another --dir (%w)", d, err)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s is no directory: choose another --dir (%w)", d, err)
	}
	return fmt.Errorf("testnet directory: %w", err)
}

// spacePerProcess is what a process of a local testnet fills in its first
// hours, in bytes: asked for at start, so that a nearly full disk is told
// before it breaks a process.
const spacePerProcess = 8 << 20

// checkSpace tells whether the disk has room for n processes.
func (d directory) checkSpace(n int) error {
	free, err := durable.OS{}.Free(string(d))
	if err != nil {
		return d.explain(err)
	}
	if need := uint64(n) * spacePerProcess; free < need {
		return fmt.Errorf("the disk of %s has %d MiB left, %d processes need %d MiB: free some space, or choose another --dir",
			d, free>>20, n, need>>20)
	}
	return nil
}

// checkForeign refuses a directory with files that no testnet made. Without a
// plan that is every file: a network file or the folder of a node would be
// somebody else's.
func (d directory) checkForeign() error {
	planned := d.isTestnet()
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return d.explain(err)
	}
	for _, e := range entries {
		name := e.Name()
		if name != durable.LockName && (!planned || !isOurs(name)) {
			return fmt.Errorf("%s holds other files (%s): choose an empty directory with --dir", d, name)
		}
	}
	return nil
}

// isOurs tells whether a testnet makes a file of this name.
func isOurs(name string) bool {
	switch name {
	case socketFile, planFile, networkFile, walletsDir, watchName:
		return true
	}
	return Node.number(name) > 0 || Poet.number(name) > 0
}

// clear deletes an ended testnet. The plan goes last, so that a clear which was
// cut short is still seen as a testnet.
func (d *lockedDir) clear() error {
	if err := d.checkForeign(); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(d.directory))
	if err != nil {
		return d.explain(err)
	}
	for _, e := range entries {
		if e.Name() == durable.LockName || e.Name() == planFile {
			continue
		}
		if err := os.RemoveAll(d.path(e.Name())); err != nil {
			return d.explain(err)
		}
	}
	if err := os.Remove(d.path(planFile)); err != nil {
		return d.explain(err)
	}
	return nil
}

// save writes a value as JSON, durably.
func (d directory) save(v any, parts ...string) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(durable.OS{}, d.path(parts...), append(b, '\n'), 0o600); err != nil {
		return d.explain(err)
	}
	return nil
}

// maxStateFile bounds the files read back, in bytes.
const maxStateFile = 1 << 20

// load reads what save wrote.
func (d directory) load(v any, parts ...string) error {
	path := d.path(parts...)
	b, err := durable.ReadFile(durable.OS{}, path, maxStateFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is damaged (%w): start anew with --fresh", path, err)
	}
	return nil
}

// socketPath returns a name for the control socket that fits into a socket
// address, which holds about 100 bytes, and a function that ends its use.
func (d directory) socketPath() (string, func(), error) {
	path := d.path(socketFile)
	if len(path) < maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(string(d))
	if err != nil {
		return "", nil, err
	}
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketFile)
	if _, err := os.Stat(filepath.Dir(short)); err != nil {
		dir.Close()
		return "", nil, fmt.Errorf("%s is too long a name for this system: choose a --dir of less than %d characters",
			d, maxSocketPath-len(socketFile)-1)
	}
	return short, func() { dir.Close() }, nil
}

// maxSocketPath is below sun_path of every system we know.
const maxSocketPath = 100

// isTestnet tells whether a testnet was ever started in the directory.
func (d directory) isTestnet() bool {
	_, err := os.Stat(d.path(planFile))
	return err == nil
}

// openDir returns the directory of a testnet that was started before.
func openDir(path string) (directory, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("directory %s: %w", path, err)
	}
	d := directory(abs)
	if !d.isTestnet() {
		return "", fmt.Errorf("no testnet in %s: start one with `tweedle testnet up --dir %s`, or name its --dir", abs, abs)
	}
	return d, nil
}
