package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tweedle/base/durable"
	"tweedle/edges/p2p"
	"tweedle/edges/smeshing"
	"tweedle/edges/store"
)

func nodeBackup() *cobra.Command {
	var dir, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Copy a node's keys and what it has signed, also while it runs",
		Long: `Writes the node's keys, its record of what it has signed (local.db), and what
describes its space, as they are at one moment, to a new file that only you can
read: a tar archive. The node may run or not. To restore, unpack it into an empty
directory and start the node on that:

  mkdir -m 700 DIR && tar -xpf FILE -C DIR && tweedle node --dir DIR ...

The labels of the space are not in it: keep them, or make them again with
tweedle post repair. The state comes from the network. A node that starts from
a backup signs nothing until the end of the next epoch: what was signed after the
backup is not in it. The other identities with which the node was last started
(--identity) are in the folders identities/ID: give each to the restored node, where
it is or moved to its labels. Never let two nodes run from the same key.`,
		Example: "  tweedle node backup --dir ~/node --out node-backup.tar",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" || out == "" {
				return usageError{errors.New("a backup needs --dir, the node's data directory, and --out, a new file")}
			}
			bytes, lost, err := backupNode(dir, out)
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(written{out, bytes})
			} else {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s holds keys and what was signed, %d bytes; to restore it: mkdir -m 700 DIR && tar -xpf %s -C DIR\n", out, bytes, shellWord(out))
			}
			if lost != nil {
				lost = fmt.Errorf("%s is without an identity of the node, make another when it can be read: %s", out, strings.ReplaceAll(lost.Error(), "\n", "; "))
			}
			return errors.Join(lost, err)
		},
	}
	f := cmd.Flags()
	pathVar(f, &dir, "dir", "", "", "the node's data directory (required)")
	pathVar(f, &out, "out", "", "", "file to write (required)")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// backupNode makes the file. If we stop anywhere, it is there whole or not at all; a
// copy of local.db without a name in the backup stays beside it at most. lost says which
// identities it is without.
func backupNode(dir, out string) (bytes int64, lost, err error) {
	if _, err := os.Stat(filepath.Join(dir, store.LocalFile)); err != nil {
		return 0, nil, fmt.Errorf("data directory: %w: name the directory of a node with --dir", err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(out), ".tweedle-backup-")
	if err != nil {
		return 0, nil, err
	}
	defer os.RemoveAll(temp) // it holds a copy; the next backup makes its own
	local := filepath.Join(temp, store.LocalFile)
	if err := store.CopyLocal(dir, local); err != nil {
		return 0, nil, err
	}
	files, lost := smeshing.Kept(dir, p2p.KeyName, p2p.PeersName)
	err = durable.NewFile(durable.OS{}, out, 0o600, func(w io.Writer) error {
		count := &counter{w: w}
		defer func() { bytes = count.n }()
		t := tar.NewWriter(count)
		for _, f := range append([]smeshing.Keep{{Path: local, Name: store.LocalFile}}, files...) {
			if err := durable.AddFileToTar(t, f.Name, f.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return t.Close()
	})
	if errors.Is(err, os.ErrExist) {
		return 0, nil, fmt.Errorf("%s exists: choose another file with --out, a backup is never overwritten", out)
	}
	return bytes, lost, err
}
